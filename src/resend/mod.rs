//! Resending a call: a kept request, a token of a budget and a fresh service.
//!
//! Used by a retry, a hedge, and a fallback's backup, also for calls that gates reject. They decide
//! when to send and which result is the answer.

mod origin;
mod sending;

pub(crate) use origin::{FromLayer, FromService, Origin, Prototype, Shared};
pub(crate) use sending::Resend;
