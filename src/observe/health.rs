//! The health of a process's dependencies, for its readiness probe.

use std::time::Duration;

/// The instances of a [`Registry`](crate::observe::Registry) that are unhealthy: for `/readyz`.
///
/// ```
/// use tower_keep::{circuit_breaker::CircuitBreakerLayer, observe::Registry, protocol::Plain};
///
/// let registry = Registry::new();
/// let payments = CircuitBreakerLayer::builder().name("payments").critical(true);
/// let payments = registry.with(|| payments.protocol(Plain::new()).build())?;
/// assert!(registry.health().is_ready());
///
/// payments.handle().force_open();
/// let health = registry.health();
/// assert!(!health.is_ready());
/// assert_eq!((health.circuits[0].name, health.circuits[0].open), ("payments", 1));
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
///
/// An open circuit alone is no reason to take a process out of rotation. It is one if the process
/// can do nothing without that upstream, and another process could. If so, mark it as
/// [`critical`](crate::circuit_breaker::CircuitBreakerBuilder::critical). If all replicas depend on
/// the same upstream, all are taken out at once, and none is left to report that it is down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Health {
    /// The circuit breakers with a circuit that is not closed.
    pub circuits: Vec<OpenCircuits>,
    /// The stacks that are [drained](crate::stack::ServerHandle::drain).
    pub draining: Vec<DrainingStack>,
}

/// A circuit breaker with a circuit that is open, half-open, or forced open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct OpenCircuits {
    /// The name given to `.name(..)`.
    pub name: &'static str,
    /// The number of its circuits that are not closed: more than 1 only if it is keyed.
    pub open: usize,
    /// The time since the first of them left the closed state.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::config::seconds::of")
    )]
    pub since: Duration,
    /// If true, the process can do nothing without it.
    pub critical: bool,
}

/// A stack that is draining and takes no new calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DrainingStack {
    /// The name given to `.name(..)`.
    pub name: &'static str,
    /// The number of its calls that are still in flight.
    pub in_flight: usize,
}

/// The problem of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only stacks drain"))]
pub(crate) enum Unwell {
    Circuits(OpenCircuits),
    Draining(DrainingStack),
}

impl Health {
    /// Returns whether calls should arrive here: no critical circuit is open, and no stack drains.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let is_critical = |circuits: &OpenCircuits| circuits.critical;
        self.draining.is_empty() && !self.circuits.iter().any(is_critical)
    }
}

impl FromIterator<Unwell> for Health {
    fn from_iter<I: IntoIterator<Item = Unwell>>(unwell: I) -> Self {
        let mut health = Self::default();
        for one in unwell {
            match one {
                Unwell::Circuits(circuits) => health.circuits.push(circuits),
                Unwell::Draining(stack) => health.draining.push(stack),
            }
        }
        health
    }
}
