//! Circuit breaker: stops calling a peer that fails, and finds out when it is back.
//!
//! Closed, it counts; when enough calls of the last window failed, it opens and refuses all; after
//! a while it lets a few probes through (half-open), whose results close it or open it again. The
//! pattern is Nygard's (*Release It!*, 2007).
//!
//! The whole state is one word that carries a *generation*, raised by one in every transition. An
//! admission hands out the generation ([`Pass`]), and a result is counted only if the generation is
//! still the same. So a call that was admitted while closed, and that ends when the circuit is
//! half-open, neither closes nor opens it; and a new generation starts with an empty window,
//! because counts carry their generation too.
//!
//! Why not a lock around a state and its window? The admission of every call would then write what
//! all threads share. Here it is one load of a word that changes only with transitions and probes.
//! And why not an atomic state beside atomic counters? A result could be counted into a state that
//! it does not belong to; and of two threads that see the same rate both would trip.
//!
//! **Guarantee.** Each transition is one compare-and-swap and is returned to the one caller that
//! made it. In half-open, probes out and probes judged never exceed `probes`.
//!
//! **Cost**, with the default window of time. Closed: admission one load; success one
//! compare-and-swap on a word of the thread's own stripe, and two loads; failure one
//! compare-and-swap on a shared word and some twenty loads, and ten loads more a stripe when the
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
use hints::{Hints, PARTS, Place};
pub use pass::Pass;
use run::Run;
use settings::{Foundation, Length, Settings, SharedSettings};
pub use transition::{BreakerState, Cause, CircuitOpen, Transition};

mod admit;
mod ages;
mod by_hand;
mod config;
mod control;
mod hints;
#[cfg(all(test, keep_loom))]
mod loom_model;
mod pass;
mod record;
mod run;
mod settings;
#[cfg(all(test, not(keep_loom)))]
mod tests;
mod transition;
mod trip;

/// The state machine of one circuit. With a window of time, 1 KiB and 128 bytes for each stripe,
/// twice that if slow calls are watched.
#[derive(Debug)]
pub struct Breaker {
    /// Written on transitions and for probes only; what it holds is told at [`Control`].
    control: Padded<AtomicU64>,
    /// When the newest probe was let out, in nanoseconds. Written before the probe appears in
    /// `control`, whose Release publishes it. Only ever raised, so a loser of that race can
    /// lengthen a lease, never shorten one.
    probed: AtomicU64,
    /// [`Stamp::as_flag`](crate::algorithm::window::Stamp::as_flag) of a tick in which a success
    /// may trip, because the failures would do but the calls are too few; [`JUDGE_NEXT`] after an
    /// update; else 0.
    watch: AtomicU64,
    hints: Hints,
    /// When a failure, a slow or a dropped call last ended, if the window is of calls. Relaxed: it
    /// is written before the call is counted, and only says how old the counts are.
    harmed: AtomicU64,
    /// How many calls a ramp has judged. Relaxed: only the number matters.
    ramped: AtomicU64,
    /// Results of older generations, all told. Relaxed: a statistic.
    late: AtomicU64,
    run: Run,
    counter: Counter,
    /// From when slow calls were first watched.
    ages: OnceLock<Ages>,
    /// After how many nanoseconds a call is slow, `u64::MAX` if none is. Relaxed: published as the
    /// ticks of the ages are.
    slow_after: AtomicU64,
    stripes: usize,
    settings: SharedSettings,
    seed: u64,
}

/// What counts the calls of a [`Window`].
#[derive(Debug)]
enum Counter {
    Time(Box<TimeWindow>),
    Calls(CallWindow),
}

impl Breaker {
    /// A closed circuit, whose successes are counted on `stripes` rings: as many as there are
    /// cores, or 1. `seed` is any random number; the jitter of its open times follows from it.
    ///
    /// # Errors
    /// A setting outside the range that [`BreakerConfig`] gives for it.
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
            run: Run::new(),
            counter,
            ages,
            slow_after: AtomicU64::new(foundation.slow_after),
            stripes,
            settings: SharedSettings::new(settings),
            seed,
        })
    }

    /// The state that the next call would meet, but for the end of an open time, which only a call
    /// brings about.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.load().state()
    }

    /// How many transitions there have been, and updates that began a new window, modulo 2^18.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.load().generation()
    }

    /// How long until probes are let through; `None` unless open.
    #[must_use]
    pub fn until_half_open(&self, now: u64) -> Option<Duration> {
        let control = self.load();
        let open = control.state() == BreakerState::Open;
        open.then(|| Duration::from_nanos(control.deadline(now).saturating_sub(now)))
    }

    /// Returns whether a call at that time is certain to be rejected, as far as is known now: the
    /// circuit is open until later, or was forced open.
    #[must_use]
    pub fn is_open_at(&self, now: u64) -> bool {
        let control = self.load();
        match control.state() {
            BreakerState::Open => now < control.deadline(now),
            state => state == BreakerState::ForcedOpen,
        }
    }

    /// How long until time alone changes what an admission meets: the end of the open time, or of
    /// the probes' lease.
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

    /// Whether the state has changed since an admission, so that its result will be late. False if
    /// nothing was admitted.
    #[must_use]
    #[inline]
    pub fn has_changed(&self, pass: &Pass) -> bool {
        !pass.is_nothing() && !pass.is_of(self.load())
    }

    /// What the window holds.
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

    /// How many calls in flight are slow already; 0 unless slow calls are watched. The window has
    /// them when they end.
    #[must_use]
    pub fn hung(&self, now: u64) -> u64 {
        self.ages
            .get()
            .map_or(0, |ages| ages.slow(self.generation(), now))
    }

    /// Whether a map of circuits may evict it: a new breaker in its place would do as well, or what
    /// it knows is too old to matter.
    ///
    /// Closed, its window is empty and its streak over. Open or half-open, its open time (or its
    /// probes' lease) and one window have passed without a call: a peer that is gone for good would
    /// hold its place forever. Of a window of calls, which has no length in time, that is
    /// `max_open` without a failure, a slow or a dropped call: no failure would keep the circuit
    /// open for longer. Forced open, disabled and for the metrics only it never is: somebody wants
    /// it so.
    #[must_use]
    pub fn is_evictable(&self, now: u64) -> bool {
        let control = self.load();
        match control.state() {
            BreakerState::Closed => self.is_clean(control, now) && self.hung(now) == 0,
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

    /// Of a closed circuit: whether nothing of the past matters.
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

    /// How long a result matters.
    fn memory(&self) -> u64 {
        match &self.counter {
            Counter::Time(window) => window.length(),
            Counter::Calls(_) => self.settings.load().max_open,
        }
    }

    /// How many results came too late to count, because the state had changed since their
    /// admission.
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

    /// Open, for one time more than before.
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

    /// Where a result that ends now belongs, for its hint. All probes of one half-open are judged
    /// together, however long they take.
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

    /// Acquire: partner of the Release in `swap`, for `probed`.
    #[inline]
    fn load(&self) -> Control {
        Control::from_word(self.control.load(Ordering::Acquire))
    }

    /// Release publishes `probed`; Acquire keeps earlier probes' times visible to a thread that
    /// reads the new word.
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

/// A number for each generation that has nothing to do with those of other breakers (the finalizer
/// of `SplitMix64`).
fn scatter(seed: u64, generation: u32) -> u64 {
    let mut word = seed ^ u64::from(generation).wrapping_mul(GOLDEN);
    word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

/// Not the flag of any tick, for lack of the bits between.
const JUDGE_NEXT: u64 = u64::MAX;
/// 2^64 over the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
