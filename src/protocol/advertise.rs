//! The settings of how a limit is advertised to callers.

use std::hash::{DefaultHasher, Hasher};

use crate::{Name, ambient::chance};

/// The facts that a limit [advertises](crate::rate_limit::RateLimitBuilder::advertise) to its
/// callers: `true`, or more.
///
/// ```
/// use tower_keep::{protocol::http::Server, rate_limit::{Advertise, Rate, RateLimitLayer}};
///
/// // A megabyte a second for each tenant.
/// type Request = http::Request<bytes::Bytes>;
/// let limit = RateLimitLayer::builder(Rate::per_second(1_000_000))
///     .cost(|request: &Request| request.body().len().try_into().unwrap_or(u32::MAX))
///     .keyed_by(|request: &Request| request.headers().get("x-tenant").cloned())
///     .advertise(Advertise::new().unit("content-bytes").keys())
///     .protocol(Server::new())
///     .build()?;
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Advertise {
    pub(crate) is_on: bool,
    pub(crate) unit: Option<&'static str>,
    /// The seed of the numbers of partitions, if they are advertised.
    seed: Option<u64>,
}

impl Advertise {
    /// Advertises the limit, what is left of it, and when there is more.
    #[must_use]
    pub fn new() -> Self {
        true.into()
    }

    /// Sets the unit: `content-bytes`, or another one of the registry of units in the draft of the
    /// `RateLimit` fields. Default: requests, which is not written.
    #[must_use]
    pub fn unit(mut self, unit: impl Into<Name>) -> Self {
        self.unit = Some(unit.into().as_str());
        self
    }

    /// Adds a number for each partition of a keyed limit. The number does not reveal the key, and
    /// is different after each start. Default: no numbers.
    #[must_use]
    pub fn keys(mut self) -> Self {
        self.seed = Some(chance::word());
        self
    }

    /// Returns the same settings, switched on or off.
    pub(crate) fn switched(self, is_on: bool) -> Self {
        Self { is_on, ..self }
    }

    /// Returns the same settings, without numbers of partitions.
    pub(crate) fn without_keys(self) -> Self {
        Self { seed: None, ..self }
    }

    /// Returns the number of the partition of a key with that hash. The hash itself would reveal
    /// which keys collide.
    pub(crate) fn partition_of(&self, hash: u64) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed?);
        hasher.write_u64(hash);
        Some(hasher.finish())
    }

    /// Returns the number of a new partition.
    pub(crate) fn new_partition(&self) -> Option<u64> {
        self.seed.map(|_| chance::word())
    }
}

impl From<bool> for Advertise {
    fn from(is_on: bool) -> Self {
        Self {
            is_on,
            ..Self::default()
        }
    }
}
