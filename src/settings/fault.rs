//! Settings of faults, so that a file can switch them off.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Changed, ConfigError,
    fault::{FaultBuilder, FaultHandle, FaultPolicy},
    settings::{
        Settings,
        fixed::same,
        scalar::{given, scalar},
        written::{Written, noted},
    },
};

/// Settings of a [`FaultLayer`](crate::fault::FaultLayer). A file can switch faults off, put them
/// into shadow mode, and limit them at run time. It cannot start them, and code defines them.
///
/// ```
/// use tower_keep::{fault::{Fault, FaultLayer}, protocol::Plain, settings::FaultSettings};
///
/// let settings: FaultSettings = serde_json::from_str(r#"{ "max_active": 20 }"#)?;
/// let builder = FaultLayer::builder("game day, 12 March").protocol(Plain::new());
/// let layer = settings.apply_to(builder.fault(Fault::hang().share(0.1))).build()?;
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
pub struct FaultSettings {
    /// If false, it injects nothing, cannot be started, and stops if it runs. Default `true`.
    #[serde(deserialize_with = "scalar")]
    pub enabled: bool,
    /// Its name in marks, metrics and events.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// If true, it injects nothing, and counts what it would inject. Default `false`.
    #[serde(deserialize_with = "scalar")]
    pub shadow: bool,
    /// The most calls that are affected at the same time. Default 100.
    #[serde(deserialize_with = "scalar")]
    pub max_active: usize,
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

impl<'de> Deserialize<'de> for FaultSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (read, written) = noted(deserializer, Self::deserialize)?;
        Ok(Self { written, ..read })
    }
}

impl Serialize for FaultSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Default for FaultSettings {
    fn default() -> Self {
        let policy = FaultPolicy::default();
        Self {
            enabled: policy.enabled,
            name: None,
            shadow: policy.shadow,
            max_active: policy.max_active,
            partial: false,
            written: Written::default(),
        }
    }
}

impl FaultSettings {
    /// Applies these settings to a builder of faults. `build` checks them.
    pub fn apply_to<F, P>(&self, builder: FaultBuilder<F, P>) -> FaultBuilder<F, P> {
        let builder = builder
            .enabled(self.enabled)
            .shadow(self.shadow)
            .max_active(self.max_active);
        match &self.name {
            Some(name) => builder.name(name.clone()),
            None => builder,
        }
    }
}

impl Settings for FaultSettings {
    type Handle = FaultHandle;

    fn update(&self, handle: &FaultHandle, before: &Self) -> Result<Changed, ConfigError> {
        same("fault", "name", &before.name, &self.name)?;
        // A manual change stays if the setting is the same in both.
        let mut policy = handle.policy();
        if before.enabled != self.enabled {
            policy.enabled = self.enabled;
        }
        if before.shadow != self.shadow {
            policy.shadow = self.shadow;
        }
        if before.max_active != self.max_active {
            policy.max_active = self.max_active;
        }
        handle.update(policy)
    }

    fn lost_since(&self, before: &Self) -> Option<String> {
        self.written.lost_since(&before.written, |_| self.partial)
    }
}
