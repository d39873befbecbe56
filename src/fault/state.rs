//! The state that the layer, its services, its calls and its handles share.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{runtime, sync::Notify, task::AbortHandle, time::Instant};

use crate::{
    Changed, ConfigError,
    ambient::clock::{self, Clock, nanos},
    fault::{FaultPolicy, Injected, Snapshot, kind::Kind, schedule::Schedule},
    observe::trace,
    sync::{Held, Striped},
};

/// The run at the moment of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct CurrentRun {
    number: u64,
    /// The time since its start, in nanoseconds.
    pub(super) elapsed: u64,
    pub(super) ends: Instant,
}

/// A fault whose settings are checked.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) schedule: Schedule,
    /// The seed of its draws.
    pub(super) seed: u64,
    counts: FaultCounts,
}

/// The counts of a fault. Both Relaxed: statistics.
#[derive(Debug, Default)]
struct FaultCounts {
    injected: AtomicU64,
    would_inject: AtomicU64,
}

/// A call that is affected, until drop.
#[derive(Debug)]
pub(super) struct Active(Held<State>);

#[derive(Debug)]
pub(super) struct State {
    pub(super) reason: &'static str,
    pub(super) name: Option<&'static str>,
    pub(super) faults: Vec<Planned>,
    clock: Clock,
    /// The end of the run, in nanoseconds, or 0 if there is none. The only word that calls read of
    /// a stopped layer. Its store is Release and publishes `started`. Loads are Acquire, because
    /// they go on to read `started`.
    until: AtomicU64,
    /// The start of the run. Relaxed: published by `until`. A call that races a second start may
    /// see a start after its own moment. It then counts as being at the start.
    started: AtomicU64,
    /// The number of the run. Changes at each start and each end, before waiters are woken. The
    /// Acquire of `is_on` pairs with the Release of each change. A waiter that still reads the old
    /// number is woken by the notification, because it is already listening.
    run: AtomicU64,
    /// The number of the next call. Relaxed: each number is given out once, in any order.
    calls: AtomicU64,
    /// The number of the next wait for readiness. Relaxed, for the same reason.
    waits: AtomicU64,
    /// The count of affected calls, its limit, the switches and a statistic. All Relaxed: each is
    /// complete by itself.
    active: AtomicUsize,
    max_active: AtomicUsize,
    enabled: AtomicBool,
    shadow: AtomicBool,
    spared: AtomicU64,
    /// Wakes the calls that wait, when a run ends.
    ended: Notify,
    /// Locked to start and to end: by calls only if one finds that the time is over. No user code
    /// runs under it: neither wakers nor subscribers. Holds the task that notices the end.
    turn: Mutex<Option<EndTask>>,
}

/// The task that notices the end of a run. Ends on drop.
#[derive(Debug)]
struct EndTask(AbortHandle);

/// A run that has ended, to be reported when no lock is held.
struct EndedRun {
    why: Why,
    injected: u64,
    /// Kept here, so that it is not dropped under the lock.
    _task: Option<EndTask>,
}

/// The cause of the end of a run.
#[derive(Debug, Clone, Copy)]
enum Why {
    TimeIsOver,
    Stopped,
    StartedAnew,
    SwitchedOff,
}

impl Planned {
    pub(super) fn new(name: &'static str, kind: Kind, schedule: Schedule, seed: u64) -> Self {
        Self {
            name,
            kind,
            schedule,
            seed,
            counts: FaultCounts::default(),
        }
    }
}

impl State {
    pub(super) fn new(
        reason: &'static str,
        name: Option<&'static str>,
        policy: FaultPolicy,
        faults: Vec<Planned>,
    ) -> Self {
        Self {
            reason,
            name,
            faults,
            clock: Clock::start(),
            until: AtomicU64::new(0),
            started: AtomicU64::new(0),
            run: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            max_active: AtomicUsize::new(policy.max_active),
            enabled: AtomicBool::new(policy.enabled),
            shadow: AtomicBool::new(policy.shadow),
            spared: AtomicU64::new(0),
            ended: Notify::new(),
            turn: Mutex::new(None),
        }
    }

