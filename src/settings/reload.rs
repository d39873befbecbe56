//! The change of a running layer or stack from one set of settings to the next.

use crate::{Changed, ConfigError};

/// Settings to which a running layer or stack can change.
pub trait Settings: Sized {
    /// The handle of the layer or stack built with such settings.
    type Handle;

    /// Changes the layer or stack behind `handle` from the settings `before` to these, and returns
    /// the changes. Only settings that differ between the two are changed. A manual change stays if
    /// the setting is the same in both.
    ///
    /// # Errors
    /// A setting that `build` would reject, or that cannot change at run time, such as a name or a
    /// budget: that needs a restart. Nothing changes then.
    fn update(&self, handle: &Self::Handle, before: &Self) -> Result<Changed, ConfigError>;

    /// Returns the path of a field that the file of `before` has, and that this one lacks without
    /// `partial = true`. A file that is still being written lacks its end. Default: `None`.
    fn lost_since(&self, before: &Self) -> Option<String> {
        let _ = before;
        None
    }
}

/// A running layer or stack, and its settings. Invalid settings are an error, and the last good
/// ones stay.
///
/// ```
/// use tower_keep::{settings::{ClientSettings, Reload}, stack};
///
/// let settings: ClientSettings = serde_json::from_str(r#"{ "attempt_timeout": "2s" }"#)?;
/// let stack = settings.apply_to(stack::client().http())?.build()?;
/// let mut reload = Reload::new(stack.handle(), settings);
///
/// let settings = serde_json::from_str(r#"{ "attempt_timeout": "1s" }"#)?;
/// let changed = reload.apply(settings)?;
/// assert_eq!(changed.to_string(), "timeout: `attempt_timeout` from 2s to 1s");
///
/// let settings = serde_json::from_str(r#"{ "attempt_timeout": "0s" }"#)?;
/// reload.apply(settings).unwrap_err();
/// assert_eq!(stack.handle().attempt_timeout.snapshot().duration.as_secs(), 1);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Reload<S: Settings> {
    handle: S::Handle,
    current: S,
}

impl<S: Settings> Reload<S> {
    /// Makes one of a handle and the settings that its layer or stack was built with.
    pub fn new(handle: S::Handle, current: S) -> Self {
        Self { handle, current }
    }

    /// Changes to these settings, and returns the changes.
    ///
    /// # Errors
    /// As [`Settings::update`]. Nothing changes then.
    pub fn apply(&mut self, next: S) -> Result<Changed, ConfigError> {
        let changed = next.update(&self.handle, &self.current)?;
        self.current = next;
        Ok(changed)
    }

    /// Changes to a file's settings, unless the file lacks fields that it had.
    #[cfg(feature = "watch")]
    pub(super) fn follow(&mut self, next: S) -> Result<Changed, tower::BoxError> {
        if let Some(field) = next.lost_since(&self.current) {
            let error = format!(
                "`{field}` was in the file and is not any more: write it, with its default to have \
                 that, or write `partial = true` in a file that may leave fields out"
            );
            return Err(error.into());
        }
        Ok(self.apply(next)?)
    }

    /// Returns the last good settings.
    #[must_use]
    pub fn current(&self) -> &S {
        &self.current
    }
}
