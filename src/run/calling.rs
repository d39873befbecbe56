//! The trait that runs functions through layers.

use std::{fmt, marker::PhantomData, pin::pin, time::Duration};

use tower::Service;

use crate::{
    Criticality, Deadline, Rejected, RejectedKind,
    fallback::FallbackLayer,
    gate::GateLayer,
    hedge::HedgeLayer,
    retry::RetryLayer,
    run::{
        Attempts, Call, CallError, Function, Through,
        attempts::{ClosureSlot, OnlyOnce},
    },
    timeout::{TimeoutLayer, until},
};

/// A trait to run plain async functions through a layer, or through a tuple of up to four, from the
/// outside in.
///
/// Implemented by every [`GateLayer`], such as rate limits, circuit breakers, bulkheads and
/// throttles, and by retries, hedges, timeouts and fallbacks. A tuple may hold tuples.
pub trait Run {
    /// Runs a function through the layers.
    ///
    /// The closure makes the future of an attempt: `|| async { .. }`, or `|attempt: u32| ..` with
    /// the attempt's number from 1 (see [`Attempts`]). It is called when the layers let the call
    /// through, and again for each retry. It may borrow. The returned future is `Send` if the
    /// closure, its futures and their results are, and nothing requires that.
    ///
    /// # Errors
    /// The function's own error, or why the layers have not called it, or have given it up.
    fn run<F, M>(&self, function: F) -> impl Future<Output = Result<F::Value, CallError<F::Error>>>
    where
        F: Attempts<M>,
        for<'a, 'b> &'a Self: Through<
                Function<'b, F, M>,
                Service: Service<Call, Response = F::Value, Error = CallError<F::Error>>,
            >,
    {
        self.call().run(function)
    }

    /// Begins a call with details: its key, its cost, its time limit.
    fn call(&self) -> OneCall<'_, Self> {
        OneCall {
            layers: self,
            call: Call::new(),
            times: PhantomData,
        }
    }
}

/// A call with details, made by [`Run::call`].
///
/// ```
/// use std::time::Duration;
/// use tower_keep::{Run, protocol::Plain, retry::RetryLayer};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let retry = RetryLayer::builder().protocol(Plain::new().idempotent()).build()?;
/// let mut calls = 0;
/// let inserted = retry.call().timeout(Duration::from_secs(1)).once().run(|| {
///     calls += 1;
///     async { Err::<(), _>(std::io::Error::other("down")) }
/// });
/// assert!(inserted.await.is_err());
/// assert_eq!(calls, 1);
/// # Ok(()) }
/// ```
#[must_use = "nothing is called until `run`"]
pub struct OneCall<'l, L: ?Sized, K = (), N = AnyTimes> {
    layers: &'l L,
    call: Call<K>,
    times: PhantomData<fn() -> N>,
}

/// Marks a call whose function may be called again.
#[derive(Debug, Clone, Copy)]
pub struct AnyTimes;

/// Marks a call whose function is called at most once.
#[derive(Debug, Clone, Copy)]
pub struct AtMostOnce;

impl<'l, L: ?Sized, K, N> OneCall<'l, L, K, N> {
    /// Sets the key, for layers that are keyed by [`run::key`](super::key), or by a closure that
    /// takes a [`Call`]. Other layers ignore it.
    pub fn key<T>(self, key: T) -> OneCall<'l, L, T, N> {
        OneCall {
            layers: self.layers,
            call: self.call.with_key(key),
            times: PhantomData,
        }
    }

    /// Sets how many units rate limits take for each attempt, in place of 1. A limit that was built
    /// with a [`cost`](crate::rate_limit::RateLimitBuilder::cost) uses that instead.
    pub fn cost(mut self, units: u32) -> Self {
        self.call.set_cost(units);
        self
    }

    /// Sets how much it hurts if a bulkhead rejects the call. Default: the most.
    pub fn criticality(mut self, criticality: Criticality) -> Self {
        self.call.set_criticality(criticality);
        self
    }

    /// Limits the call with all its attempts and waits. It replaces the duration of a total timeout
    /// layer, be it shorter or longer, and needs no such layer. Queues and retries wait no longer
    /// than that. The time starts with [`run`](Self::run).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.call.set_timeout(timeout);
        self
    }

    /// Limits each attempt, in place of the timeout layer's own duration. Without such a layer it
    /// has no effect.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.call.set_attempt_timeout(timeout);
        self
    }

    /// Calls the function at most once: no retry and no hedge follows an attempt that has begun. So
    /// the closure may consume what it has captured.
    ///
    /// ```
    /// use tower_keep::{Run, protocol::Plain, retry::RetryLayer};
    /// # use std::io;
    /// # struct Pool;
    /// # impl Pool {
    /// #     async fn insert(&self, order: String) -> io::Result<usize> { Ok(order.len()) }
    /// # }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// let db = RetryLayer::builder().protocol(Plain::new().idempotent()).build()?;
    /// let (pool, order) = (Pool, String::from("one of each"));
    /// assert_eq!(db.call().once().run(|| pool.insert(order)).await?, 11);
    /// # Ok(()) }
    /// ```
    pub fn once(mut self) -> OneCall<'l, L, K, AtMostOnce> {
        self.call.set_once();
        OneCall {
            layers: self.layers,
            call: self.call,
            times: PhantomData,
        }
    }
}

