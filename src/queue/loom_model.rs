use std::task::Waker;

use loom::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::*;

/// Permits that only a release frees.
struct Places(AtomicUsize);

impl Places {
    fn take(&self) -> bool {
        let taken = |free: usize| free.checked_sub(1);
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, taken)
            .is_ok()
    }
}

impl Resource for Places {
    fn acquire(&self, _: u32, _: u64, _: u64) -> Result<(), Blocked> {
        if self.take() {
            Ok(())
        } else {
            Err(Blocked::UntilRelease)
        }
    }

    fn ready_in(&self, _: u32, _: u64, _: u64) -> Option<u64> {
        None
    }

    fn give_back(&self, _: u32, _: u64) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

const BOUNDS: Bounds = Bounds {
    until: u64::MAX,
    grace: 0,
    max_waiting: 9,
    class: ONE_CLASS,
};

fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(check);
}

fn shared(free: usize) -> Arc<(WaitQueue, Places)> {
    Arc::new((WaitQueue::default(), Places(AtomicUsize::new(free))))
}

#[test]
fn a_release_and_a_first_waiter_never_miss_each_other() {
    model(|| {
        let both = shared(0);
        let there = both.clone();
        let releaser = thread::spawn(move || {
            let (queue, places) = &*there;
            places.give_back(1, 0);
            queue.notify(places, || 0);
        });
        let (queue, places) = &*both;
        let ticket = queue.join(places, 1, BOUNDS, 0).unwrap();
        let first = queue.poll(places, &ticket, Waker::noop(), 0);
        releaser.join().unwrap();
        // Acquired by its first poll, or for it by the release: nothing else would wake it.
        if first != Turn::Acquired {
            assert_eq!(queue.waiting(), 0);
            assert_eq!(
                queue.poll(places, &ticket, Waker::noop(), 0),
                Turn::Acquired
            );
        }
        assert!(queue.is_unused());
    });
}

#[test]
fn a_grant_to_a_waiter_that_cancels_is_not_lost() {
    model(|| {
        let both = shared(0);
        let (queue, places) = &*both;
        let [head, second] = [(); 2].map(|()| queue.join(places, 1, BOUNDS, 0).unwrap());
        queue.poll(places, &second, Waker::noop(), 0);
        let there = both.clone();
        let releaser = thread::spawn(move || {
            let (queue, places) = &*there;
            places.give_back(1, 0);
            queue.notify(places, || 0);
        });
        queue.cancel(places, &head, 0);
        releaser.join().unwrap();
        assert!(
            queue.waiting() == 0,
            "the second has the place, or the release has found nobody"
        );
        assert_eq!(
            queue.poll(places, &second, Waker::noop(), 0),
            Turn::Acquired
        );
        assert!(queue.is_unused());
    });
}

#[test]
fn two_that_poll_are_served_once_each() {
    model(|| {
        let both = shared(2);
        let (queue, places) = &*both;
        let [head, second] = [(); 2].map(|()| queue.join(places, 1, BOUNDS, 0).unwrap());
        let there = both.clone();
        let poller = thread::spawn(move || {
            let (queue, places) = &*there;
            queue.poll(places, &second, Waker::noop(), 0) == Turn::Acquired
                || queue.poll(places, &second, Waker::noop(), 0) == Turn::Acquired
        });
        let mut served = queue.poll(places, &head, Waker::noop(), 0) == Turn::Acquired;
        let other = poller.join().unwrap();
        served |= queue.poll(places, &head, Waker::noop(), 0) == Turn::Acquired;
        assert!(served);
        assert!(other || queue.waiting() == 0);
        assert_eq!(places.0.load(Ordering::Acquire), 0);
    });
}

/// The permits of a bulkhead, with the bulkhead's release and resize.
mod bulkhead {
    use super::*;
    use crate::algorithm::InFlight;

