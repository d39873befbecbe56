//! Providers' own fields: a client's limit follows them, and a retry comes back when they say.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests look at tokio's clock, which is paused"
)]

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use proptest::prelude::*;
use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Rejected,
    protocol::{
        Hint, QuotaHint,
        http::{
            Client, Server, UntilBodyEnd,
            provider::{self, Provider, QuotaFields, TimeForm},
        },
    },
    rate_limit::{Dimension, Follow, Rate, RateLimitLayer},
    retry::RetryLayer,
    stack,
};

type Fields = &'static [(&'static str, &'static str)];
type Body = http_body_util::Empty<bytes::Bytes>;

fn headers(fields: Fields) -> HeaderMap {
    let pair = |&(name, value)| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    };
    fields.iter().map(pair).collect()
}

fn read(provider: &Provider, fields: Fields) -> Option<Hint> {
    provider.read(&headers(fields))
}

fn answer(status: u16, fields: Fields) -> Response<Body> {
    let mut response = Response::new(Body::new());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = headers(fields);
    response
}

fn request() -> Request<Body> {
    Request::get("http://api.example/")
        .body(Body::new())
        .unwrap()
}

/// Answers each call with the next of these, and then with the last.
fn upstream(
    answers: &'static [(u16, Fields)],
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone
{
    let calls = Arc::new(AtomicUsize::new(0));
    service_fn(move |_: Request<Body>| {
        let call = calls.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
        let (status, fields) = answers[call];
        async move { Ok(answer(status, fields)) }
    })
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn openai_tells_requests_and_tokens() {
    let hint = read(
        &provider::openai(),
        &[
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-limit-tokens", "150000"),
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-remaining-tokens", "149984"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-reset-tokens", "6m0s"),
            ("retry-after-ms", "1500.5"),
        ],
    );
    let requests = QuotaHint::new("requests")
        .limit(60)
        .remaining(59)
        .full_in(SECOND);
    let tokens = QuotaHint::new("tokens").limit(150_000).remaining(149_984);
    let expected = Hint::new()
        .retry_after(Duration::from_micros(1_500_500))
        .quota(requests)
        .quota(tokens.full_in(360 * SECOND));
    assert_eq!(hint, Some(expected));
}

#[test]
fn anthropic_tells_four_quotas_by_its_own_date() {
    let hint = read(
        &provider::anthropic(),
        &[
            // Years from the local clock: only the answer's own counts.
            ("date", "Sat, 01 Mar 2036 12:00:00 GMT"),
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-reset", "2036-03-01T12:00:30Z"),
            ("anthropic-ratelimit-tokens-remaining", "96000"),
            ("anthropic-ratelimit-input-tokens-remaining", "80000"),
            (
                "anthropic-ratelimit-output-tokens-reset",
                "2036-03-01T13:00:00+01:00",
            ),
        ],
    )
    .unwrap();
    let names: Vec<_> = hint.quotas.iter().map(|quota| quota.name).collect();
    assert_eq!(
        names,
        ["requests", "tokens", "input-tokens", "output-tokens"]
    );
    assert_eq!(hint.retry_after, None, "a reset is not when to come back");
    assert_eq!(
        hint.quotas[3].full_in,
        Some(Duration::ZERO),
        "it has passed"
    );
}

#[test]
fn a_date_is_measured_against_the_answers_own() {
    let hint = read(
        &provider::anthropic(),
        &[
            ("date", "Sat, 01 Mar 2036 12:00:00 GMT"),
            ("anthropic-ratelimit-requests-reset", "2036-03-01T12:00:30Z"),
        ],
    );
    assert_eq!(hint.unwrap().quotas[0].full_in, Some(30 * SECOND));
}

#[test]
fn presets_say_where_they_come_from() {
    for preset in [provider::openai(), provider::anthropic(), provider::aws()] {
        assert!(preset.source.starts_with("https://"), "{preset:?}");
        let day: Vec<_> = preset.checked.split('-').map(str::len).collect();
        assert_eq!(day, [4, 2, 2], "{preset:?}");
    }
    let amazon = read(&provider::aws(), &[("x-amz-retry-after", "250")]);
    assert_eq!(amazon, Some(Hint::new().retry_after(SECOND / 4)));
}

#[test]
fn a_preset_is_overridden_by_name() {
    let fields = QuotaFields::new("tokens", TimeForm::UnixSeconds).remaining("x-left");
    let changed = provider::openai()
        .quota(fields)
        .wait("Retry-After-Ms", TimeForm::Span);
    let hint = read(
        &changed,
        &[
            ("x-left", "7"),
            ("x-ratelimit-remaining-tokens", "9"),
            ("retry-after-ms", "2m"),
        ],
    );
    let expected = Hint::new()
        .retry_after(120 * SECOND)
        .quota(QuotaHint::new("tokens").remaining(7));
    assert_eq!(hint, Some(expected));
}

#[test]
fn garbage_says_nothing() {
    let garbage = &[
        ("x-ratelimit-limit-requests", "many"),
        ("x-ratelimit-remaining-requests", "-1"),
        ("x-ratelimit-reset-requests", "soon"),
        ("retry-after-ms", ""),
    ];
    assert_eq!(read(&provider::openai(), garbage), None);
    let impossible = Provider::new("x").wait("no such name\n", TimeForm::Seconds);
    assert_eq!(read(&impossible, garbage), None);
}

/// How many of so many calls at once are answered.
async fn answered<S>(service: &S, calls: usize) -> usize
where
    S: Service<Request<Body>> + Clone,
{
    let mut answered = 0;
    for _ in 0..calls {
        answered += usize::from(service.clone().oneshot(request()).await.is_ok());
    }
    answered
}

const SIX_LEFT: Fields = &[
    ("x-ratelimit-limit-requests", "60"),
    ("x-ratelimit-remaining-requests", "6"),
    ("x-ratelimit-reset-requests", "54s"),
];

#[tokio::test(start_paused = true)]
async fn a_limit_admits_what_the_provider_has_left() {
    let limit = RateLimitLayer::builder(Rate::per_minute(6000))
        .burst(100)
        .follow(Follow::new("requests"))
        .protocol(Client::new().provider(provider::openai()))
        .build()
        .unwrap();
    let service = limit.layer(upstream(&[(200, SIX_LEFT), (200, &[])]));
    assert_eq!(answered(&service, 1).await, 1);
    assert_eq!(limit.handle().snapshot().available, 6);
    assert_eq!(answered(&service, 50).await, 6);
    // One a second comes back, and not all of it at the reset.
    advance(3 * SECOND).await;
    assert_eq!(answered(&service, 50).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_limit_never_admits_more_than_its_own() {
    let limit = RateLimitLayer::builder(Rate::per_second(1))
        .burst(2)
        .follow(Follow::new("requests"))
        .protocol(Client::new().provider(provider::openai()))
        .build()
        .unwrap();
    let service = limit.layer(upstream(&[(200, SIX_LEFT)]));
    assert_eq!(answered(&service, 50).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_believed_only_so_far() {
    const NEVER: Fields = &[
        ("x-ratelimit-limit-requests", "1"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "99999999999999999999h"),
    ];
    let limit = RateLimitLayer::builder(Rate::per_second(100))
        .follow(Follow::new("requests").longest(60 * SECOND))
        .protocol(UntilBodyEnd::new(
            Client::new().provider(provider::openai()),
        ))
        .build()
        .unwrap();
    let service = limit.layer(upstream(&[(200, NEVER)]));
    assert_eq!(answered(&service, 10).await, 1);
    advance(59 * SECOND).await;
    assert_eq!(answered(&service, 10).await, 0);
    advance(SECOND).await;
    assert_eq!(answered(&service, 10).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pause_and_a_quota_are_honored_together() {
    const BUSY: Fields = &[
        ("retry-after", "5"),
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "60s"),
    ];
    let limit = RateLimitLayer::builder(Rate::per_second(1000))
        .honor_retry_after(60 * SECOND)
        .follow(Follow::new("requests"))
        .protocol(Client::new().provider(provider::openai()))
        .build()
        .unwrap();
    // The first one is told nothing but to pause.
    const PAUSE: Fields = &[("retry-after", "5")];
    let service = limit.layer(upstream(&[(429, PAUSE), (429, BUSY), (200, &[])]));
    for _ in 0..2 {
        assert_eq!(answered(&service, 10).await, 1);
        advance(5 * SECOND).await;
    }
    // The pause leaves room for one, and a second later the quota alone counts.
    advance(SECOND).await;
    assert_eq!(answered(&service, 10).await, 6);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_tokens_follows_the_tokens() {
    const TOKENS: Fields = &[
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-limit-tokens", "1000"),
        ("x-ratelimit-remaining-tokens", "100"),
        ("x-ratelimit-reset-tokens", "54s"),
    ];
    let limit = RateLimitLayer::builder(Rate::per_minute(60_000))
        .burst(60_000)
        .cost(|_: &Request<Body>| 60)
        .follow(Follow::new("tokens"))
        .protocol(Client::new().provider(provider::openai()))
        .build()
        .unwrap();
    let service = limit.layer(upstream(&[(200, TOKENS), (200, &[])]));
    assert_eq!(answered(&service, 10).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_is_told_of_a_quota_that_is_used_up() {
    let limit = RateLimitLayer::builder(Rate::per_second(10))
        .burst(1)
        .max_wait(10 * SECOND)
        .follow(Follow::new("requests"))
        .protocol(Client::new().provider(provider::openai()))
        .build()
        .unwrap();
    const LATER: Fields = &[
        ("x-ratelimit-limit-requests", "1"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "5s"),
    ];
    let service = limit.layer(upstream(&[(200, LATER), (200, &[])]));
    let start = Instant::now();
    let (first, second) = tokio::join!(
        service.clone().oneshot(request()),
        service.clone().oneshot(request())
    );
    assert!(first.is_ok() && second.is_ok());
    assert!(start.elapsed() >= 5 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stack_follows_too() {
    let stack = stack::client()
        .http()
        .protocol(|http| http.provider(provider::openai()).clone_body())
        .rate_limit(RateLimitLayer::builder(Rate::per_second(100)).follow(Follow::new("requests")))
        .build()
        .unwrap();
    let inner = upstream(&[(200, SIX_LEFT), (200, &[])]);
    let service = stack.layer(inner.map_err(std::io::Error::other));
    assert_eq!(answered(&service, 50).await, 7);
}

#[tokio::test(start_paused = true)]
async fn each_dimension_follows_its_own_quota() {
    const LEFT: Fields = &[
        ("x-ratelimit-limit-tokens", "1000"),
        ("x-ratelimit-remaining-tokens", "100"),
        ("x-ratelimit-reset-tokens", "90s"),
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "50"),
        ("x-ratelimit-reset-requests", "10s"),
    ];
    let limit = RateLimitLayer::dimensions([
        Dimension::new("requests", Rate::per_minute(600)).follow(Follow::new("requests")),
        Dimension::new("tokens", Rate::per_minute(60_000)).follow(Follow::new("tokens")),
    ])
    .cost(|_: &Request<Body>| [1, 40])
    .protocol(Client::new().provider(provider::openai()))
    .build()
    .unwrap();
    let service = limit.layer(upstream(&[(200, LEFT), (200, &[])]));
    assert_eq!(answered(&service, 10).await, 3);
    let error = service.clone().oneshot(request()).await.unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!(rejected.dimension, Some("tokens"));
    let left: Vec<_> = rejected.left().iter().map(|left| left.available).collect();
    assert_eq!(left, [48, 20]);
}

/// Whether or not the quotas that keys share follow too.
#[tokio::test(start_paused = true)]
async fn the_quotas_of_a_key_follow() {
    let plain = Dimension::new("requests", Rate::per_minute(600));
    let follows = plain.follow(Follow::new("requests"));
    for shared in [plain, follows] {
        let limit = RateLimitLayer::dimensions([shared])
            .per_key(|_: &Request<Body>| Some(1), move |_| Ok([follows]))
            .protocol(Client::new().provider(provider::openai()))
            .build()
            .unwrap();
        let service = limit.layer(upstream(&[(200, SIX_LEFT), (200, &[])]));
        assert_eq!(answered(&service, 50).await, 7);
    }
}

/// A report that few units are missing names a second, and the next one says how fast they are.
#[tokio::test(start_paused = true)]
async fn a_large_call_after_a_small_one_comes_back_in_time() {
    const SMALL: Fields = &[
        ("x-ratelimit-limit-tokens", "80000"),
        ("x-ratelimit-remaining-tokens", "79990"),
        ("x-ratelimit-reset-tokens", "1s"),
    ];
    const LARGE: Fields = &[
        ("x-ratelimit-limit-tokens", "80000"),
        ("x-ratelimit-remaining-tokens", "60000"),
        ("x-ratelimit-reset-tokens", "15s"),
    ];
    let limit = RateLimitLayer::builder(Rate::per_minute(80_000))
        .burst(80_000)
        .cost(|request: &Request<Body>| match request.uri().path() {
            "/large" => 20_000,
            _ => 10,
        })
        .follow(Follow::new("tokens"))
        .protocol(Client::new().provider(provider::openai()))
        .build()
        .unwrap();
    let service = limit.layer(upstream(&[(200, SMALL), (200, LARGE), (200, LARGE)]));
    assert_eq!(answered(&service, 1).await, 1);
    let large = || Request::get("http://api.example/large").body(Body::default());
    service.clone().oneshot(large().unwrap()).await.unwrap();
    advance(15 * SECOND).await;
    assert!(limit.handle().snapshot().available > 79_000);
    assert_eq!(answered(&service, 1).await, 1);
}

/// The first report says nothing of the pace, so it does not say how long a share is used.
#[tokio::test(start_paused = true)]
async fn a_share_is_not_used_up_by_a_first_report() {
    const FIRST: Fields = &[
        ("x-ratelimit-limit-tokens", "80000"),
        ("x-ratelimit-remaining-tokens", "79990"),
        ("x-ratelimit-reset-tokens", "1s"),
    ];
    const NEARLY_NONE: Fields = &[
        ("x-ratelimit-limit-tokens", "80000"),
        ("x-ratelimit-remaining-tokens", "30000"),
        ("x-ratelimit-reset-tokens", "37s"),
    ];
    let tokens = Dimension::new("tokens", Rate::per_minute(80_000));
    let limit = RateLimitLayer::dimensions([tokens])
        .cost(|request: &Request<Body>| [request.uri().path()[1..].parse().unwrap()])
        .keyed_by(|request: &Request<Body>| request.uri().host().map(str::to_owned))
        .within([tokens.follow(Follow::new("tokens"))])
        .shares(|_| 1)
        .protocol(Client::new().provider(provider::openai()))
        .build()
        .unwrap();
    let service = limit.layer(upstream(&[(200, FIRST), (200, NEARLY_NONE), (200, &[])]));
    let ask = |uri: &'static str| {
        let request = Request::get(uri).body(Body::default()).unwrap();
        service.clone().oneshot(request)
    };
    ask("http://loud/10").await.unwrap();
    ask("http://quiet/18000").await.unwrap();
    // The reserve is not whole, and both shares come back at their half of the quota's rate.
    advance(20 * SECOND).await;
    ask("http://loud/18000").await.unwrap();
    ask("http://quiet/5000").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_tells_each_dimension() {
    let limit = RateLimitLayer::dimensions([
        Dimension::new("requests", Rate::per_minute(60)).burst(5),
        Dimension::new("tokens", Rate::per_minute(60_000)),
    ])
    .cost(|_: &Request<Body>| [1, 40_000])
    .keyed_by(|_: &Request<Body>| Some(1))
    .within([
        Dimension::new("requests", Rate::per_minute(600)),
        Dimension::new("tokens", Rate::per_minute(600_000)),
    ])
    .name("llm")
    .protocol(Server::new())
    .advertise(true)
    .build()
    .unwrap();
    let inner =
        service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(String::new())));
    let service = limit.layer(inner);
    let fields = async || {
        let answer = service.clone().oneshot(request()).await.unwrap();
        let field = answer.headers()["ratelimit"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), field)
    };
    let left = "\"llm-requests\";r=4;t=1, \"llm-tokens\";r=20000;t=40, \
                \"llm-requests-2\";r=599;t=1, \"llm-tokens-2\";r=560000;t=4";
    assert_eq!(fields().await, (200, left.to_owned()));
    assert_eq!(fields().await, (429, left.to_owned()));
}

#[test]
fn a_table_of_keys_follows_nothing() {
    let limit = RateLimitLayer::builder(Rate::per_second(1))
        .follow(Follow::new("requests"))
        .keyed_by(|_: &Request<Body>| Some(1))
        .build();
    assert_eq!(limit.unwrap_err().field, "follow");
}

#[tokio::test(start_paused = true)]
async fn a_retry_comes_back_when_the_provider_says() {
    const IN_30_MS: Fields = &[("retry-after-ms", "30"), ("retry-after", "1")];
    let retry = RetryLayer::builder()
        .protocol(Client::new().provider(provider::openai()).clone_body())
        .build()
        .unwrap();
    let service = retry.layer(upstream(&[(429, IN_30_MS), (200, &[])]));
    let start = Instant::now();
    assert_eq!(service.oneshot(request()).await.unwrap().status(), 200);
    let waited = start.elapsed();
    assert!((30..900).contains(&waited.as_millis()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_closure_may_capture_and_reads_the_whole_head() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let client = Client::new().hints(move |head| {
        log.lock().unwrap().push((head.status, head.headers.len()));
        (head.status == 503).then(|| Hint::new().retry_after(7 * SECOND))
    });
    let limit = RateLimitLayer::builder(Rate::per_second(100))
        .honor_retry_after(60 * SECOND)
        .protocol(client)
        .build()
        .unwrap();
    let service = limit.layer(upstream(&[(503, SIX_LEFT), (200, &[])]));
    let response = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(response.headers().len(), 3, "the head was only lent");
    let error = service.clone().oneshot(request()).await.unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!(rejected.retry_after, Some(7 * SECOND));
    assert_eq!(
        *seen.lock().unwrap(),
        [(StatusCode::SERVICE_UNAVAILABLE, 3)]
    );
}

proptest! {
    /// Any bytes that a field can hold.
    #[test]
    fn no_bytes_panic(values in proptest::collection::vec(any::<Vec<u8>>(), 6)) {
        let names = [
            "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset",
            "retry-after-ms", "date",
        ];
        let fields = names.iter().zip(values).filter_map(|(name, value)| {
            let value = HeaderValue::from_bytes(&value).ok()?;
            Some((HeaderName::from_static(name), value))
        });
        let headers: HeaderMap = fields.collect();
        for provider in [provider::openai(), provider::anthropic(), provider::aws()] {
            let _ = provider.read(&headers);
        }
    }

    /// A limit that believes everything is open again after the longest reset that was told.
    #[test]
    fn no_numbers_close_a_limit_beyond_their_reset(
        told in proptest::collection::vec((any::<u64>(), any::<u64>(), 0u64..3000), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let turn = Arc::new(AtomicUsize::new(0));
            let longest = told.iter().map(|(.., reset)| *reset).max().unwrap_or(0);
            let count = told.len();
            let client = Client::new().hints(move |_| {
                let turn = turn.fetch_add(1, Ordering::Relaxed);
                let (limit, remaining, reset) = *told.get(turn)?;
                let quota = QuotaHint::new("requests").limit(limit).remaining(remaining);
                Some(Hint::new().quota(quota.full_in(Duration::from_secs(reset))))
            });
            let limit = RateLimitLayer::builder(Rate::per_second(1000))
                .max_wait(3000 * SECOND)
                .follow(Follow::new("requests"))
                .protocol(client)
                .build()
                .unwrap();
            let service = limit.layer(upstream(&[(200, &[])]));
            assert_eq!(answered(&service, count).await, count);
            advance(Duration::from_secs(longest) + SECOND).await;
            assert!(limit.handle().snapshot().available >= 1);
        });
    }
}
