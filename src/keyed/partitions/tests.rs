use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Barrier, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize},
    },
};

use super::*;

/// The gate of a key: a number that calls raise, and that handles watch or hold.
#[derive(Debug, Default)]
struct Used(Arc<AtomicUsize>, Hold);

impl Evict for Used {
    fn is_fresh(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn is_held(&self) -> bool {
        self.1.is_shared()
    }

    fn is_watched(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// A factory that counts how many gates it makes.
#[derive(Debug, Default)]
struct Makes(AtomicUsize);

impl<K> Factory<K, Used> for Makes {
    fn make(&self, _: &K) -> Result<Used, ConfigError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Used::default())
    }
}

type Keys = Partitions<u32, Used>;

/// Makes a call of a key, which ends at once.
fn call(keys: &Keys, key: u32) -> bool {
    keys.find_or_make(&key, &Makes::default()).is_some()
}

/// Adds a key that stays, because it is used.
fn stays(keys: &Keys, key: u32) {
    let partition = keys.find_or_make(&key, &Makes::default()).unwrap();
    partition.gate().0.store(1, Ordering::Relaxed);
}

fn all(keys: &Keys) -> Vec<u32> {
    keys.collect(|key, _| *key)
}

#[test]
fn the_search_for_a_candidate_wraps() {
    let keys = Keys::new(3);
    assert!((0..3).all(|key| call(&keys, key)));
    // The hand has gone around after each third key. Wherever it is, slots before it are found too.
    for (key, evicted) in [(3, 0), (4, 1), (5, 2), (6, 3)] {
        assert!(call(&keys, key));
        assert!(keys.find(&evicted).is_none() && keys.find(&key).is_some());
    }
    stays(&keys, 4);
    stays(&keys, 5);
    // Only the last slot is idle, and the hand is at the one after it.
    assert!((7..20).all(|key| call(&keys, key)));
    assert_eq!(all(&keys), [4, 5, 19]);
}

#[test]
fn a_flood_looks_at_eight_and_makes_nothing() {
    let (keys, makes) = (Keys::new(100), Makes::default());
    (0..100).for_each(|key| stays(&keys, key));
    assert!((100..200).all(|key| keys.find_or_make(&key, &makes).is_none()));
    assert_eq!(makes.0.load(Ordering::Relaxed), 0);
    assert_eq!(all(&keys), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_listed_key_gives_its_place_up() {
    let keys = Keys::new(4);
    assert!((0..4).all(|key| call(&keys, key)));
    // New keys arrive during a visit of all keys.
    let mut next = 4;
    keys.each(|_, _| {
        assert!(call(&keys, next), "{next}");
        next += 1;
    });
    assert_eq!(all(&keys), [4, 5, 6, 7]);
}

#[test]
fn what_a_handle_holds_keeps_its_place() {
    let keys = Keys::new(1);
    let made = keys.find_or_make(&0, &Makes::default()).unwrap();
    let held = made.gate().1.clone();
    drop(made);
    assert!(!call(&keys, 1) && all(&keys) == [0]);
    drop(held);
    assert!(call(&keys, 1) && all(&keys) == [1]);
}

#[test]
fn what_a_list_watches_gives_its_place_up_and_stays() {
    let keys = Keys::new(2);
    let handles: Vec<_> = (0..2)
        .map(|key| {
            let made = keys.find_or_make(&key, &Makes::default());
            made.unwrap().gate().0.clone()
        })
        .collect();
    assert!(call(&keys, 2) && call(&keys, 3));
    for (key, handle) in handles.iter().enumerate() {
        let key = u32::try_from(key).unwrap();
        let found = keys.find_lasting(&key).unwrap();
        assert!(Arc::ptr_eq(&found.gate().0, handle), "{key}");
    }
    drop(handles);
    // Partitions that no handle holds any more are soon removed.
    assert!((4..10).all(|key| call(&keys, key)));
    assert_eq!(all(&keys), [8, 9]);
}

#[test]
fn what_is_used_and_watched_keeps_its_place() {
    let keys = Keys::new(1);
    stays(&keys, 0);
    let handle = keys.find(&0).unwrap().gate().0.clone();
    assert!(!call(&keys, 1) && all(&keys) == [0]);
    handle.store(0, Ordering::Relaxed);
    assert!(call(&keys, 1) && all(&keys) == [0, 1]);
}

#[test]
fn what_is_held_while_it_is_looked_at_keeps_its_place() {
    /// A handle is created while the gate is asked.
    struct Caught(Hold, OnceLock<Hold>);

    impl Evict for Caught {
        fn is_fresh(&self) -> bool {
            self.1.get_or_init(|| self.0.clone());
            true
        }

        fn is_held(&self) -> bool {
            self.0.is_shared()
        }
    }

    struct Makes;

    impl Factory<u32, Caught> for Makes {
        fn make(&self, _: &u32) -> Result<Caught, ConfigError> {
            Ok(Caught(Hold::default(), OnceLock::new()))
        }
    }

    let keys = Partitions::new(1);
    assert!(keys.find_or_make(&0, &Makes).is_some());
    assert!(keys.find_or_make(&1, &Makes).is_none());
    assert!(keys.find(&0).is_some());
}

#[test]
fn no_more_than_as_many_again_are_watched() {
    let (keys, mut handles) = (Keys::new(1), Vec::new());
    for key in 0..=1000 {
        assert!(call(&keys, key));
        handles.extend(keys.find(&key).map(|partition| partition.gate().0.clone()));
    }
    assert!(!call(&keys, 1001));
    assert_eq!(all(&keys).len(), 1001);
    drop(handles);
    assert!((2000..2500).all(|key| call(&keys, key)));
    assert_eq!(all(&keys), [2499]);
}

#[test]
fn what_is_used_after_it_gave_its_place_up_stays() {
    let keys = Keys::new(1);
    let made = keys.find_or_make(&0, &Makes::default()).unwrap();
    let handle = made.gate().0.clone();
    drop(made);
    assert!(call(&keys, 1));
    handle.store(1, Ordering::Relaxed);
    drop(handle);
    assert!((2..9).all(|key| call(&keys, key)));
    assert_eq!(all(&keys), [0, 8]);
    keys.find(&0).unwrap().gate().0.store(0, Ordering::Relaxed);
    assert!((9..12).all(|key| call(&keys, key)));
    assert_eq!(all(&keys), [11]);
}

/// Counts the calls of some threads that get no slot. Each call has a new key, and ends at once.
fn refused(keys: &Keys, threads: u32) -> usize {
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..threads {
            let refused = &refused;
            scope.spawn(move || {
                for key in 0..20_000 {
                    if !call(keys, key * threads + thread) {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    refused.into_inner()
}

#[test]
fn newcomers_refuse_each_other_no_idle_place() {
    for (places, threads) in [(2, 2), (8, 2), (4, 4)] {
        assert_eq!(refused(&Keys::new(places), threads), 0, "{places}");
    }
}

/// The steps of two new keys that check the only candidate.
#[derive(Debug, Default)]
struct Meeting(Mutex<[bool; 3]>, Condvar);

const FIRST_LOOKS: usize = 0;
const SECOND_LOOKED: usize = 1;
const FIRST_IS_DONE: usize = 2;

impl Meeting {
    fn reach(&self, step: usize) {
        self.0.lock().unwrap()[step] = true;
        self.1.notify_all();
    }

    fn wait_for(&self, step: usize) {
        let steps = self.0.lock().unwrap();
        drop(self.1.wait_while(steps, |steps| !steps[step]).unwrap());
    }
}

#[test]
fn a_newcomer_leaves_a_candidate_to_the_one_before_it() {
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(0) });

    struct Meets(Arc<Meeting>);

    impl Evict for Meets {
        fn is_fresh(&self) -> bool {
            match NUMBER.replace(0) {
                1 => {
                    self.0.reach(FIRST_LOOKS);
                    self.0.wait_for(SECOND_LOOKED);
                }
                2 => {
                    // Checking it would make the candidate look used until the first has given up.
                    self.0.reach(SECOND_LOOKED);
                    self.0.wait_for(FIRST_IS_DONE);
                }
                _ => {}
            }
            true
        }
    }

    impl Factory<u32, Meets> for Arc<Meeting> {
        fn make(&self, _: &u32) -> Result<Meets, ConfigError> {
            Ok(Meets(self.clone()))
        }
    }

    let (keys, meeting) = (Partitions::new(1), Arc::<Meeting>::default());
    assert!(keys.find_or_make(&0, &meeting).is_some());
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            NUMBER.set(1);
            let found = keys.find_or_make(&1, &meeting).is_some();
            meeting.reach(FIRST_IS_DONE);
            found
        });
        meeting.wait_for(FIRST_LOOKS);
        NUMBER.set(2);
        keys.find_or_make(&2, &meeting);
        meeting.reach(SECOND_LOOKED);
        assert!(first.join().unwrap(), "the place was idle");
    });
}

#[test]
fn no_list_of_all_keys_refuses_a_newcomer() {
    let (keys, stop) = (Keys::new(8), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drop(keys.collect(|key, used| (*key, used.0.clone())));
            }
        });
        assert_eq!(refused(&keys, 2), 0);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn two_first_calls_of_a_key_find_one_place() {
    for _ in 0..300 {
        let (keys, barrier) = (Keys::new(1), Barrier::new(3));
        let found: Vec<_> = thread::scope(|scope| {
            let threads = [(); 3].map(|()| {
                scope.spawn(|| {
                    barrier.wait();
                    keys.find_or_make(&7, &Makes::default())
                })
            });
            threads.map(|thread| thread.join().unwrap()).into()
        });
        let first = found[0].as_ref().expect("there is a place for it");
        assert!(
            found
                .iter()
                .all(|other| Arc::ptr_eq(other.as_ref().unwrap(), first))
        );
    }
}

/// A second call arrives while the first one makes the key's gate.
#[test]
fn who_comes_while_a_gate_is_made_makes_it_too() {
    struct Nested<'a>(&'a Keys, Makes);

