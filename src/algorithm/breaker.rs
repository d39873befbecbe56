//! Circuit breaker: stops calling an upstream that fails, and finds out when it has recovered.
//!
//! A closed circuit counts calls. When enough calls of the last window failed, it opens and rejects
//! all calls. After a while it becomes half-open and admits a few probes, whose results close it or
//! open it again. The pattern is Nygard's (*Release It!*, 2007).
//!
//! The whole state is one word that carries a *generation*, raised by one in every transition. An
//! admission hands out the generation ([`Pass`]), and a result is counted only if the generation is
//! still the same. So a call that was admitted while closed, and that ends while half-open, neither
//! closes nor opens the circuit. Counts carry their generation too, so a new generation starts with
//! an empty window.
//!
//! With a lock around a state and its window, the admission of every call would write what all
//! threads share. Here it is one load of a word that changes only with transitions and probes. With
//! an atomic state beside atomic counters, a result could be counted into a state that it does not
//! belong to. And of two threads that see the same rate both would trip.
//!
//! **Guarantee.** Each transition is one compare-and-swap, and is returned to the one caller that
//! made it. In half-open, probes in flight and probes judged together never exceed `probes`, unless
//! an update lowers that.
//!
//! **Cost**, with the default window of time. Closed: an admission is one load. A success is one
//! compare-and-swap on a word of the thread's own stripe, and two loads. A failure is one
//! compare-and-swap on a shared word and some twenty loads, and ten more loads per stripe if the
//! failures could trip. Open: one load. Watching slow calls adds two compare-and-swaps on the
//! stripe and needs the time at the admission. None of this grows with the number of calls in the
//! window.

use std::{sync::OnceLock, time::Duration};

use crate::{
    algorithm::{Counts, call_window::CallWindow, window::TimeWindow},
    config::ConfigError,
    sync::{AtomicU64, Ordering, Padded},
};

use ages::Ages;
pub use config::{BreakerConfig, SlowCalls, Verdict, Window};
use control::Control;
use failure_streak::FailureStreak;
use hints::{Hints, PARTS, Place};
pub use pass::Pass;
use settings::{Foundation, Length, Settings, SharedSettings};
pub use transition::{BreakerState, Cause, CircuitOpen, Transition};

mod admit;
mod ages;
mod by_hand;
mod config;
mod control;
mod failure_streak;
mod hints;
#[cfg(all(test, keep_loom))]
mod loom_model;
mod pass;
mod record;
mod settings;
#[cfg(all(test, not(keep_loom)))]
mod tests;
mod transition;
mod trip;

/// The state machine of one circuit. With a window of time it takes 1 KiB and 128 bytes for each
/// stripe, or twice that if slow calls are watched.
#[derive(Debug)]
pub struct Breaker {
    /// Written on transitions and for probes only. [`Control`] lists its bits.
    control: Padded<AtomicU64>,
    /// The time at which the newest probe was admitted, in nanoseconds. Written before the probe
    /// appears in `control`, whose Release publishes it. Only ever raised, so a loser of that race
    /// can lengthen a lease, never shorten one.
    probed: AtomicU64,
    /// The [`Stamp::as_flag`](crate::algorithm::window::Stamp::as_flag) of a tick in which a
    /// success may trip, because the failures suffice but the calls are too few. [`JUDGE_NEXT`]
    /// after an update, else 0.
    watch: AtomicU64,
    hints: Hints,
    /// The time at which a failure, a slow or a dropped call last ended, if the window is of calls.
    /// Relaxed: it is written before the call is counted, and only shows how old the counts are.
    harmed: AtomicU64,
    /// The number of calls that ramps have judged. Relaxed: only the number matters.
    ramped: AtomicU64,
    /// Results of older generations. Relaxed: a statistic.
    late: AtomicU64,
    streak: FailureStreak,
    counter: Counter,
    /// Set once slow calls are first watched.
    ages: OnceLock<Ages>,
    /// The nanoseconds after which a call is slow, `u64::MAX` if none is. Relaxed: published like
    /// the ticks of the ages.
    slow_after: AtomicU64,
    stripes: usize,
    settings: SharedSettings,
    seed: u64,
}

/// The counter for the calls of a [`Window`].
#[derive(Debug)]
enum Counter {
    Time(Box<TimeWindow>),
    Calls(CallWindow),
}

