//! The service and its handle.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower::{BoxError, Service};

use super::{
    call,
    shared::Shared,
    state::{BackendCounts, State},
};
use crate::{
    CarryDeadline,
    protocol::{Protocol, Replay},
};

/// An ordered list of backends, each a service with its own stack: models, providers, regions. A
/// call goes to the first backend, and then to the next one if a backend
///
/// - does not [accept](super::Backend::accepts) it, or pauses,
/// - rejects it in its stack: by a limit, a circuit, a queue that takes too long,
/// - is overloaded, such as with a 429 or a 529, whether it says when to come back or not,
/// - fails in a way that a retry would send again, or gives an answer that is not
///   [wanted](super::SpillBuilder::wants).
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{ServiceExt, service_fn};
/// use tower_keep::{fallback::{Backend, Spill, SpillReport}, protocol::http::Client};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// type Body = Full<Bytes>;
/// let busy = service_fn(async |_: Request<Body>| {
///     let answer = Response::builder().status(503).header("retry-after", "30");
///     answer.body(Body::default())
/// });
/// let idle = service_fn(async |_: Request<Body>| {
///     Ok::<_, http::Error>(Response::new(Body::default()))
/// });
///
/// // A prompt may be sent twice: nothing is lost but its price.
/// let client = Client::new().idempotent_when(|_| true).clone_body();
/// let spill = Spill::builder(client)
///     .backend(Backend::new("large", busy))
///     .backend(Backend::new("small", idle).rewrite(|request: &mut Request<Body>| {
///         request.headers_mut().insert("x-model", "small".parse().unwrap());
///     }))
///     .name("models")
///     .build()?;
///
/// let prompt = Request::post("http://models.example/").body(Body::default())?;
/// let answer = spill.oneshot(prompt).await?;
/// let report = answer.extensions().get::<SpillReport>().unwrap();
/// assert_eq!(report.answered_by, Some("small"));
/// assert_eq!(report.passed_over[0].0, "large");
/// # Ok(()) }
/// ```
///
/// **Never after the first byte.** The head of a wanted answer is passed on, whatever happens later
/// in its body.
///
/// **Sent twice.** A call that may have had an effect goes to another backend only if it is
/// idempotent, as with a retry. [`Client::idempotent_when`](crate::protocol::http::Client) can
/// declare that of a `POST`. Bodies are replayed as a retry does it.
///
/// **Pauses.** A backend whose failure says when to come back is skipped until then. That is an
/// hour at most, so that a wrong field does not remove it for good. Without such a hint it is
/// skipped for its [cooldown](super::Backend::cooldown). Of two pauses the later end counts. A
/// rejection of its own stack makes no pause, because the stack decides on the next call. When no
/// backend has answered, the [last resort](super::Backend::last_resort) is tried, paused or not.
///
/// **Bounds.** One deadline and one [budget](super::SpillBuilder::budget) for the whole call. No
/// backend is asked at its deadline or later.
///
/// **No answer.** The last failure is passed on, also if the time ends while a further backend is
/// asked. If that is the first one, or may have acted on a call that is not idempotent, the error
/// is a [`Rejected`](crate::Rejected) of the layer `spill`, `TimedOut`. If no backend was tried it
/// is `CircuitOpen`, with the time until the first pause ends, or `CostTooHigh` if no backend
/// accepts the request. Each error has the report in it:
/// [`SpillReport::find`](super::super::SpillReport::find) returns it.
///
/// **One type.** The services are boxed, so that a list of any length has one type. Each call costs
/// some allocations, which is why this is not a chain of [`Fallback`](super::super::Fallback)s.
pub struct Spill<P, R, Res> {
    pub(super) shared: Arc<Shared<P, R, Res>>,
}

/// The future of a call.
pub type SpillCall<Res> = Pin<Box<dyn Future<Output = Result<Res, BoxError>> + Send>>;

/// A handle to watch a list of backends. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SpillHandle {
    state: Arc<State>,
}

/// The numbers of a backend at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpillSnapshot {
    /// Its name.
    pub name: &'static str,
    /// The calls that it has answered.
    pub answered: u64,
    /// The calls that its closure did not accept.
    pub unfit: u64,
    /// The calls that skipped it while it paused.
    pub cooling: u64,
    /// The calls that its own stack rejected.
    pub rejected: u64,
    /// The calls that failed in it.
    pub failed: u64,
    /// The calls to which it gave no wanted answer.
    pub unwanted: u64,
    /// The calls for which the budget had no token.
    pub unpaid: u64,
    /// The calls whose request could not be made again.
    pub unsendable: u64,
    /// The calls whose time ended while, or just before, it was asked.
    pub out_of_time: u64,
    /// The rest of its pause.
    pub pause: Option<Duration>,
}

impl<P, R, Res> Spill<P, R, Res> {
    pub(super) fn new(shared: Shared<P, R, Res>) -> Self {
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> SpillHandle {
        SpillHandle {
            state: self.shared.state.clone(),
        }
    }
}

impl SpillHandle {
    /// Returns the backends' numbers now, in their order.
    #[must_use]
    pub fn snapshot(&self) -> Vec<SpillSnapshot> {
        let counts = self.state.counts().into_iter().enumerate();
        let of = |(place, (name, counts)): (usize, (&'static str, BackendCounts))| {
            let [
                answered,
                unfit,
                cooling,
                rejected,
                failed,
                unwanted,
                unpaid,
                unsendable,
                out_of_time,
            ] = counts;
            SpillSnapshot {
                name,
                answered,
                unfit,
                cooling,
                rejected,
                failed,
                unwanted,
                unpaid,
                unsendable,
                out_of_time,
                pause: self.state.cooling(place),
            }
        };
        counts.map(of).collect()
    }

    /// Ends all pauses.
    pub fn reset(&self) {
        self.state.reset();
    }
}

impl<P, Req, Res> Service<Req> for Spill<P, P::Request, Res>
where
    P: Protocol<Res, BoxError, Error = BoxError, Response<()> = Res>,
    P: Replay<Req, Request: Send + 'static, Snapshot: Send + 'static>,
    P: CarryDeadline<Req> + Send + Sync + 'static,
    Req: Send + 'static,
    Res: Send + 'static,
{
    type Response = Res;
    type Error = BoxError;
    type Future = SpillCall<Res>;

    /// Returns ready: the call itself waits for each backend.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        Box::pin(call::run(self.shared.clone(), request))
    }
}

impl<P, R, Res> Clone for Spill<P, R, Res> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<P, R, Res> fmt::Debug for Spill<P, R, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spill")
            .field("backends", &self.shared.backends)
            .finish_non_exhaustive()
    }
}
