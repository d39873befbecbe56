//! The keys of a layer at one moment: those in the worst state.

use crate::{
    algorithm::{BreakerState, Counts},
    observe::Totals,
};

/// One key of a layer.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeyInstance {
    /// The key as the layer's builder shows it: redacted to `#` and a hash, unless `show_keys` was
    /// set.
    pub key: String,
    /// Its state.
    pub state: KeyState,
    /// The counts since the key was first tracked.
    pub totals: Totals,
    /// Its label in metrics, if it has one.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) label: Option<&'static str>,
}

/// The state of one key.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum KeyState {
    /// The circuit of a key.
    Circuit {
        /// Its state.
        state: BreakerState,
        /// The seconds since it left the closed state, or `None` while it is closed.
        open_for: Option<f64>,
        /// The contents of its window.
        window: Counts,
    },
    /// The bulkhead of a key.
    Bulkhead {
        /// The calls in flight.
        in_flight: u64,
        /// The most calls allowed in flight.
        limit: u64,
        /// The calls in the wait queue.
        queued: u64,
    },
    /// The throttle of a key.
    Throttle {
        /// The probability that a call is rejected.
        probability: f64,
    },
}

impl KeyState {
    /// Returns how bad the key's state is. 0 is healthy.
    pub(crate) fn badness(&self) -> f64 {
        match self {
            Self::Circuit { state, window, .. } => {
                let by_state = match state {
                    BreakerState::Open | BreakerState::ForcedOpen => 2.0,
                    BreakerState::HalfOpen => 1.5,
                    _ => 0.0,
                };
                by_state + window.failure_rate().max(window.slow_rate())
            }
            Self::Bulkhead {
                in_flight, limit, ..
            } => used(*in_flight, *limit),
            Self::Throttle { probability } => *probability,
        }
    }
}

/// Returns the share of a limit that is in use.
#[expect(clippy::cast_precision_loss, reason = "a ratio for people to read")]
pub(crate) fn used(in_flight: u64, limit: u64) -> f64 {
    in_flight as f64 / limit.max(1) as f64
}

/// A collection of the keys in the worst state. It formats only the keys that it keeps.
pub(crate) struct Worst {
    keys: Vec<(f64, KeyInstance)>,
    max: usize,
}

impl Worst {
    pub(crate) fn of(max: usize) -> Self {
        Self {
            keys: Vec::new(),
            max,
        }
    }

    /// Offers a key without a label.
    pub(crate) fn offer(&mut self, state: KeyState, make: impl FnOnce() -> (String, Totals)) {
        let badness = state.badness();
        let place = self.keys.partition_point(|(other, _)| *other >= badness);
        if place >= self.max {
            return;
        }
        let (key, totals) = make();
        self.put(place, badness, (key, None), (state, totals));
    }

    /// Offers a key with a label. If several share a label, the worst is kept.
    pub(crate) fn offer_labelled(
        &mut self,
        label: &'static str,
        state: KeyState,
        make: impl FnOnce() -> (String, Totals),
    ) {
        let badness = state.badness();
        let same = self.keys.iter();
        let same = same
            .map(|(_, key)| key.label)
            .position(|of| of == Some(label));
        if let Some(same) = same {
            if self.keys[same].0 >= badness {
                return;
            }
            self.keys.remove(same);
        }
        let place = self.keys.partition_point(|(other, _)| *other >= badness);
        let (key, totals) = make();
        self.put(place, badness, (key, Some(label)), (state, totals));
    }

    fn put(
        &mut self,
        place: usize,
        badness: f64,
        (key, label): (String, Option<&'static str>),
        (state, totals): (KeyState, Totals),
    ) {
        let instance = KeyInstance {
            key,
            state,
            totals,
            label,
        };
        self.keys.insert(place, (badness, instance));
        if label.is_none() {
            self.keys.truncate(self.max);
        }
    }

    /// Returns the keys, the worst first.
    pub(crate) fn into_keys(self) -> Vec<KeyInstance> {
        self.keys.into_iter().map(|(_, key)| key).collect()
    }
}

/// The label of keys that have no label of their own, and the key shown for what they share.
pub(crate) const OTHER_KEYS: &str = "other";

/// The most keys shown per layer, unless they have labels.
pub(crate) const SHOWN_KEYS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn throttled(probability: f64) -> KeyState {
        KeyState::Throttle { probability }
    }

    #[test]
    fn the_worst_keys_are_kept_in_order() {
        let mut worst = Worst::of(2);
        let mut made = 0;
        for (key, probability) in [("a", 0.1), ("b", 0.5), ("c", 0.0), ("d", 0.3)] {
            worst.offer(throttled(probability), || {
                made += 1;
                (key.to_owned(), Totals::default())
            });
        }
        let keys: Vec<_> = worst.into_keys().into_iter().map(|key| key.key).collect();
        assert_eq!(keys, ["b", "d"]);
        assert_eq!(made, 3, "`c` was asked for its text");
    }

    #[test]
    fn keys_that_share_a_label_show_the_worst() {
        let mut worst = Worst::of(2);
        for (label, probability) in [("a", 0.1), (OTHER_KEYS, 0.2), (OTHER_KEYS, 0.7), ("b", 0.0)] {
            worst.offer_labelled(label, throttled(probability), || {
                (label.to_owned(), Totals::default())
            });
        }
        let keys = worst.into_keys();
        let labels: Vec<_> = keys.iter().filter_map(|key| key.label).collect();
        assert_eq!(labels, [OTHER_KEYS, "a", "b"]);
        assert_eq!(keys[0].state, throttled(0.7));
    }
}
