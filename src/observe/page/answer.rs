//! The answers of a page, with headers that protect them.

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

/// Returns the page itself, with a fresh nonce for its one script and its one style.
pub(super) fn html() -> Response<PageBody> {
    let nonce = format!("{:016x}{:016x}", chance::word(), chance::word());
    let text = HTML.replace("NONCE", &nonce);
    // Icons are part of the page. The rest is loaded from the page's own origin.
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

/// Returns the head of the events, whose body never ends.
pub(super) fn events(body: PageBody) -> Response<PageBody> {
    let answer = closed(StatusCode::OK)
        .header(CONTENT_TYPE, "text/event-stream")
        // Tells nginx and others not to buffer events.
        .header("x-accel-buffering", "no");
    answered(answer, body)
}

/// Returns a rejection with a text for a person.
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

/// Returns the answer of a `GET` without its body, for a `HEAD`.
pub(super) fn head(answer: Response<PageBody>) -> Response<PageBody> {
    answer.map(|_| PageBody::text(""))
}

fn closed(status: StatusCode) -> Builder {
    guarded(status).header(
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    )
}

/// Starts an answer that may not be cached, sniffed, framed, changed or shared with other sites.
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
