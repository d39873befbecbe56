//! The words by which callers are told of a limit.

use std::hash::{DefaultHasher, Hasher};

use crate::{Name, ambient::chance};

/// The facts that callers are [told](crate::rate_limit::RateLimitBuilder::advertise) of a limit:
/// `true`, or more.
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
    /// What the numbers of partitions are drawn from, if they are told.
    seed: Option<u64>,
}

impl Advertise {
    /// The limit, what is left of it, and when there is more.
    #[must_use]
    pub fn new() -> Self {
        true.into()
    }

    /// Sets what is counted: `content-bytes`, or another of the registry of units that the draft of
    /// the `RateLimit` fields begins. Default: requests, which is not written.
    #[must_use]
    pub fn unit(mut self, unit: impl Into<Name>) -> Self {
        self.unit = Some(unit.into().as_str());
        self
    }

    /// Tells partitions apart, if the limit is keyed: by a number that does not tell the key and is
    /// another after each start. Default: keys are not told apart.
    #[must_use]
    pub fn keys(mut self) -> Self {
        self.seed = Some(chance::word());
        self
    }

    /// The same, switched on or off.
    pub(crate) fn switched(self, is_on: bool) -> Self {
        Self { is_on, ..self }
    }

    /// The same without numbers of partitions.
    pub(crate) fn without_keys(self) -> Self {
        Self { seed: None, ..self }
    }

    /// The number of a partition whose key has that hash. The hash itself would tell which keys
    /// collide.
    pub(crate) fn partition_of(&self, hash: u64) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed?);
        hasher.write_u64(hash);
        Some(hasher.finish())
    }

    /// The number of a partition that is new.
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
