//! A store without its type, so that a layer has no type parameter for it.

use std::{fmt, future::Future, pin::Pin};

use crate::store::{Ask, Grant, Store, StoreError};

/// The answers to one batch. Boxed: some ten times a second, off the path of calls.
pub(crate) type Answers<'a> =
    Pin<Box<dyn Future<Output = Vec<Result<Grant, StoreError>>> + Send + 'a>>;

pub(crate) trait AnyStore: Send + Sync {
    fn ask<'a>(&'a self, asks: &'a [Ask]) -> Answers<'a>;
}

impl<S: Store> AnyStore for S {
    fn ask<'a>(&'a self, asks: &'a [Ask]) -> Answers<'a> {
        Box::pin(self.exchange(asks))
    }
}

impl fmt::Debug for dyn AnyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}
