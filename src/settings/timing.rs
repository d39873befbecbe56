//! Settings of a timeout and of a hedge.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Changed, ConfigError,
    hedge::{HedgeBuilder, HedgeConfig, HedgeHandle, HedgeLayer},
    settings::{
        BudgetSettings, HumanDuration, Settings, Share,
        fixed::{required, same, same_part},
        part::choice,
        scalar::{given, scalar},
        written::{Written, noted},
    },
    timeout::{TimeoutBuilder, TimeoutHandle, TimeoutLayer},
};

/// Settings of a [`TimeoutLayer`]. The duration can change at run time.
///
/// ```
/// use tower_keep::settings::TimeoutSettings;
///
/// let settings: TimeoutSettings = serde_json::from_str(r#"{ "duration": "1.5s" }"#)?;
/// let layer = settings.builder()?.build()?;
/// assert_eq!(layer.handle().snapshot().duration.as_millis(), 1500);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schemars",
    derive(schemars::JsonSchema),
    schemars(transform = crate::settings::schema::written(""))
)]
#[serde(
    remote = "Self",
    deny_unknown_fields,
    default,
    expecting = "fields with values"
)]
#[non_exhaustive]
pub struct TimeoutSettings {
    /// If false, it limits nothing. Default `true`.
    #[serde(deserialize_with = "scalar")]
    pub enabled: bool,
    /// Its name in errors, metrics and events.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The longest time of a call. No default.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub duration: Option<HumanDuration>,
    /// If true, the duration limits the whole call, around retries. Default `false`: one attempt.
    #[serde(deserialize_with = "scalar")]
    pub total: bool,
    /// If true, a watched file may leave out fields that it had before. Default `false`: a missing
    /// field means that the file is still being written.
    #[serde(
        deserialize_with = "scalar",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub partial: bool,
    #[serde(skip)]
    written: Written,
}

/// Settings of a [`HedgeLayer`]. It can be switched on and off at run time.
///
/// ```
/// use tower_keep::{protocol::Plain, settings::HedgeSettings};
///
/// let settings: HedgeSettings = serde_json::from_str(r#"{ "quantile": "99%" }"#)?;
/// let layer = settings.builder()?.protocol(Plain::new().idempotent()).build()?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schemars",
    derive(schemars::JsonSchema),
    schemars(transform = crate::settings::schema::written(""))
)]
#[serde(
    remote = "Self",
    deny_unknown_fields,
    default,
    expecting = "fields with values"
)]
#[non_exhaustive]
pub struct HedgeSettings {
    /// If false, it hedges nothing. Default `true`.
    #[serde(deserialize_with = "scalar")]
    pub enabled: bool,
    /// Its name in errors, metrics and events.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The delay before a hedge. With a quantile it is the shortest delay, by default `"1ms"`.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub delay: Option<HumanDuration>,
    /// The share of calls whose answer arrives before the hedge. Default `"95%"` without a delay.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub quantile: Option<Share>,
    /// The most hedges of one call. Default 1.
    #[serde(deserialize_with = "scalar")]
    pub max_hedges: usize,
    /// The budget of hedges.
    #[serde(deserialize_with = "choice")]
    pub budget: BudgetSettings,
    /// If true, a watched file may leave out fields that it had before. Default `false`: a missing
    /// field means that the file is still being written.
    #[serde(
        deserialize_with = "scalar",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub partial: bool,
    #[serde(skip)]
    written: Written,
}

impl<'de> Deserialize<'de> for TimeoutSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (read, written) = noted(deserializer, Self::deserialize)?;
        Ok(Self { written, ..read })
    }
}

impl Serialize for TimeoutSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Default for TimeoutSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            name: None,
            duration: None,
            total: false,
            partial: false,
            written: Written::default(),
        }
    }
}

impl<'de> Deserialize<'de> for HedgeSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (read, written) = noted(deserializer, Self::deserialize)?;
        Ok(Self { written, ..read })
    }
}

impl Serialize for HedgeSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Default for HedgeSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            name: None,
            delay: None,
            quantile: None,
            max_hedges: 1,
            budget: BudgetSettings::default(),
            partial: false,
            written: Written::default(),
        }
    }
}

