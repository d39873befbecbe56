//! The store.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use redis::{RedisError, aio::ConnectionLike};
use tokio::task::JoinSet;

use super::{
    batch::{self, KeyedAsk, Replies},
    reply, slot,
};
use crate::store::{Ask, Grant, Store, StoreError};

/// A store on Redis or Valkey, with your connection: a `ConnectionManager`, a
/// `MultiplexedConnection` or a `ClusterConnection` of `redis` 1.x.
///
/// You open the connection, and choose TLS, login, timeouts and reconnects. The layer limits the
/// time of each exchange anyway. All asks of one moment are sent in one pipeline, and each key has
/// its own answer: a key that holds something else does not harm the others. On a cluster there is
/// one pipeline for each slot, all sent at once.
///
/// One script decides, by the server's clock. It is sent by its hash, and with its text if the
/// server does not know it. A key takes some 100 bytes, and expires a minute after all used units
/// have come back. Keys are the prefix, the limit's name, and a hash of a keyed limit's key.
///
/// **Eviction.** A server that evicts keys (`maxmemory-policy allkeys-lru` and the like) forgets
/// used units: at most one burst of each evicted key is granted twice. Set `noeviction`, or
/// `volatile-ttl`, which first evicts keys that are nearly unused. Limits over a day survive a
/// restart of the server if it persists its data.
///
/// Its errors contain no key, address or password.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_keep::{rate_limit::{Rate, RateLimitLayer}, store::Redis};
///
/// let client = redis::Client::open("redis://127.0.0.1/")?;
/// let connection = client.get_connection_manager().await?;
/// let store = Redis::new(connection).prefix("shop:");
/// let limit = RateLimitLayer::builder(Rate::per_minute(6000))
///     .burst(500)
///     .fleet(&store, "api")
///     .build()?;
/// # Ok(()) }
/// ```
pub struct Redis<C> {
    shared: Arc<ClientState<C>>,
}

struct ClientState<C> {
    prefix: String,
    connection: Mutex<C>,
    reconnect: Option<Box<Reconnect<C>>>,
    /// If true, the server has reported that it is a replica. Relaxed: each layer has one exchange
    /// in flight, and if two layers both reconnect, that does no harm.
    is_demoted: AtomicBool,
    /// If true, the client takes no pipeline over several slots. Relaxed: set once.
    is_cluster: AtomicBool,
}

type Reconnect<C> =
    dyn Fn() -> Pin<Box<dyn Future<Output = Result<C, RedisError>> + Send>> + Send + Sync;

impl<C> Redis<C> {
    /// Makes a store on a connection.
    pub fn new(connection: C) -> Self {
        Self {
            shared: Arc::new(ClientState {
                prefix: String::new(),
                connection: Mutex::new(connection),
                reconnect: None,
                is_demoted: AtomicBool::new(false),
                is_cluster: AtomicBool::new(false),
            }),
        }
    }

    /// Sets the prefix of all its keys. Default: none. Set it before cloning.
    #[must_use]
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        self.with(|shared| ClientState { prefix, ..shared })
    }

    /// Sets a closure that opens a fresh connection: `Fn() -> impl Future<Output = Result<C,
    /// RedisError>>`. Default: none. Set it before cloning.
    ///
    /// A primary that was demoted stays on the same connection, and rejects writes with READONLY.
    /// No client reconnects for that. With this closure the next exchange does, and so finds the
    /// new primary behind the same name.
    #[must_use]
    pub fn reconnect<F, Fut>(self, reconnect: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<C, RedisError>> + Send + 'static,
    {
        let reconnect: Box<Reconnect<C>> = Box::new(move || Box::pin(reconnect()));
        self.with(|shared| ClientState {
            reconnect: Some(reconnect),
            ..shared
        })
    }

    /// Changes the settings. Existing clones keep theirs.
    fn with(self, change: impl FnOnce(ClientState<C>) -> ClientState<C>) -> Self {
        match Arc::try_unwrap(self.shared) {
            Ok(shared) => Self {
                shared: Arc::new(change(shared)),
            },
            Err(shared) => Self { shared },
        }
    }
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Redis<C> {
    /// Returns the connection to send on: a fresh one if the last one's server was demoted.
    async fn connection(&self) -> Result<C, RedisError> {
        if let Some(reconnect) = &self.shared.reconnect {
            if self.shared.is_demoted.load(Ordering::Relaxed) {
                let fresh = reconnect().await?;
                *self
                    .shared
                    .connection
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = fresh.clone();
                self.shared.is_demoted.store(false, Ordering::Relaxed);
                return Ok(fresh);
            }
        }
        let connection = self
            .shared
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(connection.clone())
    }

    pub(super) async fn replies(&self, asks: &[Ask]) -> Replies {
        let keyed = asks.iter().map(|ask| KeyedAsk {
            key: format!("{}{}", self.shared.prefix, ask.key),
            ask: ask.clone(),
        });
        let keyed: Vec<_> = keyed.collect();
        let mut connection = match self.connection().await {
            Ok(connection) => connection,
            Err(error) => return keyed.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut replies = Vec::new();
        if !self.shared.is_cluster.load(Ordering::Relaxed) {
            replies = batch::send(&mut connection, &keyed).await;
            if batch::is_split(&replies) {
                self.shared.is_cluster.store(true, Ordering::Relaxed);
            }
        }
        if self.shared.is_cluster.load(Ordering::Relaxed) {
            replies = by_slot(&connection, keyed).await;
        }
        if replies.iter().any(reply::is_demoted) {
            self.shared.is_demoted.store(true, Ordering::Relaxed);
        }
        replies
    }
}

/// Sends a pipeline for each slot, all at once.
async fn by_slot<C>(connection: &C, asks: Vec<KeyedAsk>) -> Replies
where
    C: ConnectionLike + Clone + Send + Sync + 'static,
{
    let mut slots: BTreeMap<u16, Vec<(usize, KeyedAsk)>> = BTreeMap::new();
    let count = asks.len();
    for (index, ask) in asks.into_iter().enumerate() {
        slots
            .entry(slot::of(&ask.key))
            .or_default()
            .push((index, ask));
    }
    let mut sending = JoinSet::new();
    for batch in slots.into_values() {
        let mut connection = connection.clone();
        sending.spawn(async move {
            let (indices, asks): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let replies = batch::send(&mut connection, &asks).await;
            indices.into_iter().zip(replies).collect::<Vec<_>>()
        });
    }
    let lost = || Err(RedisError::from((redis::ErrorKind::Client, "not sent")));
    let mut replies: Replies = std::iter::repeat_with(lost).take(count).collect();
    while let Some(sent) = sending.join_next().await {
        for (index, reply) in sent.into_iter().flatten() {
            replies[index] = reply;
        }
    }
    replies
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Store for Redis<C> {
    async fn exchange(&self, asks: &[Ask]) -> Vec<Result<Grant, StoreError>> {
        let replies = self.replies(asks).await;
        let answer = |reply: Result<reply::Reply, RedisError>| match reply {
            Ok(reply) => Ok(reply.grant),
            Err(error) => Err(reply::failure(&error)),
        };
        replies.into_iter().map(answer).collect()
    }
}

impl<C> Clone for Redis<C> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<C> fmt::Debug for Redis<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("prefix", &self.shared.prefix)
            .finish_non_exhaustive()
    }
}
