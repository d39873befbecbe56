//! Virtual time: events in order, and random numbers that are the same in every run.
#![allow(
    dead_code,
    clippy::cast_possible_truncation,
    reason = "figures of a simulation, of which the test uses a part"
)]

use std::{cmp::Reverse, collections::BinaryHeap};

/// What is to happen, the earliest first; of two at one time, that which was planned first.
pub(crate) struct Events<E> {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    kinds: Vec<Option<E>>,
    free: Vec<usize>,
    planned: u64,
}

/// A generator of the kind of `SplitMix64`.
pub(crate) struct Random(u64);

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000 * MS;

impl<E> Events<E> {
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            kinds: Vec::new(),
            free: Vec::new(),
            planned: 0,
        }
    }

    pub(crate) fn plan(&mut self, at: u64, event: E) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.kinds.push(None);
            self.kinds.len() - 1
        });
        self.kinds[slot] = Some(event);
        // The order of planning above, the slot below.
        self.heap
            .push(Reverse((at, self.planned << 24 | slot as u64)));
        self.planned += 1;
    }

    pub(crate) fn next(&mut self) -> Option<(u64, E)> {
        let Reverse((at, key)) = self.heap.pop()?;
        let slot = usize::try_from(key & 0xFF_FFFF).unwrap();
        self.free.push(slot);
        Some((at, self.kinds[slot].take().unwrap()))
    }
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// From 0 up to 1, without 0.
    pub(crate) fn share(&mut self) -> f64 {
        ((self.word() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Nanoseconds with an exponential distribution.
    pub(crate) fn exponential(&mut self, mean: f64) -> u64 {
        (-self.share().ln() * mean) as u64
    }
}
