//! A request body that can be replayed.
//!
//! The first attempt streams the caller's body, and copies each frame to a tape. When the attempt
//! drops its body, the tape and the unread rest of the body return to the snapshot. The next
//! attempt plays the tape and continues with the rest. So nothing is read ahead, and a refused
//! connection costs no byte.
//!
//! Why copies and not references? A frame is often a small slice of a large read buffer, and keeps
//! all of it alive. A limit on the length of slices once held 62 MiB under 64 KiB. A [`Bytes`] does
//! not tell how much it keeps alive. Copying 64 KiB costs a few microseconds, less than sending
//! them.
//!
//! An attempt may still hold its body, if the upstream answered before it had read all of it. Then
//! there is no retry, and none after more than the limit was sent. Taking the body away from an
//! attempt that is still sending would have to end that attempt, and no end is right. An error of
//! the caller's own type cannot be made. After an end of the stream, a chunked request would be
//! sent as if it were complete. Silence would keep its connection forever.
//!
//! The body also shows whether anything has taken it in order to send it. hyper polls a body only
//! once there is a connection for its request. If the body was taken, "no connection" is therefore
//! the error of another request, which an inner service made from this one, for example to follow a
//! redirect.

use std::{
    fmt, mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};

#[cfg(test)]
mod tests;

/// The caller's body, recorded on a tape.
pub struct ReplayBody<B> {
    /// `None` for an empty body.
    reel: Option<Reel<B>>,
    /// The part of the tape that this attempt has sent.
    played: Played,
    /// The place to which the reel returns when this attempt drops its body, or `None` if it is not
    /// to be replayed.
    home: Option<Home<B>>,
    limit: usize,
}

/// The place where the snapshot finds the body once an attempt has dropped it, and the most bytes
/// to keep. `None` for an empty body: there is nothing to record or to share.
pub struct Tape<B>(Option<(Home<B>, usize)>);

type Home<B> = Arc<KeptBody<B>>;

/// The state that a snapshot and the body of an attempt share.
pub(super) struct KeptBody<B> {
    /// A lock, because a body is returned once per attempt. It is never contended, and idempotent
    /// requests without a body have none.
    reel: Mutex<Option<Reel<B>>>,
    /// If true, the body of this attempt was polled. Relaxed: the result that is judged by it
    /// arrives later, through the channels of the client.
    taken: AtomicBool,
}

/// The recorded part of a body, and the rest.
pub(super) struct Reel<B> {
    recorded: Recorded,
    /// `None` once the body has ended.
    rest: Option<B>,
}

/// Copies of the sent bytes. The bounds of frames are not kept, since they mean nothing in HTTP. A
/// body in many small frames therefore takes no more memory than one in few.
#[derive(Default)]
struct Recorded {
    /// Bytes sent by earlier attempts: one piece for each attempt that sent more than those before.
    pieces: Vec<Bytes>,
    /// Bytes that this attempt adds.
    added: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Memory of all of it, never above the limit.
    kept: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Played {
    pieces: usize,
    trailers: bool,
}

impl<B: Body<Data = Bytes>> ReplayBody<B> {
    /// Creates a body that is sent once.
    pub(super) fn unrecorded(body: B) -> Self {
        let reel = Reel {
            recorded: Recorded::default(),
            rest: Some(body),
        };
        Self::new(Some(reel), None, 0)
    }

    /// Starts to record, unless the body is known to be longer than `limit`. An empty body does not
    /// show whether it was taken.
    pub(super) fn record(body: B, limit: usize) -> (Self, Option<Tape<B>>) {
        if body.is_end_stream() {
            return (Self::new(None, None, limit), Some(Tape(None)));
        }
        Self::watch(body, limit)
    }

    /// Records even an empty body, which then costs an allocation. Does not check whether the body
    /// has ended: another retry may watch it.
    pub(super) fn watch(body: B, limit: usize) -> (Self, Option<Tape<B>>) {
        let too_long =
            usize::try_from(body.size_hint().lower()).map_or(true, |least| least > limit);
        let mut first = Self::unrecorded(body);
        if too_long {
            return (first, None);
        }
        let home = Home::new(KeptBody {
            reel: Mutex::new(None),
            taken: AtomicBool::new(false),
        });
        first.home = Some(home.clone());
        first.limit = limit;
        (first, Some(Tape(Some((home, limit)))))
    }
}

impl<B> ReplayBody<B> {
    fn new(reel: Option<Reel<B>>, home: Option<Home<B>>, limit: usize) -> Self {
        Self {
            reel,
            played: Played::default(),
            home,
            limit,
        }
    }

    fn taken(&self) {
        if let Some(home) = &self.home {
            home.taken.store(true, Ordering::Relaxed);
        }
    }

