//! The failure of a call that a fallback answered.

use std::fmt;

use crate::{Outcome, RejectedKind, call::causes};

/// The failure of a call that a [fallback](crate::fallback) answered.
///
/// Over HTTP it is an extension of the response. Logs and outer layers can use it to separate the
/// upstream's responses from a fallback's. Other responses have no place for it. The fallback's
/// [snapshot](crate::fallback::Snapshot) counts the same failures by cause.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrimaryError {
    /// The outcome that the protocol gave the result.
    pub outcome: Outcome,
    /// The kind of the rejection, if an inner layer rejected the call.
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

/// Formats an error and its causes. Leaves out a cause that adds nothing to the text before it.
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
