//! How a call has failed that a fallback answered.

use std::fmt;

use crate::{Outcome, RejectedKind, call::causes};

/// How a call has failed that a [fallback](crate::fallback) answered otherwise.
///
/// Over HTTP it is an extension of the response, so that logs, and layers further out, can tell an
/// answer of the upstream from one in its place. Responses of other kinds have no room for it; the
/// fallback's [snapshot](crate::fallback::Snapshot) counts the same by cause.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrimaryError {
    /// What the protocol made of the result.
    pub outcome: Outcome,
    /// The layer beneath that rejected the call, where one did.
    pub rejected: Option<RejectedKind>,
    /// The result in words: an error with its causes, or a response's status.
    pub message: String,
}

impl PrimaryError {
    pub(crate) fn new(outcome: Outcome, rejected: Option<RejectedKind>, message: String) -> Self {
        Self {
            outcome,
            rejected,
            message,
        }
    }
}

impl fmt::Display for PrimaryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// An error and its causes, each that says more than the one before.
pub(crate) fn in_words(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).fold(String::new(), |words, cause| {
        let more = cause.to_string();
        if words.is_empty() {
            more
        } else if words.contains(&more) {
            words
        } else {
            words + ": " + &more
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{error::Error, io};

    use super::*;

    #[derive(Debug)]
    struct Outer(io::Error, &'static str);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.1)
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_each_once() {
        let told = |outer| in_words(&Outer(io::Error::other("reset"), outer));
        assert_eq!(told("not sent"), "not sent: reset");
        assert_eq!(told("not sent: reset"), "not sent: reset");
    }
}
