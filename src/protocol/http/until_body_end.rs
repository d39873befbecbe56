//! Results that are known only at the end of the body.

use std::{any::Any, cell::Cell, error::Error, fmt, time::Duration};

use http::{HeaderMap, Response};
use http_body::Body;

use super::{
    status::rejection_of,
    tracked_body::{TrackedBody, settled, track},
};
use crate::{
    Classify, Deadline, Outcome, Rejected,
    protocol::{
        Advice, Hint, PrimaryError, Proof, Protocol, Quota, Settle, SpillReport, WouldReject,
    },
};

/// Holds a call's permit until the response's body ends, over any protocol of HTTP responses.
///
/// A head whose outcome is not a success settles the permit at once. After a good head the body
/// decides:
///
/// | the body | outcome |
/// |---|---|
/// | ends, or has delivered the length that it promised | [`Success`](Outcome::Success) |
/// | ends with trailers | the outcome that [`trailers`](Self::trailers) returns, by default a success |
/// | fails | [`Failure`](Outcome::Failure) |
/// | has no bytes to deliver: an empty one, a 204, a 304 | `Success`, at the head |
/// | is dropped before it was ever polled, as after a HEAD | `Success`: the head was enough |
/// | is dropped in the middle | none: the call was abandoned |
/// | has a response with an [`UpgradeGuard`](super::UpgradeGuard) | `Success`, at the head. A bulkhead counts it until the guard is dropped |
///
/// The promised length is the body's exact size hint, or `Content-Length`. A reader of a known
/// length, such as hyper, drops the body at that length, and never polls for the end.
///
/// A bulkhead then counts a call in flight until the last byte. The reader can be slow as well as
/// the upstream. So the permit is notified of the head ([`Settle::answered`]), and may judge
/// slowness by that. A hint in a good head is honored at once.
///
/// ```
/// use tower_keep::{Outcome, bulkhead::BulkheadLayer, protocol::http};
///
/// // An export is streamed, and tells in a trailer whether all rows are there.
/// let protocol = http::UntilBodyEnd::new(http::Client::new()).trailers(|trailers| {
///     let complete = trailers.get("x-export").is_some_and(|export| export == "complete");
///     if complete { Outcome::Success } else { Outcome::Failure }
/// });
/// let bulkhead = BulkheadLayer::builder(10).protocol(protocol).build()?;
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct UntilBodyEnd<P> {
    protocol: P,
    trailers: Option<fn(&HeaderMap) -> Outcome>,
    first_byte: bool,
}

/// Records how another protocol settles a result, in place of a permit.
pub struct Note<'a> {
    notes: &'a Notes,
    reads_outcome: bool,
}

/// The record of one result.
#[derive(Default)]
struct Notes {
    end: Cell<Option<Noted>>,
    hint: Cell<Option<Hint>>,
}

/// The end of a result, as another protocol settles it.
#[derive(Debug, Clone, Copy)]
enum Noted {
    Settled(Outcome, Option<Duration>),
    /// Cut short by the caller's deadline. True if it was late.
    CutShort(bool),
}

impl<P> UntilBodyEnd<P> {
    /// Wraps `protocol`, which reads the heads. Trailers are a success.
    pub fn new(protocol: P) -> Self {
        Self {
            protocol,
            trailers: None,
            first_byte: false,
        }
    }

    /// Ends the call with the first byte of the body, as a success, instead of its end. Use it for
    /// streams whose head arrives at once. An adaptive limit then measures the time to the first
    /// byte, and a bulkhead counts a call until then. A body without bytes ends as usual.
    #[must_use]
    pub fn until_first_byte(mut self) -> Self {
        self.first_byte = true;
        self
    }

    /// Sets the outcome of trailers. A body is then read up to them, or dropped, whatever length it
    /// promised.
    #[must_use]
    pub fn trailers(mut self, classify: fn(&HeaderMap) -> Outcome) -> Self {
        self.trailers = Some(classify);
        self
    }

    /// Returns the protocol that reads the heads.
    pub(super) fn inner(&self) -> &P {
        &self.protocol
    }
}

impl<P, B, Err> Classify<Response<B>, Err> for UntilBodyEnd<P>
where
    P: Classify<Response<B>, Err>,
{
    fn classify(&self, result: Result<&Response<B>, &Err>) -> Outcome {
        self.protocol.classify(result)
    }
}

