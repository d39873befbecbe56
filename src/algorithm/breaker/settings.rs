//! The settings as the breaker needs them, checked once, and the decisions that follow from them.

// Not modelled by loom: a setting publishes nothing, and a decision is right under the old setting
// and under the new.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{
    algorithm::{
        Counts,
        backoff::share_of,
        breaker::{
            config::{BreakerConfig, Verdict, Window},
            control::Probes,
            transition::Cause,
        },
    },
    config::{ConfigError, nanos_within, parts_per_million},
};

/// The settings on which the counts depend. If they change, the counts restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Foundation {
    pub(super) window: Length,
    /// The nanoseconds after which a call is slow, or `u64::MAX` if no call is.
    pub(super) slow_after: u64,
}

/// The length of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// In nanoseconds.
    Time(u64),
    Calls(u32),
}

/// The settings that an update may change. Times are in nanoseconds, shares in parts per million,
/// and 0 is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) min_calls: u64,
    pub(super) failure_rate: u64,
    pub(super) slow_rate: u64,
    pub(super) consecutive: u64,
    pub(super) cancelled_as_failure: bool,
    pub(super) open_on_no_answer: bool,
    pub(super) open_for: u64,
    pub(super) max_open: u64,
    pub(super) growing: bool,
    pub(super) jitter: bool,
    pub(super) probes: u64,
    pub(super) verdict: Verdict,
    pub(super) lease: u64,
    pub(super) ramp: u64,
}

/// [`Settings`] that can be replaced while they are read. Relaxed: see above. A decision beside an
/// update may see some settings new and others old, as though they had been set one after the
/// other.
#[derive(Debug)]
pub(super) struct SharedSettings([AtomicU64; WORDS]);

impl Foundation {
    pub(super) fn new(config: &BreakerConfig) -> Result<Self, ConfigError> {
        let window = match config.window {
            Window::Time(length) => Length::Time(nanos_within(
                "window",
                length,
                TEN_MILLIS..=DAY,
                "use 10ms to a day; 10s suits most peers",
            )?),
            Window::Calls(calls) if !(1..=MOST_CALLS).contains(&calls) => {
                return Err(ConfigError::new(
                    "window",
                    calls,
                    "use 1 to 1048576 calls, or a window of time for more",
                ));
            }
            Window::Calls(calls) => Length::Calls(calls),
        };
        let slow_after = match config.slow_calls {
            Some(slow) => nanos_within("slow_calls", slow.after, MILLI..=DAY, "use 1ms to a day")?,
            None => u64::MAX,
        };
        Ok(Self { window, slow_after })
    }
}

impl Settings {
    pub(super) fn new(config: &BreakerConfig) -> Result<Self, ConfigError> {
        const SHARE: &str = "use a share above 0 and at most 1, such as 0.5";
        let share = |field, rate: Option<f64>| {
            rate.map_or(Ok(0), |rate| parts_per_million(field, rate, SHARE))
        };
        let failure_rate = share("failure_rate", config.failure_rate)?;
        let slow_rate = share("slow_calls", config.slow_calls.map(|slow| slow.rate))?;
        if config.min_calls == 0 {
            return Err(ConfigError::new(
                "min_calls",
                0,
                "wait for at least 1 call; 20 keeps chance from tripping",
            ));
        }
        if config.consecutive_failures == Some(0) {
            return Err(ConfigError::new(
                "consecutive_failures",
                0,
                "wait for at least 1 failure, or leave it unset",
            ));
        }
        if failure_rate == 0 && slow_rate == 0 && config.consecutive_failures.is_none() {
            return Err(ConfigError::new(
                "failure_rate",
                config.failure_rate,
                "set it: nothing else could tell a failing peer",
            ));
        }
        let probes = u64::from(config.probes);
        if probes == 0 || probes > Probes::MOST {
            return Err(ConfigError::new(
                "probes",
                config.probes,
                "use 1 to 511: without a probe the circuit never closes",
            ));
        }
        let times = "use 1ms to 30 days; 30s suits most peers";
        let open_for = nanos_within("open_for", config.open_for, MILLI..=MONTH, times)?;
        let max_open = config
            .max_open
            .unwrap_or_else(|| config.open_for.saturating_mul(10).min(MONTH));
        let window = if let Window::Calls(calls) = config.window {
            calls
        } else {
            u32::MAX
        };
        Ok(Self {
            min_calls: u64::from(config.min_calls.min(window)),
            failure_rate: failure_rate.into(),
            slow_rate: slow_rate.into(),
            consecutive: config.consecutive_failures.unwrap_or(0).into(),
            cancelled_as_failure: config.cancelled_as_failure,
            open_on_no_answer: config.open_on_no_answer,
            open_for,
            max_open: nanos_within(
                "max_open",
                max_open,
                config.open_for..=MONTH,
                "use `open_for` to 30 days",
            )?,
            growing: config.growing,
            jitter: config.jitter,
            probes,
            verdict: if failure_rate == 0 {
                Verdict::AnyFailure
            } else {
                config.verdict
            },
            lease: nanos_within(
                "lease",
                config.lease.unwrap_or(config.open_for),
                MILLI..=MONTH,
                "use 1ms to 30 days",
            )?,
            ramp: nanos_within(
                "ramp",
                config.ramp,
                Duration::ZERO..=DAY,
                "use at most a day; zero for none",
            )?,
        })
    }

