//! How keys are found, and what becomes of requests without one.

/// Finds the key of a request. A closure `Fn(&Req) -> Option<K>` does.
pub trait FindKey<Req, K> {
    /// The key, or `None` if the request has none.
    fn find(&self, request: &Req) -> Option<K>;
}

impl<F, Req, K> FindKey<Req, K> for F
where
    F: Fn(&Req) -> Option<K>,
{
    #[inline]
    fn find(&self, request: &Req) -> Option<K> {
        self(request)
    }
}

/// What becomes of a request that has no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum Missing {
    /// All of them together are treated as one key: leaving the key out gains nothing.
    #[default]
    Share,
    /// It is rejected, as [`MissingKey`](crate::RejectedKind::MissingKey): a 400 on an HTTP server.
    Reject,
    /// It is admitted without a limit.
    Allow,
}
