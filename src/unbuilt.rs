//! Compiler messages for builders that are used where a layer is expected.
//!
//! A builder is no layer, and tower's `Layer` cannot have a message of ours for that. So each
//! builder implements `Layer` under a condition that nothing meets, and the compiler shows the
//! message of the condition.

use tower::Layer;

#[cfg(feature = "http")]
use crate::stack::{ClientBuilder, ServerBuilder};
use crate::{
    bulkhead::BulkheadBuilder, circuit_breaker::CircuitBreakerBuilder, fallback::FallbackBuilder,
    hedge::HedgeBuilder, rate_limit::RateLimitBuilder, retry::RetryBuilder,
    throttle::ThrottleBuilder, timeout::TimeoutBuilder,
};

/// A trait that nothing implements, for the compiler's message about a builder.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is a builder, and no layer yet",
    label = "call `.build()?` on it"
)]
#[doc(hidden)]
pub trait CallBuildFirst {}

/// Implements `Layer` for builders, under the condition that nothing meets.
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
