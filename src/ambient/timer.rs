//! Timers of calls, kept for later calls of their thread.
//!
//! A tokio timer costs an allocation, and takes the lock that all workers share twice: to enter the
//! wheel and to leave it. A timer in the wheel moves to a later time by one compare-and-swap.
//! Nearly all calls end long before their timer fires. So an ended call leaves its timer in the
//! wheel, in a pool of its thread, and the thread's next call moves it to a later time.
//!
//! - *Nothing of the ended call remains.* Tokio holds a waker of the timer itself, its relay. The
//!   relay holds the task's waker while a call waits, and nothing afterwards.
//! - *A timer belongs to a runtime.* The next call takes it only within a runtime with the same id.
//!   Ids are reused once a runtime has ended. But that end fires all its timers, and a timer that
//!   has fired is never taken.
//! - *Only multi-threaded runtimes keep timers.* A paused clock advances to the next timer of the
//!   wheel, even to one that no call waits for. Tokio pauses only current-thread runtimes.

use std::{
    cell::{Cell, RefCell},
    fmt, mem,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    runtime::{Handle, Id, RuntimeFlavor},
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

use super::clock;

/// The timer of a waiting call. On drop, it may be kept for another call.
pub(crate) struct CallTimer(Option<Pin<Box<Timer>>>);

pin_project! {
    struct Timer {
        #[pin]
        sleep: Sleep,
        // The start of the call's wait, if that is asked for.
        since: Option<Instant>,
        // If true, the present call has polled the timer.
        is_polled: bool,
        // Only of a timer that may be kept.
        relay: Option<(Arc<Relay>, Waker)>,
        runtime: Option<Id>,
    }
}

/// The target of a timer's wake, in place of a task.
#[derive(Default)]
struct Relay(Mutex<Target>);

#[derive(Default)]
struct Target {
    task: Option<Waker>,
    /// Set by the wake, after which tokio no longer holds the relay.
    fired: bool,
}

/// The timers of ended calls, all of one runtime, each with the time at which it fires if it is not
/// moved.
struct Pool {
    runtime: Option<Id>,
    timers: Vec<(Instant, Pin<Box<Timer>>)>,
}

impl CallTimer {
    /// Creates a timer that fires at `until`, for a call that has waited since `since`.
    ///
    /// # Panics
    /// The call is outside a tokio runtime with timers.
    pub(crate) fn new(since: Option<Instant>, until: Instant) -> Self {
        let runtime = Handle::try_current().ok().filter(keeps_timers);
        let runtime = runtime.map(|handle| handle.id());
        if let Some(mut timer) = runtime.and_then(|runtime| kept(runtime, until)) {
            let this = timer.as_mut().project();
            *this.since = since;
            *this.is_polled = false;
            this.sleep.reset(until);
            return Self(Some(timer));
        }
        let relay = runtime.map(|_| {
            let relay = Arc::<Relay>::default();
            let waker = Waker::from(relay.clone());
            (relay, waker)
        });
        let mut timer = Box::pin(Timer {
            sleep: sleep_until(until),
            since,
            is_polled: false,
            relay,
            runtime,
        });
        timer.as_mut().register();
        Self(Some(timer))
    }

    /// Polls the timer. Ready once it has fired.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.as_mut().expect("there until the drop");
        timer.as_mut().poll(cx)
    }

    pub(crate) fn until(&self) -> Instant {
        self.timer().sleep.deadline()
    }

    /// Returns how long its call has waited, if it knows since when.
    pub(crate) fn elapsed(&self) -> Option<Duration> {
        let since = self.timer().since?;
        Some(clock::moment().saturating_duration_since(since))
    }

    fn timer(&self) -> &Timer {
        self.0.as_ref().expect("there until the drop")
    }
}

/// Announces to an outer call that its task will be woken at this moment at the latest.
pub(crate) fn announce(until: Instant) {
    let _ = ANNOUNCED.try_with(|announced| {
        let earlier = announced.get().filter(|earlier| *earlier <= until);
        announced.set(earlier.or(Some(until)));
    });
}

/// Removes every announcement of this poll, of whichever call.
pub(crate) fn retract() {
    let _ = ANNOUNCED.try_with(|announced| announced.set(None));
}

/// Polls, and returns the earliest moment that was announced meanwhile and not removed.
pub(crate) fn listen<T>(poll: impl FnOnce() -> T) -> (T, Option<Instant>) {
    // Restored even if the poll panics.
    let further_out = Announced(ANNOUNCED.try_with(Cell::take).ok().flatten());
    let polled = poll();
    let announced = ANNOUNCED.try_with(Cell::take).ok().flatten();
    drop(further_out);
    (polled, announced)
}

/// The moment that was announced to an outer call.
struct Announced(Option<Instant>);

impl Drop for Announced {
    fn drop(&mut self) {
        let _ = ANNOUNCED.try_with(|announced| announced.set(self.0));
    }
}

