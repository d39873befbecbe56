//! Prepaid units: the side of the store, which counts the units of one limit for all processes that
//! share it, and grants them ahead as leases.
//!
//! The state is a *theoretical arrival time* (TAT), as of the [token bucket](super::token_bucket),
//! in whole microseconds. A grant of `n` units moves it `ceil(n * period / count)` on. A
//! [lease](super::lease) of it may be spent until L after the ask was *sent*, by the clock of the
//! process that asked: no two clocks are compared.
//!
//! **Guarantee.** All processes together spend at most `burst + rate * t` units in any sliding
//! window of `t`, under any delay, loss, resend, partition or death. For the store lets at most
//! `burst - rate * L` be ahead, and what is spent in a window of `t` was granted in one of `t + L`.
//! So the bound does not depend on the number of processes. A lost reply, or a script that ran
//! twice, strands a lease: units that nobody spends.
//!
//! **Why not give unspent units back?** Because the TAT stands still once it has passed: a window
//! may already have used the time that moving it back would use again. With `tat -= units` a random
//! search found 6 units too many at a burst of 20. It found 3 when only that was given back that
//! the bucket had not regained by itself.
//!
//! **At scarcity** an ask gets half of the room, rounded up, so that no process takes the last of
//! it. A call that costs more than that would starve behind cheap ones. So an ask says what its
//! dearest waiting call costs, as `least`. If `least` does not fit now, it is *reserved*: counted
//! now, and to be spent from the moment on at which it fits. A cost above the lowered burst, up to
//! the burst that the user named, is reserved as well, and the time that it is above is counted
//! twice. So it neither follows nor precedes more than the bound allows.
//!
//! **Debts** are units that were used without having been asked for. Each bears the number that its
//! process gave it. A number that is not above the last one of that process is a resend, and is not
//! counted again.
//!
//! All numbers stay below 2^53, the largest whole number that a store's script can hold: the script
//! of [`store`](crate::store) and this code agree decision by decision.

use crate::{
    algorithm::{Rate, token_bucket::quota::Quota},
    config::ConfigError,
};

#[cfg(all(test, not(keep_loom)))]
mod search;
#[cfg(all(test, not(keep_loom)))]
mod tests;

/// A rate and a burst, as the store counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Terms {
    /// The units in each `period`, without a common factor.
    count: u64,
    /// In microseconds.
    period: u64,
    burst: u32,
    /// L, in microseconds.
    life: u64,
}

/// A process's wishes for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    /// Units that it would like to have.
    pub units: u32,
    /// Units of which fewer are of no use to it: what its dearest waiting call costs. 0 or 1 if any
    /// number is.
    pub least: u32,
    /// Units that it has used already.
    pub debt: Option<Debt>,
    /// Forget what was used and owed before this.
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
    /// Units that may be spent.
    pub units: u32,
    /// For how long, counted from before the ask was sent.
    pub good_for: u64,
    /// With units: how long after the reply has come they may be spent. Without: how long until an
    /// ask may find some.
    pub wait: u64,
    /// Units that would still be granted at once.
    pub room: u32,
}

/// The units of one key that were granted, all processes together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepaid {
    /// In microseconds since a start of the caller's choosing.
    tat: u64,
    /// The last debt of each process, by its number.
    debts: Vec<(u64, u64)>,
}

impl Terms {
    /// The terms of a rate and burst.
    ///
    /// # Errors
    /// The settings that a [token bucket](super::TokenBucket::new) refuses. A burst that takes less
    /// than 400 ms to refill. Numbers that a script cannot hold.
    pub fn new(rate: Rate, burst: u32) -> Result<Self, ConfigError> {
        Quota::new(rate, burst)?;
        let (count, per) = (u128::from(rate.count()) * 1000, rate.per().as_nanos());
        let factor = greatest_common_divisor(count, per);
        let (count, period) = (count / factor, per / factor);
        if u128::from(burst).max(count) * period >= u128::from(EXACT) {
            let fix = "count in larger units, or give a rounder period: a store's script holds \
                       numbers below 2^53, and this burst times the period is above";
            return Err(ConfigError::new("burst", burst, fix));
        }
        // Both were just found to be below 2^53.
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
        // Of a burst of one unit something must be left to be granted.
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

    /// The longest that a lease lives, in microseconds: L.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// The highest that is ever granted at once.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Units and microseconds, without a common factor: so many in so long.
    #[must_use]
    pub fn ratio(&self) -> (u64, u64) {
        (self.count, self.period)
    }

    /// The time by which the store lets the TAT be ahead, in microseconds.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        u64::from(self.burst) * self.period / self.count - self.life
    }

    /// The time that units take, in microseconds, rounded up.
    #[must_use]
    pub fn span(&self, units: u32) -> u64 {
        (u64::from(units) * self.period).div_ceil(self.count)
    }

    /// Counts the units that fit into a time, at most a burst.
    #[must_use]
    pub fn units_in(&self, micros: u64) -> u32 {
        let units = u128::from(micros) * u128::from(self.count) / u128::from(self.period);
        u32::try_from(units).unwrap_or(u32::MAX).min(self.burst)
    }
}

impl Prepaid {
    /// One of which nothing was used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a debt, and grants units. The same decision as the script's, line by line.
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

    /// Forgets how far ahead the time is. For tests, and for a store that was emptied.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns whether it would decide as a fresh one.
    #[must_use]
    pub fn is_fresh(&self, now: u64) -> bool {
        self.tat <= now
    }

    /// The units of a debt that was not counted yet.
    fn owe(&mut self, debt: Debt) -> u32 {
        let last = self
            .debts
            .iter_mut()
            .find(|(process, _)| *process == debt.process);
        match last {
            Some((_, number)) if debt.number <= *number => return 0,
            Some((_, number)) => *number = debt.number,
            None => {
                // Of processes that are long gone. A resend of one that is not would be counted
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

/// The units that fit if the TAT is so far ahead.
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

/// The longest life of a lease, in microseconds: what a process that died may have left, and what a
/// larger rate goes on for after a change.
const LONGEST: u64 = 1_000_000;
/// The shortest, of which `build` refuses less.
const SHORTEST: u64 = 200_000;
/// The furthest ahead that units are reserved, in microseconds. A later ask is told when to come.
pub(crate) const RESERVED: u64 = 2_000_000;
/// The furthest that the TAT is ahead, in microseconds: more debt than a year's is forgotten.
pub(crate) const FURTHEST: u64 = 365 * 24 * 3_600_000_000;
/// The number of processes whose last debts a key remembers.
pub(crate) const PROCESSES: usize = 32;
/// 2^53.
const EXACT: u64 = 1 << 53;
