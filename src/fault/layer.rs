//! The layer and its builder.

use std::{fmt, marker::PhantomData, sync::Arc};

use tower::Layer;

use crate::{
    ConfigError, Name,
    ambient::chance,
    fault::{
        Fault, FaultHandle, FaultPolicy, Faulty,
        effect::Effect,
        fate,
        inject::FaultProtocol,
        kind::Kind,
        rules::Rule,
        schedule::{self, Timeline},
        state::{LAYER, Planned, State},
    },
    observe::register,
    protocol::{Choice, Chosen, Unset},
    sync::Striped,
};

/// A layer that injects faults while it is [started](FaultHandle::start_for). All services it
/// makes, and all their clones, share its state.
pub struct FaultLayer<F, P> {
    rules: Arc<F>,
    state: Striped<State>,
    protocol: PhantomData<fn() -> P>,
}

/// Settings of a [`FaultLayer`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct FaultBuilder<F = (), P = Unset> {
    reason: &'static str,
    rules: F,
    faults: Vec<Given>,
    name: Option<&'static str>,
    policy: FaultPolicy,
    seed: Option<u64>,
    protocol: P,
}

/// A fault before it is built.
#[derive(Debug)]
struct Given {
    name: Option<&'static str>,
    kind: Result<Kind, ConfigError>,
    timeline: Timeline,
    peer_shares: Vec<f64>,
}

impl FaultLayer<(), Unset> {
    /// Starts without faults. The reason explains the faults to readers of logs, metrics and marks:
    /// "game day, 12 March", for example.
    pub fn builder(reason: impl Into<Name>) -> FaultBuilder {
        FaultBuilder {
            reason: reason.into().as_str(),
            rules: (),
            faults: Vec::new(),
            name: None,
            policy: FaultPolicy::default(),
            seed: None,
            protocol: Unset,
        }
    }
}

impl<F, P> FaultLayer<F, P> {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> FaultHandle {
        FaultHandle::new(self.state.clone())
    }
}

impl<F, P> FaultBuilder<F, P> {
    /// Adds a fault. Several may apply to a call, in the order in which they are added. Waits add
    /// up, and the first fault that answers, hangs or panics is the last.
    pub fn fault<E: Effect, W>(mut self, fault: Fault<E, W>) -> FaultBuilder<(F, Rule<E, W>), P> {
        self.faults.push(Given {
            name: fault.name,
            kind: fault.effect.kind(),
            timeline: fault.timeline,
            peer_shares: fault.peer_shares,
        });
        let rule = Rule {
            effect: fault.effect,
            condition: fault.condition,
        };
        FaultBuilder {
            reason: self.reason,
            rules: (self.rules, rule),
            faults: self.faults,
            name: self.name,
            policy: self.policy,
            seed: self.seed,
            protocol: self.protocol,
        }
    }

    /// Sets how faults are returned. No default: with [`Plain`](crate::protocol::Plain) there is no
    /// status.
    pub fn protocol<Q>(self, protocol: Q) -> FaultBuilder<F, Chosen<Q>> {
        FaultBuilder {
            reason: self.reason,
            rules: self.rules,
            faults: self.faults,
            name: self.name,
            policy: self.policy,
            seed: self.seed,
            protocol: Chosen(protocol),
        }
    }

    /// Names this instance in marks and events, and registers it in the
    /// [`Registry`](crate::observe::Registry). Without a name it has no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into().as_str());
        self
    }

    /// Sets the seed of all fates: the same seed, faults and requests have the same fates. Default:
    /// drawn at random by `build`.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Limits how many calls are affected at the same time. More are spared, and counted. A call is
    /// affected until its fault is over: a hang until its caller gives up, a broken body until it
    /// is dropped. Default 100, so that a fault that hangs does not take all of a process's memory.
    pub fn max_active(mut self, calls: usize) -> Self {
        self.policy.max_active = calls;
        self
    }

    /// Sets shadow mode. If `true`, it injects nothing, and counts what it would inject. Default
    /// `false`.
    pub fn shadow(mut self, shadow: bool) -> Self {
        self.policy.shadow = shadow;
        self
    }

    /// Sets whether faults can run. If `false`, it injects nothing and cannot be started, with the
    /// same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.policy.enabled = enabled;
        self
    }

    /// Sets all switches at once.
    pub fn policy(mut self, policy: FaultPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Builds the layer, which is off until its handle starts it.
    ///
    /// # Errors
    /// No reason, no fault, or a fault that the protocol does not support. A share that is not
    /// between 0 and 1, times that are never reached, or a `max_active` of 0.
    pub fn build(self) -> Result<FaultLayer<F, P::Protocol>, ConfigError>
    where
        P: Choice<Protocol: FaultProtocol>,
    {
        let name = self.name;
        let state = self.checked().map_err(|error| error.of(LAYER, name))?;
        let state = Striped::new(state);
        register(state.value());
        Ok(FaultLayer {
            rules: Arc::new(self.rules),
            state,
            protocol: PhantomData,
        })
    }

    fn checked(&self) -> Result<State, ConfigError>
    where
        P: Choice<Protocol: FaultProtocol>,
    {
        if self.reason.trim().is_empty() {
            let fix = "say why, for those that find the faults in a log";
            return Err(ConfigError::new("reason", self.reason, fix));
        }
        if self.faults.is_empty() {
            let fix = "add one with `.fault(..)`";
            return Err(ConfigError::new("faults", 0, fix));
        }
        let policy = self.policy.checked()?;
        let seed = self.seed.unwrap_or_else(chance::word);
        let mut planned: Vec<Planned> = Vec::new();
        for given in &self.faults {
            let kind = given.kind.clone()?;
            P::Protocol::supports(&kind)
                .map_err(|fix| ConfigError::new("fault", kind.name(), fix))?;
            for share in &given.peer_shares {
                schedule::share(*share)?;
            }
            let schedule = given.timeline.clone().checked()?;
            let name = given.name.unwrap_or(kind.name());
            let place = planned.iter().filter(|fault| fault.name == name).count();
            let seed = fate::of_fault(seed, name, place);
            planned.push(Planned::new(name, kind, schedule, seed));
        }
        Ok(State::new(self.reason, self.name, policy, planned))
    }
}

impl<F, P> Clone for FaultLayer<F, P> {
    fn clone(&self) -> Self {
        Self {
            rules: self.rules.clone(),
            state: self.state.clone(),
            protocol: PhantomData,
        }
    }
}

impl<S, F, P> Layer<S> for FaultLayer<F, P> {
    type Service = Faulty<S, F, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Faulty::new(inner, self.rules.clone(), self.state.clone())
    }
}

impl<F, P> fmt::Debug for FaultLayer<F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultLayer")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
