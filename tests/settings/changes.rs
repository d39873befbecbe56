//! Parts that a file gains or loses while it is followed.

use std::{fs, path::PathBuf, sync::mpsc, time::Duration};

use http::{Request, Response};
use http_body_util::Empty;
use tower::{BoxError, Layer, ServiceExt, service_fn};

use tower_keep::{
    Changed, ConfigError, RejectedKind,
    observe::Registry,
    protocol::Plain,
    rate_limit::RateLimitLayer,
    settings::{
        self, ClientSettings, DimensionsSettings, Document, HedgeSettings, RateLimitSettings,
        Reload, ReloadError, Sections, ServerSettings, Settings, watch,
    },
    stack::{self, ClientHandle, ServerHandle},
};

use crate::files::read;

/// A running client with these settings.
fn client(text: &str) -> (ClientHandle, Reload<ClientSettings>) {
    let settings: ClientSettings = read(text).unwrap();
    let stack = settings.apply_to(stack::client().plain(Plain::new().idempotent()));
    let handle = stack.unwrap().build().unwrap().handle();
    (handle.clone(), Reload::new(handle, settings))
}

fn server(text: &str) -> (ServerHandle, Reload<ServerSettings>) {
    let settings: ServerSettings = read(text).unwrap();
    let stack = settings.apply_to(stack::server().http()).unwrap();
    let handle = stack.build().unwrap().handle();
    (handle.clone(), Reload::new(handle, settings))
}