    /// Returns the run at this moment, if faults run. Costs a load if not.
    #[inline]
    pub(super) fn run(&self) -> Option<CurrentRun> {
        match self.until.load(Ordering::Acquire) {
            0 => None,
            until => self.run_until(until),
        }
    }

    #[cold]
    fn run_until(&self, until: u64) -> Option<CurrentRun> {
        let number = self.run.load(Ordering::Acquire);
        let now = self.clock.now();
        if now >= until {
            self.end(Some(until), Why::TimeIsOver);
            return None;
        }
        let started = self.started.load(Ordering::Relaxed);
        let left = Duration::from_nanos(until - now);
        Some(CurrentRun {
            number,
            elapsed: now.saturating_sub(started),
            ends: clock::later(clock::moment(), left),
        })
    }

    /// Returns whether a run still continues.
    pub(super) fn is_on(&self, run: CurrentRun) -> bool {
        self.run().is_some() && self.run.load(Ordering::Acquire) == run.number
    }

    /// Returns a notification of the run's end. Make it before calling `is_on`.
    pub(super) fn ended(&self) -> tokio::sync::futures::Notified<'_> {
        self.ended.notified()
    }

    pub(super) fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn next_wait(&self) -> u64 {
        self.waits.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn is_shadow(&self) -> bool {
        self.shadow.load(Ordering::Relaxed)
    }

    /// Counts a fault that is injected, or would be.
    pub(super) fn count(&self, fault: usize, real: bool) {
        let counts = &self.faults[fault].counts;
        let count = match real {
            true => &counts.injected,
            false => &counts.would_inject,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if real {
            trace::fault_injected((LAYER, self.name), self.faults[fault].name);
        }
    }

    pub(super) fn mark(&self, fault: usize) -> Injected {
        Injected {
            fault: self.faults[fault].name,
            name: self.name,
            reason: self.reason,
        }
    }

    pub(super) fn policy(&self) -> FaultPolicy {
        FaultPolicy {
            enabled: self.enabled.load(Ordering::Relaxed),
            shadow: self.is_shadow(),
            max_active: self.max_active.load(Ordering::Relaxed),
        }
    }

    pub(super) fn update(&self, policy: FaultPolicy) -> Result<Changed, ConfigError> {
        let policy = policy
            .checked()
            .map_err(|error| error.of(LAYER, self.name))?;
        let mut turn = self.turn();
        let before = self.policy();
        self.shadow.store(policy.shadow, Ordering::Relaxed);
        self.max_active.store(policy.max_active, Ordering::Relaxed);
        self.enabled.store(policy.enabled, Ordering::Relaxed);
        let mut ended = None;
        if !policy.enabled {
            ended = self.end_in(&mut turn, Why::SwitchedOff);
        }
        drop(turn);
        self.tell(ended);
        let changed = Changed::default()
            .note(LAYER, "enabled", (before.enabled, policy.enabled))
            .note(LAYER, "shadow", (before.shadow, policy.shadow))
            .note(LAYER, "max_active", (before.max_active, policy.max_active));
        trace::updated((LAYER, self.name), &changed);
        Ok(changed)
    }

    pub(super) fn stop(&self) {
        self.end(None, Why::Stopped);
    }

    /// Ends the run. If `until` is given, only a run that lasts until then.
    fn end(&self, until: Option<u64>, why: Why) {
        let mut turn = self.turn();
        if until.is_some_and(|until| self.until.load(Ordering::Relaxed) != until) {
            return;
        }
        let ended = self.end_in(&mut turn, why);
        drop(turn);
        self.tell(ended);
    }

    fn turn(&self) -> MutexGuard<'_, Option<EndTask>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_in(&self, turn: &mut Option<EndTask>, why: Why) -> Option<EndedRun> {
        if self.until.swap(0, Ordering::Release) == 0 {
            return None;
        }
        self.run.fetch_add(1, Ordering::Release);
        let injected = self.faults.iter();
        let injected = injected.map(|fault| fault.counts.injected.load(Ordering::Relaxed));
        Some(EndedRun {
            why,
            injected: injected.sum(),
            _task: turn.take(),
        })
    }

    /// Wakes the calls that wait, and reports the end. A waiter of a later run, which may have
    /// started meanwhile, is woken as well, and continues to wait.
    fn tell(&self, ended: Option<EndedRun>) {
        if let Some(EndedRun { why, injected, .. }) = ended {
            self.ended.notify_waiters();
            let told = (LAYER, self.name);
            trace::faults_ended(told, self.reason, why.as_str(), injected);
        }
    }

    fn counted(&self, count: impl Fn(&FaultCounts) -> &AtomicU64) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for fault in &self.faults {
            *sums.entry(fault.name).or_default() += count(&fault.counts).load(Ordering::Relaxed);
        }
        sums
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let run = self.run();
        Snapshot {
            reason: self.reason,
            remaining: run.map(|run| run.ends.saturating_duration_since(clock::moment())),
            policy: self.policy(),
            active: self.active.load(Ordering::Relaxed),
            injected: self.counted(|counts| &counts.injected),
            would_inject: self.counted(|counts| &counts.would_inject),
            spared: self.spared.load(Ordering::Relaxed),
        }
    }
}

