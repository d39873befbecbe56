//! The quotas of a key, or of all calls, and the quotas of all keys together.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    Changed, ConfigError, Rejected, RejectedKind,
    algorithm::{ActiveWeights, Claim, Dimensions, OverDimension, OverLimit, Quotas, Rate, Share},
    ambient::clock::{Clock, nanos},
    call::Left,
    config::Edition,
    keyed::partitions::Hold,
    observe::{GateTally, Tally, trace},
    protocol::{Hint, Quota},
    queue::{Blocked, Resource, WaitQueueOf},
    rate_limit::{
        Dimension,
        dimensions::limits::{Claimed, Due, Limits},
        fleet::Granted,
        key_hash::KeyHash,
        settings::Settings,
    },
};

/// One set of quotas.
#[derive(Debug)]
pub(super) struct State<const N: usize> {
    pub(super) own: Quotaed<N>,
    /// The quotas of all keys together, if there are any.
    pub(super) total: Option<Arc<Quotaed<N>>>,
    /// The key's share of the total, if keys have shares.
    pub(super) share: Option<ShareOfTotal<N>>,
    pub(super) queue: WaitQueueOf<[u64; N]>,
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) tallies: Arc<Tallies<N>>,
    pub(super) tally: GateTally,
    pub(super) hold: Hold,
    /// If true, it was changed by hand and differs from a newly made one. Relaxed: an eviction
    /// makes sure that nothing else holds it, and so sees every change.
    pub(super) changed: AtomicBool,
    /// The last change of all keys' quotas that these have taken. Locked while they take one.
    pub(super) edition: Mutex<u64>,
}

/// A key's share of the quotas of all keys, and the weights of the keys that call.
#[derive(Debug)]
pub(super) struct ShareOfTotal<const N: usize> {
    pub(super) share: Share<N>,
    pub(super) active: Arc<ActiveWeights>,
}

/// Quotas, with their names.
#[derive(Debug)]
pub(super) struct Quotaed<const N: usize> {
    pub(super) dimensions: [Dimension; N],
    pub(super) limits: Limits<N>,
}

/// The dimensions, as the registry sees them.
#[derive(Debug)]
pub(super) struct Tallies<const N: usize>(pub(super) [Arc<ObservedDimension<N>>; N]);

/// One dimension as the registry sees it, with its rejections over all keys.
#[derive(Debug)]
pub(super) struct ObservedDimension<const N: usize> {
    pub(super) tally: Tally,
    pub(super) place: usize,
    /// The set of quotas that it belongs to, if there is only one set.
    pub(super) state: OnceLock<Weak<State<N>>>,
}

/// The quota that a call exceeds: the index of its dimension, and whether it is one of all keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Over {
    place: OverDimension,
    is_total: bool,
}

impl<const N: usize> Quotaed<N> {
    /// Creates full quotas.
    pub(super) fn new(dimensions: [Dimension; N]) -> Result<Self, ConfigError> {
        let mut quotas = Vec::with_capacity(N);
        for dimension in &dimensions {
            quotas.push(dimension.quotas()?);
        }
        let Ok(quotas) = <[Quotas; N]>::try_from(quotas) else {
            unreachable!("one for each dimension");
        };
        Ok(Self {
            dimensions,
            limits: Limits::Own(Dimensions::new(quotas)),
        })
    }

    fn told(&self, hint: &Hint, now: u64) {
        for (place, dimension) in self.dimensions.iter().enumerate() {
            let told = dimension.follow.and_then(|follow| follow.read(hint));
            if let Some((limit, remaining, times)) = told {
                self.limits.told(place, (limit, remaining), times, now);
            }
        }
    }

    fn left(&self, is_total: bool, now: u64) -> impl Iterator<Item = Left> {
        let dimensions = self.dimensions.iter().enumerate();
        dimensions.map(move |(place, dimension)| {
            let units = (
                self.limits.available(place, now),
                self.limits.quota(place).1,
            );
            Left::new(dimension.name, units, is_total)
        })
    }

    /// Adds each quota to those to advertise. `part` is 0 for a key's own quotas, 1 for those of
    /// all keys.
    pub(super) fn quotas(
        &self,
        settings: &Settings,
        part: usize,
        now: u64,
        quotas: &mut Vec<Quota>,
    ) {
        for (place, dimension) in self.dimensions.iter().enumerate() {
            let (rate, burst) = self.limits.quota(place);
            let available = self.limits.available(place, now);
            let awaited = if available == 0 { 1 } else { burst };
            quotas.push(Quota {
                name: settings.name,
                part,
                dimension: Some(dimension.name),
                unit: settings.advertise.unit,
                rate: Some(rate),
                burst,
                available,
                reset: Some(Duration::from_nanos(self.limits.wait(place, awaited, now))),
                partition: settings.partition.filter(|_| part == 0),
            });
        }
    }
}