    impl Resource for InFlight {
        fn acquire(&self, _: u32, _: u64, _: u64) -> Result<(), Blocked> {
            if self.enter() {
                Ok(())
            } else {
                Err(Blocked::UntilRelease)
            }
        }

        fn ready_in(&self, _: u32, _: u64, _: u64) -> Option<u64> {
            None
        }

        fn give_back(&self, _: u32, _: u64) {
            self.leave();
        }
    }

    fn release(queue: &WaitQueue, places: &InFlight) {
        places.leave();
        if queue.has_waiters_after_leave() {
            queue.pump_now(places, 0);
        }
    }

    fn full() -> Arc<(WaitQueue, InFlight)> {
        let places = InFlight::new(1);
        assert!(places.enter());
        Arc::new((WaitQueue::default(), places))
    }

    fn poll(queue: &WaitQueue, places: &InFlight, ticket: &Ticket) -> bool {
        queue.poll(places, ticket, Waker::noop(), 0) == Turn::Acquired
    }

    #[test]
    fn a_release_is_not_missed_without_a_fence() {
        model(|| {
            let both = full();
            let there = both.clone();
            let releaser = thread::spawn(move || release(&there.0, &there.1));
            let (queue, places) = &*both;
            let ticket = queue.join(places, 1, BOUNDS, 0).unwrap();
            let first = poll(queue, places, &ticket);
            releaser.join().unwrap();
            // Nothing else would wake it: the release has found it, or its poll has found the
            // permit.
            assert!(first || queue.waiting() == 0);
            assert!(first || poll(queue, places, &ticket));
            assert_eq!(places.count(), 1);
        });
    }

    #[test]
    fn a_raised_limit_reaches_a_first_waiter() {
        model(|| {
            let both = full();
            let there = both.clone();
            let resizer = thread::spawn(move || {
                let (queue, places) = &*there;
                places.set_limit(2);
                queue.notify(places, || 0);
            });
            let (queue, places) = &*both;
            let ticket = queue.join(places, 1, BOUNDS, 0).unwrap();
            let first = poll(queue, places, &ticket);
            resizer.join().unwrap();
            assert!(first || queue.waiting() == 0);
            assert!(first || poll(queue, places, &ticket));
            assert_eq!(places.count(), 2);
        });
    }

    #[test]
    fn a_cancel_beside_a_cut_and_a_release_loses_no_place() {
        model(|| {
            let both = Arc::new((WaitQueue::default(), InFlight::new(2)));
            let (queue, places) = &*both;
            assert!(places.enter() && places.enter());
            let ticket = queue.join(places, 1, BOUNDS, 0).unwrap();
            poll(queue, places, &ticket);
            let there = both.clone();
            let releaser = thread::spawn(move || {
                release(&there.0, &there.1);
                there.1.set_limit(1);
                release(&there.0, &there.1);
            });
            queue.cancel(places, &ticket, 0);
            releaser.join().unwrap();
            assert!(queue.is_unused());
            assert_eq!(places.count(), 0);
        });
    }
}

/// Two keys that have shares of one total.
mod shares {
    use super::*;
    use crate::algorithm::InFlight;

    struct Keys {
        places: [InFlight; 2],
        queues: [WaitQueue; 2],
        total: Total,
    }

    impl Keys {
        /// Creates shares of one permit each and a total of two, all taken: one by each key.
        fn full() -> Arc<Self> {
            let keys = Self {
                places: [(); 2].map(|()| InFlight::new(1)),
                queues: [(); 2].map(|()| WaitQueue::default()),
                total: Total::new(2, WaitQueue::default()),
            };
            assert!((0..2).all(|key| keys.share(key).enter(100)));
            Arc::new(keys)
        }

        fn share(&self, key: usize) -> KeyShare<'_> {
            KeyShare {
                places: &self.places[key],
                queue: &self.queues[key],
                total: &self.total,
            }
        }

