//! Prepaid units: the side of the store. It counts the units of one limit for all processes that
//! share it, and grants them ahead as leases.
//!
//! The state is a *theoretical arrival time* (TAT), as in the [token bucket](super::token_bucket),
//! in whole microseconds. An *ask* is a process's request for units. A grant of `n` units moves the
//! TAT ahead by `ceil(n * period / count)`. The [lease](super::lease) that it grants may be spent
//! until L after the ask was *sent*, by the clock of the process that sent it: no two clocks are
//! compared.
//!
//! **Guarantee.** All processes together spend at most `burst + rate * t` units in any sliding
//! window of `t`, under any delay, loss, resend, partition or death. The reason: the store lets the
//! TAT be ahead by at most `burst - rate * L` units, and what is spent in a window of `t` was
//! granted in one of `t + L`. So the bound does not depend on the number of processes. A lost
//! reply, or a script that ran twice, strands a lease, and its units are never spent.
//!
//! **Why not give unspent units back?** Because the TAT stands still once it has passed. A window
//! may already have used the time that moving it back would use again. With `tat -= units` a random
//! search found 6 units too many at a burst of 20. It found 3 too many when only those units were
//! given back that the bucket had not regained by itself.
//!
//! **At scarcity** an ask gets half of the room, rounded up, so that no process takes the last of
//! it. A call that costs more than that would starve behind cheap ones. So an ask names the cost of
//! its most expensive waiting call, as `least`. If `least` does not fit now, it is *reserved*: it
//! is counted now, and may be spent from the moment at which it fits. A cost above the lowered
//! burst, up to the configured burst, is reserved as well, and the time by which it is above is
//! counted twice. So the bound holds for it together with what is spent before and after it.
//!
//! **Debts** are units that were used without an ask. Each has a number from its process. A number
//! that is not above the last one of that process is a resend, and is not counted again.
//!
//! All numbers stay below 2^53, the largest whole number that a store's script can hold. The script
//! of [`store`](crate::store) makes the same decisions as this code, one by one.

use crate::{
    algorithm::{Rate, token_bucket::quota::AtomicQuota},
    config::ConfigError,
};

#[cfg(all(test, not(keep_loom)))]
mod search;
#[cfg(all(test, not(keep_loom)))]
mod tests;

/// A rate and a burst, in the numbers that the store counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Terms {
    /// The units in each `period`, without a common factor.
    count: u64,
    /// The period, in microseconds.
    period: u64,
    burst: u32,
    /// The longest life of a lease, L, in microseconds.
    life: u64,
}

/// The units that a process asks for, and those it owes, for one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    /// The units that it would like to have.
    pub units: u32,
    /// The fewest units that are of use to it: the cost of its most expensive waiting call. 0 or 1
    /// if any number is.
    pub least: u32,
    /// The units that it has used already.
    pub debt: Option<Debt>,
    /// If true, what was used and owed before is cleared.
    pub reset: bool,
}

/// Units that a process has used without having been granted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Debt {
    /// The process: a number drawn at random.
    pub process: u64,
    /// The debt's number, which is above that of the process's last debt of this key.
    pub number: u64,
    /// The number of units.
    pub units: u32,
}

/// The store's answer. Times are in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Granted {
    /// The units that may be spent.
    pub units: u32,
    /// The time for which they may be spent, counted from when the ask was sent.
    pub good_for: u64,
    /// With units: how long after the reply they may be spent. Without units: how long until an ask
    /// may find some.
    pub wait: u64,
    /// The units that would still be granted at once.
    pub room: u32,
}

/// The units of one key that were granted, all processes together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepaid {
    /// The TAT, in microseconds since a start that the caller chooses.
    tat: u64,
    /// The last debt of each process, by its number.
    debts: Vec<(u64, u64)>,
}

impl Terms {
    /// Returns the terms of a rate and burst.
    ///
    /// # Errors
    /// The errors of a [token bucket](super::TokenBucket::new), a burst that takes less than 400 ms
    /// to refill, and numbers that a script cannot hold.
    pub fn new(rate: Rate, burst: u32) -> Result<Self, ConfigError> {
        AtomicQuota::new(rate, burst)?;
        let (count, per) = (u128::from(rate.count()) * 1000, rate.per().as_nanos());
        let factor = greatest_common_divisor(count, per);
        let (count, period) = (count / factor, per / factor);
        if u128::from(burst).max(count) * period >= u128::from(EXACT) {
            let fix = "count in larger units, or give a rounder period: a store's script holds \
                       numbers below 2^53, and this burst times the period is above";
            return Err(ConfigError::new("burst", burst, fix));
        }
        // Both are below 2^53, as just checked.
        let narrow = |number| u64::try_from(number).unwrap_or(EXACT);
        let (count, period) = (narrow(count), narrow(period));
        let full = u64::from(burst) * period / count;
        if full < 2 * SHORTEST {
            let least = (2 * SHORTEST * count).div_ceil(period);
            let value = format_args!("{burst}, where {least} is the least");
            let fix = "raise it: units are leased for half of the time that the burst takes to \
                       refill, and in less than 200 ms a store cannot be asked ahead";
            return Err(ConfigError::new("burst", value, fix));
        }
        // A burst of one unit must still leave a unit to grant.
        let one = period.div_ceil(count);
        let life = LONGEST
            .min(full / 2)
            .min((full.saturating_sub(one)).max(SHORTEST));
        Ok(Self {
            count,
            period,
            burst,
            life,
        })
    }

