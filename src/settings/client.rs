//! Settings of a client's stack.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Changed, ConfigError,
    bulkhead::BulkheadBuilder,
    hedge::{HedgeConfig, HedgeHandle},
    keyed::{HasKey, Host},
    rate_limit::RateLimitBuilder,
    retry::RetryConfig,
    settings::{
        BulkheadSettings, CircuitBreakerSettings, HedgeSettings, HumanDuration, HumanRate,
        InClient, OrOff, RateLimitSettings, RetrySettings, Settings, ThrottleSettings,
        fixed::{same, same_part},
        part::{optional_part, part, unless_off},
        parts::{calls_from, checked_calls, hedge_from, in_own_words, partial_in, rate_from},
        rate_limit::LimitMove,
        scalar::{given, scalar},
        units::value_unless_off,
        written::{Written, noted},
    },
    stack::{
        Changes, ClientBuilder, ClientHandle, NoFallback, Own, Parts, Resend, Retrying, Untried,
        defaults::{ATTEMPT, TOTAL},
    },
};

/// Settings of a [`ClientStack`](crate::stack::ClientStack). Each has the meaning of the builder's
/// setter of the same name. Code chooses the protocol.
///
/// ```
/// use tower_keep::{settings::ClientSettings, stack};
///
/// let json = r#"{
///     "name": "payments",
///     "total_timeout": "8s",
///     "rate": "50/s",
///     "retry": { "attempts": 2 },
///     "circuit_breaker": { "failure_rate": "30%" }
/// }"#;
/// let settings: ClientSettings = serde_json::from_str(json)?;
/// let stack = settings.apply_to(stack::client().http())?.build()?;
/// assert_eq!(stack.handle().retry.config().attempts, 2);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schemars",
    derive(schemars::JsonSchema),
    schemars(transform = crate::settings::schema::written("retry hedge circuit_breaker throttle rate rate_limit bulkhead"))
)]
#[serde(
    remote = "Self",
    deny_unknown_fields,
    default,
    expecting = "fields with values"
)]
#[non_exhaustive]
pub struct ClientSettings {
    /// The name of all parts in errors, metrics and events.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The longest time of a call with all its attempts and waits. Default `"10s"`.
    pub total_timeout: OrOff<HumanDuration>,
    /// The retries. `enabled = false` removes them.
    #[serde(deserialize_with = "part")]
    pub retry: RetrySettings,
    /// The hedge, for a stack that the code builds with one in place of retries. `"off"` switches
    /// it off.
    #[serde(
        deserialize_with = "optional_part",
        skip_serializing_if = "Option::is_none"
    )]
    pub hedge: Option<HedgeSettings>,
    /// The circuit breaker of each host. `enabled = false` removes it.
    #[serde(deserialize_with = "part")]
    pub circuit_breaker: CircuitBreakerSettings<InClient>,
    /// The throttle of each host. Default: none.
    #[serde(
        deserialize_with = "unless_off",
        skip_serializing_if = "Option::is_none"
    )]
    pub throttle: Option<ThrottleSettings>,
    /// The rate at which calls are sent. Default: no limit.
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
    /// The most calls in flight to each host. Default: half of the calls that the `rate` admits
    /// within an attempt's timeout. Without a rate there is no limit.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<OrOff<usize>>,
    /// A bulkhead with all its settings, in place of `max_in_flight`.
    #[serde(
        deserialize_with = "optional_part",
        skip_serializing_if = "Option::is_none"
    )]
    pub bulkhead: Option<BulkheadSettings>,
    /// The longest time of one attempt. Default `"3s"`, or the total if that is less.
    pub attempt_timeout: OrOff<HumanDuration>,
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

/// The builder of a [`ClientSettings`].
pub type ConfiguredClient<P, W, R = Retrying, X = Untried, F = NoFallback> =
    ClientBuilder<P, W, Parts<R, Option<RateLimitBuilder>, Option<BulkheadBuilder>, X, F>>;

impl<'de> Deserialize<'de> for ClientSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (read, written) = noted(deserializer, Self::deserialize)?;
        Ok(Self { written, ..read })
    }
}

impl Serialize for ClientSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            name: None,
            total_timeout: OrOff::On(TOTAL.into()),
            retry: RetrySettings::default(),
            hedge: None,
            circuit_breaker: CircuitBreakerSettings::default(),
            throttle: None,
            rate: None,
            burst: None,
            rate_limit: None,
            max_in_flight: None,
            bulkhead: None,
            attempt_timeout: OrOff::On(ATTEMPT.into()),
            partial: false,
            written: Written::default(),
        }
    }
}

