//! The HTTP protocols: how results are read, how rejections travel, and reqwest.
#![cfg(feature = "http")]

mod advertised;
mod body_end;
mod circuit_breaker;
mod errors;
mod first_byte;
#[cfg(all(feature = "reqwest-012", feature = "reqwest-013"))]
mod kept;
mod keys;
#[cfg(feature = "tonic-014")]
mod not_sent;
mod own_body;
mod provider;
mod rate_limit;
mod rejections;
#[cfg(all(feature = "reqwest-012", feature = "reqwest-013"))]
mod reqwest;
mod results;
mod strange_headers;
mod unread;
mod usage;
