//! Settings of several quotas.

use std::{collections::BTreeMap, fmt, hash::Hash, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Changed, ConfigError,
    algorithm::Rate,
    rate_limit::{
        Dimension, DimensionsBuilder, DimensionsHandle, KeyedDimensionsHandle, RateLimitLayer,
        Settles,
    },
    settings::{
        HumanDuration, HumanRate, Settings,
        fixed::{required, same, same_part},
        part::group,
        scalar::{given, scalar},
        units::value_unless_off,
        written::{Written, noted},
    },
};

/// Settings of a limit of several quotas: a
/// [`DimensionsBuilder`]. Each has the meaning of the builder's setter of the same name. Rates and
/// bursts can change at run time. Keys, costs and settlement are code.
///
/// ```
/// use tower_keep::settings::DimensionsSettings;
///
/// let json = r#"{
///     "dimensions": {
///         "requests": { "rate": "500/m", "burst": 50 },
///         "tokens": { "rate": "80000/m" },
///         "micro_dollars": { "rate": "20000000/d", "money": true }
///     },
///     "max_wait": "5s"
/// }"#;
/// let settings: DimensionsSettings = serde_json::from_str(json)?;
/// // The code names them in the order of its costs.
/// let layer = settings
///     .builder(["requests", "tokens", "micro_dollars"])?
///     .cost(|prompt: &String| [1, prompt.len() as u64, 3 * prompt.len() as u64])
///     .build()?;
/// assert_eq!(layer.handle().snapshot().dimensions[1].burst, 80_000);
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
pub struct DimensionsSettings {
    /// If false, it limits nothing. Default `true`.
    #[serde(deserialize_with = "scalar")]
    pub enabled: bool,
    /// Its name in errors, metrics and events.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The quotas by name. No default. Can change at run time.
    #[serde(deserialize_with = "group", skip_serializing_if = "BTreeMap::is_empty")]
    pub dimensions: BTreeMap<String, DimensionSettings>,
    /// The quotas of all keys together, if the code sets a key. Default: none. Can change at run
    /// time.
    #[serde(deserialize_with = "group", skip_serializing_if = "BTreeMap::is_empty")]
    pub within: BTreeMap<String, DimensionSettings>,
    /// The longest wait of calls over a quota. Default: no call waits.
    #[serde(
        deserialize_with = "value_unless_off",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_wait: Option<HumanDuration>,
    /// The most calls that wait. Default 1024.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub max_waiting: Option<usize>,
    /// The longest time for which an upstream's `Retry-After` closes all quotas. Default: it does
    /// not.
    #[serde(
        deserialize_with = "value_unless_off",
        skip_serializing_if = "Option::is_none"
    )]
    pub honor_retry_after: Option<HumanDuration>,
    /// If true, responses advertise the quotas. Default `false`.
    #[serde(deserialize_with = "scalar")]
    pub advertise: bool,
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

/// Settings of one quota: see [`Dimension`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "fields with values")]
#[non_exhaustive]
pub struct DimensionSettings {
    /// The highest rate. No default. Can change at run time.
    pub rate: HumanRate,
    /// The most units at once. Default: those of one period of the rate. Can change at run time.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub burst: Option<u64>,
    /// If true, it admits nothing while a fleet's store is down: see [`Dimension::money`]. Default
    /// `false`.
    #[serde(
        default,
        deserialize_with = "scalar",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub money: bool,
}

/// Changes the quotas of a running limit by their names, whatever their number. Made from a
/// [`DimensionsHandle`], or from a [`KeyedDimensionsHandle`], for the quotas of every key.
#[derive(Clone)]
pub struct DimensionsUpdater(Arc<UpdateOf>);

/// A change of one quota, of each key or of all keys together.
type UpdateOf = dyn Fn(QuotaScope, &str, Rate, u64) -> Result<Changed, ConfigError> + Send + Sync;

/// The quotas of each key, or those of all keys together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QuotaScope {
    EachKey,
    AllKeys,
}

impl<'de> Deserialize<'de> for DimensionsSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (read, written) = noted(deserializer, Self::deserialize)?;
        Ok(Self { written, ..read })
    }
}

impl Serialize for DimensionsSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Default for DimensionsSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            name: None,
            dimensions: BTreeMap::new(),
            within: BTreeMap::new(),
            max_wait: None,
            max_waiting: None,
            honor_retry_after: None,
            advertise: false,
            partial: false,
            written: Written::default(),
        }
    }
}

