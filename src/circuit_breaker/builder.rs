//! The builder.

use std::{hash::Hash, sync::Arc, time::Duration};

use crate::{
    ConfigError, Name,
    algorithm::{Breaker, BreakerConfig, Overflow, SlowCalls, Verdict, Window},
    ambient::chance,
    circuit_breaker::{
        CircuitBreakerHandle, CircuitBreakerLayer, CircuitGate, Missing, all::AllCircuits,
        changes::in_force, state::Settings,
    },
    gate::{Controlled, GateLayer},
    keyed::{ByKey, KeyFn, KeyIsSet, KeySettings, NotKeyed},
    observe::register,
    protocol::{Choice, Chosen, Unset},
    sync::stripe_count,
};

/// A builder of a [`CircuitBreakerLayer`]. [`BreakerConfig`] explains each setting, and the reason
/// for its default.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct CircuitBreakerBuilder<K = NotKeyed, P = Unset> {
    pub(super) values: CircuitBreakerValues,
    pub(super) key: K,
    pub(super) protocol: P,
}

/// The settings that do not depend on the builder's type parameters.
#[derive(Debug, Clone)]
pub(super) struct CircuitBreakerValues {
    pub(super) config: BreakerConfig,
    pub(super) settings: Settings,
    pub(super) keys: KeySettings,
}

impl CircuitBreakerLayer {
    /// Creates a builder with the defaults. The circuit opens for 30 s, at 50 % failures among at
    /// least 20 calls of the last 10 s. Then three probes decide.
    pub fn builder() -> CircuitBreakerBuilder {
        CircuitBreakerBuilder {
            values: CircuitBreakerValues {
                config: BreakerConfig::default(),
                settings: Settings {
                    name: None,
                    backpressure: None,
                    critical: false,
                    enabled: true,
                },
                keys: KeySettings::default(),
            },
            key: NotKeyed,
            protocol: Unset,
        }
    }
}

impl Controlled for CircuitGate {
    type Handle = CircuitBreakerHandle;

    fn control(&self) -> CircuitBreakerHandle {
        self.handle()
    }
}

impl<K, P> CircuitBreakerBuilder<K, P> {
    /// Sets all settings of the algorithm at once. Replaces those made so far.
    pub fn config(mut self, config: BreakerConfig) -> Self {
        self.values.config = config;
        self
    }

    /// Sets the failure rate that opens the circuit. `None` turns this condition off. Default 0.5.
    pub fn failure_rate(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.values.config.failure_rate = rate.into();
        self
    }

    /// Opens the circuit at this rate of slow calls, which take `after` or longer. Default: no call
    /// is slow. Set a time that [no caller waits for](crate::guide::choosing), not less.
    pub fn slow_calls(mut self, after: Duration, rate: f64) -> Self {
        self.values.config.slow_calls = Some(SlowCalls { after, rate });
        self
    }