        fn join(&self, key: usize) -> ShareTicket {
            let share = self.share(key);
            let ticket = share.join(BOUNDS, 9, 0).unwrap();
            assert!(!self.poll(key, &ticket));
            ticket
        }

        fn poll(&self, key: usize, ticket: &ShareTicket) -> bool {
            self.share(key).poll_once(ticket, Waker::noop(), 0).0 == Turn::Acquired
        }

        /// Returns whether a waiter has been given a permit, and thus been woken.
        fn is_served(&self, key: usize) -> bool {
            self.queues[key].waiting() == 0 || self.total.queue.waiting() == 0
        }

        fn assert_taken(&self, places: [usize; 2]) {
            assert_eq!([0, 1].map(|key: usize| self.places[key].count()), places);
            assert_eq!(self.total.places.count(), places.iter().sum());
        }
    }

    #[test]
    fn a_cancelled_waiters_share_frees_the_total() {
        model(|| {
            let keys = Keys::full();
            let (second, first) = (keys.join(1), keys.join(0));
            let there = keys.clone();
            let releaser = thread::spawn(move || there.share(0).leave(|| 0));
            keys.share(0).cancel(&first, 0);
            releaser.join().unwrap();
            assert!(keys.is_served(1), "nobody else would wake it");
            assert!(keys.poll(1, &second));
            keys.assert_taken([0, 2]);
            assert!(keys.total.queue.is_unused());
        });
    }

    #[test]
    fn what_was_given_twice_is_kept_once() {
        model(|| {
            let keys = Keys::full();
            let ticket = keys.join(0);
            let there = keys.clone();
            let releaser = thread::spawn(move || {
                there.share(1).leave(|| 0);
                there.share(0).leave(|| 0);
            });
            let served = keys.poll(0, &ticket);
            releaser.join().unwrap();
            assert!(served || keys.is_served(0));
            assert!(served || keys.poll(0, &ticket));
            keys.assert_taken([1, 0]);
            assert!(keys.queues[0].is_unused() && keys.total.queue.is_unused());
        });
    }

    #[test]
    fn a_newcomer_takes_no_room_due_to_a_waiter() {
        model(|| {
            let keys = Keys::full();
            keys.total.places.set_limit(3);
            keys.total.notify(|| 0);
            assert!(keys.share(0).enter(100));
            let ticket = keys.join(0);
            let there = keys.clone();
            let releaser = thread::spawn(move || there.share(0).leave(|| 0));
            assert!(!keys.share(1).enter(100));
            releaser.join().unwrap();
            assert!(keys.poll(0, &ticket));
            keys.assert_taken([2, 1]);
        });
    }

    #[test]
    fn a_first_waiter_sees_a_release_of_another_key() {
        model(|| {
            let keys = Keys::full();
            let there = keys.clone();
            let releaser = thread::spawn(move || there.share(1).leave(|| 0));
            let share = keys.share(0);
            let ticket = share.join(BOUNDS, 9, 0).unwrap();
            let served = keys.poll(0, &ticket);
            releaser.join().unwrap();
            assert!(served || keys.is_served(0));
            assert!(served || keys.poll(0, &ticket));
            keys.assert_taken([2, 0]);
        });
    }
}

/// A bulkhead's queue that does not drain: the newest waiter is served first, and the oldest is
/// dropped.
mod codel {
    use std::time::Duration;

    use super::*;
    use crate::algorithm::{CoDel, InFlight};

    /// Creates a queue that stands from time 2 on, and then drops waiters that have waited longer
    /// than 2.
    fn standing() -> Arc<(WaitQueue, InFlight)> {
        let nano = Duration::from_nanos(1);
        let queue = WaitQueue::with_codel(CoDel::new(nano, nano).unwrap());
        let places = InFlight::new(1);
        assert!(places.enter());
        Arc::new((queue, places))
    }

    fn join(queue: &WaitQueue, places: &InFlight, now: u64) -> Ticket {
        let ticket = queue.join(places, 1, BOUNDS, now).unwrap();
        queue.poll(places, &ticket, Waker::noop(), now);
        ticket
    }