impl<const N: usize> State<N> {
    pub(super) fn set_changed(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Takes the quotas of an edition, unless they have a later one. The maker of the edition
    /// reports the change.
    pub(super) fn take_edition(
        &self,
        edition: Edition<[Dimension; N]>,
    ) -> Result<Changed, ConfigError> {
        let mut number = self.edition.lock().unwrap_or_else(PoisonError::into_inner);
        if edition.overtakes(&mut number) {
            for (at, new) in edition.settings.iter().enumerate() {
                self.own.limits.update(at, new.rate, new.units())?;
            }
        }
        drop(number);
        self.notify(self.clock.now());
        Ok(Changed::default())
    }

    /// Reports a change of one quota, and returns it. No lock may be held: subscribers are user
    /// code.
    pub(super) fn noted(&self, before: (Rate, u64), now: (Rate, u64)) -> Changed {
        let changed = Changed::default()
            .note("rate_limit", "rate", (before.0, now.0))
            .note("rate_limit", "burst", (before.1, now.1));
        trace::updated((self.tally.layer, self.tally.name), &changed);
        changed
    }

    fn total(&self) -> Option<&Limits<N>> {
        self.total.as_ref().map(|total| &total.limits)
    }

    /// Returns the key's share of the total, if keys have shares. The key counts as active then.
    pub(super) fn claim(&self, now: u64) -> Option<Claim<'_, N>> {
        let of_total = self.share.as_ref()?;
        Some(of_total.active.claim(&of_total.share, now))
    }

    /// Takes the costs from the key's own quotas and from the total, or takes nothing.
    pub(super) fn take(&self, costs: &[u64; N], due: Due, now: u64) -> Result<(), Over> {
        let own = &self.own.limits;
        let Some(total) = self.total() else {
            return own.take(costs, None, due, now).map_err(Over::own);
        };
        own.fits(costs).map_err(Over::own)?;
        let claim = self.claim(now);
        let claim = claim.as_ref();
        // The total is checked first, so that a rejected call takes nothing.
        if let Err(over) = total.check(costs, claim, due, now) {
            if over.over == OverLimit::CostAboveBurst {
                return Err(Over::total(over));
            }
            // A store is told of both at once.
            let of_own = own.check(costs, None, due, now).map_err(Over::own);
            let longest = self.longest(costs, &[0; N], now);
            return Err(longest.unwrap_or(of_own.err().unwrap_or(Over::total(over))));
        }
        own.take(costs, None, due, now).map_err(Over::own)?;
        total.take(costs, claim, due, now).map_err(|over| {
            own.undo(costs, now);
            Over::total(over)
        })
    }

    /// Returns the quota that a call has to wait for longest, if `before` comes first. `None` if it
    /// need not wait.
    pub(super) fn longest(&self, costs: &[u64; N], before: &[u64; N], now: u64) -> Option<Over> {
        self.longest_by(now, |limits, claim| {
            limits.longest(costs, before, claim, now)
        })
    }

