//! The settings of the keys of a limit of several quotas.

use std::sync::Arc;

use super::{
    builder::{DimensionsBuilder, PerKeyDimensions},
    dimension::Dimension,
};
use crate::{
    algorithm::Overflow,
    keyed::{HasKey, KeyIsSet, Missing, sealed},
};

impl<F: HasKey, const N: usize> sealed::KeyIsSet for PerKeyDimensions<F, N> {}

impl<const N: usize, K: KeyIsSet, P, C, U> DimensionsBuilder<N, K, P, C, U> {
    /// Sets how many keys are tracked. Default 1024.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.values.keys.max_keys = Some(keys);
        self
    }

    /// Sets the fate of new keys when there is no room for more. Default [`Overflow::Shared`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.values.keys.overflow = Some(overflow);
        self
    }

    /// Sets the fate of requests without a key. Default [`Missing::Share`].
    pub fn missing(mut self, missing: Missing) -> Self {
        self.values.keys.missing = Some(missing);
        self
    }

    /// Adds quotas for all keys together, in the same order. A call is charged to its key's quotas
    /// and to these, or to none. Default: none. For a rejection,
    /// [`Left::is_total`](crate::Left::is_total) separates the two, and both are advertised.
    pub fn within(mut self, total: [Dimension; N]) -> Self {
        self.values.total = Some(total);
        self
    }
}

impl<F: HasKey, const N: usize, P, C, U> DimensionsBuilder<N, PerKeyDimensions<F, N>, P, C, U> {
    /// Gives each key a share of the [total](Self::within), by a weight: a closure `Fn(&K) -> u32`,
    /// called at the key's first request. The shares hold while a quota of the total is short.
    /// Otherwise each key takes what its own quotas allow.
    ///
    /// Half of a total's burst is a reserve. A call within its key's share may use it. A call
    /// beyond the share is admitted as long as the reserve stays whole, and otherwise waits or is
    /// rejected. So a key that keeps within its share is not rejected for what others take, and
    /// what it leaves is not wasted. The bursts of all shares together are half of the reserve. A
    /// call above its share's whole burst waits until the share is unused, and overdraws it once.
    ///
    /// A share is the key's weight over the weights of all keys that have called in the last ten to
    /// twenty seconds. Keys past the bound, and requests without a key, have one share of weight 1
    /// together. A weight of 0 gets only what the others leave, and one above 65 535 counts as
    /// that. Default: no shares, so that a call takes what it finds. A fleet's total cannot have
    /// shares.
    ///
    /// Shares protect from calls that cost too much, not from those that cost more than they say. A
    /// settlement that adds units takes them from the total, in debt if need be, for which all
    /// keys wait. So take a high estimate, such as the longest answer, and let the settlement give
    /// back.
    ///
    /// ```
    /// use tower_keep::rate_limit::{Dimension, Rate, RateLimitLayer};
    ///
    /// struct Prompt { tenant: &'static str, tokens: u64 }
    ///
    /// let tokens = |units| [Dimension::new("tokens", Rate::per_minute(units))];
    /// let quotas = RateLimitLayer::dimensions(tokens(80_000))
    ///     .cost(|prompt: &Prompt| [prompt.tokens])
    ///     .keyed_by(|prompt: &Prompt| Some(prompt.tenant))
    ///     // The provider's quota, for all tenants.
    ///     .within(tokens(100_000))
    ///     .shares(|tenant| if *tenant == "gold" { 3 } else { 1 })
    ///     .build()?;
    /// # let _ = quotas;
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    pub fn shares<W>(mut self, weight: W) -> Self
    where
        W: Fn(&F::Key) -> u32 + Send + Sync + 'static,
    {
        self.key.weights = Some(Arc::new(weight));
        self
    }
}
