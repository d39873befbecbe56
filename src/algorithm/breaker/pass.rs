//! An admission in one word.

use crate::algorithm::breaker::control::Control;

/// An admission: the generation it belongs to, and when the call began.
///
/// It must come back once, to [`Breaker::record`](super::Breaker::record) or
/// [`Breaker::abandon`](super::Breaker::abandon), so it cannot be copied. [`Pass::default`]
/// represents no admission: recording or abandoning it does nothing.
///
/// It is a single word because a call carries it through its future. A value of several words is
/// stored in parts and moved by wide loads, and each such load waits for the stores.
///
/// **Accuracy.** The start is kept in units of 64 ns, so whether a call was slow is exact to 64 ns,
/// at any uptime. Times in whole milliseconds are exact. A call of more than 34 hours may be taken
/// for a quick one, but [`SlowCalls::after`](super::SlowCalls) is at most a day.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use = "a probe that is never recorded is out until its lease ends"]
pub struct Pass(
    /// `generation:18 | code:5 | start:41`, the generation where [`Control`] has it. The start is
    /// in units of 64 ns, modulo 2^41 (39 hours), and 0 for codes below 4. The codes:
    ///
    /// - 0: nothing was admitted.
    /// - 1 to 3: a verdict on slowness. [`SLOW`] and [`QUICK`] once the head of the response has
    ///   arrived, [`UNTIMED`] before.
    /// - 4: a start that the ages do not count ([`TIMED`]).
    /// - 16 to 31: a start that they count, in the row of the low four bits.
    u64,
);

/// The slowness of a call, as its pass shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slowness {
    Judged {
        slow: bool,
    },
    Running {
        /// The start in nanoseconds, as [`whole_units`] has rounded it.
        started: u64,
        /// The age in units of 64 ns, or 0 if the clock went back.
        age: u64,
        /// Its row of the ages, if it is counted there.
        row: Option<usize>,
    },
}

impl Pass {
    /// Returns whether it represents no admission.
    #[must_use]
    #[inline]
    pub fn is_nothing(&self) -> bool {
        self.0 == 0
    }

    /// Returns the pass of a call admitted without the time, which is never slow.
    #[inline]
    pub(super) fn untimed(control: Control) -> Self {
        Self(control.generation_bits() | UNTIMED << CODE_SHIFT)
    }

    pub(super) fn started(control: Control, now: u64) -> Self {
        Self(control.generation_bits() | TIMED << CODE_SHIFT | now >> UNIT_BITS & STARTS)
    }

    /// Returns a pass like [`started`](Self::started), but counted in a row of the ages.
    pub(super) fn counted(control: Control, row: usize, now: u64) -> Self {
        debug_assert!(row < MAX_ROWS, "row {row}");
        let code = COUNTED | row as u64 & ROWS;
        Self(control.generation_bits() | code << CODE_SHIFT | now >> UNIT_BITS & STARTS)
    }

    /// Returns whether it is of this generation, and certain not to be slow.
    #[inline]
    pub(super) fn is_quick_of(&self, control: Control) -> bool {
        // `UNTIMED` and `QUICK` differ in the lowest bit, and no other code becomes either by it.
        self.0 | 1 << CODE_SHIFT == control.generation_bits() | QUICK << CODE_SHIFT
    }

    /// Returns whether it has no start: the call's slowness is known, or the call is never slow.
    #[cfg(any(feature = "layers", all(test, not(keep_loom))))]
    #[inline]
    pub(super) fn is_untimed(&self) -> bool {
        self.0 >> CODE_SHIFT & CODES < TIMED
    }

    /// Returns whether the head of the response has arrived.
    pub(super) fn has_answer(&self) -> bool {
        matches!(self.0 >> CODE_SHIFT & CODES, QUICK | SLOW)
    }

    /// Returns whether it is of this generation. False if nothing was admitted.
    #[inline]
    pub(super) fn is_of(&self, control: Control) -> bool {
        !self.is_nothing() && control.has_generation_bits(self.0)
    }

    #[cfg(all(test, not(keep_loom)))]
    pub(super) fn generation(&self) -> u32 {
        Control::from_word(self.0).generation()
    }

    pub(super) fn slowness(&self, now: u64) -> Slowness {
        let code = self.0 >> CODE_SHIFT & CODES;
        if code < TIMED {
            return Slowness::Judged { slow: code == SLOW };
        }
        let units = now >> UNIT_BITS;
        let age = units.wrapping_sub(self.0) & STARTS;
        // An age in the last part of the range means that the clock went back, by up to 4.8 hours.
        let (started, age) = if age > STARTS - BACKWARDS {
            (units + (STARTS + 1 - age), 0)
        } else {
            (units.saturating_sub(age), age)
        };
        let row = (code & COUNTED != 0).then_some((code & ROWS) as usize);
        Slowness::Running {
            started: started << UNIT_BITS,
            age,
            row,
        }
    }

    /// Replaces the start by a verdict.
    pub(super) fn judge(&mut self, slow: bool) {
        let code = if slow { SLOW } else { QUICK };
        self.0 = self.0 & !(CODES << CODE_SHIFT | STARTS) | code << CODE_SHIFT;
    }
}

/// Returns a moment as the pass of a call that begins then will show it.
pub(super) fn whole_units(now: u64) -> u64 {
    now >> UNIT_BITS << UNIT_BITS
}

