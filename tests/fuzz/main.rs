//! Parsers of what comes from the wire and from files, fed with inputs that are mutated from good
//! ones: they never panic, and what they return keeps its promises.
//!
//! Inputs come from a corpus and a dictionary by a seed. No coverage guides them, so that no other
//! toolchain is needed. `TOWER_KEEP_FUZZ_SECONDS=60` is the time for each parser, a quarter of a
//! second by default, and `.ci/run` gives them more. A failure prints its input.

mod mutator;

use std::{convert::Infallible, fs, path::Path};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, StreamBody};
use tower::BoxError;
use tower_keep::{
    CarryDeadline, Deadline,
    keyed::{Host, Proxies, forwarded},
    protocol::{
        Protocol, grpc,
        http::{
            Client, Problem, Server, provider,
            usage::{self, UsageReport},
        },
    },
    replay::{Format, Log, LogOptions},
    settings::{self, ClientSettings},
};

use mutator::fuzz;

const TIMES: &[&[u8]] = &[
    b"120",
    b"0.5",
    b"Sun, 06 Nov 1994 08:49:37 GMT",
    b"Sunday, 06-Nov-94 08:49:37 GMT",
    b"Sun Nov  6 08:49:37 1994",
    b"2026-11-30T12:00:00Z",
    b"2026-11-30T12:00:00.123+01:00",
    b"6m0s",
    b"8.64s",
    b"20ms",
    b"1s",
];

const LIMITS: &[&[u8]] = &[
    b"\"api\";q=100;w=60, \"day\";q=1000;qu=\"requests\";pk=:cHsdsRa894==:",
    b"\"api\";r=3;t=40",
    b"limit=100, remaining=50, reset=5",
    b"default;r=50;t=30;x=@1659578233;y=%\"f%c3%bc\"",
    b"?1, 1.5, token/abc:d, (\"in\" 2);a",
];

#[test]
fn hints_of_responses_are_read() {
    let corpus: Vec<&[u8]> = [TIMES, LIMITS].concat();
    fuzz(&corpus, WIRE, |input| {
        let Ok(value) = HeaderValue::from_bytes(input) else {
            return;
        };
        for name in [
            "retry-after",
            "ratelimit",
            "ratelimit-policy",
            "ratelimit-reset",
            "x-ratelimit-reset",
            "retry-after-ms",
        ] {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            let name = HeaderName::from_static(name);
            response.headers_mut().insert(name, value.clone());
            let client = Client::new().provider(provider::aws());
            assert!(Protocol::<_, BoxError>::settle(&client, Ok(response), ()).is_ok());
        }
    });
}

#[test]
fn pushback_and_status_of_grpc_are_read() {
    let corpus: &[&[u8]] = &[b"14", b"0", b"16", b"-1", b"1000", b"%E2%98%83 busy", b"8"];
    fuzz(corpus, WIRE, |input| {
        let Ok(value) = HeaderValue::from_bytes(input) else {
            return;
        };
        for name in ["grpc-status", "grpc-message", "grpc-retry-pushback-ms"] {
            let mut response = Response::new(Full::<Bytes>::default());
            let headers = response.headers_mut();
            headers.insert("grpc-status", HeaderValue::from_static("14"));
            headers.insert(name, value.clone());
            let settled = Protocol::<_, BoxError>::settle(&grpc::Client::new(), Ok(response), ());
            assert!(settled.is_ok());
        }
    });
}

