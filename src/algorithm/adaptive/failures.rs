//! Distinguishes failures that load causes from all others.
//!
//! An overloaded upstream fails calls: it rejects them at once, or they time out. But calls fail
//! for other reasons too, and a limit that falls for those ends at 1. Neither speed nor status
//! shows the difference: a rejection may be quick or slow, and so may a bug. So this runs a trial:
//! it lowers the limit, and compares how many calls succeed per second (the goodput).
//!
//! - As many succeed, or a smaller share fails: only calls that failed are missing. The limit is
//!   lowered further, until few fail.
//! - Fewer succeed, and as large a share fails: load is not the reason. The limit returns. If the
//!   goodput returns with it, this share of failures is tolerated for a while.
//!
//! A trial takes some seven windows of thirty and a third of the limit at most, which is less than
//! a tenth of the throughput. While nothing succeeds at all, fewer calls cost nothing: the limit
//! falls to its least.
//!
//! An [overload](super::Window::overloads) needs no such proof: the upstream has said that it is
//! overloaded.

use crate::algorithm::adaptive::{
    Window,
    limit::{BACKOFF, Current},
};

/// The results of the trials so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures {
    /// The share of failures that load does not cause.
    tolerated: f64,
    /// Windows since that share was found.
    windows: u32,
    /// The number of times in a row that a share was found.
    times: u32,
    /// The average goodput while few calls fail.
    goodput: Option<f64>,
    stage: TrialStage,
}

#[derive(Debug, Clone, Copy, Default)]
enum TrialStage {
    /// Few calls fail.
    #[default]
    Watching,
    /// The limit is being lowered, until a comparison shows whether that helps.
    Lowering(Mark),
    /// The limit has returned. Its goodput is compared with the one before the trial.
    Checking(Mark),
}

/// The limit that lower ones are compared with.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// The limit to return to.
    back: f64,
    /// The limit at which the fields below were measured.
    limit: f64,
    goodput: Option<f64>,
    /// The share of calls that failed.
    share: f64,
    /// If true, few calls failed in the last window.
    few_fail: bool,
    seen: WindowTotals,
}

/// Several windows under one limit.
#[derive(Debug, Clone, Copy, Default)]
struct WindowTotals {
    windows: u32,
    successes: f64,
    failures: f64,
    seconds: f64,
}

/// The next step after a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum LimitStep {
    /// Failures give no reason to move the limit: steer by other signals.
    Steer,
    /// Stay at this limit.
    Hold,
    /// Take this lower limit.
    Lower(f64),
    /// Return to the limit from before the trial: the lower ones did not help.
    Return(f64),
}

impl Failures {
    pub(super) fn observe(&mut self, window: &Window, current: Current) -> LimitStep {
        let limit = current.limit;
        if window.is_overloaded() {
            self.stage = TrialStage::Watching;
            return LimitStep::Lower(limit * BACKOFF);
        }
        match self.stage {
            TrialStage::Watching if self.is_too_bad(window) => {
                let mark = Mark {
                    back: limit,
                    limit,
                    goodput: window.goodput().map(|now| mixed(self.goodput, now)),
                    share: window.failed(),
                    few_fail: false,
                    seen: WindowTotals::default(),
                };
                self.lower(mark, limit)
            }
            TrialStage::Watching => self.watch(window),
            TrialStage::Lowering(mark) if window.failed() <= self.tolerated + FEW => {
                if !mark.few_fail {
                    // One such window may be chance: wait for a second.
                    let few_fail = true;
                    self.stage = TrialStage::Lowering(Mark { few_fail, ..mark });
                    return LimitStep::Hold;
                }
                self.stage = TrialStage::Watching;
                self.goodput = window.goodput();
                if window.is_loaded() {
                    self.times = 0;
                    LimitStep::Steer
                } else {
                    // The limit held no call back, so it is not why calls stopped failing.
                    LimitStep::Return(mark.back)
                }
            }
            TrialStage::Lowering(mark) => self.compare(mark, window, current),
            TrialStage::Checking(mark) => self.check(mark, window, limit),
        }
    }

    /// Averages the goodput while few calls fail, and ends the tolerance of failures when its time
    /// is over.
    fn watch(&mut self, window: &Window) -> LimitStep {
        self.goodput = window.goodput().map(|now| mixed(self.goodput, now));
        if self.tolerated > 0.0 {
            self.windows += 1;
            if self.windows >= TOLERATED_WINDOWS << self.times.min(MAX_DOUBLINGS) {
                self.tolerated = 0.0;
            }
        }
        LimitStep::Steer
    }

    fn lower(&mut self, mark: Mark, limit: f64) -> LimitStep {
        self.stage = TrialStage::Lowering(mark);
        LimitStep::Lower(limit * BACKOFF)
    }

