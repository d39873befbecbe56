//! Budgets per key.

use std::{fmt, hash::Hash, marker::PhantomData, sync::Arc};

use super::purse::{FindBudget, HeldKey, KeyBudget, SharedBudget};
use crate::{
    ConfigError,
    algorithm::Budget,
    keyed::{
        FindKey,
        partitions::{Factory, Partitions},
    },
};

/// A budget for each key that a closure finds in requests, for retries and hedges. Clones share
/// them.
///
/// Requests without a key share one budget with the keys for which there is no room. **Cost** of a
/// call: a look-up under a shared lock, and a reference count.
pub struct KeyedBudgets<K, F> {
    key: F,
    /// `None` if all calls use the layer's own budget.
    parts: Option<Arc<SharedBudgets<K>>>,
    /// If false, only the keys of calls are read, and all calls use the layer's own budget.
    pays: bool,
}

/// Settings of [`KeyedBudgets`], in any order.
#[must_use = "a builder does nothing until `build`"]
pub struct KeyedBudgetsBuilder<K, F> {
    key: F,
    max_keys: usize,
    factory: Each,
    keys: PhantomData<fn() -> K>,
}

/// A handle that watches keyed budgets. Cheap to clone.
pub struct BudgetsHandle<K> {
    parts: Option<Arc<SharedBudgets<K>>>,
}

pub(crate) struct SharedBudgets<K> {
    partitions: Partitions<K, KeyBudget>,
    shared: Arc<KeyBudget>,
    each: Each,
}

/// The closure that makes budgets. `None` for the default.
#[derive(Clone)]
struct Each(Option<Arc<dyn Fn() -> Budget + Send + Sync>>);

impl<K, F> KeyedBudgets<K, F>
where
    K: Hash + Eq + Clone,
{
    /// Makes a budget for each key that `key` finds: a closure `Fn(&Req) -> Option<K>`, or
    /// [`ByHost`](crate::keyed::ByHost).
    pub fn builder(key: F) -> KeyedBudgetsBuilder<K, F> {
        KeyedBudgetsBuilder {
            key,
            max_keys: MAX_KEYS,
            factory: Each(None),
            keys: PhantomData,
        }
    }

    /// Makes no budgets and reads no keys: all calls use the layer's own budget.
    #[cfg(feature = "http")]
    pub(crate) fn off(key: F) -> Self {
        Self {
            key,
            parts: None,
            pays: false,
        }
    }

    /// Makes no budgets but reads each call's key: all calls use the layer's own budget.
    #[cfg(feature = "http")]
    pub(crate) fn keys_alone(self) -> Self {
        Self {
            pays: false,
            ..self
        }
    }

    /// Returns a handle that tells how many tokens each key has left.
    #[must_use]
    pub fn handle(&self) -> BudgetsHandle<K> {
        BudgetsHandle {
            parts: self.parts.clone().filter(|_| self.pays),
        }
    }
}

impl<K, F> KeyedBudgetsBuilder<K, F>
where
    K: Hash + Eq + Clone,
{
    /// Sets how many keys have a budget of their own. Default 1000, at some 300 bytes each. A new
    /// key replaces one whose budget lost no token for a minute.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Sets how the budget of each key is made, and the shared one. Default: a
    /// [`RetryBudget`](crate::algorithm::RetryBudget) of 10. It keeps what ten seconds of the key's
    /// successes pay, and at least one token. Budgets made here keep all their tokens.
    pub fn each<B>(mut self, make: impl Fn() -> B + Send + Sync + 'static) -> Self
    where
        B: Into<Budget>,
    {
        self.factory = Each(Some(Arc::new(move || make().into())));
        self
    }

    /// Builds the budgets.
    ///
    /// # Errors
    /// `max_keys` is 0.
    pub fn build(self) -> Result<KeyedBudgets<K, F>, ConfigError> {
        if self.max_keys == 0 {
            let fix = "keep at least 1, or leave the key out";
            return Err(ConfigError::new("max_keys", 0, fix));
        }
        let parts = SharedBudgets {
            partitions: Partitions::new(self.max_keys),
            shared: Arc::new(self.factory.budget()),
            each: self.factory,
        };
        Ok(KeyedBudgets {
            key: self.key,
            parts: Some(Arc::new(parts)),
            pays: true,
        })
    }
}

impl<K: Hash + Eq + Clone> BudgetsHandle<K> {
    /// Returns how many retries the budget of a key would pay for now, if the key has its own.
    #[must_use]
    pub fn key(&self, key: &K) -> Option<u32> {
        let parts = self.parts.as_ref()?;
        let partition = parts.partitions.find(key)?;
        Some(partition.gate().available())
    }

    /// Returns how many retries the shared budget would pay for: that of all other keys, and of
    /// requests without a key. `None` if there are no budgets per key.
    #[must_use]
    pub fn shared(&self) -> Option<u32> {
        let parts = self.parts.as_ref()?;
        Some(parts.shared.available())
    }

    /// Returns all keys that have a budget of their own, and how many retries each would pay for.
    /// Copies each key.
    #[must_use]
    pub fn keys(&self) -> Vec<(K, u32)> {
        let Some(parts) = &self.parts else {
            return Vec::new();
        };
        let partitions = &parts.partitions;
        partitions.collect(|key, budget| (key.clone(), budget.available()))
    }
}

impl Each {
    fn budget(&self) -> KeyBudget {
        let made = self.0.as_ref().map(|make| make());
        let expires = made.is_none();
        KeyBudget::keyed(made.unwrap_or_default(), expires)
    }
}

impl<K> Factory<K, KeyBudget> for SharedBudgets<K> {
    fn make(&self, _: &K) -> Result<KeyBudget, ConfigError> {
        Ok(self.each.budget())
    }
}

impl<Req, K, F> FindBudget<Req> for KeyedBudgets<K, F>
where
    K: Hash + Eq + Clone + 'static,
    F: FindKey<Req, K> + Clone,
{
    type Held = HeldKey<K>;

    #[inline]
    fn hold(&self, request: &Req) -> Self::Held {
        let mut is_keyless = false;
        let mut find = || {
            let parts = self.parts.as_ref()?;
            let key = self.key.find(request);
            is_keyless = key.is_none();
            parts.partitions.find_or_make(&key?, &**parts)
        };
        HeldKey {
            partition: find(),
            is_keyless,
            pays: self.pays,
        }
    }
}

impl<K, F> SharedBudget for KeyedBudgets<K, F> {
    fn shared(&self) -> Option<Arc<KeyBudget>> {
        let parts = self.parts.as_ref().filter(|_| self.pays)?;
        Some(parts.shared.clone())
    }
}

impl<K, F: Clone> Clone for KeyedBudgets<K, F> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            parts: self.parts.clone(),
            pays: self.pays,
        }
    }
}

impl<K, F: Clone> Clone for KeyedBudgetsBuilder<K, F> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            max_keys: self.max_keys,
            factory: self.factory.clone(),
            keys: PhantomData,
        }
    }
}

impl<K> Clone for BudgetsHandle<K> {
    fn clone(&self) -> Self {
        Self {
            parts: self.parts.clone(),
        }
    }
}

impl<K, F> fmt::Debug for KeyedBudgets<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyedBudgets")
    }
}

impl<K, F> fmt::Debug for KeyedBudgetsBuilder<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBudgetsBuilder")
            .field("max_keys", &self.max_keys)
            .finish_non_exhaustive()
    }
}

impl<K> fmt::Debug for BudgetsHandle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BudgetsHandle")
    }
}

const MAX_KEYS: usize = 1000;
