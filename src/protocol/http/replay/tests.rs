use std::{convert::Infallible, io};

use bytes::{BufMut, BytesMut};
use futures::{FutureExt, stream};
use http::header::{ETAG, SERVER};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use proptest::prelude::*;

use super::*;

type Frames<E = Infallible> = Vec<Result<Frame<Bytes>, E>>;
type Streamed<E = Infallible> = StreamBody<stream::Iter<<Frames<E> as IntoIterator>::IntoIter>>;

fn trailers() -> HeaderMap {
    let fields = [(ETAG, "x"), (SERVER, "y"), (ETAG, "z")];
    let mut trailers = HeaderMap::new();
    for (name, value) in fields {
        trailers.append(name, HeaderValue::from_static(value));
    }
    trailers
}

/// `etag: x`, `server: y`, `etag: z`.
const TRAILERS: usize = 5 + 7 + 5;

fn streamed(parts: &[&'static str]) -> Streamed {
    let parts = parts.iter().map(|part| Bytes::from_static(part.as_bytes()));
    in_frames(parts, true)
}

fn in_frames(parts: impl IntoIterator<Item = Bytes>, with_trailers: bool) -> Streamed {
    let data = parts.into_iter().map(|part| Ok(Frame::data(part)));
    let trailers = with_trailers.then(|| Ok(Frame::trailers(trailers())));
    let frames: Frames = data.chain(trailers).collect();
    StreamBody::new(stream::iter(frames))
}

/// Reads that many frames: bytes as they are, `|` for trailers, `.` for the end, `!` for an error.
fn read<B: Body<Data = Bytes> + Unpin>(body: &mut ReplayBody<B>, frames: usize) -> String {
    let mut text = String::new();
    for _ in 0..frames {
        match body.frame().now_or_never().unwrap() {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => text.push_str(std::str::from_utf8(&data).unwrap()),
                Err(frame) => {
                    assert_eq!(frame.into_trailers().unwrap(), trailers());
                    text.push('|');
                }
            },
            Some(Err(_)) => text.push('!'),
            None => text.push('.'),
        }
    }
    text
}

/// Reads to the end.
fn read_all<B: Body<Data = Bytes> + Unpin>(body: &mut ReplayBody<B>) -> String {
    let mut text = String::new();
    while !text.ends_with(['.', '!']) {
        text += &read(body, 1);
    }
    text
}

fn played(tape: &Tape<Streamed>) -> String {
    read_all(&mut tape.play().unwrap())
}

#[test]
fn plays_bytes_and_trailers_again() {
    let (mut first, tape) = ReplayBody::record(streamed(&["ab", "cd"]), 4 + TRAILERS);
    let tape = tape.unwrap();
    assert_eq!(read_all(&mut first), "abcd|.");
    let kept = first.reel.as_ref().unwrap().recorded.kept;
    assert_eq!(kept, 4 + TRAILERS);
    drop(first);
    assert_eq!(played(&tape), "abcd|.");
    assert_eq!(played(&tape), "abcd|.");
}

#[test]
fn goes_on_where_a_dropped_attempt_stopped() {
    let (mut first, tape) = ReplayBody::record(streamed(&["ab", "cd", "ef"]), 100);
    let tape = tape.unwrap();
    assert_eq!(read(&mut first, 1), "ab");
    drop(first);
    let mut second = tape.play().unwrap();
    assert_eq!(read(&mut second, 2), "abcd");
    drop(second);
    // An attempt that sends nothing loses nothing.
    drop(tape.play().unwrap());
    let mut last = tape.play().unwrap();
    assert_eq!(read(&mut last, 5), "abcdef|.");
    drop(last);
    assert_eq!(played(&tape), "abcdef|.");
}

#[test]
fn an_attempt_dropped_in_mid_tape_loses_nothing() {
    let (mut first, tape) = ReplayBody::record(streamed(&["ab", "cd", "ef"]), 100);
    let tape = tape.unwrap();
    read(&mut first, 1);
    drop(first);
    read(&mut tape.play().unwrap(), 2);
    // The tape has two pieces by now, and this attempt sends one of them.
    assert_eq!(read(&mut tape.play().unwrap(), 1), "ab");
    assert_eq!(played(&tape), "abcdef|.");
}

#[test]
fn cannot_be_played_while_an_attempt_holds_it() {
    let (first, tape) = ReplayBody::record(streamed(&["ab"]), 100);
    let tape = tape.unwrap();
    assert!(tape.play().is_none());
    drop(first);
    assert!(tape.play().is_some());
}

#[test]
fn a_body_over_the_limit_is_sent_once_and_whole() {
    let (mut first, tape) = ReplayBody::record(streamed(&["ab", "cd"]), 3);
    assert_eq!(read_all(&mut first), "abcd|.");
    drop(first);
    assert!(tape.unwrap().play().is_none());
}

