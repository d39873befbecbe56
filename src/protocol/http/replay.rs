//! A request body that can be sent again.
//!
//! The first attempt streams the caller's body as it comes, and keeps each frame by reference count
//! on the way. What was kept, and whatever of the body was not read, returns when the attempt lets
//! go of its body; the next attempt plays the frames again and goes on with the rest. So nothing is
//! copied, nothing is read ahead, and a connection that was refused costs no byte.
//!
//! While an attempt still holds its body (the peer answered before reading it all), and after more
//! than the limit was sent, there is nothing to play, and so no retry.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The caller's body, with a tape running along.
pub struct ReplayBody<B> {
    /// `None` for an empty body.
    reel: Option<Reel<B>>,
    /// Frames of the reel that this attempt has sent.
    played: usize,
    /// Where the reel goes when this attempt lets go of it; `None` when it is not to be sent again.
    home: Option<Home<B>>,
    limit: usize,
}

/// Where the snapshot finds the body once an attempt has let go of it.
pub(super) enum Tape<B> {
    /// There is nothing to record, and so nothing to share.
    Empty,
    Shared(Home<B>, usize),
}

/// A lock, because a body is handed back once an attempt: it is never waited for, and requests
/// without a body have none.
type Home<B> = Arc<Mutex<Option<Reel<B>>>>;

/// What has been sent, and what is left.
pub(super) struct Reel<B> {
    frames: Vec<Recorded>,
    bytes: usize,
    /// `None` once it has ended.
    rest: Option<B>,
}

#[derive(Clone)]
enum Recorded {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

impl<B: Body<Data = Bytes>> ReplayBody<B> {
    /// A body that is sent once.
    pub(super) fn unrecorded(body: B) -> Self {
        Self {
            reel: Some(Reel {
                frames: Vec::new(),
                bytes: 0,
                rest: Some(body),
            }),
            played: 0,
            home: None,
            limit: 0,
        }
    }

    /// Starts recording, unless the body is known to be longer than `limit`.
    pub(super) fn record(body: B, limit: usize) -> (Self, Option<Tape<B>>) {
        if body.is_end_stream() {
            return (
                Self {
                    reel: None,
                    played: 0,
                    home: None,
                    limit,
                },
                Some(Tape::Empty),
            );
        }
        let too_long =
            usize::try_from(body.size_hint().lower()).map_or(true, |least| least > limit);
        let mut first = Self::unrecorded(body);
        if too_long {
            return (first, None);
        }
        let home = Home::default();
        first.home = Some(home.clone());
        first.limit = limit;
        (first, Some(Tape::Shared(home, limit)))
    }
}

impl<B> Tape<B> {
    /// The body once more, if the last attempt has let go of it.
    pub(super) fn play(&self) -> Option<ReplayBody<B>> {
        match self {
            Self::Empty => Some(ReplayBody {
                reel: None,
                played: 0,
                home: None,
                limit: 0,
            }),
            Self::Shared(home, limit) => {
                let reel = home.lock().unwrap_or_else(PoisonError::into_inner).take()?;
                Some(ReplayBody {
                    reel: Some(reel),
                    played: 0,
                    home: Some(home.clone()),
                    limit: *limit,
                })
            }
        }
    }
}

impl<B> ReplayBody<B> {
    /// Keeps a frame, or gives up recording if it is one too many.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let (Some(reel), true) = (&mut self.reel, self.home.is_some()) else {
            return;
        };
        let recorded = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) if data.is_empty() => return,
            (Some(data), _) => Recorded::Data(data.clone()),
            (_, Some(trailers)) => Recorded::Trailers(trailers.clone()),
            _ => return,
        };
        if let Recorded::Data(data) = &recorded {
            reel.bytes += data.len();
        }
        if reel.bytes > self.limit || reel.frames.len() == MOST_FRAMES {
            self.home = None;
            reel.frames = Vec::new();
            return;
        }
        reel.frames.push(recorded);
        self.played = reel.frames.len();
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let Some(reel) = &mut this.reel else {
            return Poll::Ready(None);
        };
        if let Some(recorded) = reel.frames.get(this.played) {
            this.played += 1;
            return Poll::Ready(Some(Ok(recorded.clone().into())));
        }
        let Some(rest) = &mut reel.rest else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(rest).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => this.keep(frame),
            None => reel.rest = None,
            // Whoever made the body failed: there is nothing to send again.
            Some(Err(_)) => this.home = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.reel.as_ref().is_none_or(|reel| {
            self.played >= reel.frames.len() && reel.rest.as_ref().is_none_or(Body::is_end_stream)
        })
    }

    fn size_hint(&self) -> SizeHint {
        let Some(reel) = &self.reel else {
            return SizeHint::with_exact(0);
        };
        let again: u64 = reel
            .frames
            .iter()
            .skip(self.played)
            .map(Recorded::len)
            .sum();
        let rest = reel
            .rest
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(again.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(again)) {
            hint.set_upper(upper);
        }
        hint
    }
}

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        if let (Some(home), Some(reel)) = (self.home.take(), self.reel.take()) {
            *home.lock().unwrap_or_else(PoisonError::into_inner) = Some(reel);
        }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody")
            .field("recording", &self.home.is_some())
            .finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for Tape<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tape")
    }
}

