//! The settings of bulkheads.

use std::{sync::Arc, time::Duration};

use crate::{
    ConfigError, Criticality,
    algorithm::CoDel,
    ambient::clock::nanos,
    bulkhead::all_bulkheads::AllBulkheads,
    protocol::Advertise,
    queue::{Overdue, Total, WaitQueue},
};

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) enabled: bool,
    pub(super) advertise: Advertise,
    /// The number of the key's partition, if callers are shown it.
    pub(super) partition: Option<u64>,
    /// `None` if calls do not wait.
    pub(super) max_wait: Option<Duration>,
    /// The time after which a permit may be taken back, or `None` if never.
    pub(super) reclaim_after: Option<Duration>,
    /// `None` for the default.
    pub(super) max_waiting: Option<usize>,
    pub(super) order: Order,
    /// The percentage of the limit, or of the queue, up to which each class is admitted.
    pub(super) shares: [u8; 4],
}

/// The order in which waiters are served while the queue does not drain.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    /// The newest first, with a target and an interval derived from `max_wait`.
    Default,
    /// The newest first, by this target and interval.
    CoDel(Duration, Duration),
    /// Always by arrival.
    Arrival,
}

impl Settings {
    pub(super) fn new() -> Self {
        Self {
            enabled: true,
            advertise: Advertise::default(),
            partition: None,
            max_wait: None,
            reclaim_after: None,
            max_waiting: None,
            order: Order::Default,
            shares: SHARES,
        }
    }

    /// Returns the percentage of the limit, or of the queue, up to which the class is admitted.
    #[inline(always)]
    pub(super) fn share(&self, class: Criticality) -> u8 {
        self.shares[class as usize]
    }

    /// Returns the length of the queue from which on no call of the class may join.
    pub(super) fn max_waiting(&self, class: Criticality) -> usize {
        let (max, percent) = (
            self.max_waiting.unwrap_or(MAX_WAITING),
            usize::from(self.share(class)),
        );
        max / 100 * percent + (max % 100 * percent).div_ceil(100)
    }

    pub(super) fn queue(&self) -> WaitQueue {
        let codel = self.max_wait.map(|max_wait| self.codel(max_wait));
        // `checked` has made it once, so it does not fail.
        match codel {
            Some(Ok(Some(codel))) => WaitQueue::with_codel(codel),
            _ => WaitQueue::default(),
        }
    }

    fn codel(&self, max_wait: Duration) -> Result<Option<CoDel>, ConfigError> {
        let (target, interval) = match self.order {
            Order::Default => (TARGET.max(max_wait / 20), INTERVAL.max(max_wait)),
            Order::CoDel(target, interval) => (target, interval),
            Order::Arrival => return Ok(None),
        };
        CoDel::new(target, interval).map(Some)
    }

    pub(super) fn checked(self, name: Option<&'static str>) -> Result<Self, ConfigError> {
        let invalid = |field, fix| Err(ConfigError::new(field, 0, fix).of("bulkhead", name));
        if let Some(share) = self.shares.iter().find(|share| !(1..=100).contains(*share)) {
            let fix = "give a percentage from 1 to 100";
            return Err(ConfigError::new("shed_above", share, fix).of("bulkhead", name));
        }
        checked_reclaim(self.reclaim_after, name)?;
        match self {
            Self {
                max_waiting: Some(calls),
                max_wait: None,
                ..
            } => {
                let fix = "say how long they may wait with `max_wait`, or leave it";
                Err(ConfigError::new("max_waiting", calls, fix).of("bulkhead", name))
            }
            Self {
                max_waiting: Some(0),
                ..
            } => invalid(
                "max_waiting",
                "let at least 1 call wait, or none by leaving `max_wait`",
            ),
            Self {
                max_wait: Some(max_wait),
                ..
            } => {
                let checked = self.codel(max_wait).map(|_| self);
                checked.map_err(|error| error.of("bulkhead", name))
            }
            Self {
                order: Order::CoDel(..),
                ..
            } => invalid("max_wait", "say how long calls may wait, or leave `codel`"),
            _ => Ok(self),
        }
    }
}

pub(super) fn checked(limit: usize, name: Option<&'static str>) -> Result<usize, ConfigError> {
    if limit == 0 {
        let fix = "allow at least 1 call at once";
        return Err(ConfigError::new("limit", limit, fix).of("bulkhead", name));
    }
    Ok(limit)
}

/// Checks the time after which a permit may be taken back.
pub(super) fn checked_reclaim(
    after: Option<Duration>,
    name: Option<&'static str>,
) -> Result<Option<Duration>, ConfigError> {
    if after == Some(Duration::ZERO) {
        let fix = "give a call the longest time that its response may take to be read, or leave it";
        return Err(ConfigError::new("reclaim_after", "0s", fix).of("bulkhead", name));
    }
    Ok(after)
}

/// Checks the time after which permits of a running bulkhead may be taken back. Returns it in
/// nanoseconds.
pub(super) fn changed_reclaim(
    after: Option<Duration>,
    is_built: bool,
    name: Option<&'static str>,
) -> Result<Option<u64>, ConfigError> {
    match checked_reclaim(after, name)? {
        Some(after) if !is_built => {
            let fix = "build the bulkhead with one, however long: then it can be changed";
            Err(ConfigError::new("reclaim_after", after, fix).of("bulkhead", name))
        }
        after => Ok(is_built.then(|| after.map_or(u64::MAX, nanos))),
    }
}

/// Converts nanoseconds. `None` for never.
pub(super) fn duration(nanos: u64) -> Option<Duration> {
    (nanos < u64::MAX).then(|| Duration::from_nanos(nanos))
}

/// Creates the total of all keys.
pub(super) fn within_total(
    total: Option<usize>,
    share: usize,
    (settings, all_bulkheads): (&Settings, Option<Arc<AllBulkheads>>),
    name: Option<&'static str>,
) -> Result<Option<Arc<Total>>, ConfigError> {
    let Some(total) = total else { return Ok(None) };
    checked_total(total, share, name)?;
    let mut total = Total::new(total, settings.queue());
    total.overdue = all_bulkheads.map(|all_bulkheads| all_bulkheads as Arc<dyn Overdue>);
    Ok(Some(Arc::new(total)))
}

pub(super) fn checked_total(
    total: usize,
    share: usize,
    name: Option<&'static str>,
) -> Result<(), ConfigError> {
    if total < share {
        let fix = "allow at least what is guaranteed: the limit, which is the share of one key, \
                   and all shares of a list";
        return Err(ConfigError::new("within", total, fix).of("bulkhead", name));
    }
    Ok(())
}

/// Checks the limit of a bulkhead, or the share of a key within a total.
pub(super) fn checked_share(
    share: usize,
    total: Option<usize>,
    name: Option<&'static str>,
) -> Result<usize, ConfigError> {
    if total.is_some_and(|total| total < share) {
        let fix = "guarantee at most the total, or raise that first";
        return Err(ConfigError::new("limit", share, fix).of("bulkhead", name));
    }
    checked(share, name)
}

/// The default maximum of waiting calls. More waiting tasks are themselves a load.
const MAX_WAITING: usize = 1024;

/// The values that the authors of [`CoDel`] use, for calls that take some milliseconds.
const TARGET: Duration = Duration::from_millis(5);
const INTERVAL: Duration = Duration::from_millis(100);

/// The percentages by class, the least critical first.
const SHARES: [u8; 4] = [50, 75, 90, 100];