fn changed<S: Settings + serde::de::DeserializeOwned>(
    reload: &mut Reload<S>,
    text: &str,
) -> String {
    let settings = read(text).unwrap();
    match reload.apply(settings) {
        Ok(changed) => changed.to_string(),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn a_client_gains_and_loses_a_rate() {
    let (handle, mut reload) = client("");
    let told = changed(&mut reload, "rate = '50/s'\nburst = 7");
    assert_eq!(
        told,
        "rate_limit: `rate` from off to 50 per 1s, rate_limit: `burst` from off to 7"
    );
    assert_eq!(handle.snapshot().rate_limit.unwrap().burst, 7);
    // The same, written otherwise.
    let same = "[rate_limit]\nrate = '50/s'\nburst = 7";
    assert_eq!(changed(&mut reload, same), "nothing");
    let waits = "[rate_limit]\nrate = '50/s'\nburst = 7\nmax_wait = '2s'";
    assert_eq!(
        changed(&mut reload, waits),
        "rate_limit: `max_wait` from off to 2s"
    );
    let told = changed(&mut reload, "rate_limit = 'off'");
    assert!(
        told.starts_with("rate_limit: `rate` from 50 per 1s to off"),
        "{told}"
    );
    assert!(handle.snapshot().rate_limit.is_none());
    assert_eq!(changed(&mut reload, ""), "nothing");
    let off = "[rate_limit]\nenabled = false\nrate = '9/s'";
    changed(&mut reload, off);
    assert!(handle.snapshot().rate_limit.is_none());
    changed(&mut reload, &off.replace("false", "true"));
    assert_eq!(handle.snapshot().rate_limit.unwrap().rate.count(), 9);
}

#[test]
fn a_rate_that_cannot_be_changes_nothing() {
    let (handle, mut reload) = client("");
    for (text, why) in [
        ("burst = 3", "`burst` is 3: set a `rate`"),
        (
            "rate = '1/s'\n[rate_limit]\nrate = '2/s'",
            "`rate_limit` has a rate of its own",
        ),
        ("rate = '0/s'", "`rate`"),
        ("[rate_limit]\nburst = 3", "`rate` is not set"),
        (
            "[rate_limit]\nrate = '9/s'\nalgorithm = 'sliding_log'",
            "`algorithm`",
        ),
        (
            "[rate_limit]\nrate = '9/s'\nmax_waiting = 3",
            "`max_waiting` is 3",
        ),
        ("[rate_limit]\nrate = '9/s'\nname = 'other'", "`name`"),
    ] {
        let told = match read::<ClientSettings>(text) {
            Ok(settings) => reload.apply(settings).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(told.contains(why), "{text}: {told}");
        assert!(handle.snapshot().rate_limit.is_none(), "{text}");
    }
    // A hint of one host would close a limit for all.
    let settings: ClientSettings = read("").unwrap();
    let stack = settings
        .apply_to(stack::client().http())
        .unwrap()
        .build()
        .unwrap();
    let mut reload = Reload::new(stack.handle(), settings);
    let honors = "[rate_limit]\nrate = '9/s'\nhonor_retry_after = '60s'";
    let told = changed(&mut reload, honors);
    assert!(told.contains("`one_peer`"), "{told}");
}

#[test]
fn a_server_gains_and_loses_a_rate() {
    let (handle, mut reload) = server("max_in_flight = 5");
    changed(&mut reload, "max_in_flight = 5\nrate = '10/s'");
    assert_eq!(handle.snapshot().rate_limit.unwrap().burst, 10);
    changed(&mut reload, "max_in_flight = 5");
    assert!(handle.snapshot().rate_limit.is_none());

    // It could not be built like that.
    let (handle, mut reload) = server("rate = '10/s'");
    let told = changed(&mut reload, "");
    assert!(told.contains("`max_in_flight` is not set"), "{told}");
    assert!(handle.snapshot().rate_limit.is_some());
    let told = changed(&mut reload, "max_in_flight = 5");
    assert!(told.contains("`max_in_flight` from 25 to 5"), "{told}");
    assert!(handle.snapshot().rate_limit.is_none());
}

#[tokio::test(start_paused = true)]
async fn places_are_gained_and_lost() {
    let (handle, mut reload) = client("max_in_flight = 'off'");
    let limit = || handle.bulkhead.shared().snapshot().limit;
    assert_eq!(limit(), usize::MAX);
    let told = changed(&mut reload, "max_in_flight = 5");
    assert_eq!(told, "bulkhead: `max_in_flight` from any number to 5");
    changed(&mut reload, "max_in_flight = 'off'");
    assert_eq!(limit(), usize::MAX);
    changed(&mut reload, "max_in_flight = 6");
    changed(&mut reload, "");
    assert_eq!(limit(), usize::MAX);
}

#[test]
fn a_hedge_is_switched_by_a_file() {
    let text = "[hedge]\ndelay = '20ms'";
    let settings: ClientSettings = read(text).unwrap();
    let builder = stack::client().http().hedge(|hedge| hedge);
    let stack = settings.apply_to(builder).unwrap().build().unwrap();
    let hedge = stack.handle().hedge.unwrap();
    let mut reload = Reload::new(stack.handle(), settings);
    assert_eq!(
        changed(&mut reload, "hedge = 'off'"),
        "hedge: `enabled` from true to false"
    );
    assert!(!hedge.is_enabled());
    let told = changed(&mut reload, "[hedge]\ndelay = '30ms'");
    assert!(told.contains("`delay` from 20ms to 30ms"), "{told}");
    assert!(hedge.is_enabled());
    assert!(changed(&mut reload, "").contains("hedge = \"off\""));

    let (_, mut none) = client("");
    assert_eq!(changed(&mut none, "hedge = 'off'"), "nothing");

    // By itself too, and "off" asks nothing of a stack that has none.
    let off: ClientSettings = read("hedge = 'off'").unwrap();
    off.apply_to(stack::client().http())
        .unwrap()
        .build()
        .unwrap();
    let on: ClientSettings = read("[hedge]\ndelay = '30ms'").unwrap();
    assert!(on.apply_to(stack::client().http()).is_err());
    let alone: HedgeSettings = read("delay = '20ms'").unwrap();
    let layer = alone.builder().unwrap().protocol(Plain::new().idempotent());
    let handle = layer.build().unwrap().handle();
    let mut reload = Reload::new(handle.clone(), alone);
    changed(&mut reload, "delay = '20ms'\nenabled = false");
    assert!(!handle.is_enabled());
}

#[test]
fn a_limit_by_itself_is_switched_and_waits() {
    let text = "rate = '50/s'";
    let settings: RateLimitSettings = read(text).unwrap();
    let layer: RateLimitLayer = settings.builder().unwrap().build().unwrap();
    let mut reload = Reload::new(layer.handle(), settings);
    let told = changed(&mut reload, "rate = '50/s'\nenabled = false");
    assert!(told.contains("`rate` from 50 per 1s to off"), "{told}");
    assert!(!layer.handle().is_enabled());
    let told = changed(
        &mut reload,
        "rate = '50/s'\nmax_wait = '1s'\nmax_waiting = 3",
    );
    assert!(told.contains("`max_wait` from off to 1s"), "{told}");
    assert!(told.contains("`max_waiting` from 1024 to 3"), "{told}");
}

const QUOTAS: &str = "max_wait = '5s'
    [dimensions]
    requests = { rate = '500/m', burst = 50 }
    micro_dollars = { rate = '20000000/d', money = true }";

#[test]
fn quotas_change_by_their_names() {
    let settings: DimensionsSettings = read(QUOTAS).unwrap();
    let names = ["micro_dollars", "requests"];
    let layer = settings.builder(names).unwrap().build().unwrap();
    let burst = || layer.handle().snapshot().dimensions.map(|one| one.burst);
    assert_eq!(burst(), [20_000_000, 50]);
    let mut reload = Reload::new(layer.handle().into(), settings);
    let told = changed(&mut reload, &QUOTAS.replace("= 50", "= 70"));
    assert_eq!(told, "rate_limit: `burst` from 50 to 70");
    assert_eq!(burst(), [20_000_000, 70]);
    // All or nothing: the money is valid, the requests are not.
    let both = QUOTAS.replace("20000000", "1").replace("= 50", "= 0");
    let error = reload.apply(read(&both).unwrap()).unwrap_err();
    assert_eq!((error.field, error.name), ("burst", Some("requests")));
    assert_eq!(burst(), [20_000_000, 70]);
    let fewer = "max_wait = '5s'\npartial = true\n[dimensions]\nrequests = { rate = '500/m' }";
    let error = reload.apply(read(fewer).unwrap()).unwrap_err();
    assert_eq!(error.field, "dimensions");
}

#[test]
fn the_quotas_of_keys_and_their_total_change() {
    let text = "dimensions.a = { rate = '1/s' }\nwithin.a = { rate = '9/s' }";
    let settings: DimensionsSettings = read(text).unwrap();
    let layer = settings.builder(["a"]).unwrap().keyed_by(|_: &u8| Some(1));
    let layer = layer.build().unwrap();
    let handle = layer.handle();
    let own = handle.make(&1).unwrap();
    let mut reload = Reload::new(handle.clone().into(), settings);
    let told = changed(
        &mut reload,
        &text.replace("1/s", "2/s").replace("9/s", "8/s"),
    );
    assert!(told.contains("`rate` from 1 per 1s to 2 per 1s"), "{told}");
    assert!(told.contains("`rate` from 9 per 1s to 8 per 1s"), "{told}");
    let bursts = (
        own.snapshot().dimensions[0].burst,
        handle.shared().snapshot().dimensions[0].burst,
        handle.total().unwrap().snapshot()[0].burst,
    );
    assert_eq!(bursts, (2, 2, 8));
    let error = reload.apply(read("dimensions.a = { rate = '1/s' }\npartial = true").unwrap());
    assert_eq!(error.unwrap_err().field, "within");
}

#[test]
fn quotas_that_the_code_does_not_name_are_an_error() {
    let settings: DimensionsSettings = read(QUOTAS).unwrap();
    let field = |error: ConfigError| (error.field, error.value);
    let missing = settings.builder(["requests", "micro_dollars", "tokens"]);
    assert_eq!(field(missing.unwrap_err()).0, "dimensions");
    let unknown = settings.builder(["requests"]).unwrap_err();
    assert_eq!(field(unknown), ("dimensions", "\"micro_dollars\"".into()));
    let total: DimensionsSettings =
        read("dimensions.a = { rate = '1/s' }\nwithin.a = { rate = '9/s' }").unwrap();
    let keyed = total.builder(["a"]).unwrap().keyed_by(|_: &u8| Some(1));
    assert!(keyed.build().is_ok());
    assert_eq!(
        total.builder(["a"]).unwrap().build().unwrap_err().field,
        "within"
    );
}

/// As of `max_wait` in code: calls wait once a file says so.
#[tokio::test(start_paused = true)]
async fn calls_wait_once_a_file_lets_them() {
    let settings: ClientSettings = read("rate = '1/s'\nburst = 1").unwrap();
    let stack = settings
        .apply_to(stack::client().http())
        .unwrap()
        .build()
        .unwrap();
    let mut reload = Reload::new(stack.handle(), settings);
    let service = stack.layer(service_fn(async |_: Request<_>| {
        Ok::<_, BoxError>(Response::new(Empty::<bytes::Bytes>::new()))
    }));
    let ask = || {
        let request = Request::get("http://host/").body(Empty::<bytes::Bytes>::new());
        service.clone().oneshot(request.unwrap())
    };
    ask().await.unwrap();
    let error = ask().await.unwrap_err();
    let rejected = tower_keep::Rejected::find(&*error).unwrap();
    assert_eq!(rejected.kind, RejectedKind::RateLimited);
    changed(
        &mut reload,
        "[rate_limit]\nrate = '1/s'\nburst = 1\nmax_wait = '5s'",
    );
    ask().await.unwrap();
}

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn folder(name: &str) -> Folder {
    let folder = std::env::temp_dir().join(format!("tower-keep-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    Folder(folder)
}

type Told = Result<Changed, ReloadError>;

fn next(told: &mpsc::Receiver<Told>) -> Told {
    told.recv_timeout(Duration::from_secs(8)).unwrap()
}

#[test]
fn a_followed_file_gains_and_loses_a_rate() {
    let folder = folder("gains");
    let path = folder.0.join("client.toml");
    fs::write(&path, "attempt_timeout = '1s'").unwrap();
    let settings: ClientSettings = read("attempt_timeout = '1s'").unwrap();
    let registry = Registry::new();
    let stack = settings.apply_to(stack::client().http()).unwrap();
    let handle = registry
        .with(|| stack.name("api").build())
        .unwrap()
        .handle();
    let (tell, told) = mpsc::channel();
    let parse = |text: &str| Ok(read(text)?);
    let reload = Reload::new(handle.clone(), settings);
    let _watch = watch(&path, parse, reload, move |result| {
        let _ = tell.send(result);
    });
    let limits = || {
        let layers = registry
            .snapshot()
            .into_iter()
            .map(|instance| instance.layer);
        layers.filter(|layer| *layer == "rate_limit").count()
    };
    assert_eq!(limits(), 0);

    fs::write(
        &path,
        "attempt_timeout = '1s'\n[rate_limit]\nrate = '20/s'\nburst = 4",
    )
    .unwrap();
    next(&told).unwrap();
    assert_eq!(handle.snapshot().rate_limit.unwrap().burst, 4);
    assert_eq!(limits(), 1);

    // A file that was cut off, as far as anybody can tell.
    fs::write(&path, "attempt_timeout = '1s'").unwrap();
    let error = next(&told).unwrap_err().to_string();
    assert!(error.contains("`rate_limit` was in the file"), "{error}");
    assert!(handle.snapshot().rate_limit.is_some());
    fs::write(&path, "attempt_timeout = '1s'\nrate_limit = 'off'").unwrap();
    next(&told).unwrap();
    assert!(handle.snapshot().rate_limit.is_none());

    fs::write(
        &path,
        "attempt_timeout = '1s'\nrate_limit = 'off'\nrate = '30/s'",
    )
    .unwrap();
    next(&told).unwrap();
    fs::write(&path, "partial = true\nattempt_timeout = '1s'").unwrap();
    next(&told).unwrap();
    assert!(handle.snapshot().rate_limit.is_none());
}

/// A mistake in one section does not keep another from its rate.
#[test]
fn a_section_gains_a_rate_beside_a_mistake() {
    let folder = folder("sections-gain");
    let path = folder.0.join("stacks.toml");
    let parse = |text: &str| -> Result<Document, BoxError> { Ok(toml::from_str(text)?) };
    let text = "[payments]\nattempt_timeout = '1s'\n[search]\nattempt_timeout = '1s'\n";
    fs::write(&path, text).unwrap();
    let file = parse(text).unwrap();
    let mut sections = Sections::new();
    let mut handles = Vec::new();
    for name in ["payments", "search"] {
        let settings: ClientSettings = file.section(name).unwrap();
        let stack = settings
            .apply_to(stack::client().http())
            .unwrap()
            .build()
            .unwrap();
        handles.push(stack.handle());
        sections = sections.add(name, Reload::new(stack.handle(), settings));
    }
    let (tell, told) = mpsc::channel();
    let _watch = sections.watch(&path, parse, move |section, result| {
        let _ = tell.send((section.map(str::to_owned), result));
    });
    let text = "[payments]\nattempt_timeout = '0s'\n[search]\nattempt_timeout = '1s'\nrate = '5/s'";
    fs::write(&path, text).unwrap();
    let mut results: Vec<_> = (0..2)
        .map(|_| told.recv_timeout(Duration::from_secs(8)).unwrap())
        .collect();
    results.sort_by_key(|(section, _)| section.clone());
    assert!(results[0].1.is_err() && results[1].1.is_ok(), "{results:?}");
    assert!(handles[0].snapshot().rate_limit.is_none());
    assert_eq!(handles[1].snapshot().rate_limit.unwrap().burst, 5);
}

/// Only what is written is set: a short total needs no attempt's timeout beside it.
#[test]
fn a_files_short_total_needs_no_other_setting() {
    let (handle, mut reload) = client("total_timeout = '2s'");
    let attempt = || handle.attempt_timeout.snapshot().duration.as_millis();
    assert_eq!(attempt(), 2000);
    changed(&mut reload, "total_timeout = '1s'");
    assert_eq!(attempt(), 1000);
    let told = changed(&mut reload, "total_timeout = '1s'\nattempt_timeout = '3s'");
    assert_eq!(told, "nothing", "its default, as before");
    let settings: ClientSettings = read("total_timeout = '1s'\nattempt_timeout = '3s'").unwrap();
    let stack = settings.apply_to(stack::client().http()).unwrap();
    assert!(stack.build().is_err());
}

/// A probe may take as long as an attempt, whichever is changed.
#[test]
fn a_files_long_attempt_needs_no_other_lease() {
    let of = |attempt| {
        format!(
            "attempt_timeout = '{attempt}s'\ntotal_timeout = '60s'\ncircuit_breaker = {{ window = '60s' }}"
        )
    };
    let (handle, mut reload) = client(&of(20));
    let lease = || {
        handle
            .circuit_breaker
            .shared()
            .config()
            .lease
            .unwrap()
            .as_secs()
    };
    assert_eq!(lease(), 20);
    changed(&mut reload, &of(30));
    assert_eq!(lease(), 30);
    changed(&mut reload, &of(3));
    assert_eq!(lease(), 5);
    changed(&mut reload, &of(3).replace(" }", ", lease = '9s' }"));
    assert_eq!(lease(), 9);
    changed(&mut reload, &of(30).replace(" }", ", lease = '9s' }"));
    assert_eq!(lease(), 9, "it was set");
    changed(&mut reload, &of(30));
    assert_eq!(lease(), 30);
}

#[test]
fn calls_have_settings_by_host() {
    let calls = "['api.example']\ncost = 5\nattempts = 1\n['localhost:8080']\ntotal_timeout = '9s'";
    let calls: settings::CallsSettings = read(calls).unwrap();
    assert_eq!(calls.get("api.example").unwrap().cost, Some(5));
    let client = calls
        .by_host(tower_keep::protocol::http::Client::new())
        .unwrap();
    let stack = stack::client().http().protocol(|_| client);
    let stack = stack
        .rate(tower_keep::rate_limit::Rate::per_second(10))
        .build()
        .unwrap();
    let service = stack.layer(service_fn(async |_: Request<_>| {
        Ok::<_, BoxError>(Response::new(Empty::<bytes::Bytes>::new()))
    }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        for (host, left) in [("API.example", 5), ("other", 4)] {
            let request =
                Request::get(format!("http://{host}/")).body(Empty::<bytes::Bytes>::new());
            service.clone().oneshot(request.unwrap()).await.unwrap();
            let available = stack.handle().snapshot().rate_limit.unwrap().available;
            assert_eq!(available, left, "{host}");
        }
    });
    for (text, why) in [
        ("['not a host']\ncost = 5", "write a host"),
        (
            "['a.example']\nidempotent = true",
            "`idempotent` is true: leave it",
        ),
        (
            "['a.example']\nattempt_timeout = '0s'",
            "`attempt_timeout` is 0ns",
        ),
        ("['a.example']\nattempt = 1", "unknown field `attempt`"),
        (
            "['a.example']\ncriticality = 'high'",
            "unknown variant `high`",
        ),
    ] {
        let error = match read::<settings::CallsSettings>(text) {
            Ok(calls) => {
                let client = calls.by_host(tower_keep::protocol::http::Client::new());
                client.unwrap_err().to_string()
            }
            Err(error) => error.to_string(),
        };
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[cfg(feature = "tonic-014")]
#[tokio::test(start_paused = true)]
async fn grpc_methods_have_settings() {
    use tonic::body::Body;
    use tower_keep::protocol::grpc;

    let text = "['shop.Search/*']\nidempotent = true\ncost = 2\n\
        ['/shop.Search/Reindex']\nidempotent = false\ncost = 5\n['shop.Orders/Place']\nattempts = 1";
    let calls: settings::CallsSettings = read(text).unwrap();
    let client = calls.by_method(grpc::Client::new()).unwrap();
    let stack = stack::client()
        .grpc(client)
        .rate(tower_keep::rate_limit::Rate::per_hour(1000));
    let stack = stack.burst(1000).without_circuit_breaker().build().unwrap();
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = sent.clone();
    let service = stack.layer(service_fn(move |_: Request<Body>| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut answer = Response::new(Body::empty());
        answer
            .headers_mut()
            .insert("grpc-status", "14".parse().unwrap());
        std::future::ready(Ok::<_, BoxError>(answer))
    }));
    let mut before = 1000;
    for (path, attempts, cost) in [
        ("/shop.Search/Query", 3, 2),
        ("/shop.Search/Reindex", 1, 5),
        ("/shop.Orders/Place", 1, 1),
        ("/shop.Orders/List", 1, 1),
    ] {
        let request = Request::post(format!("http://host{path}"))
            .body(Body::empty())
            .unwrap();
        service.clone().oneshot(request).await.unwrap();
        let available = stack.handle().snapshot().rate_limit.unwrap().available;
        let sent = sent.swap(0, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(
            (sent, before - available),
            (attempts, attempts * cost),
            "{path}"
        );
        before = available;
    }
    for name in ["Search", "shop.Search/", "/", "shop.Search/a/b"] {
        let one = settings::OneCallSettings::default();
        let calls: settings::CallsSettings = [(name, one)].into_iter().collect();
        let error = calls
            .by_method(grpc::Client::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains("package.Service"), "{name}: {error}");
    }
}