#[test]
fn trailers_count_against_the_limit() {
    let (mut first, tape) = ReplayBody::record(streamed(&["ab"]), 2 + TRAILERS - 1);
    assert_eq!(read_all(&mut first), "ab|.");
    drop(first);
    assert!(tape.unwrap().play().is_none());
}

#[test]
fn nothing_is_kept_after_giving_up() {
    let (mut first, tape) = ReplayBody::record(streamed(&["ab", "cd", "ef"]), 5);
    assert_eq!(read(&mut first, 2), "abcd");
    let kept = |body: &ReplayBody<Streamed>| {
        let recorded = &body.reel.as_ref().unwrap().recorded;
        let pieces: usize = recorded.pieces.iter().map(Bytes::len).sum();
        pieces + recorded.added.capacity()
    };
    assert!(kept(&first) >= 4);
    drop(first);
    let mut second = tape.as_ref().unwrap().play().unwrap();
    assert_eq!(read(&mut second, 1), "abcd");
    assert_eq!(read(&mut second, 1), "ef");
    assert_eq!(kept(&second), 0);
    assert_eq!(read_all(&mut second), "|.");
    assert_eq!(kept(&second), 0);
    drop(second);
    assert!(tape.unwrap().play().is_none());
}

#[test]
fn a_body_that_failed_is_not_sent_again() {
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"ab"))),
        Err(io::Error::other("no more")),
    ];
    let body = StreamBody::new(stream::iter(frames));
    let (mut first, tape) = ReplayBody::record(body, 100);
    assert_eq!(read_all(&mut first), "ab!");
    drop(first);
    assert!(tape.unwrap().play().is_none());
}

#[test]
fn no_buffer_of_the_callers_is_kept_alive() {
    // given frames that are small slices of large read buffers
    let buffers: Vec<Bytes> = (0..100).map(|_| vec![b'a'; 1 << 16].into()).collect();
    let slices: Vec<Bytes> = buffers.iter().map(|buffer| buffer.slice(..10)).collect();
    let (mut first, tape) = ReplayBody::record(in_frames(slices, false), 64 * 1024);
    // when they were sent
    assert_eq!(read_all(&mut first).len(), 1001);
    // then no other reference to the buffers is left, and the body can still be replayed
    assert!(buffers.iter().all(Bytes::is_unique));
    drop(first);
    assert_eq!(played(&tape.unwrap()).len(), 1001);
}

#[test]
fn pieces_of_many_attempts_stay_within_the_limit() {
    let limit = 100;
    let parts = vec![Bytes::from_static(b"a"); limit];
    let (mut body, tape) = ReplayBody::record(in_frames(parts, false), limit);
    let tape = tape.unwrap();
    // Each attempt sends all earlier bytes and three more, for which its buffer grows to 4.
    for _ in 0..limit / 3 {
        let before = body.reel.as_ref().unwrap().recorded.pieces.len();
        read(&mut body, before + 3);
        drop(body);
        body = tape.play().unwrap();
    }
    let reel = body.reel.take().unwrap();
    let pieces = reel.recorded.pieces.into_iter();
    let kept: usize = pieces
        .map(|piece| piece.try_into_mut().unwrap().capacity())
        .sum();
    assert_eq!(kept, 99);
}

#[test]
fn no_buffer_of_the_trailers_is_kept_alive() {
    let mut buffer = BytesMut::with_capacity(1 << 16);
    buffer.put_slice(&[b'a'; 1 << 16]);
    let buffer = buffer.freeze();
    let mut value = HeaderValue::from_maybe_shared(buffer.slice(..10)).unwrap();
    value.set_sensitive(true);
    let fields = HeaderMap::from_iter([(ETAG, value)]);
    let frames: Frames = vec![Ok(Frame::trailers(fields.clone()))];
    let (mut first, tape) = ReplayBody::record(StreamBody::new(stream::iter(frames)), 100);
    let sent = first.frame().now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(sent.into_trailers().unwrap(), fields);
    drop((first, fields));
    assert!(buffer.is_unique());
    let mut again = tape.unwrap().play().unwrap();
    let frame = again.frame().now_or_never().unwrap().unwrap().unwrap();
    assert!(frame.trailers_ref().unwrap()[ETAG].is_sensitive());
}

#[test]
fn as_many_frames_as_bytes_are_played_again() {
    let limit = 64 * 1024;
    for (frames, again) in [(limit, true), (limit + 1, false)] {
        let parts = vec![Bytes::from_static(b"a"); frames];
        let (mut first, tape) = ReplayBody::record(in_frames(parts, false), limit);
        assert_eq!(read_all(&mut first).len(), frames + 1);
        drop(first);
        let second = tape.unwrap().play();
        assert_eq!(second.is_some(), again, "{frames}");
        if let Some(mut second) = second {
            assert_eq!(read_all(&mut second).len(), frames + 1);
        }
    }
}

