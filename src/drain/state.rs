//! The state that the services and the handle of a stack share.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use tokio::sync::Notify;

use crate::{
    Rejected, RejectedKind,
    algorithm::Draining,
    ambient::chance,
    observe::{self, DrainingStack, Instance, Observed, Tally, Unwell, register},
    sync::{current_stripe, stripe_count},
};

/// The count of a stack's calls in flight, and a flag that stops new ones. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Drain(Arc<State>);

struct State {
    calls: Draining,
    /// Notified when a call leaves while new ones are rejected.
    left: Notify,
    /// Counts the calls that were rejected.
    tally: Tally,
}

/// The error if calls were still in flight when the time to wait for them was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undrained {
    /// The number of those calls.
    pub in_flight: usize,
}

impl Drain {
    pub(crate) fn new(name: Option<&'static str>) -> Self {
        let state = Arc::new(State {
            calls: Draining::new(stripe_count()),
            left: Notify::new(),
            tally: Tally::new("drain", name),
        });
        register(&state);
        Self(state)
    }

    /// Admits a call, which must [leave](Self::leave) with the returned stripe.
    #[inline]
    pub(crate) fn enter(&self) -> Result<usize, Box<Rejected>> {
        self.0.calls.enter(current_stripe()).ok_or_else(|| {
            // The call was counted for a moment, and a waiter may have seen that.
            self.0.left.notify_waiters();
            self.reject()
        })
    }

    #[inline]
    pub(crate) fn leave(&self, stripe: usize) {
        if self.0.calls.leave(stripe) {
            self.0.left.notify_waiters();
        }
    }

    #[cold]
    fn reject(&self) -> Box<Rejected> {
        let tally = &self.0.tally;
        let mut rejected = Box::new(Rejected::new(RejectedKind::Draining, tally.layer));
        rejected.name = tally.name;
        rejected.retry_after = Some(chance::spread(HINT));
        tally.rejected(&rejected);
        rejected
    }

    /// Rejects new calls, and waits for those in flight, for `timeout` at most.
    pub(crate) async fn drain(&self, timeout: Duration) -> Result<(), Undrained> {
        let State { calls, left, .. } = &*self.0;
        calls.close();
        let ended = async {
            loop {
                let mut next = std::pin::pin!(left.notified());
                // Enabled before the count is read, so that a call that leaves in between is not
                // missed.
                next.as_mut().enable();
                if calls.in_flight() == 0 {
                    return;
                }
                next.await;
            }
        };
        let in_time = tokio::time::timeout(timeout, ended).await;
        in_time.map_err(|_| Undrained {
            in_flight: calls.in_flight(),
        })
    }

    pub(crate) fn open(&self) {
        self.0.calls.open();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.calls.is_closed()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.0.calls.in_flight()
    }
}

impl Observed for State {
    fn layer(&self) -> &'static str {
        self.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.tally.name
    }

    fn observe(&self) -> Instance {
        let state = observe::State::Drain {
            in_flight: self.calls.in_flight() as u64,
            draining: self.calls.is_closed(),
        };
        Instance::new(&self.tally, Vec::new(), state)
    }

    fn unwell(&self) -> Option<Unwell> {
        let stack = DrainingStack {
            name: self.tally.name.unwrap_or_default(),
            in_flight: self.calls.in_flight(),
        };
        self.calls.is_closed().then_some(Unwell::Draining(stack))
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Undrained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} calls are still in flight", self.in_flight)
    }
}

impl Error for Undrained {}

/// The wait that a rejected call is told, on average a little longer. By then another instance has
/// taken over, or the load balancer has noticed.
const HINT: Duration = Duration::from_secs(1);
