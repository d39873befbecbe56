//! The reading of results by a client.

use std::{error::Error, time::Duration};

use http::{Response, StatusCode};
use tower::BoxError;

use super::Client;
use crate::{
    Classify, Outcome, Rejected,
    protocol::{
        Advice, Hint, PrimaryError, Proof, Protocol, Sent, Settle, SpillReport, WouldReject,
        http::{
            error::ErrorCause,
            rate_limit_fields, retry_after,
            status::{self, Retried, outcome_of, rejection_of},
            upgrade,
        },
        in_words,
    },
};

impl<K, B, Err: 'static> Classify<Response<B>, Err> for Client<K> {
    fn classify(&self, result: Result<&Response<B>, &Err>) -> Outcome {
        match result {
            Ok(response) => outcome_of(response, self.classifier),
            Err(error) => ErrorCause::of_any(error).outcome(),
        }
    }
}

impl<K, B, Err> Protocol<Response<B>, Err> for Client<K>
where
    K: Clone,
    Err: Into<BoxError> + 'static,
{
    type Response<T: Settle> = Response<B>;
    type Error = BoxError;

    fn settle<T: Settle>(
        &self,
        result: Result<Response<B>, Err>,
        mut permit: T,
    ) -> Result<Response<B>, BoxError> {
        let mut result = result.map_err(Into::into);
        match &mut result {
            Ok(response) if !permit.reads_outcome() => upgrade::guard(response),
            Ok(response) => {
                let outcome = outcome_of(response, self.classifier);
                let reads_hints = permit.reads_hints() && outcome != Outcome::Ignore;
                let told = reads_hints.then(|| self.hint_of(response)).flatten();
                if let Some(told) = &told {
                    permit.told(told);
                }
                let after = || come_back_after(outcome, response, told.as_ref());
                let hint = reads_hints.then(after).flatten();
                upgrade::guard(response);
                upgrade::settle(response, permit, outcome, hint);
            }
            Err(error) => ErrorCause::of(&**error).settle(permit),
        }
        result
    }

    fn reject<T: Settle>(&self, rejected: Box<Rejected>) -> Result<Response<B>, BoxError> {
        Err(rejected)
    }

    fn not_ready(&self, error: Err) -> BoxError {
        error.into()
    }

    fn advise(&self, outcome: Outcome, result: Result<&Response<B>, &BoxError>) -> Advice {
        match result {
            Ok(response) => self.advise_on_response(outcome, response),
            Err(error) => self.advise_on_error(ErrorCause::of(&**error)),
        }
    }

    fn proof(&self, advice: Advice, result: Result<&Response<B>, &BoxError>) -> Proof {
        match result {
            // A response arrived, so the request was sent, and the upstream itself reports that it
            // did not act on it.
            Ok(_) if Proof::from(advice) == Proof::NotSent && self.is_told(advice) => {
                Proof::Unprocessed
            }
            Ok(_) => advice.into(),
            Err(error) => ErrorCause::of(&**error).proof(advice),
        }
    }

    #[inline]
    fn judge(&self, classified: Outcome, result: Result<&Response<B>, &BoxError>) -> Outcome {
        result.map_or_else(|error| ErrorCause::of(&**error).outcome(), |_| classified)
    }

    fn status(&self, response: &Response<B>) -> Option<u16> {
        Some(response.status().as_u16())
    }

    fn error<'a>(&self, error: &'a BoxError) -> Option<&'a (dyn Error + 'static)> {
        Some(&**error)
    }

    fn describe(&self, result: Result<&Response<B>, &BoxError>) -> String {
        match result {
            Ok(response) => response.status().to_string(),
            Err(error) => in_words(&**error),
        }
    }

    fn note_spill<T: Settle>(&self, response: &mut Response<B>, report: SpillReport) {
        response.extensions_mut().insert(report);
    }

    fn note_primary<T: Settle>(&self, response: &mut Response<B>, primary: PrimaryError) {
        response.extensions_mut().insert(primary);
    }

    fn note_would_reject<T: Settle>(&self, response: &mut Response<B>, mark: WouldReject) {
        response.extensions_mut().insert(mark);
    }
}

impl<K> Client<K> {
    /// Returns whether the advice is a closure's, and not an inner rejection.
    fn is_told(&self, advice: Advice) -> bool {
        self.advice.is_some() && !matches!(advice, Advice::Rejected { .. })
    }

    fn advise_on_response<B>(&self, outcome: Outcome, response: &Response<B>) -> Advice {
        if let Some(rejected) = rejection_of(response) {
            return Advice::from(rejected);
        }
        let status = response.status();
        let told = self
            .advice
            .and_then(|rule| rule(status, response.headers()));
        if let Some(advice) = told {
            return advice;
        }
        let bad = matches!(outcome, Outcome::Failure | Outcome::Overload);
        let by_table = match status::meaning(status).1 {
            _ if !bad => Retried::Never,
            retried => retried,
        };
        let also = self.also_retried.contains(status);
        let forbidden = self.strict && status == StatusCode::TOO_MANY_REQUESTS;
        // Known without the fields, which are not read in vain.
        if forbidden || (by_table == Retried::Never && !also) {
            return Advice::Stop;
        }
        let after = self
            .hint_of_shared(response)
            .and_then(|hint| hint.retry_after)
            .or_else(|| retry_after::parse(response.headers()));
        if by_table == Retried::WithHint && after.is_none() && !also {
            return Advice::Stop;
        }
        Advice::Retry {
            sent: Sent::Maybe,
            after,
        }
    }
}

/// Returns when the upstream wants the next call. As in the draft, `Retry-After` goes before
/// `RateLimit`. On a success `Retry-After` has no such meaning, but "nothing left" has. A hint
/// replaces `Retry-After`, because it is more exact.
fn come_back_after<B>(
    outcome: Outcome,
    response: &Response<B>,
    hint: Option<&Hint>,
) -> Option<Duration> {
    let asked = match outcome {
        Outcome::Ignore => return None,
        Outcome::Success => None,
        Outcome::Failure | Outcome::Overload => hint
            .and_then(|hint| hint.retry_after)
            .or_else(|| retry_after::parse(response.headers())),
    };
    asked.or_else(|| rate_limit_fields::used_up(response))
}