impl Breaker {
    /// Creates a closed circuit, whose successes are counted on `stripes` rings. Use one for each
    /// core, or a single one. `seed` is any random number, from which the jitter of the circuit's
    /// open times follows.
    ///
    /// # Errors
    /// A setting is outside the range that [`BreakerConfig`] gives for it.
    pub fn new(config: &BreakerConfig, stripes: usize, seed: u64) -> Result<Self, ConfigError> {
        let (foundation, settings) = (Foundation::new(config)?, Settings::new(config)?);
        let counter = match foundation.window {
            Length::Time(length) => Counter::Time(Box::new(TimeWindow::new(length, stripes))),
            Length::Calls(calls) => Counter::Calls(CallWindow::new(calls)),
        };
        let ages = OnceLock::new();
        if config.slow_calls.is_some() {
            ages.get_or_init(|| Ages::new(foundation.slow_after, stripes));
        }
        Ok(Self {
            control: Padded(AtomicU64::new(Control::closed().word())),
            probed: AtomicU64::new(0),
            watch: AtomicU64::new(0),
            hints: Hints::default(),
            harmed: AtomicU64::new(0),
            ramped: AtomicU64::new(seed >> 32),
            late: AtomicU64::new(0),
            streak: FailureStreak::new(),
            counter,
            ages,
            slow_after: AtomicU64::new(foundation.slow_after),
            stripes,
            settings: SharedSettings::new(settings),
            seed,
        })
    }

