//! What builders of keyed layers have in common.

use std::{fmt, hash::Hash};

use crate::{
    ConfigError,
    algorithm::Overflow,
    keyed::{HasKey, KeyTexts, Missing},
};

/// A builder's state: one for all calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotKeyed;

/// A builder's state: one for each key that a closure finds.
pub struct ByKey<F: HasKey> {
    pub(crate) key: F,
    pub(crate) texts: KeyTexts<F::Key>,
}

/// The settings that keys add. They may be made before or after the key is; a layer without keys
/// rejects them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KeySettings {
    pub(crate) max_keys: Option<usize>,
    pub(crate) overflow: Option<Overflow>,
    pub(crate) missing: Option<Missing>,
    /// Whether the key is one that no request has. Set by stacks.
    pub(crate) all_share: bool,
    /// The number of keys that are labels in metrics.
    pub(crate) label_keys: Option<usize>,
}

impl<F: HasKey<Key: Hash>> ByKey<F> {
    pub(crate) fn new(key: F) -> Self {
        let texts = KeyTexts::redacted();
        Self { key, texts }
    }
}

impl KeySettings {
    /// How many keys are kept, if that is set to something that can work.
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

    /// Returns the number of keys that are labels in metrics, if it can work.
    pub(crate) fn label_keys(&self) -> Result<Option<usize>, ConfigError> {
        match self.label_keys {
            Some(keys) if !(1..=MAX_LABELS).contains(&keys) => {
                let fix = "label 1 to 256 keys, or leave it: each is some ten series";
                Err(ConfigError::new("label_keys", keys, fix))
            }
            keys => Ok(keys),
        }
    }

    /// Nothing of this is set: there are no keys.
    pub(crate) fn unset(&self) -> Result<(), ConfigError> {
        let fix = "set a key too, with `keyed_by` or `per_key`, or leave it";
        if let Some(max_keys) = self.max_keys {
            return Err(ConfigError::new("max_keys", max_keys, fix));
        }
        if let Some(keys) = self.label_keys {
            return Err(ConfigError::new("label_keys", keys, fix));
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

/// As many as somebody can tell apart in a graph, and more.
const MAX_LABELS: usize = 256;
