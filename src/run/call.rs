//! The request that layers see for a call of a plain async function.

use std::time::Duration;

use crate::{Criticality, Deadline, Timeouts, gate::Demand};

/// The request that layers see for a call of a plain async function. `K` is its key, `()` without
/// one.
///
/// The closures of a layer that runs functions take it:
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

/// Returns the key of a call that was given by reference, which is the usual way to use
/// [`OneCall::key`](super::OneCall::key). Pass this function to `.keyed_by(..)` or `.per_key(..)`.
/// The key is cloned for each attempt. A `&str` becomes a `String`.
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
/// without a key does not compile with such layers, because there is none to find.
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
    /// Returns the key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Returns its cost in units.
    pub fn cost(&self) -> u32 {
        self.cost
    }

    /// Returns how much a rejection hurts.
    pub fn criticality(&self) -> Criticality {
        self.criticality
    }

    /// Returns whether the function is called at most once.
    pub fn is_once(&self) -> bool {
        self.once
    }

    /// Returns the number of the attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the caller's deadline, if there is one.
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

    /// Sets the limit for all attempts together.
    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.timeouts = self.timeouts.total(timeout);
    }

    pub(super) fn set_attempt_timeout(&mut self, timeout: Duration) {
        self.timeouts = self.timeouts.attempt(timeout);
    }

    /// Returns what it requests of gates.
    pub(super) fn demand(&self) -> Demand {
        Demand {
            cost: self.cost,
            deadline: self.deadline.map(Deadline::moment),
            criticality: self.criticality,
            ..Demand::default()
        }
    }
}
