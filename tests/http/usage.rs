//! What a stream has used is settled once, and its bytes are passed on as they came.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, Response,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use tower_keep::protocol::http::usage::{
    self, End, Shape, Unread, Usage, UsageField, UsageReport, anthropic, openai,
};

/// Runs a future that waits for nothing.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().unwrap().block_on(future)
}

/// Frames, and then maybe an error.
struct Frames {
    frames: std::vec::IntoIter<Bytes>,
    fails: bool,
    trailers: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        if let Some(frame) = self.frames.next() {
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        if std::mem::take(&mut self.trailers) {
            return Poll::Ready(Some(Ok(Frame::trailers(HeaderMap::new()))));
        }
        Poll::Ready(std::mem::take(&mut self.fails).then_some(Err("reset")))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

type Reports = Arc<Mutex<Vec<UsageReport>>>;

fn response<B>(kind: &str, body: B) -> Response<B> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, kind.parse().unwrap());
    response
}

fn metered<B: Body<Data = Bytes>>(
    response: Response<B>,
    shape: Shape,
) -> (impl Body<Data = Bytes, Error = B::Error>, Reports) {
    let reports = Reports::default();
    let log = reports.clone();
    let response = usage::meter(response, shape, move |report| {
        log.lock().unwrap().push(report);
    });
    (response.into_body(), reports)
}

/// Reads all frames, and tells the one report, and the bytes.
fn read_frames(
    kind: &str,
    frames: Vec<Bytes>,
    fails: bool,
    shape: Shape,
) -> (UsageReport, Vec<Bytes>) {
    let body = Frames {
        frames: frames.into_iter(),
        fails,
        trailers: !fails,
    };
    let (body, reports) = metered(response(kind, body), shape);
    let passed = block_on(async {
        let mut body = std::pin::pin!(body);
        let mut passed = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            passed.extend(frame.into_data().ok());
        }
        passed
    });
    let reports = reports.lock().unwrap();
    assert_eq!(reports.len(), 1, "{reports:?}");
    (reports[0], passed)
}

fn read(kind: &str, text: &str, shape: Shape) -> UsageReport {
    read_frames(kind, vec![text.to_owned().into()], false, shape).0
}

fn numbers(report: UsageReport) -> (Option<u64>, Option<u64>) {
    let usage = report.usage.unwrap_or_default();
    (usage.input, usage.output)
}

const STREAM: &str = "text/event-stream; charset=utf-8";
const JSON: &str = "application/json";

const OPENAI: &str = "data: {\"id\":\"1\",\"choices\":[{\"delta\":{\"content\":\"Gr\u{fc}\u{df} dich\"}}],\"usage\":null}\n\n\
    : keep-alive\n\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":34,\"total_tokens\":46,\
    \"prompt_tokens_details\":{\"cached_tokens\":8},\"completion_tokens_details\":{\"reasoning_tokens\":5}}}\n\n\
    data: [DONE]\n\n";

const ANTHROPIC: &str = "event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\
    \"usage\":{\"input_tokens\":25,\"cache_read_input_tokens\":7,\"output_tokens\":1}}}\r\n\r\n\
    event: content_block_delta\r\ndata: {\"type\":\"content_block_delta\",\r\ndata: \"delta\":{\"text\":\"\u{1f600}\"}}\r\n\r\n\
    event: message_delta\r\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":15,\"input_tokens\":0}}\r\n\r\n\
    event: message_stop\r\ndata: {\"type\":\"message_stop\"}\r\n\r\n";

#[test]
fn openai_tells_the_usage_in_one_event() {
    let report = read(STREAM, OPENAI, openai());
    assert_eq!(report.end, End::Complete);
    let usage = report.usage.unwrap();
    assert_eq!(
        (usage.input, usage.output, usage.cached, usage.reasoning),
        (Some(12), Some(34), Some(8), Some(5))
    );
    assert_eq!(report.bytes, OPENAI.len() as u64);
}

#[test]
fn anthropic_tells_it_in_two_field_by_field() {
    let report = read(STREAM, ANTHROPIC, anthropic());
    assert_eq!(report.end, End::Complete);
    assert_eq!(numbers(report), (Some(25), Some(15)));
    assert_eq!(report.usage.unwrap().cached, Some(7));
}

#[test]
fn totals_in_each_event_are_not_added_up() {
    let event = |n: u32| {
        format!("data: {{\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":{n}}}}}\n\n")
    };
    let text: String = (1..=40)
        .map(event)
        .chain(["data: [DONE]\n\n".into()])
        .collect();
    assert_eq!(numbers(read(STREAM, &text, openai())), (Some(9), Some(40)));
}

