//! Settings of limits that learn.

use serde::{Deserialize, Serialize};

use crate::{
    ConfigError,
    algorithm::adaptive::{Aimd, AimdConfig, Gradient2, Gradient2Config, Vegas, VegasConfig},
    bulkhead::BulkheadBuilder,
    settings::{HumanDuration, Share, scalar::scalar, units::value_unless_off},
};

/// The way a bulkhead learns its limit: see the [guide](crate::guide::adaptive).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AdaptiveSettings {
    /// [`Vegas`]: keeps a short queue. The one to start with.
    Vegas(VegasSettings),
    /// [`Gradient2`]: keeps round trips within a tolerance.
    Gradient2(Gradient2Settings),
    /// [`Aimd`]: uses errors, and slow calls if so configured.
    Aimd(AimdSettings),
}

/// Settings of [`Vegas`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schemars",
    derive(schemars::JsonSchema),
    schemars(transform = crate::settings::schema::written(""))
)]
#[serde(deny_unknown_fields, default, expecting = "fields with values")]
#[non_exhaustive]
pub struct VegasSettings {
    /// The limit to start with. Default 20.
    #[serde(deserialize_with = "scalar")]
    pub initial: u32,
    /// The lowest limit. Default 1.
    #[serde(deserialize_with = "scalar")]
    pub min: u32,
}

/// Settings of [`Gradient2`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schemars",
    derive(schemars::JsonSchema),
    schemars(transform = crate::settings::schema::written(""))
)]
#[serde(deny_unknown_fields, default, expecting = "fields with values")]
#[non_exhaustive]
pub struct Gradient2Settings {
    /// The limit to start with. Default 20.
    #[serde(deserialize_with = "scalar")]
    pub initial: u32,
    /// The lowest limit. Default 1.
    #[serde(deserialize_with = "scalar")]
    pub min: u32,
    /// The largest ratio of the average round trip to its best. Default 1.5.
    #[serde(deserialize_with = "scalar")]
    pub tolerance: f64,
}

/// Settings of [`Aimd`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schemars",
    derive(schemars::JsonSchema),
    schemars(transform = crate::settings::schema::written("slow_after"))
)]
#[serde(deny_unknown_fields, default, expecting = "fields with values")]
#[non_exhaustive]
pub struct AimdSettings {
    /// The limit to start with. Default 20.
    #[serde(deserialize_with = "scalar")]
    pub initial: u32,
    /// The lowest limit. Default 1.
    #[serde(deserialize_with = "scalar")]
    pub min: u32,
    /// The calls that a good window adds to the limit. Default 1.
    #[serde(deserialize_with = "scalar")]
    pub increase: f64,
    /// The share of the limit that a bad window leaves. Default `"90%"`.
    pub backoff: Share,
    /// The round trip from which on a window is bad. Default: none.
    #[serde(
        deserialize_with = "value_unless_off",
        skip_serializing_if = "Option::is_none"
    )]
    pub slow_after: Option<HumanDuration>,
}

impl Default for VegasSettings {
    fn default() -> Self {
        let VegasConfig { initial, min } = VegasConfig::default();
        Self { initial, min }
    }
}

impl Default for Gradient2Settings {
    fn default() -> Self {
        let Gradient2Config {
            initial,
            min,
            tolerance,
        } = Gradient2Config::default();
        Self {
            initial,
            min,
            tolerance,
        }
    }
}

impl Default for AimdSettings {
    fn default() -> Self {
        let config = AimdConfig::default();
        Self {
            initial: config.initial,
            min: config.min,
            increase: config.increase,
            backoff: config.backoff.into(),
            slow_after: config.slow_after.map(HumanDuration),
        }
    }
}

impl AdaptiveSettings {
    pub(super) fn apply_to(self, builder: BulkheadBuilder) -> Result<BulkheadBuilder, ConfigError> {
        let of = |error: ConfigError| error.of("bulkhead.adaptive", None);
        Ok(match self {
            Self::Vegas(VegasSettings { initial, min }) => {
                let config = VegasConfig { initial, min };
                builder.adaptive(Vegas::new(config).map_err(of)?)
            }
            Self::Gradient2(settings) => {
                let config = Gradient2Config {
                    initial: settings.initial,
                    min: settings.min,
                    tolerance: settings.tolerance,
                };
                builder.adaptive(Gradient2::new(config).map_err(of)?)
            }
            Self::Aimd(settings) => {
                let config = AimdConfig {
                    initial: settings.initial,
                    min: settings.min,
                    increase: settings.increase,
                    backoff: settings.backoff.0,
                    slow_after: settings.slow_after.map(|after| after.0),
                };
                builder.adaptive(Aimd::new(config).map_err(of)?)
            }
        })
    }
}
