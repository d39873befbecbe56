//! The clock: the only file that reads time.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the file that reads time, for all the others"
)]

use std::{cell::Cell, sync::LazyLock, time::Duration};

use tokio::time::Instant;

/// A clock of nanoseconds since it was started: the `now` of every algorithm.
///
/// The clock follows tokio's, so a test with `#[tokio::test(start_paused = true)]` controls every
/// layer. One read costs what [`std::time::Instant::now`] costs (about 24 ns, measured in
/// `benches/algorithm.rs`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

/// A clock of nanoseconds since it was started, by the machine's own clock: for files, which no
/// test's clock controls.
#[cfg(feature = "watch")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct RealClock {
    start: std::time::Instant,
}

/// The time of one decision, read when it is first needed and then kept: several gates in one layer
/// share one reading.
#[derive(Debug, Default)]
pub struct Now {
    instant: Cell<Option<Instant>>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Returns the clock that all layers have in common, for state that they share. With separate
    /// clocks, an older layer would write times that are far in a younger one's future.
    ///
    /// The clock counts from an hour before the process first used it, by the machine's clock. So
    /// no runtime with a paused clock, perhaps advanced by years, decides where it starts.
    pub(crate) fn common() -> Self {
        static COMMON: LazyLock<Clock> = LazyLock::new(|| {
            let now = std::time::Instant::now();
            // On some platforms time starts with the machine, and there is no earlier time.
            let start = now.checked_sub(Duration::from_secs(3600)).unwrap_or(now);
            Clock {
                start: Instant::from_std(start),
            }
        });
        *COMMON
    }

    /// Returns a clock with a new start. `moment` maps this clock's start to the new one, both
    /// measured on the [common](Self::common) clock.
    pub(crate) fn begin(self, moment: impl FnOnce(u64) -> u64) -> Self {
        let common = Self::common();
        let here = common.at(self.start);
        let start = moment(here);
        // A clock that starts before the common one keeps its own start.
        let moved = (start != here).then(|| common.moment(start)).flatten();
        Self {
            start: moved.unwrap_or(self.start),
        }
    }

    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    /// Converts a moment to this clock: 0 before its start, saturating after 584 years.
    #[inline]
    pub(crate) fn at(&self, moment: Instant) -> u64 {
        let elapsed = moment.saturating_duration_since(self.start);
        // Not `as_nanos`: 128 bits are not needed for 584 years.
        elapsed
            .as_secs()
            .saturating_mul(1_000_000_000)
            .saturating_add(u64::from(elapsed.subsec_nanos()))
    }

    /// Converts a reading to a moment. `None` if it is too far for the machine's clock.
    pub(crate) fn moment(&self, nanos: u64) -> Option<Instant> {
        self.start.checked_add(Duration::from_nanos(nanos))
    }
}

#[cfg(feature = "watch")]
impl RealClock {
    pub(crate) fn start() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }
}

impl Now {
    #[inline]
    pub(crate) fn unread() -> Self {
        Self::default()
    }

    /// Returns the time on `clock`.
    #[inline]
    pub(crate) fn by(&self, clock: &Clock) -> u64 {
        clock.at(self.instant())
    }

    #[inline]
    pub(crate) fn instant(&self) -> Instant {
        match self.instant.get() {
            Some(instant) => instant,
            None => {
                let instant = moment_of_call();
                self.instant.set(Some(instant));
                instant
            }
        }
    }
}

/// Starts a call through the layers of a stack, which all take one reading of the clock for its
/// moment. A reading costs more than most layers. The sharing ends with `start`, or at
/// [`call_inner`].
#[cfg(feature = "http")]
#[inline]
pub(crate) fn share_moment<T>(start: impl FnOnce() -> T) -> T {
    /// Restores the state before, also if `start` panics.
    struct RestoreMoment(StackMoment);

    impl Drop for RestoreMoment {
        fn drop(&mut self) {
            let _ = SHARED.try_with(|shared| shared.set(self.0));
        }
    }

    let before = SHARED.try_with(|shared| shared.replace(StackMoment::Unread));
    let _before = RestoreMoment(before.unwrap_or(StackMoment::No));
    start()
}

/// Calls the service beneath a stack. It may take any time, so the stack's moment ends here.
#[cfg(feature = "http")]
#[inline]
pub(crate) fn call_inner<T>(call: impl FnOnce() -> T) -> T {
    let _ = SHARED.try_with(|shared| shared.set(StackMoment::No));
    call()
}

