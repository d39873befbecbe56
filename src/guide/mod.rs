//! The guide: how to choose, order, tune and test the layers, and what was decided and why.
//!
//! The [first page of the documentation](crate) is its index, by what you want to do.

#[doc = include_str!("quick_http.md")]
pub mod quick_http {}

#[cfg_attr(feature = "tonic-014", doc = include_str!("quick_grpc.md"))]
#[cfg_attr(
    not(feature = "tonic-014"),
    doc = "A gRPC service in five minutes. This page is in the documentation with the feature `tonic-014`."
)]
pub mod quick_grpc {}

#[doc = include_str!("choosing.md")]
pub mod choosing {}

#[doc = include_str!("adaptive.md")]
pub mod adaptive {}

#[doc = include_str!("keeping.md")]
pub mod keeping {}

#[doc = include_str!("operating.md")]
///
/// # The example
///
#[cfg_attr(feature = "tonic-014", doc = "```")]
#[cfg_attr(not(feature = "tonic-014"), doc = "```ignore")]
#[doc = include_str!("../../examples/graceful_shutdown.rs")]
/// ```
pub mod operating {}

#[doc = include_str!("ordering.md")]
///
/// # The first stack
///
/// ```
#[doc = include_str!("../../examples/first_stack.rs")]
/// ```
pub mod ordering {}

#[doc = include_str!("fleet.md")]
pub mod fleet {}

#[doc = include_str!("balancing.md")]
///
/// # The example
///
/// ```
#[doc = include_str!("../../examples/balanced_client.rs")]
/// ```
pub mod balancing {}

#[doc = include_str!("classifying.md")]
pub mod classifying {}

#[doc = include_str!("functions.md")]
///
/// # The example
///
/// ```
#[doc = include_str!("../../examples/database_pool.rs")]
/// ```
pub mod functions {}

#[doc = include_str!("bulkhead.md")]
///
/// # A server at three times its load
///
#[doc = include_str!("load_shedding.md")]
///
#[doc = include_str!("../../docs/load_shedding.svg")]
pub mod bulkhead {}

#[doc = include_str!("retrying.md")]
pub mod retrying {}

#[doc = include_str!("falling_back.md")]
///
/// # The example
///
/// ```
#[doc = include_str!("../../examples/fallback_cache.rs")]
/// ```
pub mod falling_back {}

#[doc = include_str!("speed.md")]
pub mod speed {}

#[doc = include_str!("streaming.md")]
pub mod streaming {}

#[cfg(feature = "http")]
#[doc = include_str!("llm.md")]
pub mod llm {}

#[cfg_attr(feature = "replay", doc = include_str!("what_if.md"))]
#[cfg_attr(
    not(feature = "replay"),
    doc = "Thresholds from recorded traffic. This page is in the documentation with the feature `replay`."
)]
pub mod what_if {}

#[doc = include_str!("tuning.md")]
///
/// # The dashboard's queries during an incident
///
/// Their results while an upstream is flaky, slow, hangs and recovers, drawn from a run of
/// `tests/prometheus`:
///
#[doc = include_str!("../../docs/dashboard.svg")]
pub mod tuning {}

#[cfg(feature = "page")]
#[doc = include_str!("page.md")]
///
/// # A stack in an outage
///
/// The example's page, by `scripts/draw-page`:
///
#[doc = include_str!("../../docs/page.html")]
pub mod page {}

#[doc = include_str!("opentelemetry.md")]
pub mod opentelemetry {}

#[cfg(all(feature = "serde", feature = "http"))]
#[doc = include_str!("settings.md")]
pub mod settings {}

#[cfg(feature = "tonic-014")]
#[doc = include_str!("grpc.md")]
pub mod grpc {}

#[cfg(feature = "drill")]
#[doc = include_str!("drill.md")]
///
/// # The example
///
/// ```no_run
#[doc = include_str!("../../examples/drill.rs")]
/// ```
pub mod drill {}

#[cfg(feature = "fault")]
#[doc = include_str!("fault.md")]
///
/// # The example
///
/// ```no_run
#[doc = include_str!("../../examples/fault_injection.rs")]
/// ```
pub mod fault {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("coming_from.md")]
pub mod coming_from {}

#[doc = include_str!("decisions.md")]
pub mod decisions {}
