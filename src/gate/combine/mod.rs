//! Gates made of gates.

mod both;
mod keyed;
mod keyed_parts;
mod optional;
mod shadow;

pub use both::{Both, BothTicket, IntoGate};
pub use keyed::{Keyed, KeyedAsked, KeyedGrant, KeyedPass, KeyedTicket};
pub use keyed_parts::Keyable;
pub(crate) use keyed_parts::{KeyedParts, MissingKey};
pub use shadow::{Shadow, ShadowHandle, ShadowSnapshot};
