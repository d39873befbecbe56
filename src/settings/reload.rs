//! Moves what runs from one set of settings to the next.

use crate::{Changed, ConfigError};

/// Settings that a running layer or stack can move to.
pub trait Settings: Sized {
    /// The handle of what was built with such settings.
    type Handle;

    /// Moves what runs behind `handle` from the settings `before` to these, and returns what has
    /// changed. Only what differs between the two is touched: what was changed by hand meanwhile,
    /// and is the same in both, stays.
    ///
    /// # Errors
    /// What `build` would reject, and what cannot change while it runs, such as a name or a budget:
    /// that needs a new start. Nothing has changed then.
    fn update(&self, handle: &Self::Handle, before: &Self) -> Result<Changed, ConfigError>;

    /// Returns the path of a field that a file of the settings `before` has written, and that of
    /// these has not, though it does not say `partial = true`: a file that is just being written
    /// lacks its end. Default: `None`.
    fn lost_since(&self, before: &Self) -> Option<String> {
        let _ = before;
        None
    }
}

/// A running layer or stack, and its settings. Settings that cannot be are an error, and the last
/// good ones stay.
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
    /// `current` is what the layer or stack behind `handle` was built with.
    pub fn new(handle: S::Handle, current: S) -> Self {
        Self { handle, current }
    }

    /// Moves to these settings, and returns what has changed.
    ///
    /// # Errors
    /// As [`Settings::update`]. Nothing has changed then.
    pub fn apply(&mut self, next: S) -> Result<Changed, ConfigError> {
        let changed = next.update(&self.handle, &self.current)?;
        self.current = next;
        Ok(changed)
    }

    /// Moves to what a file says, unless it lacks fields that it had.
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

    /// The last good settings.
    #[must_use]
    pub fn current(&self) -> &S {
        &self.current
    }
}
