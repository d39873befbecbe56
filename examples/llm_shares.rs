//! Three tenants of one provider, whose quota is short: each gets its share, and nothing is wasted.
//!
//! The provider allows 1000 tokens a second to all of them together. `bulk` asks for five times as
//! much, all the time. `gold` has weight 3, and asks for less than its share. `late` comes back
//! after a pause. Without shares, `bulk` would leave the others what it happens to miss.
//!
//! ```console
//! cargo run --example llm_shares
//! ```
#![allow(clippy::disallowed_methods, reason = "an example measures")]

use std::{convert::Infallible, time::Duration};

use tokio::time::{Instant, sleep_until};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Rejected,
    rate_limit::{Dimension, Rate, RateLimitLayer},
};

struct Prompt {
    tenant: &'static str,
    tokens: u64,
}

/// What a tenant asked for, and what it got, in tokens.
#[derive(Debug, Default)]
struct Account {
    asked: u64,
    got: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let tokens = |rate| [Dimension::new("tokens", Rate::per_second(rate))];
    let quotas = RateLimitLayer::dimensions(tokens(10_000))
        .cost(|prompt: &Prompt| [prompt.tokens])
        .keyed_by(|prompt: &Prompt| Some(prompt.tenant))
        // The provider's quota. A client follows the provider's own fields beside it, with
        // `Dimension::follow`.
        .within(tokens(QUOTA))
        .shares(|tenant| if *tenant == "gold" { 3 } else { 1 })
        .name("provider")
        .build()?;
    let model = quotas.layer(service_fn(async |_: Prompt| Ok::<_, Infallible>(())));

    let (mut bulk, mut gold, mut late) = Default::default();
    let begun = Instant::now();
    for tick in 0..TICKS {
        sleep_until(begun + TICK * tick).await;
        for _ in 0..5 {
            ask(&model, "bulk", 20, &mut bulk).await?;
        }
        ask(&model, "gold", 8, &mut gold).await?;
        if tick >= TICKS / 2 {
            ask(&model, "late", 2, &mut late).await?;
        }
    }

    for (tenant, account) in [("bulk", &bulk), ("gold", &gold), ("late", &late)] {
        let share = quotas
            .handle()
            .key(tenant)
            .and_then(|quotas| quotas.share());
        println!(
            "{tenant}: {account:?}, its part now is {:.0} %",
            share.unwrap_or(0.0) * 100.0
        );
    }
    // Those within their shares get all that they ask for, and the rest goes to the one that wants
    // more: a second's burst, and 1000 a second.
    assert_eq!(gold.got, gold.asked);
    assert_eq!(late.got, late.asked);
    assert!(bulk.got < bulk.asked / 3, "{bulk:?}");
    let all = bulk.got + gold.got + late.got;
    let quota = QUOTA * u64::from(TICKS) / 50;
    assert!(all >= quota && all <= 2 * quota, "{all} of {quota}");
    Ok(())
}

async fn ask<S>(
    model: &S,
    tenant: &'static str,
    tokens: u64,
    account: &mut Account,
) -> Result<(), BoxError>
where
    S: Service<Prompt, Error = BoxError> + Clone,
{
    account.asked += tokens;
    match model.clone().oneshot(Prompt { tenant, tokens }).await {
        Ok(_) => account.got += tokens,
        Err(error) => {
            // It names the provider's quota, not the tenant's own.
            let rejected = Rejected::find(&*error).ok_or("a rejection")?;
            assert_eq!(rejected.dimension, Some("tokens"));
        }
    }
    Ok(())
}

const QUOTA: u64 = 1000;
const TICK: Duration = Duration::from_millis(20);
/// Two seconds.
const TICKS: u32 = 100;
