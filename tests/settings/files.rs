//! Settings that are read from files: what a user writes, what is refused and how it is told, what
//! the defaults are, and how running layers follow.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use tower_keep::{
    protocol::Plain,
    rate_limit::Rate,
    settings::{
        self, Alone, BulkheadSettings, CircuitBreakerSettings, ClientSettings, HedgeSettings,
        RateLimitSettings, ReadError, Reload, RetrySettings, ServerSettings, ThrottleSettings,
        TimeoutSettings,
    },
    stack,
};

fn read<S: DeserializeOwned>(text: &str) -> Result<S, ReadError> {
    settings::read(toml::Deserializer::parse(text).unwrap())
}

fn client(text: &str) -> ClientSettings {
    read(text).unwrap()
}

/// The defaults of each are a file beside this one. Where a default changes, it is changed there as
/// well, and told in the CHANGELOG.
#[test]
fn the_defaults_are_pinned() {
    let breaker = CircuitBreakerSettings::<Alone>::default();
    pinned(&breaker, include_str!("circuit_breaker.toml"));
    let client = ClientSettings::default();
    pinned(&client, include_str!("client.toml"));
    let server = ServerSettings::default();
    pinned(&server, include_str!("server.toml"));
    let retry = RetrySettings::default();
    pinned(&retry, include_str!("retry.toml"));
    let hedge = HedgeSettings::default();
    pinned(&hedge, include_str!("hedge.toml"));
    let throttle = ThrottleSettings::default();
    pinned(&throttle, include_str!("throttle.toml"));
    let limit = RateLimitSettings::default();
    pinned(&limit, include_str!("rate_limit.toml"));
    let bulkhead = BulkheadSettings::default();
    pinned(&bulkhead, include_str!("bulkhead.toml"));
    let timeout = TimeoutSettings::default();
    pinned(&timeout, include_str!("timeout.toml"));
}

/// What is written is the file, and reading the file, or nothing, gives the same.
fn pinned<S>(settings: &S, file: &str)
where
    S: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(toml::to_string(settings).unwrap(), file);
    assert_eq!(&read::<S>(file).unwrap(), settings);
    assert_eq!(&read::<S>("").unwrap(), settings);
}

#[test]
fn defaults_are_those_of_the_builders() {
    let settings = ClientSettings::default();
    let read = settings.apply_to(stack::client().http()).unwrap();
    let (read, built) = (read.build().unwrap(), stack::client().http().build());
    assert_eq!(
        format!("{:?}", read.handle().snapshot()),
        format!("{:?}", built.unwrap().handle().snapshot())
    );
    let breaker = CircuitBreakerSettings::<Alone>::default();
    let breaker = breaker.builder().protocol(Plain::new()).build().unwrap();
    assert_eq!(breaker.handle().config(), Default::default());
}

#[test]
fn a_mistake_is_told_by_path_value_and_fix() {
    let told = |text: &str| read::<ClientSettings>(text).unwrap_err().to_string();
    for (text, parts) in [
        (
            "retry.backoff.base = '100'",
            ["`retry.backoff.base`", "`100`", "write 100ms"],
        ),
        (
            "retry.backoff.base = 100",
            ["`retry.backoff.base`", "`100`", "write 100ms"],
        ),
        ("rate = '100'", ["`rate`", "`100`", "write 100/s"]),
        ("rate = 100", ["`rate`", "`100`", "write 100/s"]),
        (
            "total_timeout = true",
            ["`total_timeout`", "`true`", "write the value"],
        ),
        (
            "total_timeout = 'never'",
            ["`total_timeout`", "`never`", "write 250ms"],
        ),
        (
            "circuit_breaker.failure_rate = 50",
            ["`circuit_breaker.failure_rate`", "`50`", "50%"],
        ),
        (
            "circuit_breaker.failure_rate = '120%'",
            ["failure_rate`", "`120%`", "at most 100%"],
        ),
        (
            "circuit_breaker.window = '10'",
            ["`circuit_breaker.window`", "`10`", "write 10ms"],
        ),
        (
            "circuit_breaker.window = 10",
            ["`circuit_breaker.window`", "`10`", "10 calls"],
        ),
        (
            "retry.jitter = 'full'",
            ["`retry.jitter`", "unknown field `jitter`", "`backoff`"],
        ),
        (
            "retries = 3",
            ["`retries`", "unknown field `retries`", "`retry`"],
        ),
        ("retry.attempts = -1", ["`retry.attempts`", "`-1`", "u32"]),
        (
            "retry.budget = 'none'",
            ["`retry.budget", "`none`", "`off`"],
        ),
        (
            "retry.backoff.jitter = 'some'",
            ["`retry.backoff.jitter", "`some`", "`full`"],
        ),
        (
            "circuit_breaker.slow_calls.rate = 0.5",
            ["circuit_breaker.slow_calls`", "missing field", "`after`"],
        ),
    ] {
        let told = told(text);
        for part in parts {
            assert!(told.contains(part), "{text}: {told} lacks {part}");
        }
    }
}

