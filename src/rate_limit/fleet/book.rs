//! The units that a process asks for one key: those missing to the observed rate over a horizon.
//!
//! With too short a horizon, the units run out between two answers, and calls wait. With too long a
//! horizon, units end unspent, and nothing else can use them meanwhile. So the horizon starts at
//! about four round trips and at least 100 ms. It doubles when calls found too few units although
//! the store had enough. It halves when units ended unspent. It never exceeds a lease's longest
//! life.

use crate::algorithm::prepaid::{Debt, Terms, Want};

/// The asking task's knowledge of one key. Times are in nanoseconds.
#[derive(Debug)]
pub(super) struct Book {
    horizon: u64,
    /// Units per second that calls have spent.
    rate: f64,
    looked_at: u64,
    /// Units at the last check, and units added since.
    there: u32,
    added: u32,
    /// Units that calls lack, and the cost of the dearest of these calls.
    missing: u64,
    least: u32,
    /// If true, the last answer granted less than was wanted.
    is_scarce: bool,
    /// The earliest time of the next ask.
    pub(super) due: u64,
    /// A debt that the store has not confirmed. It is sent again with the same number.
    pub(super) debt: Option<Debt>,
    number: u64,
    pub(super) reset: bool,
    /// Units that the store has reserved for later.
    pub(super) held: Option<Held>,
    /// Failures in a row.
    pub(super) failures: u32,
}

/// Units that may be spent later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) units: u32,
    pub(super) from: u64,
    pub(super) ends: u64,
}

/// The state of the lease, and the units that calls have found missing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    pub(super) units: u32,
    /// Units that ended unspent.
    pub(super) ended: u32,
    pub(super) blocked: u64,
    pub(super) needed: u64,
    pub(super) least: u32,
}

impl Book {
    pub(super) fn new(now: u64) -> Self {
        Self {
            horizon: SHORTEST,
            rate: 0.0,
            looked_at: now,
            there: 0,
            added: 0,
            missing: 0,
            least: 0,
            is_scarce: false,
            due: 0,
            debt: None,
            number: 0,
            reset: false,
            held: None,
            failures: 0,
        }
    }

    /// Records what has happened since the last check.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn look(&mut self, look: Look, terms: &Terms, round_trip: u64, now: u64) {
        let before = u64::from(self.there) + u64::from(self.added);
        let left = u64::from(look.units) + u64::from(look.ended);
        let spent = before.saturating_sub(left);
        let elapsed = now.saturating_sub(self.looked_at);
        if elapsed >= MOMENT {
            let elapsed = elapsed as f64;
            // Units that calls lack are asked for anyway and spent later. Here they would count
            // twice.
            let sample = spent as f64 / elapsed * 1e9;
            self.rate += (sample - self.rate) * (elapsed / SHORTEST as f64).min(1.0);
            (self.there, self.added, self.looked_at) = (look.units, 0, now);
        }
        let longest = terms.life().saturating_mul(1000);
        let shortest = base(round_trip).min(longest);
        if look.ended > 0 {
            self.horizon /= 2;
        } else if look.blocked > 0 && before > 0 && !self.is_scarce {
            self.horizon = self.horizon.saturating_mul(2);
        }
        self.horizon = self.horizon.clamp(shortest, longest);
        self.missing = self.missing.max(look.blocked).max(look.needed);
        self.least = self.least.max(look.least);
        if look.units >= self.least && u64::from(look.units) >= self.missing {
            (self.missing, self.least) = (0, 0);
        }
    }

    /// Returns whether a debt is sent before [`due`](Self::due). Not while the store fails.
    pub(super) fn tells_at_once(&self) -> bool {
        self.debt.is_some() && self.failures == 0
    }

    /// Returns the units to ask for now, if any.
    pub(super) fn want(&self, units: u32, terms: &Terms, now: u64) -> Want {
        let target = self.target().min(terms.burst());
        let mut want = Want {
            debt: self.debt,
            reset: self.reset,
            ..Want::default()
        };
        if self.held.is_some() || self.due > now {
            // The units that calls lack are on their way, or the store has none yet.
            return want;
        }
        let missing = u32::try_from(self.missing)
            .unwrap_or(u32::MAX)
            .min(terms.burst());
        if missing > units || self.least > units {
            want.least = self.least.clamp(1, terms.burst());
            want.units = target.max(missing).saturating_sub(units).max(want.least);
        } else if units < target / 2 {
            want.units = target - units;
            want.least = 1;
        }
        want
    }

    /// Records granted units. Meanwhile, waiters have repeated what they need, computed before the
    /// grant. `needed` is the most of that. They report again what is still missing.
    pub(super) fn came(&mut self, units: u32, needed: u64) {
        self.missing = self.missing.max(needed).saturating_sub(u64::from(units));
        if units > 0 {
            self.least = 0;
        }
    }

    /// Records an answer, and sets the earliest time of the next ask.
    pub(super) fn answered(&mut self, wanted: u32, units: u32, wait: u64, pace: u64, now: u64) {
        self.failures = 0;
        self.debt = None;
        self.reset = false;
        if wanted == 0 && self.due > now {
            // Only a debt was sent, so the store still has no units before that.
            return;
        }
        self.is_scarce = units < wanted;
        self.due = match (self.is_scarce, units) {
            (false, _) => now,
            (true, 0) => now.saturating_add(wait.max(pace)),
            (true, _) => now.saturating_add(pace),
        };
    }

    /// Counts units that were added to the lease.
    pub(super) fn added(&mut self, units: u32) {
        self.added = self.added.saturating_add(units);
    }

    /// Records units that were used without a lease, at most a burst of them. Returns how many.
    pub(super) fn owe(&mut self, process: u64, units: u64, terms: &Terms) -> u32 {
        if units == 0 || self.debt.is_some() {
            return 0;
        }
        let units = u32::try_from(units).unwrap_or(u32::MAX).min(terms.burst());
        self.number += 1;
        self.debt = Some(Debt {
            process,
            number: self.number,
            units,
        });
        units
    }

    /// Returns whether nothing is wanted. Then the key need not be checked before a call finds too
    /// few units.
    pub(super) fn is_idle(&self, units: u32) -> bool {
        units == 0
            && self.missing == 0
            && self.debt.is_none()
            && !self.reset
            && self.held.is_none()
            && self.target() < 2
    }

    /// Returns whether calls lack units, or the store must receive a debt or a reset.
    pub(super) fn is_urgent(&self) -> bool {
        self.missing > 0 || self.debt.is_some() || self.reset
    }

    /// Returns the units of the observed rate, over the horizon.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "an estimate: casts saturate"
    )]
    fn target(&self) -> u32 {
        (self.rate * self.horizon as f64 / 1e9).ceil() as u32
    }
}

