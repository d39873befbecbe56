//! What the layers do, for people and for machines.

mod names;
#[cfg(feature = "metrics")]
mod publish;
mod registry;
mod state;
mod tally;
pub(crate) mod trace;

pub use names::{CALL_BUCKETS, METRICS, Metric, MetricKind, WAIT_BUCKETS};
pub use registry::Registry;
pub(crate) use registry::register;
pub(crate) use state::Observed;
pub use state::{Circuits, Instance, State};
pub(crate) use tally::{Event, Tally};
pub use tally::{Rejections, Totals};
