//! The settings of the stack in question, as a file has them.

use std::io;

use crate::{
    ConfigError,
    replay::{options::invalid, thresholds::Thresholds},
    settings::{
        self, ClientSettings, HumanDuration, OrOff, RateLimitSettings, ServerSettings, Share,
    },
    stack,
};

/// The settings of the stack in question.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StackSettings {
    /// The settings of a client.
    Client(Box<ClientSettings>),
    /// The settings of a server.
    Server(Box<ServerSettings>),
}

/// A change of one setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Change {
    MinCalls(u32),
    FailureRate(f64),
    Timeout(std::time::Duration),
    Places(usize),
    Burst(u32),
    Attempts(u32),
}

impl StackSettings {
    /// Returns the defaults of a client.
    #[must_use]
    pub fn client() -> Self {
        Self::Client(Box::default())
    }

    /// Returns the defaults of a server. It has no limit yet, and does not build without one.
    #[must_use]
    pub fn server() -> Self {
        Self::Server(Box::default())
    }

    /// Reads the text of a client's file.
    ///
    /// # Errors
    /// The text cannot be read, or `build` rejects it.
    pub fn read_client(toml: &str) -> io::Result<Self> {
        let settings: ClientSettings = read(toml)?;
        let this = Self::Client(Box::new(settings));
        this.check().map_err(|error| invalid(&error.to_string()))?;
        Ok(this)
    }

    /// Reads the text of a server's file.
    ///
    /// # Errors
    /// The text cannot be read, or `build` rejects it.
    pub fn read_server(toml: &str) -> io::Result<Self> {
        let settings: ServerSettings = read(toml)?;
        let this = Self::Server(Box::new(settings));
        this.check().map_err(|error| invalid(&error.to_string()))?;
        Ok(this)
    }

    /// Builds the stack as a check.
    ///
    /// # Errors
    /// `build` rejects the settings.
    pub fn check(&self) -> Result<(), ConfigError> {
        match self {
            Self::Client(settings) => {
                settings.apply_to(stack::client().http())?.build()?;
            }
            Self::Server(settings) => {
                settings.apply_to(stack::server().http())?.build()?;
            }
        }
        Ok(())
    }

    /// Returns its thresholds.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        match self {
            Self::Client(settings) => Thresholds::of_client(settings),
            Self::Server(settings) => Thresholds::of_server(settings),
        }
    }

    /// Returns the text of its file.
    ///
    /// # Errors
    /// TOML cannot represent the settings.
    pub fn to_toml(&self) -> io::Result<String> {
        let text = match self {
            Self::Client(settings) => toml::to_string(&**settings),
            Self::Server(settings) => toml::to_string(&**settings),
        };
        text.map_err(|error| invalid(&error.to_string()))
    }

    pub(super) fn is_client(&self) -> bool {
        matches!(self, Self::Client(_))
    }

    /// Returns the name of its timeout.
    pub(super) fn timeout_name(&self) -> &'static str {
        if self.is_client() {
            "attempt_timeout"
        } else {
            "timeout"
        }
    }

    pub(super) fn change(&mut self, change: Change) {
        match self {
            Self::Client(settings) => change_client(settings, change),
            Self::Server(settings) => change_server(settings, change),
        }
    }
}

fn change_client(settings: &mut ClientSettings, change: Change) {
    match change {
        Change::MinCalls(calls) => settings.circuit_breaker.min_calls = calls,
        Change::FailureRate(rate) => {
            settings.circuit_breaker.failure_rate = OrOff::On(Share(rate));
        }
        Change::Timeout(duration) => {
            settings.attempt_timeout = OrOff::On(HumanDuration(duration));
            // The total must have room for one attempt, and the window for two timeouts.
            let total = settings.total_timeout;
            if matches!(total, OrOff::On(HumanDuration(total)) if total < duration) {
                settings.total_timeout = OrOff::On(HumanDuration(duration * 2));
            }
        }
        Change::Places(places) => match &mut settings.bulkhead {
            Some(bulkhead) if bulkhead.enabled => bulkhead.limit = Some(places),
            _ => settings.max_in_flight = Some(OrOff::On(places)),
        },
        Change::Burst(burst) => set_burst(&mut settings.rate_limit, &mut settings.burst, burst),
        Change::Attempts(attempts) => settings.retry.attempts = attempts,
    }
}

fn change_server(settings: &mut ServerSettings, change: Change) {
    match change {
        Change::Timeout(duration) => settings.timeout = OrOff::On(HumanDuration(duration)),
        Change::Places(places) => match &mut settings.bulkhead {
            Some(bulkhead) if bulkhead.enabled => bulkhead.limit = Some(places),
            _ => settings.max_in_flight = Some(places),
        },
        Change::Burst(burst) => set_burst(&mut settings.rate_limit, &mut settings.burst, burst),
        Change::MinCalls(_) | Change::FailureRate(_) | Change::Attempts(_) => {}
    }
}

fn set_burst(whole: &mut Option<RateLimitSettings>, burst: &mut Option<u32>, value: u32) {
    match whole {
        Some(whole) => whole.burst = Some(value),
        None => *burst = Some(value),
    }
}

fn read<T: for<'de> serde::Deserialize<'de>>(text: &str) -> io::Result<T> {
    let parsed = toml::Deserializer::parse(text).map_err(|error| invalid(&error.to_string()))?;
    settings::read(parsed).map_err(|error| invalid(&error.to_string()))
}
