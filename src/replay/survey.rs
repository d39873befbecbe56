//! The survey of a log: the source of the candidates, and the data to judge them.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
    time::Duration,
};

use crate::{
    algorithm::statistics::whole,
    replay::{
        call::{Call, End},
        histogram::Histogram,
        incidents::{Incident, find},
        moments::{DAY_NANOS, SECOND},
        sorted::Calls,
        tally::Half,
    },
};

/// The content of a log, from one pass over it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Survey {
    /// The start of the first call, in nanoseconds since 1970.
    pub first: u64,
    /// The end of the last call, in nanoseconds since 1970.
    pub last: u64,
    /// The calls by their end.
    pub ends: Vec<(End, u64)>,
    /// All calls.
    pub calls: u64,
    /// The units that all calls cost.
    pub cost: u64,
    /// The days, in UTC, on which there were calls.
    pub days: u64,
    /// The minutes in which there were calls.
    pub active_minutes: u64,
    /// The largest cost within one second.
    pub peak_second: u64,
    /// The durations of good answers.
    pub good: Histogram,
    /// The same for each day since 1970 that has any.
    pub(super) good_by_day: Vec<(u64, Histogram)>,
    /// The durations of failures and overloads.
    pub bad: Histogram,
    /// The number of calls by how many were in flight at their start, themselves included.
    pub in_flight: Vec<u64>,
    /// The mean number of calls in flight, by Little's law: rate times duration.
    pub mean_in_flight: f64,
    /// The same number in the busiest minute.
    pub peak_in_flight: f64,
    /// The failures of each host, and its incidents.
    pub hosts: Vec<HostSurvey>,
    /// The units of each key, the largest first.
    pub keys: Vec<(u64, u64)>,
    /// The calls with a time of whole seconds.
    pub coarse: u64,
}

/// The content of a log for one host.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HostSurvey {
    /// The hash of its name.
    pub host: u32,
    /// The calls that it answered.
    pub calls: u64,
    /// The share of bad answers outside incidents.
    pub base_rate: f64,
    /// The times in which it failed unusually often.
    pub incidents: Vec<Incident>,
    /// The calls of each second that had any, and the bad ones.
    pub(super) seconds: Vec<(u64, u32, u32)>,
}

impl Survey {
    /// Surveys all calls.
    ///
    /// # Errors
    /// Temporary files fail.
    pub fn of(calls: &Calls) -> io::Result<Self> {
        let mut surveyor = Surveyor::default();
        calls.each(&mut |call| surveyor.see(call))?;
        Ok(surveyor.finish())
    }

    /// Returns the time that the log covers, at least a second.
    #[must_use]
    pub fn span(&self) -> Duration {
        Duration::from_nanos(self.last.saturating_sub(self.first).max(SECOND))
    }

    /// Returns the time with calls, in whole minutes, because some services are idle at night.
    #[must_use]
    pub fn active(&self) -> Duration {
        let minutes = Duration::from_secs(self.active_minutes.saturating_mul(60));
        minutes.clamp(Duration::from_secs(1), self.span())
    }

    /// Returns the weeks, as a fraction.
    pub(super) fn weeks(&self) -> f64 {
        self.span().as_secs_f64() / WEEK
    }

    /// Returns the calls per second, as the mean over the active time.
    #[must_use]
    pub fn mean_rate(&self) -> f64 {
        self.calls as f64 / self.active().as_secs_f64()
    }

    /// Returns the durations of good answers of each day in a half of the log.
    pub(super) fn good_of(&self, half: Half) -> Vec<&Histogram> {
        let days = self.good_by_day.iter();
        let days = days.filter(|(day, _)| half.has(*day));
        days.map(|(_, good)| good).collect()
    }

    /// Returns the calls with this end.
    #[must_use]
    pub fn of_end(&self, end: End) -> u64 {
        let found = self.ends.iter().find(|(one, _)| *one == end);
        found.map_or(0, |(_, count)| *count)
    }

    /// Returns the most calls in flight that this share of calls met, themselves included.
    #[must_use]
    pub fn in_flight_at(&self, share: f64) -> u64 {
        let total: u64 = self.in_flight.iter().sum();
        let wanted = whole((share * total as f64).ceil()).max(1);
        let mut below = 0;
        let found = self.in_flight.iter().position(|count| {
            below += count;
            below >= wanted
        });
        found.map_or(0, |place| place as u64)
    }

    /// Returns the most calls in flight.
    #[must_use]
    pub fn most_in_flight(&self) -> u64 {
        self.in_flight.len().saturating_sub(1) as u64
    }

    /// Returns the share of bad answers outside incidents, of all hosts.
    #[must_use]
    pub fn base_rate(&self) -> f64 {
        let calls: u64 = self.hosts.iter().map(|host| host.calls).sum();
        let bad: f64 = self
            .hosts
            .iter()
            .map(|host| host.base_rate * host.calls as f64)
            .sum();
        if calls == 0 { 0.0 } else { bad / calls as f64 }
    }
}

#[derive(Default)]
struct Surveyor {
    survey: Option<Survey>,
    second: (u64, u64),
    minute: (u64, f64),
    busy: f64,
    day: Option<u64>,
    last_minute: Option<u64>,
    /// The ends of calls in flight.
    running: BinaryHeap<Reverse<u64>>,
    ends: HashMap<End, u64>,
    hosts: HashMap<u32, Vec<(u64, u32, u32)>>,
    keys: HashMap<u64, u64>,
}