    /// Returns the longest life of a lease, in microseconds: L.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Returns the most units that are ever granted at once.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Returns the rate as units and microseconds, without a common factor.
    #[must_use]
    pub fn ratio(&self) -> (u64, u64) {
        (self.count, self.period)
    }

    /// Returns how far ahead the store lets the TAT be, in microseconds.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        u64::from(self.burst) * self.period / self.count - self.life
    }

    /// Returns the time that units take, in microseconds, rounded up.
    #[must_use]
    pub fn span(&self, units: u32) -> u64 {
        (u64::from(units) * self.period).div_ceil(self.count)
    }

    /// Returns how many units fit into a time, at most a burst.
    #[must_use]
    pub fn units_in(&self, micros: u64) -> u32 {
        let units = u128::from(micros) * u128::from(self.count) / u128::from(self.period);
        u32::try_from(units).unwrap_or(u32::MAX).min(self.burst)
    }
}

impl Prepaid {
    /// Creates a limit of which nothing was used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a debt, and grants units. The decision is the script's, line by line.
    pub fn exchange(&mut self, terms: &Terms, want: Want, now: u64) -> Granted {
        if want.reset {
            self.tat = now;
        }
        let owed = want.debt.map_or(0, |debt| self.owe(debt));
        let mut ahead = self.tat.saturating_sub(now) + terms.span(owed.min(terms.burst));
        ahead = ahead.min(FURTHEST);
        let capacity = terms.capacity();
        let room = room(terms, ahead);
        let half = room.div_ceil(2);
        let least = want.least.min(want.units).min(terms.burst);
        let mut granted = Granted {
            units: if want.units <= half {
                want.units
            } else {
                want.units.min(half.max(least.min(room)))
            },
            good_for: terms.life,
            ..Granted::default()
        };
        let start = (ahead + terms.span(least.max(1))).saturating_sub(capacity);
        let dear = least > 1 || terms.span(1) > capacity;
        if least > room && dear && start <= RESERVED {
            // The part above the lowered burst is counted twice.
            ahead += terms.span(least) + terms.span(least).saturating_sub(capacity);
            granted.units = least;
            granted.good_for = start + terms.life;
            granted.wait = start;
        } else {
            ahead += terms.span(granted.units);
            granted.wait = if granted.units == 0 { start } else { 0 };
        }
        self.tat = now + ahead;
        granted.room = self::room(terms, ahead);
        granted
    }

    /// Clears the TAT and the debts. For tests, and for a store that was emptied.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns whether it would grant as a fresh one does.
    #[must_use]
    pub fn is_fresh(&self, now: u64) -> bool {
        self.tat <= now
    }

    /// Returns the units of a debt, or 0 if it was counted already.
    fn owe(&mut self, debt: Debt) -> u32 {
        let last = self
            .debts
            .iter_mut()
            .find(|(process, _)| *process == debt.process);
        match last {
            Some((_, number)) if debt.number <= *number => return 0,
            Some((_, number)) => *number = debt.number,
            None => {
                // These processes are probably gone. A resend of one that is not would be counted
                // twice, which errs towards granting less.
                if self.debts.len() >= PROCESSES {
                    self.debts.clear();
                }
                self.debts.push((debt.process, debt.number));
            }
        }
        debt.units
    }
}

/// Returns the units that fit if the TAT is so far ahead.
fn room(terms: &Terms, ahead: u64) -> u32 {
    let free = terms.capacity().saturating_sub(ahead);
    // Below 2^53, because the burst times the period is.
    u32::try_from(free * terms.count / terms.period).unwrap_or(u32::MAX)
}

fn greatest_common_divisor(one: u128, other: u128) -> u128 {
    match other {
        0 => one.max(1),
        _ => greatest_common_divisor(other, one % other),
    }
}

/// The longest life of a lease, in microseconds. It bounds how long the units of a process that
/// died may be missing, and how long a larger rate still applies after a change.
const LONGEST: u64 = 1_000_000;
/// The shortest life of a lease, in microseconds. `Terms::new` rejects a burst that would need
/// less.
const SHORTEST: u64 = 200_000;
/// The furthest ahead that units are reserved, in microseconds. A later ask is told when to ask
/// again.
pub(crate) const RESERVED: u64 = 2_000_000;
/// The furthest that the TAT may be ahead, in microseconds. A debt of more than a year is
/// forgotten.
pub(crate) const FURTHEST: u64 = 365 * 24 * 3_600_000_000;
/// The number of processes whose last debts a key remembers.
pub(crate) const PROCESSES: usize = 32;
/// 2^53.
const EXACT: u64 = 1 << 53;
