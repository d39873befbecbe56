//! The behavior of a process while the store does not answer.

use crate::{
    ConfigError,
    algorithm::{Rate, TokenBucket},
};

/// The fate of calls while the store does not answer, once the units granted to this process are
/// spent or have ended.
///
/// A process that never had an answer from the store does the same, from its first failed ask on.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Outage {
    /// Rejects calls as [`StoreDown`](crate::RejectedKind::StoreDown), with the time of the next
    /// ask as a hint. The bound holds: in any window of `t`, all processes together admit at most
    /// `burst + rate * t`. The default.
    #[default]
    Closed,
    /// Gives each process a share of the limit for itself. Each process that is cut off for `d`
    /// exceeds the bound by at most `share * (burst + rate * d)`.
    Local {
        /// Above 0 and up to 1. One over the number of processes keeps the limit about right. The
        /// share of the burst must be at least one unit.
        share: f64,
    },
    /// Admits all calls, without a bound. When the store answers again, it receives the admitted
    /// units as a debt, and later calls wait for them.
    Open,
}

impl Outage {
    /// Returns the process's own limit, if it has one.
    pub(super) fn local(self, rate: Rate, burst: u32) -> Result<Option<TokenBucket>, ConfigError> {
        let Self::Local { share } = self else {
            return Ok(None);
        };
        let (rate, burst) = part(share, rate, burst)?;
        TokenBucket::new(rate, burst).map(Some)
    }
}

/// Returns a share of a rate and burst, rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the burst"
)]
pub(super) fn part(share: f64, rate: Rate, burst: u32) -> Result<(Rate, u32), ConfigError> {
    if !(share > 0.0 && share <= 1.0) {
        let fix = "give a share above 0 and up to 1: one over the number of processes";
        return Err(ConfigError::new("while_down", share, fix));
    }
    let own = (f64::from(burst) * share).floor();
    if own < 1.0 {
        let fix = "raise the share or the burst: its part of the burst is less than one unit";
        return Err(ConfigError::new("while_down", share, fix));
    }
    // Lengthens the period and keeps the count: a share of 3 a minute may be less than 1.
    let per = std::time::Duration::try_from_secs_f64(rate.per().as_secs_f64() / share);
    let per = per.unwrap_or(std::time::Duration::MAX);
    Ok((Rate::new(rate.count(), per), own as u32))
}