    /// Stops recording. The body continues, and cannot be replayed.
    fn give_up(&mut self) {
        self.home = None;
        if let Some(reel) = &mut self.reel {
            reel.recorded = Recorded::default();
        }
    }
}

impl<B> Tape<B> {
    /// Returns the body again, if the last attempt has dropped it.
    pub(super) fn play(&self) -> Option<ReplayBody<B>> {
        let Some((home, limit)) = &self.0 else {
            return Some(ReplayBody::new(None, None, 0));
        };
        let mut reel = home.lock().take()?;
        reel.recorded.cut();
        home.taken.store(false, Ordering::Relaxed);
        Some(ReplayBody::new(Some(reel), Some(home.clone()), *limit))
    }
}

impl<B> Tape<B> {
    /// Returns whether anything has polled the body since it was last played.
    pub(super) fn was_taken(&self) -> bool {
        let home = self.0.as_ref();
        home.is_some_and(|(home, _)| home.taken.load(Ordering::Relaxed))
    }

    /// Forgets a poll by this crate.
    #[cfg(feature = "tonic-014")]
    pub(super) fn forget(&self) {
        if let Some((home, _)) = &self.0 {
            home.taken.store(false, Ordering::Relaxed);
        }
    }
}

impl<B> KeptBody<B> {
    fn lock(&self) -> MutexGuard<'_, Option<Reel<B>>> {
        self.reel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorded {
    /// Returns the next frame to play, if any is left.
    fn next(&self, played: &mut Played) -> Option<Frame<Bytes>> {
        if let Some(piece) = self.pieces.get(played.pieces) {
            played.pieces += 1;
            return Some(Frame::data(piece.clone()));
        }
        let trailers = self.trailers.as_ref().filter(|_| !played.trailers)?;
        played.trailers = true;
        Some(Frame::trailers(trailers.clone()))
    }

    /// Returns the bytes still to play, and whether any frame is left.
    fn left(&self, played: Played) -> (u64, bool) {
        let pieces = &self.pieces[played.pieces.min(self.pieces.len())..];
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        let trailers = self.trailers.is_some() && !played.trailers;
        (bytes, trailers || !pieces.is_empty())
    }

    /// Copies a frame. Returns `false` if it does not fit.
    fn keep(&mut self, frame: &Frame<Bytes>, limit: usize) -> bool {
        match (frame.data_ref(), frame.trailers_ref()) {
            // HTTP has nothing after trailers.
            (Some(data), _) if self.trailers.is_none() => self.keep_data(data, limit),
            (_, Some(trailers)) if self.trailers.is_none() => self.keep_trailers(trailers, limit),
            _ => false,
        }
    }

    fn keep_data(&mut self, data: &[u8], limit: usize) -> bool {
        if data.len() > limit - self.kept {
            return false;
        }
        self.kept += data.len();
        let needed = self.added.len() + data.len();
        if needed > self.added.capacity() {
            // Twice as much each time, as a `Vec` does, but never above the limit.
            let most = limit - (self.kept - needed);
            let capacity = needed.max(self.added.capacity().saturating_mul(2).min(most));
            self.added.reserve_exact(capacity - self.added.len());
        }
        self.added.extend_from_slice(data);
        true
    }

    fn keep_trailers(&mut self, trailers: &HeaderMap, limit: usize) -> bool {
        let fields = trailers.iter();
        let bytes: usize = fields
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        if bytes > limit - self.kept {
            return false;
        }
        self.kept += bytes;
        let mut copies = HeaderMap::with_capacity(trailers.keys_len());
        for (name, value) in trailers {
            // The value was valid before.
            let copy = HeaderValue::from_bytes(value.as_bytes());
            let mut copy = copy.unwrap_or_else(|_| value.clone());
            copy.set_sensitive(value.is_sensitive());
            copies.append(name, copy);
        }
        self.trailers = Some(copies);
        true
    }

    /// Makes a piece of the bytes that the last attempt has added, before the next attempt sends
    /// them.
    ///
    /// The piece is exactly as large as its bytes. The spare room of growing buffers would add up
    /// from attempt to attempt, beyond the limit.
    fn cut(&mut self) {
        if !self.added.is_empty() {
            self.pieces
                .push(mem::take(&mut self.added).into_boxed_slice().into());
        }
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
        this.taken();
        let Some(reel) = &mut this.reel else {
            return Poll::Ready(None);
        };
        if let Some(frame) = reel.recorded.next(&mut this.played) {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(rest) = &mut reel.rest else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(rest).poll_frame(cx));
        let go_on = match &frame {
            Some(Ok(_)) if this.home.is_none() => true,
            Some(Ok(frame)) => {
                let kept = reel.recorded.keep(frame, this.limit);
                this.played.trailers = reel.recorded.trailers.is_some();
                kept
            }
            None => {
                reel.rest = None;
                true
            }
            // The body itself failed: there is nothing to replay.
            Some(Err(_)) => false,
        };
        if !go_on {
            this.give_up();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.taken();
        self.reel.as_ref().is_none_or(|reel| {
            let (_, left) = reel.recorded.left(self.played);
            !left && reel.rest.as_ref().is_none_or(Body::is_end_stream)
        })
    }

    fn size_hint(&self) -> SizeHint {
        let Some(reel) = &self.reel else {
            return SizeHint::with_exact(0);
        };
        let (again, _) = reel.recorded.left(self.played);
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
            *home.lock() = Some(reel);
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

/// Wraps a body that is sent once, to call the same client with and without a retry.
impl<B> From<B> for ReplayBody<B>
where
    B: Body<Data = Bytes>,
{
    fn from(body: B) -> Self {
        Self::unrecorded(body)
    }
}
