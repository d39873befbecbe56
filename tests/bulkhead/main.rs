//! Bulkheads: fixed and learned limits, queues, keys, totals and runtimes.
#![cfg(feature = "layers")]

mod adaptive;
mod keyed;
mod model;
mod reclaim;
mod runtime;
mod shares;
mod total;
mod waiting;
