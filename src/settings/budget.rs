//! Settings of a budget.

use serde::{Deserialize, Serialize};

use crate::{
    ConfigError,
    algorithm::{Budget, RetryBudget, RetryThrottle, WindowedBudget},
    settings::{HumanDuration, Share, scalar::scalar},
};

/// The budget of retries and hedges: a [`Budget`]. Default: a funded one of 10, to which each
/// success adds a tenth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BudgetSettings {
    /// Successes pay: a [`RetryBudget`].
    Funded(FundedSettings),
    /// Calls and time pay, and payments expire: a [`WindowedBudget`].
    Windowed(WindowedSettings),
    /// Retries only while few calls fail, as in gRPC: a [`RetryThrottle`].
    Throttle(FundedSettings),
    /// No limit. A failing upstream then gets several times its load, just when it can bear it
    /// least.
    Off,
}

/// A budget that successes pay for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default, expecting = "fields with values")]
#[non_exhaustive]
pub struct FundedSettings {
    /// The retries that it pays for when it is full. Default 10.
    #[serde(deserialize_with = "scalar")]
    pub capacity: u32,
    /// The part of a retry that each success adds. Default `"10%"`.
    pub ratio: Share,
}

/// A budget that calls and time pay for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "fields with values")]
#[non_exhaustive]
pub struct WindowedSettings {
    /// The time that a payment lasts.
    pub ttl: HumanDuration,
    /// The part of a retry that each call adds.
    pub ratio: Share,
    /// The retries a second that need no calls.
    #[serde(deserialize_with = "scalar")]
    pub min_per_sec: u32,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self::Funded(FundedSettings::default())
    }
}

impl Default for FundedSettings {
    fn default() -> Self {
        Self {
            capacity: 10,
            ratio: Share(0.1),
        }
    }
}

impl BudgetSettings {
    pub(super) fn budget(&self, layer: &'static str) -> Result<Option<Budget>, ConfigError> {
        let budget = match *self {
            Self::Funded(FundedSettings { capacity, ratio }) => {
                RetryBudget::new(capacity, ratio.0).map(Budget::from)
            }
            Self::Throttle(FundedSettings { capacity, ratio }) => {
                RetryThrottle::new(capacity, ratio.0).map(Budget::from)
            }
            Self::Windowed(WindowedSettings {
                ttl,
                ratio,
                min_per_sec,
            }) => WindowedBudget::new(ttl.0, ratio.0, min_per_sec).map(Budget::from),
            Self::Off => return Ok(None),
        };
        budget.map(Some).map_err(|error| {
            let error = error.renamed("budget", "capacity");
            error.renamed("throttle", "capacity").of(layer, None)
        })
    }
}
