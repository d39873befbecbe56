//! What layers see of a call of a plain async function.

use std::time::Duration;

use crate::{Criticality, Deadline, Timeouts, gate::Demand};

/// A call of a plain async function, as layers see it: their request. `K` is its key, `()` without
/// one.
///
/// The closures of a layer that is to run functions take it:
///
/// ```
/// use tower_keep::{protocol::Plain, run::Call};
///
/// let protocol = Plain::new().idempotent_when(|call: &Call<&str>| *call.key() != "payments");
/// # let _ = protocol;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Call<K = ()> {
    key: K,
    cost: u32,
    criticality: Criticality,
    once: bool,
    attempt: u32,
    timeouts: Timeouts,
    deadline: Option<Deadline>,
}

/// The key that was given to a call by reference, as [`OneCall::key`](super::OneCall::key) is
/// mostly used: pass it to `.keyed_by(..)` or `.per_key(..)`. It is cloned for each attempt; of a
/// `&str` a `String` is made.
///
/// ```
/// use tower_keep::{RejectedKind, Run, rate_limit::{Rate, RateLimitLayer}, run};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let limit = RateLimitLayer::builder(Rate::per_minute(1)).keyed_by(run::key::<str>).build()?;
/// let insert = async || Ok::<_, std::io::Error>("inserted");
///
/// assert_eq!(limit.call().key("acme").run(insert).await?, "inserted");
/// let error = limit.call().key("acme").run(insert).await.unwrap_err();
/// assert_eq!(error.rejected().unwrap().kind, RejectedKind::RateLimited);
/// assert_eq!(limit.call().key("other").run(insert).await?, "inserted");
/// # Ok(()) }
/// ```
///
/// For a key that is given by value write a closure: `|call: &Call<u32>| Some(*call.key())`. A call
/// without a key has none that such layers could find, and does not compile.
pub fn key<K: ToOwned + ?Sized>(call: &Call<&K>) -> Option<K::Owned> {
    Some((*call.key()).to_owned())
}

impl Call {
    pub(super) fn new() -> Self {
        Self {
            key: (),
            cost: 1,
            criticality: Demand::default().criticality,
            once: false,
            attempt: 1,
            timeouts: Timeouts::new(),
            deadline: None,
        }
    }
}

impl<K> Call<K> {
    /// The key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// How many units it costs.
    pub fn cost(&self) -> u32 {
        self.cost
    }

    /// How much it hurts if it is rejected.
    pub fn criticality(&self) -> Criticality {
        self.criticality
    }

    /// Returns whether the function is called once at most.
    pub fn is_once(&self) -> bool {
        self.once
    }

    /// Which attempt it is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// By when its caller wants the answer, if that is known.
    pub fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    pub(super) fn with_key<T>(self, key: T) -> Call<T> {
        Call {
            key,
            cost: self.cost,
            criticality: self.criticality,
            once: self.once,
            attempt: self.attempt,
            timeouts: self.timeouts,
            deadline: self.deadline,
        }
    }

    pub(super) fn set_cost(&mut self, cost: u32) {
        self.cost = cost;
    }

    pub(super) fn set_criticality(&mut self, criticality: Criticality) {
        self.criticality = criticality;
    }

    pub(super) fn set_once(&mut self) {
        self.once = true;
    }

    pub(super) fn set_attempt(&mut self, attempt: u32) {
        self.attempt = attempt;
    }

    pub(super) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = Some(deadline);
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// How long it may take in all.
    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.timeouts = self.timeouts.total(timeout);
    }

    pub(super) fn set_attempt_timeout(&mut self, timeout: Duration) {
        self.timeouts = self.timeouts.attempt(timeout);
    }

    /// What it asks of gates.
    pub(super) fn demand(&self) -> Demand {
        Demand {
            cost: self.cost,
            deadline: self.deadline.map(Deadline::moment),
            criticality: self.criticality,
            ..Demand::default()
        }
    }
}
