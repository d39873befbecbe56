//! The service.

use std::{
    fmt,
    hash::Hash,
    sync::Arc,
    task::{Context, Poll},
};

use tower::Service;

use crate::{
    protocol::{Plain, Protocol},
    rate_limit::{Actual, Meter, Metered, Permit, ResponseFuture, listed::list::Listed},
};

/// A service behind a [`ListedRateLimitLayer`](super::ListedRateLimitLayer). Otherwise as a
/// [`RateLimit`](crate::rate_limit::RateLimit).
pub struct ListedRateLimit<S, K, F, M = Metered<Plain>> {
    inner: S,
    limits: Arc<Listed<K>>,
    key: F,
    metered: M,
}

impl<S, K, F, M> ListedRateLimit<S, K, F, M> {
    pub(super) fn new(inner: S, limits: Arc<Listed<K>>, key: F, metered: M) -> Self {
        Self {
            inner,
            limits,
            key,
            metered,
        }
    }
}

impl<S, K, F, M, B, Req> Service<Req> for ListedRateLimit<S, K, F, M>
where
    S: Service<Req> + Clone,
    K: Hash + Eq + Clone,
    F: Fn(&Req) -> Option<K>,
    M: Meter<Req, Bill = B>,
    B: Protocol<S::Response, S::Error> + Actual<S::Response>,
{
    type Response = B::Response<Permit>;
    type Error = B::Error;
    type Future = ResponseFuture<S, M, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), B::Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| self.metered.bill().not_ready(error))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let (state, admission) = self
            .limits
            .admit((self.key)(&request), &self.metered, &request);
        ResponseFuture::new(&mut self.inner, request, &self.metered, &state, admission)
    }
}

impl<S: Clone, K, F: Clone, M: Clone> Clone for ListedRateLimit<S, K, F, M> {
    fn clone(&self) -> Self {
        Self::new(
            self.inner.clone(),
            self.limits.clone(),
            self.key.clone(),
            self.metered.clone(),
        )
    }
}

impl<S: fmt::Debug, K, F, M> fmt::Debug for ListedRateLimit<S, K, F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedRateLimit")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
