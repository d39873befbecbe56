//! Settings of a rate limit.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Changed, ConfigError,
    algorithm::{LeakyBucket, Overflow, SlidingCounter, SlidingLog, SlidingRing},
    keyed::{KeySettings, Missing},
    rate_limit::{Manners, Rate, RateLimitBuilder, RateLimitHandle, RateLimitLayer, one_second_of},
    settings::{
        HumanDuration, HumanRate, Settings,
        fixed::{required, same, same_part},
        part::{choice, given_choice},
        scalar::{given, scalar},
        units::value_unless_off,
        written::{Written, noted},
    },
};

/// Settings of a [`RateLimitLayer`]. Each has the meaning of the builder's setter of the same name.
///
/// ```
/// use tower_keep::settings::RateLimitSettings;
///
/// let json = r#"{ "rate": "100/s", "burst": 20, "max_wait": "250ms" }"#;
/// let settings: RateLimitSettings = serde_json::from_str(json)?;
/// let layer = settings.builder()?.build()?;
/// assert_eq!(layer.handle().snapshot().burst, 20);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schemars",
    derive(schemars::JsonSchema),
    schemars(transform = crate::settings::schema::written("max_wait honor_retry_after"))
)]
#[serde(
    remote = "Self",
    deny_unknown_fields,
    default,
    expecting = "fields with values"
)]
#[non_exhaustive]
pub struct RateLimitSettings {
    /// If false, it limits nothing. Default `true`.
    #[serde(deserialize_with = "scalar")]
    pub enabled: bool,
    /// Its name in errors, metrics and events.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The highest rate. No default. Can change at run time.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub rate: Option<HumanRate>,
    /// The calls that may arrive at once after a pause. Can change at run time. Default: those of
    /// one second, and at least 1.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// The algorithm that counts. Default: a token bucket. The others have no burst.
    #[serde(deserialize_with = "choice")]
    pub algorithm: LimitAlgorithm,
    /// The longest wait of calls over the limit. Default: no call waits.
    #[serde(
        deserialize_with = "value_unless_off",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_wait: Option<HumanDuration>,
    /// The most calls that wait. Default 1024.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub max_waiting: Option<usize>,
    /// The longest time for which an upstream's `Retry-After` closes the limit. Default: it does
    /// not.
    #[serde(
        deserialize_with = "value_unless_off",
        skip_serializing_if = "Option::is_none"
    )]
    pub honor_retry_after: Option<HumanDuration>,
    /// If true, responses advertise the limit. Default `false`.
    #[serde(deserialize_with = "scalar")]
    pub advertise: bool,
    /// The most keys, if the code sets a key.
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

/// The algorithm of a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum LimitAlgorithm {
    /// [`TokenBucket`](crate::algorithm::TokenBucket), the default.
    #[default]
    TokenBucket,
    /// [`SlidingLog`]: exact, 8 bytes for each call of the rate.
    SlidingLog,
    /// [`SlidingCounter`]: approximate.
    SlidingCounter,
    /// [`SlidingRing`]: never over the rate.
    SlidingRing {
        /// The number of parts of the window. 10 is a fair choice.
        #[serde(deserialize_with = "scalar")]
        parts: u32,
    },
    /// [`LeakyBucket`]: calls leave evenly spaced.
    LeakyBucket {
        /// The longest delay of a departure that the next one makes up for.
        slack: HumanDuration,
    },
}

impl<'de> Deserialize<'de> for RateLimitSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (read, written) = noted(deserializer, Self::deserialize)?;
        Ok(Self { written, ..read })
    }
}

impl Serialize for RateLimitSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Default for RateLimitSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            name: None,
            rate: None,
            burst: None,
            algorithm: LimitAlgorithm::TokenBucket,
            max_wait: None,
            max_waiting: None,
            honor_retry_after: None,
            advertise: false,
            max_keys: None,
            overflow: None,
            missing: None,
            partial: false,
            written: Written::default(),
        }
    }
}

impl RateLimitSettings {
    /// Returns a builder with these settings, on which code sets the rest: key, cost, protocol.
    ///
    /// # Errors
    /// No rate, or one that the algorithm cannot keep. `build` checks the rest.
    pub fn builder(&self) -> Result<RateLimitBuilder, ConfigError> {
        let mut builder = self.algorithm.builder(self.rate()?)?;
        builder = builder.enabled(self.enabled).advertise(self.advertise);
        if let Some(burst) = self.burst {
            builder = builder.burst(burst);
        }
        if let Some(HumanDuration(wait)) = self.max_wait {
            builder = builder.max_wait(wait);
        }
        if let Some(calls) = self.max_waiting {
            builder = builder.max_waiting(calls);
        }
        if let Some(HumanDuration(max)) = self.honor_retry_after {
            builder = builder.honor_retry_after(max);
        }
        builder = builder.key_settings(KeySettings {
            max_keys: self.max_keys,
            overflow: self.overflow,
            missing: self.missing,
            ..KeySettings::default()
        });
        Ok(match &self.name {
            Some(name) => builder.name(name.clone()),
            None => builder,
        })
    }

