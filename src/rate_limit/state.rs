//! What a layer, its services and its handles share, and what becomes of a call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    ConfigError, Outcome, Rejected, RejectedKind,
    algorithm::{EvictionMark, Limit, OverLimit, Rate},
    protocol::{Quota, Settle},
    rate_limit::{
        Meter, Snapshot,
        keyed::Places,
        limits::Limits,
        line::{Line, Place},
    },
    striped::Held,
    time::Clock,
};

#[derive(Debug)]
pub(super) struct State {
    pub(super) limits: Limits,
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    /// Whether the map that it is in, if it is in one, forgets it.
    pub(super) leaving: EvictionMark,
    /// Whether it was changed by hand, and is not what would be made anew.
    changed: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// In nanoseconds; `None` if only those with a deadline wait.
    pub(super) max_wait: Option<u64>,
    /// Whether calls may have deadlines.
    pub(super) deadlines: bool,
    pub(super) max_waiting: Option<usize>,
    /// For how long a peer may close the limit, in nanoseconds; 0 if it may not.
    pub(super) max_penalty: u64,
    pub(super) advertise: bool,
    pub(super) enabled: bool,
    pub(super) name: Option<&'static str>,
}

/// A limit that a call keeps until its end. The key is that of [`Limits::Keyed`], and means nothing
/// to the others.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) state: Held<State>,
    pub(super) key: u64,
}

/// What becomes of a call.
#[derive(Debug)]
pub(super) enum Admission {
    /// No limit applies to it.
    Free,
    Now {
        key: u64,
        cost: u32,
    },
    /// It has joined the line, and must come or cancel.
    Waits {
        key: u64,
        cost: u32,
        line: Arc<Line>,
        place: Place,
    },
    Rejected {
        key: Option<u64>,
        rejected: Rejected,
    },
}

/// What a call of a [`RateLimit`](super::RateLimit) holds until it ends: nothing, or the way back
/// to a limit that obeys the peer's `Retry-After`. What it has taken is not given back with it.
#[derive(Debug)]
pub struct Permit {
    account: Option<Account>,
}

impl State {
    pub(super) fn new(limits: Limits, clock: Clock, settings: Settings) -> Self {
        Self {
            limits,
            clock,
            settings,
            leaving: EvictionMark::default(),
            changed: AtomicBool::new(false),
        }
    }

    /// Takes what the request costs, or a place in the line, or nothing.
    #[inline]
    pub(super) fn admit<Req>(&self, meter: &impl Meter<Req>, request: &Req) -> Admission {
        if !self.settings.enabled {
            return Admission::Free;
        }
        let key = match &self.limits {
            Limits::Keyed(table) => match table.key(meter.key(), request) {
                Ok(Some(key)) => key,
                Ok(None) => return Admission::Free,
                Err(kind) => {
                    return Admission::Rejected {
                        key: None,
                        rejected: self.rejected(kind, None),
                    };
                }
            },
            Limits::Bucket { .. } | Limits::Other { .. } => 0,
        };
        let (cost, now) = (meter.cost(request), self.clock.now());
        // Who finds others waiting queues behind them, even if its smaller cost would fit.
        let denied = if self.limits.somebody_waits(key) {
            None
        } else {
            match self.limits.acquire(key, cost, now) {
                Ok(()) => return Admission::Now { key, cost },
                Err(denied) => Some(denied),
            }
        };
        self.join(key, cost, denied, meter, request, now)
    }

    /// For a call that was denied, or has found others waiting: a place in the line, if it may wait
    /// for so long.
    fn join<Req>(
        &self,
        key: u64,
        cost: u32,
        denied: Option<OverLimit>,
        meter: &impl Meter<Req>,
        request: &Req,
        now: u64,
    ) -> Admission {
        let until = self.until(meter.deadline(request), now).unwrap_or(now);
        let denied = match denied {
            Some(OverLimit::CostAboveBurst) => OverLimit::CostAboveBurst,
            // Known without a look at the line, of which there is none.
            Some(OverLimit::Until { wait }) if now.saturating_add(nanos(wait)) > until => {
                OverLimit::Until { wait }
            }
            None if cost > self.limits.with(key, |limit| limit.largest_cost()) => {
                OverLimit::CostAboveBurst
            }
            _ => match self.limits.join(
                key,
                cost,
                until,
                self.settings.max_waiting.unwrap_or(usize::MAX),
                now,
            ) {
                Ok((line, place)) => {
                    return Admission::Waits {
                        key,
                        cost,
                        line,
                        place,
                    };
                }
                Err(wait) => OverLimit::until(wait),
            },
        };
        Admission::Rejected {
            key: Some(key),
            rejected: self.refuse(key, denied, meter, request),
        }
    }

    /// The latest that a call's turn may come; `None` if it may not wait at all.
    fn until(&self, deadline: Option<Instant>, now: u64) -> Option<u64> {
        let longest = self
            .settings
            .max_wait
            .map(|longest| now.saturating_add(longest));
        // At its deadline it is too late.
        let deadline = deadline.map(|deadline| self.clock.at(deadline).saturating_sub(1));
        match (longest, deadline) {
            (Some(longest), Some(deadline)) => Some(longest.min(deadline)),
            (longest, deadline) => longest.or(deadline),
        }
    }

