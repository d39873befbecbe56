//! Gates made of gates.

mod asking;
mod chain;
mod held;
mod keyed;
mod keyed_handle;
mod keyed_parts;
mod optional;
mod shadow;

#[cfg(feature = "http")]
pub(crate) use asking::Asks;
pub use asking::{Asking, CostOf, CriticalityOf, DeadlineOf, UsedOf};
pub use chain::{Chain, IntoGate};
pub use keyed::Keyed;
pub use keyed_handle::KeyedHandle;
pub(crate) use keyed_parts::{Keyable, KeyedParts, MissingKey};
pub use shadow::{Shadow, ShadowHandle, ShadowSnapshot};
