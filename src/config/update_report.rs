//! Reports of what an update changed.

use std::fmt;

use crate::config::plain;

/// The changes that an update of a running layer made. Empty if the settings were the same already.
///
/// Every `update(..)` returns it, and an event of the feature `tracing` has the same text.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::timeout::TimeoutLayer;
///
/// let handle = TimeoutLayer::builder(Duration::from_secs(1)).build()?.handle();
/// let changed = handle.set_duration(Duration::from_secs(2))?;
/// assert_eq!(changed.to_string(), "timeout: `duration` from 1s to 2s");
/// assert!(handle.set_duration(Duration::from_secs(2))?.is_empty());
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changed(Vec<Change>);

/// One setting that an update has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The pattern that the setting belongs to.
    pub layer: &'static str,
    /// The setting, by the name of its setter. In a stack, of the stack's setter.
    pub field: &'static str,
    /// The earlier value.
    pub from: String,
    /// The new value.
    pub to: String,
    /// If true, the earlier counts no longer fit, and the window has restarted.
    pub restarts: bool,
}

impl Changed {
    /// Returns whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the changes, in the order of the settings.
    pub fn iter(&self) -> std::slice::Iter<'_, Change> {
        self.0.iter()
    }

    /// Returns whether a window has restarted.
    #[must_use]
    pub fn restarts(&self) -> bool {
        self.iter().any(|change| change.restarts)
    }

    /// Adds a setting, if it has changed.
    pub(crate) fn note<T: PartialEq + fmt::Debug>(
        mut self,
        layer: &'static str,
        field: &'static str,
        (from, to): (T, T),
    ) -> Self {
        if from != to {
            self.0.push(Change {
                layer,
                field,
                from: plain(from),
                to: plain(to),
                restarts: false,
            });
        }
        self
    }

    /// Marks the changes of the setting with this name as restarting the window.
    pub(crate) fn restarting(mut self, field: &'static str) -> Self {
        let changes = self.0.iter_mut().filter(|change| change.field == field);
        changes.for_each(|change| change.restarts = true);
        self
    }

    /// Replaces the name of the setting, for a stack that has several of its kind.
    #[cfg(feature = "http")]
    pub(crate) fn named(mut self, field: &'static str) -> Self {
        self.0.iter_mut().for_each(|change| change.field = field);
        self
    }

    /// Replaces the name `from` of a setting by the one that a file uses.
    #[cfg(all(feature = "http", feature = "serde"))]
    pub(crate) fn renamed(mut self, from: &str, to: &'static str) -> Self {
        let changes = self.0.iter_mut().filter(|change| change.field == from);
        changes.for_each(|change| change.field = to);
        self
    }

    #[cfg(feature = "layers")]
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl IntoIterator for Changed {
    type Item = Change;
    type IntoIter = std::vec::IntoIter<Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Changed {
    type Item = &'a Change;
    type IntoIter = std::slice::Iter<'a, Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing");
        }
        for (index, change) in self.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(f, "{separator}{change}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            layer,
            field,
            from,
            to,
            restarts,
        } = self;
        write!(f, "{layer}: `{field}` from {from} to {to}")?;
        if *restarts {
            f.write_str(" (the window starts anew)")?;
        }
        Ok(())
    }
}