#[test]
fn what_only_build_can_tell_is_told_by_build() {
    let error = |text: &str| {
        let builder = client(text).apply_to(stack::client().http());
        let built = builder.and_then(|builder| builder.build());
        built.unwrap_err().to_string()
    };
    for (text, parts) in [
        ("retry.attempts = 0", ["retry", "attempts", "0"]),
        (
            "total_timeout = '1s'\nattempt_timeout = '2s'",
            ["total_timeout", "1s", "attempt_timeout"],
        ),
        ("rate = '0/s'", ["rate", "0", "rate"]),
        ("max_in_flight = 0", ["bulkhead", "0", "at least 1"]),
        (
            "bulkhead.max_wait = '1s'",
            ["bulkhead", "limit", "say how many"],
        ),
        (
            "rate = '1/s'\nrate_limit.rate = '2/s'",
            ["rate", "rate", "rate"],
        ),
        (
            "retry.backoff = { base = '2s', max = '1s' }",
            ["retry.backoff", "1s", "max"],
        ),
    ] {
        let told = error(text);
        for part in parts {
            assert!(told.contains(part), "{text}: {told} lacks {part}");
        }
    }
}

#[test]
fn a_whole_stack_is_read() {
    let settings = client(
        r#"
        name = "payments"
        total_timeout = "off"
        rate = "50/s"
        burst = 5
        max_in_flight = 30
        attempt_timeout = "1s"
        [retry]
        attempts = 2
        backoff = { base = "50ms", max = "1s", jitter = { plus_minus = "20%" } }
        budget = { windowed = { ttl = "10s", ratio = "20%", min_per_sec = 3 } }
        [circuit_breaker]
        window = "100 calls"
        min_calls = 100
        failure_rate = "off"
        consecutive_failures = 3
        "#,
    );
    let stack = settings.apply_to(stack::client().http()).unwrap();
    let handle = stack.build().unwrap().handle();
    let snapshot = handle.snapshot();
    assert_eq!(snapshot.bulkheads[0].1.limit, 30);
    let limit = snapshot.rate_limit.unwrap();
    assert_eq!((limit.rate, limit.burst), (Rate::per_second(50), 5));
    assert_eq!(handle.retry.policy().max_attempts(), 2);
    assert_eq!(
        handle.attempt_timeout.snapshot().duration,
        Duration::from_secs(1)
    );
    let circuit = handle.circuit_breaker.shared().config();
    assert_eq!(
        (circuit.failure_rate, circuit.consecutive_failures),
        (None, Some(3))
    );
    // What is not named is as in a stack, and not as by itself.
    assert_eq!(circuit.open_for, Duration::from_millis(500));
}

