//! The parts with their own types.

use super::{ClientBuilder, Parts};
#[cfg(feature = "serde")]
use crate::{ConfigError, stack::resend::Resend};
use crate::{
    fallback::FallbackBuilder,
    gate::Shadow,
    hedge::{HedgeBuilder, HedgeLayer},
    retry::RetryBuilder,
    stack::{
        parts::{ClientBulkheadPart, LimitPart},
        resend::{Hedging, Retrying, SendingOnce},
    },
};

/// A builder with these parts.
type With<P, W, R, L, B, X, F> = ClientBuilder<P, W, Parts<R, L, B, X, F>>;

impl<P, W, L, B, X, F> ClientBuilder<P, W, Parts<Retrying, L, B, X, F>> {
    /// Changes the retries. The closure receives their builder. Over HTTP each host has its own
    /// budget, unless the closure sets one for all, or none.
    pub fn retry(mut self, change: impl FnOnce(RetryBuilder) -> RetryBuilder) -> Self {
        self.settings.retry = change(self.settings.retry);
        self
    }

    /// Removes the retries, and their requirements: requests need not be `Clone` or idempotent, and
    /// the inner service receives each unchanged.
    ///
    /// ```
    /// use tower::{Layer, ServiceExt, service_fn};
    /// use tower_keep::{protocol::Plain, stack};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// struct Order(u32); // not `Clone`
    ///
    /// let stack = stack::client().plain(Plain::new()).without_retry().build()?;
    /// let orders = stack.layer(service_fn(async |order: Order| Ok::<_, std::io::Error>(order.0)));
    /// assert_eq!(orders.oneshot(Order(7)).await?, 7);
    /// # Ok(()) }
    /// ```
    pub fn without_retry(self) -> ClientBuilder<P, W, Parts<SendingOnce, L, B, X, F>> {
        self.with_parts(|parts| parts.with_resend(SendingOnce))
    }

    /// Hedges in place of retries. The closure receives the builder of the [hedge](crate::hedge). A
    /// slow call is sent once more, and a failure that may be retried sends the next attempt at
    /// once. Over HTTP each host has its own budget, unless the closure sets one for all, or none.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_keep::stack;
    ///
    /// let stack = stack::client()
    ///     .http()
    ///     .hedge(|hedge| hedge.delay(Duration::from_millis(50)))
    ///     .build()?;
    /// assert_eq!(stack.handle().hedge.unwrap().config().max_hedges, 1);
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    pub fn hedge(
        self,
        change: impl FnOnce(HedgeBuilder) -> HedgeBuilder,
    ) -> ClientBuilder<P, W, Parts<Hedging, L, B, X, F>> {
        let hedging = Hedging(change(HedgeLayer::builder()));
        self.with_parts(|parts| parts.with_resend(hedging))
    }
}

#[cfg(feature = "serde")]
impl<P, W, R: Resend<P, W>, L, B, X, F> ClientBuilder<P, W, Parts<R, L, B, X, F>> {
    /// Sets the hedge's builder, in a stack that may have no hedge.
    pub(crate) fn with_hedge(mut self, hedge: HedgeBuilder) -> Result<Self, ConfigError> {
        self.parts.resend.set_hedge(hedge)?;
        Ok(self)
    }
}

impl<P, W, R, L, B, X, F> ClientBuilder<P, W, Parts<R, L, B, X, F>> {
    /// Sets a rate limit of any kind, in place of a [`rate`](Self::rate): a sliding window, one
    /// that waits, one for each host or for a closure's keys. It has the stack's name, if there is
    /// one.
    ///
    /// A limit without keys is for all hosts together. If it honors `Retry-After` it needs a stack
    /// of [one peer](Self::one_peer): one host's hint would close it for the others.
    ///
    /// ```
    /// use tower_keep::{rate_limit::{Rate, RateLimitLayer}, stack};
    ///
    /// let each_host = RateLimitLayer::builder(Rate::per_second(50)).per_host();
    /// let stack = stack::client().http().rate_limit(each_host).build()?;
    /// assert_eq!(stack.handle().rate_limit.snapshot().active, 0);
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    pub fn rate_limit<U: LimitPart>(self, limit: U) -> ClientBuilder<P, W, Parts<R, U, B, X, F>> {
        self.with_parts(|parts| Parts {
            resend: parts.resend,
            limit,
            bulkhead: parts.bulkhead,
            trial: parts.trial,
            fallback: parts.fallback,
        })
    }

    /// Sets a bulkhead by its own builder. It has its own limit, so it and
    /// [`max_in_flight`](Self::max_in_flight) together are an error. Each host has its own, or each
    /// key that its closure finds. It has the stack's name, if there is one.
    pub fn bulkhead<U: ClientBulkheadPart<W>>(
        mut self,
        bulkhead: U,
    ) -> ClientBuilder<P, W, Parts<R, L, U, X, F>> {
        self.settings.calls.put_back();
        self.with_parts(|parts| Parts {
            resend: parts.resend,
            limit: parts.limit,
            bulkhead,
            trial: parts.trial,
            fallback: parts.fallback,
        })
    }

    /// Puts a gate on [trial](Shadow), innermost of the gates. It checks each attempt that all of
    /// them admit, and counts the attempts that it would reject. Its handle is the [`Shadow`]'s.
    ///
    /// ```
    /// use tower_keep::{gate::Shadow, rate_limit::{Rate, RateLimitLayer}, stack};
    ///
    /// let candidate = RateLimitLayer::builder(Rate::per_second(20)).gate()?;
    /// let candidate = Shadow::new(candidate, "twenty");
    /// let trial = candidate.handle();
    /// let stack = stack::client().http().shadow(candidate).build()?;
    /// assert_eq!(trial.snapshot().calls, 0);
    /// # let _ = stack;
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    pub fn shadow<G>(self, candidate: Shadow<G>) -> With<P, W, R, L, B, Shadow<G>, F> {
        self.with_parts(|parts| Parts {
            resend: parts.resend,
            limit: parts.limit,
            bulkhead: parts.bulkhead,
            trial: candidate,
            fallback: parts.fallback,
        })
    }

    /// Gives failed calls another answer: a [fallback](crate::fallback) around the whole stack,
    /// with the stack's protocol and name. Default: none.
    ///
    /// ```
    /// use tower::{Layer, ServiceExt, service_fn};
    /// use tower_keep::{fallback::FallbackLayer, protocol::Plain, stack};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// let stack = stack::client()
    ///     .plain(Plain::new().idempotent())
    ///     .fallback(FallbackLayer::value("the last known rate"))
    ///     .build()?;
    /// let rates = stack.layer(service_fn(async |_: u32| Err(std::io::Error::other("down"))));
    /// assert_eq!(rates.oneshot(7).await?, "the last known rate");
    /// assert_eq!(stack.handle().fallback.unwrap().snapshot().answered, 1);
    /// # Ok(()) }
    /// ```
    pub fn fallback<G>(
        self,
        fallback: FallbackBuilder<G>,
    ) -> With<P, W, R, L, B, X, FallbackBuilder<G>> {
        self.with_parts(|parts| Parts {
            resend: parts.resend,
            limit: parts.limit,
            bulkhead: parts.bulkhead,
            trial: parts.trial,
            fallback,
        })
    }
}

impl<R, L, B, X, F> Parts<R, L, B, X, F> {
    fn with_resend<U>(self, resend: U) -> Parts<U, L, B, X, F> {
        Parts {
            resend,
            limit: self.limit,
            bulkhead: self.bulkhead,
            trial: self.trial,
            fallback: self.fallback,
        }
    }
}
