//! Settings of a circuit breaker.

use std::{fmt, marker::PhantomData};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Changed, ConfigError,
    algorithm::{BreakerConfig, Overflow, SlowCalls, Verdict},
    circuit_breaker::{CircuitBreakerBuilder, CircuitBreakerHandle, CircuitBreakerLayer},
    keyed::{KeySettings, Missing},
    settings::{
        HumanDuration, HumanWindow, OrOff, Settings, Share,
        fixed::{same, same_part},
        part::{choice, given_choice, unless_off},
        scalar::{given, scalar},
        written::{Written, noted},
    },
};

/// Settings of a [`CircuitBreakerLayer`], explained at [`BreakerConfig`]. All of them can change at
/// run time, except `enabled`, `name`, `backpressure`, those of keys, and a window of calls.
///
/// ```
/// use tower_keep::{protocol::Plain, settings::CircuitBreakerSettings};
///
/// let json = r#"{ "window": "100 calls", "failure_rate": "30%", "open_for": "5s" }"#;
/// let settings: CircuitBreakerSettings = serde_json::from_str(json)?;
/// let layer = settings.builder().protocol(Plain::new()).build()?;
/// assert_eq!(layer.handle().config().failure_rate, Some(0.3));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// `In` is the breaker's context, which sets the defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schemars",
    derive(schemars::JsonSchema),
    schemars(
        bound = "In: BreakerContext + schemars::JsonSchema",
        rename = "{In}CircuitBreakerSettings",
        transform = crate::settings::schema::written("slow_calls")
    )
)]
#[serde(
    remote = "Self",
    deny_unknown_fields,
    default,
    bound = "In: BreakerContext",
    expecting = "fields with values"
)]
#[non_exhaustive]
pub struct CircuitBreakerSettings<In: BreakerContext = Alone> {
    /// If false, it neither counts nor opens. Default `true`.
    #[serde(deserialize_with = "scalar")]
    pub enabled: bool,
    /// Its name in errors, metrics and events.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The window from which shares are computed: a time, or a number of calls. Default `"10s"`.
    pub window: HumanWindow,
    /// The calls that the window must hold before it is judged. Default 20.
    #[serde(deserialize_with = "scalar")]
    pub min_calls: u32,
    /// The share of failures at which it opens. Default `"50%"`.
    pub failure_rate: OrOff<Share>,
    /// The definition of slow calls, and the share of them that opens it. Default: none are slow.
    #[serde(
        deserialize_with = "unless_off",
        skip_serializing_if = "Option::is_none"
    )]
    pub slow_calls: Option<SlowCallsSettings>,
    /// The failures in a row that open it. Default `"off"`, in a stack 10.
    pub consecutive_failures: OrOff<u32>,
    /// If true, a dropped call counts as a failure. Default `false`.
    #[serde(deserialize_with = "scalar")]
    pub cancelled_as_failure: bool,
    /// If true, it opens if calls are dropped and none is answered. Default `true`.
    #[serde(deserialize_with = "scalar")]
    pub open_on_no_answer: bool,
    /// The time that it stays open. Default `"30s"`, in a stack `"500ms"`.
    pub open_for: HumanDuration,
    /// If true, that time doubles each time, up to `max_open`. Default `false`, in a stack `true`.
    #[serde(deserialize_with = "scalar")]
    pub growing: bool,
    /// If true, open times differ from circuit to circuit. Default `true`.
    #[serde(deserialize_with = "scalar")]
    pub jitter: bool,
    /// The longest time that it stays open. Default: ten times `open_for`, in a stack `"1s"`.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub max_open: Option<HumanDuration>,
    /// The most calls that are admitted while half-open. Default 3.
    #[serde(deserialize_with = "scalar")]
    pub probes: u16,
    /// The verdict on probes. Default `"rate"`.
    #[serde(deserialize_with = "choice")]
    pub verdict: Verdict,
    /// The longest time in flight of a probe. Default: as long as `open_for`, in a stack `"5s"`.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub lease: Option<HumanDuration>,
    /// The time until all calls are admitted again. Default `"0s"`: at once.
    pub ramp: HumanDuration,
    /// If true, `poll_ready` is pending while it rejects. Default: only in a stack of one peer.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub backpressure: Option<bool>,
    /// If true, the process is not ready while it is open. Default `false`.
    #[serde(deserialize_with = "scalar")]
    pub critical: bool,
    /// The most keys with their own circuit, if the code sets a key. Default 1024.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<usize>,
    /// The treatment of keys beyond `max_keys`.
    #[serde(
        deserialize_with = "given_choice",
        skip_serializing_if = "Option::is_none"
    )]
    pub overflow: Option<Overflow>,
    /// The treatment of requests without a key.
    #[serde(
        deserialize_with = "given_choice",
        skip_serializing_if = "Option::is_none"
    )]
    pub missing: Option<Missing>,
    #[serde(skip)]
    place: PhantomData<In>,
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

/// The definition of slow calls, and how many of them are too many.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "fields with values")]
pub struct SlowCallsSettings {
    /// A call that takes this long is slow.
    pub after: HumanDuration,
    /// The share of slow calls at which the circuit opens.
    pub rate: Share,
}

/// The context of a circuit breaker.
pub trait BreakerContext: fmt::Debug + Clone + PartialEq + 'static {
    /// Returns the settings in this context, unless a file sets others.
    fn config() -> BreakerConfig;
}

