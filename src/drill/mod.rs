//! Drills: your own stack, unchanged, through outages in virtual time.
//!
//! Layers that are correct by themselves can do harm together, with the upstream and the traffic
//! that they meet. Retries keep an upstream down, a bulkhead rejects healthy calls, or a circuit
//! opens for a good reason and stays open without one. A drill shows it in `cargo test`: modelled
//! upstreams, hundreds of seeds, a minute of traffic in a tenth of a second.
//!
//! ```
//! # use http::Request;
//! # use tower::Layer;
//! # use tower_keep::stack;
//! use tower_keep::drill::{Drill, Lognormal, Measure, Poisson, Reached, Servers, Trouble};
//! use tower_keep::drill::{ms, secs};
//!
//! let report = Drill::http(|upstream| {
//!         let stack = stack::client().http().attempt_timeout(ms(200)).build()?;
//!         Ok(stack.layer(upstream))
//!     })
//!     .clients(50).patience(ms(500)).lasting(secs(60))
//!     .traffic(Poisson::per_second(200), |n| Request::get(format!("http://shop/{n}")))
//!     .upstream("shop", Servers::new(8).service(Lognormal::median(ms(20)).sigma(0.5)).queue(100))
//!     .trouble(secs(10)..secs(20), "shop", Trouble::fails(0.5))
//!     .trouble(secs(30)..secs(40), "shop", Trouble::capacity(0.5))
//! #   .seeds(0..1)
//!     .run();
//! report.each(Measure::AnsweredWhileWell).at_least(0.98); // holds for every seed
//! report.each(Measure::Recovery).at_most(secs(2));
//! report.reached([Reached::CircuitOpened, Reached::BudgetDenied]);
//! println!("{report}"); // beside no stack at all
//! ```
//!
//! Three lines are a useful test too: [`Drill::standard`]. The [guide](crate::guide::drill) walks
//! through a drill and its report.
//!
//! **When not.** A drill only knows its model: no sockets, no DNS, no other process on the machine.
//! It tests the logic of a stack, not its throughput.
//!
//! **Virtual time.** Each seed runs on a paused runtime of one thread. A service that spawns or
//! sleeps works as usual, and one that opens sockets or blocks does not. Departures are computed in
//! nanoseconds. A stack's own timers are as exact as in production: tokio rounds them up to a whole
//! millisecond.
//!
//! **Seeds.** Traffic is the same for all stacks under one seed. This crate's random draws follow
//! from the seed as well (see [`testing`](crate::testing)). Other code's draws do not. A failing
//! assertion on each seed runs its worst seed twice and reports whether the runs differ.
//!
//! **Dependency.** The feature `drill` is for `[dev-dependencies]`: it turns on tokio's
//! `test-util`, whose clock can be paused and costs a little more to read. `tower-keep = { version
//! = "..", features = ["drill"] }` there leaves your program as it was (resolver 2 and later).

mod agenda;
mod assertion;
mod body;
mod breaking;
mod caller;
mod conductor;
mod drawing;
mod error;
mod figures;
mod grpc;
mod http;
mod jobs;
mod json;
mod measure;
mod model;
mod picture;
mod plain;
mod plan;
mod random;
mod reached;
mod record;
mod report;
mod results;
mod run;
mod scenario;
mod servers;
mod services;
mod shrink;
mod standard;
mod text;
mod times;
mod traffic;
mod trouble;
mod world;
mod worst;

pub use assertion::Each;
pub use body::Body;
pub use breaking::Margin;
pub use error::{DrillError, UpstreamError};
pub use http::{HttpAnswer, HttpUpstream, IntoRequest};
pub use measure::{Bound, Measure};
pub use plain::{PlainAnswer, PlainUpstream};
pub use plan::Drill;
pub use reached::Reached;
pub use report::Report;
pub use servers::Servers;
pub use times::{Exponential, Lognormal, Times, Uniform, ms, secs};
pub use traffic::{Bursts, Pattern, Poisson, Recorded, Steady};
pub use trouble::Trouble;
pub use worst::Worst;
