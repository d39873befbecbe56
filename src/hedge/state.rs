//! What the layer, its services, its calls and its handles share.

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

/// A hedge at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// After how long a hedge is sent now; `None` while too few calls were seen to tell.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::config::seconds::if_any")
    )]
    pub delay: Option<Duration>,
    /// Hedges that were sent, so far, those among them that a layer beneath rejected.
    pub sent: u64,
    /// Calls with a hedge whose first attempt won.
    pub won_by_first: u64,
    /// Calls that a hedge won.
    pub won_by_hedge: u64,
    /// Calls with a hedge of which no attempt succeeded.
    pub lost: u64,
    /// Hedges that were due when the budget did not pay for them any more; calls that began while
    /// it was empty are not among them.
    pub budget_denied: u64,
    /// Hedges that were due and not sent because most calls were late, which no hedge mends.
    pub suppressed: u64,
}

#[derive(Debug)]
pub(super) struct State {
    /// Relaxed, as of `config`.
    enabled: AtomicBool,
    name: Option<&'static str>,
    /// How long a call may take, where that is known.
    timeout: Option<Duration>,
    max_retry_after: Duration,
    /// A [`HedgeConfig`] in one word, so that no call sees half of a change: bits 0 to 47 are the
    /// delay in nanoseconds, fixed or with a quantile the least; those above are the hedges of a
    /// call.
    /// Relaxed: it publishes nothing else, and a call that races a change honors one of the two.
    config: AtomicU64,
    quantile: Option<LatencyQuantile>,
    /// Beside a quantile: of a fixed delay nothing says how many calls are to be late.
    lateness: Option<Lateness>,
    purses: Purses,
    counts: Counts,
}

/// What does not change once it is built.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fixed {
    pub(super) enabled: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) max_retry_after: Duration,
    pub(super) name: Option<&'static str>,
}

/// Relaxed, all: statistics, and only of calls that are hedged.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    won_by_first: AtomicU64,
    won_by_hedge: AtomicU64,
    lost: AtomicU64,
    budget_denied: AtomicU64,
    suppressed: AtomicU64,
}

/// How a call with a hedge ended.
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
            counts: Counts::default(),
        })
    }

    /// A call begins: whether it is to be kept for a hedge. While nothing would pay for one, it is
    /// not.
    pub(super) fn begin(&self, own: Option<&KeyBudget>) -> bool {
        self.is_enabled() && self.purses.pays(own)
    }

    /// A call is polled.
    pub(super) fn enter(&self, own: Option<&KeyBudget>, has_begun: &mut bool) -> Counting {
        self.purses.enter(own, has_begun)
    }

    /// The longest hint that is waited for.
    pub(super) fn max_retry_after(&self) -> Duration {
        self.max_retry_after
    }

    pub(super) fn config(&self) -> HedgeConfig {
        HedgeConfig::unpack(self.config.load(Ordering::Relaxed))
    }

    /// After how long the next hedge is due.
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

    /// The settings in one word, if it can work.
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

    /// When a call was sent, if that is to be known.
    pub(super) fn sent_at(&self) -> Option<Instant> {
        self.quantile.as_ref().map(|_| clock::moment())
    }

    /// A first attempt took at least so long.
    pub(super) fn took(&self, sent_at: Instant) {
        if let Some(quantile) = &self.quantile {
            quantile.record(nanos(clock::moment().saturating_duration_since(sent_at)));
        }
    }

    /// A token for a hedge. The failure that it follows, if any, was counted.
    pub(super) fn withdraw(&self, own: Option<&KeyBudget>) -> Option<Token> {
        let token = self.purses.withdraw(own, true);
        if token.is_none() {
            self.counts.budget_denied.fetch_add(1, Ordering::Relaxed);
        }
        token
    }

    /// Whether a hedge is due, or the call was answered before. Returns whether hedges help now.
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
