//! Evicts a partition from a keyed map without losing what a caller has just done to it.
//!
//! A map may evict a partition that is fresh. But between the check that it is fresh and its
//! removal, a caller that has looked it up before may use it. That caller takes units of a limit
//! which the next caller of the key will not find, so the next one gets a whole new burst. Counting
//! the holders of a partition does not help, because a caller that counts does so before it acts.
//!
//! So the map marks the partition first and then checks that it is fresh. The caller uses it first
//! and then checks for the mark. Each writes before it reads, with a fence between, so at least one
//! of the two sees the other. Either the map finds the partition used, and keeps it, or the caller
//! finds the mark, and looks its key up again.

use crate::sync::{AtomicBool, Ordering, fence};

/// The eviction mark of one partition.
#[derive(Debug, Default)]
pub(crate) struct EvictionMark {
    /// Written before a `SeqCst` fence, and read after one. Without both fences, the mark and the
    /// use could each still be in a store buffer while the other side reads, and both be missed.
    mark: AtomicBool,
}

#[cfg_attr(
    not(feature = "layers"),
    allow(dead_code, reason = "only maps of layers forget")
)]
impl EvictionMark {
    /// Sets the mark, on the map's side. Returns whether the partition is fresh even then, and so
    /// may be evicted. Of several threads that try, one succeeds at most.
    pub(crate) fn evict_if(&self, is_fresh: impl FnOnce() -> bool) -> bool {
        // Relaxed: the fence below orders it. A thread that finds it set has lost to another that
        // is checking, or that has evicted already.
        if self.mark.swap(true, Ordering::Relaxed) {
            return false;
        }
        // Clears the mark also if the check panics. A caller that has seen the mark meanwhile looks
        // its key up again and finds the same partition.
        let mut stays = Stays(Some(&self.mark));
        fence(Ordering::SeqCst);
        if !is_fresh() {
            return false;
        }
        stays.0 = None;
        true
    }

    /// Returns, on the caller's side and after its use of the partition, whether that may be lost.
    pub(crate) fn is_evicting(&self) -> bool {
        fence(Ordering::SeqCst);
        self.mark.load(Ordering::Relaxed)
    }
}

/// Clears the mark on drop, unless the partition is evicted.
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
    fn no_use_of_an_evicted_limit_goes_unnoticed() {
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
