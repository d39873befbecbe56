//! Values that a file writes with their unit.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    algorithm::{Rate, Window},
    settings::{
        part::OFF,
        scalar::{Scalar, scalar},
        text,
    },
};

/// A duration, written `"250ms"`, `"1.5s"`, `"2m"` or `"1h 30m"`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct HumanDuration(pub Duration);

/// A rate, written `"100/s"`, `"1000/h"`, `"1/day"` or `"500/10s"`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HumanRate(pub Rate);

/// A circuit breaker's window, written `"10s"` or `"100 calls"`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HumanWindow(pub Window);

/// A share from 0 to 1, written `"50%"` or `0.5`.
#[derive(Clone, Copy, PartialEq, Default)]
pub struct Share(pub f64);

/// A setting that can be turned off, which is written only as `"off"`: `false` and an empty value
/// are errors.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub enum OrOff<T> {
    /// Turned off.
    #[default]
    Off,
    /// On, with this value.
    On(T),
}

/// A value with a unit, in the form in which it is written. Also used for `Debug`, which messages
/// show.
trait Written {
    fn write(&self) -> String;
}

impl Scalar for HumanDuration {
    const EXAMPLE: &'static str = "250ms";

    fn from_text(text: &str) -> Result<Self, String> {
        text::duration(text).map(Self)
    }
}

impl Scalar for HumanRate {
    const EXAMPLE: &'static str = "100/s";

    fn from_text(text: &str) -> Result<Self, String> {
        text::rate(text).map(Self)
    }
}

impl Scalar for HumanWindow {
    const EXAMPLE: &'static str = "10s";

    fn from_text(text: &str) -> Result<Self, String> {
        text::window(text).map(Self)
    }
}

impl Scalar for Share {
    const EXAMPLE: &'static str = "50%";

    fn from_text(text: &str) -> Result<Self, String> {
        text::share(text).map(Self)
    }
}

impl Written for HumanDuration {
    fn write(&self) -> String {
        text::write_duration(self.0)
    }
}

impl Written for HumanRate {
    fn write(&self) -> String {
        text::write_rate(self.0)
    }
}

impl Written for HumanWindow {
    fn write(&self) -> String {
        text::write_window(self.0)
    }
}

impl Written for Share {
    fn write(&self) -> String {
        text::write_share(self.0)
    }
}

impl fmt::Debug for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.write())
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.write())
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer)
    }
}

impl fmt::Debug for HumanRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.write())
    }
}

impl Serialize for HumanRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.write())
    }
}

impl<'de> Deserialize<'de> for HumanRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer)
    }
}

impl fmt::Debug for HumanWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.write())
    }
}

impl Serialize for HumanWindow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.write())
    }
}

impl<'de> Deserialize<'de> for HumanWindow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer)
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.write())
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.write())
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer)
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Rate> for HumanRate {
    fn from(rate: Rate) -> Self {
        Self(rate)
    }
}

impl From<f64> for Share {
    fn from(share: f64) -> Self {
        Self(share)
    }
}

impl<T: Copy> OrOff<T> {
    /// Returns the value, if it is not turned off.
    #[must_use]
    pub fn on(&self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(*value),
        }
    }
}

impl<T> From<Option<T>> for OrOff<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Off, Self::On)
    }
}

impl<T: fmt::Debug> fmt::Debug for OrOff<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str(OFF),
            Self::On(value) => value.fmt(f),
        }
    }
}

impl<T: Serialize> Serialize for OrOff<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str(OFF),
            Self::On(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Scalar> Deserialize<'de> for OrOff<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer)
    }
}

impl<T: Scalar> Scalar for OrOff<T> {
    const EXAMPLE: &'static str = T::EXAMPLE;

    fn from_text(text: &str) -> Result<Self, String> {
        if text.trim() == OFF {
            return Ok(Self::Off);
        }
        T::from_text(text).map(Self::On)
    }

    fn no_value(found: &str) -> String {
        let example = T::EXAMPLE;
        format!("`{found}` is no value: write the value, such as {example}, or \"off\"")
    }
}

/// Reads the value of a field. Without it something is off, which `"off"` also says.
pub(super) fn value_unless_off<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Scalar + Copy,
    D: Deserializer<'de>,
{
    OrOff::deserialize(deserializer).map(|read: OrOff<T>| read.on())
}