#[test]
fn a_body_of_json_is_read_to_its_end() {
    let chat = r#"{"choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":99}"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    let report = read(JSON, chat, openai());
    assert_eq!(
        (report.end, numbers(report)),
        (End::Complete, (Some(1), Some(2)))
    );
    let message = r#"{"type":"message","usage":{"input_tokens":3,"output_tokens":4}}"#;
    assert_eq!(
        numbers(read(JSON, message, anthropic())),
        (Some(3), Some(4))
    );
    let responses = "event: response.completed\ndata: {\"response\":{\"error\":null,\"usage\":{\"input_tokens\":5,\"output_tokens\":6}}}\n\n";
    let report = read(STREAM, responses, openai());
    assert_eq!(
        (report.end, numbers(report)),
        (End::Complete, (Some(5), Some(6)))
    );
}

#[test]
fn a_usage_that_never_comes_is_none() {
    let report = read(
        STREAM,
        "data: {\"choices\":[]}\n\ndata: [DONE]\n\n",
        openai(),
    );
    assert_eq!((report.end, report.usage), (End::Complete, None));
    assert_eq!(read(JSON, "{}", openai()).usage, None);
}

#[test]
fn an_absurd_usage_is_none() {
    let event = |tokens: &str| {
        format!("data: {{\"usage\":{{\"completion_tokens\":{tokens}}}}}\n\ndata: [DONE]\n\n")
    };
    for tokens in ["9".repeat(39), u64::MAX.to_string(), "1e17".into()] {
        let report = read(STREAM, &event(&tokens), openai());
        assert_eq!((report.end, report.usage), (End::Complete, None));
        // It replaces none that was reported before.
        let both = format!(
            "{}{}",
            event("7").replace("data: [DONE]\n\n", ""),
            event(&tokens)
        );
        assert_eq!(numbers(read(STREAM, &both, openai())).1, Some(7));
    }
}

#[test]
fn an_error_within_a_200_is_told() {
    let error =
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
    let begun = &ANTHROPIC[..ANTHROPIC.find("event: message_delta").unwrap()];
    let report = read(STREAM, &format!("{begun}{error}"), anthropic());
    assert_eq!(
        (report.end, numbers(report)),
        (End::ErrorEvent, (Some(25), Some(1)))
    );
    let report = read(
        STREAM,
        "data: {\"error\":{\"message\":\"busy\"}}\n\n",
        openai(),
    );
    assert_eq!(report.end, End::ErrorEvent);
    assert_eq!(read(JSON, "{\"error\":{}}", openai()).end, End::ErrorEvent);
    assert_eq!(read(JSON, "{\"error\":null}", openai()).end, End::Complete);
}

#[test]
fn a_text_is_an_error_as_an_object_is() {
    let long = "The engine is overloaded, please try again in a while. ".repeat(20);
    for (error, end) in [
        ("busy", End::ErrorEvent),
        (&long, End::ErrorEvent),
        ("", End::Complete),
    ] {
        let text = format!("{{\"error\":\"{error}\"}}");
        assert_eq!(read(JSON, &text, openai()).end, end, "{error:?}");
        let text = format!("data: {text}\n\ndata: [DONE]\n\n");
        assert_eq!(read(STREAM, &text, openai()).end, end, "{error:?}");
    }
}

#[test]
fn an_event_without_a_name_has_that_in_its_data() {
    let unnamed = |text: &str| -> String {
        let lines = text.lines().filter(|line| !line.starts_with("event:"));
        lines.flat_map(|line| [line, "\n"]).collect()
    };
    let report = read(STREAM, &unnamed(ANTHROPIC), anthropic());
    assert_eq!(
        (report.end, numbers(report)),
        (End::Complete, (Some(25), Some(15)))
    );
    let completed = "data: {\"response\":{\"usage\":{\"output_tokens\":6}},\"type\":\"response.completed\"}\n\n";
    let report = read(STREAM, completed, openai());
    assert_eq!((report.end, numbers(report).1), (End::Complete, Some(6)));
    let failed = "data: {\"type\":\"error\",\"message\":\"busy\"}\n\n";
    assert_eq!(read(STREAM, failed, openai()).end, End::ErrorEvent);
    // A name of its own counts, and a `type` further in does not.
    for begun in [
        "event: ping\ndata: {\"type\":\"message_stop\"}\n\n",
        "data: {\"delta\":{\"type\":\"message_stop\"}}\n\n",
    ] {
        assert_eq!(read(STREAM, begun, anthropic()).end, End::Cut);
    }
}

#[test]
fn a_cut_settles_what_was_told() {
    let begun = &ANTHROPIC[..ANTHROPIC.find("event: message_stop").unwrap()];
    for fails in [false, true] {
        let frames = vec![begun.to_owned().into()];
        let (report, _) = read_frames(STREAM, frames, fails, anthropic());
        assert_eq!(
            (report.end, numbers(report)),
            (End::Cut, (Some(25), Some(15)))
        );
    }
}

