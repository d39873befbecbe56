//! Every builder refuses what cannot work, and says whose setting it is, what it was, and what to
//! do.

use std::time::Duration;

use tower_keep::{
    ConfigError,
    algorithm::{Backoff, Jitter, RetryBudget, RetryThrottle, SlidingLog, WindowedBudget},
    budget::KeyedBudgets,
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    hedge::{HedgeBuilder, HedgeLayer},
    protocol::Plain,
    rate_limit::{Rate, RateLimitLayer},
    retry::RetryLayer,
    timeout::TimeoutLayer,
};

const SECOND: Duration = Duration::from_secs(1);

fn refusal<T>(result: Result<T, ConfigError>) -> String {
    let error = result.map(drop).unwrap_err();
    assert!(!error.fix.is_empty());
    format!(
        "{}{}={}",
        error
            .layer
            .map(|layer| format!("{layer}."))
            .unwrap_or_default(),
        error.field,
        error.value
    )
}

#[test]
fn the_error_names_layer_field_value_and_fix() {
    let error = BulkheadLayer::builder(0)
        .name("search")
        .build()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "bulkhead (search): `limit` is 0: allow at least 1 call at once"
    );
    let error = TimeoutLayer::builder(Duration::ZERO).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "timeout: `duration` is 0ns: give calls some time; 1s is a start"
    );
}

#[test]
fn zero_is_refused() {
    let breaker = || CircuitBreakerLayer::builder().protocol(Plain::new());
    assert_eq!(
        refusal(
            RateLimitLayer::builder(Rate::per_second(1))
                .burst(0)
                .build()
        ),
        "rate_limit.burst=0"
    );
    let limits = || RateLimitLayer::builder(Rate::per_second(1));
    assert_eq!(
        refusal(limits().max_waiting(9).build()),
        "rate_limit.max_waiting=9"
    );
    assert_eq!(
        refusal(limits().max_waiting(9).keyed_by(|_: &u32| Some(1)).build()),
        "rate_limit.max_waiting=9"
    );
    assert!(
        limits()
            .max_waiting(9)
            .max_wait(Duration::from_secs(1))
            .build()
            .is_ok()
    );
    assert!(
        limits()
            .max_waiting(9)
            .deadline(|_: &u32| None)
            .build()
            .is_ok()
    );
    let log = || SlidingLog::new(Rate::per_second(9)).unwrap();
    assert_eq!(
        refusal(RateLimitLayer::with(log()).burst(5).build()),
        "rate_limit.burst=5"
    );
    let raised = RateLimitLayer::with(log())
        .build()
        .unwrap()
        .handle()
        .set_rate(Rate::per_second(10), 10)
        .unwrap_err();
    assert!(
        raised.to_string().contains("lower it from there"),
        "{raised}"
    );
    assert!(
        refusal(RateLimitLayer::builder(Rate::per_second(0)).build())
            .starts_with("rate_limit.rate=")
    );
    assert!(
        refusal(RateLimitLayer::builder(Rate::new(1, Duration::ZERO)).build())
            .starts_with("rate_limit.rate=")
    );
    assert_eq!(
        refusal(BulkheadLayer::builder(0).build()),
        "bulkhead.limit=0"
    );
    assert_eq!(
        refusal(
            BulkheadLayer::builder(1)
                .build()
                .unwrap()
                .handle()
                .set_limit(0)
        ),
        "bulkhead.limit=0"
    );
    assert_eq!(
        refusal(TimeoutLayer::builder(Duration::ZERO).build()),
        "timeout.duration=0ns"
    );
    assert_eq!(
        refusal(
            RetryLayer::builder()
                .protocol(Plain::new())
                .attempts(0)
                .build()
        ),
        "retry.attempts=0"
    );
    assert_eq!(
        refusal(breaker().window(Duration::ZERO).build()),
        "circuit_breaker.window=0ns"
    );
    assert_eq!(
        refusal(breaker().open_for(Duration::ZERO).build()),
        "circuit_breaker.open_for=0ns"
    );
    assert_eq!(
        refusal(breaker().lease(Duration::ZERO).build()),
        "circuit_breaker.lease=0ns"
    );
    assert_eq!(
        refusal(breaker().min_calls(0).build()),
        "circuit_breaker.min_calls=0"
    );
    assert_eq!(
        refusal(breaker().probes(0).build()),
        "circuit_breaker.probes=0"
    );
    assert_eq!(refusal(RetryBudget::new(0, 0.1)), "budget=0");
    assert_eq!(refusal(Backoff::default().factor(0.5)), "factor=0.5");
}

