//! A change of a request that takes time.

use std::{
    any::Any,
    fmt,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

/// A change of a replayed request in progress: see [`Replay::changing`](super::Replay::changing).
///
/// Dropping it cancels the change, and the request is not sent.
pub struct Changing(Mutex<BoxedChange>);

type BoxedChange = Pin<Box<dyn Future<Output = Box<dyn Any + Send>> + Send>>;

impl Changing {
    /// Wraps a future. Its output is given to `Replay::change`.
    pub fn new<F>(change: F) -> Self
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        // The mutex is never locked. It only keeps the futures of calls `Sync`.
        Self(Mutex::new(Box::pin(async move {
            let change: Box<dyn Any + Send> = Box::new(change.await);
            change
        })))
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Box<dyn Any + Send>> {
        let change = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        change.as_mut().poll(cx)
    }
}

impl fmt::Debug for Changing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Changing")
    }
}
