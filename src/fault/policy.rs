//! The switches of a layer, and what it shows.

use std::{collections::BTreeMap, time::Duration};

use crate::ConfigError;

/// The switches of a layer, which can change while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FaultPolicy {
    /// If false, it injects nothing, cannot be started, and stops if it runs. Default `true`.
    pub enabled: bool,
    /// If true, it injects nothing, and counts what it would. Default `false`.
    pub shadow: bool,
    /// The largest number of calls that suffer at the same time. More are spared. Default 100.
    pub max_active: usize,
}

/// Faults at one moment.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// The reason that the layer was given.
    pub reason: &'static str,
    /// The time for which faults go on. `None` if none are injected now.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::config::seconds::if_any")
    )]
    pub remaining: Option<Duration>,
    /// The switches.
    pub policy: FaultPolicy,
    /// Calls that suffer now.
    pub active: usize,
    /// Faults that were injected, so far, by their names.
    pub injected: BTreeMap<&'static str, u64>,
    /// Faults that would have been injected, so far, by their names: in shadow mode.
    pub would_inject: BTreeMap<&'static str, u64>,
    /// Calls that were spared, so far, because enough others suffered.
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
