//! The settings of a client for single calls.

use std::{any::Any, mem};

use http::{Request, request::Parts};

use super::Client;
use crate::{
    CallSettings,
    protocol::{
        Changing,
        http::{
            Attempt, RequestHead,
            rules::{ChangingRule, ResendRule, SettingsRule},
        },
    },
};

impl<K> Client<K> {
    /// Sets defaults by request head, for settings that a request does not have in a
    /// [`CallSettings`] extension, for example the timeout of a host or the cost of a path. The
    /// closure may be called more than once for a request. It lives as long as the program.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_keep::{CallSettings, protocol::http::Client, stack};
    ///
    /// let stack = stack::client().http().protocol(|client: Client| {
    ///     client.call_settings(|head| match head.uri.host() {
    ///         Some("reports.example") => CallSettings::new()
    ///             .attempt_timeout(Duration::from_secs(20))
    ///             .total_timeout(Duration::from_secs(60))
    ///             .attempts(1),
    ///         _ => CallSettings::new(),
    ///     })
    /// });
    /// # let _ = stack.build().unwrap();
    /// ```
    #[must_use]
    pub fn call_settings<F>(mut self, settings: F) -> Self
    where
        F: Fn(&RequestHead<'_>) -> CallSettings + Send + Sync + 'static,
    {
        self.settings = Some(SettingsRule::new(settings));
        self
    }

    /// Changes the head of a request just before a retry or a hedge sends it again: a new token
    /// after a 401, another host. The extension [`Attempt`](crate::protocol::http::Attempt) has the
    /// number of the attempt. In a stack, the gates see the changed request. The closure runs in
    /// the call's task, so it must not block: [`before_retry_async`](Self::before_retry_async) may
    /// wait. It lives as long as the program.
    ///
    /// ```
    /// use std::sync::{Arc, RwLock};
    /// use http::{HeaderValue, StatusCode, header::AUTHORIZATION};
    /// use tower_keep::protocol::{Advice, Sent, http::Client};
    ///
    /// let token = Arc::new(RwLock::new(HeaderValue::from_static("Bearer new")));
    /// let client = Client::new()
    ///     // The server has not acted on a request that it answers with a 401.
    ///     .advise(|status, _| {
    ///         let again = Advice::Retry { sent: Sent::No, after: None };
    ///         (status == StatusCode::UNAUTHORIZED).then_some(again)
    ///     })
    ///     .before_retry(move |head| {
    ///         let token = token.read().unwrap().clone();
    ///         head.headers.insert(AUTHORIZATION, token);
    ///     });
    /// # let _ = client;
    /// ```
    #[must_use]
    pub fn before_retry<F>(mut self, change: F) -> Self
    where
        F: Fn(&mut Parts) + Send + Sync + 'static,
    {
        self.before_retry = Some(ResendRule::new(change));
        self
    }

    /// Changes the head like [`before_retry`](Self::before_retry), with a future, for example to
    /// fetch a new token. The closure takes the head and returns a future of the head that is sent.
    /// If nothing can be changed, return the head as it was.
    ///
    /// The future runs after the backoff, until the call's deadline, at which the call ends.
    /// Nothing else bounds it: give it a timeout. It is dropped with the call. Two calls fetch two
    /// tokens, unless you share the fetch in progress. Another retry runs it again.
    ///
    /// ```
    /// use http::{HeaderValue, StatusCode, header::AUTHORIZATION, request::Parts};
    /// use tower_keep::protocol::{Advice, Sent, http::Client};
    /// # #[derive(Clone)] struct Tokens;
    /// # impl Tokens {
    /// #     async fn fetch(&self) -> HeaderValue { HeaderValue::from_static("Bearer 7") }
    /// # }
    ///
    /// let tokens = Tokens;
    /// let client = Client::new()
    ///     .advise(|status, _| {
    ///         let again = Advice::Retry { sent: Sent::No, after: None };
    ///         (status == StatusCode::UNAUTHORIZED).then_some(again)
    ///     })
    ///     .before_retry_async(move |mut head: Parts| {
    ///         let tokens = tokens.clone();
    ///         async move {
    ///             head.headers.insert(AUTHORIZATION, tokens.fetch().await);
    ///             head
    ///         }
    ///     });
    /// # let _ = client;
    /// ```
    #[must_use]
    pub fn before_retry_async<F, Fut>(mut self, change: F) -> Self
    where
        F: Fn(Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Parts> + Send + 'static,
    {
        self.changing = Some(ChangingRule::new(move |head| Changing::new(change(head))));
        self
    }

    /// Starts the future that changes a replayed request.
    #[inline]
    pub(in crate::protocol) fn changing_head<B>(
        &self,
        request: &mut Request<B>,
        attempt: u32,
    ) -> Option<Changing> {
        let change = self.changing?;
        let before = Attempt::of(request.extensions());
        let number = Attempt::counted_on(request.extensions(), attempt);
        request.extensions_mut().insert(number);
        let (mut head, ()) = Request::new(()).into_parts();
        swap(&mut head, request);
        // Kept in the request, which is without its head now: numbering it counts on from there.
        request.extensions_mut().insert(before);
        Some(change(head))
    }

    /// Applies the head that the future has returned.
    pub(in crate::protocol) fn changed_head<B>(
        &self,
        request: &mut Request<B>,
        to: Box<dyn Any + Send>,
    ) {
        if let Ok(mut head) = to.downcast::<Parts>() {
            let before = Attempt::of(request.extensions());
            swap(&mut head, request);
            request.extensions_mut().insert(before);
        }
    }

    /// Returns the settings of a request, with the closure's defaults.
    #[inline]
    pub(in crate::protocol) fn settings_of(&self, head: &RequestHead<'_>) -> CallSettings {
        let own = head.settings();
        match self.settings {
            Some(rule) => own.or(rule(head)),
            None => own,
        }
    }

    /// Returns whether a closure may change the head of a replayed request.
    #[inline]
    pub(in crate::protocol) fn changes_heads(&self) -> bool {
        self.before_retry.is_some() || self.changing.is_some()
    }

    /// Lets the closure change a replayed request.
    pub(super) fn change_head<B>(&self, request: &mut Request<B>) {
        let Some(change) = self.before_retry else {
            return;
        };
        let (mut head, ()) = Request::new(()).into_parts();
        swap(&mut head, request);
        change(&mut head);
        swap(&mut head, request);
    }
}

fn swap<B>(head: &mut Parts, request: &mut Request<B>) {
    mem::swap(&mut head.method, request.method_mut());
    mem::swap(&mut head.uri, request.uri_mut());
    mem::swap(&mut head.version, request.version_mut());
    mem::swap(&mut head.headers, request.headers_mut());
    mem::swap(&mut head.extensions, request.extensions_mut());
}