    /// Opens the circuit after this many failures in a row, however few calls there were. Default:
    /// off.
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.values.config.consecutive_failures = Some(failures);
        self
    }

    /// Counts a call that is dropped unfinished as a failure. Default: it is not counted, or counts
    /// as slow if it was slow already. A window of dropped calls alone still opens the circuit.
    pub fn cancelled_as_failure(mut self) -> Self {
        self.values.config.cancelled_as_failure = true;
        self
    }

    /// Judges the last `calls` calls, however long ago they were. Default: those of the last 10 s.
    pub fn window_of_calls(mut self, calls: u32) -> Self {
        self.values.config.window = Window::Calls(calls);
        self
    }

    /// Sets the length of the time window. Default 10 s.
    pub fn window(mut self, window: Duration) -> Self {
        self.values.config.window = Window::Time(window);
        self
    }

    /// Sets how many calls the window must hold before it is judged. Default 20.
    pub fn min_calls(mut self, calls: u32) -> Self {
        self.values.config.min_calls = calls;
        self
    }

    /// Sets how long the circuit stays open before it probes. Default 30 s.
    pub fn open_for(mut self, duration: Duration) -> Self {
        self.values.config.open_for = duration;
        self
    }

    /// Doubles the open time each time, with jitter, from [`open_for`](Self::open_for) to
    /// `longest`. It starts over once the circuit has stayed closed for a whole window. Default:
    /// the open time does not grow.
    pub fn growing_to(mut self, longest: Duration) -> Self {
        self.values.config.growing = true;
        self.max_open(longest)
    }

    /// Sets whether open times differ from circuit to circuit, so that a fleet does not probe in
    /// step. The jitter is up to a tenth more, or for a growing time the upper half of it. Default
    /// `true`.
    pub fn jitter(mut self, jitter: bool) -> Self {
        self.values.config.jitter = jitter;
        self
    }

    /// Sets the maximum time that the circuit stays open because the upstream asks for it
    /// (`Retry-After`). Default ten times `open_for`.
    pub fn max_open(mut self, longest: Duration) -> Self {
        self.values.config.max_open = Some(longest);
        self
    }

    /// Admits a growing fraction of calls after the probes have closed the circuit, and all calls
    /// after `ramp`. Default: all calls at once.
    pub fn ramp(mut self, ramp: Duration) -> Self {
        self.values.config.ramp = ramp;
        self
    }

    /// Sets how many calls half-open admits. Default 3.
    pub fn probes(mut self, probes: u16) -> Self {
        self.values.config.probes = probes;
        self
    }

    /// Sets how the probes are judged. Default [`Verdict::Rate`].
    pub fn verdict(mut self, verdict: Verdict) -> Self {
        self.values.config.verdict = verdict;
        self
    }

    /// Sets how long all the probes may be in flight before the circuit opens again: longer than
    /// the slowest good answer takes. Default: the open time. In a stack 5 s, or the attempt's
    /// timeout if that is longer.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.values.config.lease = Some(lease);
        self
    }

    /// Makes `poll_ready` pending while the circuit rejects calls, so that a load balancer picks
    /// another peer. Default, except in a stack of one peer: ready, and the call is rejected.
    pub fn backpressure(mut self) -> Self {
        self.values.settings.backpressure = Some(true);
        self
    }

    /// Keeps `poll_ready` ready and rejects the call, for a stack of one peer without a load
    /// balancer above it.
    pub fn without_backpressure(mut self) -> Self {
        self.values.settings.backpressure = Some(false);
        self
    }

    /// Sets whether the process can do nothing while the circuit is open. It is then reported as
    /// not ready: see [`Registry::health`](crate::observe::Registry::health). Requires a
    /// [name](Self::name). Default `false`.
    pub fn critical(mut self, critical: bool) -> Self {
        self.values.settings.critical = critical;
        self
    }

    /// Turns backpressure on or off, unless that was set already. Returns whether it is on.
    #[cfg(feature = "http")]
    pub(crate) fn backpressure_or(&mut self, backpressure: bool) -> bool {
        let settings = &mut self.values.settings;
        *settings.backpressure.get_or_insert(backpressure)
    }

    /// Changes the config, for what depends on other parts of a stack.
    #[cfg(feature = "http")]
    pub(crate) fn with_config(mut self, change: impl FnOnce(&mut BreakerConfig)) -> Self {
        change(&mut self.values.config);
        self
    }

    /// If `false`, lets everything through, with the same type, and counts nothing. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.values.settings.enabled = enabled;
        self
    }

    /// Names this instance in errors and events, and registers it in the
    /// [`Registry`](crate::observe::Registry). Without a name it has no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.values.settings.name = Some(name.into().as_str());
        self
    }

    /// Sets the settings of keys that are not set yet: a stack's, or a file's.
    #[cfg(any(feature = "http", feature = "serde"))]
    pub(crate) fn key_settings(mut self, keys: KeySettings) -> Self {
        self.values.keys.or(keys);
        self
    }

    /// Sets how results are classified and how rejections are returned. There is no default: before
    /// HTTP, [`Plain`](crate::protocol::Plain) would count every 503 as a success.
    pub fn protocol<Q>(self, protocol: Q) -> CircuitBreakerBuilder<K, Chosen<Q>> {
        CircuitBreakerBuilder {
            values: self.values,
            key: self.key,
            protocol: Chosen(protocol),
        }
    }

    /// Gives each key, such as a host, a route or a tenant, a circuit of its own. A closure
    /// `Fn(&Req) -> Option<K>` finds the key.
    pub fn keyed_by<Req, L, F>(self, key: F) -> CircuitBreakerBuilder<ByKey<KeyFn<F, Req>>, P>
    where
        F: Fn(&Req) -> Option<L>,
        L: Hash + Eq + Clone,
    {
        self.with_key(ByKey::new(KeyFn::new(key)))
    }

    pub(crate) fn with_key<L>(self, key: L) -> CircuitBreakerBuilder<L, P> {
        CircuitBreakerBuilder {
            values: self.values,
            key,
            protocol: self.protocol,
        }
    }

    /// Returns the length of the window, if it is one of time.
    #[cfg(feature = "http")]
    pub(crate) fn window_of_time(&self) -> Option<Duration> {
        match self.values.config.window {
            Window::Time(window) => Some(window),
            _ => None,
        }
    }

    pub(super) fn error(&self, error: ConfigError) -> ConfigError {
        error.of("circuit_breaker", self.values.settings.name)
    }
}