    pub(super) fn rate(&self) -> Result<Rate, ConfigError> {
        let fix = "say how much in how long, such as \"100/s\"";
        Ok(required("rate_limit", "rate", self.rate, fix)?.0)
    }

    /// Fails if a setting differs that a running limit cannot change.
    fn movable_from(&self, before: &Self) -> Result<(), ConfigError> {
        const LAYER: &str = "rate_limit";
        same(LAYER, "name", &before.name, &self.name)?;
        same_part(LAYER, "algorithm", &before.algorithm, &self.algorithm)?;
        same(LAYER, "max_keys", &before.max_keys, &self.max_keys)?;
        same_part(LAYER, "overflow", &before.overflow, &self.overflow)?;
        same_part(LAYER, "missing", &before.missing, &self.missing)
    }

    /// Returns what differs from before.
    ///
    /// # Errors
    /// A setting differs that a running limit cannot change.
    pub(super) fn moved_from(&self, before: &Self) -> Result<LimitMove, ConfigError> {
        self.movable_from(before)?;
        let rate = self.rate()?;
        let burst = match self.algorithm {
            LimitAlgorithm::TokenBucket => burst(rate, self.burst),
            LimitAlgorithm::LeakyBucket { .. } => 1,
            _ => u32::try_from(rate.count()).unwrap_or(u32::MAX),
        };
        let other_quota = (self.rate, self.burst) != (before.rate, before.burst);
        let quota = other_quota.then_some((rate, burst));
        let manners = self.manners();
        let manners = (manners != before.manners()).then_some(manners);
        let moved = quota.is_some() || manners.is_some() || self.enabled != before.enabled;
        Ok(LimitMove {
            on: moved.then_some(self.enabled),
            quota,
            manners,
        })
    }

    /// Returns a token bucket with no other settings.
    #[cfg(feature = "http")]
    pub(super) fn bucket(rate: Option<HumanRate>, burst: Option<u32>) -> Self {
        Self {
            rate,
            burst,
            ..Self::default()
        }
    }

    /// Returns all settings, for a stack that has no limit and adds what a running limit can
    /// change.
    #[cfg(feature = "http")]
    pub(super) fn added(&self) -> Result<LimitMove, ConfigError> {
        let moved = self.moved_from(&Self::default())?;
        Ok(LimitMove {
            on: Some(self.enabled),
            manners: Some(self.manners()),
            ..moved
        })
    }

    fn manners(&self) -> Manners {
        let time = |time: Option<HumanDuration>| time.map(|HumanDuration(time)| time);
        Manners {
            max_wait: time(self.max_wait),
            max_waiting: self.max_waiting,
            honor_retry_after: time(self.honor_retry_after),
            advertise: self.advertise,
        }
    }
}

/// The changes of a running limit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LimitMove {
    /// If true, the limit is on afterwards. `None` if that does not change.
    pub(super) on: Option<bool>,
    pub(super) quota: Option<(Rate, u32)>,
    pub(super) manners: Option<Manners>,
}

impl LimitAlgorithm {
    fn builder(self, rate: Rate) -> Result<RateLimitBuilder, ConfigError> {
        let of = |error: ConfigError| error.of("rate_limit", None);
        Ok(match self {
            Self::TokenBucket => RateLimitLayer::builder(rate),
            Self::SlidingLog => RateLimitLayer::with(SlidingLog::new(rate).map_err(of)?),
            Self::SlidingCounter => RateLimitLayer::with(SlidingCounter::new(rate).map_err(of)?),
            Self::SlidingRing { parts } => {
                RateLimitLayer::with(SlidingRing::new(rate, parts).map_err(of)?)
            }
            Self::LeakyBucket { slack } => {
                RateLimitLayer::with(LeakyBucket::new(rate, slack.0).map_err(of)?)
            }
        })
    }
}

/// Returns the burst that was set, or one second's worth and at least 1, as the builder does.
pub(super) fn burst(rate: Rate, burst: Option<u32>) -> u32 {
    burst.unwrap_or_else(|| one_second_of(rate))
}

impl Settings for RateLimitSettings {
    type Handle = RateLimitHandle;

    fn update(&self, handle: &RateLimitHandle, before: &Self) -> Result<Changed, ConfigError> {
        let LimitMove { on, quota, manners } = self.moved_from(before)?;
        match on {
            Some(on) => handle.change(quota, manners, on),
            None => Ok(Changed::default()),
        }
    }

    fn lost_since(&self, before: &Self) -> Option<String> {
        self.written.lost_since(&before.written, |_| self.partial)
    }
}
