//! Threads and real time: no window is over-admitted, and what is admitted comes to what was
//! promised.
//!
//! What was promised is what a plain model admits of the very same calls, taken in the order of
//! their times. So it does not matter when the machine runs other things: a pause takes as many
//! calls from the model as from the limit. An executable of its own all the same: a thread that is
//! stopped with a unit claimed holds the others up.
#![allow(clippy::disallowed_methods, reason = "real time is what is tested")]

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tower_keep::algorithm::{
    All, KeyedBuckets, LeakyBucket, Limit, Overflow, Rate, SlidingCounter, SlidingLog, SlidingRing,
    TokenBucket,
};

const THREADS: usize = 4;
const SPAN: u64 = 300 * MILLI;
const MILLI: u64 = 1_000_000;
/// The models see a call as of the last multiple of this. Where it matters, windows and intervals
/// are multiples too, so that a model admits no later for it.
const GRID: u64 = 10_000;

/// One test at a time: each wants all the cores.
static CORES: Mutex<()> = Mutex::new(());

/// What calls came, and which were admitted.
struct Run {
    /// The time given with each admitted call, in order, and the time after it.
    admitted: Vec<(u64, u64)>,
    /// How many calls were given each time.
    calls: Vec<u32>,
}

impl Run {
    fn new() -> Self {
        Self {
            admitted: Vec::new(),
            calls: vec![0; usize::try_from(SPAN / GRID + 1).unwrap()],
        }
    }

    fn call(&mut self, now: u64, read: impl Fn() -> u64, acquire: impl FnOnce() -> bool) {
        self.calls[usize::try_from(now / GRID).unwrap()] += 1;
        if acquire() {
            self.admitted.push((now, read()));
        }
    }

    fn sum(runs: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = runs.into_iter().fold(Self::new(), |mut sum, run| {
            sum.admitted.extend(run.admitted);
            sum.calls
                .iter_mut()
                .zip(run.calls)
                .for_each(|(sum, calls)| *sum += calls);
            sum
        });
        sum.admitted.sort_unstable();
        sum
    }

    /// How many of the calls `fits` admits, if they come in order.
    fn ideal(&self, mut fits: impl FnMut(u64) -> bool) -> usize {
        let at = |(calls, now): (&u32, u64)| (0..*calls).take_while(|_| fits(now)).count();
        self.calls
            .iter()
            .zip((0..).step_by(usize::try_from(GRID).unwrap()))
            .map(at)
            .sum()
    }

    fn assert_reaches(&self, fits: impl FnMut(u64) -> bool) {
        let (admitted, ideal) = (self.admitted.len(), self.ideal(fits));
        assert!(admitted * 100 >= ideal * 99, "{admitted} of {ideal}");
    }

    fn assert_within(&self, bound: impl Fn(u64) -> u64) {
        for window in [
            1000,
            10_000,
            100_000,
            MILLI,
            10 * MILLI,
            50 * MILLI,
            100 * MILLI,
            SPAN,
        ] {
            let (most, bound) = (self.most_within(window), bound(window));
            assert!(most <= bound, "{most} in {window} ns, more than {bound}");
        }
    }

    /// The most in any window of that length, by the times that were given.
    fn most_within(&self, window: u64) -> u64 {
        let mut first = 0;
        let count = |(last, (time, _)): (usize, &(u64, u64))| {
            while self.admitted[first].0 + window <= *time {
                first += 1;
            }
            last + 1 - first
        };
        self.admitted
            .iter()
            .enumerate()
            .map(count)
            .max()
            .unwrap_or(0) as u64
    }

    /// The most that certainly fell into a window of that length: given after its start, and
    /// admitted before its end.
    fn most_surely_within(&self, window: u64) -> u64 {
        let surely = |start: u64| {
            self.admitted
                .iter()
                .filter(move |(given, after)| *given >= start && *after < start + window)
        };
        (0..SPAN)
            .step_by(500_000)
            .map(|start| surely(start).count())
            .max()
            .unwrap_or(0) as u64
    }
}

