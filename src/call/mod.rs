//! The data that calls carry, and their results: settings, deadlines, outcomes, rejections.

#[cfg(feature = "layers")]
mod criticality;
#[cfg(feature = "layers")]
mod deadline;
mod left;
mod outcome;
mod rejected;
#[cfg(feature = "layers")]
mod settings;

#[cfg(feature = "layers")]
pub use criticality::{Criticality, UnknownCriticality};
#[cfg(feature = "layers")]
pub use deadline::{CarryDeadline, Deadline};
pub use left::Left;
pub use outcome::{Classify, Outcome};
#[cfg(feature = "tonic-014")]
pub(crate) use rejected::Lead;
#[cfg(feature = "layers")]
pub(crate) use rejected::{CutShort, causes};
pub use rejected::{Rejected, RejectedKind};
#[cfg(feature = "layers")]
pub use settings::{CallSettings, Timeouts};
