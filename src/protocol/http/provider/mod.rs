//! The fields with which providers report their limits, each in its own form.
//!
//! No standard defines them, and they change. A provider is therefore described by data: a
//! [`Provider`] lists fields and the forms of their values, with the source page and the day of the
//! check. Add or replace a field where it has changed, or write your own provider. A closure can
//! read anything that has no form here: [`http::Client::hints`](super::Client::hints).
//!
//! ```
//! use std::time::Duration;
//! use tower_keep::{
//!     protocol::http::{Client, provider::{self, QuotaFields, TimeForm}},
//!     rate_limit::{Follow, Rate, RateLimitLayer},
//! };
//!
//! // At most 500 a minute, and fewer while the provider says that fewer are left.
//! let client = Client::new().provider(provider::openai());
//! let limit = RateLimitLayer::builder(Rate::per_minute(500))
//!     .burst(50)
//!     .honor_retry_after(Duration::from_secs(60))
//!     .follow(Follow::new("requests"))
//!     .protocol(client)
//!     .build()?;
//!
//! // A provider of the same dialect, with a field of its own.
//! let other = provider::openai().quota(QuotaFields::new("images", TimeForm::Seconds)
//!     .limit("x-limit-images").remaining("x-left-images").reset("x-reset-images"));
//! # let _ = (limit, other);
//! # Ok::<_, tower_keep::ConfigError>(())
//! ```
//!
//! | form | examples |
//! |---|---|
//! | [`TimeForm::Seconds`] | `30`, `1.5` |
//! | [`TimeForm::Milliseconds`] | `1500` |
//! | [`TimeForm::Span`] | `6m0s`, `8.64s`, `20ms` |
//! | [`TimeForm::Timestamp`] | `2026-03-01T12:00:00Z` (RFC 3339), against the response's own `Date` |
//! | [`TimeForm::UnixSeconds`] | `1772366400`, against the response's own `Date` |
//!
//! A field that is missing or malformed has no meaning. No value may cause a panic, whatever its
//! bytes. Numbers that are too large saturate.

mod number;
mod preset;
mod reader;
mod span;
mod timestamp;

pub use preset::{Provider, QuotaFields, TimeForm, anthropic, aws, openai};
