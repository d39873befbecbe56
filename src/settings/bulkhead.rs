//! Settings of a bulkhead.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Changed, ConfigError, Criticality,
    algorithm::Overflow,
    bulkhead::{BulkheadBuilder, BulkheadHandle, BulkheadLayer},
    keyed::{KeySettings, Missing},
    settings::{
        AdaptiveSettings, HumanDuration, Settings, Share,
        fixed::{required, same, same_part},
        part::{choice_unless_off, given_choice, given_group, group},
        scalar::{given, scalar},
        units::value_unless_off,
        written::{Written, noted},
    },
};

/// Settings of a [`BulkheadLayer`]. Each has the meaning of the builder's setter of the same name.
/// The limit can change at run time.
///
/// ```
/// use tower_keep::settings::BulkheadSettings;
///
/// let json = r#"{ "limit": 500, "max_wait": "100ms", "adaptive": { "vegas": {} } }"#;
/// let settings: BulkheadSettings = serde_json::from_str(json)?;
/// let layer = settings.builder()?.build()?;
/// assert_eq!(layer.handle().snapshot().limit, 20); // to start with
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schemars",
    derive(schemars::JsonSchema),
    schemars(transform = crate::settings::schema::written("adaptive max_wait reclaim_after within"))
)]
#[serde(
    remote = "Self",
    deny_unknown_fields,
    default,
    expecting = "fields with values"
)]
#[non_exhaustive]
pub struct BulkheadSettings {
    /// If false, it limits nothing. Default `true`.
    #[serde(deserialize_with = "scalar")]
    pub enabled: bool,
    /// Its name in errors, metrics and events.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The most calls in flight. No default.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Learns the limit, up to `limit`. Default: off.
    #[serde(
        deserialize_with = "choice_unless_off",
        skip_serializing_if = "Option::is_none"
    )]
    pub adaptive: Option<AdaptiveSettings>,
    /// The longest wait for a permit. Default: no call waits.
    #[serde(
        deserialize_with = "value_unless_off",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_wait: Option<HumanDuration>,
    /// The time after which a call's permit may be reclaimed. Default: never.
    #[serde(
        deserialize_with = "value_unless_off",
        skip_serializing_if = "Option::is_none"
    )]
    pub reclaim_after: Option<HumanDuration>,
    /// The most calls that wait. Default 1024.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub max_waiting: Option<usize>,
    /// The time from which the newest waiter is first. Default: by `max_wait`.
    #[serde(
        deserialize_with = "given_group",
        skip_serializing_if = "Option::is_none"
    )]
    pub codel: Option<CodelSettings>,
    /// If true, waiters are always served in order of arrival, in place of `codel`. Default
    /// `false`.
    #[serde(deserialize_with = "scalar")]
    pub always_in_order: bool,
    /// The share of the limit, or of the queue, up to which calls of a class are admitted, if the
    /// code sets classes. A class without an entry keeps its default.
    #[serde(deserialize_with = "group", skip_serializing_if = "BTreeMap::is_empty")]
    pub shed_above: BTreeMap<Criticality, Share>,
    /// If true, responses advertise the limit. Default `false`.
    #[serde(deserialize_with = "scalar")]
    pub advertise: bool,
    /// The permits of all keys together, if the code sets a key. Default: no total.
    #[serde(
        deserialize_with = "value_unless_off",
        skip_serializing_if = "Option::is_none"
    )]
    pub within: Option<usize>,
    /// The most keys with their own bulkhead, if the code sets a key. Default 1024.
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

/// The times from which a queue that does not drain serves its newest waiter first: see
/// [`codel`](BulkheadBuilder::codel).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "fields with values")]
pub struct CodelSettings {
    /// The longest wait that does not count as queueing.
    pub target: HumanDuration,
    /// The time for which waits may exceed `target`.
    pub interval: HumanDuration,
}

impl<'de> Deserialize<'de> for BulkheadSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (read, written) = noted(deserializer, Self::deserialize)?;
        Ok(Self { written, ..read })
    }
}

impl Serialize for BulkheadSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Default for BulkheadSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            name: None,
            limit: None,
            adaptive: None,
            max_wait: None,
            reclaim_after: None,
            max_waiting: None,
            codel: None,
            always_in_order: false,
            shed_above: BTreeMap::new(),
            advertise: false,
            within: None,
            max_keys: None,
            overflow: None,
            missing: None,
            partial: false,
            written: Written::default(),
        }
    }
}

#[cfg(feature = "http")]
impl crate::settings::part::Switchable for BulkheadSettings {
    fn off() -> Self {
        Self {
            enabled: false,
            ..Self::default()
        }
    }
}