#[test]
fn a_running_stack_follows_and_keeps_the_last_good_settings() {
    let before = client("rate = '50/s'");
    let stack = before.apply_to(stack::client().http()).unwrap();
    let stack = stack.build().unwrap();
    let mut reload = Reload::new(stack.handle(), before);

    let next = client("rate = '80/s'\nretry.attempts = 5\ncircuit_breaker.failure_rate = '30%'");
    let changed = reload.apply(next.clone()).unwrap();
    let fields: Vec<_> = changed.iter().map(|change| change.field).collect();
    assert!(fields.contains(&"rate"), "{changed}");
    assert_eq!(stack.handle().retry.policy().max_attempts(), 5);
    assert!(reload.apply(next.clone()).unwrap().is_empty());

    // One part is good, and the other is not.
    let bad = client("rate = '90/s'\nattempt_timeout = '0s'");
    reload.apply(bad).unwrap_err();
    let limit = stack.handle().snapshot().rate_limit.unwrap();
    assert_eq!(limit.rate, Rate::per_second(80));
    assert_eq!(reload.current(), &next);

    // What is fixed is named, and the way out.
    let error = reload
        .apply(client("rate = '80/s'\nname = 'other'"))
        .unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains("name") && told.contains("start the process again"),
        "{told}"
    );
}

#[test]
fn a_change_by_hand_stays_where_the_file_says_nothing_new() {
    let before = client("rate = '50/s'");
    let stack = before.apply_to(stack::client().http()).unwrap();
    let stack = stack.build().unwrap();
    stack
        .handle()
        .rate_limit
        .unwrap()
        .update(Rate::per_second(7), 7)
        .unwrap();
    let mut reload = Reload::new(stack.handle(), before);
    reload
        .apply(client("rate = '50/s'\nretry.attempts = 2"))
        .unwrap();
    let limit = stack.handle().snapshot().rate_limit.unwrap();
    assert_eq!(limit.rate, Rate::per_second(7));
}

#[test]
fn hedges_and_throttles_follow_too() {
    let before: HedgeSettings = read("delay = '50ms'").unwrap();
    let layer = before.builder().unwrap();
    let layer = layer.protocol(Plain::new().idempotent()).build().unwrap();
    let mut reload = Reload::new(layer.handle(), before);
    let changed = reload.apply(read("delay = '20ms'").unwrap()).unwrap();
    assert_eq!(changed.to_string(), "hedge: `delay` from 50ms to 20ms");
    assert!(reload.apply(read("").unwrap()).is_err());
    assert!(
        reload
            .apply(read("delay = '20ms'\nmax_hedges = 0").unwrap())
            .is_err()
    );

    let before: ThrottleSettings = read("").unwrap();
    let layer = before.builder().protocol(Plain::new()).build().unwrap();
    let mut reload = Reload::new(layer.handle(), before);
    let next: ThrottleSettings = read("multiplier = 1.5\nwindow = '30s'").unwrap();
    let changed = reload.apply(next.clone()).unwrap();
    assert!(
        changed.restarts() && changed.iter().count() == 2,
        "{changed}"
    );
    assert_eq!(layer.handle().config(), next.config());
    assert!(reload.apply(read("multiplier = 0.5").unwrap()).is_err());
    assert_eq!(layer.handle().config(), next.config());
}

#[cfg(feature = "schemars")]
#[test]
fn the_schema_knows_each_field_and_its_default() {
    let schema = schemars::schema_for!(ClientSettings).to_value();
    let written = serde_json::to_value(ClientSettings::default()).unwrap();
    let fields = schema["properties"].as_object().unwrap();
    for (field, value) in written.as_object().unwrap() {
        assert_eq!(&fields[field]["default"], value, "{field}");
    }
    assert_eq!(schema["additionalProperties"], false);
    for (field, told) in fields {
        assert!(told["description"].is_string(), "{field} is not described");
    }
}

#[cfg(feature = "watch")]
mod watched {
    use std::{
        fs,
        path::PathBuf,
        sync::mpsc::{self, Receiver},
    };

    use tower_keep::{
        Changed,
        settings::{ReloadError, Watch, watch},
        timeout::{TimeoutHandle, TimeoutLayer},
    };

    use super::*;

