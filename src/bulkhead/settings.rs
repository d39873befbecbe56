//! What is set, and what cannot work.

use std::time::Duration;

use crate::ConfigError;

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) enabled: bool,
    /// `None` if calls do not wait.
    pub(super) max_wait: Option<Duration>,
    /// `None` for the default.
    pub(super) max_waiting: Option<usize>,
}

impl Settings {
    pub(super) fn checked(self, name: Option<&'static str>) -> Result<Self, ConfigError> {
        let refused = |field, fix| Err(ConfigError::new(field, 0, fix).of("bulkhead", name));
        match self {
            Self {
                max_waiting: Some(calls),
                max_wait: None,
                ..
            } => {
                let fix = "say how long they may wait with `max_wait`, or leave it";
                Err(ConfigError::new("max_waiting", calls, fix).of("bulkhead", name))
            }
            Self {
                max_waiting: Some(0),
                ..
            } => refused(
                "max_waiting",
                "let at least 1 call wait, or none by leaving `max_wait`",
            ),
            _ => Ok(self),
        }
    }
}

pub(super) fn checked(limit: usize, name: Option<&'static str>) -> Result<usize, ConfigError> {
    if limit == 0 {
        let fix = "allow at least 1 call at once";
        return Err(ConfigError::new("limit", limit, fix).of("bulkhead", name));
    }
    Ok(limit)
}
