//! The state that the layer, its services, its calls and its handles share.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    Changed, ConfigError,
    algorithm::LatencyQuantile,
    ambient::clock::{self, nanos},
    budget::{Counting, KeyBudget, Purses, Token},
    hedge::{HedgeConfig, lateness::Lateness},
    observe::{self, Instance, Observed, trace},
};

/// The numbers of a hedge at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// The delay of a hedge now. `None` while too few calls were seen.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::config::seconds::if_any")
    )]
    pub delay: Option<Duration>,
    /// Hedges that were sent so far, also those that a layer beneath rejected.
    pub sent: u64,
    /// Calls with a hedge whose first attempt won.
    pub won_by_first: u64,
    /// Calls that a hedge won.
    pub won_by_hedge: u64,
    /// Calls with a hedge in which no attempt succeeded.
    pub lost: u64,
    /// Hedges that were due when the budget could not pay for them. Calls that began while it was
    /// empty are not counted.
    pub budget_denied: u64,
    /// Hedges that were due and not sent because most calls were late, which no hedge mends.
    pub suppressed: u64,
}

#[derive(Debug)]
pub(super) struct State {
    /// Relaxed, for the same reason as `config`.
    enabled: AtomicBool,
    name: Option<&'static str>,
    /// The longest time of a call, if known.
    timeout: Option<Duration>,
    max_retry_after: Duration,
    /// A [`HedgeConfig`] in one word, so that no call sees half of a change. Bits 0 to 47: the
    /// delay in nanoseconds, which is the shortest one with a quantile. Bits 48 and up: the most
    /// hedges of a call. Relaxed: it publishes nothing else, and a call that races a change honors
    /// one of the two.
    config: AtomicU64,
    quantile: Option<LatencyQuantile>,
    /// Only with a quantile: a fixed delay does not say how many calls should be late.
    lateness: Option<Lateness>,
    purses: Purses,
    counts: HedgeCounts,
}

/// The settings that never change after the build.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fixed {
    pub(super) enabled: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) max_retry_after: Duration,
    pub(super) name: Option<&'static str>,
}

/// The counts. All Relaxed: statistics, and only of calls that are hedged.
#[derive(Debug, Default)]
struct HedgeCounts {
    sent: AtomicU64,
    won_by_first: AtomicU64,
    won_by_hedge: AtomicU64,
    lost: AtomicU64,
    budget_denied: AtomicU64,
    suppressed: AtomicU64,
}

/// The winner of a call with a hedge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Winner {
    First,
    Hedge,
    Nobody,
}

impl State {
    pub(super) fn new(
        config: HedgeConfig,
        quantile: Option<LatencyQuantile>,
        purses: Purses,
        fixed: Fixed,
    ) -> Result<Self, ConfigError> {
        let Fixed {
            enabled,
            timeout,
            max_retry_after,
            name,
        } = fixed;
        let packed = config.pack(timeout);
        let packed = packed.map_err(|error| error.of("hedge", name))?;
        Ok(Self {
            enabled: AtomicBool::new(enabled),
            name,
            timeout,
            max_retry_after,
            config: AtomicU64::new(packed),
            lateness: quantile.as_ref().map(|of| Lateness::new(of.quantile())),
            quantile,
            purses,
            counts: HedgeCounts::default(),
        })
    }

    /// Begins a call. Returns whether its request should be kept for a hedge, which is false if no
    /// budget would pay for one.
    pub(super) fn begin(&self, own: Option<&KeyBudget>) -> bool {
        self.is_enabled() && self.purses.pays(own)
    }

    /// Enters the poll of a call.
    pub(super) fn enter(&self, own: Option<&KeyBudget>, has_begun: &mut bool) -> Counting {
        self.purses.enter(own, has_begun)
    }

    /// Returns the longest hint that is waited for.
    pub(super) fn max_retry_after(&self) -> Duration {
        self.max_retry_after
    }

    pub(super) fn config(&self) -> HedgeConfig {
        HedgeConfig::unpack(self.config.load(Ordering::Relaxed))
    }

