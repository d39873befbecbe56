//! Mistakes of settings, each planted in a drill that shows it.

use std::sync::{Arc, Mutex};

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::Instant;
use tower::{Layer, util::Either};
use tower_keep::{
    drill::{Bursts, Drill, Lognormal, Pattern, Poisson, Servers, Trouble, ms, secs},
    observe::{Advice, BUCKETS, Registry},
    settings::ClientSettings,
    stack,
};

use crate::{shop, to_the_shop};

/// A stack with these settings, and the traffic that they do not fit.
pub(crate) struct Planted {
    pub(crate) toml: &'static str,
    pub(crate) traffic: Pattern,
    pub(crate) servers: Servers,
    /// From this second on.
    pub(crate) trouble: Option<(u64, Trouble)>,
    pub(crate) seconds: u64,
    /// If true, the stack hedges in place of retries.
    pub(crate) hedges: bool,
}

pub(crate) fn planted(toml: &'static str) -> Planted {
    Planted {
        toml,
        traffic: Poisson::per_second(50).into(),
        servers: shop(),
        trouble: None,
        seconds: 30,
        hedges: false,
    }
}

impl Planted {
    /// What the registry advises at the end.
    pub(crate) fn advice(self) -> Vec<Advice> {
        let said = Arc::new(Mutex::new(Vec::new()));
        let spoken = said.clone();
        // The last one counts.
        self.observed(move |registry| *spoken.lock().unwrap() = registry.advice());
        said.lock().unwrap().clone()
    }

    /// What Prometheus reads of it every 15 seconds.
    #[expect(clippy::disallowed_methods, reason = "a test may read the clock")]
    pub(crate) fn scraped(self) -> Vec<String> {
        let recorder = PrometheusBuilder::new().set_buckets(&BUCKETS).unwrap();
        let recorder = recorder.build_recorder();
        let scrapes = Arc::new(Mutex::new(Vec::new()));
        let (kept, handle) = (scrapes.clone(), recorder.handle());
        let next = Mutex::new(None);
        self.observed(move |registry| {
            let now = Instant::now();
            let mut next = next.lock().unwrap();
            while next.is_none_or(|next| next <= now) {
                metrics::with_local_recorder(&recorder, || registry.publish());
                kept.lock().unwrap().push(handle.render());
                *next = Some(next.unwrap_or(now) + secs(15));
            }
        });
        scrapes.lock().unwrap().clone()
    }

    /// Looks at the registry before every tenth call, in virtual time, where there is a stack.
    fn observed(self, look: impl Fn(&Registry) + Send + Sync + 'static) {
        let settings: ClientSettings = toml::from_str(self.toml).unwrap();
        let registry = Arc::new(Mutex::new(Registry::new()));
        let own = registry.clone();
        let mut drill = Drill::http(move |upstream| {
            let fresh = Registry::new();
            *own.lock().unwrap() = fresh.clone();
            fresh.with(|| {
                let client = stack::client().http();
                Ok(if self.hedges {
                    let stack = settings.apply_to(client.hedge(|hedge| hedge))?;
                    Either::Left(stack.name("shop").build()?.layer(upstream))
                } else {
                    let stack = settings.apply_to(client)?;
                    Either::Right(stack.name("shop").build()?.layer(upstream))
                })
            })
        })
        .patience(secs(20))
        .lasting(secs(self.seconds))
        .traffic(self.traffic, move |number| {
            let registry = registry.lock().unwrap().clone();
            if number % 10 == 0 && !registry.snapshot().is_empty() {
                look(&registry);
            }
            to_the_shop(number)
        })
        .upstream("shop", self.servers);
        if let Some((from, trouble)) = self.trouble {
            drill = drill.trouble(secs(from)..secs(self.seconds), "shop", trouble);
        }
        let _ = drill.seeds(0..1).run();
    }
}

/// Two calls are enough to judge, and one of eight fails.
pub(crate) fn a_window_of_few_calls() -> Planted {
    Planted {
        trouble: Some((0, Trouble::fails(0.12))),
        traffic: Poisson::per_second(0.8).into(),
        seconds: 600,
        ..planted(
            "retry = { attempts = 1 }\n\
             circuit_breaker = { min_calls = 2, consecutive_failures = 'off' }",
        )
    }
}

