//! Random numbers: the only file that draws them, for all other files.
//!
//! Jitter, throttles, ramps and the seeds of hashed tables all draw here, so that one seed decides
//! them all. Without the feature `testing` there is no seed, and every number is drawn by `rand`.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the file that draws at random, for all the others"
)]

use std::hash::{BuildHasher, DefaultHasher, RandomState};
#[cfg(feature = "http")]
use std::time::Duration;

/// Returns 64 random bits.
#[inline]
pub(crate) fn word() -> u64 {
    #[cfg(feature = "testing")]
    if let Some(word) = seeded::word() {
        return word;
    }
    rand::random()
}

/// Returns 32 random bits.
#[inline]
pub(crate) fn half_word() -> u32 {
    #[cfg(feature = "testing")]
    if let Some(word) = seeded::word() {
        return (word >> 32) as u32;
    }
    rand::random()
}

/// Returns whether waits are exactly as long as they are set, without jitter. Always `false`
/// outside tests.
#[inline]
pub(crate) fn is_exact() -> bool {
    #[cfg(feature = "testing")]
    return seeded::current().exact;
    #[cfg(not(feature = "testing"))]
    false
}

/// Returns a hint of about this length: from half of it to two and a half times as long. So callers
/// that get the hint do not all come back together, not even in whole seconds.
#[cfg(feature = "http")]
pub(crate) fn spread(hint: Duration) -> Duration {
    if is_exact() {
        return hint;
    }
    // Below 1, in steps of 2^-32.
    let share = f64::from(half_word()) / (f64::from(u32::MAX) + 1.0);
    hint.mul_f64(0.5 + 2.0 * share)
}

/// A factory of the hashers of one map or table. The seed is random, so that nobody can choose keys
/// that collide.
#[derive(Debug, Clone)]
pub(crate) enum Hashing {
    Random(RandomState),
    /// A seed that is the same in a test with a seed. An attacker that knows it can search for keys
    /// that collide.
    #[cfg(feature = "testing")]
    Seeded(u64),
}

impl Hashing {
    pub(crate) fn new() -> Self {
        #[cfg(feature = "testing")]
        if let Some(word) = seeded::word() {
            return Self::Seeded(word);
        }
        Self::Random(RandomState::new())
    }
}

impl BuildHasher for Hashing {
    type Hasher = DefaultHasher;

    #[inline]
    fn build_hasher(&self) -> DefaultHasher {
        match self {
            Self::Random(state) => state.build_hasher(),
            #[cfg(feature = "testing")]
            Self::Seeded(seed) => {
                let mut hasher = DefaultHasher::new();
                std::hash::Hasher::write_u64(&mut hasher, *seed);
                hasher
            }
        }
    }
}

/// Returns a hash with a salt of this process: equal for equal values, and of no use elsewhere.
#[cfg(feature = "layers")]
pub(crate) fn salted<T: std::hash::Hash>(value: &T) -> u32 {
    static SALT: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
    (SALT.hash_one(value) >> 32) as u32
}

/// Mixes the bits of a word: each of the 64 result bits depends on all of them (the finalizer of
/// `SplitMix64`).
pub(crate) fn scrambled(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

/// 2^64 divided by the golden ratio.
pub(crate) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(feature = "testing")]
pub(crate) use seeded::{Chance, Stream, current, replace};

#[cfg(feature = "testing")]
mod seeded {
    use std::cell::Cell;

    /// The way in which a thread draws random numbers.
    #[derive(Debug, Clone, Copy, Default)]
    pub(crate) struct Chance {
        /// The source of the numbers. `None` draws real random numbers.
        pub(crate) stream: Option<Stream>,
        /// If true, waits have no jitter.
        pub(crate) exact: bool,
    }

    /// A sequence of numbers that look random and follow from a seed: `SplitMix64` (Steele, Lea and
    /// Flood, OOPSLA 2014). The same on every machine and in every version of this crate's
    /// dependencies, so that a failing seed fails again.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Stream(u64);

    thread_local!(static CURRENT: Cell<Chance> = const { Cell::new(Chance { stream: None, exact: false }) });

    impl Stream {
        pub(crate) fn new(seed: u64) -> Self {
            Self(seed)
        }

        pub(crate) fn word(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(super::GOLDEN);
            super::scrambled(self.0)
        }
    }

    /// Returns how the current thread draws. An exiting thread draws real random numbers.
    #[inline]
    pub(crate) fn current() -> Chance {
        CURRENT.try_with(Cell::get).unwrap_or_default()
    }

    /// Changes how the current thread draws. Returns how it drew before.
    pub(crate) fn replace(chance: Chance) -> Chance {
        CURRENT
            .try_with(|current| current.replace(chance))
            .unwrap_or_default()
    }

    /// Returns the next number of the current thread's seed, if it has one.
    #[inline]
    pub(super) fn word() -> Option<u64> {
        let mut chance = current();
        let word = chance.stream.as_mut()?.word();
        replace(chance);
        Some(word)
    }
}
