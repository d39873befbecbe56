//! The builder.

use std::time::Duration;

use crate::{
    ConfigError, Name,
    algorithm::throttle::{Throttle, ThrottleConfig},
    gate::GateLayer,
    observe::register,
    protocol::{Choice, Chosen, Unset},
    striped::stripe_count,
    throttle::{ThrottleGate, ThrottleHandle, ThrottleLayer},
};

/// Settings of a [`ThrottleLayer`], in any order. What each means, and its default's reason, is
/// told at [`ThrottleConfig`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct ThrottleBuilder<P = Unset> {
    config: ThrottleConfig,
    enabled: bool,
    name: Option<&'static str>,
    protocol: P,
}

impl ThrottleLayer {
    /// Sends at most twice what was accepted in the last two minutes, once there were 20 calls, and
    /// never less than one call in twenty.
    pub fn builder() -> ThrottleBuilder {
        ThrottleBuilder {
            config: ThrottleConfig::default(),
            enabled: true,
            name: None,
            protocol: Unset,
        }
    }
}

impl<P> ThrottleLayer<P> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> ThrottleHandle {
        self.gate().handle()
    }
}

impl<P> ThrottleBuilder<P> {
    /// All settings of the algorithm at once, in place of those made so far.
    pub fn config(mut self, config: ThrottleConfig) -> Self {
        self.config = config;
        self
    }

    /// How many times as much as it accepts the upstream is sent. Default 2.
    pub fn multiplier(mut self, multiplier: f64) -> Self {
        self.config.multiplier = multiplier;
        self
    }

    /// How far back calls count. Default 2 minutes.
    pub fn window(mut self, window: Duration) -> Self {
        self.config.window = window;
        self
    }

    /// How many calls the window must hold before any is rejected. Default 20.
    pub fn min_calls(mut self, calls: u32) -> Self {
        self.config.min_calls = calls;
        self
    }

    /// The highest probability of a rejection. Default 0.95.
    pub fn max_rejection(mut self, probability: f64) -> Self {
        self.config.max_rejection = probability;
        self
    }

    /// `false` lets everything through, with the same type, and counts nothing. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Names this instance in errors.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into().as_str());
        self
    }

    /// How results are classified and rejections travel. No default: before HTTP,
    /// [`Plain`](crate::protocol::Plain) would count every 503 as accepted.
    pub fn protocol<Q>(self, protocol: Q) -> ThrottleBuilder<Chosen<Q>> {
        let Self {
            config,
            enabled,
            name,
            ..
        } = self;
        ThrottleBuilder {
            config,
            enabled,
            name,
            protocol: Chosen(protocol),
        }
    }

    /// Starts with an empty window.
    ///
    /// # Errors
    /// A setting outside the range that [`Throttle::new`] gives for it.
    pub fn build(self) -> Result<ThrottleLayer<P::Protocol>, ConfigError>
    where
        P: Choice,
    {
        let gate = self.made()?;
        Ok(GateLayer::with_protocol(gate, self.protocol.protocol()))
    }

    fn made(&self) -> Result<ThrottleGate, ConfigError> {
        let throttle = Throttle::new(self.config, stripe_count());
        let throttle = throttle.map_err(|error| error.of("throttle", self.name))?;
        let gate = ThrottleGate::new(throttle, self.enabled, self.name);
        register(&gate.state);
        Ok(gate)
    }
}

impl ThrottleBuilder {
    /// A gate, to stand with others in [one layer](GateLayer::new), which has the protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<ThrottleGate, ConfigError> {
        self.made()
    }
}