    /// The rejection of a request, which counts for its key if that is watched.
    pub(super) fn refuse<Req>(
        &self,
        key: u64,
        denied: OverLimit,
        meter: &impl Meter<Req>,
        request: &Req,
    ) -> Rejected {
        if let Limits::Keyed(table) = &self.limits {
            table.count(key, meter.key(), request, &self.clock);
        }
        match denied {
            OverLimit::Until { wait } => self.rejected(RejectedKind::RateLimited, Some(wait)),
            OverLimit::CostAboveBurst => self.rejected(RejectedKind::CostTooHigh, None),
        }
    }

    /// Corrects what was taken to what was used, if that is known.
    pub(super) fn correct(&self, key: u64, taken: u32, used: Option<u32>) {
        let used = used.unwrap_or(taken);
        if used < taken {
            self.refund(key, taken - used);
        } else if used > taken {
            self.charge(key, used - taken);
        }
    }

    pub(super) fn charge(&self, key: u64, units: u32) {
        self.limits
            .with(key, |limit| limit.charge(units, self.clock.now()));
    }

    pub(super) fn refund(&self, key: u64, units: u32) {
        self.limits
            .with(key, |limit| limit.refund(units, self.clock.now()));
        self.limits.look_again(key);
    }

    pub(super) fn reset(&self, key: u64) {
        self.limits.reset(key, self.clock.now());
        self.limits.look_again(key);
    }

    pub(super) fn close_for(&self, key: u64, duration: Duration) {
        let now = self.clock.now();
        self.limits.with(key, |limit| {
            limit.close_until(now.saturating_add(nanos(duration)), now);
        });
        // Who cannot wait for so long is told now.
        self.limits.look_again(key);
    }

    pub(super) fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.limits
            .update(rate, burst)
            .map_err(|error| error.of("rate_limit", self.settings.name))?;
        // Relaxed: who forgets it has made sure that nobody holds it, and so sees what was done
        // with it.
        self.changed.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn snapshot(&self, key: u64) -> Snapshot {
        let now = self.clock.now();
        let waiting = self.limits.line(key).map_or(0, |line| line.len());
        self.limits.with(key, |limit| Snapshot {
            available: limit.available(now),
            rate: limit.rate(),
            burst: limit.burst(),
            waiting,
        })
    }

    /// What callers are told: of each limit that counts the key. The loads are not one step: a
    /// racing call may count in one number and not in another.
    pub(super) fn quotas(&self, key: u64) -> Vec<Quota> {
        let (now, mut quotas) = (self.clock.now(), Vec::new());
        self.limits.each(key, |limit| {
            quotas.push(self.quota(limit, quotas.len(), now));
        });
        quotas
    }

    /// Undoes what [`admit`](Self::admit) did.
    pub(super) fn take_back(&self, admission: Admission) {
        match admission {
            Admission::Now { key, cost } => self.refund(key, cost),
            Admission::Waits {
                key, line, place, ..
            } => self.cancel(key, &line, &mut Places::new(place)),
            Admission::Free | Admission::Rejected { .. } => {}
        }
    }

    /// Gives a call's place in the line up.
    pub(super) fn cancel(&self, key: u64, line: &Line, places: &mut Places) {
        self.limits.cancel(key, line, places, self.clock.now());
    }

    /// How long until all of the burst would be admitted.
    pub(super) fn until_whole(&self) -> Duration {
        self.limits.with(0, |limit| {
            limit.wait(u64::from(limit.burst()), self.clock.now())
        })
    }

    /// Whether a map may forget it: nothing is used, owed or changed, and nobody waits.
    pub(super) fn is_fresh(&self) -> bool {
        let is_whole = |limit: &dyn Limit| limit.is_fresh(self.clock.now());
        !self.changed.load(Ordering::Relaxed)
            && !self.limits.somebody_waits(0)
            && self.limits.with(0, is_whole)
    }

    fn quota(&self, limit: &dyn Limit, part: usize, now: u64) -> Quota {
        let (burst, available) = (limit.burst(), limit.available(now));
        let awaited = if available == 0 { 1 } else { u64::from(burst) };
        Quota {
            name: self.settings.name,
            part,
            rate: limit.rate(),
            burst,
            available,
            reset: limit.wait(awaited, now),
        }
    }

    fn rejected(&self, kind: RejectedKind, retry_after: Option<Duration>) -> Rejected {
        Rejected {
            kind,
            layer: "rate_limit",
            name: self.settings.name,
            retry_after,
        }
    }
}

impl Settings {
    pub(super) fn checked(&self) -> Result<(), ConfigError> {
        match self.max_waiting {
            Some(calls) if self.max_wait.is_none() && !self.deadlines => Err(ConfigError::new(
                "max_waiting",
                calls,
                "say how long they may wait with `max_wait`, or leave it",
            )),
            _ => Ok(()),
        }
    }
}

impl Account {
    #[inline]
    pub(super) fn new(state: &Held<State>, key: u64) -> Self {
        Self {
            state: state.for_call(),
            key,
        }
    }
}

impl Permit {
    pub(super) fn none() -> Self {
        Self { account: None }
    }

    #[inline]
    pub(super) fn new(state: &Held<State>, key: u64) -> Self {
        Self {
            account: (state.settings.max_penalty > 0).then(|| Account::new(state, key)),
        }
    }
}

impl Settle for Permit {
    #[inline]
    fn settle(self, _: Outcome, retry_after: Option<Duration>) {
        if let Some(retry_after) = retry_after {
            self.honor(retry_after);
        }
    }

    fn honor(&self, retry_after: Duration) {
        if let Some(Account { state, key }) = &self.account {
            state.close_for(
                *key,
                retry_after.min(Duration::from_nanos(state.settings.max_penalty)),
            );
        }
    }
}

/// Longer than 584 years is 584 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