    impl Factory<u32, Used> for Nested<'_> {
        fn make(&self, key: &u32) -> Result<Used, ConfigError> {
            let second = self.0.find_or_make(key, &self.1).expect("it has a place");
            second.gate().0.store(1, Ordering::Relaxed);
            Ok(Used::default())
        }
    }

    let keys = Keys::new(1);
    let first = keys
        .find_or_make(&7, &Nested(&keys, Makes::default()))
        .unwrap();
    // The gate that was there first, with its changes.
    assert_eq!(first.gate().0.load(Ordering::Relaxed), 1);
}

#[test]
fn a_gate_that_cannot_be_made_keeps_no_place() {
    struct Fails;

    impl Factory<u32, Used> for Fails {
        fn make(&self, key: &u32) -> Result<Used, ConfigError> {
            assert!(*key != 1, "as a closure may");
            Err(ConfigError::new("limit", key, "make another"))
        }
    }

    let keys = Keys::new(1);
    assert!(keys.find_or_make(&0, &Fails).is_none());
    assert!(catch_unwind(AssertUnwindSafe(|| keys.find_or_make(&1, &Fails))).is_err());
    assert!(keys.find(&1).is_none() && keys.find_lasting(&1).is_none() && all(&keys).is_empty());
    assert!(call(&keys, 2) && call(&keys, 1));
    assert_eq!(all(&keys), [1]);
}

