//! Traits that find the key of a request, and the setting for requests without a key.

use std::{fmt, marker::PhantomData};

/// Finds the key of a request. Implemented by closures `Fn(&Req) -> Option<K>`.
pub trait FindKey<Req, K> {
    /// Returns the key, or `None` if the request has none.
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

/// A marker in the place of a key: the key was looked for, and the request has none.
#[derive(Debug)]
pub(crate) struct Keyless;

/// A finder of keys of one type, whatever the type of request.
pub trait HasKey {
    /// The type of the keys.
    type Key;
}

/// A closure `F` that finds keys in requests. `Req` is one type of request that it accepts, from
/// which the type of its keys follows. Requests that differ from `Req` only in a lifetime are
/// accepted too.
///
/// The type of the keys is not a parameter. If a key is a reference, such as a `&'static str`, the
/// layer's type would have that lifetime twice, here and in the closure. When the compiler checks
/// whether a task can be spawned, it takes them for two different lifetimes (`E0308`).
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

/// The treatment of a request that has no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum Missing {
    /// All requests without a key are treated as one key, so that leaving the key out gains
    /// nothing.
    #[default]
    Share,
    /// The request is rejected, as [`MissingKey`](crate::RejectedKind::MissingKey): a 400 on an
    /// HTTP server.
    Reject,
    /// The request is admitted without a limit.
    Allow,
}
