//! What the layer, its services, its calls and its handles share.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    CarryDeadline, ConfigError, Deadline, Rejected, RejectedKind, config::nanos_within, time,
};

#[derive(Debug)]
pub(super) struct State {
    /// In nanoseconds. Relaxed: a call that races a change honors one of the two.
    limit: AtomicU64,
    /// Relaxed: a statistic.
    expired: AtomicU64,
    enabled: bool,
    total: bool,
    name: Option<&'static str>,
}

/// How long one call may take.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    Unlimited,
    /// From the first time that the call has to wait: a call answered at once reads no clock.
    For(Duration),
    Until(Instant),
}

impl State {
    pub(super) fn new(
        duration: Duration,
        enabled: bool,
        total: bool,
        name: Option<&'static str>,
    ) -> Result<Self, ConfigError> {
        let limit = AtomicU64::new(checked(duration, name)?);
        Ok(Self {
            limit,
            expired: AtomicU64::new(0),
            enabled,
            total,
            name,
        })
    }

    pub(super) fn duration(&self) -> Duration {
        Duration::from_nanos(self.limit.load(Ordering::Relaxed))
    }

    pub(super) fn set_duration(&self, duration: Duration) -> Result<(), ConfigError> {
        self.limit
            .store(checked(duration, self.name)?, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// Whether the wait for the inner service's readiness is a part of the call.
    #[inline]
    pub(super) fn covers_readiness(&self) -> bool {
        self.total && self.enabled
    }

    /// How long a call may take that begins now. Its deadline is written into the request where the
    /// protocol wants that. `None` if the deadline that the request came with has passed.
    #[inline]
    pub(super) fn limit<P, Req>(&self, protocol: &P, request: &mut Req) -> Option<Limit>
    where
        P: CarryDeadline<Req>,
    {
        if !self.enabled {
            return Some(Limit::Unlimited);
        }
        let carried = protocol.deadline(request);
        let own = protocol.timeouts(request).and_then(|timeouts| {
            if self.total {
                timeouts.total
            } else {
                timeouts.attempt
            }
        });
        let own = own.unwrap_or_else(|| self.duration());
        if carried.is_none() && !protocol.wants_deadline(self.total) {
            return Some(Limit::For(own));
        }
        let now = time::moment();
        let mut at = time::later(now, own);
        if let Some(carried) = carried {
            if now >= carried.moment() {
                return None;
            }
            at = at.min(carried.moment());
        }
        if protocol.wants_deadline(self.total) {
            protocol.set_deadline(request, Deadline::at(at));
        }
        Some(Limit::Until(at))
    }

    /// Counts a call that is given up, and says so.
    pub(super) fn reject(&self, kind: RejectedKind) -> Box<Rejected> {
        self.expired.fetch_add(1, Ordering::Relaxed);
        let mut rejected = Box::new(Rejected::new(kind, "timeout"));
        rejected.name = self.name;
        rejected
    }
}

/// Longer than 584 years is 584 years.
fn checked(duration: Duration, name: Option<&'static str>) -> Result<u64, ConfigError> {
    let max = Duration::from_nanos(u64::MAX);
    nanos_within(
        "duration",
        duration.min(max),
        Duration::from_nanos(1)..=max,
        "give calls some time; 1s is a start",
    )
    .map_err(|error| error.of("timeout", name))
}
