//! Settings of a throttle.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Changed, ConfigError,
    algorithm::throttle::ThrottleConfig,
    settings::{
        HumanDuration, Settings, Share,
        fixed::same,
        scalar::{given, scalar},
        written::{Written, noted},
    },
    throttle::{ThrottleBuilder, ThrottleHandle, ThrottleLayer},
};

/// Settings of a [`ThrottleLayer`], explained at [`ThrottleConfig`].
///
/// ```
/// use tower_keep::{protocol::Plain, settings::ThrottleSettings};
///
/// let json = r#"{ "multiplier": 1.5, "max_rejection": "90%" }"#;
/// let settings: ThrottleSettings = serde_json::from_str(json)?;
/// let layer = settings.builder().protocol(Plain::new()).build()?;
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
pub struct ThrottleSettings {
    /// If false, it rejects nothing. Default `true`.
    #[serde(deserialize_with = "scalar")]
    pub enabled: bool,
    /// Its name in errors, metrics and events.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The ratio of the calls sent to the upstream to the calls that it accepts. Default 2.
    #[serde(deserialize_with = "scalar")]
    pub multiplier: f64,
    /// The time for which calls count. Default `"2m"`.
    pub window: HumanDuration,
    /// The calls that the window must hold before a call is rejected. Default 20.
    #[serde(deserialize_with = "scalar")]
    pub min_calls: u32,
    /// The highest probability of a rejection. Default `"95%"`.
    pub max_rejection: Share,
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

impl<'de> Deserialize<'de> for ThrottleSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (read, written) = noted(deserializer, Self::deserialize)?;
        Ok(Self { written, ..read })
    }
}

impl Serialize for ThrottleSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Default for ThrottleSettings {
    fn default() -> Self {
        let config = ThrottleConfig::default();
        Self {
            enabled: true,
            name: None,
            multiplier: config.multiplier,
            window: config.window.into(),
            min_calls: config.min_calls,
            max_rejection: config.max_rejection.into(),
            partial: false,
            written: Written::default(),
        }
    }
}

impl ThrottleSettings {
    /// Returns the settings of the algorithm.
    #[must_use]
    pub fn config(&self) -> ThrottleConfig {
        ThrottleConfig {
            multiplier: self.multiplier,
            window: self.window.0,
            min_calls: self.min_calls,
            max_rejection: self.max_rejection.0,
        }
    }

    /// Returns a builder with these settings, on which code sets the protocol. `build` checks them.
    pub fn builder(&self) -> ThrottleBuilder {
        let builder = ThrottleLayer::builder()
            .config(self.config())
            .enabled(self.enabled);
        match &self.name {
            Some(name) => builder.name(name.clone()),
            None => builder,
        }
    }
}

impl ThrottleSettings {
    /// Returns the settings of the algorithm, if they differ from before.
    ///
    /// # Errors
    /// A setting differs that a running throttle cannot change.
    pub(super) fn config_from(&self, before: &Self) -> Result<Option<ThrottleConfig>, ConfigError> {
        const LAYER: &str = "throttle";
        same(LAYER, "enabled", &before.enabled, &self.enabled)?;
        same(LAYER, "name", &before.name, &self.name)?;
        let config = self.config();
        Ok((config != before.config()).then_some(config))
    }
}

impl Settings for ThrottleSettings {
    type Handle = ThrottleHandle;

    fn update(&self, handle: &ThrottleHandle, before: &Self) -> Result<Changed, ConfigError> {
        match self.config_from(before)? {
            Some(config) => handle.update(config),
            None => Ok(Changed::default()),
        }
    }

    fn lost_since(&self, before: &Self) -> Option<String> {
        self.written.lost_since(&before.written, |_| self.partial)
    }
}
