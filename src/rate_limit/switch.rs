//! The settings of a limit that change while it runs, apart from its rate.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use crate::{
    Changed,
    ambient::clock::nanos,
    rate_limit::{
        changed::OrOff,
        config::Manners,
        settings::{MAX_WAITING, Settings},
    },
};

/// The switch of a limit, and the settings that change while it runs.
#[derive(Debug)]
pub(super) struct Switch {
    /// Number of switches, counted from off: odd is on, and 0 means that it never was on. Each
    /// number occurs once, so it also identifies the period in which a waiter joined. A change
    /// releases the rate that was set before it, to the Acquire of [`epoch`](Self::epoch). A call
    /// that finds the limit on therefore finds that rate. It never wraps.
    epoch: AtomicU64,
    /// In nanoseconds, or [`NO_WAIT`] if only calls with a deadline wait. Relaxed, as are the
    /// fields below: each is read by itself, and a call that races a change sees the old or the new
    /// value.
    max_wait: AtomicU64,
    max_waiting: AtomicUsize,
    /// The longest time that a hint closes the limit, in nanoseconds, or 0 if hints are not
    /// honored.
    max_penalty: AtomicU64,
    advertises: AtomicBool,
}

impl Switch {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            epoch: AtomicU64::new(u64::from(settings.enabled)),
            max_wait: AtomicU64::new(settings.max_wait.map_or(NO_WAIT, as_word)),
            max_waiting: AtomicUsize::new(settings.max_waiting.unwrap_or(MAX_WAITING)),
            max_penalty: AtomicU64::new(settings.max_penalty),
            advertises: AtomicBool::new(settings.advertise.is_on),
        }
    }

    #[inline(always)]
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    #[inline(always)]
    pub(super) fn is_on(&self) -> bool {
        is_on(self.epoch())
    }

    /// Returns whether it is or ever was on.
    pub(super) fn was_on(&self) -> bool {
        self.epoch() > 0
    }

    /// Switches it on or off, if it is not so already. Returns whether it was on.
    pub(super) fn set(&self, on: bool) -> bool {
        // The loser of a race checks again. Two racing calls for the same state switch once.
        let switched = self
            .epoch
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |epoch| {
                (is_on(epoch) != on).then_some(epoch + 1)
            });
        is_on(switched.unwrap_or_else(|epoch| epoch))
    }

    /// Returns the settings with their current values.
    pub(super) fn of(&self, settings: &Settings) -> Settings {
        let max_wait = self.max_wait.load(Ordering::Relaxed);
        Settings {
            max_wait: (max_wait != NO_WAIT).then_some(max_wait),
            max_waiting: Some(self.max_waiting.load(Ordering::Relaxed)),
            max_penalty: self.max_penalty(),
            advertise: settings.advertise.switched(self.advertises()),
            enabled: self.is_on(),
            ..*settings
        }
    }

    #[inline(always)]
    pub(super) fn max_penalty(&self) -> u64 {
        self.max_penalty.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn advertises(&self) -> bool {
        self.advertises.load(Ordering::Relaxed)
    }

    /// Returns whether a sent call must report its end.
    #[inline(always)]
    pub(super) fn owes(&self) -> bool {
        self.max_penalty() > 0 || self.advertises()
    }

    /// Returns the settings of waits, advertising and hints.
    pub(super) fn manners(&self) -> Manners {
        let max_wait = self.max_wait.load(Ordering::Relaxed);
        let max_wait = (max_wait != NO_WAIT).then(|| Duration::from_nanos(max_wait));
        let honored = Some(self.max_penalty()).filter(|nanos| *nanos > 0);
        Manners {
            max_wait,
            // Without a wait there are no waiters to bound.
            max_waiting: max_wait.map(|_| self.max_waiting.load(Ordering::Relaxed)),
            honor_retry_after: honored.map(Duration::from_nanos),
            advertise: self.advertises(),
        }
    }

    /// Changes the settings to checked ones.
    pub(super) fn behave(&self, to: Manners) -> Changed {
        let of = |nanos: u64| (nanos != NO_WAIT).then(|| Duration::from_nanos(nanos));
        let wait = to.max_wait.map_or(NO_WAIT, |wait| as_word(nanos(wait)));
        let wait = (self.max_wait.swap(wait, Ordering::Relaxed), wait);
        let waiting = to.max_waiting.unwrap_or(MAX_WAITING);
        let waiting = (self.max_waiting.swap(waiting, Ordering::Relaxed), waiting);
        let honor = to.honor_retry_after.map_or(0, nanos);
        let honor = (self.max_penalty.swap(honor, Ordering::Relaxed), honor);
        let honored = |nanos: u64| Duration::from_nanos(nanos);
        let advertise = self.advertises.swap(to.advertise, Ordering::Relaxed);
        Changed::default()
            .note(LAYER, "max_wait", (OrOff(of(wait.0)), OrOff(of(wait.1))))
            .note(LAYER, "max_waiting", waiting)
            .note(
                LAYER,
                "honor_retry_after",
                (honored(honor.0), honored(honor.1)),
            )
            .note(LAYER, "advertise", (advertise, to.advertise))
    }
}

/// Keeps the longest wait, `Duration::MAX` included, distinct from [`NO_WAIT`].
fn as_word(max_wait: u64) -> u64 {
    max_wait.min(NO_WAIT - 1)
}

#[inline(always)]
pub(super) fn is_on(epoch: u64) -> bool {
    epoch % 2 == 1
}

const LAYER: &str = "rate_limit";
const NO_WAIT: u64 = u64::MAX;