#[test]
fn the_end_of_a_body_ends_its_last_event() {
    let usage = "data: {\"usage\":{\"completion_tokens\":7}}\n\n";
    for last in ["data: [DONE]\n", "data: [DONE]"] {
        let report = read(STREAM, &format!("{usage}{last}"), openai());
        assert_eq!((report.end, numbers(report).1), (End::Complete, Some(7)));
    }
    let report = read(STREAM, ANTHROPIC.trim_end(), anthropic());
    assert_eq!(report.end, End::Complete);
    let text = |event: usage::Event<'_>| std::str::from_utf8(event.data).ok()?.parse().ok();
    let shape = Shape::by(move |event| {
        let mut usage = Usage::default();
        usage.output = Some(text(event)?);
        Some(usage)
    });
    // A body that fails, or that its reader drops, does not end its last event.
    for (fails, output) in [(false, Some(7)), (true, Some(1))] {
        let frames = vec![Bytes::from_static(b"data: 1\n\ndata: 7\n")];
        let (report, _) = read_frames(STREAM, frames, fails, shape.clone());
        assert_eq!(numbers(report).1, output);
    }
    let (report, _) = read_frames(STREAM, vec!["data: [DONE]\n".into()], true, openai());
    assert_eq!(report.end, End::Cut);
    // Half a number is none, and half an event is not the last one.
    let half =
        "event: response.completed\ndata: {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":12";
    let report = read(STREAM, half, openai());
    assert_eq!((report.end, numbers(report)), (End::Cut, (Some(7), None)));
}

#[test]
fn a_reader_that_leaves_settles_too() {
    let frames = vec![
        Bytes::from_static(&ANTHROPIC.as_bytes()[..200]),
        Bytes::new(),
    ];
    let body = Frames {
        frames: frames.into_iter(),
        fails: false,
        trailers: false,
    };
    let (body, reports) = metered(response(STREAM, body), anthropic());
    let mut body = Box::pin(body);
    block_on(async { body.frame().await.unwrap().unwrap() });
    assert!(reports.lock().unwrap().is_empty());
    drop(body);
    let report = reports.lock().unwrap()[0];
    assert_eq!(
        (report.end, numbers(report)),
        (End::Left, (Some(25), Some(1)))
    );
}

#[test]
fn a_reader_that_has_all_of_a_known_length_may_leave() {
    let body = Full::new(Bytes::from_static(b"{\"usage\":{\"prompt_tokens\":1}}"));
    let (body, reports) = metered(response(JSON, body), openai());
    let mut body = Box::pin(body);
    block_on(async { body.frame().await.unwrap().unwrap() });
    drop(body);
    let report = reports.lock().unwrap()[0];
    assert_eq!(
        (report.end, numbers(report)),
        (End::Complete, (Some(1), None))
    );
}

#[test]
fn the_last_event_settles_before_the_body_ends() {
    let body = Frames {
        frames: vec![
            Bytes::from_static(OPENAI.as_bytes()),
            Bytes::from_static(b": bye\n\n"),
        ]
        .into_iter(),
        fails: true,
        trailers: false,
    };
    let (body, reports) = metered(response(STREAM, body), openai());
    let mut body = Box::pin(body);
    block_on(async { body.frame().await.unwrap().unwrap() });
    assert_eq!(reports.lock().unwrap().len(), 1);
    let rest = block_on(body.collect());
    assert!(rest.is_err(), "what follows is passed on");
    assert_eq!(reports.lock().unwrap().len(), 1);
}

#[test]
fn what_cannot_be_read_says_why() {
    let mut packed = response(STREAM, Full::new(Bytes::from_static(b"\x1f\x8b")));
    packed
        .headers_mut()
        .insert(CONTENT_ENCODING, "gzip".parse().unwrap());
    let (body, reports) = metered(packed, openai());
    let bytes = block_on(body.collect()).unwrap().to_bytes();
    assert_eq!(&*bytes, b"\x1f\x8b");
    let report = reports.lock().unwrap()[0];
    assert_eq!(
        (report.end, report.unread),
        (End::Complete, Some(Unread::Compressed))
    );
    let report = read("audio/mpeg", "{\"usage\":{\"prompt_tokens\":1}}", openai());
    assert_eq!(
        (report.unread, report.usage),
        (Some(Unread::OtherType), None)
    );
}

#[test]
fn a_closure_reads_events_and_long_ones_are_counted() {
    let shape = Shape::by(|event| {
        let mut usage = Usage::default();
        let text = std::str::from_utf8(event.data).ok()?;
        usage.money = text.strip_prefix("cost ")?.parse().ok();
        (event.name == b"bill").then_some(usage)
    })
    .max_event(30);
    let long = "x".repeat(100);
    let text = format!(
        "event: bill\ndata: cost 7\n\ndata: cost 99\n\nevent: bill\ndata: {long}\n\ndata: {long}\n\n"
    );
    let report = read(STREAM, &text, shape.clone());
    assert_eq!(report.usage.unwrap().money, Some(7));
    assert_eq!((report.overlong, report.end), (2, End::Complete));
}

