//! Any request type: the upstream as a plain service.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, poll_fn},
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tower::{BoxError, Service};

use super::{
    UpstreamError,
    caller::{CallEnd, Caller, Calling, Kind},
    run::MakeStack,
    world::{Sending, World},
};

/// Drills with requests of any type.
#[derive(Debug)]
pub struct PlainKind<Req>(PhantomData<fn(Req) -> Infallible>);

/// The modelled upstreams, as a service that takes any request and answers [`Default`], which is
/// `()` unless another type is chosen. Failures are errors.
///
/// Cheap to clone. Always ready: calls wait at the upstream.
pub struct PlainUpstream<Res = ()> {
    world: World,
    number: usize,
    response: PhantomData<fn() -> Res>,
}

impl PlainUpstream {
    /// Returns the upstream of another name. A single upstream has any name. With several, an
    /// unknown name ends the drill with an error.
    #[must_use]
    pub fn to(&self, name: &str) -> Self {
        Self {
            number: self.world.number(Some(name)),
            ..self.clone()
        }
    }

    /// Returns the same upstream, with responses of another type.
    #[must_use]
    pub fn answering<Res: Default>(&self) -> PlainUpstream<Res> {
        PlainUpstream {
            world: self.world.clone(),
            number: self.number,
            response: PhantomData,
        }
    }
}

impl<Req: 'static> Kind for PlainKind<Req> {
    type Request = Req;
    type Upstream = PlainUpstream;
    type Handlers = ();

    fn upstream(world: World, (): &()) -> Result<PlainUpstream, BoxError> {
        Ok(PlainUpstream {
            world,
            number: 0,
            response: PhantomData,
        })
    }

    fn release(_: &PlainUpstream) {}

    fn join((): &mut (), (): ()) {}

    fn bare(upstream: PlainUpstream) -> Box<dyn Caller<Req>> {
        Box::new(PlainCaller(upstream))
    }
}

impl<Req, Res: Default> Service<Req> for PlainUpstream<Res> {
    type Response = Res;
    type Error = UpstreamError;
    type Future = PlainAnswer<Res>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> PlainAnswer<Res> {
        PlainAnswer {
            sending: self.world.send(self.number),
            response: PhantomData,
        }
    }
}

/// The response future of a [`PlainUpstream`].
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct PlainAnswer<Res = ()> {
    sending: Sending,
    response: PhantomData<fn() -> Res>,
}

impl<Res: Default> Future for PlainAnswer<Res> {
    type Output = Result<Res, UpstreamError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.sending).poll(context);
        answer.map(|answer| UpstreamError::of(answer).map_or_else(|| Ok(Res::default()), Err))
    }
}

pub(super) fn plain_stack<S, Req>(
    stack: impl Fn(PlainUpstream) -> Result<S, BoxError> + Send + Sync + 'static,
) -> MakeStack<PlainKind<Req>>
where
    S: Service<Req> + Clone + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    Arc::new(move |upstream| Ok(Box::new(PlainCaller(stack(upstream)?))))
}

/// A stack of any protocol: an error is a failure, unless it is a rejection.
struct PlainCaller<S>(S);

impl<S, Req> Caller<Req> for PlainCaller<S>
where
    S: Service<Req> + Clone + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    fn call(&self, request: Req) -> Calling {
        let mut service = self.0.clone();
        Box::pin(async move {
            if let Err(error) = poll_fn(|context| service.poll_ready(context)).await {
                return CallEnd::of_error(error);
            }
            match service.call(request).await {
                Ok(_) => CallEnd::Answered,
                Err(error) => CallEnd::of_error(error),
            }
        })
    }
}

impl<Res> Clone for PlainUpstream<Res> {
    fn clone(&self) -> Self {
        Self {
            world: self.world.clone(),
            number: self.number,
            response: PhantomData,
        }
    }
}

impl<Res> fmt::Debug for PlainUpstream<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainUpstream").finish_non_exhaustive()
    }
}