    /// Returns the state. Only a call ends an open time, so a circuit whose open time is over stays
    /// open until the next call.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.load().state()
    }

    /// Returns the number of transitions, and of updates that began a new window, modulo 2^18.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.load().generation()
    }

    /// Returns how long until probes are admitted, or `None` unless open.
    #[must_use]
    pub fn until_half_open(&self, now: u64) -> Option<Duration> {
        let control = self.load();
        let open = control.state() == BreakerState::Open;
        open.then(|| Duration::from_nanos(control.deadline(now).saturating_sub(now)))
    }

    /// Returns whether a call at that time is certain to be rejected, as far as is known now. The
    /// circuit is then open until later, or was forced open.
    #[must_use]
    pub fn is_open_at(&self, now: u64) -> bool {
        let control = self.load();
        match control.state() {
            BreakerState::Open => now < control.deadline(now),
            state => state == BreakerState::ForcedOpen,
        }
    }

    /// Returns how long until time alone changes the result of an admission. That is the end of the
    /// open time, or of the probes' lease.
    #[must_use]
    pub fn until_change(&self, now: u64) -> Option<Duration> {
        let control = self.load();
        let at = match control.state() {
            BreakerState::Open => control.deadline(now),
            BreakerState::HalfOpen => self
                .probed
                .load(Ordering::Relaxed)
                .saturating_add(self.settings.load().lease),
            _ => return None,
        };
        Some(Duration::from_nanos(at.saturating_sub(now)))
    }

    /// Returns whether the state has changed since an admission, so that its result will be late.
    /// False if nothing was admitted.
    #[must_use]
    #[inline]
    pub fn has_changed(&self, pass: &Pass) -> bool {
        !pass.is_nothing() && !pass.is_of(self.load())
    }

    /// Returns the counts of the window.
    #[must_use]
    pub fn counts(&self, now: u64) -> Counts {
        self.counts_of(self.generation(), now)
    }

    fn counts_of(&self, generation: u32, now: u64) -> Counts {
        match &self.counter {
            Counter::Time(window) => window.counts(window.stamp(generation, now)),
            Counter::Calls(window) => window.counts(generation),
        }
    }

    /// Returns the number of calls in flight that are slow already, or 0 unless slow calls are
    /// watched. The window counts them when they end.
    #[must_use]
    pub fn hung(&self, now: u64) -> u64 {
        let watched = self.ages.get().filter(|_| self.settings.watches_slow());
        watched.map_or(0, |ages| ages.slow(self.generation(), now))
    }

    /// Returns whether a map of circuits may evict it: a new breaker in its place would do as well,
    /// or its counts are too old to matter.
    ///
    /// A closed circuit is evictable if its window is empty, and its streak and its ramp are over.
    /// An open or half-open one is evictable once its open time (or its probes' lease) and one
    /// window have passed without a call. Otherwise an upstream that is gone for good would keep
    /// its entry in the map.
    ///
    /// A window of calls has no length in time. Instead, `max_open` must pass without a failure, a
    /// slow or a dropped call, because no failure would keep the circuit open for longer. A circuit
    /// that is forced open, disabled or metrics-only is never evictable, because it was set so by
    /// hand.
    #[must_use]
    pub fn is_evictable(&self, now: u64) -> bool {
        let control = self.load();
        match control.state() {
            BreakerState::Closed => {
                self.is_clean(control, now) && self.hung(now) == 0 && !self.is_ramping(control, now)
            }
            BreakerState::Open => now >= control.deadline(now).saturating_add(self.memory()),
            BreakerState::HalfOpen => {
                // Relaxed: `control` was loaded with Acquire, as in `lease_is_over`. A later call
                // would have sent another probe, or met the end of the lease.
                let lease = self.settings.load().lease;
                let over = self.probed.load(Ordering::Relaxed).saturating_add(lease);
                now >= over.saturating_add(self.memory())
            }
            _ => false,
        }
    }

    /// Returns whether a closed circuit has an empty or outdated window and no failure streak, so
    /// that a new breaker would do as well.
    fn is_clean(&self, control: Control, now: u64) -> bool {
        let counts = self.counts(now);
        let streak_is_over = control.streak() == 0 || self.has_held(control, now);
        match &self.counter {
            Counter::Time(_) => counts.total() + counts.abandoned == 0 && streak_is_over,
            Counter::Calls(_) => {
                let is_old = |at: u64| now.saturating_sub(at) >= self.memory();
                let unharmed = counts.failures + counts.slow + counts.abandoned == 0;
                (unharmed && streak_is_over)
                    || (is_old(self.harmed.load(Ordering::Relaxed))
                        && control.closed_at(now).is_none_or(is_old))
            }
        }
    }

    /// Returns whether a closed circuit may still reject a share of the calls.
    fn is_ramping(&self, control: Control, now: u64) -> bool {
        let age = |closed_at| now.saturating_sub(closed_at);
        let closed_at = control.closed_at(now);
        closed_at.is_some_and(|closed_at| age(closed_at) < self.settings.load().ramp)
    }

    /// Returns how long a result matters, in nanoseconds.
    fn memory(&self) -> u64 {
        match &self.counter {
            Counter::Time(window) => window.length(),
            Counter::Calls(_) => self.settings.load().max_open,
        }
    }

    /// Returns the number of results that came too late to count, because the state had changed
    /// since their admission.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Returns whether closed has lasted for a whole window.
    fn has_held(&self, control: Control, now: u64) -> bool {
        match (&self.counter, control.closed_at(now)) {
            (Counter::Calls(window), _) => window.is_full(control.generation()),
            (Counter::Time(window), Some(closed_at)) => {
                now.saturating_sub(closed_at) >= window.length()
            }
            (Counter::Time(_), None) => true,
        }
    }

    fn after_verdict(
        &self,
        control: Control,
        cause: Cause,
        settings: &Settings,
        now: u64,
    ) -> Control {
        match cause {
            Cause::ProbesSucceeded => control.close(now),
            _ => self.reopened(control, settings, now),
        }
    }

    /// Returns the next generation, open, with a streak longer by one.
    fn reopened(&self, control: Control, settings: &Settings, now: u64) -> Control {
        self.opened(control, control.streak() + 1, settings, now)
    }

    fn opened(&self, control: Control, streak: u32, settings: &Settings, now: u64) -> Control {
        let hint = self.hints.latest(self.place(control, now));
        let asked = hint.saturating_sub(now);
        let random = scatter(self.seed, control.generation());
        let time = settings.open_time(streak, asked, random);
        control.open(now.saturating_add(time), streak)
    }

    /// Returns the place in the window of a result that ends now, for its hint. All probes of one
    /// half-open state are judged together, however long they take.
    fn place(&self, control: Control, now: u64) -> Place {
        let (part, parts) = match &self.counter {
            _ if control.state() == BreakerState::HalfOpen => (0, 1),
            Counter::Time(window) => (window.tick(now), PARTS),
            Counter::Calls(window) => {
                let part = window.length().div_ceil(PARTS);
                let last = window.seen(control.generation()).saturating_sub(1);
                (last / part, window.length().div_ceil(part))
            }
        };
        Place {
            generation: control.generation(),
            part,
            parts,
        }
    }

    /// Loads the control word. Acquire: partner of the Release in `swap`, for `probed`.
    #[inline]
    fn load(&self) -> Control {
        Control::from_word(self.control.load(Ordering::Acquire))
    }

    /// Replaces the control word. Release publishes `probed`. Acquire keeps the times of earlier
    /// probes visible to a thread that reads the new word.
    fn swap(&self, from: Control, to: Control) -> Result<(), Control> {
        let swapped = self.control.compare_exchange(
            from.word(),
            to.word(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        swapped.map(drop).map_err(Control::from_word)
    }
}

/// Returns a number for each generation that is independent of those of other breakers (the
/// finalizer of `SplitMix64`).
fn scatter(seed: u64, generation: u32) -> u64 {
    let mut word = seed ^ u64::from(generation).wrapping_mul(GOLDEN);
    word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

/// A value that is the flag of no tick, because flags leave some of its bits unset.
const JUDGE_NEXT: u64 = u64::MAX;
/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
