//! Seeds for tests, so that the crate's random draws are the same in every run.
//!
//! Jitter, the throttle, the ramp of a circuit that closes, and the hashes of keyed tables are
//! random. That can make a test fail one time in a hundred. [`seeded`] draws all of it from one
//! seed, and [`without_jitter`] makes a circuit open for exactly the time that was set. With a
//! [paused clock](crate::guide::testing) two runs with one seed are equal, event for event.
//!
//! ```
//! # use std::time::Duration;
//! use tower_keep::{circuit_breaker::CircuitBreakerLayer, protocol::Plain, testing::Chance};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let _chance = Chance::seeded(417).without_jitter().enter();
//! let breaker = CircuitBreakerLayer::builder().protocol(Plain::new()).build().unwrap();
//! breaker.handle().force_open();
//! # }
//! ```
//!
//! **Scope.** A seed holds for the current thread, and so for all tasks of a single-threaded
//! runtime, such as that of `#[tokio::test]`. Build layers and stacks within it, because a circuit
//! draws its jitter when it is created. The seed does not affect what other crates draw (tokio's
//! `select!`, a balancer).
//!
//! **Cost.** The feature `testing` is for `[dev-dependencies]`: with it, each draw and each hash
//! first reads a thread-local. Without it none of this is compiled.

use std::marker::PhantomData;

use crate::ambient::chance::{self, Stream};

/// Runs a part of a test in which every draw follows from a seed.
///
/// ```
/// use tower_keep::testing;
///
/// let run = || {
///     let mut runtime = tokio::runtime::Builder::new_current_thread();
///     let runtime = runtime.enable_time().start_paused(true).build().unwrap();
///     testing::seeded(417, || runtime.block_on(async { /* the test */ }))
/// };
/// assert_eq!(run(), run());
/// ```
pub fn seeded<R>(seed: u64, test: impl FnOnce() -> R) -> R {
    let _entered = Chance::seeded(seed).enter();
    test()
}

/// Runs a part of a test in which waits are as long as they are set. Circuits built there open for
/// exactly their time. Retries back off by the formula without its random part.
pub fn without_jitter<R>(test: impl FnOnce() -> R) -> R {
    let _entered = Chance::current().without_jitter().enter();
    test()
}

/// The way in which a thread draws random numbers. [Enter](Self::enter) it where a closure does not
/// fit, as in an `async` test.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing is changed until `enter`"]
pub struct Chance(chance::Chance);

/// A guard that holds a [`Chance`] for the current thread. Its drop restores the one before. Drop
/// the last one entered first.
#[derive(Debug)]
#[must_use = "the chance holds until this is dropped: keep it as `let _chance = ..`"]
pub struct Entered {
    before: chance::Chance,
    /// Keeps the guard on the thread that created it.
    not_send: PhantomData<*const ()>,
}

impl Chance {
    /// Creates a chance that draws from a seed.
    pub fn seeded(seed: u64) -> Self {
        Self(chance::Chance {
            stream: Some(Stream::new(seed)),
            exact: false,
        })
    }

    /// Returns the way in which this thread draws now.
    pub fn current() -> Self {
        Self(chance::current())
    }

    /// Leaves jitter out.
    pub fn without_jitter(mut self) -> Self {
        self.0.exact = true;
        self
    }

    /// Applies this chance to the current thread.
    pub fn enter(self) -> Entered {
        Entered {
            before: chance::replace(self.0),
            not_send: PhantomData,
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        chance::replace(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::chance::word;

    #[test]
    fn one_seed_draws_the_same_and_another_does_not() {
        let draws = |seed| seeded(seed, || [word(), word(), word()]);
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }

    #[test]
    fn the_chance_before_returns_even_after_a_panic() {
        seeded(1, || {
            let first = word();
            let panicked = std::panic::catch_unwind(|| seeded(2, || panic!("{}", word())));
            assert!(panicked.is_err());
            let rest = [word(), word()];
            assert_eq!(
                [first, rest[0], rest[1]],
                seeded(1, || [word(), word(), word()])
            );
        });
        assert!(chance::current().stream.is_none());
    }
}
