//! A bulkhead whose calls run on a runtime of their own.

use std::{
    fmt,
    panic::resume_unwind,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    runtime::Handle,
    task::{JoinError, JoinHandle},
};
use tower::{Layer, Service};

use crate::{
    Rejected, RejectedKind,
    bulkhead::BulkheadGate,
    gate::{Admit, Asking, Controlled, GateLayer, Gated, Keyed, Permit, Read, ResponseFuture},
    keyed::HasKey,
    observe::trace,
    protocol::Protocol,
};

/// A bulkhead whose calls run on a runtime of their own. Built with
/// [`on_runtime`](GateLayer::on_runtime).
pub struct OnRuntimeLayer<G, P> {
    layer: GateLayer<G, P>,
    protocol: P,
    runtime: Handle,
}

/// A service behind an [`OnRuntimeLayer`].
pub struct OnRuntime<S, G, P> {
    inner: Gated<S, G, P>,
    protocol: P,
    runtime: Handle,
}

/// The answer of an [`OnRuntime`]. Dropping it aborts the call.
#[must_use = "futures do nothing unless polled"]
pub struct OnRuntimeFuture<F: Future, P> {
    stage: Placement<F>,
    protocol: P,
}

enum Placement<F: Future> {
    /// The call was rejected, which needs no task.
    Here(Pin<Box<F>>),
    There(JoinHandle<F::Output>),
}

/// A gate that bounds the calls in flight.
pub trait Bounds: Controlled {}

impl Bounds for BulkheadGate {}

impl<F: HasKey> Bounds for Keyed<F, BulkheadGate> where Self: Controlled {}

impl<G: Bounds, A, P: Clone> GateLayer<Asking<G, A>, P> {
    /// Runs the calls that a bulkhead admits on another runtime. A call that computes for long
    /// without an `await` then stalls only threads of that runtime, and not the calls beside it. A
    /// limit on the number of calls cannot prevent that, because one such call is enough to stop a
    /// thread.
    ///
    /// ```
    /// use tower::{Layer, ServiceExt, service_fn};
    /// use tower_keep::bulkhead::BulkheadLayer;
    ///
    /// # fn main() -> Result<(), tower::BoxError> {
    /// let reports = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// let layer = BulkheadLayer::builder(4).build()?.on_runtime(reports.handle().clone());
    /// let sum = async |n: u64| Ok::<_, std::io::Error>((1..=n).sum::<u64>());
    /// let service = layer.layer(service_fn(sum));
    ///
    /// let server = tokio::runtime::Builder::new_current_thread().build()?;
    /// let sum = server.block_on(service.oneshot(100))?;
    /// assert_eq!(sum, 5050);
    /// # Ok(()) }
    /// ```
    ///
    /// **Cost.** A task per admitted call, and two hops between threads, which take some
    /// microseconds. A rejected call has no such cost.
    ///
    /// **Tracing.** With the feature `tracing` the call stays in its caller's span, and its logs go
    /// to its caller's subscriber. Task-local values do not follow the call.
    ///
    /// **Drop.** Dropping the answer aborts the call at its next `await`. The call keeps its permit
    /// until then, so the limit is never exceeded.
    ///
    /// **Panic.** A panic of the call resumes in its caller.
    ///
    /// **Limits.** The service's `call` itself runs on the caller's runtime. Only its future runs
    /// on the other one, and the response body is read on the caller's runtime. The runtime needs
    /// its timer if calls use time or [may wait](super::BulkheadBuilder::max_wait). After it has
    /// shut down, calls are rejected as [`BulkheadFull`](RejectedKind::BulkheadFull).
    #[must_use]
    pub fn on_runtime(self, runtime: Handle) -> OnRuntimeLayer<Asking<G, A>, P> {
        OnRuntimeLayer {
            protocol: self.shared_protocol().clone(),
            layer: self,
            runtime,
        }
    }
}

impl<G: Controlled, P> OnRuntimeLayer<G, P> {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> G::Handle {
        self.layer.gate().control()
    }
}

impl<S, G, P: Clone> Layer<S> for OnRuntimeLayer<G, P> {
    type Service = OnRuntime<S, G, P>;

    fn layer(&self, inner: S) -> Self::Service {
        OnRuntime {
            inner: self.layer.layer(inner),
            protocol: self.protocol.clone(),
            runtime: self.runtime.clone(),
        }
    }
}

impl<S, G, P, Req> Service<Req> for OnRuntime<S, G, P>
where
    S: Service<Req> + Clone,
    G: Admit<Req> + Read<S::Response> + Send + Sync + 'static,
    P: Protocol<S::Response, S::Error>,
    ResponseFuture<S, G, P, Req>: Send + 'static,
    Result<P::Response<Permit<G>>, P::Error>: Send,
{
    type Response = P::Response<Permit<G>>;
    type Error = P::Error;
    type Future = OnRuntimeFuture<ResponseFuture<S, G, P, Req>, P>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let future = self.inner.call(request);
        let stage = if future.is_rejected() {
            Placement::Here(Box::pin(future))
        } else {
            Placement::There(trace::spawn(&self.runtime, future))
        };
        OnRuntimeFuture {
            stage,
            protocol: self.protocol.clone(),
        }
    }
}

impl<S, G, P, Req> Future for OnRuntimeFuture<ResponseFuture<S, G, P, Req>, P>
where
    S: Service<Req>,
    G: Admit<Req> + Read<S::Response> + Send + Sync + 'static,
    P: Protocol<S::Response, S::Error>,
{
    type Output = Result<P::Response<Permit<G>>, P::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Only boxed parts are pinned.
        let this = &mut *self;
        let ended = match &mut this.stage {
            Placement::Here(future) => return future.as_mut().poll(cx),
            Placement::There(task) => ready!(Pin::new(task).poll(cx)),
        };
        Poll::Ready(match ended.map_err(JoinError::try_into_panic) {
            Ok(output) => output,
            Err(Ok(panic)) => resume_unwind(panic),
            // Only this future aborts the task, so the runtime has shut down.
            Err(Err(_)) => {
                let rejected = Rejected::new(RejectedKind::BulkheadFull, "bulkhead");
                this.protocol.reject(Box::new(rejected))
            }
        })
    }
}

impl<F: Future, P> Unpin for OnRuntimeFuture<F, P> {}

impl<F: Future, P> Drop for OnRuntimeFuture<F, P> {
    fn drop(&mut self) {
        if let Placement::There(task) = &self.stage {
            task.abort();
        }
    }
}

impl<S, G, P> Clone for OnRuntime<S, G, P>
where
    Gated<S, G, P>: Clone,
    P: Clone,
{
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            protocol: self.protocol.clone(),
            runtime: self.runtime.clone(),
        }
    }
}

impl<G, P: Clone> Clone for OnRuntimeLayer<G, P> {
    fn clone(&self) -> Self {
        Self {
            layer: self.layer.clone(),
            protocol: self.protocol.clone(),
            runtime: self.runtime.clone(),
        }
    }
}

impl<G: fmt::Debug, P> fmt::Debug for OnRuntimeLayer<G, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnRuntimeLayer")
            .field("layer", &self.layer)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, G, P> fmt::Debug for OnRuntime<S, G, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnRuntime")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<F: Future, P> fmt::Debug for OnRuntimeFuture<F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spawned = matches!(self.stage, Placement::There(_));
        f.debug_struct("OnRuntimeFuture")
            .field("spawned", &spawned)
            .finish_non_exhaustive()
    }
}
