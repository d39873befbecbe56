//! The times of a run at which a fault is active, and their shares.

use std::{ops::Range, time::Duration};

use crate::{
    ConfigError,
    ambient::clock::nanos,
    config::{nanos_within, number_within},
};

/// A timeline as it is set. All times count from the start of the run.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    pub(super) share: f64,
    pub(super) later: Vec<(Duration, f64)>,
    pub(super) windows: Vec<Range<Duration>>,
    pub(super) bursts: Option<(Duration, Duration)>,
}

/// A valid timeline, in nanoseconds.
#[derive(Debug)]
pub(super) struct Schedule {
    /// The shares, each with the time from which it applies, in order. The first applies from 0.
    shares: Vec<(u64, f64)>,
    /// The windows. If empty, the fault is always active.
    windows: Vec<(u64, u64)>,
    /// The time between two starts of bursts, and the length of one.
    bursts: Option<(u64, u64)>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            share: 1.0,
            later: Vec::new(),
            windows: Vec::new(),
            bursts: None,
        }
    }
}

impl Timeline {
    pub(super) fn checked(self) -> Result<Schedule, ConfigError> {
        let mut shares = vec![(0, share(self.share)?)];
        for (from, later) in self.later {
            shares.push((nanos(from), share(later)?));
        }
        shares.sort_by_key(|(from, _)| *from);
        let mut windows = Vec::new();
        for Range { start, end } in self.windows {
            if start >= end {
                let fix = "end after the beginning, such as `secs(10)..secs(20)`";
                return Err(ConfigError::new("during", start..end, fix));
            }
            windows.push((nanos(start), nanos(end)));
        }
        let bursts = self.bursts.map(|(every, lasting)| {
            let some = Duration::from_nanos(1);
            let longest = Duration::from_nanos(u64::MAX);
            let fix = "let some time be between the beginnings of two bursts";
            let every = every.min(longest);
            let apart = nanos_within("bursts", every, some..=longest, fix)?;
            let fix = "let a burst last for some time, and end before the next";
            Ok((apart, nanos_within("bursts", lasting, some..=every, fix)?))
        });
        Ok(Schedule {
            shares,
            windows,
            bursts: bursts.transpose()?,
        })
    }
}

impl Schedule {
    /// Returns the share of the calls that is hit at this time after the start.
    pub(super) fn share_at(&self, elapsed: u64) -> f64 {
        if !self.in_window(elapsed) || !self.in_burst(elapsed) {
            return 0.0;
        }
        let begun = self.shares.iter().rev().find(|(from, _)| *from <= elapsed);
        begun.map_or(0.0, |(_, share)| *share)
    }

    /// Returns when a fault ends that is active at this time. Both count from the start.
    pub(super) fn over_at(&self, elapsed: u64) -> u64 {
        let windows = self.windows.iter().filter(|window| holds(window, elapsed));
        let window = windows.map(|(_, end)| *end).max();
        let burst = self.bursts.map(|(every, lasting)| {
            let began = elapsed - elapsed % every;
            began.saturating_add(lasting)
        });
        let mut later = self.shares.iter().filter(|(from, _)| *from > elapsed);
        let none = later.find(|(_, share)| *share == 0.0);
        let ends = window.into_iter().chain(burst);
        let ends = ends.chain(none.map(|(from, _)| *from));
        ends.min().unwrap_or(u64::MAX)
    }

    fn in_window(&self, elapsed: u64) -> bool {
        self.windows.is_empty() || self.windows.iter().any(|window| holds(window, elapsed))
    }

    fn in_burst(&self, elapsed: u64) -> bool {
        self.bursts
            .is_none_or(|(every, lasting)| elapsed % every < lasting)
    }
}

fn holds((start, end): &(u64, u64), elapsed: u64) -> bool {
    (*start..*end).contains(&elapsed)
}

pub(super) fn share(share: f64) -> Result<f64, ConfigError> {
    let fix = "set a share between 0 and 1";
    number_within("share", share, |share| (0.0..=1.0).contains(&share), fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECS: fn(u64) -> Duration = Duration::from_secs;

    fn at(schedule: &Schedule, seconds: u64) -> f64 {
        schedule.share_at(nanos(SECS(seconds)))
    }

    #[test]
    fn a_fault_without_times_is_always_there() {
        let schedule = Timeline::default().checked().unwrap();
        assert_eq!((at(&schedule, 0), at(&schedule, 1 << 40)), (1.0, 1.0));
        assert_eq!(schedule.over_at(5), u64::MAX);
    }

    #[test]
    fn shares_change_in_windows_and_bursts() {
        let schedule = Timeline {
            share: 0.1,
            later: vec![(SECS(30), 0.4), (SECS(15), 0.2)],
            windows: vec![SECS(10)..SECS(20), SECS(18)..SECS(40)],
            bursts: Some((SECS(5), SECS(2))),
        };
        let schedule = schedule.checked().unwrap();
        let shares = [0, 9, 10, 11, 12, 15, 18, 30, 31, 33, 40].map(|second| at(&schedule, second));
        let expected = [0.0, 0.0, 0.1, 0.1, 0.0, 0.2, 0.0, 0.4, 0.4, 0.0, 0.0];
        assert_eq!(shares, expected);
        assert_eq!(schedule.over_at(nanos(SECS(11))), nanos(SECS(12)));
    }

    #[test]
    fn a_fault_is_over_when_its_time_is() {
        let windows = vec![SECS(0)..SECS(9), SECS(1)..SECS(2)];
        let timeline = Timeline {
            windows,
            ..Timeline::default()
        };
        let schedule = timeline.checked().unwrap();
        assert_eq!(schedule.over_at(nanos(SECS(1))), nanos(SECS(9)));
        let later = vec![(SECS(3), 0.5), (SECS(5), 0.0), (SECS(7), 1.0)];
        let timeline = Timeline {
            later,
            ..Timeline::default()
        };
        let schedule = timeline.checked().unwrap();
        assert_eq!(schedule.over_at(nanos(SECS(1))), nanos(SECS(5)));
        assert_eq!(schedule.over_at(nanos(SECS(7))), u64::MAX);
    }

    #[test]
    fn times_and_shares_that_cannot_be_are_errors() {
        let error = |timeline: Timeline| timeline.checked().unwrap_err().field;
        let default = Timeline::default;
        for share in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(error(Timeline { share, ..default() }), "share");
            let later = vec![(SECS(1), share)];
            assert_eq!(error(Timeline { later, ..default() }), "share");
        }
        let windows = vec![SECS(2)..SECS(2)];
        assert_eq!(
            error(Timeline {
                windows,
                ..default()
            }),
            "during"
        );
        for (every, lasting) in [(0, 0), (0, 1), (1, 0), (1, 2)] {
            let bursts = Some((SECS(every), SECS(lasting)));
            assert_eq!(
                error(Timeline {
                    bursts,
                    ..default()
                }),
                "bursts"
            );
        }
        let bursts = Some((Duration::MAX, SECS(1)));
        let schedule = Timeline {
            bursts,
            ..default()
        }
        .checked()
        .unwrap();
        assert_eq!((at(&schedule, 0), at(&schedule, 1)), (1.0, 0.0));
    }
}
