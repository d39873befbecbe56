//! The settings of a rate limit's keys.

use crate::{
    algorithm::{Limit, Overflow},
    keyed::{HasKey, KeyIsSet, Missing, sealed},
    rate_limit::{InTable, Labelled, PerKey, RateLimitBuilder},
};

impl<F> sealed::KeyIsSet for InTable<F> {}

impl<F: HasKey> sealed::KeyIsSet for PerKey<F> {}

impl<K: KeyIsSet, P, A> RateLimitBuilder<K, P, A> {
    /// Sets how many keys are tracked. Default: 100 000 for a [table](Self::keyed_by), at most 4
    /// MiB, allocated at once and never grown. Default with a [limit per key](Self::per_key): 1024,
    /// some 1.4 MiB. A key of a [fleet](Self::fleet) takes some 600 bytes while it is in use.
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

    /// Adds a limit for all keys together. A call is charged to both limits or to neither. Default:
    /// none. If the limit is [advertised](Self::advertise), both are.
    ///
    /// A call waits for its key's limit first, and keeps those units while it waits for the total.
    pub fn within(mut self, total: impl Limit + 'static) -> Self {
        self.values.total = Some(Box::new(total));
        self
    }
}

impl<F, P, A> RateLimitBuilder<InTable<F>, P, A> {
    /// Counts rejections by key, for [`heavy_hitters`](super::KeyedRateLimitHandle::heavy_hitters).
    /// A closure `Fn(&Req) -> String` gives the label of a key. If the key is a secret, use only a
    /// part of it. Default: rejections are not counted by key.
    ///
    /// At most 128 keys are counted at a time, with labels of 64 bytes, in 24 KiB at most. A
    /// rejection then takes a mutex and searches the keys, or is not counted if another thread
    /// holds the mutex. An admission costs nothing more.
    pub fn heavy_hitters<Req, L>(self, label: L) -> RateLimitBuilder<InTable<Labelled<F, L>>, P, A>
    where
        L: Fn(&Req) -> String,
    {
        let key = InTable(Labelled {
            key: self.key.0,
            label,
        });
        RateLimitBuilder {
            values: self.values,
            key,
            asks: self.asks,
            protocol: self.protocol,
        }
    }
}
