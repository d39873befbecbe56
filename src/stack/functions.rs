//! Plain async functions through a client's stack.

use tower::Service;

use super::{
    ClientStack, Once,
    timed::{InTimed, WithDeadline},
};
use crate::{
    gate::{FindKey, GateLayer},
    keyed::Host,
    protocol::{Kept, Replay},
    run::{Behind, Call, CallError, Function, OneCall, Run, Through},
    timeout::TimeoutLayer,
};

impl<P, W, R, G, F> ClientStack<P, W, R, G, F> {
    /// Runs a plain async function through the stack: see [`Run::run`]. For stacks of
    /// [`plain`](super::ClientWithoutProtocol::plain) clients, or with [one
    /// peer](super::ClientBuilder::one_peer).
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_keep::{CallError, protocol::Plain, stack};
    /// # use std::io;
    /// # struct Pool;
    /// # impl Pool { async fn query(&self, id: u32) -> io::Result<u32> { Ok(id) } }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_keep::ConfigError> {
    /// let db = stack::client()
    ///     .plain(Plain::new().idempotent())
    ///     .attempt_timeout(Duration::from_millis(500))
    ///     .total_timeout(Duration::from_secs(2))
    ///     .max_in_flight(20)
    ///     .build()?;
    /// # let (pool, id) = (Pool, 7);
    /// match db.run(|| pool.query(id)).await {
    ///     Ok(rows) => assert_eq!(rows, 7),
    ///     Err(CallError::Inner(error)) => println!("the database said: {error}"),
    ///     Err(CallError::Rejected(why)) => println!("busy, come back in {:?}", why.retry_after),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Run::run`].
    pub fn run<A, M>(
        &self,
        function: A,
    ) -> impl Future<Output = Result<A::Value, CallError<A::Error>>>
    where
        A: crate::run::Attempts<M>,
        for<'a, 'b> &'a Self: Through<
                Function<'b, A, M>,
                Service: Service<Call, Response = A::Value, Error = CallError<A::Error>>,
            >,
    {
        self.call().run(function)
    }

    /// Begins a call with details: see [`Run::call`].
    pub fn call(&self) -> OneCall<'_, Self> {
        Run::call(self)
    }
}

impl<P, W, R, G, F> Run for ClientStack<P, W, R, G, F> {}

impl<'a, P, W, R, G, F, S> Through<S> for &'a ClientStack<P, W, R, G, F>
where
    &'a R: Through<Attempts<'a, P, G, S>>,
    &'a F: Through<InTime<'a, P, R, G, S>>,
{
    type Service = <&'a F as Through<InTime<'a, P, R, G, S>>>::Service;

    #[inline]
    fn through(self, inner: S) -> Self::Service {
        let attempts = self.gates.through(self.attempt.through(inner));
        let in_time = self.total.through(self.resend.through(attempts));
        self.fallback.through(in_time)
    }
}

impl<S> Through<S> for &Once {
    type Service = S;

    #[inline]
    fn through(self, inner: S) -> S {
        inner
    }
}

/// The layers of a client around a function, without the fallback.
type InTime<'a, P, R, G, S> = Behind<'a, TimeoutLayer<WithDeadline<P>>, Within<'a, P, R, G, S>>;
/// The layers of a client around a function, within the total timeout.
type Within<'a, P, R, G, S> = <&'a R as Through<Attempts<'a, P, G, S>>>::Service;
type Attempts<'a, P, G, S> =
    Behind<'a, GateLayer<G, WithDeadline<P>>, Behind<'a, TimeoutLayer<WithDeadline<P>>, S>>;

/// A call carries its deadline itself.
impl<P, K> Replay<Call<K>> for WithDeadline<P>
where
    P: Replay<Call<K>>,
{
    type Request = P::Request;
    type Snapshot = P::Snapshot;

    #[inline]
    fn once(&self, call: Call<K>) -> P::Request {
        self.inner().once(call)
    }

    #[inline]
    fn prepare(&self, call: Call<K>) -> (P::Request, Option<Kept<P::Snapshot>>) {
        self.inner().prepare(call)
    }

    fn replay(&self, snapshot: &P::Snapshot) -> Option<P::Request> {
        self.inner().replay(snapshot)
    }
}

impl<F: FindKey<Call<K>, Host>, K> FindKey<Call<K>, Host> for InTimed<F> {
    #[inline]
    fn find(&self, call: &Call<K>) -> Option<Host> {
        self.0.find(call)
    }
}
