//! The build of a client's stack.

use std::{marker::PhantomData, time::Duration};

use tower::layer::util::Identity;

use super::{BuiltClient, ClientBuilder, Parts, Settings};
use crate::{
    ConfigError,
    circuit_breaker::CircuitBreakerBuilder,
    drain::Drain,
    gate::{Chain, Gate, GateLayer},
    keyed::{HasKey, Host, KeySettings},
    stack::{
        ClientStack,
        check::{Times, fits_all_hosts},
        client::Known,
        defaults::{allow_slow_probes, attempt_within},
        handle::Enabled,
        parts::{Beside, ClientBulkheadPart, FallbackPart, LimitPart, named},
        resend::{Resend, Resending},
        timed::{InTimed, WithDeadline},
        updating::Updating,
    },
    throttle::ThrottleBuilder,
    timeout::{TimeoutBuilder, TimeoutLayer},
};

/// The stack of a builder with these parts.
type Built<P, W, R, L, B, X, F> = Result<BuiltClient<P, W, R, L, B, X, F>, ConfigError>;

impl Settings {
    /// Returns the times that depend on each other. `delay` is that of a hedge. `retries` is true
    /// if calls are retried.
    fn times(&self, delay: Option<Duration>, retries: bool) -> Times {
        let window = self.breaker.builder.window_of_time();
        let (hint, backoff) = self.retry.waits();
        let retries = retries && self.retry.is_enabled();
        Times {
            total: self.total.enabled.then(|| self.total.builder.limit()),
            attempt: self.attempt.enabled.then(|| self.attempt.builder.limit()),
            window: window.filter(|_| self.breaker.enabled),
            max_retry_after: retries.then_some(hint),
            backoff: backoff.filter(|_| retries),
            delay,
        }
    }

    fn enabled(&self, retries: bool) -> Enabled {
        Enabled {
            total: self.total.enabled,
            retry: retries && self.retry.is_enabled(),
            breaker: self.breaker.enabled,
            bulkhead: self.calls.is_there(),
            attempt: self.attempt.enabled,
            attempt_follows: self.attempt_follows,
            one_peer: self.one_peer,
        }
    }
}

impl<P, W, R, L, B, X, F> ClientBuilder<P, W, Parts<R, L, B, X, F>>
where
    P: Clone,
    W: HasKey<Key = Host> + Default + Clone,
    R: Resend<P, W>,
    L: LimitPart,
    B: ClientBulkheadPart<W, Gate: Gate>,
    X: Beside,
    F: FallbackPart<P>,
{
    /// Builds the stack. Checks all settings, also those of one part against another's.
    ///
    /// # Errors
    /// A setting that a part rejects. A total timeout below the attempt's. A circuit breaker's
    /// window below twice the attempt's timeout. A longest `Retry-After` above the total timeout. A
    /// base of the backoff, or a hedge's delay, that is not below the total timeout.
    pub fn build(self) -> Built<P, W, R, L, B, X, F> {
        let Self {
            mut settings,
            protocol,
            parts,
            ..
        } = self;
        let name = settings.name;
        // Only if not set: a longer wait would only end in the total timeout.
        if settings.total.enabled {
            let total = settings.total.builder.limit();
            settings.retry = settings.retry.cap_retry_after(total);
            if settings.attempt_follows {
                let attempt = attempt_within(total);
                settings.attempt.builder = TimeoutLayer::builder(attempt);
            }
        }
        let times = settings.times(parts.resend.delay(), R::RETRIES);
        times.check().map_err(|error| error.of("stack", name))?;
        let enabled = settings.enabled(R::RETRIES);
        let Settings {
            total,
            retry,
            mut breaker,
            throttle,
            rate,
            calls,
            attempt,
            hosts,
            one_peer,
            is_balanced,
            ..
        } = settings;
        let max_hosts = hosts.keys.max_keys;
        let calls = calls.or_half_of(rate.rate.zip(times.attempt), rate.burst());
        let host = W::default();
        let has_backpressure = breaker.builder.backpressure_or(is_balanced) && breaker.enabled;
        let longest = times.attempt.or(times.total);
        let breaker = named(breaker.builder, name, CircuitBreakerBuilder::name)
            .with_config(|config| allow_slow_probes(config, [None, longest]))
            .enabled(breaker.enabled)
            .key_settings(KeySettings {
                all_share: one_peer,
                ..hosts.keys
            })
            .with_key(hosts.by(host.clone()))
            .gate()?;
        let throttle = throttle.map(|throttle| {
            let throttle = named(throttle, name, ThrottleBuilder::name);
            let throttle = throttle.key_settings(hosts.keys);
            throttle.with_key(hosts.by(host.clone())).gate()
        });
        let throttle = throttle.transpose()?;
        if !one_peer {
            fits_all_hosts(parts.limit.closed_for_all(), name)?;
        }
        let limit = parts.limit.limit(rate, name)?;
        let bulkhead = parts
            .bulkhead
            .places(calls.of_hosts(hosts), host.clone(), name)?;
        let bulkhead = parts.trial.beside(bulkhead);
        let layered = WithDeadline::new(protocol.clone());
        let resent = parts.resend.layer(Resending {
            protocol: layered.clone(),
            retry,
            host: InTimed(host),
            one_peer,
            max_hosts,
            circuits: breaker.handle(),
            name,
        })?;
        let drain = Drain::new(name);
        let gates = Chain::new(breaker, Chain::new(throttle, Chain::new(limit, bulkhead)));
        let (fallback, answers) = parts.fallback.layer(&protocol, name)?;
        Ok(ClientStack {
            total: named(total.builder, name, TimeoutBuilder::name)
                .enabled(total.enabled)
                .total(true)
                .in_stack()
                .passes_backpressure(has_backpressure)
                .protocol(layered.clone())
                .build_drained(drain.clone())
                .map_err(|error| error.renamed("duration", "total_timeout"))?,
            resend: resent.layer,
            gates: GateLayer::with_protocol(InTimed(gates), layered.clone()),
            attempt: named(attempt.builder, name, TimeoutBuilder::name)
                .enabled(attempt.enabled)
                .in_stack()
                .protocol(layered)
                .build()
                .map_err(|error| error.renamed("duration", "attempt_timeout"))?,
            audit: Identity::new(),
            fallback,
            protocol,
            known: Known {
                retry: resent.retry,
                hedge: resent.hedge,
                budgets: resent.budgets,
                fallback: answers,
                drain,
                name,
                updating: Updating::default(),
                enabled,
            },
            by: PhantomData,
        })
    }
}
