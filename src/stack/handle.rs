//! The handle of a whole stack.

use std::hash::Hash;

use super::updating::Updating;
use crate::{
    Rejected,
    budget::BudgetsHandle,
    bulkhead::{self, BulkheadHandle, KeyedBulkheadHandle},
    circuit_breaker::{self, KeyedCircuitBreakerHandle},
    drain::Drain,
    fallback::{self, FallbackHandle},
    hedge::{self, HedgeHandle},
    keyed::Host,
    rate_limit::{
        self, KeyedRateLimitHandle, KeyedSnapshot, PerKeyRateLimitHandle, RateLimitHandle,
    },
    retry::{self, RetryHandle},
    throttle::{self, KeyedThrottleHandle},
    timeout::{self, TimeoutHandle},
};

/// The handles of a client's parts. Cheap to clone.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientHandle<L = Option<RateLimitHandle>, B = KeyedBulkheadHandle<Host>> {
    /// The total timeout: the longest time of a call with all its attempts.
    pub total_timeout: TimeoutHandle,
    /// The retries. Unused in a stack that hedges, or sends calls once.
    pub retry: RetryHandle,
    /// The hedge, if calls are hedged.
    pub hedge: Option<HedgeHandle>,
    /// The budget of each host, which pays for its retries or hedges. Empty if all hosts share one,
    /// which is in `retry` or `hedge`.
    pub retry_budgets: BudgetsHandle<Host>,
    /// A circuit for each host.
    pub circuit_breaker: KeyedCircuitBreakerHandle<Host>,
    /// A throttle for each host, if there is one.
    pub throttle: Option<KeyedThrottleHandle<Host>>,
    /// The rate, if there was one when this handle was made. [`update`](Self::update) adds and
    /// removes one, and the [`snapshot`](Self::snapshot) shows the current one.
    pub rate_limit: L,
    /// A bulkhead for each host, or for each of its own keys.
    pub bulkhead: B,
    /// The longest time of one attempt.
    pub attempt_timeout: TimeoutHandle,
    /// The fallback, if there is one.
    pub fallback: Option<FallbackHandle>,
    /// The rate, switched off or not.
    pub(super) limit: L,
    pub(super) drain: Drain,
    pub(super) name: Option<&'static str>,
    /// The updates under way.
    pub(super) updating: Updating,
    pub(super) enabled: Enabled,
}

/// A client's stack at one moment, its parts read one after the other.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ClientSnapshot<
    L = Option<rate_limit::Snapshot>,
    B = Vec<(Option<Host>, bulkhead::Snapshot)>,
> {
    /// The total timeout: the longest time of a call with all its attempts.
    pub total_timeout: timeout::Snapshot,
    /// The retries.
    pub retry: retry::Snapshot,
    /// The hedge, if calls are hedged.
    pub hedge: Option<hedge::Snapshot>,
    /// The retries or hedges that the budget of each host would pay for. Hosts without their own
    /// budget use the one in `retry` or `hedge`.
    pub retry_budgets: Vec<(Host, u32)>,
    /// The circuit of each host. Hosts without their own circuit share the one of `None`. It is the
    /// only one in a stack that does not distinguish hosts.
    pub circuits: Vec<(Option<Host>, circuit_breaker::Snapshot)>,
    /// The throttle of each host, like `circuits`. Empty without throttles.
    pub throttles: Vec<(Option<Host>, throttle::Snapshot)>,
    /// The rate, if there is one, or all limits of a keyed one.
    pub rate_limit: L,
    /// The bulkhead of each host, like `circuits`, or of each key.
    pub bulkheads: B,
    /// The longest time of one attempt.
    pub attempt_timeout: timeout::Snapshot,
    /// The fallback, if there is one.
    pub fallback: Option<fallback::Snapshot>,
}

/// A server's stack at one moment, its parts read one after the other.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ServerSnapshot<L = Option<rate_limit::Snapshot>, B = bulkhead::Snapshot> {
    /// The rate, if there is one, or all limits of a keyed one.
    pub rate_limit: L,
    /// The calls in flight. If keyed: the bulkhead of each key, and of `None`, which the other keys
    /// share.
    pub bulkhead: B,
    /// The longest time of a call.
    pub timeout: timeout::Snapshot,
    /// The fallback, if there is one.
    pub fallback: Option<fallback::Snapshot>,
}

/// The handles of a server's parts. Cheap to clone.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerHandle<L = Option<RateLimitHandle>, B = BulkheadHandle> {
    /// The rate, if there was one when this handle was made. [`update`](Self::update) adds and
    /// removes one, and the [`snapshot`](Self::snapshot) shows the current one.
    pub rate_limit: L,
    /// The calls in flight.
    pub bulkhead: B,
    /// The longest time of a call.
    pub timeout: TimeoutHandle,
    /// The fallback, if there is one.
    pub fallback: Option<FallbackHandle>,
    /// The rate, switched off or not.
    pub(super) limit: L,
    pub(super) drain: Drain,
    pub(super) name: Option<&'static str>,
    /// The updates under way.
    pub(super) updating: Updating,
}

