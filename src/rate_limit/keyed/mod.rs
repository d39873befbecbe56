//! A limit for each key, in a table of a fixed size.

mod handle;
mod key;
mod layer;
mod table;
#[cfg(test)]
mod tests;
mod top;

pub use handle::{KeyedRateLimitHandle, KeyedSnapshot};
pub use key::{Key, Watched};
pub use layer::{KeyedRateLimitBuilder, KeyedRateLimitLayer, Missing};
pub(super) use table::{Places, Table};
pub use top::TopKey;
