//! A budget for each key.

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
/// A request without a key, and a key for which there is no place, has one budget with all others
/// of the kind. **Cost** of a call: a look-up that readers share, and a reference count.
pub struct KeyedBudgets<K, F> {
    key: F,
    /// `None`: all calls have the layer's own.
    parts: Option<Arc<Parts<K>>>,
    /// If false, they only tell the keys of calls, and all calls have the layer's own.
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

/// Watches keyed budgets from outside. Cheap to clone.
pub struct BudgetsHandle<K> {
    parts: Option<Arc<Parts<K>>>,
}

pub(crate) struct Parts<K> {
    partitions: Partitions<K, KeyBudget>,
    shared: Arc<KeyBudget>,
    each: Each,
}

/// How budgets are made.
#[derive(Clone)]
struct Each(Option<Arc<dyn Fn() -> Budget + Send + Sync>>);

impl<K, F> KeyedBudgets<K, F>
where
    K: Hash + Eq + Clone,
{
    /// One for each key that `key` finds: a closure `Fn(&Req) -> Option<K>`, or
    /// [`ByHost`](crate::keyed::ByHost).
    pub fn builder(key: F) -> KeyedBudgetsBuilder<K, F> {
        KeyedBudgetsBuilder {
            key,
            max_keys: MAX_KEYS,
            factory: Each(None),
            keys: PhantomData,
        }
    }

    /// None: all calls have the layer's own.
    #[cfg(feature = "http")]
    pub(crate) fn off(key: F) -> Self {
        Self {
            key,
            parts: None,
            pays: false,
        }
    }

    /// None, but each call's key is known: all calls have the layer's own.
    #[cfg(feature = "http")]
    pub(crate) fn keys_alone(self) -> Self {
        Self {
            pays: false,
            ..self
        }
    }

    /// What is left to each key.
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
    /// How many keys have a budget of their own. Default 1000; a budget takes some 300 bytes. A new
    /// key gets the place of one from whose budget nothing was taken for a minute.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Makes the budget of each key, and the one that the others share. Default: a
    /// [`RetryBudget`](crate::algorithm::RetryBudget) of 10 that keeps what ten seconds of the
    /// key's successes pay, and one token at least; those made here keep all.
    pub fn each<B>(mut self, make: impl Fn() -> B + Send + Sync + 'static) -> Self
    where
        B: Into<Budget>,
    {
        self.factory = Each(Some(Arc::new(move || make().into())));
        self
    }

    /// # Errors
    /// No keys.
    pub fn build(self) -> Result<KeyedBudgets<K, F>, ConfigError> {
        if self.max_keys == 0 {
            let fix = "keep at least 1, or leave the key out";
            return Err(ConfigError::new("max_keys", 0, fix));
        }
        let parts = Parts {
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
    /// How many retries the budget of a key would pay for now, if the key has one of its own.
    #[must_use]
    pub fn key(&self, key: &K) -> Option<u32> {
        let parts = self.parts.as_ref()?;
        let partition = parts.partitions.find(key)?;
        Some(partition.gate().available())
    }

    /// The same of what all other keys, and requests without one, share; `None` if there are no
    /// budgets by key.
    #[must_use]
    pub fn shared(&self) -> Option<u32> {
        let parts = self.parts.as_ref()?;
        Some(parts.shared.available())
    }

    /// All keys that have a budget of their own, and how many retries it would pay for. Costs a
    /// copy of each key.
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

impl<K> Factory<K, KeyBudget> for Parts<K> {
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
        let find = || {
            let parts = self.parts.as_ref()?;
            let key = self.key.find(request)?;
            parts.partitions.find_or_make(&key, &**parts)
        };
        HeldKey {
            partition: find(),
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
