//! How a map forgets a machine without losing what a caller has just done to it.
//!
//! A map may forget what is as good as new. But between "it is as good as new" and "it is out of
//! the map" a caller that has looked it up before may use it: it takes units of a limit which the
//! next caller of its key will not find, and that next caller gets a whole new burst. To count who
//! holds it does not help: a caller that counts looks before it acts.
//!
//! So the map marks it first and looks after that, and the caller uses it first and looks for the
//! mark after that. Each writes before it reads, with a fence between, so of the two at least one
//! sees the other: either the map finds it used, and keeps it; or the caller finds the mark, and
//! looks its key up anew.

use crate::sync::{AtomicBool, Ordering, fence};

/// The mark on one machine.
#[derive(Debug, Default)]
pub(crate) struct EvictionMark {
    /// Written before, and read after, a `SeqCst` fence. Without the two fences the mark and the
    /// use could each still be on their way while the other is looked for, and both be missed.
    mark: AtomicBool,
}

#[cfg_attr(
    not(feature = "layers"),
    allow(dead_code, reason = "only maps of layers forget")
)]
impl EvictionMark {
    /// The map's side: evicts it only if it is fresh even after it was marked. Of several threads
    /// that try, one does.
    pub(crate) fn evict_if(&self, is_fresh: impl FnOnce() -> bool) -> bool {
        // Relaxed: the fence below orders it. One that finds it set has lost to another thread that
        // looks, or has evicted already.
        if self.mark.swap(true, Ordering::Relaxed) {
            return false;
        }
        // Also if the look panics. A caller that has seen the mark meanwhile looks its key up anew
        // and finds the same machine.
        let mut stays = Stays(Some(&self.mark));
        fence(Ordering::SeqCst);
        if !is_fresh() {
            return false;
        }
        stays.0 = None;
        true
    }

    /// The caller's side, after it has used the machine: whether that was in vain.
    pub(crate) fn is_evicting(&self) -> bool {
        fence(Ordering::SeqCst);
        self.mark.load(Ordering::Relaxed)
    }
}

/// Takes the mark off again.
struct Stays<'a>(Option<&'a AtomicBool>);

impl Drop for Stays<'_> {
    fn drop(&mut self) {
        if let Some(mark) = self.0 {
            mark.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;
    use crate::algorithm::{Limit, Rate, TokenBucket};

    #[test]
    fn a_limit_that_is_forgotten_was_used_by_nobody_who_does_not_know() {
        loom::model(|| {
            let machine = Arc::new((
                TokenBucket::new(Rate::per_second(1), 1).unwrap(),
                EvictionMark::default(),
            ));
            let other = machine.clone();
            let caller = thread::spawn(move || {
                let (bucket, leaving) = &*other;
                bucket.acquire(1, 0).is_ok() && !leaving.is_evicting()
            });
            let (bucket, leaving) = &*machine;
            let forgotten = leaving.evict_if(|| bucket.is_fresh(0));
            let used = caller.join().unwrap();
            assert!(!(forgotten && used));
        });
    }
}
