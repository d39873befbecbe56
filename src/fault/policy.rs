//! The switches and the snapshot of a layer.

use std::{collections::BTreeMap, time::Duration};

use crate::ConfigError;

/// The switches of a layer, which can change at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FaultPolicy {
    /// If false, it injects nothing, cannot be started, and stops if it runs. Default `true`.
    pub enabled: bool,
    /// If true, it injects nothing, and counts what it would inject. Default `false`.
    pub shadow: bool,
    /// The most calls that are affected at the same time. More are spared. Default 100.
    pub max_active: usize,
}

/// The numbers of faults at one moment.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// The reason given to the layer.
    pub reason: &'static str,
    /// The rest of the run. `None` if no faults are injected now.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::config::seconds::if_any")
    )]
    pub remaining: Option<Duration>,
    /// The switches.
    pub policy: FaultPolicy,
    /// Calls that are affected now.
    pub active: usize,
    /// Faults that were injected so far, by their names.
    pub injected: BTreeMap<&'static str, u64>,
    /// Faults that would have been injected so far in shadow mode, by their names.
    pub would_inject: BTreeMap<&'static str, u64>,
    /// Calls that were spared so far, because enough others were affected.
    pub spared: u64,
}

impl Default for FaultPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            shadow: false,
            max_active: 100,
        }
    }
}

impl FaultPolicy {
    pub(super) fn checked(self) -> Result<Self, ConfigError> {
        if self.max_active > 0 {
            return Ok(self);
        }
        let fix = "let at least 1 call suffer, or switch it off by `enabled`";
        Err(ConfigError::new("max_active", 0, fix))
    }
}
