//! The `X-RateLimit-..` fields, written for clients that read those.
//!
//! No standard defines them. Most servers agree on three: the units of a window, the units left,
//! and the time when there are more. They do not agree on the form of that time: some send seconds,
//! some a time of day.

use std::time::Duration;

use http::{HeaderName, Response};

use super::rate_limit_fields::{allotted, seconds_to_reset};
use crate::{ambient::clock, protocol::Quota};

/// The form of `X-RateLimit-Reset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum XRateLimit {
    /// The seconds until the reset.
    InSeconds,
    /// The time of the reset, in seconds since 1970, as GitHub sends it, for clients whose clocks
    /// are right.
    SinceEpoch,
}

/// The quota in a response's fields, which have room for one.
#[derive(Debug, Clone, Copy)]
struct Told {
    available: u64,
    reset: u64,
}

/// Writes a quota, unless an earlier one has less left. Overwrites the service's own fields.
pub(super) fn write<B>(response: &mut Response<B>, quota: &Quota, form: XRateLimit) {
    // A bound on calls in flight is not a quota of a window.
    let (Some(reset), Some(_)) = (seconds_to_reset(quota), quota.rate) else {
        return;
    };
    let available = quota.available;
    let other = response.extensions().get::<Told>();
    let is_tighter = |other: &Told| (other.available, reset) <= (available, other.reset);
    if other.is_some_and(is_tighter) {
        return;
    }
    response.extensions_mut().insert(Told { available, reset });
    let reset = match form {
        XRateLimit::InSeconds => reset,
        XRateLimit::SinceEpoch => clock::since_epoch(Duration::from_secs(reset)),
    };
    let headers = response.headers_mut();
    headers.insert(LIMIT, allotted(quota).units.into());
    headers.insert(REMAINING, available.into());
    headers.insert(RESET, reset.into());
}

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
