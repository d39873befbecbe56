//! The parts that the builders of keyed layers share.

use std::{fmt, hash::Hash};

use crate::{
    ConfigError,
    algorithm::Overflow,
    keyed::{HasKey, KeyTexts, Missing},
};

/// The type parameter of a builder without keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotKeyed;

/// The type parameter of a builder with a key, which a closure finds.
pub struct ByKey<F: HasKey> {
    pub(crate) key: F,
    pub(crate) texts: KeyTexts<F::Key>,
}

/// A builder's state: requests have keys. The settings of keys exist only in such a state.
pub trait KeyIsSet: sealed::KeyIsSet {}

/// The settings that keys add. A builder without a key has none from code: they come from a file or
/// from a stack, which sets the key itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KeySettings {
    pub(crate) max_keys: Option<usize>,
    pub(crate) overflow: Option<Overflow>,
    pub(crate) missing: Option<Missing>,
    /// If true, no request has a key. Set by stacks.
    pub(crate) all_share: bool,
    /// The number of keys that are labels in metrics.
    pub(crate) label_keys: Option<usize>,
}

impl<K: sealed::KeyIsSet> KeyIsSet for K {}

impl<F: HasKey> sealed::KeyIsSet for ByKey<F> {}

impl<F: HasKey<Key: Hash>> ByKey<F> {
    pub(crate) fn new(key: F) -> Self {
        let texts = KeyTexts::redacted();
        Self { key, texts }
    }
}

impl KeySettings {
    /// Fills what is not set with `defaults`.
    #[cfg(any(feature = "http", feature = "serde"))]
    pub(crate) fn or(&mut self, defaults: Self) {
        self.max_keys = self.max_keys.or(defaults.max_keys);
        self.overflow = self.overflow.or(defaults.overflow);
        self.missing = self.missing.or(defaults.missing);
        self.all_share |= defaults.all_share;
        self.label_keys = self.label_keys.or(defaults.label_keys);
    }

    /// Returns the number of keys that are kept, or an error if it is 0.
    pub(crate) fn max_keys(&self, default: usize) -> Result<usize, ConfigError> {
        match self.max_keys {
            Some(0) => Err(ConfigError::new(
                "max_keys",
                0,
                "keep at least 1, or leave the key out",
            )),
            max_keys => Ok(max_keys.unwrap_or(default)),
        }
    }

    /// Returns the number of keys that are labels in metrics, or an error if it is out of range.
    pub(crate) fn label_keys(&self) -> Result<Option<usize>, ConfigError> {
        match self.label_keys {
            Some(keys) if !(1..=MAX_LABELS).contains(&keys) => {
                let fix = "label 1 to 256 keys, or leave it: each is some ten series";
                Err(ConfigError::new("label_keys", keys, fix))
            }
            keys => Ok(keys),
        }
    }

    /// Returns an error if a file sets any of these for a layer without keys.
    pub(crate) fn unset(&self) -> Result<(), ConfigError> {
        let fix = "set a key too, with `keyed_by` or `per_key`, or leave it";
        if let Some(max_keys) = self.max_keys {
            return Err(ConfigError::new("max_keys", max_keys, fix));
        }
        if let Some(overflow) = self.overflow {
            return Err(ConfigError::new("overflow", overflow, fix));
        }
        self.missing.map_or(Ok(()), |missing| {
            Err(ConfigError::new("missing", missing, fix))
        })
    }
}

impl<F: HasKey + Clone> Clone for ByKey<F> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            texts: self.texts.clone(),
        }
    }
}

impl<F: HasKey> fmt::Debug for ByKey<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByKey")
    }
}

/// Nobody else can say that a builder has a key.
pub(crate) mod sealed {
    pub trait KeyIsSet {}
}

/// The maximum number of labels, which is more than can be told apart in a graph.
const MAX_LABELS: usize = 256;
