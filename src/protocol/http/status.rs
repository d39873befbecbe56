//! What a status means, to a circuit and to a retry: the one table of both. Its documentation for
//! users is in the module above.

use http::{Response, StatusCode};

use super::rules::ClassifyRule;
use crate::{Outcome, Rejected};

/// Whether a status is a reason to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retried {
    /// The same request gets the same response.
    Never,
    /// If the response says when to come back.
    WithHint,
    Always,
}

/// What a response says about the service that made it.
pub(super) fn outcome_of<B>(response: &Response<B>, classifier: Option<ClassifyRule>) -> Outcome {
    let rejected = response.extensions().get::<Rejected>();
    if let Some(outcome) = rejected.and_then(Rejected::outcome) {
        return outcome;
    }
    classifier
        .and_then(|classify| classify(response.status(), response.headers()))
        .unwrap_or_else(|| meaning(response.status()).0)
}

/// The rejection of a layer of this crate further in, if that made the response in place of the
/// service.
pub(in crate::protocol) fn rejection_of<B>(response: &Response<B>) -> Option<&Rejected> {
    let rejected = response.extensions().get::<Rejected>();
    rejected.filter(|rejected| rejected.kind.is_local())
}

pub(super) fn meaning(status: StatusCode) -> (Outcome, Retried) {
    match status.as_u16() {
        429 => (Outcome::Overload, Retried::WithHint),
        501 | 505 => (Outcome::Success, Retried::Never),
        502..=504 => (Outcome::Failure, Retried::Always),
        500..=599 => (Outcome::Failure, Retried::Never),
        _ => (Outcome::Success, Retried::Never),
    }
}

/// A set of 4xx and 5xx statuses, of which the others are never members. As bits, it is copied with
/// its protocol on every call.
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

/// The word of a set, and the bit in it.
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
