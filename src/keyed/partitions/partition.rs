//! One key's gate.

use std::{fmt, sync::OnceLock};

use crate::algorithm::EvictionMark;

/// A key, and the gate that is its own.
pub(crate) struct Partition<K, G> {
    pub(super) key: K,
    pub(super) hash: u64,
    /// In the order in which they came.
    pub(super) number: u64,
    /// Empty until it is made, by the first caller that finds it so.
    pub(super) gate: OnceLock<G>,
    pub(super) mark: EvictionMark,
}

/// What becomes of a candidate.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    /// It is out of the map.
    Evicted,
    /// It is fresh, and only a handle of a list watches it.
    Parked,
}

impl<K, G> Partition<K, G> {
    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    /// The hash of its key, by the map's own hashing.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// The gate of a partition that was found.
    #[inline]
    pub(crate) fn gate(&self) -> &G {
        match self.gate.get() {
            Some(gate) => gate,
            None => unreachable!("it is found once it was made"),
        }
    }

    /// Whether the map evicts it, so that what was done to it since it was found is lost. Ask
    /// after that.
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
