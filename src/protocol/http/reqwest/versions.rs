//! The common interface of reqwest's versions.

use std::{error, time::Duration};

use bytes::Bytes;
use http::{Extensions, Request, Response};
use http_body::Body;
use tower::BoxError;

/// A client of reqwest, of either version.
pub trait ReqwestClient: Clone {
    /// reqwest's request.
    type Request;
    /// reqwest's builder of requests.
    type RequestBuilder;
    /// reqwest's response.
    type Response;
    /// reqwest's body.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + Unpin + 'static;
    /// reqwest's error.
    type Error: error::Error + Send + Sync + 'static;

    /// Builds a request. The builder's own client is not used.
    fn build(builder: Self::RequestBuilder) -> Result<Self::Request, Self::Error>;

    /// Returns a request's timeout.
    fn timeout(request: &Self::Request) -> Option<Duration>;

    /// Converts a request to [`http`].
    fn into_http(request: Self::Request) -> Result<Request<Self::Body>, Self::Error>;

    /// Wraps a response's body in reqwest's.
    fn wrap<B>(body: B) -> Self::Body
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static;

    /// Converts a response from [`http`].
    fn respond(response: Response<Self::Body>) -> Self::Response;
}

/// A response of reqwest's that has its URL.
pub(super) trait FromUrl {
    /// Returns the extensions in which reqwest finds the URL when it converts a response back.
    fn url(&self) -> Extensions;
}

#[cfg(feature = "reqwest-012")]
impl ReqwestClient for reqwest_012::Client {
    type Request = reqwest_012::Request;
    type RequestBuilder = reqwest_012::RequestBuilder;
    type Response = reqwest_012::Response;
    type Body = reqwest_012::Body;
    type Error = reqwest_012::Error;

    fn build(builder: Self::RequestBuilder) -> Result<Self::Request, Self::Error> {
        builder.build()
    }

    fn timeout(request: &Self::Request) -> Option<Duration> {
        request.timeout().copied()
    }

    fn into_http(request: Self::Request) -> Result<Request<Self::Body>, Self::Error> {
        request.try_into()
    }

    fn wrap<B>(body: B) -> Self::Body
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
    {
        reqwest_012::Body::wrap(body)
    }

    fn respond(response: Response<Self::Body>) -> Self::Response {
        response.into()
    }
}

#[cfg(feature = "reqwest-013")]
impl ReqwestClient for reqwest_013::Client {
    type Request = reqwest_013::Request;
    type RequestBuilder = reqwest_013::RequestBuilder;
    type Response = reqwest_013::Response;
    type Body = reqwest_013::Body;
    type Error = reqwest_013::Error;

    fn build(builder: Self::RequestBuilder) -> Result<Self::Request, Self::Error> {
        builder.build()
    }

    fn timeout(request: &Self::Request) -> Option<Duration> {
        request.timeout().copied()
    }

    fn into_http(request: Self::Request) -> Result<Request<Self::Body>, Self::Error> {
        request.try_into()
    }

    fn wrap<B>(body: B) -> Self::Body
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
    {
        reqwest_013::Body::wrap(body)
    }

    fn respond(response: Response<Self::Body>) -> Self::Response {
        response.into()
    }
}

#[cfg(feature = "reqwest-012")]
impl FromUrl for reqwest_012::Response {
    fn url(&self) -> Extensions {
        use reqwest_012::ResponseBuilderExt;

        let url = self.url().clone();
        extensions(http::response::Builder::new().url(url))
    }
}

#[cfg(feature = "reqwest-013")]
impl FromUrl for reqwest_013::Response {
    fn url(&self) -> Extensions {
        use reqwest_013::ResponseBuilderExt;

        let url = self.url().clone();
        extensions(http::response::Builder::new().url(url))
    }
}

fn extensions(mut builder: http::response::Builder) -> Extensions {
    builder
        .extensions_mut()
        .map(std::mem::take)
        .unwrap_or_default()
}
