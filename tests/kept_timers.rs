//! Timers that outlive their calls. Alone in its process, since it makes runtimes by the thousand.
#![cfg(feature = "layers")]
#![expect(
    clippy::disallowed_methods,
    reason = "a multi-threaded runtime has no other clock than the machine's"
)]

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::{LocalSet, block_in_place, yield_now},
    time::Instant,
};
use tower::{BoxError, Layer, ServiceExt, service_fn};

use tower_keep::{Rejected, RejectedKind, timeout::TimeoutLayer};

type Answer = Result<(), BoxError>;
type Call = Pin<Box<dyn Future<Output = Answer> + Send>>;

fn runtime(workers: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(workers).enable_time();
    builder.build().unwrap()
}

/// A call that waits as often as it says, or for ever, within a time.
fn call(time: Duration, waits: Option<u32>) -> Call {
    let layer = TimeoutLayer::builder(time).build().unwrap();
    let inner = service_fn(move |()| async move {
        match waits {
            Some(times) => {
                for _ in 0..times {
                    yield_now().await;
                }
            }
            None => std::future::pending().await,
        }
        Ok::<_, BoxError>(())
    });
    Box::pin(layer.layer(inner).oneshot(()))
}

fn ended(time: Duration) -> Call {
    call(time, Some(2))
}

/// Waits for a call that ends soon; on a loaded machine a short time may be up all the same.
async fn end(time: Duration) {
    let _ = ended(time).await;
}

fn hung(time: Duration) -> Call {
    call(time, None)
}

