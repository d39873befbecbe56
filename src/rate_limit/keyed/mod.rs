//! A limit for each key: in a table of a fixed size, or of any kind.

mod buckets;
mod handle;
mod key;
mod of_key;
mod pass;
mod per_key;
mod table;
#[cfg(test)]
mod tests;
pub(crate) mod top;
mod update;

pub(super) use buckets::Buckets;
pub use handle::{KeySnapshot, KeyedRateLimitHandle, KeyedSnapshot};
pub use key::{Key, Labelled};
pub use per_key::PerKey;
pub(super) use per_key::{AllKeys, FleetOfKeys, LimitFactory, MakeLimit};
pub(super) use table::Table;
pub use table::TableGate;
pub use top::TopKey as HeavyHitter;
