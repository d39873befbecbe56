//! Settings of a retry.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Changed, ConfigError,
    algorithm::{Backoff, Jitter},
    retry::{RetryBuilder, RetryConfig, RetryHandle, RetryLayer},
    settings::{
        BudgetSettings, HumanDuration, Settings, Share,
        fixed::{same, same_part},
        part::{choice, group},
        scalar::{given, scalar},
        written::{Written, noted},
    },
};

/// Settings of a [`RetryLayer`]. Attempts, backoff and `max_retry_after` can change at run time.
///
/// ```
/// use tower_keep::{protocol::Plain, settings::RetrySettings};
///
/// let json = r#"{ "attempts": 5, "backoff": { "base": "50ms", "jitter": "full" } }"#;
/// let settings: RetrySettings = serde_json::from_str(json)?;
/// let layer = settings.builder()?.protocol(Plain::new().idempotent()).build()?;
/// assert_eq!(layer.handle().config().attempts, 5);
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
pub struct RetrySettings {
    /// If false, it retries nothing. Default `true`.
    #[serde(deserialize_with = "scalar")]
    pub enabled: bool,
    /// Its name in errors, metrics and events.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The most times that a call is sent, the first time included. Default 3.
    #[serde(deserialize_with = "scalar")]
    pub attempts: u32,
    /// The waits between attempts.
    #[serde(deserialize_with = "group")]
    pub backoff: BackoffSettings,
    /// The longest `Retry-After` to wait for. Default `"10s"`, in a stack at most the total
    /// timeout.
    pub max_retry_after: HumanDuration,
    /// If true, rejections of the layers beneath are retried too. Default `false`.
    #[serde(deserialize_with = "scalar")]
    pub retry_rejected: bool,
    /// The budget of retries. A client's stack has one for each host by default. A budget that is
    /// set is for all hosts together.
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

/// The waits between attempts: a [`Backoff`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default, expecting = "fields with values")]
#[non_exhaustive]
pub struct BackoffSettings {
    /// The first delay before jitter. Default `"100ms"`.
    pub base: HumanDuration,
    /// The longest delay. Default `"10s"`.
    pub max: HumanDuration,
    /// The spread of delays. Default `"exponential"`.
    #[serde(deserialize_with = "choice")]
    pub jitter: JitterSettings,
    /// The factor from each delay to the next. Default 2.
    #[serde(deserialize_with = "scalar")]
    pub factor: f64,
}

/// The spread of a delay: a [`Jitter`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JitterSettings {
    /// From the exponential to twice that.
    Exponential,
    /// From the exponential to that much more.
    Additive(HumanDuration),
    /// From nothing to the exponential.
    Full,
    /// From half of the exponential to all of it.
    Equal,
    /// From the base to three times the previous delay.
    Decorrelated,
    /// Up to that share less or more than the exponential.
    PlusMinus(Share),
    /// No jitter.
    None,
}

impl<'de> Deserialize<'de> for RetrySettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (read, written) = noted(deserializer, Self::deserialize)?;
        Ok(Self { written, ..read })
    }
}

impl Serialize for RetrySettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Default for RetrySettings {
    fn default() -> Self {
        let config = RetryConfig::default();
        Self {
            enabled: true,
            name: None,
            attempts: config.attempts,
            backoff: BackoffSettings::default(),
            max_retry_after: config.max_retry_after.into(),
            retry_rejected: false,
            budget: BudgetSettings::default(),
            partial: false,
            written: Written::default(),
        }
    }
}

impl Default for BackoffSettings {
    fn default() -> Self {
        let backoff = Backoff::default();
        Self {
            base: backoff.base().into(),
            max: backoff.max().into(),
            jitter: backoff.jitter().into(),
            factor: backoff.growth(),
        }
    }
}

#[cfg(feature = "http")]
impl crate::settings::part::Switchable for RetrySettings {
    fn off() -> Self {
        Self {
            enabled: false,
            ..Self::default()
        }
    }
}

impl RetrySettings {
    /// Returns a builder with these settings, on which code sets the protocol.
    ///
    /// # Errors
    /// A backoff or a budget that cannot work. `build` checks the rest.
    pub fn builder(&self) -> Result<RetryBuilder, ConfigError> {
        let mut builder = RetryLayer::builder()
            .enabled(self.enabled)
            .config(self.config()?)
            .retry_rejected(self.retry_rejected);
        if self.budget != BudgetSettings::default() {
            builder = match self.budget.budget("retry.budget")? {
                Some(budget) => builder.budget(budget),
                None => builder.without_budget(),
            };
        }
        Ok(match &self.name {
            Some(name) => builder.name(name.clone()),
            None => builder,
        })
    }

    /// Returns the settings that can change at run time.
    ///
    /// # Errors
    /// A backoff that cannot work.
    pub fn config(&self) -> Result<RetryConfig, ConfigError> {
        Ok(RetryConfig {
            attempts: self.attempts,
            backoff: self.backoff.backoff()?,
            max_retry_after: self.max_retry_after.0,
        })
    }

    /// Returns the settings that can change at run time, if they differ from before.
    ///
    /// # Errors
    /// A setting differs that a running retry cannot change.
    pub(super) fn config_from(&self, before: &Self) -> Result<Option<RetryConfig>, ConfigError> {
        const LAYER: &str = "retry";
        same(LAYER, "enabled", &before.enabled, &self.enabled)?;
        same(LAYER, "name", &before.name, &self.name)?;
        let rejected = (&before.retry_rejected, &self.retry_rejected);
        same(LAYER, "retry_rejected", rejected.0, rejected.1)?;
        same_part(LAYER, "budget", &before.budget, &self.budget)?;
        let (old, new) = (before.config()?, self.config()?);
        Ok((new != old).then_some(new))
    }
}

impl BackoffSettings {
    fn backoff(&self) -> Result<Backoff, ConfigError> {
        let backoff = Backoff::new(self.base.0, self.max.0, self.jitter.into());
        let backoff = backoff.and_then(|backoff| backoff.factor(self.factor));
        backoff.map_err(|error| error.of("retry.backoff", None))
    }
}

impl From<Jitter> for JitterSettings {
    fn from(jitter: Jitter) -> Self {
        match jitter {
            Jitter::Exponential => Self::Exponential,
            Jitter::Additive(range) => Self::Additive(range.into()),
            Jitter::Full => Self::Full,
            Jitter::Equal => Self::Equal,
            Jitter::Decorrelated => Self::Decorrelated,
            Jitter::PlusMinus(share) => Self::PlusMinus(share.into()),
            Jitter::None => Self::None,
        }
    }
}

impl From<JitterSettings> for Jitter {
    fn from(jitter: JitterSettings) -> Self {
        match jitter {
            JitterSettings::Exponential => Self::Exponential,
            JitterSettings::Additive(range) => Self::Additive(range.0),
            JitterSettings::Full => Self::Full,
            JitterSettings::Equal => Self::Equal,
            JitterSettings::Decorrelated => Self::Decorrelated,
            JitterSettings::PlusMinus(share) => Self::PlusMinus(share.0),
            JitterSettings::None => Self::None,
        }
    }
}

impl Settings for RetrySettings {
    type Handle = RetryHandle;

    fn update(&self, handle: &RetryHandle, before: &Self) -> Result<Changed, ConfigError> {
        match self.config_from(before)? {
            Some(config) => handle.update(config),
            None => Ok(Changed::default()),
        }
    }

    fn lost_since(&self, before: &Self) -> Option<String> {
        self.written.lost_since(&before.written, |_| self.partial)
    }
}