impl Recorded {
    fn len(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Trailers(_) => 0,
        }
    }
}

/// A body that is sent once: for calling the same client with and without a retry.
impl<B> From<B> for ReplayBody<B>
where
    B: Body<Data = Bytes>,
{
    fn from(body: B) -> Self {
        Self::unrecorded(body)
    }
}

impl From<Recorded> for Frame<Bytes> {
    fn from(recorded: Recorded) -> Self {
        match recorded {
            Recorded::Data(data) => Self::data(data),
            Recorded::Trailers(trailers) => Self::trailers(trailers),
        }
    }
}

/// However short they are: a frame's place on the reel takes more than its bytes.
const MOST_FRAMES: usize = 1024;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::FutureExt;
    use http_body_util::{BodyExt, Empty, Full, StreamBody};

    use super::*;

    type Frames = Vec<Result<Frame<Bytes>, Infallible>>;

    fn streamed(
        parts: &[&'static str],
    ) -> StreamBody<futures::stream::Iter<<Frames as IntoIterator>::IntoIter>> {
        let trailers = Frame::trailers(http::HeaderMap::from_iter([(
            http::header::ETAG,
            "x".parse().unwrap(),
        )]));
        let data = parts
            .iter()
            .map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
        let frames: Frames = data.chain([Ok(trailers)]).collect();
        StreamBody::new(futures::stream::iter(frames))
    }

    fn read<B: Body<Data = Bytes> + Unpin>(body: &mut ReplayBody<B>, frames: usize) -> String
    where
        B::Error: fmt::Debug,
    {
        let mut text = String::new();
        for _ in 0..frames {
            match body.frame().now_or_never().unwrap() {
                Some(frame) => match frame.unwrap().into_data() {
                    Ok(data) => text.push_str(std::str::from_utf8(&data).unwrap()),
                    Err(_) => text.push('|'),
                },
                None => text.push('.'),
            }
        }
        text
    }

    #[test]
    fn plays_frames_and_trailers_again() {
        let (mut first, tape) = ReplayBody::record(streamed(&["ab", "cd"]), 4);
        let tape = tape.unwrap();
        assert_eq!(read(&mut first, 4), "abcd|.");
        drop(first);
        assert_eq!(read(&mut tape.play().unwrap(), 4), "abcd|.");
        assert_eq!(read(&mut tape.play().unwrap(), 4), "abcd|.");
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
        assert_eq!(read(&mut tape.play().unwrap(), 5), "abcdef|.");
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
        assert_eq!(read(&mut first, 4), "abcd|.");
        drop(first);
        assert!(tape.unwrap().play().is_none());
    }

    #[test]
    fn a_body_in_too_many_pieces_is_sent_once() {
        let pieces = vec!["a"; MOST_FRAMES + 1];
        for (pieces, again) in [
            (&pieces[..], false),
            (&pieces[2..], true),
            (&[""; 2 * MOST_FRAMES][..], true),
        ] {
            let (mut first, tape) = ReplayBody::record(streamed(pieces), usize::MAX);
            read(&mut first, pieces.len() + 2);
            drop(first);
            assert_eq!(tape.unwrap().play().is_some(), again, "{}", pieces.len());
        }
    }

    #[test]
    fn a_body_known_to_be_over_the_limit_is_not_recorded() {
        assert!(
            ReplayBody::record(Full::new(Bytes::from_static(b"abcd")), 3)
                .1
                .is_none()
        );
        assert!(
            ReplayBody::record(Full::new(Bytes::from_static(b"abcd")), 4)
                .1
                .is_some()
        );
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
        drop(first);
        assert_eq!(tape.unwrap().play().unwrap().size_hint().exact(), Some(4));
    }
}
