//! Limits that processes share: the asks of a process, their times, and the fallback without a
//! store.

mod asking;
mod book;
mod dimensions;
mod entry;
mod handle;
mod keys;
mod limit;
mod outage;
mod shared;
mod start;

pub(super) use dimensions::FleetDimensions;
pub(super) use entry::{Granted, Quotas};
pub use handle::{FleetHandle, FleetSnapshot};
pub(super) use keys::Keys;
pub(super) use limit::FleetLimit;
pub use outage::Outage;
pub(super) use shared::{Fleet, FleetSettings};
