//! The answers of a page, and the headers that keep them to whom they are for.

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER,
    },
    response::Builder,
};

use super::body::PageBody;
use crate::ambient::chance;

/// The page itself, with a nonce of its own for its one script and its one style.
pub(super) fn html() -> Response<PageBody> {
    let nonce = format!("{:016x}{:016x}", chance::word(), chance::word());
    let text = HTML.replace("NONCE", &nonce);
    // Icons are within the page. The rest comes from where the page did.
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let answer = guarded(StatusCode::OK).header(CONTENT_SECURITY_POLICY, policy);
    finished(answer, "text/html; charset=utf-8", text)
}

pub(super) fn json(model: &serde_json::Value) -> Response<PageBody> {
    let answer = closed(StatusCode::OK);
    finished(answer, "application/json", model.to_string())
}

/// The head of the events, whose body never ends.
pub(super) fn events(body: PageBody) -> Response<PageBody> {
    let answer = closed(StatusCode::OK)
        .header(CONTENT_TYPE, "text/event-stream")
        // To nginx and others: do not hold events back until there are many.
        .header("x-accel-buffering", "no");
    answered(answer, body)
}

/// A refusal, in words for a person.
pub(super) fn refusal(status: StatusCode, words: &'static str) -> Response<PageBody> {
    let mut answer = closed(status);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        answer = answer.header(ALLOW, "GET, HEAD");
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer = answer.header(RETRY_AFTER, "2");
    }
    finished(answer, "text/plain; charset=utf-8", words)
}

/// The answer to a `GET` as a `HEAD` gets it.
pub(super) fn head(answer: Response<PageBody>) -> Response<PageBody> {
    answer.map(|_| PageBody::text(""))
}

fn closed(status: StatusCode) -> Builder {
    guarded(status).header(
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    )
}

/// Nobody keeps, guesses, frames, changes or passes on what is answered.
fn guarded(status: StatusCode) -> Builder {
    Response::builder()
        .status(status)
        .header(CACHE_CONTROL, "no-store, no-transform")
        .header("x-content-type-options", "nosniff")
        .header("x-frame-options", "DENY")
        .header("referrer-policy", "no-referrer")
        .header("cross-origin-resource-policy", "same-origin")
        .header("cross-origin-opener-policy", "same-origin")
}

fn finished(answer: Builder, kind: &'static str, text: impl Into<Bytes>) -> Response<PageBody> {
    let text = text.into();
    let answer = answer
        .header(CONTENT_TYPE, kind)
        .header(CONTENT_LENGTH, HeaderValue::from(text.len()));
    answered(answer, PageBody::text(text))
}

fn answered(answer: Builder, body: PageBody) -> Response<PageBody> {
    match answer.body(body) {
        Ok(answer) => answer,
        Err(_) => unreachable!("the headers are literals and hexadecimal digits"),
    }
}

const HTML: &str = include_str!("page.html");
