//! The budget of a call, of a layer, and the traits that find the budget of a request.

use std::{
    any::Any,
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    ConfigError,
    algorithm::Budget,
    ambient::clock::{Clock, nanos},
    budget::{
        counting::{Counting, may_be_shared},
        token::{Token, budget_now},
    },
    keyed::{
        Keyless,
        partitions::{Evict, Partition},
    },
};

/// The setting for what pays for a layer's retries or hedges.
#[derive(Debug, Clone)]
pub(crate) enum Payer {
    /// A default budget, made by `build`, so that layers built from clones of a builder share
    /// nothing.
    Own,
    Given(Arc<Budget>),
    Unlimited,
}

/// A marker: all calls use the layer's one budget, or none.
#[derive(Debug, Clone, Copy, Default)]
pub struct OneBudget;

/// Finds the budget of a call.
pub trait FindBudget<Req>: Clone {
    /// The value that a call keeps of its budget.
    type Held: Purse;

    /// Returns the budget of a request, kept until its call ends.
    fn hold(&self, request: &Req) -> Self::Held;
}

/// The budget that a layer has, whatever the requests.
pub trait SharedBudget {
    /// Returns the budget of calls without one of their own. `None` if the layer decides.
    fn shared(&self) -> Option<Arc<KeyBudget>>;
}

/// The budget that a call holds.
pub trait Purse {
    /// Returns the budget of its key. `None` if the call uses the layer's one budget.
    fn own(&self) -> Option<&KeyBudget>;

    /// Returns its key, if that is known. [`Keyless`] if it has none.
    fn key(&self) -> Option<&dyn Any>;
}

/// A call without a key.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoKey;

/// The budget of a call's key, if it has one.
#[derive(Debug)]
pub struct HeldKey<K> {
    pub(super) partition: Option<Arc<Partition<K, KeyBudget>>>,
    /// If true, the call has no key.
    pub(super) is_keyless: bool,
    /// If false, the layer's one budget pays, and only the key is known.
    pub(super) pays: bool,
}

/// The budgets that pay in a layer: the one of a call's key, the one for all, or none.
#[derive(Debug)]
pub(crate) struct Purses {
    one: Option<Arc<KeyBudget>>,
    /// If true, the one budget is the default, made for this layer alone.
    is_own: bool,
}

/// The budget of a key, or the one of all calls.
#[derive(Debug)]
pub struct KeyBudget {
    budget: Arc<Budget>,
    /// If true, it keeps no more than its calls have paid lately, and counts their successes.
    expires: bool,
    /// If true, other layers above or beneath may have it too.
    may_be_shared: bool,
    /// Relaxed: a count that publishes nothing else.
    successes: AtomicU64,
    /// The time at which a token was last taken or a failure recorded, in nanoseconds. 0 if never.
    /// `None` for a budget that is not keyed. Relaxed: an eviction has made sure that nothing holds
    /// it.
    taken: Option<AtomicU64>,
    /// Starts with the budget, whatever the age of the layer and of its other keys.
    clock: Clock,
}

impl<Req> FindBudget<Req> for OneBudget {
    type Held = NoKey;

    #[inline]
    fn hold(&self, _: &Req) -> NoKey {
        NoKey
    }
}

impl SharedBudget for OneBudget {
    fn shared(&self) -> Option<Arc<KeyBudget>> {
        None
    }
}

impl Purse for NoKey {
    #[inline]
    fn own(&self) -> Option<&KeyBudget> {
        None
    }

    fn key(&self) -> Option<&dyn Any> {
        None
    }
}

impl<K: 'static> Purse for HeldKey<K> {
    #[inline]
    fn own(&self) -> Option<&KeyBudget> {
        let partition = self.partition.as_ref().filter(|_| self.pays)?;
        Some(partition.gate())
    }

    fn key(&self) -> Option<&dyn Any> {
        match &self.partition {
            Some(partition) => Some(partition.key()),
            None if self.is_keyless => Some(&Keyless),
            None => None,
        }
    }
}