/// Starts a run, and ends the one before. Returns whether it has started.
pub(super) fn start(state: &Striped<State>, lasting: Duration) -> bool {
    let mut turn = state.turn();
    if !state.enabled.load(Ordering::Relaxed) || lasting.is_zero() {
        return false;
    }
    let ended = state.end_in(&mut turn, Why::StartedAnew);
    state.calls.store(0, Ordering::Relaxed);
    state.waits.store(0, Ordering::Relaxed);
    let now = state.clock.now();
    state.started.store(now, Ordering::Relaxed);
    // At least 1, because 0 means no run.
    let until = now.saturating_add(nanos(lasting)).max(1);
    state.run.fetch_add(1, Ordering::Release);
    state.until.store(until, Ordering::Release);
    // The task notices the end without any call. Outside of a runtime a call notices it.
    *turn = runtime::Handle::try_current().ok().map(|runtime| {
        let ends = clock::later(clock::moment(), lasting);
        let task = runtime.spawn(end_at(ends, Arc::downgrade(state.value())));
        EndTask(task.abort_handle())
    });
    drop(turn);
    state.tell(ended);
    let told = (LAYER, state.name);
    trace::faults_started(told, state.reason, lasting, state.is_shadow());
    true
}

async fn end_at(moment: Instant, state: Weak<State>) {
    tokio::time::sleep_until(moment).await;
    if let Some(state) = state.upgrade() {
        // Ends the run if its time is over, which it is not if it was started again.
        state.run();
    }
}

impl Drop for EndTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Active {
    /// Counts an affected call. `None` if enough calls are affected: this one is spared.
    pub(super) fn begin(state: &Striped<State>) -> Option<Self> {
        let max = state.max_active.load(Ordering::Relaxed);
        let more = |active| (active < max).then_some(active + 1);
        let entered = state
            .active
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if entered.is_err() {
            state.spared.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(state.for_call()))
    }

    pub(super) fn state(&self) -> &Held<State> {
        &self.0
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Why {
    fn as_str(self) -> &'static str {
        match self {
            Self::TimeIsOver => "its time is over",
            Self::Stopped => "stopped",
            Self::StartedAnew => "started anew",
            Self::SwitchedOff => "switched off",
        }
    }
}

pub(super) const LAYER: &str = "fault";
