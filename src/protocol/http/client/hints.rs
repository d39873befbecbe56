//! The reading of an upstream's own limits by a client.

use std::mem;

use http::{Response, response::Parts};

use super::Client;
use crate::protocol::{
    Hint,
    http::{provider::Provider, rules::HintRule},
};

impl<K> Client<K> {
    /// Reads the upstream's hints in fields of its own: when to come back, and what is left of its
    /// quotas. A time to come back replaces the `Retry-After` of the same response, for
    /// [retries](crate::retry), rate limits and circuits alike. A rate limit
    /// [follows](crate::rate_limit::RateLimitBuilder::follow) the quotas.
    ///
    /// Each layer that reads responses calls the closure, for each response whose outcome is not
    /// `Ignore`. It lives as long as the program. It replaces an earlier closure and a
    /// [`provider`](Self::provider).
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_keep::protocol::{Hint, http::{Client, provider}};
    ///
    /// let fields = provider::openai();
    /// let client = Client::new().hints(move |head| {
    ///     // This region asks for a pause by a field of its own.
    ///     match head.headers.get("x-region-drained") {
    ///         Some(_) => Some(Hint::new().retry_after(Duration::from_secs(30))),
    ///         None => fields.read(&head.headers),
    ///     }
    /// });
    /// # let _ = client;
    /// ```
    #[must_use]
    pub fn hints<F>(mut self, read: F) -> Self
    where
        F: Fn(&Parts) -> Option<Hint> + Send + Sync + 'static,
    {
        self.hints = Some(HintRule::new(read));
        self
    }

    /// Reads the fields of a [provider](crate::protocol::http::provider), in place of a closure for
    /// [`hints`](Self::hints).
    #[must_use]
    pub fn provider(self, provider: Provider) -> Self {
        self.hints(move |head| provider.read(&head.headers))
    }

    /// Reads the hint of a response, if there is a rule for it. The head is lent to the rule, and
    /// not copied.
    pub(super) fn hint_of<B>(&self, response: &mut Response<B>) -> Option<Hint> {
        let rule = self.hints?;
        let (mut head, ()) = Response::new(()).into_parts();
        swap(&mut head, response);
        let hint = rule(&head);
        swap(&mut head, response);
        hint
    }

    /// Reads the hint of a response that cannot be changed, from a copy of its head.
    pub(super) fn hint_of_shared<B>(&self, response: &Response<B>) -> Option<Hint> {
        let rule = self.hints?;
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = response.status();
        head.version = response.version();
        head.headers = response.headers().clone();
        head.extensions = response.extensions().clone();
        rule(&head)
    }
}

fn swap<B>(head: &mut Parts, response: &mut Response<B>) {
    mem::swap(&mut head.status, response.status_mut());
    mem::swap(&mut head.version, response.version_mut());
    mem::swap(&mut head.headers, response.headers_mut());
    mem::swap(&mut head.extensions, response.extensions_mut());
}