impl Payer {
    /// Returns the budgets that pay in a layer. `default` makes a budget of its own. `keyless` is
    /// the budget that keyed budgets have for calls without a key.
    pub(crate) fn purses(
        self,
        default: impl FnOnce() -> Budget,
        keyless: Option<Arc<KeyBudget>>,
    ) -> Result<Purses, ConfigError> {
        let is_own = matches!(self, Self::Own) && keyless.is_none();
        let one = match (self, keyless) {
            (Self::Own, Some(keyless)) => Some(keyless),
            (Self::Given(_) | Self::Unlimited, Some(_)) => {
                let fix = "leave it, or `budget_per`: by that each key has a budget of its own";
                return Err(ConfigError::new("budget", "set", fix));
            }
            (Self::Own, None) => Some(Arc::new(KeyBudget::lasting(Arc::new(default())))),
            (Self::Given(budget), None) => Some(Arc::new(KeyBudget::lasting(budget))),
            (Self::Unlimited, None) => None,
        };
        Ok(Purses { one, is_own })
    }
}

impl Purses {
    /// Makes one that pays for everything, without tokens.
    pub(crate) fn unlimited() -> Self {
        Self {
            one: None,
            is_own: false,
        }
    }

    /// Returns whether a budget would pay for another attempt of a call that begins now.
    #[inline]
    pub(crate) fn pays(&self, own: Option<&KeyBudget>) -> bool {
        let payer = self.payer(own);
        payer.is_none_or(|payer| payer.budget.pays_for_call(budget_now(&payer.budget)))
    }

    /// Enters the poll of a call, and counts the call at its first poll.
    #[inline]
    pub(crate) fn enter(&self, own: Option<&KeyBudget>, has_begun: &mut bool) -> Counting {
        match self.payer(own) {
            Some(payer) if payer.may_be_shared || payer.budget.reads_time() => {
                Self::enter_noted(payer, has_begun)
            }
            // No other layer has the budget, and it counts no calls.
            _ => Counting::alone(),
        }
    }

    #[inline(never)]
    fn enter_noted(payer: &KeyBudget, has_begun: &mut bool) -> Counting {
        let counting = if payer.may_be_shared {
            Counting::of(&payer.budget)
        } else {
            Counting::alone()
        };
        if !mem::replace(has_begun, true) && counting.is_outermost() {
            payer.budget.called(budget_now(&payer.budget));
        }
        counting
    }

    #[inline]
    pub(crate) fn succeeded(&self, own: Option<&KeyBudget>) {
        if let Some(payer) = self.payer(own) {
            payer.succeeded();
        }
    }

    /// Counts a failed attempt for which no token was requested.
    pub(crate) fn failed(&self, own: Option<&KeyBudget>) {
        if let Some(payer) = self.payer(own) {
            payer.failed();
        }
    }

    /// Takes a token for another attempt, if there is one. `counted` is true if the failure was
    /// already counted, or if there was none.
    pub(crate) fn withdraw(&self, own: Option<&KeyBudget>, counted: bool) -> Option<Token> {
        let Some(payer) = self.payer(own) else {
            return Some(Token::free());
        };
        payer.withdraw(counted)
    }

    /// Expires the tokens that `successes` have not paid for lately, if calls use the layer's own
    /// budget.
    pub(crate) fn expire(&self, own: Option<&KeyBudget>, successes: impl FnOnce() -> u64) {
        let one = self.one.as_ref().filter(|_| self.is_own && own.is_none());
        if let Some(one) = one {
            one.expire(successes);
        }
    }

    /// Returns how many retries the layer's one budget would pay for.
    pub(crate) fn available(&self) -> Option<u32> {
        self.one.as_ref().map(|one| one.available())
    }

    /// Returns the settings of the layer's one budget, by their names in metrics.
    pub(crate) fn settings(&self) -> Vec<(&'static str, f64)> {
        let one = self.one.as_ref();
        one.map_or_else(Vec::new, |one| one.budget.settings())
    }

