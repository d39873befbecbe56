//! The meaning of a status, to a circuit and to a retry: one table for both. It is documented for
//! users in the module above.

use http::{Response, StatusCode};

use super::rules::ClassifyRule;
use crate::{Outcome, Rejected};

/// The reason that a status gives to retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retried {
    /// The same request gets the same response.
    Never,
    /// Retried if the response has a hint.
    WithHint,
    Always,
}

/// Returns the outcome of a response.
pub(super) fn outcome_of<B>(response: &Response<B>, classifier: Option<ClassifyRule>) -> Outcome {
    let rejected = response.extensions().get::<Rejected>();
    if let Some(outcome) = rejected.and_then(Rejected::outcome) {
        return outcome;
    }
    classifier
        .and_then(|classify| classify(response.status(), response.headers()))
        .unwrap_or_else(|| meaning(response.status()).0)
}

/// Returns the rejection of an inner layer of this crate, if that layer made the response.
pub(in crate::protocol) fn rejection_of<B>(response: &Response<B>) -> Option<&Rejected> {
    let rejected = response.extensions().get::<Rejected>();
    rejected.filter(|rejected| rejected.kind.is_local())
}

pub(super) fn meaning(status: StatusCode) -> (Outcome, Retried) {
    match status.as_u16() {
        429 => (Outcome::Overload, Retried::WithHint),
        // Not registered. Providers of language models use it for "overloaded".
        529 => (Outcome::Overload, Retried::Always),
        501 | 505 => (Outcome::Success, Retried::Never),
        502..=504 => (Outcome::Failure, Retried::Always),
        500..=599 => (Outcome::Failure, Retried::Never),
        _ => (Outcome::Success, Retried::Never),
    }
}

/// A set of 4xx and 5xx statuses. Other statuses are never members. It is a bit set, because it is
/// copied with its protocol on every call.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Statuses([u64; 4]);

impl Statuses {
    pub(super) fn insert(&mut self, status: StatusCode) {
        if let Some((word, bit)) = place(status) {
            self.0[word] |= bit;
        }
    }

    pub(super) fn contains(&self, status: StatusCode) -> bool {
        place(status).is_some_and(|(word, bit)| self.0[word] & bit != 0)
    }
}

/// Returns the word of a set, and the bit in it.
fn place(status: StatusCode) -> Option<(usize, u64)> {
    let index = status.as_u16().checked_sub(400).filter(|&i| i < 200)?;
    Some((usize::from(index / 64), 1 << (index % 64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_just_what_was_inserted() {
        let mut set = Statuses::default();
        let inserted = [400, 408, 463, 464, 500, 599];
        for status in inserted.into_iter().chain([100, 200, 399, 600, 999]) {
            set.insert(StatusCode::from_u16(status).unwrap());
        }
        for status in 100..=999 {
            let contains = set.contains(StatusCode::from_u16(status).unwrap());
            assert_eq!(contains, inserted.contains(&status), "{status}");
        }
    }
}
