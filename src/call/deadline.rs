//! Deadline: the moment by which the answer to a call is of use.

use std::time::Duration;

use tokio::time::Instant;

use super::{CallSettings, Timeouts};
use crate::ambient::clock;

/// A moment after which nobody waits for the answer any more.
///
/// On HTTP it travels in the extensions of a request. A [timeout in
/// total](crate::timeout::TimeoutBuilder::total) sets it, or the caller does; a layer that waits
/// (for its queue, its backoff, the readiness of what lies beneath) waits no longer than that. Of
/// two deadlines the earlier holds, so a layer never gives a call more time than it came with.
///
/// It follows tokio's clock, so a test with a paused clock drives it.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::Deadline;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(Deadline::after(Duration::from_secs(1)));
/// tokio::time::advance(Duration::from_millis(400)).await;
/// let deadline: Deadline = *request.extensions().get().unwrap();
/// assert_eq!(deadline.remaining(), Duration::from_millis(600));
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Instant);

/// How the requests of a protocol carry a [`Deadline`].
///
/// The layers that read or set one ask their protocol. By default requests carry none, which is
/// right for a protocol whose requests have no place for it: `impl<Req> CarryDeadline<Req> for Mine
/// {}`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say whether `{Req}` carries a deadline",
    note = "if it does not: `impl<Req> CarryDeadline<Req> for {Self} {{}}`"
)]
pub trait CarryDeadline<Req> {
    /// The deadline of a request, if it has one.
    #[inline]
    fn deadline(&self, request: &Req) -> Option<Deadline> {
        let _ = request;
        None
    }

    /// Gives a request a deadline, in place of the one that it had.
    #[inline]
    fn set_deadline(&self, request: &mut Req, deadline: Deadline) {
        let _ = (request, deadline);
    }

    /// Tells the upstream anew what remains of a request's deadline: the request is about to be
    /// sent, maybe after a wait. By default the upstream is told nothing.
    #[inline]
    fn refresh_deadline(&self, request: &mut Req) {
        let _ = request;
    }

    /// Whether a timeout is to give its deadline to the request: one in `total`, or one of an
    /// attempt.
    #[inline]
    fn wants_deadline(&self, total: bool) -> bool {
        let _ = total;
        false
    }

    /// How long this request may take, if it says so.
    #[inline]
    fn timeouts(&self, request: &Req) -> Option<Timeouts> {
        let _ = request;
        None
    }

    /// Returns the request's own settings, in place of those that the layers were built with, its
    /// [`timeouts`](Self::timeouts) included, which are all by default. [Stacks](crate::stack) ask.
    #[inline]
    fn settings(&self, request: &Req) -> CallSettings {
        let timeouts = self.timeouts(request).unwrap_or_default();
        CallSettings::new().timeouts(timeouts)
    }
}

impl Deadline {
    /// At a moment of tokio's clock.
    #[must_use]
    pub fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// So long from now. Longer than the clock can tell is 30 years.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        Self(clock::later(clock::moment(), duration))
    }

    /// The moment, on tokio's clock.
    #[must_use]
    pub fn moment(self) -> Instant {
        self.0
    }

    /// How long until then; zero once it has passed. Reads the clock.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(clock::moment())
    }

    /// Whether it has passed: a call whose deadline is this very moment is late. Reads the clock.
    #[must_use]
    pub fn has_passed(self) -> bool {
        clock::has_passed(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn has_passed_at_its_very_moment() {
        let deadline = Deadline::after(Duration::from_secs(1));
        tokio::time::advance(Duration::from_millis(999)).await;
        assert!(!deadline.has_passed());
        assert_eq!(deadline.remaining(), Duration::from_millis(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(deadline.has_passed());
        assert_eq!(deadline.remaining(), Duration::ZERO);
    }

    #[test]
    fn the_longest_duration_is_a_long_time() {
        assert!(Deadline::after(Duration::MAX).remaining() > Duration::from_secs(1 << 29));
    }
}