#[test]
fn a_path_of_ones_own_is_read() {
    let shape = openai().field("meta.cost_micros", UsageField::Money);
    let report = read(JSON, r#"{"meta":{"cost_micros":1234567890123}}"#, shape);
    assert_eq!(report.usage.unwrap().money, Some(1_234_567_890_123));
}

/// A stream without an end, of one event, takes no memory that anybody could see grow.
#[test]
fn a_hostile_stream_is_read_in_constant_memory() {
    let deep = Bytes::from("{\"a\":[".repeat(10_000));
    let frames: Vec<_> = std::iter::once(Bytes::from_static(b"data: "))
        .chain(std::iter::repeat_n(deep, 100))
        .chain([Bytes::from_static(
            b"\n\ndata: {\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n",
        )])
        .collect();
    let (report, passed) = read_frames(STREAM, frames.clone(), false, openai());
    assert_eq!(
        (report.end, numbers(report)),
        (End::Complete, (Some(1), None))
    );
    assert_eq!(passed, frames);
}

#[test]
fn infallible_bodies_work() {
    fn is_body(_: &impl Body<Data = Bytes, Error = Infallible>) {}
    let response = response(JSON, Full::new(Bytes::new()));
    is_body(usage::meter(response, openai(), |_| {}).body());
}

/// Events of both dialects, with what real servers put between them.
fn events() -> impl Strategy<Value = String> {
    let event = prop_oneof![
        Just(": comment\n".to_owned()),
        Just("\n".to_owned()),
        Just("data: [DONE]\n\n".to_owned()),
        Just("data: [DONE]x\r\n\r\n".to_owned()),
        Just("event: error\r\ndata: {}\r\n\r\n".to_owned()),
        Just("event: message_stop\rdata: {}\r\r".to_owned()),
        Just("data: {\"error\":{\"m\":\"\u{e9}\"}}\n\n".to_owned()),
        Just("data: {\"type\":\ndata: \"message_stop\"}\n\n".to_owned()),
        "[a-z]{0,50}".prop_map(|text| format!("data: {{\"error\":\"{text}\"}}\r\r")),
        (0u32..99)
            .prop_map(|n| format!("data: {{\"usage\":\ndata: {{\"prompt_tokens\":{n}}}}}\n\n")),
        (0u32..99).prop_map(|n| format!(
            "event:x\r\ndata:{{\"usage\":{{\"completion_tokens\":{n}}}}}\r\n\r\n"
        )),
        (0u32..99).prop_map(|n| format!(
            "data: {{\"message\":{{\"usage\":{{\"input_tokens\":{n}\r\n\r\n"
        )),
        "[\u{1f600}\u{e9}a:\r\n{}\"]{0,12}"
            .prop_map(|text| format!("data: {{\"t\":\"{text}\"}}\n\n")),
    ];
    proptest::collection::vec(event, 0..10).prop_map(|events| events.concat())
}

proptest! {
    #[test]
    fn any_split_settles_the_same_and_passes_all_bytes(
        text in events(),
        end: prop::sample::Index,
        is_whole: bool,
        places in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
        fails: bool,
        json: bool,
        by_closure: bool,
    ) {
        let kind = if json { JSON } else { STREAM };
        let mut shape = if text.len() % 2 == 0 { openai() } else { anthropic() };
        if by_closure {
            shape = Shape::by(|event| {
                let mut usage = Usage::default();
                usage.money = Some(event.data.len() as u64);
                Some(usage)
            });
        }
        // Some bodies end in the middle of an event.
        let mut whole = Bytes::from(text);
        whole.truncate(if is_whole { whole.len() } else { end.index(whole.len() + 1) });
        let mut places: Vec<_> = places.iter().map(|place| place.index(whole.len() + 1)).collect();
        places.extend([0, whole.len()]);
        places.sort_unstable();
        let frames: Vec<_> = places.windows(2).map(|pair| whole.slice(pair[0]..pair[1])).collect();
        let (split, passed) = read_frames(kind, frames.clone(), fails, shape.clone());
        let (one, _) = read_frames(kind, vec![whole], fails, shape);
        // A report at an event counts the bytes up to the end of that event's frame.
        let told = |report: UsageReport| (report.usage, report.end, report.unread, report.overlong);
        prop_assert_eq!(told(split), told(one));
        prop_assert_eq!(passed, frames);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for kind in [JSON, STREAM] {
            for shape in [openai(), anthropic(), Shape::by(|_| None)] {
                read_frames(kind, vec![bytes.clone().into()], false, shape);
            }
        }
    }
}
