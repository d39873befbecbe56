//! A gateway before language models: axum in front, reqwest behind, three fake providers in two
//! dialects.
//!
//! Four tenants have budgets in tokens and in money. A prompt takes an estimate of both, and the
//! end of its stream settles it. The providers have quotas, which the gateway follows by their own
//! fields. After a third of the prompts one provider goes down, and no caller notices.
//!
//! ```console
//! cargo run --features reqwest-013 --example llm_gateway
//! ```
//!
//! With `--features reqwest-013,redis-1`, and the address of a server in `REDIS_URL`, several
//! gateways share the tenants' budgets.

#![allow(clippy::disallowed_methods, reason = "an example measures")]

use std::{collections::BTreeMap, sync::PoisonError};

use futures::{StreamExt, stream};
use reqwest_013 as reqwest;
use tower::BoxError;

mod gateway;
mod provider;

use gateway::Entry;
use provider::{Dialect, Provider};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let (alpha, first) = Provider::start(Dialect::OpenAi, QUOTA as f64).await?;
    let (beta, second) = Provider::start(Dialect::Anthropic, QUOTA as f64).await?;
    let (gamma, third) = Provider::start(Dialect::OpenAi, QUOTA as f64).await?;
    let providers = [
        ("alpha", Dialect::OpenAi, first),
        ("beta", Dialect::Anthropic, second),
        ("gamma", Dialect::OpenAi, third),
    ];
    let gateway = gateway::start(providers, QUOTA).await?;
    let servers = [("alpha", &alpha), ("beta", &beta), ("gamma", &gamma)];

    let client = reqwest::Client::new();
    let prompts = (0..PROMPTS).map(|number| {
        if number == PROMPTS / 3 {
            alpha.goes_down();
        }
        ask(&client, &gateway.url, TENANTS[number % 4], number)
    });
    let answers: Vec<_> = stream::iter(prompts)
        .buffer_unordered(IN_FLIGHT)
        .collect()
        .await;

    // The bytes of every stream are those that its provider has sent.
    let mut served = 0;
    for answer in answers {
        let (prompt, status, bytes) = answer?;
        if status == 200 {
            served += 1;
            let sent = servers
                .iter()
                .any(|(_, server)| server.sent(&prompt).as_ref() == Some(&bytes));
            assert!(sent, "the stream of prompt {prompt} was changed");
        }
    }
    let audit = gateway
        .audit
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let table = account(&audit);
    for (tenant, line) in &table {
        println!(
            "{tenant:6} {:3} answers, {:5} tokens, {:6} micro-dollars, rejected by tokens {:2}, by money {:2}, lost {}",
            line.answers, line.used[0], line.used[1], line.by_tokens, line.by_money, line.lost
        );
    }
    for backend in gateway.models.snapshot() {
        println!("{backend:?}");
    }

    // Who was charged is in the log, once for each answer, and nobody more than was taken.
    let answers: usize = table.values().map(|line| line.answers).sum();
    assert_eq!(answers, served);
    assert!(table["small"].by_tokens > 0 && table["small"].by_money == 0);
    // Over a fleet's store a few calls may wait in vain for a lease of tokens.
    assert!(table["poor"].by_money > 10 * table["poor"].by_tokens);
    assert_eq!(table["large"].by_tokens + table["large"].by_money, 0);
    // The outage costs nobody an answer.
    let lost: usize = table.values().map(|line| line.lost).sum();
    assert!(lost * 100 <= PROMPTS, "{lost} of {PROMPTS} lost");
    // A quota is exceeded by no more than what is in flight when it is told.
    for (name, server) in servers {
        let (served, over) = server.counts();
        println!("{name} has served {served}, and {over} were over its quota");
        assert!(over <= IN_FLIGHT, "{name}: {over}");
    }
    assert!(beta.counts().0 > 0, "the second one has taken over");
    Ok(())
}

/// Sends a prompt, and reads its stream to the end.
async fn ask(
    client: &reqwest::Client,
    url: &str,
    tenant: &'static str,
    number: usize,
) -> Result<(String, u16, Vec<u8>), BoxError> {
    let prompt = format!("{tenant}-{number}");
    let request = client
        .post(url)
        .header("x-tenant", tenant)
        .header("x-prompt", &prompt);
    let request = request
        .header("x-longest-answer", "40")
        .body("how are you?");
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    Ok((prompt, status, answer.bytes().await?.to_vec()))
}

/// What a tenant got.
#[derive(Debug, Default)]
struct Line {
    answers: usize,
    used: gateway::Units,
    by_tokens: usize,
    by_money: usize,
    lost: usize,
}

/// Adds up the audit log.
fn account(audit: &[Entry]) -> BTreeMap<String, Line> {
    let mut table = BTreeMap::<String, Line>::new();
    for entry in audit {
        match entry {
            Entry::Charged {
                tenant,
                prompt,
                backend,
                taken,
                used,
            } => {
                assert!(
                    prompt.starts_with(tenant.as_str()),
                    "{prompt} was paid by {tenant}"
                );
                assert!(
                    used[0] <= taken[0],
                    "{backend} charged {used:?} of {taken:?}"
                );
                let line = table.entry(tenant.clone()).or_default();
                line.answers += 1;
                line.used = [line.used[0] + used[0], line.used[1] + used[1]];
            }
            Entry::Rejected { tenant, by } => {
                let line = table.entry(tenant.clone()).or_default();
                match by.as_str() {
                    "output_tokens" => line.by_tokens += 1,
                    _ => line.by_money += 1,
                }
            }
            Entry::Lost { tenant, why } => {
                eprintln!("lost: {why}");
                table.entry(tenant.clone()).or_default().lost += 1;
            }
        }
    }
    table
}

const TENANTS: [&str; 4] = ["large", "small", "poor", "other"];
const PROMPTS: usize = 240;
const IN_FLIGHT: usize = 12;
/// Of each provider, in requests a second.
const QUOTA: u64 = 60;