    /// Returns the budget that pays for a call.
    #[inline]
    fn payer<'a>(&'a self, own: Option<&'a KeyBudget>) -> Option<&'a KeyBudget> {
        own.or(self.one.as_deref())
    }
}

impl KeyBudget {
    /// Makes one that keeps all its tokens.
    pub(super) fn lasting(budget: Arc<Budget>) -> Self {
        Self {
            may_be_shared: may_be_shared(&budget),
            budget,
            expires: false,
            successes: AtomicU64::new(0),
            taken: None,
            clock: Clock::start(),
        }
    }

    /// Makes one of [`KeyedBudgets`](super::KeyedBudgets), which several layers may have.
    pub(super) fn keyed(budget: Budget, expires: bool) -> Self {
        Self {
            may_be_shared: true,
            expires,
            taken: Some(AtomicU64::new(0)),
            ..Self::lasting(Arc::new(budget))
        }
    }

    /// Returns how many retries it would pay for.
    pub(super) fn available(&self) -> u32 {
        self.budget.available(budget_now(&self.budget))
    }

    #[inline]
    fn succeeded(&self) {
        self.budget.succeeded();
        if self.expires {
            self.successes.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn failed(&self) {
        self.budget.failed();
        self.touch();
    }

    fn withdraw(&self, counted: bool) -> Option<Token> {
        self.touch();
        if self.expires {
            self.expire(|| self.successes.load(Ordering::Relaxed));
        }
        Token::take(&self.budget, counted)
    }

    fn expire(&self, successes: impl FnOnce() -> u64) {
        // One token never expires. In an outage this spares all but a few calls the sum.
        if self.budget.available(0) > 1 {
            self.budget.expire(successes(), self.clock.now());
        }
    }

    fn touch(&self) {
        if let Some(taken) = &self.taken {
            taken.store(self.clock.now().max(1), Ordering::Relaxed);
        }
    }
}

impl Evict for KeyBudget {
    /// Returns whether a new budget could replace it: no token was taken for a minute, or ever. A
    /// new one is full, so an upstream that is called rarely gains a few tokens.
    fn is_fresh(&self) -> bool {
        let Some(taken) = &self.taken else {
            return false;
        };
        let taken = taken.load(Ordering::Relaxed);
        taken == 0 || self.clock.now().saturating_sub(taken) >= nanos(FORGET_AFTER)
    }
}

const FORGET_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::algorithm::RetryBudget;

    fn of_key(capacity: u32) -> KeyBudget {
        let budget = RetryBudget::new(capacity, 0.1).unwrap();
        KeyBudget::keyed(budget.into(), true)
    }

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_fresh_a_minute_after_its_last_use() {
        let uses: [fn(&KeyBudget); 3] = [
            KeyBudget::failed,
            |budget| drop(budget.withdraw(true)),
            |budget| drop(budget.withdraw(false)),
        ];
        for (number, use_up) in uses.into_iter().enumerate() {
            let budget = of_key(1);
            budget.succeeded();
            assert!(budget.is_fresh(), "nothing was taken");
            // The first use happens at the moment at which the budget was made.
            for _ in 0..2 {
                use_up(&budget);
                assert!(!budget.is_fresh(), "{number}");
                advance(FORGET_AFTER - Duration::from_millis(1)).await;
                assert!(!budget.is_fresh(), "{number}");
                advance(Duration::from_millis(2)).await;
                assert!(budget.is_fresh(), "{number}");
            }
        }
        assert!(!KeyBudget::lasting(Arc::default()).is_fresh());
    }

    #[tokio::test(start_paused = true)]
    async fn old_tokens_expire_only_where_they_are_to() {
        for (expires, left) in [(true, 0), (false, 9)] {
            let budget = KeyBudget::keyed(RetryBudget::default().into(), expires);
            advance(10 * FORGET_AFTER).await;
            budget.withdraw(true).unwrap().send();
            assert_eq!(budget.available(), left, "{expires}");
        }
    }
}