    fn release(queue: &WaitQueue, places: &InFlight, now: u64) {
        places.leave();
        if queue.has_waiters_after_leave() {
            queue.pump_now(places, now);
        }
    }

    #[test]
    fn a_cancelled_newest_waiter_passes_on_its_permit() {
        model(|| {
            let both = standing();
            let (queue, places) = &*both;
            let oldest = join(queue, places, 0);
            let newest = join(queue, places, 1);
            let there = both.clone();
            let releaser = thread::spawn(move || release(&there.0, &there.1, 2));
            queue.cancel(places, &newest, 2);
            releaser.join().unwrap();
            assert!(queue.waiting() == 0, "nothing else would wake it");
            let turn = queue.poll(places, &oldest, Waker::noop(), 2);
            assert_eq!((turn, places.count()), (Turn::Acquired, 1));
            assert!(queue.is_unused());
        });
    }

    #[test]
    fn a_waiter_dropped_while_it_polls_takes_no_permit() {
        model(|| {
            let both = standing();
            let (queue, places) = &*both;
            let oldest = join(queue, places, 0);
            queue.poll(places, &oldest, Waker::noop(), 1);
            let newest = join(queue, places, 2);
            let there = both.clone();
            let releaser = thread::spawn(move || release(&there.0, &there.1, 3));
            let dropped = queue.poll(places, &oldest, Waker::noop(), 3);
            releaser.join().unwrap();
            assert_eq!(queue.waiting(), 0);
            // Unless the release was deciding on it just then, and has woken it since.
            if dropped != Turn::TooLate(None) {
                let dropped = queue.poll(places, &oldest, Waker::noop(), 3);
                assert_eq!(dropped, Turn::TooLate(None));
            }
            let turn = queue.poll(places, &newest, Waker::noop(), 3);
            assert_eq!((turn, places.count()), (Turn::Acquired, 1));
            assert!(queue.is_unused());
        });
    }

    #[test]
    fn a_newcomer_to_a_standing_queue_sees_a_release() {
        model(|| {
            let both = standing();
            let (queue, places) = &*both;
            let oldest = join(queue, places, 0);
            queue.poll(places, &oldest, Waker::noop(), 1);
            let there = both.clone();
            let releaser = thread::spawn(move || release(&there.0, &there.1, 2));
            let newest = queue.join(places, 1, BOUNDS, 2).unwrap();
            let first = queue.poll(places, &newest, Waker::noop(), 2);
            releaser.join().unwrap();
            // One of the two has the permit, and the other waits for its release.
            let [oldest, newest] =
                [(&oldest, false), (&newest, first == Turn::Acquired)].map(|(ticket, served)| {
                    served || queue.poll(places, ticket, Waker::noop(), 2) == Turn::Acquired
                });
            assert!(oldest != newest);
            assert_eq!((places.count(), queue.waiting()), (1, 1));
        });
    }
}

/// The first queue in a map of keys, and a change of that key's limit.
mod by_key {
    use super::{super::queue_count::QueueCount, *};

    #[test]
    fn a_change_and_a_first_queue_never_miss_each_other() {
        model(|| {
            // `found`: the map has the queue. `admits`: the limit admits a call. Both are Relaxed:
            // only the protocol orders them.
            let (found, admits) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let both = Arc::new((QueueCount::default(), found, admits));
            let there = both.clone();
            let changer = thread::spawn(move || {
                let (count, found, admits) = &*there;
                admits.store(1, Ordering::Relaxed);
                count.is_some_after_change() && found.load(Ordering::Relaxed) == 1
            });
            let (count, found, admits) = &*both;
            found.store(1, Ordering::Relaxed);
            count.added();
            let admitted = admits.load(Ordering::Relaxed) == 1;
            assert!(changer.join().unwrap() || admitted);
        });
    }
}