impl DimensionsSettings {
    /// Returns a builder with these settings, on which code sets the rest: costs, settlement, key,
    /// protocol. `names` are the quotas in the order of the costs.
    ///
    /// # Errors
    /// A quota of these names that the file lacks, or one that it has besides. `build` checks the
    /// rest.
    pub fn builder<const N: usize>(
        &self,
        names: [&'static str; N],
    ) -> Result<DimensionsBuilder<N>, ConfigError> {
        let quotas = in_order("dimensions", &self.dimensions, names)?;
        let mut builder = RateLimitLayer::dimensions(quotas);
        builder = builder.enabled(self.enabled).advertise(self.advertise);
        if !self.within.is_empty() {
            builder = builder.total(in_order("within", &self.within, names)?);
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
        Ok(match &self.name {
            Some(name) => builder.name(name.clone()),
            None => builder,
        })
    }

    /// Fails if a setting differs that a running limit cannot change.
    fn movable_from(&self, before: &Self) -> Result<(), ConfigError> {
        same(LAYER, "enabled", &before.enabled, &self.enabled)?;
        same(LAYER, "name", &before.name, &self.name)?;
        let names = |all: &BTreeMap<String, DimensionSettings>| -> Vec<_> {
            let all = all.iter();
            all.map(|(name, quota)| (name.clone(), quota.money))
                .collect()
        };
        let (old, new) = (names(&before.dimensions), names(&self.dimensions));
        same_part(LAYER, "dimensions", &old, &new)?;
        let (old, new) = (names(&before.within), names(&self.within));
        same_part(LAYER, "within", &old, &new)?;
        same(LAYER, "max_wait", &before.max_wait, &self.max_wait)?;
        same(LAYER, "max_waiting", &before.max_waiting, &self.max_waiting)?;
        let hints = (&before.honor_retry_after, &self.honor_retry_after);
        same(LAYER, "honor_retry_after", hints.0, hints.1)?;
        same(LAYER, "advertise", &before.advertise, &self.advertise)
    }
}

impl DimensionSettings {
    fn dimension(&self, name: &'static str) -> Dimension {
        let new = if self.money {
            Dimension::money
        } else {
            Dimension::new
        };
        let dimension = new(name, self.rate.0);
        match self.burst {
            Some(burst) => dimension.burst(burst),
            None => dimension,
        }
    }
}

impl<const N: usize> From<DimensionsHandle<N>> for DimensionsUpdater {
    fn from(handle: DimensionsHandle<N>) -> Self {
        // Without a key there are no others.
        Self(Arc::new(move |_, name, rate, burst| {
            handle.update(name, rate, burst)
        }))
    }
}

impl<K, const N: usize, C, U> From<KeyedDimensionsHandle<N, K, C, U>> for DimensionsUpdater
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    C: Clone + Send + Sync + 'static,
    U: Settles + Clone + Send + Sync + 'static,
{
    fn from(handle: KeyedDimensionsHandle<N, K, C, U>) -> Self {
        Self(Arc::new(move |part, name, rate, burst| {
            match handle.total().filter(|_| part == QuotaScope::AllKeys) {
                Some(total) => total.update(name, rate, burst),
                None => handle.update(name, rate, burst),
            }
        }))
    }
}

impl Settings for DimensionsSettings {
    type Handle = DimensionsUpdater;

    fn update(&self, handle: &DimensionsUpdater, before: &Self) -> Result<Changed, ConfigError> {
        self.movable_from(before)?;
        let own = (QuotaScope::EachKey, &self.dimensions, &before.dimensions);
        let within = (QuotaScope::AllKeys, &self.within, &before.within);
        let changed = [own, within].into_iter().flat_map(|(part, new, old)| {
            let new = new
                .iter()
                .filter(|(name, quota)| old.get(*name) != Some(quota));
            new.map(move |(name, quota)| (part, name, quota))
        });
        let changed: Vec<_> = changed.collect();
        // All are checked before the first one changes.
        for (_, name, quota) in &changed {
            let dimension = quota.dimension("");
            dimension.checked().map_err(|error| named(error, name))?;
        }
        let mut all = Changed::default();
        for (part, name, quota) in changed {
            let burst = quota.dimension("").units();
            all = all.and((handle.0)(part, name, quota.rate.0, burst)?);
        }
        Ok(all)
    }

    fn lost_since(&self, before: &Self) -> Option<String> {
        self.written.lost_since(&before.written, |_| self.partial)
    }
}

impl fmt::Debug for DimensionsUpdater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DimensionsUpdater").finish_non_exhaustive()
    }
}

/// Returns the quotas in the order of their names.
fn in_order<const N: usize>(
    field: &'static str,
    quotas: &BTreeMap<String, DimensionSettings>,
    names: [&'static str; N],
) -> Result<[Dimension; N], ConfigError> {
    if let Some(unknown) = quotas.keys().find(|name| !names.contains(&name.as_str())) {
        let fix = "leave it: the code has no cost for it";
        return Err(ConfigError::new(field, unknown, fix).of(LAYER, None));
    }
    let mut found = Vec::with_capacity(N);
    for name in names {
        let fix = "give a rate for each quota that the code has a cost for, such as \"500/m\"";
        let quota = required(LAYER, field, quotas.get(name), fix);
        found.push(quota.map_err(|error| named(error, name))?.dimension(name));
    }
    let Ok(found) = <[Dimension; N]>::try_from(found) else {
        unreachable!("one for each name");
    };
    Ok(found)
}

fn named(error: ConfigError, dimension: &str) -> ConfigError {
    error.of(
        LAYER,
        Some(crate::Name::from(dimension.to_owned()).as_str()),
    )
}

const LAYER: &str = "rate_limit";