impl Surveyor {
    fn see(&mut self, call: &Call) {
        let survey = self
            .survey
            .get_or_insert_with(|| Survey::beginning(call.start));
        survey.calls += 1;
        survey.cost += u64::from(call.cost);
        survey.last = survey.last.max(call.ended());
        survey.coarse += u64::from(call.is_coarse);
        *self.ends.entry(call.end).or_default() += 1;
        let day = call.start / DAY_NANOS;
        if self.day != Some(day) {
            self.day = Some(day);
            survey.days += 1;
        }
        let minute = call.start / (60 * SECOND);
        if self.last_minute != Some(minute) {
            self.last_minute = Some(minute);
            survey.active_minutes += 1;
        }
        let second = call.start / SECOND;
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += u64::from(call.cost);
        survey.peak_second = survey.peak_second.max(self.second.1);
        match call.end {
            End::Success => survey.succeeded(day, call.duration),
            End::Failure | End::Overload => survey.bad.record(call.duration),
            End::Cancelled | End::Rejected => {}
        }
        if call.key != 0 && (self.keys.len() < KEYS || self.keys.contains_key(&call.key)) {
            *self.keys.entry(call.key).or_default() += u64::from(call.cost);
        }
        if call.end != End::Rejected {
            self.see_in_flight(call);
        }
        if call.is_good() || call.is_bad() {
            self.see_host(call, second);
        }
    }

    fn see_in_flight(&mut self, call: &Call) {
        let Some(survey) = &mut self.survey else {
            return;
        };
        while self.running.peek().is_some_and(|end| end.0 <= call.start) {
            self.running.pop();
        }
        self.running.push(Reverse(call.ended()));
        let count = self.running.len().min(MOST);
        if survey.in_flight.len() <= count {
            survey.in_flight.resize(count + 1, 0);
        }
        survey.in_flight[count] += 1;
        let seconds = call.duration as f64 / 1e9;
        self.busy += seconds;
        let minute = call.start / (60 * SECOND);
        if self.minute.0 != minute {
            self.minute = (minute, 0.0);
        }
        self.minute.1 += seconds;
        survey.peak_in_flight = survey.peak_in_flight.max(self.minute.1 / 60.0);
    }

    fn see_host(&mut self, call: &Call, second: u64) {
        // Beyond the maximum number of hosts, the others count as one.
        let is_known = self.hosts.len() < HOSTS || self.hosts.contains_key(&call.host);
        let host = if is_known { call.host } else { 0 };
        let seconds = self.hosts.entry(host).or_default();
        let bad = u32::from(call.is_bad());
        match seconds.last_mut() {
            Some(last) if last.0 == second => {
                last.1 += 1;
                last.2 += bad;
            }
            _ => seconds.push((second, 1, bad)),
        }
    }

    fn finish(self) -> Survey {
        let Some(mut survey) = self.survey else {
            return Survey::beginning(0);
        };
        survey.ends = End::ALL
            .into_iter()
            .filter_map(|end| Some((end, *self.ends.get(&end)?)))
            .collect();
        survey.good = survey.good_by_day.iter().map(|(_, good)| good).collect();
        survey.mean_in_flight = self.busy / survey.active().as_secs_f64();
        survey.keys = self.keys.into_iter().collect();
        survey
            .keys
            .sort_by_key(|(key, cost)| (Reverse(*cost), *key));
        let hosts = self.hosts.into_iter();
        survey.hosts = hosts
            .map(|(host, seconds)| HostSurvey::of(host, seconds))
            .collect();
        survey
            .hosts
            .sort_by_key(|host| (Reverse(host.calls), host.host));
        survey
    }
}

impl Survey {
    /// Records a good answer. Calls arrive nearly in order.
    fn succeeded(&mut self, day: u64, nanos: u64) {
        match self.good_by_day.last_mut() {
            Some((last, good)) if *last >= day => good.record(nanos),
            _ => {
                let mut good = Histogram::default();
                good.record(nanos);
                self.good_by_day.push((day, good));
            }
        }
    }

    fn beginning(first: u64) -> Self {
        Self {
            first,
            last: first,
            ends: Vec::new(),
            calls: 0,
            cost: 0,
            days: 0,
            active_minutes: 0,
            peak_second: 0,
            good: Histogram::default(),
            good_by_day: Vec::new(),
            bad: Histogram::default(),
            in_flight: Vec::new(),
            mean_in_flight: 0.0,
            peak_in_flight: 0.0,
            hosts: Vec::new(),
            keys: Vec::new(),
            coarse: 0,
        }
    }
}

impl HostSurvey {
    fn of(host: u32, seconds: Vec<(u64, u32, u32)>) -> Self {
        let (base_rate, incidents) = find(&seconds);
        Self {
            host,
            calls: seconds.iter().map(|(_, calls, _)| u64::from(*calls)).sum(),
            base_rate,
            incidents,
            seconds,
        }
    }

    /// Returns the incident at this time, or one that ended at most `grace` before it.
    pub(super) fn incident_at(&self, at: u64, grace: u64) -> Option<usize> {
        self.incidents
            .iter()
            .position(|incident| incident.from <= at && at < incident.to.saturating_add(grace))
    }
}

const WEEK: f64 = 7.0 * 86_400.0;
/// The maximum counted calls in flight: more count as this many.
const MOST: usize = 1 << 20;
const HOSTS: usize = 256;
const KEYS: usize = 1 << 20;
