//! The part of a client's stack that sends calls again: a retry, a hedge, or neither.

use std::time::Duration;

use tower::layer::util::Identity;

use super::{
    parts::named,
    timed::{InTimed, WithDeadline},
};
use crate::{
    ConfigError,
    budget::{BudgetsHandle, KeyedBudgets, KeyedBudgetsBuilder},
    circuit_breaker::KeyedCircuitBreakerHandle,
    hedge::{HedgeBuilder, HedgeHandle, HedgeLayer},
    keyed::{ByHost, Host},
    retry::{RetryBuilder, RetryHandle, RetryLayer},
};

/// A stack that retries, which is the default.
pub type Retries<P, W = ByHost> = RetryLayer<WithDeadline<P>, KeyedBudgets<Host, InTimed<W>>>;

/// A stack that [hedges](super::ClientBuilder::hedge).
pub type Hedges<P, W = ByHost> = HedgeLayer<WithDeadline<P>, KeyedBudgets<Host, InTimed<W>>>;

/// The part of a stack that sends each call [once](super::ClientBuilder::without_retry). It takes
/// requests that are not `Clone`, and passes bodies on unchanged.
pub type Once = Identity;

/// A builder's state: calls are retried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retrying;

/// A builder's state: calls are hedged.
#[derive(Debug)]
pub struct Hedging(pub(super) HedgeBuilder);

/// A builder's state: calls are sent once.
#[derive(Debug, Clone, Copy)]
pub struct SendingOnce;

/// The part of a client's stack that sends calls again.
pub trait Resend<P, W> {
    /// The layer.
    type Layer;

    /// If true, the part is a retry.
    const RETRIES: bool;

    /// If true, the part is a hedge.
    const HEDGES: bool = false;

    /// Makes the layer.
    fn layer(self, of: Resending<P, W>) -> Result<Resent<Self::Layer>, ConfigError>;

    /// Sets the hedge's builder.
    ///
    /// # Errors
    /// The part is not a hedge.
    fn set_hedge(&mut self, hedge: HedgeBuilder) -> Result<(), ConfigError> {
        let _ = hedge;
        let fix = "leave it, or build the stack with `.hedge(|hedge| hedge)`";
        Err(ConfigError::new("hedge", "set", fix).of("stack", None))
    }

    /// Returns the shortest delay of a hedge, if the part is one.
    fn delay(&self) -> Option<Duration> {
        None
    }
}

/// The settings that the part is made of.
#[derive(Debug)]
pub struct Resending<P, W> {
    pub(super) protocol: WithDeadline<P>,
    pub(super) retry: RetryBuilder,
    pub(super) host: InTimed<W>,
    /// If true, all requests go to one peer.
    pub(super) one_peer: bool,
    /// The number of hosts with a budget of their own, if it is set.
    pub(super) max_hosts: Option<usize>,
    pub(super) circuits: KeyedCircuitBreakerHandle<Host>,
    pub(super) name: Option<&'static str>,
}

impl<P, W: Clone> Resending<P, W> {
    /// Starts the budgets of hosts.
    fn budgets(&self) -> KeyedBudgetsBuilder<Host, InTimed<W>> {
        let budgets = KeyedBudgets::builder(self.host.clone());
        match self.max_hosts {
            Some(hosts) => budgets.max_keys(hosts),
            None => budgets,
        }
    }
}

/// The layer, and its handles.
#[derive(Debug)]
pub struct Resent<L> {
    pub(super) layer: L,
    pub(super) retry: RetryHandle,
    pub(super) hedge: Option<HedgeHandle>,
    pub(super) budgets: BudgetsHandle<Host>,
}

impl<P, W: Clone> Resend<P, W> for Retrying {
    type Layer = Retries<P, W>;

    const RETRIES: bool = true;

    fn layer(self, of: Resending<P, W>) -> Result<Resent<Self::Layer>, ConfigError> {
        let budgets = of.budgets().build()?;
        let budgets = match (of.one_peer, of.retry.has_own_budget()) {
            (true, _) => KeyedBudgets::off(of.host),
            (false, true) => budgets,
            // Each call's host is known, so its circuit can be checked.
            (false, false) => budgets.keys_alone(),
        };
        let handle = budgets.handle();
        let builder = named(of.retry, of.name, RetryBuilder::name);
        let layer = builder
            .protocol(of.protocol)
            .budget_per(budgets)
            .stop_while_open(of.circuits)
            .build()?;
        Ok(Resent {
            retry: layer.handle(),
            hedge: None,
            budgets: handle,
            layer,
        })
    }
}

impl<P, W: Clone> Resend<P, W> for Hedging {
    type Layer = Hedges<P, W>;

    const RETRIES: bool = false;
    const HEDGES: bool = true;

    fn layer(self, of: Resending<P, W>) -> Result<Resent<Self::Layer>, ConfigError> {
        let budgets = match (of.one_peer, self.0.own_budgets()) {
            (false, Some(each)) => of.budgets().each(each).build()?,
            _ => KeyedBudgets::off(of.host),
        };
        let handle = budgets.handle();
        let layer = named(self.0, of.name, HedgeBuilder::name)
            .protocol(of.protocol)
            .budget_per(budgets)
            .build()?;
        Ok(Resent {
            retry: none()?,
            hedge: Some(layer.handle()),
            budgets: handle,
            layer,
        })
    }

    fn set_hedge(&mut self, hedge: HedgeBuilder) -> Result<(), ConfigError> {
        self.0 = hedge;
        Ok(())
    }

    fn delay(&self) -> Option<Duration> {
        self.0.least_delay()
    }
}

impl<P, W> Resend<P, W> for SendingOnce {
    type Layer = Once;

    const RETRIES: bool = false;

    fn layer(self, of: Resending<P, W>) -> Result<Resent<Once>, ConfigError> {
        Ok(Resent {
            layer: Identity::new(),
            retry: none()?,
            hedge: None,
            budgets: KeyedBudgets::off(of.host).handle(),
        })
    }
}

/// Returns the handle of retries that no call uses.
fn none() -> Result<RetryHandle, ConfigError> {
    let protocol = crate::protocol::Plain::new();
    let retry = RetryLayer::builder().enabled(false).protocol(protocol);
    Ok(retry.build()?.handle())
}