    /// Compares the goodput under a lower limit with the goodput at the mark.
    fn compare(&mut self, mut mark: Mark, window: &Window, current: Current) -> LimitStep {
        let limit = current.limit;
        mark.few_fail = false;
        let is_least = limit <= current.min;
        let is_dead = window.successes == 0 && !is_least;
        if is_dead || (limit > mark.limit * LOWERED && !is_least) {
            return self.lower(mark, limit);
        }
        mark.seen.add(window);
        if !mark.seen.is_enough() {
            self.stage = TrialStage::Lowering(mark);
            return LimitStep::Hold;
        }
        let goodput = mark.seen.goodput();
        let fewer = goodput.zip(mark.goodput);
        let costs = fewer.is_some_and(|(now, before)| now < before * FEWER);
        if costs && mark.seen.share() > mark.share * FEWER_FAIL {
            mark.seen = WindowTotals::default();
            self.stage = TrialStage::Checking(mark);
            return LimitStep::Return(mark.back);
        }
        if is_least && mark.seen.successes > 0.0 {
            // The limit cannot go lower.
            self.tolerate(mark.seen.share());
            return LimitStep::Steer;
        }
        mark = Mark {
            limit,
            goodput,
            share: mark.seen.share(),
            seen: WindowTotals::default(),
            ..mark
        };
        self.lower(mark, limit)
    }

    /// Compares the goodput under the returned limit with the goodput at the mark.
    fn check(&mut self, mut mark: Mark, window: &Window, limit: f64) -> LimitStep {
        mark.seen.add(window);
        if !mark.seen.is_enough() {
            self.stage = TrialStage::Checking(mark);
            return LimitStep::Hold;
        }
        let goodput = mark.seen.goodput();
        let again = goodput.zip(mark.goodput);
        if again.is_some_and(|(now, before)| now >= before * FEWER) {
            self.goodput = goodput;
            self.tolerate(mark.seen.share());
            return LimitStep::Steer;
        }
        // The upstream has changed during the trial, so the comparison is void: start another.
        let mark = Mark {
            back: limit,
            limit,
            goodput,
            share: mark.seen.share(),
            few_fail: false,
            seen: WindowTotals::default(),
        };
        self.lower(mark, limit)
    }

    fn tolerate(&mut self, share: f64) {
        self.stage = TrialStage::Watching;
        self.tolerated = share;
        self.windows = 0;
        self.times = self.times.saturating_add(1);
    }

    /// Returns whether more calls fail than are tolerated, by more than three standard deviations.
    fn is_too_bad(&self, window: &Window) -> bool {
        let calls = f64::from(window.calls()).max(1.0);
        let known = self.tolerated.clamp(FEW, 1.0 - FEW);
        let spread = (known * (1.0 - known) / calls).sqrt();
        window.failures >= 2 && window.failed() > self.tolerated + FEW + 3.0 * spread
    }
}

impl WindowTotals {
    fn add(&mut self, window: &Window) {
        self.windows += 1;
        self.successes += f64::from(window.successes);
        self.failures += f64::from(window.failures);
        self.seconds += window.elapsed.as_secs_f64();
    }

    fn is_enough(&self) -> bool {
        self.windows >= MAX_WINDOWS || (self.windows >= MIN_WINDOWS && self.successes >= GOOD)
    }

    fn goodput(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.successes / self.seconds)
    }

    fn share(&self) -> f64 {
        self.failures / (self.successes + self.failures).max(1.0)
    }
}

/// Returns the moving average, or `now` alone if there was none before.
fn mixed(before: Option<f64>, now: f64) -> f64 {
    before.map_or(now, |before| before + (now - before) * NEW)
}

/// The share of failures that is too small for a trial.
const FEW: f64 = 0.01;

/// The factor that must show in the goodput, if the limit is lowered by it and holds calls back.
const LOWERED: f64 = 0.75;

/// The factor below which goodput has fallen with the limit: halfway between [`LOWERED`] and 1.
const FEWER: f64 = 0.87;

/// The factor below which the share of failures has fallen with the limit.
const FEWER_FAIL: f64 = 0.7;

/// The number of windows in a comparison, at least and at most.
const MIN_WINDOWS: u32 = 2;
const MAX_WINDOWS: u32 = 6;

/// The successes after which a comparison needs no more windows: their number scatters by a
/// fourteenth.
const GOOD: f64 = 200.0;

/// The windows after which a tolerated share may start a trial again: its cause may have changed.
const TOLERATED_WINDOWS: u32 = 24;

/// The most doublings of [`TOLERATED_WINDOWS`], one for each time in a row that a share was found.
const MAX_DOUBLINGS: u32 = 1;

/// The weight of the new window in an average.
const NEW: f64 = 0.3;

#[cfg(all(test, not(keep_loom)))]
mod tests;
