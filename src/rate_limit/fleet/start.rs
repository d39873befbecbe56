//! Starts and wakes the asking task.

use std::sync::{Arc, atomic::Ordering};

use tokio::runtime::Handle;

use crate::rate_limit::fleet::{Fleet, asking, entry::Entry};

impl Fleet {
    /// Records that a call has found too few units. Wakes the asking task, or starts it on this
    /// call's runtime.
    #[cold]
    pub(super) fn wants(self: &Arc<Self>, entry: &Arc<Entry>, now: u64) {
        let is_new = !entry.is_listed.swap(true, Ordering::SeqCst);
        if is_new {
            self.newcomers().push(entry.clone());
        }
        self.start(now);
        // A key that is not due has a timer, so it need not wake the task.
        let is_due = is_new || entry.quiet_until.load(Ordering::Relaxed) <= now;
        if is_due && !self.task.is_wanted.swap(true, Ordering::AcqRel) {
            self.task.wanted_at.store(now.max(1), Ordering::Relaxed);
            self.task.wake.notify_one();
        }
    }

    /// Starts the task if none runs, or if it was woken long ago and has not run since. Its runtime
    /// then exists, but nothing drives it.
    fn start(self: &Arc<Self>, now: u64) {
        let number = self.task.number.load(Ordering::Acquire);
        let wanted_at = self.task.wanted_at.load(Ordering::Relaxed);
        let is_stuck = wanted_at > 0 && now.saturating_sub(wanted_at) > STUCK;
        if number % 2 == 1 && !is_stuck {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            // Without a runtime no task can ask. The call is rejected, or waits for a call that has
            // one.
            return;
        };
        // The next odd number: odd while a task runs.
        let next = (number + 1) | 1;
        let won =
            self.task
                .number
                .compare_exchange(number, next, Ordering::AcqRel, Ordering::Acquire);
        if won.is_ok() {
            self.task.wanted_at.store(0, Ordering::Relaxed);
            runtime.spawn(asking::run(
                Arc::downgrade(self),
                self.task.wake.clone(),
                next,
            ));
            self.task.wake.notify_one();
        }
    }
}

/// The longest time that a woken task may take to run, in nanoseconds.
const STUCK: u64 = 2_000_000_000;
