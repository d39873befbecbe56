//! The builder, and what becomes of it.

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
    keyed::{ByKey, KeyFn, KeySettings, NotKeyed},
    observe::register,
    protocol::{Choice, Chosen, Unset},
    sync::stripe_count,
};

/// Settings of a [`CircuitBreakerLayer`]. What each means, and its default's reason, is told at
/// [`BreakerConfig`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct CircuitBreakerBuilder<K = NotKeyed, P = Unset> {
    pub(super) values: CircuitBreakerValues,
    pub(super) key: K,
    pub(super) protocol: P,
}

/// The settings that no type parameter of the builder depends on.
#[derive(Debug, Clone)]
pub(super) struct CircuitBreakerValues {
    pub(super) config: BreakerConfig,
    pub(super) settings: Settings,
    pub(super) keys: KeySettings,
}

impl CircuitBreakerLayer {
    /// Opens at 50 % failures among at least 20 calls of the last 10 s, for 30 s; then three probes
    /// decide.
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
    /// All settings of the algorithm at once, in place of those made so far.
    pub fn config(mut self, config: BreakerConfig) -> Self {
        self.values.config = config;
        self
    }

    /// The share of failures that opens the circuit; `None` for no share. Default 0.5.
    pub fn failure_rate(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.values.config.failure_rate = rate.into();
        self
    }

    /// A call that takes `after` is slow, and so large a share of slow calls opens the circuit.
    /// Default: none is slow. Take what [no caller waits for](crate::guide::choosing), not less.
    pub fn slow_calls(mut self, after: Duration, rate: f64) -> Self {
        self.values.config.slow_calls = Some(SlowCalls { after, rate });
        self
    }

