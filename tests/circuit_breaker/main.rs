//! Circuit breakers and throttles, for all calls and by key.
#![cfg(feature = "layers")]

mod calls;
mod in_stacks;
mod keyed;
mod keyed_throttle;
mod throttle;
mod transitions;