impl<L: ?Sized, K> OneCall<'_, L, K> {
    /// Runs the function: see [`Run::run`].
    ///
    /// # Errors
    /// As [`Run::run`].
    pub async fn run<F, M>(self, function: F) -> Result<F::Value, CallError<F::Error>>
    where
        F: Attempts<M>,
        for<'a, 'b> &'a L: Through<
                Function<'b, F, M>,
                Service: Service<Call<K>, Response = F::Value, Error = CallError<F::Error>>,
            >,
    {
        self.run_attempts(function).await
    }
}

impl<L: ?Sized, K> OneCall<'_, L, K, AtMostOnce> {
    /// Runs the function at most once, so it may be an `FnOnce`: see [`Run::run`].
    ///
    /// # Errors
    /// As [`Run::run`].
    pub async fn run<F, M, T, E>(self, function: F) -> Result<T, CallError<E>>
    where
        OnlyOnce<F>: Attempts<M, Value = T, Error = E>,
        for<'a, 'b> &'a L: Through<
                Function<'b, OnlyOnce<F>, M>,
                Service: Service<Call<K>, Response = T, Error = CallError<E>>,
            >,
    {
        self.run_attempts(OnlyOnce::new(function)).await
    }
}

impl<L: ?Sized, K, N> OneCall<'_, L, K, N> {
    async fn run_attempts<F, M>(self, function: F) -> Result<F::Value, CallError<F::Error>>
    where
        F: Attempts<M>,
        for<'a, 'b> &'a L: Through<
                Function<'b, F, M>,
                Service: Service<Call<K>, Response = F::Value, Error = CallError<F::Error>>,
            >,
    {
        let Self {
            layers, mut call, ..
        } = self;
        let deadline = call.timeouts().total.map(Deadline::after);
        if let Some(deadline) = deadline {
            if deadline.has_passed() {
                return Err(late(RejectedKind::DeadlineExceeded));
            }
            call.set_deadline(deadline);
        }
        let slot = ClosureSlot::new(function);
        // The service is ready without a poll: the innermost one always is, and the layers reject
        // in `call`.
        let mut service = layers.through(slot.function());
        let calling = pin!(service.call(call));
        match deadline {
            None => calling.await,
            Some(deadline) => {
                let in_time = until(deadline.moment(), calling).await;
                in_time.unwrap_or_else(|| Err(late(RejectedKind::TimedOut)))
            }
        }
    }
}

fn late<E>(kind: RejectedKind) -> CallError<E> {
    CallError::Rejected(Rejected::new(kind, "call"))
}

impl<G, P> Run for GateLayer<G, P> {}
impl<P, B> Run for RetryLayer<P, B> {}
impl<P, B> Run for HedgeLayer<P, B> {}
impl<P> Run for TimeoutLayer<P> {}
impl<F, P> Run for FallbackLayer<F, P> {}
impl<A> Run for (A,) {}
impl<A, B> Run for (A, B) {}
impl<A, B, C> Run for (A, B, C) {}
impl<A, B, C, D> Run for (A, B, C, D) {}

impl<L: ?Sized, K: fmt::Debug, N> fmt::Debug for OneCall<'_, L, K, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OneCall").field(&self.call).finish()
    }
}
