//! Retries and hedges, and who pays for them.
#![cfg(feature = "http")]

mod budgets;
mod calls;
mod faults;
mod hedge;
mod model;
mod over_http;