impl Drop for CallTimer {
    fn drop(&mut self) {
        let Some(timer) = self.0.take() else { return };
        let Some((relay, _)) = &timer.relay else {
            return;
        };
        // Dropped outside the lock, because a waker's drop is user code.
        let task = relay.lock().task.take();
        drop(task);
        if !timer.sleep.is_elapsed() {
            keep(timer);
        }
    }
}

impl Timer {
    /// Gives tokio the relay's waker, if the timer has a relay.
    fn register(self: Pin<&mut Self>) {
        let this = self.project();
        let Some((relay, waker)) = this.relay else {
            return;
        };
        relay.lock().fired = false;
        // Not on the task's budget: a task that has used it up would leave the timer unregistered.
        let polled = pin!(unconstrained(this.sleep)).poll(&mut Context::from_waker(waker));
        // A timer that has fired already is noticed when it is polled.
        let _ = polled;
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.as_mut().project();
        let is_first = !mem::replace(this.is_polled, true);
        let Some((relay, _)) = this.relay else {
            return this.sleep.poll(cx);
        };
        if relay.set(cx.waker(), is_first) && !self.sleep.is_elapsed() {
            // It fired at an earlier call's time while it was being moved to this call's.
            self.as_mut().register();
        }
        if self.sleep.is_elapsed() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Relay {
    /// Wakes this task from now on. Returns whether tokio no longer holds the relay. On the first
    /// poll of a call there is no earlier task to compare with.
    fn set(&self, waker: &Waker, is_first: bool) -> bool {
        if !is_first {
            let target = self.lock();
            let task = target.task.as_ref();
            if task.is_some_and(|task| task.will_wake(waker)) {
                return target.fired;
            }
        }
        // Cloned and dropped outside the lock, because both run user code.
        let task = waker.clone();
        let mut target = self.lock();
        let (before, fired) = (target.task.replace(task), target.fired);
        drop(target);
        drop(before);
        fired
    }

    fn lock(&self) -> MutexGuard<'_, Target> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        let mut target = self.lock();
        target.fired = true;
        let task = target.task.take();
        drop(target);
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// Returns whether timers of this runtime may outlive their calls.
fn keeps_timers(handle: &Handle) -> bool {
    handle.runtime_flavor() == RuntimeFlavor::MultiThread
}

/// Returns a timer of an ended call. Only moving a timer to a later time is cheap. So it is the one
/// that fires last among those that fire before the new time.
fn kept(runtime: Id, until: Instant) -> Option<Pin<Box<Timer>>> {
    let mut dead = Vec::new();
    let found = POOL.try_with(|pool| {
        let mut pool = pool.try_borrow_mut().ok()?;
        if pool.runtime != Some(runtime) {
            dead = mem::take(&mut pool.timers);
            pool.runtime = Some(runtime);
        }
        while let Some(place) = pool.best(until) {
            let (at, timer) = pool.timers.swap_remove(place);
            if !timer.sleep.is_elapsed() {
                return Some(timer);
            }
            dead.push((at, timer));
        }
        None
    });
    // Dropped only here: the last timer of a runtime may drop what is left of that runtime.
    drop(dead);
    found.ok().flatten()
}

fn keep(timer: Pin<Box<Timer>>) {
    let mut unkept = Some(timer);
    let _ = POOL.try_with(|pool| {
        let Ok(mut pool) = pool.try_borrow_mut() else {
            return;
        };
        let of_runtime = |timer: &mut Pin<Box<Timer>>| timer.runtime == pool.runtime;
        if pool.timers.len() < KEPT {
            if let Some(timer) = unkept.take_if(of_runtime) {
                pool.timers.push((timer.sleep.deadline(), timer));
            }
        }
    });
    drop(unkept);
}

impl Pool {
    /// Returns the index of the timer to take, among the last few, so that a long pool costs
    /// nothing. A full pool returns a timer that fires too late rather than none, so that it adapts
    /// to shorter times.
    fn best(&self, until: Instant) -> Option<usize> {
        let last = self.timers.len().saturating_sub(LOOKED_AT);
        let few = self.timers.iter().enumerate().skip(last);
        let earlier = few.filter(|(_, (at, _))| *at <= until);
        let best = earlier.max_by_key(|(_, (at, _))| *at);
        let any = (self.timers.len() == KEPT).then_some(KEPT - 1);
        best.map(|(place, _)| place).or(any)
    }
}

impl fmt::Debug for CallTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallTimer")
            .field("until", &self.until())
            .finish_non_exhaustive()
    }
}

thread_local!(static ANNOUNCED: Cell<Option<Instant>> = const { Cell::new(None) });

thread_local!(static POOL: RefCell<Pool> = const {
    RefCell::new(Pool { runtime: None, timers: Vec::new() })
});

/// The number of timers that a thread keeps.
const KEPT: usize = 64;

/// The number of timers of a pool that are compared.
const LOOKED_AT: usize = 8;