impl TimeoutSettings {
    /// Returns a builder with these settings, on which code sets the protocol.
    ///
    /// # Errors
    /// No duration. `build` checks the rest.
    pub fn builder(&self) -> Result<TimeoutBuilder, ConfigError> {
        let builder = TimeoutLayer::builder(self.duration()?.0)
            .enabled(self.enabled)
            .total(self.total);
        Ok(match &self.name {
            Some(name) => builder.name(name.clone()),
            None => builder,
        })
    }

    fn duration(&self) -> Result<HumanDuration, ConfigError> {
        let fix = "say how long a call may take, such as \"1s\"";
        required("timeout", "duration", self.duration, fix)
    }
}

#[cfg(feature = "http")]
impl crate::settings::part::Switchable for HedgeSettings {
    fn off() -> Self {
        Self {
            enabled: false,
            ..Self::default()
        }
    }
}

impl HedgeSettings {
    /// Returns a builder with these settings, on which code sets the protocol.
    ///
    /// # Errors
    /// A budget that cannot work. `build` checks the rest.
    pub fn builder(&self) -> Result<HedgeBuilder, ConfigError> {
        let mut builder = HedgeLayer::builder()
            .enabled(self.enabled)
            .max_hedges(self.max_hedges);
        if let Some(HumanDuration(delay)) = self.delay {
            builder = builder.delay(delay);
        }
        if let Some(Share(quantile)) = self.quantile {
            builder = builder.quantile(quantile);
        }
        if self.budget != BudgetSettings::default() {
            builder = match self.budget.budget("hedge.budget")? {
                Some(budget) => builder.budget(budget),
                None => builder.without_budget(),
            };
        }
        Ok(match &self.name {
            Some(name) => builder.name(name.clone()),
            None => builder,
        })
    }
}

impl HedgeSettings {
    /// Returns the settings `now`, changed by what differs from the file `before`.
    ///
    /// # Errors
    /// A setting differs that a running hedge cannot change.
    pub(super) fn config_from(
        &self,
        before: &Self,
        now: HedgeConfig,
    ) -> Result<HedgeConfig, ConfigError> {
        const LAYER: &str = "hedge";
        same(LAYER, "name", &before.name, &self.name)?;
        same(LAYER, "quantile", &before.quantile, &self.quantile)?;
        same_part(LAYER, "budget", &before.budget, &self.budget)?;
        let mut config = now;
        match (before.delay, self.delay) {
            (before, after) if before == after => {}
            (_, Some(HumanDuration(delay))) => config.delay = delay,
            // Its default depends on the quantile, and is fixed when the layer is built.
            (before, after) => same(LAYER, "delay", &before, &after)?,
        }
        if self.max_hedges != before.max_hedges {
            config.max_hedges = self.max_hedges;
        }
        Ok(config)
    }

    /// Returns the config of a hedge that is built with these settings.
    #[cfg(feature = "http")]
    pub(super) fn config(&self) -> HedgeConfig {
        let mut config = HedgeConfig {
            max_hedges: self.max_hedges,
            ..HedgeConfig::default()
        };
        if let Some(HumanDuration(delay)) = self.delay {
            config.delay = delay;
        }
        config
    }
}

impl Settings for TimeoutSettings {
    type Handle = TimeoutHandle;

    fn update(&self, handle: &TimeoutHandle, before: &Self) -> Result<Changed, ConfigError> {
        same("timeout", "enabled", &before.enabled, &self.enabled)?;
        same("timeout", "name", &before.name, &self.name)?;
        same("timeout", "total", &before.total, &self.total)?;
        let HumanDuration(duration) = self.duration()?;
        if before.duration == self.duration {
            return Ok(Changed::default());
        }
        handle.set_duration(duration)
    }

    fn lost_since(&self, before: &Self) -> Option<String> {
        self.written.lost_since(&before.written, |_| self.partial)
    }
}

impl Settings for HedgeSettings {
    type Handle = HedgeHandle;

    fn update(&self, handle: &HedgeHandle, before: &Self) -> Result<Changed, ConfigError> {
        let config = self.config_from(before, handle.config())?;
        let updated = handle.update(config)?;
        Ok(match self.enabled == before.enabled {
            true => updated,
            false => handle.set_enabled(self.enabled).and(updated),
        })
    }

    fn lost_since(&self, before: &Self) -> Option<String> {
        self.written.lost_since(&before.written, |_| self.partial)
    }
}