impl ClientSettings {
    /// Applies these settings to a builder: a fresh one of the protocol, or one with parts that no
    /// file can set, such as a fallback.
    ///
    /// # Errors
    /// A setting that the parts' `builder` rejects. Settings of retries, or of a hedge, for a stack
    /// without them. `build` checks the rest.
    pub fn apply_to<P, W, R, X, F>(
        &self,
        builder: ClientBuilder<P, W, Parts<R, Own, Own, X, F>>,
    ) -> Result<ConfiguredClient<P, W, R, X, F>, ConfigError>
    where
        W: HasKey<Key = Host> + Clone,
        R: Resend<P, W>,
    {
        if !R::RETRIES && self.retry != RetrySettings::default() {
            let fix = "leave it: this stack hedges, or sends calls once";
            return Err(ConfigError::new("retry", "set", fix).of("stack", None));
        }
        let circuit = self.circuit_breaker.builder();
        let mut builder = builder
            .with_retry(self.retry.builder()?)
            .circuit_breaker(|_| circuit);
        // A hedge that is off needs nothing of a stack without one.
        let hedge = self.hedge.as_ref();
        if let Some(hedge) = hedge.filter(|hedge| R::HEDGES || hedge.enabled) {
            builder = builder.with_hedge(hedge.builder()?)?;
        }
        if let Some(throttle) = &self.throttle {
            builder = builder.throttle(|_| throttle.builder());
        }
        if let Some(name) = &self.name {
            builder = builder.name(name.clone());
        }
        if !self.circuit_breaker.enabled {
            builder = builder.without_circuit_breaker();
        }
        builder = match self.total_timeout {
            OrOff::On(HumanDuration(total)) => builder.total_timeout(total),
            OrOff::Off => builder.without_total_timeout(),
        };
        builder = match self.attempt_timeout {
            // The default attempt timeout follows the total.
            OrOff::On(HumanDuration(ATTEMPT)) if !self.written.has("attempt_timeout") => builder,
            OrOff::On(HumanDuration(attempt)) => builder.attempt_timeout(attempt),
            OrOff::Off => builder.without_attempt_timeout(),
        };
        self.limits(builder)
    }

    fn limits<P, W, R, X, F>(
        &self,
        mut builder: ClientBuilder<P, W, Parts<R, Own, Own, X, F>>,
    ) -> Result<ConfiguredClient<P, W, R, X, F>, ConfigError>
    where
        W: HasKey<Key = Host> + Clone,
    {
        if let Some(HumanRate(rate)) = self.rate {
            builder = builder.rate(rate);
        }
        if let Some(burst) = self.burst {
            builder = builder.burst(burst);
        }
        let limit = self.rate_limit.as_ref().map(RateLimitSettings::builder);
        let builder = builder.rate_limit(limit.transpose()?);
        let (calls, bulkhead) = checked_calls((self.max_in_flight, &self.bulkhead))?;
        let is_off = bulkhead.as_ref().is_some_and(|bulkhead| !bulkhead.enabled);
        let given = bulkhead.as_ref().filter(|_| !is_off);
        let given = given.map(BulkheadSettings::builder).transpose()?;
        let is_given = given.is_some();
        let builder = builder.bulkhead(given);
        Ok(match calls {
            _ if is_given => builder,
            // Calls are still counted, so that a limit can be added.
            _ if is_off => builder.with_any_in_flight(),
            Some(OrOff::On(calls)) => builder.max_in_flight(calls),
            Some(OrOff::Off) => builder.with_any_in_flight(),
            None => builder,
        })
    }

    /// Returns the changes to a running stack that was built with the settings `before`.
    ///
    /// # Errors
    /// A setting differs that a running stack cannot change: names, budgets, the queues of
    /// bulkheads, the kind of a rate limit, and which parts are present. A rate, a limit on calls
    /// in flight, and the hedge of a stack that was built with one can be added and removed.
    pub fn changes_from(&self, before: &Self) -> Result<Changes, ConfigError> {
        self.changes(before, None)
    }

