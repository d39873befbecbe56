//! The question to a store, and its answer.

use std::{future::Future, sync::Arc, time::Duration};

use crate::{
    algorithm::prepaid::{Debt, Granted, Terms, Want},
    store::StoreError,
};

/// A place that counts the units of limits for all processes that share them.
///
/// One method, and one call of it at a time from each layer: all that its keys need at one moment.
/// The layer bounds how long it takes, asks less often while it fails, and drops the future when
/// time is up. A store that asks again by itself does no harm: what is granted twice is spent once,
/// and a [`Debt`] bears a number.
///
/// For a store of your own: keep a [`Prepaid`](crate::algorithm::Prepaid) for each key and call its
/// `exchange`, or decide as it does.
///
/// ```
/// use std::{collections::HashMap, sync::{Arc, Mutex}};
/// use tower_keep::{algorithm::Prepaid, store::{Ask, Grant, Store, StoreError}};
///
/// #[derive(Clone, Default)]
/// struct Table(Arc<Mutex<HashMap<Arc<str>, Prepaid>>>);
///
/// impl Store for Table {
///     async fn exchange(&self, asks: &[Ask]) -> Vec<Result<Grant, StoreError>> {
///         let Ok(mut table) = self.0.lock() else {
///             let broken = |_| Err(StoreError::new("the table is broken"));
///             return asks.iter().map(broken).collect();
///         };
///         let now = 1_764_547_200_000_000; // microseconds, by one clock for all processes
///         let decide = |ask: &Ask| {
///             Ok(ask.put_to(table.entry(ask.key.clone()).or_default(), now))
///         };
///         asks.iter().map(decide).collect()
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no store",
    note = "`store::Redis::new(connection)` and `store::Memory::new()` are stores"
)]
pub trait Store: Send + Sync + 'static {
    /// Answers each ask, in their order.
    ///
    /// One that fails must not cost the others their answers. Fewer answers than asks count as
    /// failures of the rest.
    fn exchange(&self, asks: &[Ask])
    -> impl Future<Output = Vec<Result<Grant, StoreError>>> + Send;
}

/// An ask for units of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ask {
    /// The limit's name, and of a keyed limit the hash of the key after a colon.
    pub key: Arc<str>,
    /// The rate and burst that this process goes by. Two versions of a program may differ.
    pub terms: Terms,
    /// Units that it would like to have.
    pub want: u32,
    /// Units of which fewer are of no use to it. 0 or 1 if any number is.
    pub least: u32,
    /// Units that it has used already, at most a burst.
    pub debt: Option<Debt>,
    /// Forget what was used and owed before this.
    pub reset: bool,
}

/// A store's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// Units that may be spent.
    pub units: u32,
    /// For how long, counted from before the ask was sent.
    pub good_for: Duration,
    /// With units: how long after the answer has come they may be spent. Without: how long until an
    /// ask may find some.
    pub wait: Duration,
    /// Units that the store would still grant at once.
    pub room: u32,
}

impl Ask {
    /// An ask for nothing: it tells the [room](Grant::room).
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, terms: Terms) -> Self {
        Self {
            key: key.into(),
            terms,
            want: 0,
            least: 0,
            debt: None,
            reset: false,
        }
    }

    /// Lets a key's state decide. `now` is in microseconds, by one clock for all processes, and
    /// below 2^52.
    pub fn put_to(&self, state: &mut crate::algorithm::Prepaid, now: u64) -> Grant {
        let want = Want {
            units: self.want,
            least: self.least,
            debt: self.debt,
            reset: self.reset,
        };
        state.exchange(&self.terms, want, now).into()
    }
}

impl From<Granted> for Grant {
    fn from(granted: Granted) -> Self {
        Self {
            units: granted.units,
            good_for: Duration::from_micros(granted.good_for),
            wait: Duration::from_micros(granted.wait),
            room: granted.room,
        }
    }
}
