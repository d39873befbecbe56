//! Builders where a layer belongs: the compiler says what to do.
//!
//! A builder is no layer, and tower's `Layer` has no words of ours for that. So each builder is one
//! under a condition that nothing meets, and the compiler tells the words of the condition.

use tower::Layer;

#[cfg(feature = "http")]
use crate::stack::{ClientBuilder, ServerBuilder};
use crate::{
    bulkhead::BulkheadBuilder, circuit_breaker::CircuitBreakerBuilder, fallback::FallbackBuilder,
    hedge::HedgeBuilder, rate_limit::RateLimitBuilder, retry::RetryBuilder,
    throttle::ThrottleBuilder, timeout::TimeoutBuilder,
};

/// The words that the compiler tells of a builder: nothing implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is a builder, and no layer yet",
    label = "call `.build()?` on it"
)]
#[doc(hidden)]
pub trait CallBuildFirst {}

#[doc(hidden)]
impl<S, K, P, A> Layer<S> for RateLimitBuilder<K, P, A>
where
    Self: CallBuildFirst,
{
    type Service = S;

    fn layer(&self, inner: S) -> S {
        inner
    }
}

#[doc(hidden)]
impl<S, K, P> Layer<S> for CircuitBreakerBuilder<K, P>
where
    Self: CallBuildFirst,
{
    type Service = S;

    fn layer(&self, inner: S) -> S {
        inner
    }
}

#[doc(hidden)]
impl<S, K, P, A> Layer<S> for BulkheadBuilder<K, P, A>
where
    Self: CallBuildFirst,
{
    type Service = S;

    fn layer(&self, inner: S) -> S {
        inner
    }
}

#[doc(hidden)]
impl<S, K, P> Layer<S> for ThrottleBuilder<K, P>
where
    Self: CallBuildFirst,
{
    type Service = S;

    fn layer(&self, inner: S) -> S {
        inner
    }
}

#[doc(hidden)]
impl<S, P, B> Layer<S> for RetryBuilder<P, B>
where
    Self: CallBuildFirst,
{
    type Service = S;

    fn layer(&self, inner: S) -> S {
        inner
    }
}

#[doc(hidden)]
impl<S, P, B> Layer<S> for HedgeBuilder<P, B>
where
    Self: CallBuildFirst,
{
    type Service = S;

    fn layer(&self, inner: S) -> S {
        inner
    }
}

#[doc(hidden)]
impl<S, P, M> Layer<S> for TimeoutBuilder<P, M>
where
    Self: CallBuildFirst,
{
    type Service = S;

    fn layer(&self, inner: S) -> S {
        inner
    }
}

#[doc(hidden)]
impl<S, F, P> Layer<S> for FallbackBuilder<F, P>
where
    Self: CallBuildFirst,
{
    type Service = S;

    fn layer(&self, inner: S) -> S {
        inner
    }
}

#[cfg(feature = "http")]
#[doc(hidden)]
impl<S, P, W, T> Layer<S> for ClientBuilder<P, W, T>
where
    Self: CallBuildFirst,
{
    type Service = S;

    fn layer(&self, inner: S) -> S {
        inner
    }
}

#[cfg(feature = "http")]
#[doc(hidden)]
impl<S, P, L, B, X, F> Layer<S> for ServerBuilder<P, L, B, X, F>
where
    Self: CallBuildFirst,
{
    type Service = S;

    fn layer(&self, inner: S) -> S {
        inner
    }
}
