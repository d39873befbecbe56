use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::Wake,
    task::Waker,
};

use proptest::prelude::*;

use super::{timer::Timer, *};
use crate::{
    algorithm::{Limit, OverLimit, Rate, TokenBucket},
    ambient::clock::Clock,
};

#[test]
fn a_waiter_looks_again_when_a_place_is_overdue() {
    let found = |due| Blocked::unless(|| false, || Some((0, due)), 40);
    assert_eq!(found(100), Err(Blocked::UntilOverdue(60)));
    // Overdue already, and not yet taken back.
    assert_eq!(found(40), Err(Blocked::UntilOverdue(1)));
    assert_eq!(found(u64::MAX), Err(Blocked::UntilRelease));
}

/// A rate limit as a resource, as the layers use it.
struct Limited(TokenBucket);

impl Resource for Limited {
    fn acquire(&self, units: u32, ready_at: u64, now: u64) -> Result<(), Blocked> {
        self.0
            .acquire_late(units, ready_at, now)
            .map_err(|over| match over {
                OverLimit::Until { wait } => Blocked::For(crate::ambient::clock::nanos(wait)),
                OverLimit::CostAboveBurst => Blocked::Forever,
            })
    }

    fn ready_in(&self, units: u32, before: u64, now: u64) -> Option<u64> {
        Some(crate::ambient::clock::nanos(
            self.0.wait_for(units, before, now),
        ))
    }

    fn give_back(&self, units: u32, now: u64) {
        self.0.refund(units, now);
    }
}

/// Permits that only a release frees.
struct Places(AtomicU64);

