//! The user's closures on requests and responses.

use std::{fmt, ops::Deref};

use http::{HeaderMap, StatusCode, request::Parts, response};

use super::head::RequestHead;
use crate::{
    CallSettings, Outcome, Rejected,
    protocol::{Advice, Changing, Hint},
};

/// A user's closure. Protocols are copied freely, so the closure is leaked and lives as long as the
/// program. A closure that captures nothing takes no memory.
pub(in crate::protocol) struct Rule<F: ?Sized + 'static>(&'static F);

/// Returns whether a request is idempotent.
pub(super) type IdempotentRule = Rule<dyn Fn(&Parts) -> bool + Send + Sync>;

/// Returns what a retry may do after a response. `None` leaves it to the table.
pub(super) type AdviceRule = Rule<dyn Fn(StatusCode, &HeaderMap) -> Option<Advice> + Send + Sync>;

/// Returns the outcome of a response. `None` leaves it to the table.
pub(super) type ClassifyRule =
    Rule<dyn Fn(StatusCode, &HeaderMap) -> Option<Outcome> + Send + Sync>;

/// Returns the settings that a request does not have itself.
pub(super) type SettingsRule = Rule<dyn Fn(&RequestHead<'_>) -> CallSettings + Send + Sync>;

/// Changes a replayed request.
pub(super) type ResendRule = Rule<dyn Fn(&mut Parts) + Send + Sync>;

/// Reads the upstream's limits from a response.
pub(super) type HintRule = Rule<dyn Fn(&response::Parts) -> Option<Hint> + Send + Sync>;

/// Changes a replayed request, with a future.
pub(super) type ChangingRule = Rule<dyn Fn(Parts) -> Changing + Send + Sync>;

/// Returns whether a method is idempotent, by its path.
#[cfg(feature = "tonic-014")]
pub(in crate::protocol) type PathRule = Rule<dyn Fn(&str) -> bool + Send + Sync>;

/// Changes the head of a rejection.
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

impl ClassifyRule {
    pub(super) fn new(
        rule: impl Fn(StatusCode, &HeaderMap) -> Option<Outcome> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::leak(Box::new(rule)))
    }
}

impl SettingsRule {
    pub(super) fn new(
        rule: impl Fn(&RequestHead<'_>) -> CallSettings + Send + Sync + 'static,
    ) -> Self {
        Self(Box::leak(Box::new(rule)))
    }
}

impl ResendRule {
    pub(super) fn new(rule: impl Fn(&mut Parts) + Send + Sync + 'static) -> Self {
        Self(Box::leak(Box::new(rule)))
    }
}

impl HintRule {
    pub(super) fn new(
        rule: impl Fn(&response::Parts) -> Option<Hint> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::leak(Box::new(rule)))
    }
}

impl ChangingRule {
    pub(super) fn new(rule: impl Fn(Parts) -> Changing + Send + Sync + 'static) -> Self {
        Self(Box::leak(Box::new(rule)))
    }
}

#[cfg(feature = "tonic-014")]
impl PathRule {
    pub(in crate::protocol) fn new(rule: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
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