/// Returns the present moment of tokio's clock or, while a call through a stack starts, the one
/// that its layers share.
#[inline]
pub(crate) fn moment_of_call() -> Instant {
    let Ok(StackMoment::Read(instant)) = SHARED.try_with(Cell::get) else {
        let instant = Instant::now();
        let _ = SHARED.try_with(|shared| {
            if let StackMoment::Unread = shared.get() {
                shared.set(StackMoment::Read(instant));
            }
        });
        return instant;
    };
    instant
}

/// The moment that the layers of a stack share while a call starts.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(feature = "http"),
    expect(dead_code, reason = "stacks are there with HTTP")
)]
enum StackMoment {
    /// No stack's call is starting on this thread.
    No,
    Unread,
    Read(Instant),
}

thread_local!(static SHARED: Cell<StackMoment> = const { Cell::new(StackMoment::No) });

/// Converts a duration to nanoseconds. Saturates after 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the nanoseconds on the clock that all layers have in common. A start of its own could
/// lie ahead of other runtimes, if the first caller's paused clock was advanced.
pub(crate) fn common_now() -> u64 {
    Clock::common().now()
}

/// Returns the present moment of tokio's clock.
pub(crate) fn moment() -> Instant {
    Instant::now()
}

/// Returns a moment plus a duration. If the clock does not reach that far, adds 30 years instead.
#[inline]
pub(crate) fn later(moment: Instant, duration: std::time::Duration) -> Instant {
    moment
        .checked_add(duration)
        .unwrap_or_else(|| moment + std::time::Duration::from_secs(30 * 365 * 24 * 3600))
}

/// Returns whether a moment of tokio's clock has passed.
pub(crate) fn has_passed(moment: Instant) -> bool {
    Instant::now() >= moment
}

/// Returns how long it is until a wall-clock date, or zero if the date has passed.
#[cfg(feature = "http")]
pub(crate) fn until(date: std::time::SystemTime) -> Duration {
    date.duration_since(std::time::SystemTime::now())
        .unwrap_or_default()
}

/// Returns the wall-clock time after a wait from now, in seconds since 1970, rounded up.
#[cfg(feature = "http")]
pub(crate) fn since_epoch(wait: Duration) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let then = now.unwrap_or_default().saturating_add(wait);
    then.as_secs()
        .saturating_add(u64::from(then.subsec_nanos() > 0))
}

/// A stopwatch of real time, whatever tokio's clock says: for drills, which run in virtual time.
#[cfg(feature = "drill")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(std::time::Instant);

#[cfg(feature = "drill")]
impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Returns the wall-clock time, in nanoseconds since 1970.
#[cfg(feature = "replay")]
pub(crate) fn epoch_nanos() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    nanos(now.unwrap_or_default())
}

#[cfg(all(test, feature = "http", not(keep_loom)))]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    /// Waits until the clock shows a later time.
    fn until_after(moment: Instant) {
        while Instant::now() <= moment {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn layers_share_one_moment_while_a_call_starts() {
        let (first, second) = share_moment(|| {
            let first = moment_of_call();
            until_after(first);
            (first, Now::default().instant())
        });
        assert_eq!(first, second);
        until_after(first);
        assert!(moment_of_call() > first, "the sharing has ended");
    }

    #[test]
    fn the_service_beneath_has_its_own_moment() {
        share_moment(|| {
            let shared = moment_of_call();
            until_after(shared);
            assert!(call_inner(moment_of_call) > shared);
        });
    }

    #[test]
    fn a_stack_within_a_stack_restores_the_outer_moment() {
        share_moment(|| {
            let outer = moment_of_call();
            until_after(outer);
            assert!(share_moment(moment_of_call) > outer);
            assert_eq!(moment_of_call(), outer);
        });
    }

    #[test]
    fn a_panic_ends_the_sharing() {
        let mut shared = None;
        let start = || {
            share_moment(|| {
                shared = Some(moment_of_call());
                assert!(shared.is_none(), "a layer panics");
            });
        };
        assert!(catch_unwind(std::panic::AssertUnwindSafe(start)).is_err());
        let shared = shared.expect("it was read");
        until_after(shared);
        assert!(moment_of_call() > shared);
    }
}