/// A user's key, which may panic when it is hashed or compared.
#[derive(Debug, Clone)]
struct Own(u32);

thread_local!(static PANICS: Cell<bool> = const { Cell::new(false) });

fn maybe_panic() {
    assert!(!PANICS.get(), "as user code may");
}

impl Hash for Own {
    fn hash<H: Hasher>(&self, state: &mut H) {
        maybe_panic();
        // All in one bucket.
        0_u32.hash(state);
    }
}

impl PartialEq for Own {
    fn eq(&self, other: &Self) -> bool {
        maybe_panic();
        self.0 == other.0
    }
}

impl Eq for Own {}

#[test]
fn keys_that_panic_once_stop_no_later_call() {
    let (keys, makes) = (Partitions::<Own, Used>::new(2), Makes::default());
    let call = |key| keys.find_or_make(&Own(key), &makes).is_some();
    assert!(call(0) && call(1));
    for key in 2..10 {
        PANICS.set(true);
        assert!(catch_unwind(AssertUnwindSafe(|| call(key))).is_err());
        PANICS.set(false);
        // Calls of other keys and of this one, and of keys that it evicts.
        assert!((0..10).all(call));
        assert!(keys.find_lasting(&Own(9)).is_some());
    }
}

#[test]
fn no_key_is_hashed_or_compared_to_evict_it() {
    let (keys, makes) = (Partitions::<Own, Used>::new(1), Makes::default());
    assert!(keys.find_or_make(&Own(0), &makes).is_some());
    let partition = keys.find(&Own(0)).unwrap();
    PANICS.set(true);
    let fate = keys.evict(&partition, 3);
    PANICS.set(false);
    assert_eq!(fate, Fate::Evicted);
    assert!(keys.find(&Own(0)).is_none());
}

/// A user's limit that asks the layer for its key while it is asked whether it is fresh.
#[test]
fn a_gate_that_looks_up_its_own_key_does_not_hang() {
    struct Asks(Arc<OnceLock<Partitions<u32, Self>>>);

    impl Evict for Asks {
        fn is_fresh(&self) -> bool {
            let keys = self.0.get().expect("there since the start");
            let _ = keys.find_lasting(&0);
            true
        }
    }

    struct Makes(Arc<OnceLock<Partitions<u32, Asks>>>);

    impl Factory<u32, Asks> for Makes {
        fn make(&self, _: &u32) -> Result<Asks, ConfigError> {
            Ok(Asks(self.0.clone()))
        }
    }

    let makes = Makes(Arc::new(OnceLock::new()));
    let keys = makes.0.get_or_init(|| Partitions::new(1));
    assert!(keys.find_or_make(&0, &makes).is_some());
    assert!(keys.find_or_make(&1, &makes).is_some());
}

#[test]
fn a_key_is_kept_once_and_dropped_with_its_place() {
    struct Counted(u32, Arc<AtomicUsize>);

    impl Clone for Counted {
        fn clone(&self) -> Self {
            self.1.fetch_add(1, Ordering::Relaxed);
            Self(self.0, self.1.clone())
        }
    }

    impl Hash for Counted {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    impl PartialEq for Counted {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }

    impl Eq for Counted {}

    let (keys, copies) = (Partitions::<_, Used>::new(9), Arc::default());
    let key = Counted(7, copies);
    for _ in 0..3 {
        keys.find_or_make(&key, &Makes::default()).unwrap();
    }
    assert_eq!(key.1.load(Ordering::Relaxed), 1);
}