/// Returns four round trips, and at least 100 ms.
pub(super) fn base(round_trip: u64) -> u64 {
    round_trip.saturating_mul(4).max(SHORTEST)
}

const SHORTEST: u64 = 100_000_000;
/// The shortest time over which a rate is measured.
const MOMENT: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::Rate;

    const MILLI: u64 = 1_000_000;

    fn terms() -> Terms {
        Terms::new(Rate::per_second(1000), 1000).unwrap()
    }

    fn book_at(per_second: f64) -> Book {
        Book {
            rate: per_second,
            ..Book::new(0)
        }
    }

    #[test]
    fn asks_for_what_is_missing_to_rate_times_horizon() {
        let (book, terms) = (book_at(1000.0), terms());
        assert_eq!(book.want(0, &terms, 0).units, 100);
        assert_eq!(book.want(40, &terms, 0).units, 60);
        assert_eq!(book.want(60, &terms, 0).units, 0, "over half is there");
    }

    #[test]
    fn a_rare_key_asks_for_its_calls_alone() {
        let (mut book, terms) = (book_at(0.0), terms());
        let look = Look {
            blocked: 1,
            least: 1,
            ..Look::default()
        };
        book.look(look, &terms, MILLI, 5000 * MILLI);
        assert_eq!(book.want(0, &terms, 0).units, 1);
        book.answered(1, 1, 0, 25 * MILLI, 5000 * MILLI);
        book.came(1, 1);
        assert!(book.want(0, &terms, 0).units == 0 && book.is_idle(0));
    }

    #[test]
    fn the_horizon_doubles_when_dry_and_halves_if_idle() {
        let (mut book, terms) = (book_at(100.0), terms());
        let dry = Look {
            blocked: 1,
            least: 1,
            ..Look::default()
        };
        for expected in [200, 400, 500, 500] {
            book.added(10);
            book.look(dry, &terms, MILLI, book.looked_at + 20 * MILLI);
            assert_eq!(book.horizon, expected * MILLI);
        }
        let ended = Look {
            ended: 3,
            ..Look::default()
        };
        for expected in [250, 125, 100] {
            book.look(ended, &terms, MILLI, book.looked_at + 20 * MILLI);
            assert_eq!(book.horizon, expected * MILLI);
        }
        book.look(
            Look::default(),
            &terms,
            60 * MILLI,
            book.looked_at + 20 * MILLI,
        );
        assert_eq!(book.horizon, 240 * MILLI, "four round trips");
    }

    #[test]
    fn a_debt_keeps_its_number_until_it_is_confirmed() {
        let (mut book, terms) = (book_at(0.0), terms());
        assert_eq!(book.owe(7, 5000, &terms), 1000, "a burst at a time");
        assert_eq!(book.owe(7, 4000, &terms), 0);
        assert_eq!(book.debt.unwrap().number, 1);
        book.answered(0, 0, 0, 0, 0);
        assert_eq!(book.owe(7, 4, &terms), 4);
        assert_eq!(book.debt.unwrap().number, 2);
    }

    /// Regression: each part of a debt waited until the one before it was paid off.
    #[test]
    fn a_debt_does_not_wait_for_units() {
        let (mut book, terms) = (book_at(1000.0), terms());
        book.answered(100, 0, 40 * MILLI, 25 * MILLI, 0);
        assert!(!book.tells_at_once());
        book.owe(7, 5000, &terms);
        assert!(book.tells_at_once());
        let want = book.want(0, &terms, MILLI);
        assert_eq!((want.units, want.debt.unwrap().units), (0, 1000));
        book.answered(want.units, 0, 0, 25 * MILLI, MILLI);
        assert_eq!(
            book.due,
            40 * MILLI,
            "units are asked for as late as before"
        );
        assert!(book.want(0, &terms, 40 * MILLI).units > 0);
        // and not while the store fails.
        book.owe(7, 5000, &terms);
        book.failures = 1;
        assert!(!book.tells_at_once());
    }

    #[test]
    fn an_empty_store_is_asked_after_its_wait() {
        let mut book = book_at(1000.0);
        book.answered(100, 0, 40 * MILLI, 25 * MILLI, 0);
        assert_eq!(book.due, 40 * MILLI);
        book.answered(100, 7, 0, 25 * MILLI, 0);
        assert_eq!(book.due, 25 * MILLI);
        book.answered(100, 100, 0, 25 * MILLI, 3);
        assert_eq!(book.due, 3);
    }
}
