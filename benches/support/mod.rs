//! The same work on one thread or on many.

use std::{
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// The thread counts of every contended bench.
pub(crate) const THREADS: [usize; 4] = [1, 2, 4, 8];

/// How long `threads` threads take for `iterations` calls each. Each makes its own worker on its
/// own thread.
#[allow(clippy::disallowed_methods, reason = "a bench reads the time")]
pub(crate) fn on_threads<W, T>(
    threads: usize,
    iterations: u64,
    worker: impl Fn() -> W + Sync,
) -> Duration
where
    W: FnMut() -> T,
{
    let barrier = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut call = worker();
                    black_box(call());
                    barrier.wait();
                    let start = Instant::now();
                    for _ in 0..iterations {
                        black_box(call());
                    }
                    start.elapsed()
                })
            })
            .collect();
        barrier.wait();
        handles
            .into_iter()
            .map(|handle| handle.join().expect("a worker panicked"))
            .max()
            .unwrap_or_default()
    })
}