#[test]
fn fields_of_providers_are_read() {
    let corpus: Vec<&[u8]> = [TIMES, &[b"100", b"0", b"18446744073709551615"]].concat();
    fuzz(&corpus, WIRE, |input| {
        let Ok(value) = HeaderValue::from_bytes(input) else {
            return;
        };
        let mut headers = http::HeaderMap::new();
        for name in [
            "x-ratelimit-limit-tokens",
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-tokens",
            "anthropic-ratelimit-tokens-reset",
            "date",
        ] {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
        for provider in [provider::openai(), provider::anthropic(), provider::aws()] {
            let _ = provider.read(&headers);
        }
    });
}

#[test]
fn deadlines_are_read() {
    let corpus: &[&[u8]] = &[b"100m", b"1S", b"99999999H", b"5000000u", b"1n", b"250"];
    let server = Server::new().read_deadline(true);
    fuzz(corpus, b"HMSmun0123456789 -+.e", |input| {
        let Ok(value) = HeaderValue::from_bytes(input) else {
            return;
        };
        for name in ["grpc-timeout", "x-envoy-expected-rq-timeout-ms"] {
            let request = Request::get("/").header(name, &value).body(()).unwrap();
            // A time that the clock does not reach is cut, and not an overflow.
            let _ = server.deadline(&request).map(Deadline::remaining);
        }
    });
}

#[test]
fn clients_behind_proxies_are_found() {
    let corpus: &[&[u8]] = &[
        b"203.0.113.195, 2001:db8:85a3::8a2e:370:7334, 198.51.100.178",
        b"for=192.0.2.60;proto=http;by=203.0.113.43, for=\"[2001:db8:cafe::17]:4711\"",
        b"For=\"_gazonk\", for=unknown",
        b"[::1]:80",
    ];
    let plain = forwarded(Proxies::hops(1));
    let rfc = forwarded(Proxies::hops(2).rfc_7239());
    fuzz(corpus, b",;=\"[]:. for_\\", |input| {
        let Ok(value) = HeaderValue::from_bytes(input) else {
            return;
        };
        let request = Request::get("/")
            .header("x-forwarded-for", &value)
            .header("forwarded", &value)
            .body(())
            .unwrap();
        let _ = (plain(&request), rfc(&request));
    });
}

#[test]
fn hosts_are_read_as_they_are_written() {
    let corpus: &[&[u8]] = &[
        b"Example.COM:443",
        b"http://user:secret@[2001:DB8::1]:80/path",
        b"0x7f.1",
        b"xn--nxasmq6b.",
        b"https://a%2eb/",
    ];
    fuzz(corpus, b"@:[]./%xn-0123456789", |input| {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        if let Ok(host) = text.parse::<Host>() {
            let written = host.to_string();
            // A broken authority, which the `http` crate accepts within a URI alone, stays a key.
            let Ok(again) = written.parse::<Host>() else {
                return;
            };
            // Without its scheme a default port is left out.
            let same = written.strip_prefix(again.as_str());
            assert!(matches!(same, Some("" | ":80" | ":443")), "{written}");
        }
    });
}

#[test]
fn settings_are_read_or_refused_in_words() {
    let corpus: &[&[u8]] = &[
        b"total_timeout = \"8s\"\nrate = \"50/s\"\n[retry]\nattempts = 2\n",
        b"attempt_timeout = \"250ms\"\n[circuit_breaker]\nfailure_rate = \"30%\"\n",
        b"max_in_flight = \"off\"\nretry = { enabled = false }\n",
        b"hedge = { delay = \"1h 30m\", ratio = 0.1 }\n",
    ];
    fuzz(corpus, b"=\"\n[]{}.%/_0123456789smhd", |input| {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        if let Ok(parsed) = toml::Deserializer::parse(text) {
            match settings::read::<ClientSettings, _>(parsed) {
                Ok(read) => drop(read.apply_to(tower_keep::stack::client().http())),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    });
}

#[test]
fn access_logs_are_read_line_by_line() {
    let corpus: &[&[u8]] = &[
        b"127.0.0.1 - - [30/Nov/2026:12:00:00 +0000] \"GET / HTTP/1.1\" 200 5 \"-\" \"curl\" 0.012\n",
        b"[2026-11-30T12:00:00.123Z] \"GET / HTTP/1.1\" 503 UO 0 81 3 - \"-\" \"curl\" \"id\" \"host\" \"10.0.0.1:80\"\n",
        b"start,duration,status,key\n1700000000.5,0.25,200,alice\n",
    ];
    let nginx = r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" $request_time"#;
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz.log");
    fuzz(corpus, b"[]\"-+:/., \n\t0123456789", |input| {
        fs::write(&path, input).unwrap();
        for format in [Format::Auto, Format::Nginx(nginx.into()), Format::Csv] {
            let mut options = LogOptions::default();
            options.format = format;
            if let Ok(log) = Log::read([&path], &options, &mut |_| {}) {
                let mut last = None;
                let each = log.calls.each(&mut |call| {
                    assert!(last.is_none_or(|last| last <= call.start), "out of order");
                    last = Some(call.start);
                });
                each.unwrap();
            }
        }
    });
}

#[test]
fn streams_settle_alike_however_they_are_cut() {
    let corpus: &[&[u8]] = &[
        b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":34}}\n\ndata: [DONE]\n\n",
        b"event: message_start\r\ndata: {\"message\":{\"usage\":{\"input_tokens\":25}}}\r\n\r\n",
        b"event: error\ndata: {\"error\":{\"type\":\"overloaded_error\"}}\n\n",
        b": comment\rdata: {\"usage\":\rdata: {\"prompt_tokens\":1}}\r\r",
    ];
    fuzz(corpus, b":\r\n{}[],\"\\ data0", |input| {
        for shape in [usage::openai, usage::anthropic] {
            let whole = metered(vec![Bytes::copy_from_slice(input)], shape());
            let bytes = input.chunks(1).map(Bytes::copy_from_slice).collect();
            assert_eq!(metered(bytes, shape()), whole);
        }
    });
}

#[test]
fn problem_documents_are_read() {
    let corpus: &[&[u8]] = &[
        b"{\"type\":\"https://iana.org/assignments/http-problem-types#quota-exceeded\",\"title\":\"t\",\"violated-policies\":[\"api\"],\"retry_after\":3}",
        b"{\"type\":\"about:blank\",\"status\":503,\"detail\":\"\\u00fc\"}",
    ];
    fuzz(corpus, b"{}[]\":,\\u0123456789eE.-", |input| {
        if let Ok(problem) = serde_json::from_slice::<Problem>(input) {
            let _ = problem.problem_type();
        }
    });
}

/// Reads a stream to its end. Returns its report, but for the bytes that had come by then.
fn metered(frames: Vec<Bytes>, shape: usage::Shape) -> String {
    let frames = frames
        .into_iter()
        .map(|frame| Ok::<_, Infallible>(http_body::Frame::data(frame)));
    let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    let mut told = None;
    let reads = async {
        let response = usage::meter(response, shape, |report| told = Some(report));
        response.into_body().collect().await.unwrap();
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().unwrap().block_on(reads);
    let report = told.expect("each body is reported");
    let UsageReport {
        usage,
        end,
        unread,
        overlong,
        ..
    } = report;
    format!("{usage:?} {end:?} {unread:?} {overlong}")
}

const WIRE: &[u8] = b"0123456789.,;=\"\\-:+ TZGMTsmhrwtq@?%()";
