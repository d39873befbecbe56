//! The state of a builder's protocol: chosen or not.

/// A builder's state: no protocol is chosen yet.
// The compiler shows the next line, with its comment, if `build` is called too early.
#[derive(Debug, Clone, Copy, Default)]
#[rustfmt::skip]
pub struct Unset; // first `.protocol(http::Client::new())`, `http::Server`, `grpc::..`, `Plain`

/// A builder's state: the protocol given to `.protocol(..)`.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<P>(pub(crate) P);

/// A chosen protocol.
///
/// Layers that act on results do not build without a protocol. With [`Plain`](super::Plain) as a
/// default, a 503 would count as a success, and a circuit breaker over HTTP would never open.
///
/// ```compile_fail,E0599
/// use tower_keep::circuit_breaker::CircuitBreakerLayer;
///
/// let breaker = CircuitBreakerLayer::builder().build();
/// ```
///
/// ```
/// use tower_keep::{circuit_breaker::CircuitBreakerLayer, protocol::Plain};
///
/// let breaker = CircuitBreakerLayer::builder().protocol(Plain::new()).build()?;
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "no protocol was chosen, so nothing says which results are failures",
    label = "call `.protocol(..)` before this",
    note = "before an HTTP client: `.protocol(http::Client::new())`",
    note = "before a handler or an axum `Router`: `.protocol(http::Server::new())`",
    note = "before tonic: `.protocol(grpc::Client::new())` or `.protocol(grpc::Server::new())`",
    note = "where an `Err` is a failure, and nothing else: `.protocol(Plain::new())`; a retry also needs `.idempotent()` or `.idempotent_when(..)`"
)]
pub trait Choice {
    /// The protocol.
    type Protocol;

    /// Returns the protocol.
    fn protocol(self) -> Self::Protocol;
}

impl<P> Choice for Chosen<P> {
    type Protocol = P;

    fn protocol(self) -> P {
        self.0
    }
}