impl Resource for Places {
    fn acquire(&self, units: u32, _: u64, _: u64) -> Result<(), Blocked> {
        let taken = |free: u64| free.checked_sub(units.into());
        let acquired = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, taken);
        acquired.map(drop).map_err(|_| Blocked::UntilRelease)
    }

    fn ready_in(&self, _: u32, _: u64, _: u64) -> Option<u64> {
        None
    }

    fn give_back(&self, units: u32, _: u64) {
        self.0.fetch_add(units.into(), Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

const MILLI: u64 = 1_000_000;
const PATIENT: Bounds = Bounds {
    until: u64::MAX,
    grace: 0,
    max_waiting: 100_000,
    class: ONE_CLASS,
};

/// Returns a limit of a thousand per second that is used up.
fn used_up() -> Limited {
    let bucket = TokenBucket::new(Rate::per_second(1000), 1).unwrap();
    bucket.acquire(1, 0).unwrap();
    Limited(bucket)
}

fn joined<const N: usize>(queue: &WaitQueue, resource: &dyn Resource) -> [Ticket; N] {
    [(); N].map(|()| queue.join(resource, 1, PATIENT, 0).unwrap())
}

#[test]
fn a_waiter_polls_twice_however_late_it_is() {
    let (queue, limit) = (WaitQueue::default(), used_up());
    let timer = || Some(Arc::new(Timer::new(Clock::start())));
    let tickets = joined::<20>(&queue, &limit).map(|ticket| Ticket {
        alarm: timer(),
        ..ticket
    });
    let wakers = [(); 20].map(|()| Arc::new(Count::default()));
    for (number, ticket) in tickets.iter().enumerate() {
        let turn = queue.poll(&limit, ticket, &wakers[number].clone().into(), 0);
        // A waiter's own timer is later than its turn by 10 ms for each waiter ahead of it.
        let timer = (number as u64 + 1) * MILLI + number as u64 * 10 * MILLI;
        assert_eq!(turn, Turn::Queued(Some(timer)));
    }
    // A stall: all timers ring at once. The rate admits one call of what was missed, and a tick's
    // worth.
    let turn = |number: usize, now| {
        queue.poll(
            &limit,
            &tickets[number],
            &wakers[number].clone().into(),
            now,
        )
    };
    assert_eq!(turn(0, 25 * MILLI), Turn::Acquired);
    let acquired = (1..20).filter(|number| wakers[*number].get() > 0).count();
    assert!(acquired >= 1, "{acquired}");
    for number in 1..=acquired {
        assert_eq!(turn(number, 25 * MILLI), Turn::Acquired);
    }
}

/// Adds waiters of these classes. Each arrives at the given millisecond and may wait for 100 ms.
fn of_classes<const N: usize>(queue: &WaitQueue, waiters: [(u8, u64); N]) -> [Ticket; N] {
    let places = Places(AtomicU64::new(0));
    waiters.map(|(class, at)| {
        let until = (at + 100) * MILLI;
        let bounds = Bounds {
            until,
            class,
            ..PATIENT
        };
        let ticket = queue.join(&places, 1, bounds, at * MILLI).unwrap();
        let turn = queue.poll(&places, &ticket, Waker::noop(), at * MILLI);
        assert!(matches!(turn, Turn::Queued(_)));
        ticket
    })
}

/// Returns the order in which waiters are served if one permit becomes free at a time.
fn order<const N: usize>(queue: &WaitQueue, tickets: &[Ticket; N], now: u64) -> Vec<usize> {
    let (places, mut order) = (Places(AtomicU64::new(0)), Vec::new());
    while order.len() < N {
        places.give_back(1, now);
        queue.notify(&places, || now);
        let waits = (0..N).filter(|number| !order.contains(number));
        let mut turns = waits.map(|number| {
            let turn = queue.poll(&places, &tickets[number], Waker::noop(), now);
            (number, turn)
        });
        let served = turns.find(|(_, turn)| *turn == Turn::Acquired);
        order.push(served.unwrap().0);
    }
    order
}

#[test]
fn the_more_critical_is_served_first() {
    let queue = WaitQueue::default();
    let tickets = of_classes(
        &queue,
        [(0, 0), (2, 1), (1, 2), (3, 3), (2, 4), (3, 5), (0, 6)],
    );
    assert_eq!(order(&queue, &tickets, 10 * MILLI), [3, 5, 1, 4, 2, 0, 6]);
}

#[test]
fn no_class_overtakes_one_whose_time_is_half_over() {
    let queue = WaitQueue::default();
    let tickets = of_classes(&queue, [(0, 0), (0, 1), (1, 30), (3, 40)]);
    // The first two have waited for over 50 ms, the third has not.
    assert_eq!(order(&queue, &tickets, 60 * MILLI), [0, 1, 3, 2]);
    // A waiter does not overtake one that arrived before it.
    let tickets = of_classes(&queue, [(3, 100), (0, 101)]);
    assert_eq!(order(&queue, &tickets, 160 * MILLI), [0, 1]);
    // A waiter at exactly half of its time can still be overtaken.
    let tickets = of_classes(&queue, [(0, 200), (1, 201)]);
    assert_eq!(order(&queue, &tickets, 250 * MILLI), [1, 0]);
}

#[test]
fn a_waiter_that_leaves_is_gone_from_its_class() {
    let queue = WaitQueue::default();
    let [first, second, third] = of_classes(&queue, [(0, 0), (3, 1), (1, 2)]);
    let places = Places(AtomicU64::new(0));
    queue.cancel(&places, &second, 3 * MILLI);
    places.give_back(1, 3 * MILLI);
    queue.notify(&places, || 3 * MILLI);
    let turn = |ticket| queue.poll(&places, ticket, Waker::noop(), 3 * MILLI);
    assert_eq!(turn(&third), Turn::Acquired);
    assert!(matches!(turn(&first), Turn::Queued(_)));
}

#[test]
fn whoever_polls_acquires_for_the_head() {
    let (queue, limit) = (WaitQueue::default(), used_up());
    let [head, second] = joined(&queue, &limit);
    let count = Arc::new(Count::default());
    queue.poll(&limit, &head, &count.clone().into(), 0);
    let turn = queue.poll(&limit, &second, Waker::noop(), MILLI);
    assert_eq!((turn, count.get()), (Turn::Queued(Some(2 * MILLI)), 1));
    assert_eq!(
        queue.poll(&limit, &head, Waker::noop(), MILLI),
        Turn::Acquired
    );
}

#[test]
fn one_behind_others_lets_them_go_first() {
    let (queue, places) = (WaitQueue::default(), Places(AtomicU64::new(0)));
    let [head, second, last] = joined(&queue, &places);
    let counts = [(); 3].map(|()| Arc::new(Count::default()));
    let poll =
        |ticket, number: usize| queue.poll(&places, ticket, &counts[number].clone().into(), 0);
    assert_eq!(
        (poll(&head, 0), poll(&second, 1)),
        (Turn::Queued(None), Turn::Queued(None))
    );
    places.0.store(3, Ordering::Relaxed);
    // It acquires for all three, and is woken after the other two.
    assert_eq!(poll(&last, 2), Turn::Queued(None));
    assert_eq!(counts.each_ref().map(|count| count.get()), [1; 3]);
    // A newcomer joins behind them too.
    assert!(!queue.is_empty() && queue.waiting() == 0);
    places.0.store(1, Ordering::Relaxed);
    let newcomer = queue.join(&places, 1, PATIENT, 0).unwrap();
    assert_eq!(poll(&newcomer, 0), Turn::Queued(None));
    for ticket in [&head, &second, &last, &newcomer] {
        assert_eq!(
            queue.poll(&places, ticket, Waker::noop(), 0),
            Turn::Acquired
        );
    }
    assert!(queue.is_empty() && queue.is_unused());
}

#[test]
fn one_behind_a_cancelled_one_goes_at_once() {
    let (queue, places) = (WaitQueue::default(), Places(AtomicU64::new(0)));
    let [head, last] = joined(&queue, &places);
    queue.poll(&places, &head, Waker::noop(), 0);
    places.0.store(1, Ordering::Relaxed);
    queue.notify(&places, || 0);
    queue.cancel(&places, &head, 0);
    assert_eq!(queue.poll(&places, &last, Waker::noop(), 0), Turn::Acquired);
    assert!(queue.is_empty());
}

#[test]
fn a_grant_to_a_waiter_that_has_gone_passes_on() {
    let (queue, places) = (WaitQueue::default(), Places(AtomicU64::new(0)));
    let [head, second] = joined(&queue, &places);
    let counts = [(); 2].map(|()| Arc::new(Count::default()));
    queue.poll(&places, &head, &counts[0].clone().into(), 0);
    queue.poll(&places, &second, &counts[1].clone().into(), 0);
    places.give_back(1, 0);
    queue.notify(&places, || 0);
    assert_eq!((counts[0].get(), counts[1].get()), (1, 0));
    queue.cancel(&places, &head, 0);
    assert_eq!(counts[1].get(), 1);
    assert_eq!(
        queue.poll(&places, &second, Waker::noop(), 0),
        Turn::Acquired
    );
    assert!(queue.is_unused());
}

#[test]
fn a_cancelled_waiter_in_the_middle_wakes_nobody() {
    let (queue, limit) = (WaitQueue::default(), used_up());
    let [head, middle, last] = joined(&queue, &limit);
    let count = Arc::new(Count::default());
    for ticket in [&head, &last] {
        queue.poll(&limit, ticket, &count.clone().into(), 0);
    }
    queue.cancel(&limit, &middle, 0);
    assert_eq!((count.get(), queue.waiting()), (0, 2));
    // Once it is the head, its timer is due too late for its turn, so it is woken.
    assert_eq!(
        queue.poll(&limit, &head, Waker::noop(), MILLI),
        Turn::Acquired
    );
    assert_eq!(count.get(), 1);
    let turn = queue.poll(&limit, &last, Waker::noop(), MILLI);
    assert_eq!(turn, Turn::Queued(Some(2 * MILLI)));
}

#[test]
fn an_expired_head_lets_the_next_go() {
    let (queue, places) = (WaitQueue::default(), Places(AtomicU64::new(0)));
    let bounds = Bounds {
        until: 10,
        grace: 5,
        max_waiting: 9,
        class: ONE_CLASS,
    };
    let head = queue.join(&places, 1, bounds, 0).unwrap();
    let [second] = joined(&queue, &places);
    assert_eq!(
        queue.poll(&places, &second, Waker::noop(), 0),
        Turn::Queued(None)
    );
    places.give_back(1, 0);
    assert_eq!(
        queue.poll(&places, &second, Waker::noop(), 16),
        Turn::Acquired
    );
    assert_eq!(
        queue.poll(&places, &head, Waker::noop(), 16),
        Turn::TooLate(None)
    );
}

#[test]
fn a_waiter_is_in_time_at_its_last_moment() {
    let bounds = Bounds {
        until: 10,
        grace: 5,
        ..PATIENT
    };
    // The waiter polls itself, another waiter polls, or a release pumps.
    for (free_at, by, now) in (0..3).flat_map(|by| [(15, by, 15), (16, by, 16)]) {
        let (queue, places) = (WaitQueue::default(), Places(AtomicU64::new(0)));
        let ticket = queue.join(&places, 1, bounds, 10).unwrap();
        let [second] = joined(&queue, &places);
        for ticket in [&ticket, &second] {
            let turn = queue.poll(&places, ticket, Waker::noop(), 15);
            assert!(matches!(turn, Turn::Queued(_)));
        }
        places.give_back(1, free_at);
        match by {
            0 => {}
            1 => drop(queue.poll(&places, &second, Waker::noop(), now)),
            _ => queue.notify(&places, || now),
        }
        let turn = queue.poll(&places, &ticket, Waker::noop(), now);
        let expected = match now {
            15 => Turn::Acquired,
            _ => Turn::TooLate(None),
        };
        assert_eq!(turn, expected, "{by}");
    }
    // A waiter may arrive at its last moment, or be served at it.
    let join = |resource: &dyn Resource, until, now| {
        let bounds = Bounds { until, ..PATIENT };
        WaitQueue::default().join(resource, 1, bounds, now).is_ok()
    };
    let places = Places(AtomicU64::new(0));
    assert!(!join(&places, 9, 10) && join(&places, 10, 10));
    assert!(!join(&used_up(), MILLI - 1, 0) && join(&used_up(), MILLI, 0));
}

#[test]
fn a_forecast_is_in_time_at_the_last_moment() {
    for (latest, turn) in [
        (MILLI, Turn::Queued(Some(MILLI))),
        (MILLI - 1, Turn::TooLate(Some(MILLI))),
    ] {
        let (queue, limit) = (WaitQueue::default(), used_up());
        let bounds = Bounds {
            until: latest,
            ..PATIENT
        };
        // It joined while no wait was known.
        let places = Places(AtomicU64::new(0));
        let ticket = queue.join(&places, 1, bounds, 0).unwrap();
        assert_eq!(queue.poll(&limit, &ticket, Waker::noop(), 0), turn);
    }
}

#[test]
fn a_waiter_behind_the_head_goes_after_its_time() {
    let (queue, places) = (WaitQueue::default(), Places(AtomicU64::new(0)));
    let [head] = joined(&queue, &places);
    let bounds = Bounds {
        until: 15,
        ..PATIENT
    };
    let second = queue.join(&places, 1, bounds, 0).unwrap();
    let poll = |ticket, now| queue.poll(&places, ticket, Waker::noop(), now);
    assert!(matches!(poll(&second, 15), Turn::Queued(_)));
    assert_eq!(poll(&second, 16), Turn::TooLate(None));
    assert_eq!((poll(&head, 16), queue.waiting()), (Turn::Queued(None), 1));
}

/// A permit becomes free while the resource answers that there is none.
#[test]
fn a_release_while_the_resource_is_asked_is_seen() {
    struct Released(Places, Arc<WaitQueue>, AtomicU64);

    impl Resource for Released {
        fn acquire(&self, units: u32, ready_at: u64, now: u64) -> Result<(), Blocked> {
            let acquired = self.0.acquire(units, ready_at, now);
            if self.2.fetch_add(1, Ordering::Relaxed) == 0 {
                self.0.give_back(1, now);
                self.1.notify(self, || now);
            }
            acquired
        }

        fn ready_in(&self, _: u32, _: u64, _: u64) -> Option<u64> {
            None
        }

        fn give_back(&self, units: u32, now: u64) {
            self.0.give_back(units, now);
        }
    }

    let queue = Arc::new(WaitQueue::default());
    let places = Places(AtomicU64::new(0));
    let resource = Released(places, queue.clone(), AtomicU64::new(0));
    let [head] = joined(&queue, &resource);
    let turn = queue.poll(&resource, &head, Waker::noop(), 0);
    assert_eq!(turn, Turn::Acquired);
}

/// A user's own limit may panic.
#[test]
fn a_resource_that_panics_once_stops_no_later_turn() {
    struct Panics(AtomicU64, Places);

    impl Resource for Panics {
        fn acquire(&self, units: u32, ready_at: u64, now: u64) -> Result<(), Blocked> {
            assert!(self.0.fetch_add(1, Ordering::Relaxed) > 0, "only once");
            self.1.acquire(units, ready_at, now)
        }

        fn ready_in(&self, _: u32, _: u64, _: u64) -> Option<u64> {
            None
        }

        fn give_back(&self, units: u32, now: u64) {
            self.1.give_back(units, now);
        }
    }

    let (queue, resource) = (
        WaitQueue::default(),
        Panics(AtomicU64::new(0), Places(AtomicU64::new(1))),
    );
    let [first, second] = joined(&queue, &resource);
    let poll = |ticket| queue.poll(&resource, ticket, Waker::noop(), 0);
    let panicked = catch_unwind(AssertUnwindSafe(|| poll(&first)));
    assert!(panicked.is_err());
    assert_eq!(poll(&first), Turn::Acquired);
    assert_eq!(poll(&second), Turn::Queued(None));
}

#[test]
fn no_more_join_than_may_wait() {
    let (queue, places) = (WaitQueue::default(), Places(AtomicU64::new(0)));
    let bounds = Bounds {
        max_waiting: 1,
        ..PATIENT
    };
    let ticket = queue.join(&places, 1, bounds, 0).unwrap();
    assert!(queue.join(&places, 1, bounds, 0).is_err());
    queue.cancel(&places, &ticket, 0);
    assert!(queue.join(&places, 1, bounds, 0).is_ok());
}

// A waker of a thread pool owns its task, and with it a place in the same queue.
#[test]
fn a_waker_may_cancel_when_it_is_dropped() {
    struct Cancels(Arc<(Places, WaitQueue)>, Ticket);

    impl Wake for Cancels {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Cancels {
        fn drop(&mut self) {
            self.0.1.cancel(&self.0.0, &self.1, 0);
        }
    }

    let shared = Arc::new((Places(AtomicU64::new(0)), WaitQueue::default()));
    let (places, queue) = &*shared;
    let [head, second, third] = joined(queue, places);
    queue.poll(
        places,
        &head,
        &Waker::from(Arc::new(Cancels(shared.clone(), second))),
        0,
    );
    queue.poll(places, &head, Waker::noop(), 0);
    assert_eq!(queue.waiting(), 2);
    queue.poll(
        places,
        &head,
        &Waker::from(Arc::new(Cancels(shared.clone(), third))),
        0,
    );
    queue.cancel(places, &head, 0);
    assert!(queue.is_unused());
}

/// A user's own limit may call the layer's handle, which uses the queue.
#[test]
fn a_resource_may_come_back_to_its_queue() {
    struct ComesBack(Arc<WaitQueue>);

    impl Resource for ComesBack {
        fn acquire(&self, _: u32, _: u64, now: u64) -> Result<(), Blocked> {
            self.0.notify(self, || now);
            Ok(())
        }

        fn ready_in(&self, _: u32, _: u64, _: u64) -> Option<u64> {
            assert!(self.0.waiting() < 9);
            None
        }

        fn give_back(&self, _: u32, _: u64) {}
    }

    let queue = Arc::new(WaitQueue::default());
    let resource = ComesBack(queue.clone());
    let [first, second] = joined(&queue, &resource);
    assert_eq!(
        queue.poll(&resource, &second, Waker::noop(), 0),
        Turn::Acquired
    );
    assert_eq!(
        queue.poll(&resource, &first, Waker::noop(), 0),
        Turn::Acquired
    );
}

#[test]
fn many_cancels_in_any_order_are_quick() {
    let (queue, places) = (WaitQueue::default(), Places(AtomicU64::new(0)));
    let count = if cfg!(debug_assertions) {
        20_000
    } else {
        200_000
    };
    let bounds = Bounds {
        max_waiting: usize::MAX,
        ..PATIENT
    };
    let mut tickets: Vec<_> = (0..count)
        .map(|_| queue.join(&places, 1, bounds, 0).unwrap())
        .collect();
    // From the middle outwards: the worst order for a list.
    while !tickets.is_empty() {
        let ticket = tickets.swap_remove(tickets.len() / 2);
        queue.cancel(&places, &ticket, 0);
    }
    assert!(queue.is_unused());
}

proptest! {
    #[test]
    fn serves_in_order_and_loses_no_place(
        steps in prop::collection::vec((0u8..5, any::<prop::sample::Index>()), 1..200),
    ) {
        let (queue, places) = (WaitQueue::default(), Places(AtomicU64::new(2)));
        let (mut waiting, mut held, mut order) = (Vec::new(), 0u64, Vec::new());
        for (number, (step, index)) in steps.into_iter().enumerate() {
            match step {
                0 | 1 => waiting.push((number, queue.join(&places, 1, PATIENT, 0).unwrap())),
                2 if !waiting.is_empty() => {
                    let (_, ticket) = waiting.remove(index.index(waiting.len()));
                    queue.cancel(&places, &ticket, 0);
                }
                3 if held > 0 => {
                    held -= 1;
                    places.give_back(1, 0);
                    queue.notify(&places, || 0);
                }
                _ if !waiting.is_empty() => {
                    let place = index.index(waiting.len());
                    if queue.poll(&places, &waiting[place].1, Waker::noop(), 0) == Turn::Acquired {
                        order.push(waiting.remove(place).0);
                        held += 1;
                        // The waiters ahead of it have acquired already.
                        for _ in 0..place {
                            let (_, ticket) = &waiting[0];
                            let turn = queue.poll(&places, ticket, Waker::noop(), 0);
                            prop_assert_eq!(turn, Turn::Acquired);
                            waiting.remove(0);
                            held += 1;
                        }
                    }
                }
                _ => {}
            }
        }
        for (_, ticket) in waiting {
            queue.cancel(&places, &ticket, 0);
        }
        prop_assert!(queue.is_unused());
        prop_assert_eq!(places.0.load(Ordering::SeqCst) + held, 2);
    }
}

mod codel {
    use std::time::Duration;

    use super::*;
    use crate::algorithm::CoDel;

    fn queue() -> (WaitQueue, Places) {
        let codel = CoDel::new(Duration::from_millis(5), Duration::from_millis(100)).unwrap();
        (WaitQueue::with_codel(codel), Places(AtomicU64::new(0)))
    }

    /// Returns the tickets that have acquired, and those that were dropped.
    fn turns(
        queue: &WaitQueue,
        places: &Places,
        tickets: &mut Vec<(u64, Ticket)>,
        now: u64,
    ) -> (Vec<u64>, Vec<u64>) {
        let (mut acquired, mut dropped) = (Vec::new(), Vec::new());
        tickets.retain(|(name, ticket)| {
            match queue.poll(places, ticket, Waker::noop(), now) {
                Turn::Acquired => acquired.push(*name),
                Turn::TooLate(_) => dropped.push(*name),
                Turn::Queued(_) | Turn::Never => return true,
            }
            false
        });
        (acquired, dropped)
    }

    #[test]
    fn a_queue_that_does_not_drain_serves_the_newest() {
        let (queue, places) = queue();
        let mut tickets = Vec::new();
        // A waiter every 4 ms, and a permit every 8 ms: the head waits ever longer.
        let (mut served, mut dropped) = (Vec::new(), Vec::new());
        for step in 0..60 {
            let now = step * 4 * MILLI;
            tickets.push((step, queue.join(&places, 1, PATIENT, now).unwrap()));
            if step % 2 == 1 {
                places.give_back(1, now);
                queue.notify(&places, || now);
            }
            let (now_served, now_dropped) = turns(&queue, &places, &mut tickets, now);
            served.extend(now_served);
            dropped.extend(now_dropped);
        }
        // In order for 100 ms after the oldest has waited 5 ms, that is from 12 ms on.
        let in_order: Vec<_> = (0..14).collect();
        assert_eq!(served[..14], in_order[..]);
        // From then on by the newest, and the others are dropped after 10 ms.
        assert!(served[14..].iter().all(|name| *name >= 27), "{served:?}");
        assert!(dropped.contains(&14) && dropped.len() > 15, "{dropped:?}");
        assert!(tickets.len() <= 4, "{}", tickets.len());
    }

    #[test]
    fn while_it_stands_the_newest_of_a_class_is_first() {
        let (queue, places) = queue();
        let mut tickets = Vec::new();
        let mut join = |name, class, now: u64| {
            let bounds = Bounds { class, ..PATIENT };
            tickets.push((name, queue.join(&places, 1, bounds, now).unwrap()));
            let _ = turns(&queue, &places, &mut tickets, now);
        };
        // The queue stands from 106 ms on, when the first two have waited too long.
        join(0, 3, 0);
        join(1, 3, 6 * MILLI);
        for (name, class) in [(2, 0), (3, 2), (4, 2), (5, 0)] {
            join(name, class, 106 * MILLI);
        }
        let mut order = Vec::new();
        for _ in 0..4 {
            places.give_back(1, 107 * MILLI);
            queue.notify(&places, || 107 * MILLI);
            order.extend(turns(&queue, &places, &mut tickets, 107 * MILLI).0);
        }
        assert_eq!(order[..2], [4, 3]);
    }

    #[test]
    fn once_it_has_drained_the_order_is_that_of_arrival() {
        let (queue, places) = queue();
        let mut tickets = Vec::new();
        for (name, now) in [(0, 0), (1, 6 * MILLI), (2, 106 * MILLI)] {
            tickets.push((name, queue.join(&places, 1, PATIENT, now).unwrap()));
            let (acquired, dropped) = turns(&queue, &places, &mut tickets, now);
            let expected = if name == 2 { vec![0, 1] } else { vec![] };
            assert_eq!((acquired, dropped), (vec![], expected));
        }
        let now = 107 * MILLI;
        places.give_back(1, now);
        assert_eq!(turns(&queue, &places, &mut tickets, now), (vec![2], vec![]));
        for name in 3..5 {
            tickets.push((name, queue.join(&places, 1, PATIENT, now).unwrap()));
        }
        places.give_back(1, now);
        assert_eq!(turns(&queue, &places, &mut tickets, now), (vec![3], vec![]));
    }

    #[test]
    fn dropped_waiters_are_woken_and_no_place_is_lost() {
        let (queue, places) = queue();
        let count = Arc::new(Count::default());
        let old: [Ticket; 3] = joined(&queue, &places);
        for ticket in &old {
            queue.poll(&places, ticket, &count.clone().into(), 6 * MILLI);
        }
        let now = 107 * MILLI;
        let newest = queue.join(&places, 1, PATIENT, now).unwrap();
        places.give_back(1, now);
        queue.notify(&places, || now);
        assert_eq!((count.get(), queue.waiting()), (3, 0));
        for ticket in &old {
            queue.cancel(&places, ticket, now);
        }
        assert_eq!(
            queue.poll(&places, &newest, Waker::noop(), now),
            Turn::Acquired
        );
        assert!(queue.is_unused());
    }
}
