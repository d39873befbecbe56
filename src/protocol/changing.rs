//! A change of a request that takes time.

use std::{
    any::Any,
    fmt,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

/// A change of a request that is made again, under way: see
/// [`Replay::changing`](super::Replay::changing).
///
/// Dropped, it is given up, and the request with it.
pub struct Changing(Mutex<Change>);

type Change = Pin<Box<dyn Future<Output = Box<dyn Any + Send>> + Send>>;

impl Changing {
    /// One that ends with what `Replay::change` is given then.
    pub fn new<F>(change: F) -> Self
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        // The mutex is never locked: it makes futures of calls `Sync`, as they are without it.
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
