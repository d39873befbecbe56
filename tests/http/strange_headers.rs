//! Headers of strangers: whatever they say, nothing panics, and no call gets more time by them.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};

use tower_keep::{
    Deadline,
    protocol::http::{Client, Server},
    retry::RetryLayer,
    timeout::{TimeoutLayer, ToResponse},
};

const ASKED: [&str; 2] = ["grpc-timeout", "x-envoy-expected-rq-timeout-ms"];
const LIMIT: Duration = Duration::from_secs(30);

fn timeout() -> TimeoutLayer<Server, ToResponse> {
    TimeoutLayer::builder(LIMIT)
        .total(true)
        .protocol(Server::new().read_deadline(true))
        .build()
        .unwrap()
}

/// A request with these headers; the status, and the time that its handler saw.
async fn serve(headers: &[(&str, &[u8])]) -> (StatusCode, Option<Duration>) {
    let handler = service_fn(async |request: Request<()>| {
        let deadline: Option<Deadline> = request.extensions().get().copied();
        let mut response = Response::new(Empty::<Bytes>::new());
        let remaining = deadline.map(Deadline::remaining);
        response.extensions_mut().insert(remaining);
        Ok::<_, Infallible>(response)
    });
    let mut request = Request::new(());
    for (name, value) in headers {
        let Ok(value) = HeaderValue::from_bytes(value) else {
            continue;
        };
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().append(name, value);
    }
    let response = timeout().layer(handler).oneshot(request).await.unwrap();
    let remaining = response.extensions().get::<Option<Duration>>();
    (response.status(), remaining.copied().flatten())
}

#[tokio::test(start_paused = true)]
async fn nonsense_gives_no_deadline() {
    for value in [
        "",
        " ",
        "-1S",
        "-1",
        "+1",
        "1.5S",
        "1e9S",
        "S",
        "1",
        "1s",
        "000000001S",
        "9999999999999999999H",
        "NaN",
        "inf",
        "\u{e9}",
        "0x10",
        "9999999999999999999999999",
    ] {
        // Of one of the two headers "1" is a good value.
        for name in ASKED {
            let is_good = value == "1" && name == ASKED[1];
            if !is_good {
                let (status, remaining) = serve(&[(name, value.as_bytes())]).await;
                assert_eq!(
                    (status, remaining),
                    (StatusCode::OK, Some(LIMIT)),
                    "{name}: {value}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_can_only_shorten_its_time() {
    for (headers, expected) in [
        (vec![(ASKED[0], "99999999H")], LIMIT),
        (vec![(ASKED[1], "999999999999999999")], LIMIT),
        (
            vec![(ASKED[0], "2S"), (ASKED[0], "1S")],
            Duration::from_secs(1),
        ),
        (
            vec![(ASKED[0], "2S"), (ASKED[0], "junk")],
            Duration::from_secs(2),
        ),
        (
            vec![(ASKED[0], "5S"), (ASKED[1], "3000")],
            Duration::from_secs(3),
        ),
        (
            vec![(ASKED[1], "-5"), (ASKED[1], "4000")],
            Duration::from_secs(4),
        ),
    ] {
        let bytes: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()))
            .collect();
        assert_eq!(
            serve(&bytes).await,
            (StatusCode::OK, Some(expected)),
            "{headers:?}"
        );
    }
    let (status, _) = serve(&[(ASKED[0], b"0S")]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "it came too late");
}

/// What a retry makes of a response with these headers.
async fn ask(headers: Vec<(HeaderName, HeaderValue)>) -> StatusCode {
    let retry = RetryLayer::builder()
        .protocol(Client::new())
        .build()
        .unwrap();
    let busy = service_fn(move |_| {
        let headers = headers.clone();
        async move {
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            for (name, value) in headers {
                response.headers_mut().append(name, value);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let request = Request::new(Empty::<Bytes>::new());
    let answer = tokio::time::timeout(10 * LIMIT, retry.layer(busy).oneshot(request));
    answer
        .await
        .expect("it is not slept for ever")
        .unwrap()
        .status()
}

fn paused<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(test)
}

/// Digits, signs and units more often than anything else.
fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[0-9]{1,20}[HMS]".prop_map(String::into_bytes),
        "[-+]?[0-9]{0,24}[HMSmun.,]?".prop_map(String::into_bytes),
        prop::collection::vec(32u8..=255, 0..40),
    ]
}

proptest! {
    #[test]
    fn no_header_of_a_stranger_panics_a_server(
        values in prop::collection::vec((0usize..2, values()), 0..4),
    ) {
        let headers: Vec<_> = values
            .iter()
            .map(|(name, value)| (ASKED[*name], value.as_slice()))
            .collect();
        let (_, remaining) = paused(serve(&headers));
        prop_assert!(remaining.is_none_or(|remaining| remaining <= LIMIT));
    }

    #[test]
    fn no_header_of_a_stranger_panics_a_client(
        values in prop::collection::vec((0usize..6, values()), 0..4),
    ) {
        let names = [
            "retry-after",
            "date",
            "ratelimit",
            "ratelimit-remaining",
            "ratelimit-reset",
            "grpc-retry-pushback-ms",
        ];
        let headers = values.into_iter().filter_map(|(name, value)| {
            let value = HeaderValue::from_bytes(&value).ok()?;
            Some((HeaderName::from_static(names[name]), value))
        });
        let status = paused(ask(headers.collect()));
        prop_assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    }
}
