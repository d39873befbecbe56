//! The conditions of a fault on calls.

use std::{fmt, hash::Hash};

use http::{HeaderValue, Request};

use crate::{
    fault::fate::Draw,
    keyed::{FindKey, HasKey, KeyFn},
};

/// A condition on the calls of a fault, besides its share and its times. Made by the setters of a
/// [`Fault`](super::Fault).
pub trait Condition<Req> {
    /// Returns whether a fault of this name applies to a request. May change what the share is
    /// drawn from.
    fn holds(&self, name: &str, request: &Req, draw: &mut Draw) -> bool;
}

/// All calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Always;

/// The calls `W` that a closure accepts.
#[derive(Clone, Copy)]
pub struct When<W, F> {
    pub(super) before: W,
    pub(super) accepts: F,
}

/// The calls `W` that go to one of the sick peers.
#[derive(Clone)]
pub struct OfPeers<W, F, Req> {
    pub(super) before: W,
    pub(super) share: f64,
    pub(super) key: KeyFn<F, Req>,
}

/// The calls `W`, identified by a key and not by their number.
#[derive(Clone)]
pub struct Keyed<W, F, Req> {
    pub(super) before: W,
    pub(super) key: KeyFn<F, Req>,
}

/// The calls `W` whose header requests the fault, and that a guard accepts.
#[derive(Clone)]
pub struct AskedFor<W, G> {
    pub(super) before: W,
    pub(super) header: &'static str,
    pub(super) guard: G,
}

impl<Req> Condition<Req> for Always {
    fn holds(&self, _: &str, _: &Req, _: &mut Draw) -> bool {
        true
    }
}

impl<Req, W, F> Condition<Req> for When<W, F>
where
    W: Condition<Req>,
    F: Fn(&Req) -> bool,
{
    fn holds(&self, name: &str, request: &Req, draw: &mut Draw) -> bool {
        self.before.holds(name, request, draw) && (self.accepts)(request)
    }
}

impl<Req, W, F, First> Condition<Req> for OfPeers<W, F, First>
where
    W: Condition<Req>,
    KeyFn<F, First>: HasKey<Key: Hash> + FindKey<Req, <KeyFn<F, First> as HasKey>::Key>,
{
    fn holds(&self, name: &str, request: &Req, draw: &mut Draw) -> bool {
        self.before.holds(name, request, draw)
            && self
                .key
                .find(request)
                .is_some_and(|peer| draw.hits_peer(self.share, &peer))
    }
}

impl<Req, W, F, First> Condition<Req> for Keyed<W, F, First>
where
    W: Condition<Req>,
    KeyFn<F, First>: HasKey<Key: Hash> + FindKey<Req, <KeyFn<F, First> as HasKey>::Key>,
{
    fn holds(&self, name: &str, request: &Req, draw: &mut Draw) -> bool {
        if !self.before.holds(name, request, draw) {
            return false;
        }
        if let Some(key) = self.key.find(request) {
            *draw = draw.by_key(&key);
        }
        true
    }
}

impl<B, W, G> Condition<Request<B>> for AskedFor<W, G>
where
    W: Condition<Request<B>>,
    G: Fn(&Request<B>) -> bool,
{
    /// Returns whether the fault applies. The guard only sees requests with the header.
    fn holds(&self, name: &str, request: &Request<B>, draw: &mut Draw) -> bool {
        let mut fields = request.headers().get_all(self.header).iter();
        self.before.holds(name, request, draw)
            && fields.any(|field| lists(field, name))
            && (self.guard)(request)
    }
}

/// Returns whether a field is a list with this name in it.
fn lists(field: &HeaderValue, name: &str) -> bool {
    field
        .to_str()
        .is_ok_and(|field| field.split(',').any(|one| one.trim() == name))
}

impl<W: fmt::Debug, F> fmt::Debug for When<W, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("When").field(&self.before).finish()
    }
}

impl<W: fmt::Debug, F, Req> fmt::Debug for OfPeers<W, F, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfPeers")
            .field("before", &self.before)
            .field("share", &self.share)
            .finish_non_exhaustive()
    }
}

impl<W: fmt::Debug, F, Req> fmt::Debug for Keyed<W, F, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyed").field(&self.before).finish()
    }
}

impl<W: fmt::Debug, G> fmt::Debug for AskedFor<W, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskedFor")
            .field("before", &self.before)
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}
