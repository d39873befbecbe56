//! The numbers of timeouts, by which calls find a state that they do not hold.

use std::{
    any::Any,
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

/// A state's number. `None` if the numbers are used up: then all calls hold the state. On drop, the
/// state is found no longer.
#[derive(Debug)]
pub(super) struct Number(Option<u32>);

/// A state of any type: this file is beneath that of the states.
type AnyState = dyn Any + Send + Sync;

impl Number {
    /// Takes a number that no other state has had.
    pub(super) fn next() -> Self {
        // Relaxed: the numbers only have to differ.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |number| {
            number.checked_add(1)
        });
        Self(next.ok())
    }

    #[inline]
    pub(super) fn get(&self) -> Option<u32> {
        self.0
    }

    /// Makes the state known by its number.
    pub(super) fn register(&self, state: &Arc<impl Any + Send + Sync>) {
        if let Some(number) = self.0 {
            let state: Weak<AnyState> = Arc::downgrade(state) as Weak<AnyState>;
            states().insert(number, state);
        }
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        if let Some(number) = self.0 {
            states().remove(&number);
        }
    }
}

/// Returns the state of a number, unless it was dropped.
pub(super) fn find(number: u32) -> Option<Arc<AnyState>> {
    // Upgraded under the lock, and dropped after it: the last reference takes the lock.
    states().get(&number).and_then(Weak::upgrade)
}

/// Returns the states by their numbers. Locked when a layer is built or dropped, and by calls whose
/// time is over.
fn states() -> MutexGuard<'static, HashMap<u32, Weak<AnyState>>> {
    static STATES: LazyLock<Mutex<HashMap<u32, Weak<AnyState>>>> = LazyLock::new(Mutex::default);
    STATES.lock().unwrap_or_else(PoisonError::into_inner)
}