    /// A folder of its own, gone at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let process = std::process::id();
            let folder = std::env::temp_dir().join(format!("tower-keep-{name}-{process}"));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn file(&self) -> PathBuf {
            self.0.join("timeout.toml")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    type Told = Receiver<Result<Changed, ReloadError>>;

    fn following(folder: &Folder) -> (TimeoutHandle, Told, Watch) {
        let parse = |text: &str| -> Result<TimeoutSettings, tower::BoxError> {
            Ok(settings::read(toml::Deserializer::parse(text)?)?)
        };
        let settings = parse(&fs::read_to_string(folder.file()).unwrap()).unwrap();
        let layer: TimeoutLayer = settings.builder().unwrap().build().unwrap();
        let (tell, told) = mpsc::channel();
        let reload = Reload::new(layer.handle(), settings);
        let watch = watch(folder.file(), parse, reload, move |result| {
            tell.send(result).unwrap();
        });
        (layer.handle(), told, watch.unwrap())
    }

    fn next(told: &Told) -> Result<Changed, ReloadError> {
        told.recv_timeout(Duration::from_secs(8)).unwrap()
    }

    fn seconds(handle: &TimeoutHandle) -> u64 {
        handle.snapshot().duration.as_secs()
    }

    #[test]
    fn a_file_that_is_written_replaced_broken_and_mended_is_followed() {
        let folder = Folder::new("followed");
        fs::write(folder.file(), "duration = '1s'").unwrap();
        let (handle, told, watch) = following(&folder);

        fs::write(folder.file(), "duration = '2s'").unwrap();
        next(&told).unwrap();
        assert_eq!(seconds(&handle), 2);

        fs::write(folder.file(), "duration = '3").unwrap();
        let error = next(&told).unwrap_err().to_string();
        assert!(error.contains("timeout.toml: "), "{error}");
        fs::write(folder.file(), "duration = '0s'").unwrap();
        let error = next(&told).unwrap_err().to_string();
        assert!(error.contains("duration"), "{error}");
        fs::remove_file(folder.file()).unwrap();
        next(&told).unwrap_err();
        assert_eq!(seconds(&handle), 2);

        // As editors do.
        fs::write(folder.0.join("new"), "duration = '4s'").unwrap();
        fs::rename(folder.0.join("new"), folder.file()).unwrap();
        next(&told).unwrap();
        assert_eq!(seconds(&handle), 4);

        drop(watch);
        // The thread ends, and its sender with it.
        let end = told.recv_timeout(Duration::from_secs(8));
        assert_eq!(end.unwrap_err(), mpsc::RecvTimeoutError::Disconnected);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_is_set_anew_is_followed_as_a_config_map_is() {
        use std::os::unix::fs::symlink;

        let folder = Folder::new("linked");
        for version in ["1", "2"] {
            fs::create_dir(folder.0.join(version)).unwrap();
            let text = format!("duration = '{version}s'");
            fs::write(folder.0.join(version).join("timeout.toml"), text).unwrap();
        }
        symlink("1", folder.0.join("data")).unwrap();
        symlink("data/timeout.toml", folder.file()).unwrap();
        let (handle, told, _watch) = following(&folder);

        symlink("2", folder.0.join("new")).unwrap();
        fs::rename(folder.0.join("new"), folder.0.join("data")).unwrap();
        next(&told).unwrap();
        assert_eq!(seconds(&handle), 2);
    }

    #[test]
    fn what_changed_before_the_watch_is_found() {
        let folder = Folder::new("before");
        fs::write(folder.file(), "duration = '1s'").unwrap();
        let settings: TimeoutSettings = read("duration = '5s'").unwrap();
        let layer: TimeoutLayer = settings.builder().unwrap().build().unwrap();
        let (tell, told) = mpsc::channel();
        let parse = |text: &str| Ok(read(text)?);
        let reload = Reload::new(layer.handle(), settings);
        let _watch = watch(folder.file(), parse, reload, move |result| {
            tell.send(result).unwrap();
        });
        next(&told).unwrap();
        assert_eq!(seconds(&layer.handle()), 1);
    }

    #[test]
    fn a_folder_that_does_not_exist_is_an_error() {
        let settings: TimeoutSettings = read("duration = '1s'").unwrap();
        let layer: TimeoutLayer = settings.builder().unwrap().build().unwrap();
        let reload = Reload::new(layer.handle(), settings);
        let parse = |text: &str| Ok(read::<TimeoutSettings>(text)?);
        watch("/nowhere/at/all.toml", parse, reload, |_| {}).unwrap_err();
    }
}
