//! A budget of LLM tokens, whose use by a prompt is not known before the answer.
//!
//! Each prompt takes an estimate at once, so that a hundred prompts cannot all pass on an empty
//! budget. The answer reports the real use. Units that were taken in excess come back. Units that
//! are missing become a debt, which later prompts wait for.
//!
//! ```console
//! cargo run --example llm_tokens
//! ```

use std::time::Duration;

use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    Rejected,
    rate_limit::{Rate, RateLimitLayer},
};

struct Prompt {
    text: &'static str,
    longest_answer: u32,
}

struct Answer {
    tokens_used: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let budget = RateLimitLayer::builder(Rate::per_second(1000))
        .burst(2000)
        .name("llm")
        .cost(|prompt: &Prompt| {
            let text = u32::try_from(prompt.text.len() / 4).unwrap_or(u32::MAX);
            text.saturating_add(prompt.longest_answer)
        })
        .settle(|answer: &Answer| answer.tokens_used)
        .max_wait(Duration::from_millis(500))
        .build()?;
    let handle = budget.handle();
    let model = budget.layer(service_fn(answer));
    let ask = |text, longest_answer| {
        let prompt = Prompt {
            text,
            longest_answer,
        };
        model.clone().oneshot(prompt)
    };

    // A modest answer gives most of the estimate back.
    let short = ask("yes or no?", 1000).await?.tokens_used;
    println!("used {short}, {} left", handle.snapshot().available);
    assert!(handle.snapshot().available >= 1900);

    // One that ran over its estimate is paid off by those who come after it.
    let long = ask("tell me everything", 10).await?.tokens_used;
    println!("used {long}, {} left", handle.snapshot().available);
    assert_eq!(handle.snapshot().available, 0);
    let error = ask("and now?", 500).await.err().ok_or("let through")?;
    println!("{error}");
    let rejected = Rejected::find(&*error).ok_or("a rejection")?;
    let wait = rejected.retry_after.ok_or("no hint")?;
    assert!(wait > Duration::from_secs(1), "the debt is worth {wait:?}");
    Ok(())
}

/// Stands for a model that ignores what it was told about length.
async fn answer(prompt: Prompt) -> Result<Answer, BoxError> {
    let tokens_used = match prompt.text.contains("everything") {
        true => 3500,
        false => 20,
    };
    Ok(Answer { tokens_used })
}