pub(crate) fn a_window_that_never_holds_enough() -> Planted {
    Planted {
        trouble: Some((5, Trouble::fails(0.9))),
        ..planted(
            "retry = { attempts = 1 }\n\
             circuit_breaker = { min_calls = 5000, consecutive_failures = 'off' }",
        )
    }
}

pub(crate) fn a_window_that_is_too_long() -> Planted {
    planted("circuit_breaker = { window = '10m' }")
}

pub(crate) fn slow_calls_that_are_usual() -> Planted {
    planted("circuit_breaker = { slow_calls = { after = '25ms', rate = '20%' } }")
}

pub(crate) fn a_bulkhead_that_is_too_small() -> Planted {
    planted("max_in_flight = 1\nretry = { attempts = 1 }")
}

pub(crate) fn a_bulkhead_full_of_calls_that_hang() -> Planted {
    Planted {
        trouble: Some((5, Trouble::hangs(1.0))),
        ..planted("max_in_flight = 4\nretry = { attempts = 1 }\ncircuit_breaker = 'off'")
    }
}

/// One worker of some 44 calls a second, and bursts.
pub(crate) fn a_bulkhead_that_lets_the_upstream_queue() -> Planted {
    Planted {
        servers: Servers::new(1)
            .service(Lognormal::median(ms(20)).sigma(0.1))
            .queue(1000),
        traffic: Bursts::of(30).into(),
        ..planted("max_in_flight = 1000\nretry = { attempts = 1 }")
    }
}

pub(crate) fn calls_that_wait_for_a_place() -> Planted {
    Planted {
        traffic: Poisson::per_second(100).into(),
        ..planted(
            "bulkhead = { limit = 3, max_wait = '5s', always_in_order = true }\n\
             retry = { attempts = 1 }",
        )
    }
}

pub(crate) fn hopeless_calls_that_empty_the_budget() -> Planted {
    Planted {
        trouble: Some((0, Trouble::fails(0.3))),
        ..planted("retry = { attempts = 6 }\ncircuit_breaker = 'off'")
    }
}

pub(crate) fn retries_that_are_load() -> Planted {
    Planted {
        trouble: Some((0, Trouble::fails(0.3))),
        ..planted("retry = { attempts = 6, budget = 'off' }\ncircuit_breaker = 'off'")
    }
}

pub(crate) fn a_burst_that_is_too_small() -> Planted {
    Planted {
        traffic: Bursts::of(20).into(),
        ..planted("rate = '100/s'\nburst = 5\nmax_in_flight = 1000\nretry = { attempts = 1 }")
    }
}

pub(crate) fn a_rate_below_what_comes() -> Planted {
    planted("rate = '20/s'\nmax_in_flight = 1000\nretry = { attempts = 1 }")
}

pub(crate) fn an_attempt_that_is_cut_too_soon() -> Planted {
    Planted {
        servers: Servers::new(100)
            .service(Lognormal::median(ms(60)).sigma(0.4))
            .queue(100),
        ..planted("attempt_timeout = '100ms'\nretry = { attempts = 1 }\ncircuit_breaker = 'off'")
    }
}

pub(crate) fn no_time_for_a_second_attempt() -> Planted {
    Planted {
        trouble: Some((5, Trouble::hangs(0.3))),
        ..planted("total_timeout = '1s'\nattempt_timeout = '900ms'\ncircuit_breaker = 'off'")
    }
}

/// Nearly all take 20 ms, so a second attempt after 10 ms comes too late to win.
pub(crate) fn a_hedge_that_is_sent_for_usual_calls() -> Planted {
    Planted {
        servers: Servers::new(100)
            .service(Lognormal::median(ms(20)).sigma(0.1))
            .queue(100),
        hedges: true,
        ..planted("hedge = { delay = '10ms', budget = 'off' }")
    }
}

/// Three of four calls succeed, as on any day.
pub(crate) fn a_throttle_that_rejects_too_soon() -> Planted {
    Planted {
        trouble: Some((0, Trouble::fails(0.25))),
        ..planted(
            "throttle = { multiplier = 1.1 }\nretry = { attempts = 1 }\ncircuit_breaker = 'off'",
        )
    }
}

pub(crate) fn an_upstream_that_hangs() -> Planted {
    Planted {
        trouble: Some((5, Trouble::hangs(1.0))),
        ..planted(
            "total_timeout = '500ms'\nattempt_timeout = 'off'\nretry = { attempts = 1 }\n\
             circuit_breaker = { slow_calls = 'off' }",
        )
    }
}
