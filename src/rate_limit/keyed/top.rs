//! The keys that are rejected most, in memory that never grows.
//!
//! A count for each key would grow with the keys. This is Space-Saving (Metwally, Agrawal and El
//! Abbadi, 2005), with a fixed number of counts. A key without a count takes over the lowest one,
//! with all that it has counted. A count is therefore never too low, and too high by at most what
//! it took over. A key with more than an even share of all rejections is always among them. All
//! counts are halved every minute, so that they show the present.

/// A key that is rejected often, as reported by
/// [`heavy_hitters`](super::KeyedRateLimitHandle::heavy_hitters).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopKey {
    /// The label from the layer's `heavy_hitters` closure.
    pub label: String,
    /// Rejections of the key. Each minute halves the earlier ones.
    pub rejections: u64,
    /// Rejections among them that may belong to other keys.
    pub uncertain: u64,
}

#[derive(Debug, Default)]
pub(super) struct Top {
    /// At most [`WATCHED`] entries.
    entries: Vec<(u64, TopKey)>,
    halved_at: u64,
}

impl Top {
    /// Counts a rejection if its key has a count. Returns whether it has one.
    pub(super) fn count_known(&mut self, hash: u64, now: u64) -> bool {
        self.halve(now);
        let known = self.entries.iter_mut().find(|(other, _)| *other == hash);
        known.map(|(_, entry)| entry.rejections += 1).is_some()
    }

    /// Counts a rejection. The label is made only if the key has no count yet.
    pub(super) fn count(&mut self, hash: u64, label: impl FnOnce() -> String, now: u64) {
        if self.count_known(hash, now) {
            return;
        }
        let label = shortened(label());
        if self.entries.len() < WATCHED {
            self.entries.push((
                hash,
                TopKey {
                    label,
                    rejections: 1,
                    uncertain: 0,
                },
            ));
        } else if let Some(lowest) = self
            .entries
            .iter_mut()
            .min_by_key(|(_, entry)| entry.rejections)
        {
            let inherited = lowest.1.rejections;
            *lowest = (
                hash,
                TopKey {
                    label,
                    rejections: inherited + 1,
                    uncertain: inherited,
                },
            );
        }
    }

    /// Returns the highest counts first.
    pub(super) fn highest(&mut self, most: usize, now: u64) -> Vec<TopKey> {
        self.halve(now);
        let mut keys: Vec<_> = self
            .entries
            .iter()
            .map(|(_, entry)| entry.clone())
            .collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.rejections));
        keys.truncate(most);
        keys
    }

    fn halve(&mut self, now: u64) {
        let times = now.saturating_sub(self.halved_at) / HALF_LIFE;
        if times == 0 {
            return;
        }
        self.halved_at += times * HALF_LIFE;
        let halved = |count: u64| {
            u32::try_from(times)
                .ok()
                .and_then(|times| count.checked_shr(times))
                .unwrap_or(0)
        };
        for (_, entry) in &mut self.entries {
            entry.rejections = halved(entry.rejections);
            entry.uncertain = halved(entry.uncertain);
        }
        self.entries.retain(|(_, entry)| entry.rejections > 0);
    }
}

/// Cuts a label. It may come from the client, and so be of any length.
fn shortened(mut label: String) -> String {
    label.truncate(
        (0..=LABEL.min(label.len()))
            .rev()
            .find(|end| label.is_char_boundary(*end))
            .unwrap_or(0),
    );
    label.shrink_to_fit();
    label
}

const WATCHED: usize = 128;
/// In bytes.
const LABEL: usize = 64;
const HALF_LIFE: u64 = 60_000_000_000;

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_minute_halves_the_counts_and_drops_zeros() {
        let mut top = Top::default();
        for (key, times) in [(1, 4), (2, 1)] {
            (0..times).for_each(|_| top.count(key, || key.to_string(), 0));
        }
        let counts = |top: &mut Top, minute| -> Vec<u64> {
            top.highest(9, minute * HALF_LIFE)
                .iter()
                .map(|key| key.rejections)
                .collect()
        };
        assert_eq!(counts(&mut top, 0), [4, 1]);
        assert_eq!(counts(&mut top, 1), [2]);
        assert_eq!(counts(&mut top, 2), [1]);
        assert!(counts(&mut top, 1_000_000).is_empty());
    }

    #[test]
    fn a_label_is_cut_between_two_characters() {
        assert_eq!(shortened("ä".repeat(1000)), "ä".repeat(32));
        assert_eq!(shortened("aä".repeat(1000)).len(), 64);
        assert_eq!(shortened(format!("aaa{}", "ä".repeat(99))).len(), 63);
        assert_eq!(shortened("short".into()), "short");
    }

    proptest! {
        #[test]
        fn counts_are_never_low_and_high_by_their_uncertainty(
            keys in prop::collection::vec(prop_oneof![0u64..5, 0u64..1000], 0..3000),
        ) {
            let (mut top, mut exact) = (Top::default(), HashMap::<String, u64>::new());
            for key in &keys {
                top.count(*key, || key.to_string(), 0);
                *exact.entry(key.to_string()).or_default() += 1;
            }
            let told = top.highest(usize::MAX, 0);
            prop_assert!(told.len() <= WATCHED);
            for key in &told {
                let exact = exact[&key.label];
                prop_assert!(key.rejections >= exact && key.rejections - key.uncertain <= exact);
            }
            for (label, count) in exact {
                prop_assert!(count <= (keys.len() / WATCHED) as u64 || told.iter().any(|key| key.label == label));
            }
        }
    }
}
