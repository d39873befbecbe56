//! Retries and hedges, and who pays for them.
#![cfg(feature = "http")]

mod budgets;
mod calls;
mod events;
mod faults;
mod hedge;
mod hedge_load;
mod hedge_model;
mod model;
mod open_circuit;
mod over_http;
mod rules;
mod shared_budgets;
