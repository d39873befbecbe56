//! What the gate owes.
mod placeholder {}