/// A circuit breaker outside a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "schemars",
    derive(schemars::JsonSchema),
    schemars(rename = "")
)]
pub enum Alone {}

/// A circuit breaker in a client's stack.
#[cfg(feature = "http")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "schemars",
    derive(schemars::JsonSchema),
    schemars(rename = "Client")
)]
pub enum InClient {}

impl BreakerContext for Alone {
    fn config() -> BreakerConfig {
        BreakerConfig::default()
    }
}

#[cfg(feature = "http")]
impl BreakerContext for InClient {
    fn config() -> BreakerConfig {
        crate::stack::circuit_breaker_config()
    }
}

impl<'de, In: BreakerContext> Deserialize<'de> for CircuitBreakerSettings<In> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (read, written) = noted(deserializer, Self::deserialize)?;
        Ok(Self { written, ..read })
    }
}

impl<In: BreakerContext> Serialize for CircuitBreakerSettings<In> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<In: BreakerContext> Default for CircuitBreakerSettings<In> {
    fn default() -> Self {
        In::config().into()
    }
}

#[cfg(feature = "http")]
impl<In: BreakerContext> crate::settings::part::Switchable for CircuitBreakerSettings<In> {
    fn off() -> Self {
        Self {
            enabled: false,
            ..Self::default()
        }
    }
}

impl<In: BreakerContext> From<BreakerConfig> for CircuitBreakerSettings<In> {
    fn from(config: BreakerConfig) -> Self {
        Self {
            enabled: true,
            name: None,
            window: HumanWindow(config.window),
            min_calls: config.min_calls,
            failure_rate: config.failure_rate.map(Share).into(),
            slow_calls: config.slow_calls.map(|slow| SlowCallsSettings {
                after: slow.after.into(),
                rate: slow.rate.into(),
            }),
            consecutive_failures: config.consecutive_failures.into(),
            cancelled_as_failure: config.cancelled_as_failure,
            open_on_no_answer: config.open_on_no_answer,
            open_for: config.open_for.into(),
            growing: config.growing,
            jitter: config.jitter,
            max_open: config.max_open.map(HumanDuration),
            probes: config.probes,
            verdict: config.verdict,
            lease: config.lease.map(HumanDuration),
            ramp: config.ramp.into(),
            backpressure: None,
            critical: false,
            max_keys: None,
            overflow: None,
            missing: None,
            partial: false,
            written: Written::default(),
            place: PhantomData,
        }
    }
}

impl<In: BreakerContext> CircuitBreakerSettings<In> {
    /// Returns the settings of the algorithm.
    #[must_use]
    pub fn config(&self) -> BreakerConfig {
        BreakerConfig {
            window: self.window.0,
            min_calls: self.min_calls,
            failure_rate: self.failure_rate.on().map(|share| share.0),
            slow_calls: self.slow_calls.map(|slow| SlowCalls {
                after: slow.after.0,
                rate: slow.rate.0,
            }),
            consecutive_failures: self.consecutive_failures.on(),
            cancelled_as_failure: self.cancelled_as_failure,
            open_on_no_answer: self.open_on_no_answer,
            open_for: self.open_for.0,
            growing: self.growing,
            jitter: self.jitter,
            max_open: self.max_open.map(|longest| longest.0),
            probes: self.probes,
            verdict: self.verdict,
            lease: self.lease.map(|lease| lease.0),
            ramp: self.ramp.0,
        }
    }

    /// Returns a builder with these settings, on which code sets the rest: key and protocol.
    /// `build` checks them.
    pub fn builder(&self) -> CircuitBreakerBuilder {
        let mut builder = CircuitBreakerLayer::builder()
            .config(self.config())
            .enabled(self.enabled)
            .critical(self.critical);
        builder = match self.backpressure {
            Some(true) => builder.backpressure(),
            Some(false) => builder.without_backpressure(),
            None => builder,
        };
        builder = builder.key_settings(KeySettings {
            max_keys: self.max_keys,
            overflow: self.overflow,
            missing: self.missing,
            ..KeySettings::default()
        });
        match &self.name {
            Some(name) => builder.name(name.clone()),
            None => builder,
        }
    }

    /// Returns the settings of the algorithm, if they differ from before.
    ///
    /// # Errors
    /// A setting differs that a running circuit cannot change.
    pub(super) fn config_from(&self, before: &Self) -> Result<Option<BreakerConfig>, ConfigError> {
        const LAYER: &str = "circuit_breaker";
        same(LAYER, "enabled", &before.enabled, &self.enabled)?;
        same(LAYER, "name", &before.name, &self.name)?;
        let waits = (&before.backpressure, &self.backpressure);
        same(LAYER, "backpressure", waits.0, waits.1)?;
        same(LAYER, "critical", &before.critical, &self.critical)?;
        same(LAYER, "max_keys", &before.max_keys, &self.max_keys)?;
        same_part(LAYER, "overflow", &before.overflow, &self.overflow)?;
        same_part(LAYER, "missing", &before.missing, &self.missing)?;
        let config = self.config();
        Ok((config != before.config()).then_some(config))
    }
}

impl Settings for CircuitBreakerSettings {
    type Handle = CircuitBreakerHandle;

    fn update(&self, handle: &CircuitBreakerHandle, before: &Self) -> Result<Changed, ConfigError> {
        match self.config_from(before)? {
            Some(config) => handle.update(config),
            None => Ok(Changed::default()),
        }
    }

    fn lost_since(&self, before: &Self) -> Option<String> {
        self.written.lost_since(&before.written, |_| self.partial)
    }
}
