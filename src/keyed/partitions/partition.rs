//! The gate of one key.

use std::{fmt, sync::OnceLock};

use crate::algorithm::EvictionMark;

/// A key and its own gate.
pub(crate) struct Partition<K, G> {
    pub(super) key: K,
    pub(super) hash: u64,
    /// The order of creation.
    pub(super) number: u64,
    /// Empty until the first caller that finds it empty has made it.
    pub(super) gate: OnceLock<G>,
    pub(super) mark: EvictionMark,
}

/// The fate of a candidate for eviction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    /// Removed from the map.
    Evicted,
    /// Fresh, but watched by a handle from a list.
    Parked,
}

impl<K, G> Partition<K, G> {
    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    /// Returns the hash of its key, as the map computes it.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Returns the gate of a partition that was found.
    #[inline]
    pub(crate) fn gate(&self) -> &G {
        match self.gate.get() {
            Some(gate) => gate,
            None => unreachable!("it is found once it was made"),
        }
    }

    /// Returns whether the map evicts it, so that changes made since it was found are lost. Call
    /// this after the changes.
    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        self.mark.is_evicting()
    }
}

impl<K, G: fmt::Debug> fmt::Debug for Partition<K, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("gate", &self.gate.get())
            .finish_non_exhaustive()
    }
}
