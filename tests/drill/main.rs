//! Drills: what they report, and what both stacks promise in them.

#[cfg(feature = "serde")]
mod advice;
#[cfg(all(feature = "serde", feature = "metrics"))]
mod alerts;
mod choosing;
mod defaults;
mod flaws;
mod kept;
mod limits;
mod margins;
mod outages;
mod peers;
#[cfg(feature = "serde")]
mod planted;
mod report;
mod scope;
mod shares;
mod spill;
mod standard;
mod users;

use std::panic::{AssertUnwindSafe, catch_unwind};

use http::Request;
use tower::BoxError;
use tower_keep::drill::{HttpUpstream, Lognormal, Servers, ms};

/// The seeds of the standard drill: `.ci/run` takes 200, and `scripts/drill` 10 000.
fn seeds() -> u64 {
    let seeds = std::env::var("DRILL_SEEDS");
    seeds.map_or(3, |seeds| seeds.parse().expect("DRILL_SEEDS is a number"))
}

/// The seeds of all other drills.
fn few_seeds() -> u64 {
    (seeds() / 50).clamp(2, 20)
}

/// Unchanged: what callers without a stack have.
fn bare(upstream: HttpUpstream) -> Result<HttpUpstream, BoxError> {
    Ok(upstream)
}

/// Eight workers of some 44 calls a second each.
fn shop() -> Servers {
    Servers::new(8)
        .service(Lognormal::median(ms(20)).sigma(0.5))
        .queue(100)
}

fn to_the_shop(number: u64) -> http::request::Builder {
    Request::get(format!("http://shop/{number}"))
}

/// What an assertion panics with.
fn complaint(assertion: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(assertion)).expect_err("the assertion holds");
    *panic.downcast::<String>().expect("a message")
}
