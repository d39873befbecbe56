//! Settings of a fallback.

use serde::{Deserialize, Serialize};

use crate::{
    fallback::FallbackBuilder,
    settings::scalar::{given, scalar},
};

/// Settings of a [`FallbackLayer`](crate::fallback::FallbackLayer). Code sets its answers.
///
/// ```
/// use tower_keep::{fallback::FallbackLayer, protocol::Plain, settings::FallbackSettings};
///
/// let settings: FallbackSettings = serde_json::from_str(r#"{ "on_rejection": false }"#)?;
/// let fallback = settings.apply_to(FallbackLayer::value("the last known rate"));
/// let layer = fallback.protocol(Plain::new()).build()?;
/// # let _ = layer;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default, expecting = "fields with values")]
#[non_exhaustive]
pub struct FallbackSettings {
    /// If false, every result is passed on unchanged. Default `true`.
    #[serde(deserialize_with = "scalar")]
    pub enabled: bool,
    /// Its name in metrics.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// If true, failures get another answer. Default `true`.
    #[serde(deserialize_with = "scalar")]
    pub on_failure: bool,
    /// If true, overloads of the upstream get another answer. Default `true`.
    #[serde(deserialize_with = "scalar")]
    pub on_overload: bool,
    /// If true, rejections of layers beneath get another answer. Default `true`.
    #[serde(deserialize_with = "scalar")]
    pub on_rejection: bool,
}

impl Default for FallbackSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            name: None,
            on_failure: true,
            on_overload: true,
            on_rejection: true,
        }
    }
}

impl FallbackSettings {
    /// Applies these settings to a builder.
    pub fn apply_to<F, P>(&self, builder: FallbackBuilder<F, P>) -> FallbackBuilder<F, P> {
        let builder = builder
            .enabled(self.enabled)
            .on_failure(self.on_failure)
            .on_overload(self.on_overload)
            .on_rejection(self.on_rejection);
        match &self.name {
            Some(name) => builder.name(name.clone()),
            None => builder,
        }
    }
}
