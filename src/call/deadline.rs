//! Deadlines: the moments until which the answers to calls are of use.

use std::time::Duration;

use tokio::time::Instant;

use super::{CallSettings, Timeouts};
use crate::ambient::clock;

/// A moment after which no caller waits for the answer any more.
///
/// On HTTP a deadline is an extension of the request. A [total
/// timeout](crate::timeout::TimeoutBuilder::total) sets it, or the caller does. A layer that waits
/// (in its queue, in its backoff, for the readiness of its inner service) waits no longer than
/// that. Of two deadlines the earlier holds, so a layer never gives a call more time than it
/// arrived with.
///
/// A deadline follows tokio's clock, so a test with a paused clock controls it.
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

/// A protocol whose requests may carry a [`Deadline`].
///
/// The layers that read or set a deadline ask their protocol. By default requests carry none. That
/// is right for a protocol whose requests have no place for it: `impl<Req> CarryDeadline<Req> for
/// Mine {}`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say whether `{Req}` carries a deadline",
    note = "if it does not: `impl<Req> CarryDeadline<Req> for {Self} {{}}`"
)]
pub trait CarryDeadline<Req> {
    /// Returns the deadline of a request, if it has one.
    #[inline]
    fn deadline(&self, request: &Req) -> Option<Deadline> {
        let _ = request;
        None
    }

    /// Sets the deadline of a request, in place of an earlier one.
    #[inline]
    fn set_deadline(&self, request: &mut Req, deadline: Deadline) {
        let _ = (request, deadline);
    }

    /// Writes anew what remains of a request's deadline for the upstream. Called just before the
    /// request is sent, perhaps after a wait. By default nothing is written.
    #[inline]
    fn refresh_deadline(&self, request: &mut Req) {
        let _ = request;
    }

    /// Returns whether a timeout is to set its deadline on the request. `total` is true for a total
    /// timeout, and false for that of an attempt.
    #[inline]
    fn wants_deadline(&self, total: bool) -> bool {
        let _ = total;
        false
    }

    /// Returns how long this request may take, if it has its own timeouts.
    #[inline]
    fn timeouts(&self, request: &Req) -> Option<Timeouts> {
        let _ = request;
        None
    }

    /// Returns the request's own settings, which replace those that the layers were built with. By
    /// default these are only its [`timeouts`](Self::timeouts). Called by [stacks](crate::stack).
    #[inline]
    fn settings(&self, request: &Req) -> CallSettings {
        let timeouts = self.timeouts(request).unwrap_or_default();
        CallSettings::new().timeouts(timeouts)
    }
}

impl Deadline {
    /// Creates a deadline at a moment of tokio's clock.
    #[must_use]
    pub fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// Creates a deadline this long from now. A duration too long for the clock counts as 30 years.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        Self(clock::later(clock::moment(), duration))
    }

    /// Returns the moment, on tokio's clock.
    #[must_use]
    pub fn moment(self) -> Instant {
        self.0
    }

    /// Returns how long remains, or zero once the deadline has passed. Reads the clock.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(clock::moment())
    }

    /// Returns whether the deadline has passed. A call at exactly its deadline is late. Reads the
    /// clock.
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
