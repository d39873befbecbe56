//! What builders of keyed layers have in common.

use std::fmt;

use crate::{ConfigError, algorithm::Overflow, keyed::Missing};

/// A builder's state: one for all calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotKeyed;

/// A builder's state: one for each key that a closure finds.
#[derive(Clone)]
pub struct ByKey<F> {
    pub(crate) key: F,
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
}

impl<F> ByKey<F> {
    pub(crate) fn new(key: F) -> Self {
        Self { key }
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

    /// Nothing of this is set: there are no keys.
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

impl<F> fmt::Debug for ByKey<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByKey")
    }
}