/// Returns a duration in units, rounded up.
pub(super) fn units(nanos: u64) -> u64 {
    nanos.div_ceil(1 << UNIT_BITS)
}

/// The number of rows of the ages that a pass can distinguish.
pub(super) const MAX_ROWS: usize = 16;
/// 64 is the largest power of two that divides a million, so whole milliseconds are exact.
const UNIT_BITS: u32 = 6;
const CODE_SHIFT: u32 = 41;
const STARTS: u64 = (1 << CODE_SHIFT) - 1;
const BACKWARDS: u64 = 1 << 38;
const CODES: u64 = 31;
const SLOW: u64 = 1;
const UNTIMED: u64 = 2;
const QUICK: u64 = UNTIMED | 1;
const TIMED: u64 = 4;
const COUNTED: u64 = 16;
const ROWS: u64 = 15;

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: u64 = 1_000_000;
    const DAY: u64 = 24 * 3_600_000 * MILLI;
    const YEAR: u64 = 365 * DAY;

    /// The pass in three fields, as it would be without the packing.
    #[derive(Debug, Clone, Copy)]
    struct Plain {
        generation: u32,
        row: Option<usize>,
        started: Option<u64>,
    }

    impl Plain {
        fn pack(self) -> Pass {
            let mut control = Control::closed();
            for _ in 0..self.generation {
                control = control.settle(crate::algorithm::BreakerState::Closed);
            }
            match (self.row, self.started) {
                (_, None) => Pass::untimed(control),
                (None, Some(started)) => Pass::started(control, started),
                (Some(row), Some(started)) => Pass::counted(control, row, started),
            }
        }

        fn is_slow(self, after: u64, now: u64) -> bool {
            self.started
                .is_some_and(|started| now.saturating_sub(started) >= after)
        }
    }

    fn is_slow(pass: &Pass, after: u64, now: u64) -> bool {
        match pass.slowness(now) {
            Slowness::Judged { slow } => slow,
            Slowness::Running { age, .. } => age >= units(after),
        }
    }

    #[test]
    fn no_pass_of_any_kind_is_nothing() {
        let control = Control::closed();
        assert!(Pass::default().is_nothing());
        let mut judged = Pass::started(control, 0);
        judged.judge(false);
        for pass in [
            Pass::untimed(control),
            Pass::started(control, 0),
            Pass::counted(control, 0, 0),
            judged,
        ] {
            assert!(!pass.is_nothing() && pass.is_of(control));
        }
    }

    #[test]
    fn only_quick_passes_of_this_generation_are_quick() {
        let control = Control::closed();
        let [mut quick, mut slow, mut answered] = [(); 3].map(|()| Pass::started(control, 0));
        quick.judge(false);
        slow.judge(true);
        answered.judge(false);
        assert!(quick.is_quick_of(control) && answered.has_answer() && slow.has_answer());
        assert!(Pass::untimed(control).is_quick_of(control));
        assert!(!Pass::untimed(control).has_answer());
        let others = [
            Pass::default(),
            slow,
            Pass::started(control, 0),
            Pass::counted(control, 0, 0),
            Pass::counted(control, MAX_ROWS - 1, u64::MAX),
            Pass::untimed(control.settle(crate::algorithm::BreakerState::Closed)),
        ];
        assert!(others.iter().all(|pass| !pass.is_quick_of(control)));
    }

    #[test]
    fn it_is_one_word() {
        assert_eq!(size_of::<Pass>(), 8);
    }

    proptest! {
        #[test]
        fn agrees_with_the_form_of_three_fields(
            generation in 0u32..300,
            row in prop::option::of(0usize..MAX_ROWS),
            started in prop::option::of(0..100 * YEAR / MILLI),
            after in 1..=DAY / MILLI,
            near in any::<bool>(),
            passed in -3_600_000i64..30 * 3_600_000,
        ) {
            let started = started.map(|millis| millis * MILLI);
            let (plain, after) = (Plain { generation, row, started }, after * MILLI);
            let passed = if near { passed % 3 * MILLI as i64 + after as i64 } else { passed * MILLI as i64 };
            let now = started.unwrap_or(0).saturating_add_signed(passed);
            let mut pass = plain.pack();
            prop_assert_eq!(pass.generation(), generation);
            prop_assert_eq!(is_slow(&pass, after, now), plain.is_slow(after, now));
            if let Slowness::Running { started, row, .. } = pass.slowness(now) {
                prop_assert_eq!((Some(started), row), (plain.started, plain.row));
            } else {
                prop_assert_eq!(started, None);
            }
            let slow = is_slow(&pass, after, now);
            pass.judge(slow);
            prop_assert_eq!(pass.generation(), generation);
            prop_assert_eq!(is_slow(&pass, after, now + DAY), slow);
        }

        #[test]
        fn slowness_is_exact_to_64_nanoseconds(
            started in 0..100 * YEAR, after in MILLI..DAY, off in -100i64..100,
        ) {
            let pass = Pass::started(Control::closed(), started);
            let now = (started + after).saturating_add_signed(off);
            if off.unsigned_abs() >= 64 {
                prop_assert_eq!(is_slow(&pass, after, now), off > 0);
            }
        }
    }
}