    /// Returns the delay until the next hedge is due.
    pub(super) fn delay(&self) -> Option<Duration> {
        let least = self.config().delay;
        match &self.quantile {
            None => Some(least),
            Some(quantile) => quantile
                .get()
                .map(|nanos| Duration::from_nanos(nanos).max(least)),
        }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    pub(super) fn set_enabled(&self, on: bool) -> Changed {
        let was_on = self.enabled.swap(on, Ordering::Relaxed);
        let changed = Changed::default().note("hedge", "enabled", (was_on, on));
        trace::updated(("hedge", self.name), &changed);
        changed
    }

    /// Returns the settings in one word, if they are valid.
    pub(super) fn check(&self, config: HedgeConfig) -> Result<u64, ConfigError> {
        let packed = config.pack(self.timeout);
        packed.map_err(|error| error.of("hedge", self.name))
    }

    pub(super) fn update(&self, config: HedgeConfig) -> Result<Changed, ConfigError> {
        let packed = self.check(config)?;
        let before = HedgeConfig::unpack(self.config.swap(packed, Ordering::Relaxed));
        let changed = config.since(&before);
        trace::updated(("hedge", self.name), &changed);
        Ok(changed)
    }

    /// Returns when a call is sent (now), if its time is measured.
    pub(super) fn sent_at(&self) -> Option<Instant> {
        self.quantile.as_ref().map(|_| clock::moment())
    }

    /// Records that a first attempt took at least the time since `sent_at`.
    pub(super) fn took(&self, sent_at: Instant) {
        if let Some(quantile) = &self.quantile {
            quantile.record(nanos(clock::moment().saturating_duration_since(sent_at)));
        }
    }

    /// Takes a token for a hedge. The failure that it follows, if any, was counted.
    pub(super) fn withdraw(&self, own: Option<&KeyBudget>) -> Option<Token> {
        let token = self.purses.withdraw(own, true);
        if token.is_none() {
            self.counts.budget_denied.fetch_add(1, Ordering::Relaxed);
        }
        token
    }

    /// Records whether a call's hedge came due before an answer. Returns whether hedges help now.
    pub(super) fn due(&self, is_late: bool) -> bool {
        let Some(lateness) = &self.lateness else {
            return true;
        };
        lateness.record(is_late);
        let is_general = is_late && lateness.is_general();
        if is_general {
            self.counts.suppressed.fetch_add(1, Ordering::Relaxed);
        }
        !is_general
    }

    pub(super) fn hedged(&self) {
        self.counts.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn succeeded(&self, own: Option<&KeyBudget>) {
        self.purses.succeeded(own);
    }

    pub(super) fn failed(&self, own: Option<&KeyBudget>) {
        self.purses.failed(own);
    }

    pub(super) fn ended(&self, winner: Winner) {
        let count = match winner {
            Winner::First => &self.counts.won_by_first,
            Winner::Hedge => &self.counts.won_by_hedge,
            Winner::Nobody => &self.counts.lost,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Snapshot {
            delay: self.delay(),
            sent: of(&self.counts.sent),
            won_by_first: of(&self.counts.won_by_first),
            won_by_hedge: of(&self.counts.won_by_hedge),
            lost: of(&self.counts.lost),
            budget_denied: of(&self.counts.budget_denied),
            suppressed: of(&self.counts.suppressed),
        }
    }
}

impl Observed for State {
    fn layer(&self) -> &'static str {
        "hedge"
    }

    fn name(&self) -> Option<&'static str> {
        self.name
    }

    #[expect(clippy::cast_precision_loss, reason = "ten at most")]
    fn observe(&self) -> Instance {
        let now = self.snapshot();
        let HedgeConfig { delay, max_hedges } = self.config();
        let mut config = vec![
            ("delay", delay.as_secs_f64()),
            ("max_hedges", max_hedges as f64),
        ];
        let quantile = self.quantile.as_ref().map(LatencyQuantile::quantile);
        config.extend(quantile.map(|quantile| ("quantile", quantile)));
        config.extend(self.purses.settings());
        let state = observe::State::Hedge {
            sent: now.sent,
            wins: vec![
                ("first", now.won_by_first),
                ("hedge", now.won_by_hedge),
                ("none", now.lost),
            ],
            delay: now.delay.map(|delay| delay.as_secs_f64()),
        };
        Instance::of((self.layer(), self.name), config, state)
    }
}
