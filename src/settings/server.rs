//! Settings of a server's stack.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Changed, ConfigError,
    bulkhead::BulkheadBuilder,
    rate_limit::RateLimitBuilder,
    settings::{
        BulkheadSettings, HumanDuration, HumanRate, OrOff, RateLimitSettings, Settings,
        client::duration_from,
        fixed::same,
        part::{optional_part, unless_off},
        parts::{calls_from, checked_calls, in_own_words, partial_in, rate_from},
        rate_limit::LimitMove,
        scalar::{given, scalar},
        units::value_unless_off,
        written::{Written, noted},
    },
    stack::{Changes, NoFallback, Own, ServerBuilder, ServerHandle, Untried},
};

/// Settings of a [`ServerStack`](crate::stack::ServerStack). Each has the meaning of the builder's
/// setter of the same name. Code chooses the protocol.
///
/// ```
/// use tower_keep::{settings::ServerSettings, stack};
///
/// let json = r#"{ "rate": "1000/s", "timeout": "2s" }"#;
/// let settings: ServerSettings = serde_json::from_str(json)?;
/// let stack = settings.apply_to(stack::server().http())?.build()?;
/// assert_eq!(stack.handle().snapshot().bulkhead.limit, 500);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schemars",
    derive(schemars::JsonSchema),
    schemars(transform = crate::settings::schema::written("rate rate_limit bulkhead"))
)]
#[serde(
    remote = "Self",
    deny_unknown_fields,
    default,
    expecting = "fields with values"
)]
#[non_exhaustive]
pub struct ServerSettings {
    /// The name of all parts in errors, metrics and events.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The rate at which calls are admitted. Default: no limit.
    #[serde(
        deserialize_with = "value_unless_off",
        skip_serializing_if = "Option::is_none"
    )]
    pub rate: Option<HumanRate>,
    /// The calls that may arrive at once after a pause. Default: those of one second.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// A rate limit with all its settings, in place of `rate`.
    #[serde(
        deserialize_with = "unless_off",
        skip_serializing_if = "Option::is_none"
    )]
    pub rate_limit: Option<RateLimitSettings>,
    /// The most calls in flight. Default: a quarter of the calls that `rate` admits within
    /// `timeout`, and as many that wait. Without a rate it must be set.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<usize>,
    /// A bulkhead with all its settings, in place of `max_in_flight`.
    #[serde(
        deserialize_with = "optional_part",
        skip_serializing_if = "Option::is_none"
    )]
    pub bulkhead: Option<BulkheadSettings>,
    /// The longest time of a call. Default `"10s"`.
    pub timeout: OrOff<HumanDuration>,
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

/// The builder of a [`ServerSettings`].
pub type ConfiguredServer<P, X = Untried, F = NoFallback> =
    ServerBuilder<P, Option<RateLimitBuilder>, Option<BulkheadBuilder>, X, F>;

impl<'de> Deserialize<'de> for ServerSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (read, written) = noted(deserializer, Self::deserialize)?;
        Ok(Self { written, ..read })
    }
}

impl Serialize for ServerSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            name: None,
            rate: None,
            burst: None,
            rate_limit: None,
            max_in_flight: None,
            bulkhead: None,
            timeout: OrOff::On(crate::stack::defaults::TIMEOUT.into()),
            partial: false,
            written: Written::default(),
        }
    }
}

impl ServerSettings {
    /// Applies these settings to a builder: a fresh one of the protocol, or one with parts that no
    /// file can set, such as a fallback.
    ///
    /// # Errors
    /// A setting that the parts' `builder` rejects. `build` checks the rest.
    pub fn apply_to<P, X, F>(
        &self,
        mut builder: ServerBuilder<P, Own, Own, X, F>,
    ) -> Result<ConfiguredServer<P, X, F>, ConfigError> {
        if let Some(name) = &self.name {
            builder = builder.name(name.clone());
        }
        if let Some(HumanRate(rate)) = self.rate {
            builder = builder.rate(rate);
        }
        if let Some(burst) = self.burst {
            builder = builder.burst(burst);
        }
        if let Some(calls) = self.max_in_flight {
            builder = builder.max_in_flight(calls);
        }
        builder = match self.timeout {
            OrOff::On(HumanDuration(timeout)) => builder.timeout(timeout),
            OrOff::Off => builder.without_timeout(),
        };
        let limit = self.rate_limit.as_ref().map(RateLimitSettings::builder);
        let bulkhead = self.bulkhead.as_ref().map(BulkheadSettings::builder);
        Ok(builder
            .rate_limit(limit.transpose()?)
            .bulkhead(bulkhead.transpose()?))
    }

    /// Returns the changes to a running stack that was built with the settings `before`. A limit on
    /// calls in flight that was derived from rate and timeout stays.
    ///
    /// # Errors
    /// A setting differs that a running stack cannot change: names, the queue of a bulkhead, the
    /// kind of a rate limit. A rate can be added and removed.
    pub fn changes_from(&self, before: &Self) -> Result<Changes, ConfigError> {
        same("stack", "name", &before.name, &self.name)?;
        let mut changes = Changes::new();
        if let Some(timeout) = duration_from("timeout", (before.timeout, self.timeout))? {
            changes = changes.total_timeout(timeout);
        }
        let rates = (before.rate, before.burst, &before.rate_limit);
        let LimitMove { on, quota, manners } =
            rate_from(rates, (self.rate, self.burst, &self.rate_limit))?;
        changes = changes.rate_of_file(quota, manners, on);
        let limits = (before.max_in_flight.map(OrOff::On), &before.bulkhead);
        let limit = (self.max_in_flight.map(OrOff::On), &self.bulkhead);
        let limit = checked_calls(limit)?;
        if let (None, None, None) = (limit.0, limit.1, self.rate) {
            let fix = "say how many calls may run at once: it no longer follows from a `rate`";
            let error = ConfigError::new("max_in_flight", self.max_in_flight, fix);
            return Err(error.of("stack", None));
        }
        if let Some(calls) = calls_from(limits, limit, None)? {
            changes = changes.max_in_flight(calls);
        }
        Ok(changes)
    }
}

impl Settings for ServerSettings {
    type Handle = ServerHandle;

    fn update(&self, handle: &ServerHandle, before: &Self) -> Result<Changed, ConfigError> {
        let updated = handle.update(self.changes_from(before)?);
        in_own_words(updated, &self.bulkhead)
    }

    fn lost_since(&self, before: &Self) -> Option<String> {
        let limit = self.rate_limit.as_ref();
        let bulkhead = self.bulkhead.as_ref();
        let parts = [
            ("", self.partial),
            ("rate_limit.", limit.is_some_and(|limit| limit.partial)),
            (
                "bulkhead.",
                bulkhead.is_some_and(|bulkhead| bulkhead.partial),
            ),
        ];
        self.written
            .lost_since(&before.written, |path| partial_in(&parts, path))
    }
}