/// The parts of a client that are present.
#[derive(Debug, Clone, Copy)]
pub(super) struct Enabled {
    pub(super) total: bool,
    pub(super) retry: bool,
    pub(super) breaker: bool,
    pub(super) bulkhead: bool,
    pub(super) attempt: bool,
    /// If true, the attempt's timeout was not set when the stack was built.
    pub(super) attempt_follows: bool,
    /// If true, all calls go to one peer.
    pub(super) one_peer: bool,
}

impl<L: Readable, B: Readable> ClientHandle<L, B> {
    /// Returns the numbers of all parts now. Costs a copy of each host's name, and a lock that
    /// calls take only for a new host.
    #[must_use]
    pub fn snapshot(&self) -> ClientSnapshot<L::Snapshot, B::Snapshot> {
        let circuits = self.circuit_breaker.keys().into_iter();
        let circuits = circuits.map(|(host, circuit)| (Some(host), circuit.snapshot()));
        let shared_circuit = (None, self.circuit_breaker.shared().snapshot());
        ClientSnapshot {
            total_timeout: self.total_timeout.snapshot(),
            retry: self.retry.snapshot(),
            hedge: self.hedge.as_ref().map(HedgeHandle::snapshot),
            retry_budgets: self.retry_budgets.keys(),
            circuits: circuits.chain([shared_circuit]).collect(),
            throttles: self.throttle.as_ref().map_or_else(Vec::new, throttles),
            rate_limit: self.limit.read(),
            bulkheads: self.bulkhead.read(),
            attempt_timeout: self.attempt_timeout.snapshot(),
            fallback: self.fallback.as_ref().map(FallbackHandle::snapshot),
        }
    }
}

impl<L> ClientHandle<L, KeyedBulkheadHandle<Host>> {
    /// Returns the host whose circuit, throttle or bulkhead rejected a call, which [`Rejected`] has
    /// no text for. `None` for a rejection by another layer, or by what hosts share, and for a host
    /// that has been evicted since.
    #[must_use]
    pub fn key_of(&self, rejected: &Rejected) -> Option<Host> {
        let throttle = || self.throttle.as_ref()?.key_of(rejected);
        let circuit = self.circuit_breaker.key_of(rejected);
        circuit
            .or_else(throttle)
            .or_else(|| self.bulkhead.key_of(rejected))
    }
}

impl<L: Readable, B: Readable> ServerHandle<L, B> {
    /// Returns the numbers of all parts now.
    #[must_use]
    pub fn snapshot(&self) -> ServerSnapshot<L::Snapshot, B::Snapshot> {
        ServerSnapshot {
            rate_limit: self.limit.read(),
            bulkhead: self.bulkhead.read(),
            timeout: self.timeout.snapshot(),
            fallback: self.fallback.as_ref().map(FallbackHandle::snapshot),
        }
    }
}

fn throttles(handle: &KeyedThrottleHandle<Host>) -> Vec<(Option<Host>, throttle::Snapshot)> {
    let keys = handle.keys().into_iter();
    let keys = keys.map(|(host, throttle)| (Some(host), throttle.snapshot()));
    keys.chain([(None, handle.shared().snapshot())]).collect()
}

/// The handle of a part, which can be read like the others.
pub trait Readable {
    /// The data that is read.
    type Snapshot;

    /// Returns the data now.
    fn read(&self) -> Self::Snapshot;
}

impl Readable for Option<RateLimitHandle> {
    type Snapshot = Option<rate_limit::Snapshot>;

    fn read(&self) -> Self::Snapshot {
        let limit = self.as_ref().filter(|limit| limit.is_enabled());
        limit.map(RateLimitHandle::snapshot)
    }
}

impl<K> Readable for KeyedRateLimitHandle<K> {
    type Snapshot = KeyedSnapshot;

    fn read(&self) -> Self::Snapshot {
        self.snapshot()
    }
}

impl<K: Hash + Eq + Clone> Readable for PerKeyRateLimitHandle<K> {
    type Snapshot = Vec<(Option<K>, rate_limit::Snapshot)>;

    fn read(&self) -> Self::Snapshot {
        let keys = self.keys().into_iter();
        let keys = keys.map(|(key, limit)| (Some(key), limit.snapshot()));
        keys.chain([(None, self.shared().snapshot())]).collect()
    }
}

impl Readable for BulkheadHandle {
    type Snapshot = bulkhead::Snapshot;

    fn read(&self) -> Self::Snapshot {
        self.snapshot()
    }
}

impl<K: Hash + Eq + Clone> Readable for KeyedBulkheadHandle<K> {
    type Snapshot = Vec<(Option<K>, bulkhead::Snapshot)>;

    fn read(&self) -> Self::Snapshot {
        let keys = self.keys().into_iter();
        let keys = keys.map(|(key, bulkhead)| (Some(key), bulkhead.snapshot()));
        keys.chain([(None, self.shared().snapshot())]).collect()
    }
}
