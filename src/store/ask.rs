//! The request to a store, and its answer.

use std::{future::Future, sync::Arc, time::Duration};

use crate::{
    algorithm::prepaid::{Debt, Granted, Terms, Want},
    store::StoreError,
};

/// A store that counts the units of limits for all processes that share them.
///
/// It has one method. Each layer has one call of it in flight at a time, with all that its keys
/// need at that moment. The layer limits the time of a call, calls less often while the store
/// fails, and drops the future when the time is over. A store may repeat requests without harm:
/// units that are granted twice are spent once, and a [`Debt`] has a number.
///
/// For your own store: keep a [`Prepaid`](crate::algorithm::Prepaid) for each key and call its
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
    /// An ask that fails must not cost the others their answers. If there are fewer answers than
    /// asks, the rest count as failed.
    fn exchange(&self, asks: &[Ask])
    -> impl Future<Output = Vec<Result<Grant, StoreError>>> + Send;
}

/// A request for units of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ask {
    /// The limit's name. For a keyed limit, a colon and the hash of the key follow.
    pub key: Arc<str>,
    /// The rate and burst of this process. Two versions of a program may differ.
    pub terms: Terms,
    /// The units wanted.
    pub want: u32,
    /// The fewest units that are useful. 0 or 1 if any number is.
    pub least: u32,
    /// Units that were already used, at most a burst.
    pub debt: Option<Debt>,
    /// If true, units used and owed before this are forgotten.
    pub reset: bool,
}

/// A store's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// Units that may be spent.
    pub units: u32,
    /// The time for which the units are valid, counted from before the ask was sent.
    pub good_for: Duration,
    /// With units: how long after the answer they may be spent. Without units: how long until an
    /// ask may be granted some.
    pub wait: Duration,
    /// Units that the store could still grant at once.
    pub room: u32,
}

impl Ask {
    /// Makes an ask for no units: its answer tells the [room](Grant::room).
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