    /// Returns whether so many failures and slow calls would trip, if the calls were just enough.
    pub(super) fn could_trip(&self, harm: Counts) -> bool {
        is_too_many(harm.failures, self.min_calls, self.failure_rate)
            || is_too_many(harm.slow, self.min_calls, self.slow_rate)
    }

    /// Returns the cause for opening that the whole window gives, if any.
    pub(super) fn cause(&self, counts: Counts) -> Option<Cause> {
        let total = counts.total();
        if total < self.min_calls {
            None
        } else if is_too_many(counts.failures, total, self.failure_rate) {
            Some(Cause::FailureRate)
        } else {
            is_too_many(counts.slow, total, self.slow_rate).then_some(Cause::SlowRate)
        }
    }

    /// Returns the verdict on the probes, as soon as the results still to come cannot change it.
    pub(super) fn verdict_on(&self, probes: Probes) -> Option<Cause> {
        // More than `probes` are judged if an update has lowered it.
        let all = self.probes.max(probes.judged());
        let to_come = all - probes.judged();
        let by_rate = self.verdict == Verdict::Rate;
        let fails = |failed| match by_rate {
            true => is_too_many(failed, all, self.failure_rate),
            false => failed > 0,
        };
        let is_slow = |slow| is_too_many(slow, all, self.slow_rate);
        if fails(probes.failed) {
            Some(Cause::ProbesFailed)
        } else if is_slow(probes.slow) {
            Some(Cause::ProbesSlow)
        } else if fails(probes.failed + to_come) || is_slow(probes.slow + to_come) {
            None
        } else {
            Some(Cause::ProbesSucceeded)
        }
    }

    /// Returns how long to open, for opening number `streak`, counted from 1. `asked` is how long
    /// the upstream wants not to be called, or 0 if it did not say.
    ///
    /// Times that a fleet has in common are spread. A fixed or an asked time is lengthened by up to
    /// a tenth, a growing one is drawn from its upper half. All stay below `max_open`: a time that
    /// would exceed it is drawn from the tenth below, so that circuits whose time is cut are not in
    /// step either.
    pub(super) fn open_time(&self, streak: u32, asked: u64, random: u64) -> u64 {
        if !self.growing {
            return self.spread(self.open_for.max(asked), random);
        }
        let most = self
            .open_for
            .saturating_mul(1 << streak.saturating_sub(1).min(31))
            .min(self.max_open);
        let own = if self.jitter {
            most - most / 2 + share_of(most / 2, random)
        } else {
            most
        };
        // Only the asked time may raise it: otherwise half of the fleet would meet at `most`.
        if asked == 0 {
            own
        } else {
            own.max(self.spread(asked, random))
        }
    }

    fn spread(&self, time: u64, random: u64) -> u64 {
        if !self.jitter {
            return time.min(self.max_open);
        }
        let time = time.min(self.max_open - self.max_open / 11);
        time + share_of(time / 10, random)
    }
}

impl SharedSettings {
    pub(super) fn new(settings: Settings) -> Self {
        Self(settings.words().map(AtomicU64::new))
    }

    pub(super) fn load(&self) -> Settings {
        Settings::from_words(std::array::from_fn(|index| {
            self.0[index].load(Ordering::Relaxed)
        }))
    }

    /// Returns whether slow calls are watched.
    pub(super) fn watches_slow(&self) -> bool {
        self.0[SLOW_RATE].load(Ordering::Relaxed) > 0
    }

    pub(super) fn store(&self, settings: Settings) {
        for (shared, word) in self.0.iter().zip(settings.words()) {
            shared.store(word, Ordering::Relaxed);
        }
    }
}

