//! What a user says of requests and responses by closures.

use std::{fmt, ops::Deref};

use http::{HeaderMap, StatusCode, request::Parts, response};

use crate::{Rejected, protocol::Advice};

/// A user's closure. Protocols are copied freely, so it is kept for as long as the program runs;
/// one that captures nothing takes no memory.
pub(super) struct Rule<F: ?Sized + 'static>(&'static F);

/// Which requests are idempotent.
pub(super) type IdempotentRule = Rule<dyn Fn(&Parts) -> bool + Send + Sync>;

/// What a retry may do after a response.
pub(super) type AdviceRule = Rule<dyn Fn(StatusCode, &HeaderMap) -> Option<Advice> + Send + Sync>;

/// What else the head of a rejection says.
pub(super) type HeadRule = Rule<dyn Fn(&mut response::Parts, &Rejected) + Send + Sync>;

impl IdempotentRule {
    pub(super) fn new(rule: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        Self(Box::leak(Box::new(rule)))
    }
}

impl AdviceRule {
    pub(super) fn new(
        rule: impl Fn(StatusCode, &HeaderMap) -> Option<Advice> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::leak(Box::new(rule)))
    }
}

impl HeadRule {
    pub(super) fn new(
        rule: impl Fn(&mut response::Parts, &Rejected) + Send + Sync + 'static,
    ) -> Self {
        Self(Box::leak(Box::new(rule)))
    }
}

impl<F: ?Sized> Deref for Rule<F> {
    type Target = F;

    fn deref(&self) -> &F {
        self.0
    }
}

impl<F: ?Sized> Clone for Rule<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: ?Sized> Copy for Rule<F> {}

impl<F: ?Sized> fmt::Debug for Rule<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a closure")
    }
}