impl<P, B, Err> Protocol<Response<B>, Err> for UntilBodyEnd<P>
where
    P: for<'a> Protocol<Response<B>, Err, Response<Note<'a>> = Response<B>>,
    B: Body,
{
    type Response<T: Settle> = Response<TrackedBody<B, T>>;
    type Error = <P as Protocol<Response<B>, Err>>::Error;

    fn settle<T: Settle>(
        &self,
        result: Result<Response<B>, Err>,
        mut permit: T,
    ) -> Result<Self::Response<T>, Self::Error> {
        let notes = Notes::default();
        let note = Note {
            notes: &notes,
            reads_outcome: permit.reads_outcome(),
        };
        let result = self.protocol.settle(result, note);
        if let Some(hint) = notes.hint.take() {
            permit.told(&hint);
        }
        match (result, notes.end.get()) {
            (Ok(response), Some(Noted::Settled(Outcome::Success, retry_after))) => {
                if let Some(retry_after) = retry_after {
                    permit.honor(retry_after);
                }
                Ok(track(response, permit, (self.trailers, self.first_byte)))
            }
            (result, note) => {
                match note {
                    Some(Noted::Settled(outcome, retry_after)) => {
                        permit.settle(outcome, retry_after);
                    }
                    Some(Noted::CutShort(late)) => permit.cut_short(late),
                    None => {}
                }
                result.map(settled)
            }
        }
    }

    fn reject<T: Settle>(&self, rejected: Box<Rejected>) -> Result<Self::Response<T>, Self::Error> {
        self.protocol.reject::<Note<'_>>(rejected).map(settled)
    }

    fn not_ready(&self, error: Err) -> Self::Error {
        self.protocol.not_ready(error)
    }

    fn advertise<T: Settle>(
        &self,
        response: Self::Response<T>,
        quota: &Quota,
    ) -> Self::Response<T> {
        let (parts, body) = response.into_parts();
        let (body, pending) = body.into_parts();
        let response = self
            .protocol
            .advertise::<Note<'_>>(Response::from_parts(parts, body), quota);
        response.map(|body| TrackedBody::from_parts(body, pending))
    }

    /// Advises on errors and rejections only. Other responses are not retried: their outcome is
    /// known only after they were passed on.
    fn advise(
        &self,
        outcome: Outcome,
        result: Result<&Self::Response<()>, &Self::Error>,
    ) -> Advice {
        match result {
            Ok(response) => rejection_of(response).map_or(Advice::Stop, Advice::from),
            Err(error) => self.protocol.advise(outcome, Err(error)),
        }
    }

    fn proof(&self, advice: Advice, result: Result<&Self::Response<()>, &Self::Error>) -> Proof {
        match result {
            Ok(_) => advice.into(),
            Err(error) => self.protocol.proof(advice, Err(error)),
        }
    }

    fn deadline_of(&self, request: &dyn Any) -> Option<Deadline> {
        self.protocol.deadline_of(request)
    }

    fn tell_deadline(&self, request: &mut dyn Any, deadline: Deadline) {
        self.protocol.tell_deadline(request, deadline);
    }

    #[inline]
    fn judge(
        &self,
        classified: Outcome,
        result: Result<&Self::Response<()>, &Self::Error>,
    ) -> Outcome {
        match result {
            Ok(_) => classified,
            Err(error) => self.protocol.judge(classified, Err(error)),
        }
    }

    fn keep(&self, error: Self::Error) -> Option<Self::Error> {
        self.protocol.keep(error)
    }

    fn status(&self, response: &Self::Response<()>) -> Option<u16> {
        Some(response.status().as_u16())
    }

    fn error<'a>(&self, error: &'a Self::Error) -> Option<&'a (dyn Error + 'static)> {
        self.protocol.error(error)
    }

    fn describe(&self, result: Result<&Self::Response<()>, &Self::Error>) -> String {
        match result {
            Ok(response) => response.status().to_string(),
            Err(error) => self.protocol.describe(Err(error)),
        }
    }

    fn note_spill<T: Settle>(&self, response: &mut Self::Response<T>, report: SpillReport) {
        response.extensions_mut().insert(report);
    }

    fn note_primary<T: Settle>(&self, response: &mut Self::Response<T>, primary: PrimaryError) {
        response.extensions_mut().insert(primary);
    }

    fn note_would_reject<T: Settle>(&self, response: &mut Self::Response<T>, mark: WouldReject) {
        response.extensions_mut().insert(mark);
    }
}

impl Settle for Note<'_> {
    fn settle(self, outcome: Outcome, retry_after: Option<Duration>) {
        self.notes
            .end
            .set(Some(Noted::Settled(outcome, retry_after)));
    }

    fn cut_short(self, late: bool) {
        self.notes.end.set(Some(Noted::CutShort(late)));
    }

    fn reads_outcome(&self) -> bool {
        self.reads_outcome
    }

    fn told(&mut self, hint: &Hint) {
        self.notes.hint.set(Some(hint.clone()));
    }
}

impl fmt::Debug for Note<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Note")
    }
}
