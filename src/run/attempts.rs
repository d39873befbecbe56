//! The innermost service: it calls the function, whose closure it borrows.

use std::{
    marker::PhantomData,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::run::{Call, CallError};

/// A closure that makes the future of an attempt: `FnMut() -> Fut`, or `FnMut(u32) -> Fut` with the
/// attempt's number from 1. `Fut` is a future of a `Result`.
///
/// It is called for each attempt, so clone or make within it what an attempt consumes. It may
/// borrow from its surroundings, and need be neither `Clone` nor `'static`. `M` only tells the two
/// forms apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` makes no future of a `Result`",
    note = "pass a closure `|| async {{ .. }}`, or `|attempt: u32| async {{ .. }}`, that ends with a `Result`",
    note = "it is called once for each attempt: clone within it what an attempt consumes"
)]
pub trait Attempts<M> {
    /// The value of a success.
    type Value;
    /// The function's error.
    type Error;
    /// The future of an attempt.
    type Future: Future<Output = Result<Self::Value, Self::Error>>;

    /// Begins an attempt.
    fn attempt(&mut self, number: u32) -> Self::Future;
}

/// A closure that is called at most once, and so may consume what it has captured: see
/// [`OneCall::once`](super::OneCall::once).
#[derive(Debug)]
pub struct OnlyOnce<F>(Option<F>);

/// Marks [`Attempts`] that do not take their number.
#[derive(Debug)]
pub struct Unnumbered;

/// Marks [`Attempts`] that take their number.
#[derive(Debug)]
pub struct Numbered;

/// The slot that holds the closure of a call while the call runs.
///
/// All borrows of it are within one future, so one thread at a time calls it. The mutex, which
/// never waits, proves that to the compiler. The closure is taken out to be called, so that user
/// code does not run under a lock.
#[derive(Debug)]
pub(super) struct ClosureSlot<F>(Mutex<Option<F>>);

/// The innermost service. Always ready.
#[derive(Debug)]
pub struct Function<'a, F, M> {
    slot: &'a ClosureSlot<F>,
    form: PhantomData<fn() -> M>,
}

pin_project! {
    /// The future of an attempt.
    #[derive(Debug)]
    pub struct Attempt<Fut> {
        #[pin]
        attempt: Fut,
    }
}

impl<F, Fut, T, E> Attempts<Unnumbered> for F
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Value = T;
    type Error = E;
    type Future = Fut;

    #[inline]
    fn attempt(&mut self, _: u32) -> Fut {
        self()
    }
}

impl<F, Fut, T, E> Attempts<Numbered> for F
where
    F: FnMut(u32) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Value = T;
    type Error = E;
    type Future = Fut;

    #[inline]
    fn attempt(&mut self, number: u32) -> Fut {
        self(number)
    }
}

impl<F> OnlyOnce<F> {
    pub(super) fn new(closure: F) -> Self {
        Self(Some(closure))
    }

    fn take(&mut self) -> F {
        let closure = self.0.take();
        closure.expect("no layer sends a call again that is to be sent once")
    }
}

impl<F, Fut, T, E> Attempts<Unnumbered> for OnlyOnce<F>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Value = T;
    type Error = E;
    type Future = Fut;

    #[inline]
    fn attempt(&mut self, _: u32) -> Fut {
        self.take()()
    }
}

impl<F, Fut, T, E> Attempts<Numbered> for OnlyOnce<F>
where
    F: FnOnce(u32) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Value = T;
    type Error = E;
    type Future = Fut;

    #[inline]
    fn attempt(&mut self, number: u32) -> Fut {
        self.take()(number)
    }
}

impl<F> ClosureSlot<F> {
    pub(super) fn new(closure: F) -> Self {
        Self(Mutex::new(Some(closure)))
    }

    pub(super) fn function<M>(&self) -> Function<'_, F, M> {
        Function {
            slot: self,
            form: PhantomData,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<F>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F, M> Clone for Function<'_, F, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F, M> Copy for Function<'_, F, M> {}

impl<F, M, K> Service<Call<K>> for Function<'_, F, M>
where
    F: Attempts<M>,
{
    type Response = F::Value;
    type Error = CallError<F::Error>;
    type Future = Attempt<F::Future>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, call: Call<K>) -> Self::Future {
        let taken = self.slot.lock().take();
        // A panic of the closure ends the call, and no layer sends it again.
        let mut closure = taken.expect("a closure that has panicked is not called again");
        let attempt = closure.attempt(call.attempt());
        *self.slot.lock() = Some(closure);
        Attempt { attempt }
    }
}

impl<Fut, T, E> Future for Attempt<Fut>
where
    Fut: Future<Output = Result<T, E>>,
{
    type Output = Result<T, CallError<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.project().attempt.poll(cx));
        Poll::Ready(result.map_err(CallError::Inner))
    }
}
