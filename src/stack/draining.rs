//! Draining a stack from its handle.

use std::time::Duration;

use super::{ClientHandle, ServerHandle, Undrained};

impl<L, B> ServerHandle<L, B> {
    /// Rejects new calls from now on, and waits for those in flight, for `timeout` at most: for use
    /// before a process stops. Calls in a queue of the stack are in flight. So are an upgraded
    /// connection until it closes, and a gRPC call until its last message.
    ///
    /// New calls get a 503, or `UNAVAILABLE`, with a hint to come back in one to three seconds, to
    /// another instance. They are rejected before any other check. Stop accepting connections after
    /// this, so that no connection is refused meanwhile.
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum::{Router, routing::get};
    /// use tower_keep::stack;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// let stack = stack::server().http().max_in_flight(100).build()?;
    /// let handle = stack.handle();
    /// let app: Router = Router::new().route("/", get(async || "hello")).layer(stack);
    ///
    /// // In the future that a graceful shutdown of axum or tonic waits for:
    /// if let Err(undrained) = handle.drain(Duration::from_secs(10)).await {
    ///     eprintln!("stopping all the same: {undrained}");
    /// }
    /// # let _ = app;
    /// # Ok(()) }
    /// ```
    ///
    /// If dropped, it stops waiting, and new calls are still rejected until
    /// [`resume`](Self::resume).
    ///
    /// # Errors
    /// Calls are still in flight when the time is over.
    pub async fn drain(&self, timeout: Duration) -> Result<(), Undrained> {
        self.drain.drain(timeout).await
    }

    /// Admits new calls again, after a [`drain`](Self::drain).
    pub fn resume(&self) {
        self.drain.open();
    }

    /// Returns whether new calls are rejected because of a [`drain`](Self::drain).
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.is_draining()
    }

    /// Returns how many calls are in flight, queued ones included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.drain.in_flight()
    }
}

impl<L, B> ClientHandle<L, B> {
    /// Rejects new calls from now on, and waits for those in flight with all their attempts and
    /// waits, for `timeout` at most. A call ends with the head of its response, over gRPC too.
    ///
    /// New calls fail with a [`Rejected`](crate::Rejected) of the kind
    /// [`Draining`](crate::RejectedKind::Draining). Drain a process's server first, because its
    /// calls need the clients. If dropped, it stops waiting, and new calls are still rejected until
    /// [`resume`](Self::resume).
    ///
    /// # Errors
    /// Calls are still in flight when the time is over.
    pub async fn drain(&self, timeout: Duration) -> Result<(), Undrained> {
        self.drain.drain(timeout).await
    }

    /// Admits new calls again, after a [`drain`](Self::drain).
    pub fn resume(&self) {
        self.drain.open();
    }

    /// Returns whether new calls are rejected because of a [`drain`](Self::drain).
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.is_draining()
    }

    /// Returns how many calls are in flight, also those that wait for a permit or for their next
    /// attempt.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.drain.in_flight()
    }
}