/// What each thread makes of its number and a clock.
fn on_threads<T: Send>(work: impl Fn(usize, &dyn Fn() -> u64) -> T + Sync) -> Vec<T> {
    let _alone = CORES.lock().unwrap_or_else(PoisonError::into_inner);
    let start = Instant::now();
    let read = move || u64::try_from(start.elapsed().as_nanos()).unwrap();
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..THREADS)
            .map(|number| scope.spawn(move || work(number, &read)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// Threads that call as fast as they can.
fn hammered(limit: &dyn Limit) -> Run {
    Run::sum(on_threads(|_, read| {
        let mut run = Run::new();
        loop {
            let now = read();
            if now > SPAN {
                return run;
            }
            run.call(now, read, || limit.acquire(1, now).is_ok());
        }
    }))
}

/// `count` tokens, one of which comes back in each `interval`.
fn bucket(interval: u64, count: u64) -> impl FnMut(u64) -> bool {
    let mut full = 0;
    move |now| {
        let after = now.max(full) + interval;
        let fits = after <= now + count * interval;
        full = if fits { after } else { full };
        fits
    }
}

/// The times of the units in the window.
fn list(count: u64, window: u64) -> impl FnMut(u64) -> bool {
    let mut times = VecDeque::new();
    move |now| {
        while times.front().is_some_and(|time| time + window <= now) {
            times.pop_front();
        }
        let fits = (times.len() as u64) < count;
        times.extend(fits.then_some(now));
        fits
    }
}

/// The counts of a fixed window and of the one before, of which the share that still overlaps the
/// sliding one counts.
fn two_windows(count: u64, window: u64) -> impl FnMut(u64) -> bool {
    let (mut epoch, mut previous, mut current) = (0, 0, 0);
    move |now| {
        while epoch < now / window {
            (epoch, previous, current) = (epoch + 1, current, 0);
        }
        let fits = previous * (window - now % window) + (current + 1) * window <= count * window;
        current += u64::from(fits);
        fits
    }
}

/// One each `interval`; a late one lets the next come as much earlier, by at most `slack`.
fn spaced(interval: u64, slack: u64) -> impl FnMut(u64) -> bool {
    let mut next = 0;
    move |now| {
        let fits = next <= now;
        next = if fits {
            next.max(now.saturating_sub(slack)) + interval
        } else {
            next
        };
        fits
    }
}

fn window_of(count: u64, window: u64) -> Rate {
    Rate::new(count, Duration::from_nanos(window))
}

#[test]
fn a_token_bucket_keeps_its_rate_and_its_bound() {
    // given
    let (interval, burst) = (2000, 100_000);
    let limit = TokenBucket::new(window_of(1, interval), 100_000).unwrap();
    // when
    let run = hammered(&limit);
    // then A thread that read the clock and was stopped is admitted as of then, which can only take
    // from later ones.
    run.assert_within(|window| burst + window / interval + 1);
    run.assert_reaches(bucket(interval, burst));
}

#[test]
fn a_log_admits_its_count_in_each_window_and_no_more() {
    let (count, window) = (20_000, 50 * MILLI);
    let run = hammered(&SlidingLog::new(window_of(count, window)).unwrap());
    assert!(run.most_within(window) <= count);
    run.assert_reaches(list(count, window));
}

#[test]
fn a_ring_equals_a_log_of_a_window_one_part_longer() {
    // given
    let (count, window, parts) = (20_000, 50 * MILLI, 10);
    // when
    let run = hammered(&SlidingRing::new(window_of(count, window), parts).unwrap());
    // then It counts a call whose thread was stopped after it read the clock when it comes, not
    // when it was given.
    assert!(run.most_surely_within(window) <= count);
    // Each unit comes back when all of its part has left the window: up to a part late, and no
    // later.
    run.assert_reaches(list(count, window + window / u64::from(parts)));
}

#[test]
fn a_counter_admits_its_share_never_twice_its_count() {
    let (count, window) = (20_000, 50 * MILLI);
    let run = hammered(&SlidingCounter::new(window_of(count, window)).unwrap());
    assert!(run.most_within(window) < 2 * count);
    run.assert_reaches(two_windows(count, window));
}

#[test]
fn a_leaky_bucket_spaces_calls_and_keeps_its_rate() {
    for (interval, slack) in [(100_000, 0), (1000, MILLI)] {
        let limit = LeakyBucket::new(window_of(1, interval), Duration::from_nanos(slack)).unwrap();
        let run = hammered(&limit);
        run.assert_within(|window| 1 + (window + slack) / interval);
        run.assert_reaches(spaced(interval, slack));
    }
}

/// A reservation, by the clock.
struct Reserved {
    given: u64,
    departs: u64,
    after: u64,
}

#[test]
fn a_shaper_releases_one_call_an_interval_in_order() {
    // given
    let (interval, longest) = (GRID, 100 * MILLI);
    let shaper = LeakyBucket::new(window_of(1, interval), Duration::ZERO).unwrap();
    // when
    let threads = on_threads(|_, read| {
        let (mut run, mut reserved) = (Run::new(), Vec::new());
        loop {
            let given = read();
            if given > SPAN {
                return (run, reserved);
            }
            let departure = shaper.reserve(1, Duration::from_nanos(longest), given);
            run.call(given, read, || departure.is_ok());
            if let Ok(departure) = departure {
                let wait = u64::try_from(departure.wait.as_nanos()).unwrap();
                assert!(wait <= longest);
                reserved.push(Reserved {
                    given,
                    departs: given + wait,
                    after: read(),
                });
            }
        }
    });
    // then
    let (runs, reserved): (Vec<_>, Vec<_>) = threads.into_iter().unzip();
    let mut reserved: Vec<_> = reserved.into_iter().flatten().collect();
    reserved.sort_by_key(|call| call.departs);
    for pair in reserved.windows(2) {
        let (gap, waits) = (
            pair[1].departs - pair[0].departs,
            pair[1].departs > pair[1].given,
        );
        // Further apart only if nobody was waiting: no departure is lost to a race.
        assert!(gap == interval || gap > interval && !waits, "{gap}");
    }
    let mut latest = 0;
    for call in &reserved {
        latest = call.given.max(latest);
        assert!(
            call.after >= latest,
            "it had reserved before one that leaves earlier had come"
        );
    }
    Run::sum(runs).assert_reaches({
        let mut next = 0;
        move |now| {
            let fits = next <= now + longest;
            next = if fits { next.max(now) + interval } else { next };
            fits
        }
    });
}

#[test]
fn each_key_of_many_gets_exactly_its_own_limit() {
    // given
    const KEYS: u64 = 50;
    let (interval, burst) = (200_000, 1000);
    let table = KeyedBuckets::new(window_of(1, interval), 1000, 1000, Overflow::Reject).unwrap();
    let hash = |key: usize| {
        (key as u64 + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
            .wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    // when
    let threads = on_threads(|thread, read| {
        let mut runs: Vec<_> = (0..KEYS).map(|_| Run::new()).collect();
        // Each thread goes round in another order, so that any two meet on any key.
        for step in (0..).map(|step: usize| step * [1, 3, 7, 9][thread]) {
            let (now, key) = (read(), step % runs.len());
            if now > SPAN {
                break;
            }
            runs[key].call(now, read, || table.acquire(hash(key), 1, now).is_ok());
        }
        runs.into_iter()
    });
    // then
    let mut threads = threads;
    for _ in 0..KEYS {
        let run = Run::sum(threads.iter_mut().map(|runs| runs.next().unwrap()));
        run.assert_within(|window| burst + window / interval + 1);
        run.assert_reaches(bucket(interval, burst));
    }
}

#[test]
fn two_limits_admit_what_the_tighter_does() {
    // given: a window that allows less in the long run, and a bucket that allows less at once. Each
    // is first in turn.
    let (count, window) = (20_000, 50 * MILLI);
    let (interval, burst) = (1250, 1000);
    let log = || SlidingLog::new(window_of(count, window)).unwrap();
    let tokens = || TokenBucket::new(window_of(1, interval), 1000).unwrap();
    for all in [All::new(log()).and(tokens()), All::new(tokens()).and(log())] {
        // when
        let run = hammered(&all);
        // then
        assert!(run.most_within(window) <= count);
        run.assert_within(|window| burst + window / interval + 1);
        let (mut times, mut full) = (VecDeque::new(), 0);
        run.assert_reaches(|now| {
            while times.front().is_some_and(|time| time + window <= now) {
                times.pop_front();
            }
            let after = now.max(full) + interval;
            let fits = (times.len() as u64) < count && after <= now + burst * interval;
            if fits {
                times.push_back(now);
                full = after;
            }
            fits
        });
    }
}

#[test]
fn two_windows_admit_what_the_tighter_does() {
    // given: the short one allows twice as much in the long run. Not so short that a thread could
    // be stopped for all of it: with a unit claimed and not published, it would hold the others up.
    let (long, short) = ((20_000, 50 * MILLI), (12_000, 15 * MILLI));
    let log = |(count, window)| SlidingLog::new(window_of(count, window)).unwrap();
    for all in [
        All::new(log(long)).and(log(short)),
        All::new(log(short)).and(log(long)),
    ] {
        // when
        let run = hammered(&all);
        // then
        assert!(run.most_within(long.1) <= long.0 && run.most_within(short.1) <= short.0);
        let mut times = VecDeque::new();
        run.assert_reaches(|now| {
            while times.front().is_some_and(|time| time + long.1 <= now) {
                times.pop_front();
            }
            let recent = times.len() - times.partition_point(|time| time + short.1 <= now);
            let fits = (times.len() as u64) < long.0 && (recent as u64) < short.0;
            times.extend(fits.then_some(now));
            fits
        });
    }
}