impl Settings {
    fn words(self) -> [u64; WORDS] {
        let flags = u64::from(self.cancelled_as_failure)
            | u64::from(self.growing) << 1
            | u64::from(self.jitter) << 2
            | u64::from(self.verdict == Verdict::Rate) << 3
            | u64::from(self.open_on_no_answer) << 4;
        [
            flags,
            self.min_calls,
            self.failure_rate,
            self.slow_rate,
            self.consecutive,
            self.open_for,
            self.max_open,
            self.probes,
            self.lease,
            self.ramp,
        ]
    }

    fn from_words(words: [u64; WORDS]) -> Self {
        let [
            flags,
            min_calls,
            failure_rate,
            slow_rate,
            consecutive,
            open_for,
            max_open,
            probes,
            lease,
            ramp,
        ] = words;
        let flag = |bit: u32| flags >> bit & 1 == 1;
        Self {
            min_calls,
            failure_rate,
            slow_rate,
            consecutive,
            cancelled_as_failure: flag(0),
            open_on_no_answer: flag(4),
            open_for,
            max_open,
            growing: flag(1),
            jitter: flag(2),
            probes,
            verdict: if flag(3) {
                Verdict::Rate
            } else {
                Verdict::AnyFailure
            },
            lease,
            ramp,
        }
    }
}

/// Returns whether `part` of `total` reaches a rate in parts per million. Never, if the rate is 0.
fn is_too_many(part: u64, total: u64, rate: u64) -> bool {
    rate > 0 && part > 0 && part.saturating_mul(MILLION) >= total.saturating_mul(rate)
}

const WORDS: usize = 10;
/// The place of `slow_rate` among the words.
const SLOW_RATE: usize = 3;
const MILLION: u64 = 1_000_000;
const MOST_CALLS: u32 = 1 << 20;
const MILLI: Duration = Duration::from_millis(1);
const TEN_MILLIS: Duration = Duration::from_millis(10);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_the_way_through_words() {
        let config = BreakerConfig {
            verdict: Verdict::Rate,
            growing: true,
            jitter: false,
            ..BreakerConfig::default()
        };
        let settings = Settings::new(&config).unwrap();
        let shared = SharedSettings::new(settings);
        assert_eq!(shared.load(), settings);
        assert!(!shared.watches_slow());
        shared.store(Settings {
            slow_rate: 1,
            ..settings
        });
        assert!(shared.watches_slow());
        let other = Settings {
            cancelled_as_failure: true,
            open_on_no_answer: false,
            jitter: true,
            verdict: Verdict::AnyFailure,
            ..settings
        };
        let shared = SharedSettings::new(settings);
        shared.store(other);
        assert_eq!(shared.load(), other);
    }

    #[test]
    fn a_growing_open_time_doubles_up_to_max_open() {
        let config = BreakerConfig {
            open_for: Duration::from_nanos(2_000_000),
            growing: true,
            max_open: Some(Duration::from_nanos(10_000_000)),
            ..BreakerConfig::default()
        };
        let settings = Settings::new(&config).unwrap();
        for (streak, most) in [(1, 2), (2, 4), (3, 8), (4, 10), (32, 10), (u32::MAX, 10)] {
            assert_eq!(settings.open_time(streak, 0, 0), most * 500_000);
            let longest = settings.open_time(streak, 0, u64::MAX);
            assert!((most * 999_000..=most * 1_000_000).contains(&longest));
        }
        let even = Settings {
            jitter: false,
            ..settings
        };
        assert_eq!(even.open_time(2, 0, 77), 4_000_000);
    }

    #[test]
    fn a_fixed_or_asked_time_gets_up_to_a_tenth_more() {
        let config = BreakerConfig {
            open_for: Duration::from_millis(10),
            max_open: Some(Duration::from_millis(100)),
            ..BreakerConfig::default()
        };
        let fixed = Settings::new(&config).unwrap();
        let growing = Settings {
            growing: true,
            ..fixed
        };
        let range = |settings: Settings, asked: u64| {
            [0, u64::MAX].map(|random| settings.open_time(1, asked * 1_000_000, random) / 100_000)
        };
        // In tenths of a millisecond.
        for (asked, expected) in [(0, [100, 109]), (5, [100, 109]), (50, [500, 549])] {
            assert_eq!(range(fixed, asked), expected, "{asked}");
        }
        assert_eq!(range(growing, 50), [500, 549]);
        assert_eq!(range(growing, 0), [50, 99]);
        // No time exceeds the maximum, and none is in step there.
        for settings in [fixed, growing] {
            for asked in [95, 100, 500] {
                assert_eq!(range(settings, asked), [909, 999], "{asked}");
            }
        }
    }
}