    fn longest_by(
        &self,
        now: u64,
        longest: impl Fn(&Limits<N>, Claimed<'_, N>) -> (usize, u64),
    ) -> Option<Over> {
        let own = (longest(&self.own.limits, None), false);
        let total = self.total().map(|total| {
            let claim = self.claim(now);
            (longest(total, claim.as_ref()), true)
        });
        let ((dimension, wait), is_total) = match total {
            Some(total) if total.0.1 > own.0.1 => total,
            _ => own,
        };
        let over = OverLimit::Until {
            wait: Duration::from_nanos(wait),
        };
        let place = OverDimension { dimension, over };
        (wait > 0).then_some(Over { place, is_total })
    }

    pub(super) fn fits(&self, costs: &[u64; N]) -> Result<(), Over> {
        self.own.limits.fits(costs).map_err(Over::own)?;
        self.total()
            .map_or(Ok(()), |total| total.fits(costs).map_err(Over::total))
    }

    pub(super) fn give_back(&self, costs: &[u64; N], now: u64) {
        self.return_units(costs, now);
        self.notify(now);
    }

    fn return_units(&self, costs: &[u64; N], now: u64) {
        self.own.limits.give_back(costs, None, now);
        if let Some(total) = self.total() {
            total.give_back(costs, self.claim(now).as_ref(), now);
        }
    }

    pub(super) fn settle(&self, taken: &[u64; N], used: &[u64; N], now: u64) {
        self.correct(taken, used, now);
        self.notify(now);
    }

    pub(super) fn charge(&self, units: &[u64; N], now: u64) {
        self.correct(&[0; N], units, now);
    }

    fn correct(&self, taken: &[u64; N], used: &[u64; N], now: u64) {
        self.own.limits.settle(taken, used, None, now);
        if let Some(total) = self.total() {
            total.settle(taken, used, self.claim(now).as_ref(), now);
        }
    }

    pub(super) fn close_for(&self, wait: Duration, now: u64) {
        self.own
            .limits
            .close_until(now.saturating_add(nanos(wait)), now);
        self.notify(now);
    }

    pub(super) fn reset(&self, now: u64) {
        self.own.limits.reset(now);
        if let Some(of_total) = &self.share {
            of_total.share.reset();
        }
        self.notify(now);
    }

    pub(super) fn told(&self, hint: &Hint, now: u64) {
        self.own.told(hint, now);
        if let Some(total) = &self.total {
            total.told(hint, now);
        }
        self.notify(now);
    }

    /// Notifies the queue: something other than a departure has changed the quotas. Waiters of
    /// other keys are not notified of units given back to the total. They find them when they
    /// [look again](LOOK_AGAIN).
    pub(super) fn notify(&self, now: u64) {
        self.queue.notify(self, || now);
    }

    pub(super) fn left(&self, now: u64) -> Vec<Left> {
        let total = self.total.iter().flat_map(|total| total.left(true, now));
        self.own.left(false, now).chain(total).collect()
    }

    /// Builds a rejection that lists what is left of each quota.
    #[cold]
    pub(super) fn reject(
        &self,
        kind: RejectedKind,
        wait: Option<Duration>,
        over: Option<Over>,
        now: u64,
    ) -> Box<Rejected> {
        let quotaed = match &self.total {
            Some(total) if over.is_some_and(|over| over.is_total) => total,
            _ => &self.own,
        };
        let kind = over.map_or(kind, |over| quotaed.limits.kind(over.place.dimension, kind));
        let mut rejected = self.tally.rejection(kind, wait);
        if let Some(Over { place, .. }) = over {
            rejected.dimension = Some(quotaed.dimensions[place.dimension].name);
            self.tallies.0[place.dimension].tally.count_rejected(kind);
        }
        rejected.set_left(self.left(now));
        self.tally.count_rejection(&rejected);
        Box::new(rejected)
    }
}

impl Over {
    fn own(place: OverDimension) -> Self {
        let is_total = false;
        Self { place, is_total }
    }

    fn total(place: OverDimension) -> Self {
        let is_total = true;
        Self { place, is_total }
    }

    /// Returns the wait until the call fits. `None` if it never does.
    pub(super) fn wait(&self) -> Option<Duration> {
        match self.place.over {
            OverLimit::Until { wait } => Some(wait),
            OverLimit::CostAboveBurst => None,
        }
    }

    pub(super) fn kind(&self) -> RejectedKind {
        match self.place.over {
            OverLimit::Until { .. } => RejectedKind::RateLimited,
            OverLimit::CostAboveBurst => RejectedKind::CostTooHigh,
        }
    }
}

/// After this time a call that waits for a quota of all keys looks again, in nanoseconds.
const LOOK_AGAIN: u64 = 100_000_000;

/// The quotas as the part that asks a store sees them.
impl<const N: usize> Granted for State<N> {
    fn granted(&self, _: KeyHash) {
        self.notify(self.clock.now());
    }
}

/// The quotas as their queue sees them.
impl<const N: usize> Resource<[u64; N]> for State<N> {
    fn acquire(&self, costs: [u64; N], ready_at: u64, now: u64) -> Result<(), Blocked> {
        self.take(&costs, Some(ready_at), now)
            .map_err(|over| match over.wait().map(nanos) {
                // Another key may give units of the total back before their time.
                Some(wait) if over.is_total => Blocked::For(wait.min(LOOK_AGAIN)),
                Some(wait) => Blocked::For(wait),
                None => Blocked::Forever,
            })
    }

    fn ready_in(&self, costs: [u64; N], before: [u64; N], now: u64) -> Option<u64> {
        let over = self.longest_by(now, |limits, claim| {
            limits.ready_in(&costs, &before, claim, now)
        });
        Some(over.and_then(|over| over.wait()).map_or(0, nanos))
    }

    fn give_back(&self, costs: [u64; N], now: u64) {
        self.return_units(&costs, now);
    }
}
