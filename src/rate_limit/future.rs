//! The response future.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    call::Call,
    protocol::Protocol,
    rate_limit::{
        Actual, Meter, Permit,
        state::{Account, Admission, State},
        waiting::{Waiting, WaitingFor},
    },
    striped::Held,
};

pin_project! {
    /// The answer of a [`RateLimit`](super::RateLimit): the inner one, or a rejection. Dropped
    /// while it waits, it leaves the line and has cost nothing.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, M, Req>
    where
        S: Service<Req>,
        M: Meter<Req>,
    {
        #[pin]
        stage: Stage<S::Future, M::Bill, WaitingFor<S, M, Req>>,
        advertised: Option<Advertised<M::Bill>>,
    }
}

/// A call that has been made, or rejected.
pub(super) type Made<F, B> = Call<Billed<F, B>, B, Permit>;

pin_project! {
    #[project = StageProject]
    enum Stage<F, B, W> {
        // In a box, so that calls that do not wait need not carry what those that do take along.
        Waiting { waiting: Pin<Box<W>> },
        Calling { #[pin] call: Made<F, B> },
        // After the inner service was not ready.
        Ended,
    }
}

/// A limit that its callers are told of.
struct Advertised<B> {
    account: Account,
    bill: B,
}

pin_project! {
    /// A call whose response tells what it has cost.
    #[derive(Debug)]
    pub(super) struct Billed<F, B> {
        #[pin]
        inner: F,
        bill: B,
        taken: u32,
        // `None` if what was taken stands.
        account: Option<Account>,
    }
}

impl<S, M, B, Req> ResponseFuture<S, M, Req>
where
    S: Service<Req> + Clone,
    M: Meter<Req, Bill = B>,
    B: Protocol<S::Response, S::Error> + Actual<S::Response>,
{
    #[inline]
    pub(super) fn new(
        service: &mut S,
        request: Req,
        metered: &M,
        state: &Held<State>,
        admission: Admission,
    ) -> Self {
        let (key, stage) = match admission {
            Admission::Free => (
                None,
                Stage::Calling {
                    call: Billed::free(service, request, metered.bill()),
                },
            ),
            Admission::Now { key, cost } => (
                Some(key),
                Stage::Calling {
                    call: Billed::call(service, request, metered.bill(), state, key, cost),
                },
            ),
            Admission::Waits {
                key,
                cost,
                line,
                place,
            } => {
                let waiting = Waiting::new(Account::new(state, key), cost, line, place);
                let waiting = Box::pin(WaitingFor::new(
                    waiting,
                    service.clone(),
                    request,
                    metered.clone(),
                ));
                (Some(key), Stage::Waiting { waiting })
            }
            Admission::Rejected { key, rejected } => (
                key,
                Stage::Calling {
                    call: Call::rejected(metered.bill(), rejected),
                },
            ),
        };
        let advertised = key.filter(|_| state.settings.advertise);
        let advertised = advertised.map(|key| Advertised {
            account: Account::new(state, key),
            bill: metered.bill(),
        });
        Self { stage, advertised }
    }
}

impl<S, M, B, Req> Future for ResponseFuture<S, M, Req>
where
    S: Service<Req>,
    M: Meter<Req, Bill = B>,
    B: Protocol<S::Response, S::Error> + Actual<S::Response>,
{
    type Output = Result<B::Response<Permit>, B::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.stage.as_mut().project() {
                StageProject::Calling { call } => {
                    let result = ready!(call.poll(cx));
                    return Poll::Ready(match this.advertised.take() {
                        Some(advertised) => result
                            .map(|response| advertised.tell::<S::Response, S::Error>(response)),
                        None => result,
                    });
                }
                StageProject::Waiting { waiting } => match ready!(waiting.as_mut().poll(cx)) {
                    Ok(call) => this.stage.set(Stage::Calling { call }),
                    Err(error) => {
                        this.stage.set(Stage::Ended);
                        return Poll::Ready(Err(error));
                    }
                },
                StageProject::Ended => panic!("polled after completion"),
            }
        }
    }
}

impl<B> Advertised<B> {
    fn tell<Res, Err>(self, response: B::Response<Permit>) -> B::Response<Permit>
    where
        B: Protocol<Res, Err>,
    {
        let Self {
            account: Account { state, key },
            bill,
        } = self;
        state
            .quotas(key)
            .into_iter()
            .fold(response, |response, quota| bill.advertise(response, &quota))
    }
}

impl<F, B> Billed<F, B> {
    fn free<S, Req>(service: &mut S, request: Req, bill: B) -> Made<F, B>
    where
        S: Service<Req, Future = F>,
        B: Clone,
    {
        let inner = || Self {
            inner: service.call(request),
            bill: bill.clone(),
            taken: 0,
            account: None,
        };
        Call::admitted(bill.clone(), Permit::none(), inner)
    }

    #[inline]
    pub(super) fn call<S, Req>(
        service: &mut S,
        request: Req,
        bill: B,
        state: &Held<State>,
        key: u64,
        taken: u32,
    ) -> Made<F, B>
    where
        S: Service<Req, Future = F>,
        B: Actual<S::Response>,
    {
        let account = bill.asks().then(|| Account::new(state, key));
        let protocol = bill.clone();
        Call::admitted(protocol, Permit::new(state, key), || Self {
            inner: service.call(request),
            bill,
            taken,
            account,
        })
    }
}

impl<F, B, Res, Err> Future for Billed<F, B>
where
    F: Future<Output = Result<Res, Err>>,
    B: Actual<Res>,
{
    type Output = Result<Res, Err>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        if let (Ok(response), Some(Account { state, key })) = (&result, this.account.take()) {
            state.correct(key, *this.taken, this.bill.actual(response));
        }
        Poll::Ready(result)
    }
}

impl<S, M, Req> fmt::Debug for ResponseFuture<S, M, Req>
where
    S: Service<Req>,
    M: Meter<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = matches!(self.stage, Stage::Waiting { .. });
        f.debug_struct("ResponseFuture")
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}
