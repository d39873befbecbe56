//! The choice of what a process does while the store does not answer.

use crate::{
    ConfigError,
    algorithm::{Rate, TokenBucket},
};

/// The choice of what becomes of calls while the store does not answer, once the units that this
/// process was granted have been spent or have ended.
///
/// A process that has never heard of the store does the same, from its first ask that failed on.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Outage {
    /// They are rejected, as [`StoreDown`](crate::RejectedKind::StoreDown), with a hint when the
    /// store is asked again. The bound holds: in any window of `t`, all processes together admit at
    /// most `burst + rate * t`. The default.
    #[default]
    Closed,
    /// Each process has a share of the limit for itself. The bound is passed by at most
    /// `share * (burst + rate * d)` for each process that was cut off for `d`.
    Local {
        /// Above 0 and up to 1. One over the number of processes keeps the limit about right. Its
        /// part of the burst must be at least one unit.
        share: f64,
    },
    /// All are admitted, without a bound. The store is told what was admitted when it answers
    /// again, and later calls wait for it.
    Open,
}

impl Outage {
    /// The limit of a process for itself, if it has one.
    pub(super) fn local(self, rate: Rate, burst: u32) -> Result<Option<TokenBucket>, ConfigError> {
        let Self::Local { share } = self else {
            return Ok(None);
        };
        let (rate, burst) = part(share, rate, burst)?;
        TokenBucket::new(rate, burst).map(Some)
    }
}

/// A share of a rate and burst, rounded down.
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
    // A longer period, and not fewer units: a share of 3 a minute may be less than 1.
    let per = std::time::Duration::try_from_secs_f64(rate.per().as_secs_f64() / share);
    let per = per.unwrap_or(std::time::Duration::MAX);
    Ok((Rate::new(rate.count(), per), own as u32))
}