impl BulkheadSettings {
    /// Returns a builder with these settings, on which code sets the rest: key, deadline,
    /// criticality, protocol.
    ///
    /// # Errors
    /// No limit, an adaptive limit that cannot work, or two orders of the queue. `build` checks the
    /// rest.
    pub fn builder(&self) -> Result<BulkheadBuilder, ConfigError> {
        let mut builder = self.queue(BulkheadLayer::builder(self.limit()?))?;
        builder = builder.enabled(self.enabled).advertise(self.advertise);
        if let Some(adaptive) = &self.adaptive {
            builder = adaptive.apply_to(builder)?;
        }
        for (class, Share(share)) in &self.shed_above {
            builder = builder.shed_above(*class, percent(*share));
        }
        if let Some(HumanDuration(after)) = self.reclaim_after {
            builder = builder.reclaim_after(after);
        }
        if let Some(total) = self.within {
            builder = builder.total(total);
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

    fn queue(&self, mut builder: BulkheadBuilder) -> Result<BulkheadBuilder, ConfigError> {
        if let Some(HumanDuration(wait)) = self.max_wait {
            builder = builder.max_wait(wait);
        }
        if let Some(calls) = self.max_waiting {
            builder = builder.max_waiting(calls);
        }
        match (self.codel, self.always_in_order) {
            (Some(_), true) => {
                let fix = "leave it, or `codel`: a queue has one order";
                Err(ConfigError::new("always_in_order", true, fix).of("bulkhead", None))
            }
            (Some(codel), false) => Ok(builder.codel(codel.target.0, codel.interval.0)),
            (None, true) => Ok(builder.always_in_order()),
            (None, false) => Ok(builder),
        }
    }

    /// Returns the limit. A bulkhead that is off needs none.
    fn limit(&self) -> Result<usize, ConfigError> {
        let fix = "say how many calls may run at once";
        let limit = self.limit.or((!self.enabled).then_some(usize::MAX));
        required("bulkhead", "limit", limit, fix)
    }

    /// Returns the limit, if it differs from before.
    ///
    /// # Errors
    /// A setting differs that a running bulkhead cannot change.
    pub(super) fn limit_from(&self, before: &Self) -> Result<Option<usize>, ConfigError> {
        const LAYER: &str = "bulkhead";
        same(LAYER, "enabled", &before.enabled, &self.enabled)?;
        same(LAYER, "name", &before.name, &self.name)?;
        same_part(LAYER, "adaptive", &before.adaptive, &self.adaptive)?;
        same(LAYER, "max_wait", &before.max_wait, &self.max_wait)?;
        let reclaims = (&before.reclaim_after, &self.reclaim_after);
        same(LAYER, "reclaim_after", reclaims.0, reclaims.1)?;
        same(LAYER, "max_waiting", &before.max_waiting, &self.max_waiting)?;
        same_part(LAYER, "codel", &before.codel, &self.codel)?;
        let orders = (&before.always_in_order, &self.always_in_order);
        same(LAYER, "always_in_order", orders.0, orders.1)?;
        same_part(LAYER, "shed_above", &before.shed_above, &self.shed_above)?;
        same(LAYER, "advertise", &before.advertise, &self.advertise)?;
        same(LAYER, "within", &before.within, &self.within)?;
        same(LAYER, "max_keys", &before.max_keys, &self.max_keys)?;
        same_part(LAYER, "overflow", &before.overflow, &self.overflow)?;
        same_part(LAYER, "missing", &before.missing, &self.missing)?;
        let limit = self.limit()?;
        Ok((before.limit != self.limit).then_some(limit))
    }
}

impl Settings for BulkheadSettings {
    type Handle = BulkheadHandle;

    fn update(&self, handle: &BulkheadHandle, before: &Self) -> Result<Changed, ConfigError> {
        let reclaim_after = self.reclaim_after;
        let before_else = Self {
            reclaim_after,
            ..before.clone()
        };
        let limit = self.limit_from(&before_else)?;
        let mut config = handle.config();
        config.limit = limit.unwrap_or(config.limit);
        if before.reclaim_after != reclaim_after {
            config.reclaim_after = reclaim_after.map(|HumanDuration(after)| after);
        } else if limit.is_none() {
            return Ok(Changed::default());
        }
        handle.update(config)
    }

    fn lost_since(&self, before: &Self) -> Option<String> {
        self.written.lost_since(&before.written, |_| self.partial)
    }
}

/// Returns a share in whole percent.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share that was read is at most 1; one made by hand saturates"
)]
fn percent(share: f64) -> u8 {
    (share * 100.0).round() as u8
}
