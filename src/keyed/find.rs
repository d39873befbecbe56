//! How keys are found, and what becomes of requests without one.

use std::{fmt, marker::PhantomData};

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

/// What finds keys of one type, whatever it finds them in.
pub trait HasKey {
    /// The type of the keys.
    type Key;
}

/// A closure `F` that finds keys in requests. `Req` is a request that it takes, and tells the type
/// of its keys; those that differ from it in a lifetime are requests as good.
///
/// The type of the keys is not a parameter. Of a key that is a reference, such as a `&'static str`,
/// a layer's type would then have the lifetime twice, here and in the closure, and the compiler
/// takes them for two where it looks whether a task can be spawned (`E0308`).
pub struct KeyFn<F, Req> {
    find: F,
    request: PhantomData<fn(&Req)>,
}

impl<F, Req> KeyFn<F, Req> {
    pub(crate) fn new(find: F) -> Self {
        Self {
            find,
            request: PhantomData,
        }
    }
}

impl<F, Req, K> HasKey for KeyFn<F, Req>
where
    F: Fn(&Req) -> Option<K>,
{
    type Key = K;
}

impl<F, Req, Other, K> FindKey<Other, K> for KeyFn<F, Req>
where
    F: Fn(&Other) -> Option<K>,
{
    #[inline]
    fn find(&self, request: &Other) -> Option<K> {
        (self.find)(request)
    }
}

impl<F: Clone, Req> Clone for KeyFn<F, Req> {
    fn clone(&self) -> Self {
        Self::new(self.find.clone())
    }
}

impl<F, Req> fmt::Debug for KeyFn<F, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFn")
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
