//! A Tower layer that reads what each response has used, and settles it at the end.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{
    body::{MeteredBody, meter},
    meter::{End, UsageReport},
    shape::Shape,
};

/// Reads the usage of each response as its body passes, and settles it once, at the end. On an axum
/// `Router`, over a hyper client, or over any service of HTTP whose bodies are [`Bytes`]. Cheap to
/// clone.
///
/// A closure reads each request before it is sent, and returns the closure that settles it, which
/// gets the [`UsageReport`]. It is called exactly once, as by [`meter`]. A call that fails without
/// a response ends as [`End::Failed`], and one that its caller drops before the response as
/// [`End::Left`].
///
/// Put it inside the limit that it settles, so that a rejected call is not settled. Put it outside
/// a layer that decompresses.
///
/// Put it outside any [retry](crate::retry), [hedge](crate::hedge) or
/// [`Spill`](crate::fallback::Spill) too, next to the limit. A call takes its units once, and
/// beneath such a layer each attempt would settle them. Each attempt that fails would refund the
/// whole estimate, and the answer of the third would be free. Around a `Spill`,
/// [`shape_by`](Self::shape_by) chooses the shape by the backend that has answered.
///
/// ```
/// use axum::{Router, body::Body, routing::post};
/// use http::Request;
/// use tower_keep::{
///     protocol::http::{Server, usage::{self, End, MeterLayer, UsageReport}},
///     rate_limit::{Dimension, Rate, RateLimitLayer},
/// };
///
/// # async fn chat() {}
/// fn tenant(request: &Request<Body>) -> String {
///     let value = request.headers().get("x-tenant").and_then(|value| value.to_str().ok());
///     value.unwrap_or_default().to_owned()
/// }
///
/// let budgets = RateLimitLayer::dimensions([Dimension::new("tokens", Rate::per_minute(80_000))])
///     .cost(|_: &Request<Body>| [4096])
///     .keyed_by(|request: &Request<Body>| Some(tenant(request)))
///     .protocol(Server::new())
///     .build()?;
/// let keys = budgets.handle();
/// let metered = MeterLayer::new(usage::openai(), move |request: &Request<Body>| {
///     let (keys, tenant) = (keys.clone(), tenant(request));
///     move |report: UsageReport| {
///         let used = match (report.usage.and_then(|usage| usage.output), report.end) {
///             (Some(used), _) => used,
///             // Nothing was answered, so nothing was used.
///             (None, End::Failed) => 0,
///             // Without a word the estimate stands.
///             (None, _) => return,
///         };
///         if let Some(budget) = keys.key(&tenant) {
///             budget.settle([4096], [used]);
///         }
///     }
/// });
/// // The handler's client, with its retries or its list of backends, is inside both.
/// let app: Router = Router::new().route("/chat", post(chat)).layer(metered).layer(budgets);
/// # let _ = app;
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
pub struct MeterLayer<F> {
    shared: Arc<Metering<F>>,
}

/// A service whose responses are [metered](MeterLayer).
pub struct Metered<S, F> {
    inner: S,
    shared: Arc<Metering<F>>,
}

pin_project! {
    /// The response of a [metered](MeterLayer) service.
    pub struct MeteredFuture<U, F, G: FnOnce(UsageReport)> {
        #[pin]
        inner: U,
        unsettled: Unsettled<F, G>,
    }
}

struct Metering<F> {
    shape: Shape,
    /// The shape by the response, in place of that one.
    by: Option<ShapeOf>,
    begin: F,
}

/// A call without a response. Settles when it is dropped.
struct Unsettled<F, G: FnOnce(UsageReport)> {
    shared: Arc<Metering<F>>,
    settle: Option<G>,
}

type ShapeOf = Arc<dyn Fn(&Response<()>) -> Option<Shape> + Send + Sync>;

