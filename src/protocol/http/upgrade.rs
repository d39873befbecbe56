//! Calls that continue over an upgraded connection.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::Response;
use hyper::upgrade::OnUpgrade;

use crate::{
    Outcome, Rejected,
    protocol::{self, Settle},
};

/// Keeps a call in flight as long as the connection that it was upgraded to: a WebSocket, or a
/// tunnel.
///
/// A call ends with the head of a 101 as with any response. A bulkhead then no longer counts it,
/// though the work only starts. A guard in the response's extensions changes that. The call keeps
/// its permit in every bulkhead that the response passes, until the response and all clones of the
/// guard are dropped. All other layers settle it at the head: a circuit breaker's probe, or the
/// sample of an adaptive limit, does not last for hours.
///
/// **On a server** the handler makes the guard, adds one clone to the response, and keeps the other
/// while it serves the connection:
///
/// ```
/// use axum::{
///     Extension, Router,
///     extract::{WebSocketUpgrade, ws::WebSocket},
///     response::IntoResponse,
///     routing::get,
/// };
/// use tower_keep::{bulkhead::BulkheadLayer, protocol::http::{Server, UpgradeGuard}};
///
/// async fn chat(upgrade: WebSocketUpgrade) -> impl IntoResponse {
///     let guard = UpgradeGuard::new();
///     let held = guard.clone();
///     let response = upgrade.on_upgrade(|socket| async move {
///         serve(socket).await;
///         drop(held);
///     });
///     (Extension(guard), response)
/// }
///
/// async fn serve(mut socket: WebSocket) {
///     while let Some(Ok(message)) = socket.recv().await {
///         let _ = socket.send(message).await;
///     }
/// }
///
/// // At most a thousand open chats.
/// let layer = BulkheadLayer::builder(1000).protocol(Server::new()).build()?;
/// let app: Router = Router::new().route("/chat", get(chat)).layer(layer);
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
///
/// **On a client** [`Client`](super::Client) adds a guard to each response that hyper can upgrade.
/// Take it out before the response is dropped:
///
/// ```
/// # use http::Response;
/// use tower_keep::protocol::http::UpgradeGuard;
///
/// # fn upgrade<B>(mut response: Response<B>) {
/// let held = response.extensions_mut().remove::<UpgradeGuard>();
/// let upgraded = hyper::upgrade::on(response); // keep `held` as long as this
/// # let _ = (held, upgraded);
/// # }
/// ```
///
/// **Errors.** A guard on a response that is not a [success](Outcome::Success) keeps nothing.
///
/// **Cost.** An allocation for the guard, and one for each bulkhead.
#[derive(Clone, Default)]
#[must_use = "dropped at once, it keeps nothing in flight"]
pub struct UpgradeGuard {
    kept: Arc<Mutex<Vec<Box<dyn Any + Send>>>>,
}

impl UpgradeGuard {
    /// Creates a guard that keeps nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends a call at its head, and keeps the part that must last as long as the connection.
    fn keep<T: Settle>(&self, permit: T) {
        if let Some(rest) = permit.upgraded(Outcome::Success) {
            self.kept
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(rest);
        }
    }
}

/// Adds a guard to a response that can be upgraded, unless an inner layer has added one.
pub(super) fn guard<B>(response: &mut Response<B>) {
    let extensions = response.extensions_mut();
    if extensions.get::<OnUpgrade>().is_some() {
        extensions.get_or_insert_default::<UpgradeGuard>();
    }
}

/// Returns whether a response has a guard, which decides how long its call lasts.
pub(super) fn is_guarded<B>(response: &Response<B>) -> bool {
    response.extensions().get::<UpgradeGuard>().is_some()
}

/// Settles a permit by the head of a response, or leaves it to the response's guard.
pub(super) fn settle<B, T: Settle>(
    response: &Response<B>,
    mut permit: T,
    outcome: Outcome,
    hint: Option<Duration>,
) {
    let guard = response.extensions().get::<UpgradeGuard>();
    let Some(guard) = guard.filter(|_| outcome == Outcome::Success) else {
        let rejected = response.extensions().get::<Rejected>();
        return protocol::settle(permit, rejected, (outcome, hint));
    };
    if let Some(hint) = hint {
        permit.honor(hint);
    }
    guard.keep(permit);
}

impl fmt::Debug for UpgradeGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpgradeGuard")
    }
}