    /// How many failures in a row open the circuit, however few calls there were. Default: any
    /// number.
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.values.config.consecutive_failures = Some(failures);
        self
    }

    /// A call that is dropped unfinished has failed. Default: it counts for nothing, or, if it was
    /// slow, as a slow one; but a window of dropped calls alone opens the circuit.
    pub fn cancelled_as_failure(mut self) -> Self {
        self.values.config.cancelled_as_failure = true;
        self
    }

    /// The last so many calls count, however long ago they were. Default: those of the last 10 s.
    pub fn window_of_calls(mut self, calls: u32) -> Self {
        self.values.config.window = Window::Calls(calls);
        self
    }

    /// How far back calls count. Default 10 s.
    pub fn window(mut self, window: Duration) -> Self {
        self.values.config.window = Window::Time(window);
        self
    }

    /// How many calls the window must hold before it is judged. Default 20.
    pub fn min_calls(mut self, calls: u32) -> Self {
        self.values.config.min_calls = calls;
        self
    }

    /// How long the circuit stays open before it probes. Default 30 s.
    pub fn open_for(mut self, duration: Duration) -> Self {
        self.values.config.open_for = duration;
        self
    }

    /// The open time doubles each time, with jitter, from [`open_for`](Self::open_for) to
    /// `longest`, until the circuit has stayed closed for a whole window. Default: it does not
    /// grow.
    pub fn growing_to(mut self, longest: Duration) -> Self {
        self.values.config.growing = true;
        self.max_open(longest)
    }

    /// Whether open times differ from circuit to circuit, so that a fleet does not probe in step:
    /// up to a tenth more, or the upper half of a growing one. Default `true`.
    pub fn jitter(mut self, jitter: bool) -> Self {
        self.values.config.jitter = jitter;
        self
    }

    /// The longest the circuit stays open because the peer asks for it (`Retry-After`). Default ten
    /// times `open_for`.
    pub fn max_open(mut self, longest: Duration) -> Self {
        self.values.config.max_open = Some(longest);
        self
    }

    /// After the probes have closed it the circuit lets a growing share through, and all after so
    /// long. Default: at once.
    pub fn ramp(mut self, ramp: Duration) -> Self {
        self.values.config.ramp = ramp;
        self
    }

    /// How many calls half-open lets through. Default 3.
    pub fn probes(mut self, probes: u16) -> Self {
        self.values.config.probes = probes;
        self
    }

    /// How the probes are judged. Default [`Verdict::Rate`].
    pub fn verdict(mut self, verdict: Verdict) -> Self {
        self.values.config.verdict = verdict;
        self
    }

    /// How long all the probes may stay out before the circuit opens again. Default: as long as it
    /// stays open.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.values.config.lease = Some(lease);
        self
    }

    /// For load balancers: `poll_ready` is pending while the circuit refuses, so that they turn to
    /// another peer. Default, but in a stack of one peer: ready, and the call is rejected.
    pub fn backpressure(mut self) -> Self {
        self.values.settings.backpressure = Some(true);
        self
    }

    /// Stays ready and rejects the call: for a stack of one peer without a load balancer above it.
    pub fn without_backpressure(mut self) -> Self {
        self.values.settings.backpressure = Some(false);
        self
    }

    /// Whether the process can do nothing while the circuit is open, so that it is not ready then:
    /// see [`Registry::health`](crate::observe::Registry::health). It needs a
    /// [name](Self::name). Default `false`.
    pub fn critical(mut self, critical: bool) -> Self {
        self.values.settings.critical = critical;
        self
    }

    /// Turns backpressure on or off, unless either was said. Returns whether there is any.
    #[cfg(feature = "http")]
    pub(crate) fn backpressure_or(&mut self, backpressure: bool) -> bool {
        let settings = &mut self.values.settings;
        *settings.backpressure.get_or_insert(backpressure)
    }

    /// `false` lets everything through, with the same type, and counts nothing. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.values.settings.enabled = enabled;
        self
    }

    /// Says whether the key is one that no request has, so that there is one circuit.
    #[cfg(feature = "http")]
    pub(crate) fn all_share(mut self, all_share: bool) -> Self {
        self.values.keys.all_share = all_share;
        self
    }

    /// Names this instance in errors and events, and makes it known to the
    /// [`Registry`](crate::observe::Registry): without a name it has no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.values.settings.name = Some(name.into().as_str());
        self
    }

    /// How many keys have a circuit of their own, if [a key](Self::keyed_by) is set. Default 1024,
    /// some 4 MiB.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.values.keys.max_keys = Some(keys);
        self
    }

    /// What becomes of new keys when there are more than that. Default [`Overflow::Shared`]: they
    /// share one circuit.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.values.keys.overflow = Some(overflow);
        self
    }

    /// Makes each key a label `key` of the gauges in metrics, if [a key](Self::keyed_by) is set and
    /// keys are few: up to so many, from 1 to 256. Those that come later share the label `other`,
    /// also when the first are gone. The label is the text that `show_keys` gives, or the hash.
    /// Default: none, so that ten thousand keys are no more series than one.
    pub fn label_keys(mut self, max: usize) -> Self {
        self.values.keys.label_keys = Some(max);
        self
    }

    /// Labels for so many keys, unless that was set already.
    #[cfg(feature = "http")]
    pub(crate) fn labelled(mut self, max: Option<usize>) -> Self {
        self.values.keys.label_keys = self.values.keys.label_keys.or(max);
        self
    }

    /// What becomes of requests without a key. Default [`Missing::Share`]: they share the circuit
    /// of the keys that overflow.
    pub fn missing(mut self, missing: Missing) -> Self {
        self.values.keys.missing = Some(missing);
        self
    }

    /// How results are classified and rejections travel. No default: before HTTP,
    /// [`Plain`](crate::protocol::Plain) would count every 503 as a success.
    pub fn protocol<Q>(self, protocol: Q) -> CircuitBreakerBuilder<K, Chosen<Q>> {
        CircuitBreakerBuilder {
            values: self.values,
            key: self.key,
            protocol: Chosen(protocol),
        }
    }

    /// A circuit for each key, such as a host, a route or a tenant, instead of one for all: a
    /// closure `Fn(&Req) -> Option<K>` finds it.
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

    /// How far back calls count, if they count by time.
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

impl<P> CircuitBreakerBuilder<NotKeyed, P> {
    /// Starts closed.
    ///
    /// # Errors
    /// A setting outside the range that [`BreakerConfig`] gives for it, or one that needs a key.
    pub fn build(self) -> Result<CircuitBreakerLayer<P::Protocol>, ConfigError>
    where
        P: Choice,
    {
        let gate = self.made()?;
        Ok(GateLayer::with_protocol(gate, self.protocol.protocol()))
    }

    fn made(&self) -> Result<CircuitGate, ConfigError> {
        self.values
            .keys
            .unset()
            .map_err(|error| self.error(error))?;
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
    /// A gate, to stand with others in [one layer](GateLayer::new), which has the protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<CircuitGate, ConfigError> {
        self.made()
    }
}