impl<K: KeyIsSet, P> CircuitBreakerBuilder<K, P> {
    /// Sets how many keys have a circuit of their own. Default 1024, some 4 MiB.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.values.keys.max_keys = Some(keys);
        self
    }

    /// Sets what happens to new keys beyond that number. Default [`Overflow::Shared`]: they share
    /// one circuit.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.values.keys.overflow = Some(overflow);
        self
    }

    /// Sets what happens to requests without a key. Default [`Missing::Share`]: they share the
    /// circuit of the keys that overflow.
    pub fn missing(mut self, missing: Missing) -> Self {
        self.values.keys.missing = Some(missing);
        self
    }

    /// Makes each key a label `key` of the gauges in metrics. For few keys: the first `max` keys,
    /// from 1 to 256, get a label. Later keys share the label `other`, also when the first are
    /// gone. The label is the text that `show_keys` returns, or the hash. Default: no labels, so
    /// that ten thousand keys are no more series than one.
    pub fn label_keys(mut self, max: usize) -> Self {
        self.values.keys.label_keys = Some(max);
        self
    }
}

impl<P> CircuitBreakerBuilder<NotKeyed, P> {
    /// Builds the layer, with a closed circuit.
    ///
    /// # Errors
    /// A setting is outside the range that [`BreakerConfig`] gives for it, or needs a key. A
    /// [critical](Self::critical) circuit has no name.
    pub fn build(self) -> Result<CircuitBreakerLayer<P::Protocol>, ConfigError>
    where
        P: Choice,
    {
        let gate = self.made()?;
        Ok(GateLayer::with_protocol(gate, self.protocol.protocol()))
    }

    fn made(&self) -> Result<CircuitGate, ConfigError> {
        let unset = self.values.keys.unset();
        let checked = unset.and_then(|()| self.values.settings.check());
        checked.map_err(|error| self.error(error))?;
        let breaker = Breaker::new(
            &in_force(&self.values.config),
            stripe_count(),
            chance::word(),
        );
        let breaker = breaker.map_err(|error| self.error(error))?;
        let all = Arc::new(AllCircuits::new(
            self.values.config,
            self.values.settings.known(),
        ));
        register(&all);
        Ok(CircuitGate::single(
            breaker,
            self.values.config,
            self.values.settings,
            all,
        ))
    }
}

impl CircuitBreakerBuilder {
    /// Builds a gate, to be combined with others in [one layer](GateLayer::new), which has the
    /// protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<CircuitGate, ConfigError> {
        self.made()
    }
}
