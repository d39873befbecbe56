//! What the futures of all patterns have in common: an admitted call with its permit, or a
//! rejection.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use crate::{
    Rejected,
    protocol::{Protocol, Settle, guarded},
};

pin_project! {
    /// A call by a future `F` under a protocol `P`, with a permit `T` to be settled at its end.
    /// Dropped unfinished, it drops the permit.
    #[derive(Debug)]
    pub(crate) struct Call<F, P, T> {
        #[pin]
        state: State<F, T>,
        protocol: P,
    }
}

pin_project! {
    #[project = StateProject]
    #[derive(Debug)]
    enum State<F, T> {
        Admitted { #[pin] inner: F, permit: Option<T> },
        Rejected { rejected: Option<Rejected> },
    }
}

impl<F, P, T> Call<F, P, T> {
    /// Starts an admitted call; if the inner service panics, its permit is settled as a failure.
    #[inline]
    pub(crate) fn admitted(protocol: P, permit: T, start: impl FnOnce() -> F) -> Self
    where
        T: Settle,
    {
        let mut permit = Some(permit);
        let inner = guarded(&mut permit, start);
        Self {
            state: State::Admitted { inner, permit },
            protocol,
        }
    }

    pub(crate) fn rejected(protocol: P, rejected: Rejected) -> Self {
        Self {
            state: State::Rejected {
                rejected: Some(rejected),
            },
            protocol,
        }
    }
}

impl<F, P, T, Res, Err> Future for Call<F, P, T>
where
    F: Future<Output = Result<Res, Err>>,
    P: Protocol<Res, Err>,
    T: Settle,
{
    type Output = Result<P::Response<T>, P::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.state.project() {
            StateProject::Admitted { inner, permit } => {
                let result = std::task::ready!(guarded(permit, || inner.poll(cx)));
                let permit = permit.take().expect("polled after completion");
                Poll::Ready(this.protocol.settle(result, permit))
            }
            StateProject::Rejected { rejected } => {
                let rejected = rejected.take().expect("polled after completion");
                Poll::Ready(this.protocol.reject(Box::new(rejected)))
            }
        }
    }
}
