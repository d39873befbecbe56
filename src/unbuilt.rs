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

/// Makes a builder a layer under the condition that nothing meets.
macro_rules! unbuilt {
    ($($(#[$cfg:meta])? $builder:ident<$($parameter:ident),+>;)+) => {$(
        $(#[$cfg])?
        #[doc(hidden)]
        impl<Inner, $($parameter),+> Layer<Inner> for $builder<$($parameter),+>
        where
            Self: CallBuildFirst,
        {
            type Service = Inner;

            fn layer(&self, inner: Inner) -> Inner {
                inner
            }
        }
    )+};
}

unbuilt! {
    RateLimitBuilder<K, P, A>;
    CircuitBreakerBuilder<K, P>;
    BulkheadBuilder<K, P, A>;
    ThrottleBuilder<K, P>;
    RetryBuilder<P, B>;
    HedgeBuilder<P, B>;
    TimeoutBuilder<P, M>;
    FallbackBuilder<F, P>;
    #[cfg(feature = "http")]
    ClientBuilder<P, W, T>;
    #[cfg(feature = "http")]
    ServerBuilder<P, L, B, X, F>;
}