impl<F> MeterLayer<F> {
    /// Meters responses of one shape. `begin` is a closure `Fn(&Request<B>) -> G`, called with each
    /// request. `G` is a closure `FnOnce(UsageReport)`, called once at the end of the response. It
    /// runs in the task that reads the body, so it must not block.
    pub fn new<B, G>(shape: Shape, begin: F) -> Self
    where
        F: Fn(&Request<B>) -> G,
        G: FnOnce(UsageReport),
    {
        let by = None;
        Self {
            shared: Arc::new(Metering { shape, by, begin }),
        }
    }

    /// Chooses the shape by the head of the response, for example by the backend that has answered
    /// ([`SpillReport`](crate::fallback::SpillReport)). If the closure returns `None`, the shape of
    /// [`new`](Self::new) is used.
    #[must_use]
    pub fn shape_by(
        self,
        shape: impl Fn(&Response<()>) -> Option<Shape> + Send + Sync + 'static,
    ) -> Self
    where
        F: Clone,
    {
        let Metering {
            shape: default,
            begin,
            ..
        } = &*self.shared;
        let (default, begin) = (default.clone(), begin.clone());
        Self {
            shared: Arc::new(Metering {
                shape: default,
                by: Some(Arc::new(shape)),
                begin,
            }),
        }
    }
}

impl<F> Clone for MeterLayer<F> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<S, F> Layer<S> for MeterLayer<F> {
    type Service = Metered<S, F>;

    fn layer(&self, inner: S) -> Metered<S, F> {
        let shared = self.shared.clone();
        Metered { inner, shared }
    }
}

impl<S: Clone, F> Clone for Metered<S, F> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<S, F, G, A, B> Service<Request<A>> for Metered<S, F>
where
    S: Service<Request<A>, Response = Response<B>>,
    F: Fn(&Request<A>) -> G,
    G: FnOnce(UsageReport),
    B: Body<Data = Bytes>,
{
    type Response = Response<MeteredBody<B, G>>;
    type Error = S::Error;
    type Future = MeteredFuture<S::Future, F, G>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let settle = Some((self.shared.begin)(&request));
        let shared = self.shared.clone();
        MeteredFuture {
            unsettled: Unsettled { shared, settle },
            inner: self.inner.call(request),
        }
    }
}

impl<U, F, G, B, E> Future for MeteredFuture<U, F, G>
where
    U: Future<Output = Result<Response<B>, E>>,
    G: FnOnce(UsageReport),
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<MeteredBody<B, G>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let unsettled = this.unsettled;
        match ready!(this.inner.poll(cx)) {
            Ok(response) => {
                let (shape, response) = unsettled.shared.shape(response);
                // A future is not polled after it has returned.
                let settle = unsettled.settle.take().expect("polled after completion");
                Poll::Ready(Ok(meter(response, shape, settle)))
            }
            Err(error) => {
                unsettled.end(End::Failed);
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<F> Metering<F> {
    /// Returns the shape of a response, and the response.
    fn shape<B>(&self, response: Response<B>) -> (Shape, Response<B>) {
        let Some(by) = &self.by else {
            return (self.shape.clone(), response);
        };
        let (head, body) = response.into_parts();
        let head = Response::from_parts(head, ());
        let shape = by(&head).unwrap_or_else(|| self.shape.clone());
        (shape, head.map(|()| body))
    }
}

impl<F, G: FnOnce(UsageReport)> Unsettled<F, G> {
    fn end(&mut self, end: End) {
        if let Some(settle) = self.settle.take() {
            settle(UsageReport::without_response(end));
        }
    }
}

impl<F, G: FnOnce(UsageReport)> Drop for Unsettled<F, G> {
    fn drop(&mut self) {
        self.end(End::Left);
    }
}

impl<F> fmt::Debug for MeterLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeterLayer")
            .field("shape", &self.shared.shape)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, F> fmt::Debug for Metered<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<U, F, G: FnOnce(UsageReport)> fmt::Debug for MeteredFuture<U, F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeteredFuture").finish_non_exhaustive()
    }
}
