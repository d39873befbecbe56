//! A call that is sent once more: a kept request, a token of a budget and a fresh service.
//!
//! By a retry, by a hedge, and to a backup, of a fallback and for calls that gates reject. They
//! decide when to send and which result is the answer.

mod origin;
mod sending;

pub(crate) use origin::{FromLayer, FromService, Origin, Prototype, Shared};
pub(crate) use sending::Resend;