#[test]
fn a_body_known_to_be_over_the_limit_is_not_recorded() {
    let body = || Full::new(Bytes::from_static(b"abcd"));
    assert!(ReplayBody::record(body(), 3).1.is_none());
    assert!(ReplayBody::record(body(), 4).1.is_some());
}

#[test]
fn an_empty_body_stays_empty() {
    let (first, tape) = ReplayBody::record(Empty::<Bytes>::new(), 0);
    assert!(first.is_end_stream());
    assert_eq!(first.size_hint().exact(), Some(0));
    assert!(tape.unwrap().play().unwrap().is_end_stream());
}

#[test]
fn the_length_is_that_of_what_is_still_to_come() {
    let (mut first, tape) = ReplayBody::record(Full::new(Bytes::from_static(b"abcd")), 100);
    assert_eq!(first.size_hint().exact(), Some(4));
    assert_eq!(read(&mut first, 1), "abcd");
    assert!(first.is_end_stream());
    assert_eq!(first.size_hint().exact(), Some(0));
    drop(first);
    let mut second = tape.unwrap().play().unwrap();
    assert_eq!(second.size_hint().exact(), Some(4));
    assert!(!second.is_end_stream());
    assert_eq!(read(&mut second, 1), "abcd");
    assert!(second.is_end_stream());
}

#[test]
fn a_tape_of_trailers_alone_has_not_ended() {
    let (mut first, tape) = ReplayBody::record(streamed(&[]), 100);
    assert_eq!(read_all(&mut first), "|.");
    drop(first);
    let second = tape.unwrap().play().unwrap();
    assert!(!second.is_end_stream());
    assert_eq!(second.size_hint().exact(), Some(0));
}

proptest! {
    /// All attempts, wherever they stop, send a prefix of the caller's body. The last one sends all
    /// of it.
    #[test]
    fn every_attempt_sends_the_same_bytes(
        parts in prop::collection::vec("[a-z]{0,9}", 0..20),
        with_trailers: bool,
        limit in 0..100_usize,
        attempts in prop::collection::vec(0..25_usize, 0..6),
    ) {
        let whole: String = parts.concat();
        let end = if with_trailers { "|." } else { "." };
        let text = format!("{whole}{end}");
        let frames = parts.iter().map(|part| Bytes::copy_from_slice(part.as_bytes()));
        let (mut body, tape) = ReplayBody::record(in_frames(frames, with_trailers), limit);
        let tape = tape.unwrap();
        for frames in attempts {
            // After the end there are only more ends.
            let sent = read(&mut body, frames);
            let sent = sent.trim_end_matches('.');
            prop_assert!(text.starts_with(sent), "{} {}", text, sent);
            let trailers = if sent.ends_with('|') { TRAILERS - 1 } else { 0 };
            let replayable = body.home.is_some();
            prop_assert!(replayable || sent.len() + trailers > limit, "{}", sent);
            drop(body);
            let again = tape.play();
            prop_assert_eq!(again.is_some(), replayable);
            match again {
                Some(again) => body = again,
                None => return Ok(()),
            }
            let recorded = &body.reel.as_ref().unwrap().recorded;
            prop_assert!(recorded.kept <= limit);
            let hint = body.size_hint();
            prop_assert!(hint.lower() <= whole.len() as u64);
        }
        prop_assert_eq!(read_all(&mut body), text);
    }

    /// Whatever the framing, what is kept stays within the limit.
    #[test]
    fn what_is_kept_never_exceeds_the_limit(
        lengths in prop::collection::vec(0..40_usize, 0..40),
        limit in 0..300_usize,
    ) {
        let total: usize = lengths.iter().sum();
        let parts = lengths.iter().map(|&length| Bytes::from(vec![b'a'; length]));
        let (mut body, _tape) = ReplayBody::record(in_frames(parts, false), limit);
        for _ in 0..=lengths.len() {
            read(&mut body, 1);
            prop_assert!(body.reel.as_ref().unwrap().recorded.added.capacity() <= limit);
        }
        prop_assert_eq!(body.home.is_some(), total <= limit);
    }
}

#[test]
fn a_watched_body_is_taken_once_it_is_looked_at() {
    for parts in [&["ab"][..], &[]] {
        let (outer, around) = ReplayBody::watch(streamed(parts), 100);
        // An inner retry, which does not poll the body either.
        let (body, tape) = ReplayBody::watch(outer, 100);
        let (around, tape) = (around.unwrap(), tape.unwrap());
        assert!(body.size_hint().lower() < 100);
        assert_eq!((around.was_taken(), tape.was_taken()), (false, false));
        drop(body);
        let body = tape.play().unwrap();
        assert!(!tape.was_taken());
        let _ = body.is_end_stream();
        assert_eq!((around.was_taken(), tape.was_taken()), (true, true));
        drop(body);
        assert!(tape.was_taken(), "until it is played again");
        drop(tape.play().unwrap());
        assert!(!tape.was_taken());
    }
}