#[test]
fn what_is_no_share_is_refused() {
    for share in [0.0, -0.5, 1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let refused = refusal(
            CircuitBreakerLayer::builder()
                .protocol(Plain::new())
                .failure_rate(share)
                .build(),
        );
        assert_eq!(refused, format!("circuit_breaker.failure_rate={share:?}"));
        assert_eq!(
            refusal(RetryBudget::new(10, share)),
            format!("ratio={share:?}")
        );
        assert!(
            refusal(Backoff::new(SECOND, 10 * SECOND, Jitter::PlusMinus(share)))
                .starts_with("jitter=")
        );
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    assert_eq!(
        refusal(Backoff::new(2 * SECOND, SECOND, Jitter::Full)),
        "max=1s"
    );
    assert!(refusal(Backoff::new(SECOND, SECOND, Jitter::Additive(SECOND))).starts_with("jitter="));
}

#[test]
fn retries_and_hedges_name_what_cannot_work() {
    let hedge = || HedgeLayer::builder().name("search");
    let plain = || Plain::new().idempotent();
    let built = |builder: HedgeBuilder| refusal(builder.protocol(plain()).build());
    assert_eq!(built(hedge().delay(Duration::ZERO)), "hedge.delay=0ns");
    let late = hedge().delay(2 * SECOND).timeout(SECOND);
    assert_eq!(built(late), "hedge.delay=2s");
    assert_eq!(built(hedge().max_hedges(0)), "hedge.max_hedges=0");
    for share in [0.0, -0.5, 1.0, 1.5, f64::NAN, f64::INFINITY] {
        let refused = built(hedge().quantile(share));
        assert_eq!(refused, format!("hedge.quantile={share:?}"));
    }
    let window = |ttl, ratio| refusal(WindowedBudget::new(ttl, ratio, 1));
    assert_eq!(window(Duration::ZERO, 0.1), "ttl=0ns");
    assert!(window(Duration::MAX, 0.1).starts_with("ttl="));
    assert_eq!(window(10 * SECOND, f64::NAN), "ratio=NaN");
    assert!(refusal(RetryThrottle::new(0, 0.1)).ends_with("=0"));
    assert_eq!(refusal(RetryThrottle::new(10, f64::NAN)), "ratio=NaN");
    let keys = KeyedBudgets::<u32, _>::builder(|key: &u32| Some(*key));
    assert_eq!(refusal(keys.clone().max_keys(0).build()), "max_keys=0");
    let twice = RetryLayer::builder()
        .protocol(plain())
        .budget_per(keys.build().unwrap())
        .without_budget();
    assert_eq!(refusal(twice.build()), "retry.budget=\"set\"");
}

#[tokio::test(start_paused = true)]
async fn the_largest_settings_are_refused_or_work() {
    use tower::{Layer, Service, ServiceExt, service_fn};

    async fn works<L>(layer: L)
    where
        L: Layer<
            tower::util::ServiceFn<fn(u32) -> std::future::Ready<Result<u32, std::io::Error>>>,
        >,
        L::Service: Service<u32, Response = u32, Error = tower::BoxError>,
    {
        let echo: fn(u32) -> _ = |n| std::future::ready(Ok(n));
        assert_eq!(
            layer
                .layer(service_fn(echo))
                .ready()
                .await
                .unwrap()
                .call(1)
                .await
                .unwrap(),
            1
        );
    }
    works(TimeoutLayer::builder(Duration::MAX).build().unwrap()).await;
    works(BulkheadLayer::builder(usize::MAX).build().unwrap()).await;
    works(
        RateLimitLayer::builder(Rate::per_second(u64::from(u32::MAX)))
            .build()
            .unwrap(),
    )
    .await;
    works(
        CircuitBreakerLayer::builder()
            .protocol(Plain::new())
            .min_calls(u32::MAX)
            .build()
            .unwrap(),
    )
    .await;

    let breaker = || CircuitBreakerLayer::builder().protocol(Plain::new());
    for refused in [
        breaker().window(Duration::MAX),
        breaker().open_for(Duration::MAX),
        breaker().lease(Duration::MAX),
    ] {
        refused.build().unwrap_err();
    }
    breaker().probes(u16::MAX).build().unwrap_err();
    RateLimitLayer::builder(Rate::per_second(u64::MAX))
        .build()
        .unwrap_err();
    RateLimitLayer::builder(Rate::new(1, Duration::MAX))
        .build()
        .unwrap_err();
    RateLimitLayer::builder(Rate::per_day(1))
        .burst(u32::MAX)
        .build()
        .unwrap_err();
    RetryBudget::new(u32::MAX, 0.1).unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_all_time_waits_for_a_call_that_waits() {
    use tower::{Layer, ServiceExt, service_fn};

    let slow = service_fn(async |n: u32| {
        tokio::time::sleep(Duration::from_secs(1 << 30)).await;
        Ok::<_, std::io::Error>(n)
    });
    let layer = TimeoutLayer::builder(Duration::MAX).build().unwrap();
    assert_eq!(layer.layer(slow).oneshot(1).await.unwrap(), 1);
}