fn is_timed_out(answer: &Answer) -> bool {
    let Err(error) = answer else { return false };
    Rejected::find(&**error).unwrap().kind == RejectedKind::TimedOut
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

struct Task;

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn ten_thousand_runtimes_time_their_calls_out() {
    for number in 0..10_000 {
        let runtime = runtime(1);
        runtime.block_on(async {
            ended(millis(20_000)).await.unwrap();
            if number % 100 == 0 {
                assert!(is_timed_out(&hung(millis(1)).await));
            }
        });
        runtime.shutdown_background();
    }
}

#[test]
fn an_ended_call_keeps_no_task_alive() {
    let runtime = runtime(1);
    let _entered = runtime.enter();
    for _ in 0..3 {
        let task = Arc::new(Task);
        let waker = Waker::from(task.clone());
        let mut call = hung(millis(10_000));
        for _ in 0..2 {
            let polled = call.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        drop(waker);
        assert!(Arc::strong_count(&task) > 1, "the timer wakes nobody");
        drop(call);
        assert_eq!(Arc::strong_count(&task), 1);
    }
}

#[test]
fn a_kept_timer_fires_for_the_next_call() {
    runtime(2).block_on(async {
        for (first, second) in [(20, 20), (10_000, 10), (5, 40)] {
            end(millis(first)).await;
            let started = Instant::now();
            assert!(is_timed_out(&hung(millis(second)).await));
            let took = started.elapsed();
            assert!(took >= millis(second), "{second} ms ended after {took:?}");
            assert!(took < millis(5000), "{second} ms ended after {took:?}");
        }
    });
}

#[test]
fn a_timer_that_fired_in_the_pool_is_not_taken() {
    runtime(1).block_on(async {
        for _ in 0..20 {
            end(millis(1)).await;
            assert!(is_timed_out(&hung(millis(3)).await));
            assert!(is_timed_out(&hung(millis(1)).await));
        }
    });
}

#[test]
fn a_time_of_days_follows_one_of_milliseconds() {
    runtime(1).block_on(async {
        for days in [1, 500, 100_000] {
            end(millis(20)).await;
            let day = Duration::from_secs(24 * 3600);
            ended(days * day).await.unwrap();
            assert!(is_timed_out(&hung(millis(5)).await));
        }
    });
}

#[test]
fn short_times_follow_many_long_ones() {
    runtime(1).block_on(async {
        let mut long: Vec<_> = (0..200).map(|_| ended(millis(60_000))).collect();
        poll_fn(|cx| {
            for call in &mut long {
                assert!(call.as_mut().poll(cx).is_pending());
            }
            Poll::Ready(())
        })
        .await;
        drop(long);
        for _ in 0..100 {
            end(millis(500)).await;
            assert!(is_timed_out(&hung(millis(1)).await));
        }
    });
}

#[test]
fn a_call_outlives_its_runtime_quietly() {
    let first = runtime(1);
    let mut outlives = hung(millis(60_000));
    first.block_on(async {
        ended(millis(60_000)).await.unwrap();
        let pending = poll_fn(|cx| Poll::Ready(outlives.as_mut().poll(cx).is_pending()));
        assert!(pending.await);
    });
    drop(first);
    let second = runtime(1);
    second.block_on(async {
        drop(outlives);
        assert!(is_timed_out(&hung(millis(5)).await));
    });
    drop(second);
}

#[test]
fn two_runtimes_take_turns_on_one_thread() {
    let (one, other) = (runtime(1), runtime(1));
    for _ in 0..50 {
        for runtime in [&one, &other] {
            runtime.block_on(async {
                end(millis(200)).await;
                assert!(is_timed_out(&hung(millis(1)).await));
            });
        }
    }
}

#[test]
fn calls_of_many_tasks_each_end_in_their_time() {
    runtime(2).block_on(async {
        let tasks: Vec<_> = (0..64_u32)
            .map(|task| {
                tokio::spawn(async move {
                    for round in 0..200 {
                        let number = task * 31 + round * 7;
                        if number % 50 == 0 {
                            let time = u64::from(number % 13 + 1);
                            assert!(is_timed_out(&hung(millis(time)).await));
                        } else {
                            let time = millis(u64::from(number % 900 + 5000));
                            call(time, Some(number % 4)).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn a_call_that_moves_between_threads_is_woken() {
    let runtime = runtime(2);
    runtime.block_on(async {
        for _ in 0..50 {
            let moved = async {
                end(millis(100)).await;
                let mut hung = hung(millis(5));
                let pending = poll_fn(|cx| Poll::Ready(hung.as_mut().poll(cx).is_pending()));
                assert!(pending.await);
                // Another task, and maybe another thread, waits for it from here on.
                assert!(is_timed_out(&tokio::spawn(hung).await.unwrap()));
            };
            tokio::spawn(moved).await.unwrap();
        }
    });
}

#[test]
fn blocking_threads_and_local_sets_time_calls_out() {
    let runtime = runtime(2);
    runtime.block_on(async {
        let blocking = tokio::spawn(async {
            end(millis(50)).await;
            let handle = tokio::runtime::Handle::current();
            block_in_place(|| handle.block_on(async { is_timed_out(&hung(millis(5)).await) }))
        });
        assert!(blocking.await.unwrap());
    });
    LocalSet::new().block_on(&runtime, async {
        let local = tokio::task::spawn_local(async {
            end(millis(50)).await;
            is_timed_out(&hung(millis(5)).await)
        });
        assert!(local.await.unwrap());
    });
}

#[test]
fn a_used_up_budget_leaves_no_timer_unregistered() {
    let runtime = runtime(1);
    let spawned = runtime.spawn(async {
        ended(millis(10_000)).await.unwrap();
        let mut hung = hung(millis(10));
        poll_fn(|cx| {
            while tokio::task::coop::has_budget_remaining() {
                let mut used = std::pin::pin!(tokio::task::consume_budget());
                let _ = used.as_mut().poll(cx);
            }
            let _ = hung.as_mut().poll(cx);
            Poll::Ready(())
        })
        .await;
        is_timed_out(&hung.await)
    });
    assert!(runtime.block_on(spawned).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_does_not_move_for_an_ended_call() {
    end(millis(500)).await;
    let before = Instant::now();
    let (send, receive) = oneshot::channel();
    thread::spawn(move || {
        thread::sleep(millis(20));
        send.send(()).unwrap();
    });
    receive.await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[test]
fn a_clock_paused_later_does_not_move_either() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        end(millis(500)).await;
        tokio::time::pause();
        let before = Instant::now();
        let (send, receive) = oneshot::channel();
        thread::spawn(move || {
            thread::sleep(millis(20));
            send.send(()).unwrap();
        });
        receive.await.unwrap();
        assert_eq!(before.elapsed(), Duration::ZERO);
    });
}

#[cfg(feature = "http")]
mod stacks {
    use tower_keep::{protocol::Plain, stack};

    use super::*;

    /// A call through a client's stack whose first attempts hang, and the last answers.
    fn stacked((total, attempt): (u64, u64), hung: u32) -> Call {
        let stack = stack::client()
            .plain(Plain::new().idempotent())
            .total_timeout(millis(total))
            .attempt_timeout(millis(attempt))
            .build()
            .unwrap();
        let attempts = Arc::new(AtomicU32::new(0));
        let inner = service_fn(move |()| {
            let number = attempts.fetch_add(1, Ordering::Relaxed);
            async move {
                match number < hung {
                    true => std::future::pending().await,
                    false => yield_now().await,
                }
                Ok::<_, BoxError>(())
            }
        });
        Box::pin(stack.layer(inner).oneshot(()))
    }

    #[test]
    fn a_stack_is_cut_off_in_total_between_attempts_too() {
        for workers in [1, 2] {
            runtime(workers).block_on(async {
                stacked((10_000, 5000), 0).await.unwrap();
                // The second attempt answers.
                stacked((10_000, 200), 1).await.unwrap();
                for (total, attempt) in [(300, 50), (300, 299), (300, 300)] {
                    let started = Instant::now();
                    assert!(is_timed_out(&stacked((total, attempt), 99).await));
                    let took = started.elapsed();
                    assert!(took < millis(4000), "{total} ms took {took:?}");
                }
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_hangs_ends_at_the_total_moment() {
        let started = Instant::now();
        assert!(is_timed_out(&stacked((1000, 1000), 99).await));
        let took = started.elapsed();
        assert!((millis(999)..millis(1003)).contains(&took), "{took:?}");
    }
}
