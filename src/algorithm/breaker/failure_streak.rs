//! A run of failures: their number since the last success.
//!
//! A success that finds no run, the usual case, costs one load.

use crate::sync::{AtomicU64, Ordering};

#[derive(Debug)]
pub(super) struct FailureStreak {
    /// `generation:32 | failures:32`. Release, for a thread that reads a generation here (Acquire)
    /// and then the breaker's control word. It finds that word no older, and so can distinguish a
    /// word left behind from one that has overtaken it.
    word: AtomicU64,
}

impl FailureStreak {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
        }
    }

    /// Counts a failure and returns the number of failures in a row, or 0 if `is_current` shows
    /// that its generation has passed.
    pub(super) fn fail(&self, generation: u32, is_current: impl Fn() -> bool) -> u64 {
        let tag = u64::from(generation) << 32;
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let new = match word {
                _ if word & TAG_MASK != tag && !is_current() => return 0,
                _ if word & TAG_MASK != tag => tag | 1,
                // Full: it stays so. No setting is above it.
                _ if word & COUNT_MASK == COUNT_MASK => return COUNT_MASK,
                _ => word + 1,
            };
            match self
                .word
                .compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return new & COUNT_MASK,
                // Another failure or a success came first: continue from there.
                Err(current) => word = current,
            }
        }
    }

    /// Returns whether there is a run to end. Relaxed: the call that ends it checks again.
    #[inline]
    pub(super) fn is_running(&self, generation: u32) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        word & COUNT_MASK != 0 && word & TAG_MASK == u64::from(generation) << 32
    }

    /// Ends the run of this generation.
    pub(super) fn end(&self, generation: u32) {
        let tag = u64::from(generation) << 32;
        let mut word = self.word.load(Ordering::Acquire);
        while word & TAG_MASK == tag && word & COUNT_MASK != 0 {
            match self
                .word
                .compare_exchange_weak(word, tag, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return,
                // A failure came first: the run that this success ends is longer by one.
                Err(current) => word = current,
            }
        }
    }
}

const COUNT_MASK: u64 = (1 << 32) - 1;
const TAG_MASK: u64 = !COUNT_MASK;

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_success_or_a_new_generation_ends_a_run() {
        let run = FailureStreak::new();
        assert_eq!([run.fail(0, || true), run.fail(0, || true)], [1, 2]);
        run.end(0);
        assert_eq!(run.fail(0, || true), 1);
        assert_eq!(run.fail(7, || true), 1);
        assert_eq!(run.fail(0, || false), 0);
        run.end(0);
        assert_eq!(run.fail(7, || true), 2);
    }
}