    /// Returns the changes. `hedge` is the current config, if it is known.
    fn changes(&self, before: &Self, hedge: Option<HedgeConfig>) -> Result<Changes, ConfigError> {
        const LAYER: &str = "stack";
        same(LAYER, "name", &before.name, &self.name)?;
        let mut changes = Changes::new();
        let times = (before.total_timeout, self.total_timeout);
        if let Some(total) = duration_from("total_timeout", times)? {
            changes = changes.total_timeout(total);
        }
        let times = (before.attempt_timeout, self.attempt_timeout);
        if let Some(attempt) = duration_from("attempt_timeout", times)? {
            changes = changes.attempt_timeout(attempt);
        }
        self.retry.config_from(&before.retry)?;
        let config = self.retry_config()?;
        if config != before.retry_config()? {
            changes = changes.retry(config);
        }
        if let Some(config) = hedge_from((&before.hedge, &self.hedge), hedge)? {
            changes = match config {
                Some(config) => changes.hedge(config),
                None => changes.without_hedge(),
            };
        }
        if let Some((before, after)) = both("throttle", &before.throttle, &self.throttle)? {
            if let Some(config) = after.config_from(before)? {
                changes = changes.throttle(config);
            }
        }
        let circuit = &before.circuit_breaker;
        if let Some(config) = self.circuit_breaker.config_from(circuit)? {
            changes = changes.circuit_breaker(config);
        }
        let rates = (before.rate, before.burst, &before.rate_limit);
        let LimitMove { on, quota, manners } =
            rate_from(rates, (self.rate, self.burst, &self.rate_limit))?;
        changes = changes.rate_of_file(quota, manners, on);
        let limits = (before.max_in_flight, &before.bulkhead);
        let limit = checked_calls((self.max_in_flight, &self.bulkhead))?;
        // With a rate the limit follows from it, with a queue that cannot be made any more.
        let has_rate = self.rate.is_some();
        let unset = (!has_rate).then_some(usize::MAX);
        if let Some(calls) = calls_from(limits, limit, unset)? {
            changes = changes.max_in_flight(calls);
        }
        Ok(changes)
    }

    /// Returns the retries' settings. As in `build`, the default of `max_retry_after` follows the
    /// total timeout.
    fn retry_config(&self) -> Result<RetryConfig, ConfigError> {
        let mut config = self.retry.config()?;
        if let OrOff::On(HumanDuration(total)) = self.total_timeout {
            config.cap_retry_after(total);
        }
        Ok(config)
    }
}

/// Returns a part before and after, if it is present.
///
/// # Errors
/// It was added or removed.
fn both<'a, T: PartialEq + Serialize>(
    field: &'static str,
    before: &'a Option<T>,
    after: &'a Option<T>,
) -> Result<Option<(&'a T, &'a T)>, ConfigError> {
    match (before, after) {
        (None, None) => Ok(None),
        (Some(before), Some(after)) => Ok(Some((before, after))),
        (before, after) => same_part("stack", field, before, after).map(|()| None),
    }
}

/// Returns a timeout, if it differs from before.
pub(super) fn duration_from(
    field: &'static str,
    (before, after): (OrOff<HumanDuration>, OrOff<HumanDuration>),
) -> Result<Option<Duration>, ConfigError> {
    match (before, after) {
        (before, after) if before == after => Ok(None),
        (OrOff::On(_), OrOff::On(HumanDuration(duration))) => Ok(Some(duration)),
        _ => same("stack", field, &before, &after).map(|()| None),
    }
}

impl Settings for ClientSettings {
    type Handle = ClientHandle;

    fn update(&self, handle: &ClientHandle, before: &Self) -> Result<Changed, ConfigError> {
        let hedge = handle.hedge.as_ref().map(HedgeHandle::config);
        let mut changes = self.changes(before, hedge)?;
        let is_off = self.hedge.as_ref().is_none_or(|hedge| !hedge.enabled);
        if handle.hedge.is_none() && is_off {
            changes = changes.with_hedge_as_it_is();
        }
        let updated = handle.update(changes);
        in_own_words(updated, &self.bulkhead)
    }

    fn lost_since(&self, before: &Self) -> Option<String> {
        let limit = self.rate_limit.as_ref();
        let bulkhead = self.bulkhead.as_ref();
        let hedge = self.hedge.as_ref();
        let throttle = self.throttle.as_ref();
        let parts = [
            ("", self.partial),
            ("retry.", self.retry.partial),
            ("hedge.", hedge.is_some_and(|hedge| hedge.partial)),
            (
                "throttle.",
                throttle.is_some_and(|throttle| throttle.partial),
            ),
            ("circuit_breaker.", self.circuit_breaker.partial),
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
