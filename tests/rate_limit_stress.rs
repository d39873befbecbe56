//! Threads and real time: no window is over-admitted, and what is admitted comes to what was promised.
#![allow(clippy::disallowed_methods, reason = "real time is what is tested")]

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use tower_keep::algorithm::{Limit, Rate, SlidingLog, SlidingRing, TokenBucket};

const THREADS: usize = 4;
const SPAN: u64 = 300_000_000;

/// One test at a time: each wants all the cores.
static CORES: Mutex<()> = Mutex::new(());

/// The times given to the limit when it admitted a call of any of several threads, in order, each with the time after it.
fn hammered(limit: &dyn Limit) -> Vec<(u64, u64)> {
    let _alone = CORES.lock().unwrap_or_else(PoisonError::into_inner);
    let start = Instant::now();
    let read = || u64::try_from(start.elapsed().as_nanos()).unwrap();
    let mut admitted: Vec<_> = thread::scope(|scope| {
        let run = || {
            let mut admitted = Vec::new();
            loop {
                let now = read();
                if now > SPAN {
                    return admitted;
                }
                if limit.acquire(1, now).is_ok() {
                    admitted.push((now, read()));
                }
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    admitted.sort_unstable();
    admitted
}

/// The most in any window of that length, by the times that were given.
fn most_within(times: &[(u64, u64)], window: u64) -> usize {
    let mut first = 0;
    let count = |(last, (time, _)): (usize, &(u64, u64))| {
        while times[first].0 + window <= *time {
            first += 1;
        }
        last + 1 - first
    };
    times.iter().enumerate().map(count).max().unwrap_or(0)
}

/// The most that certainly fell into a window of that length: given after its start, and admitted before its end.
fn most_surely_within(times: &[(u64, u64)], window: u64) -> usize {
    let within = |start: u64| times.iter().filter(|(given, after)| *given >= start && *after < start + window).count();
    (0..SPAN).step_by(500_000).map(within).max().unwrap_or(0)
}

#[test]
fn a_token_bucket_under_contention_admits_all_that_it_promises_and_no_more_in_any_window() {
    // given
    // A burst of 200 ms: no pause in which the machine runs other things lets it fill up.
    let (rate, burst) = (500_000, 100_000);
    let bucket = TokenBucket::new(Rate::per_second(rate), burst).unwrap();
    // when
    let times = hammered(&bucket);
    // then
    for window in [1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, SPAN] {
        // A thread that read the clock and was stopped is admitted as of then, which can only take from later ones.
        let bound = u64::from(burst) + window * rate / 1_000_000_000 + 1;
        let most = most_within(&times, window) as u64;
        assert!(most <= bound, "{most} in {window} ns, more than {bound}");
    }
    let ideal = u64::from(burst) + SPAN * rate / 1_000_000_000;
    assert!(times.len() as u64 * 100 >= ideal * 99, "{} of {ideal}", times.len());
}

#[test]
fn a_log_and_a_ring_under_contention_never_pass_their_count() {
    let (count, window) = (2000, 20_000_000);
    let rate = Rate::new(count, std::time::Duration::from_nanos(window));
    let log = hammered(&SlidingLog::new(rate).unwrap());
    assert!(most_within(&log, window) as u64 <= count);
    let ring = hammered(&SlidingRing::new(rate, 10).unwrap());
    // It counts a call whose thread was stopped after it read the clock when it comes, not when it was given.
    assert!(most_surely_within(&ring, window) as u64 <= count);
    assert!(ring.len() as u64 > count * 10);
}
