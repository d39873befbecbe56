//! A call's budget, a layer's, and what finds the one for a request.

use std::{
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
    budget::token::{Token, budget_now},
    keyed::partitions::{Evict, Partition},
};

/// What pays for the retries, or hedges, of a layer.
#[derive(Debug, Clone)]
pub(crate) enum Payer {
    /// A default budget, made by `build`: clones of a builder make layers that share nothing.
    Own,
    Given(Arc<Budget>),
    Unlimited,
}

/// All calls have the layer's one budget, or none.
#[derive(Debug, Clone, Copy, Default)]
pub struct OneBudget;

/// Finds the budget of a call.
pub trait FindBudget<Req>: Clone {
    /// What a call keeps of it.
    #[doc(hidden)]
    type Held: Purse;

    /// The budget of a request, kept until its call ends.
    #[doc(hidden)]
    fn hold(&self, request: &Req) -> Self::Held;
}

/// What a layer knows of its budgets, whatever the requests.
#[doc(hidden)]
pub trait SharedBudget {
    /// The budget of calls without one of their own, and whether it is the default; `None` if the
    /// layer is to say.
    fn shared(&self) -> Option<(Arc<Budget>, bool)>;
}

/// The budget that a call holds.
#[doc(hidden)]
pub trait Purse {
    /// That of its key; `None` if the layer's one budget is the call's.
    fn own(&self) -> Option<&KeyBudget>;
}

/// No key.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default)]
pub struct NoKey;

/// The budget of a call's key, if it has one.
#[doc(hidden)]
#[derive(Debug)]
pub struct HeldKey<K>(pub(super) Option<Arc<Partition<K, KeyBudget>>>);

/// What a layer pays with: the budget of a call's key, or the one for all, or none.
#[derive(Debug)]
pub(crate) struct Purses {
    one: Option<Arc<Budget>>,
    clock: Clock,
}

/// The budget of a key.
#[doc(hidden)]
#[derive(Debug)]
pub struct KeyBudget {
    pub(super) budget: Arc<Budget>,
    /// Whether it is the default, which keeps no more than its calls have paid lately.
    pub(super) owned: bool,
    /// Relaxed: it only tells how much is paid.
    successes: AtomicU64,
    /// When something was last taken, in nanoseconds; 0 if nothing ever was. Relaxed: who evicts
    /// it has made sure that nobody holds it.
    taken: AtomicU64,
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
    fn shared(&self) -> Option<(Arc<Budget>, bool)> {
        None
    }
}

impl Purse for NoKey {
    #[inline]
    fn own(&self) -> Option<&KeyBudget> {
        None
    }
}

impl<K> Purse for HeldKey<K> {
    #[inline]
    fn own(&self) -> Option<&KeyBudget> {
        self.0.as_ref().map(|partition| &partition.gate)
    }
}

impl Payer {
    /// The budget of calls that have none of their own, and whether it is the default one.
    /// `keyless`: what budgets by key have for such calls.
    pub(crate) fn budget_of(
        self,
        keyless: Option<(Arc<Budget>, bool)>,
    ) -> Result<(Option<Arc<Budget>>, bool), ConfigError> {
        let is_set = !matches!(self, Self::Own);
        match (self, keyless) {
            (_, Some(_)) if is_set => {
                let fix = "leave it, or `budget_per`: by that each key has a budget of its own";
                Err(ConfigError::new("budget", "set", fix))
            }
            (_, Some((budget, owned))) => Ok((Some(budget), owned)),
            (Self::Own, None) => Ok((Some(Arc::default()), true)),
            (Self::Given(budget), None) => Ok((Some(budget), false)),
            (Self::Unlimited, None) => Ok((None, false)),
        }
    }
}

impl Purses {
    pub(crate) fn new(one: Option<Arc<Budget>>) -> Self {
        Self {
            one,
            clock: Clock::start(),
        }
    }

    pub(crate) fn one(&self) -> Option<&Arc<Budget>> {
        self.one.as_ref()
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// A call begins. Whether anything would pay for another attempt.
    #[inline]
    pub(crate) fn called(&self, own: Option<&KeyBudget>) -> bool {
        let Some((budget, clock)) = self.payer(own) else {
            return true;
        };
        let now = budget_now(budget, clock);
        budget.called(now);
        budget.available(now) > 0
    }

    #[inline]
    pub(crate) fn succeeded(&self, own: Option<&KeyBudget>) {
        match (own, &self.one) {
            (Some(own), _) => own.succeeded(),
            (None, Some(budget)) => budget.succeeded(),
            (None, None) => {}
        }
    }

    /// An attempt failed, and no token was asked for.
    pub(crate) fn failed(&self, own: Option<&KeyBudget>) {
        match (own, &self.one) {
            (Some(own), _) => own.failed(),
            (None, Some(budget)) => budget.failed(),
            (None, None) => {}
        }
    }

    /// Takes a token for another attempt, if there is one.
    pub(crate) fn withdraw(&self, own: Option<&KeyBudget>) -> Option<Token> {
        if let Some(own) = own {
            own.before_withdrawal();
        }
        match self.payer(own) {
            Some((budget, clock)) => Token::take(budget, clock),
            None => Some(Token::free(self.clock)),
        }
    }

    /// How many retries the layer's one budget would pay for.
    pub(crate) fn available(&self) -> Option<u32> {
        let budget = self.one.as_ref()?;
        Some(budget.available(budget_now(budget, self.clock)))
    }

    /// The budget that pays for a call, and the clock that it counts by.
    #[inline]
    fn payer<'a>(&'a self, own: Option<&'a KeyBudget>) -> Option<(&'a Arc<Budget>, Clock)> {
        match own {
            Some(own) => Some((&own.budget, own.clock)),
            None => Some((self.one.as_ref()?, self.clock)),
        }
    }
}

impl KeyBudget {
    pub(super) fn new(budget: Arc<Budget>, owned: bool, clock: Clock) -> Self {
        Self {
            budget,
            owned,
            successes: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            clock,
        }
    }

    #[inline]
    fn succeeded(&self) {
        self.budget.succeeded();
        if self.owned {
            self.successes.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn failed(&self) {
        self.budget.failed();
        self.touch();
    }

    /// Asked before a token is taken.
    fn before_withdrawal(&self) {
        self.touch();
        if self.owned && self.budget.available(0) > 1 {
            let successes = self.successes.load(Ordering::Relaxed);
            self.budget.expire(successes, self.clock.now());
        }
    }

    fn touch(&self) {
        self.taken.store(self.clock.now().max(1), Ordering::Relaxed);
    }
}

impl Evict for KeyBudget {
    /// A new one is full. That would do as well where nothing was taken; and where it was long ago,
    /// an upstream that is rarely called gets a few tokens more by it.
    fn is_evictable(&self) -> bool {
        let taken = self.taken.load(Ordering::Relaxed);
        taken == 0 || self.clock.now().saturating_sub(taken) >= nanos(FORGET_AFTER)
    }
}

const FORGET_AFTER: Duration = Duration::from_secs(60);
