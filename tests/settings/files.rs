//! Settings that are read from files: what a user writes, what is refused and how it is told, what
//! the defaults are, and how running layers follow.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    protocol::Plain,
    rate_limit::Rate,
    settings::{
        self, Alone, BulkheadSettings, CircuitBreakerSettings, ClientSettings, DimensionsSettings,
        HedgeSettings, OrOff, RateLimitSettings, ReadError, Reload, RetrySettings, ServerSettings,
        Settings, ThrottleSettings, TimeoutSettings,
    },
    stack,
};

pub(crate) fn read<S: DeserializeOwned>(text: &str) -> Result<S, ReadError> {
    settings::read(toml::Deserializer::parse(text).unwrap())
}

pub(crate) fn client(text: &str) -> ClientSettings {
    read(text).unwrap()
}

#[tokio::test]
async fn a_file_says_what_happens_to_further_keys() {
    for (overflow, is_answered) in [("shared", true), ("reject", false)] {
        let text = format!("max_keys = 1\noverflow = '{overflow}'");
        let settings: CircuitBreakerSettings = read(&text).unwrap();
        let breaker = settings.builder().protocol(Plain::new());
        let layer = breaker.keyed_by(|key: &u8| Some(*key)).build().unwrap();
        let service = layer.layer(service_fn(async |key: u8| match key {
            0 => Err(BoxError::from("down")),
            _ => Ok(key),
        }));
        // A failure keeps its place.
        service.clone().oneshot(0).await.unwrap_err();
        assert_eq!(service.oneshot(1).await.is_ok(), is_answered, "{overflow}");
    }
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
    #[cfg(feature = "fault")]
    pinned(
        &settings::FaultSettings::default(),
        include_str!("fault.toml"),
    );
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
        (
            "retry.attempts = -1",
            [
                "`retry.attempts`",
                "`-1`",
                "no whole number: write one from 0",
            ],
        ),
        (
            "retry.attempts = 4294967296",
            [
                "`retry.attempts`",
                "`4294967296`",
                "write at most 4294967295",
            ],
        ),
        (
            "retry.attempts = 1.5",
            ["`retry.attempts`", "`1.5`", "no whole number"],
        ),
        ("name = 5\nburst = 'x'", ["`burst`", "`x`", "whole number"]),
        (
            "retry = 5",
            [
                "`retry`",
                "`5` sets nothing",
                "write the fields to set, or \"off\"",
            ],
        ),
        (
            "retry.backoff = 'off'",
            ["`retry.backoff`", "`off` sets nothing", "or leave it out"],
        ),
        (
            "circuit_breaker.verdict = false",
            ["`circuit_breaker.verdict", "`false`", "`rate`"],
        ),
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

/// How a type reads a value.
type Reader = fn(serde_json::Value) -> Result<(), String>;

/// All settings types, and what each reads.
fn all_types() -> Vec<(&'static str, Reader)> {
    fn reads<S: DeserializeOwned>(value: serde_json::Value) -> Result<(), String> {
        let read = settings::read::<S, _>(value);
        read.map(drop).map_err(|error| error.to_string())
    }
    vec![
        #[cfg(feature = "fault")]
        ("fault", reads::<settings::FaultSettings>),
        ("client", reads::<ClientSettings>),
        ("server", reads::<ServerSettings>),
        ("circuit_breaker", reads::<CircuitBreakerSettings>),
        ("retry", reads::<RetrySettings>),
        ("rate_limit", reads::<RateLimitSettings>),
        ("dimensions", reads::<DimensionsSettings>),
        ("bulkhead", reads::<BulkheadSettings>),
        ("timeout", reads::<TimeoutSettings>),
        ("hedge", reads::<HedgeSettings>),
        ("throttle", reads::<ThrottleSettings>),
    ]
}

type Reads<'a> = &'a dyn Fn(serde_json::Value) -> Result<(), String>;

/// Each field of a part, and of the parts in it, by what its errors list.
fn each_field(reads: Reads<'_>, path: &str, seen: &mut dyn FnMut(&str, Reads<'_>)) {
    let Err(error) = reads(json!({ "?": 1 })) else {
        return;
    };
    let Some((_, listed)) = error.split_once("expected ") else {
        return;
    };
    if !error.contains("unknown field") {
        return;
    }
    for field in listed.split('`').skip(1).step_by(2) {
        let path = format!("{path}.{field}");
        let read = |value: serde_json::Value| reads(json!({ field: value }));
        seen(&path, &read);
        each_field(&read, &path, seen);
    }
}

/// A rate, a circuit, a timeout: YAML's empty value, with which a file ends that is half written,
/// and `false` turned them off.
#[test]
fn only_off_turns_something_off() {
    let mut fields = 0;
    for (name, reads) in all_types() {
        each_field(&reads, name, &mut |path, read| {
            fields += 1;
            let told = |value| read(value).expect_err(path);
            for error in [told(json!(null)), told(json!([1]))] {
                assert_is_plain(path, &error);
            }
            assert!(has_a_fix(&told(json!(null))), "{path}");
            if read(json!(true)).is_err() {
                let error = told(json!(false));
                assert_is_plain(path, &error);
                assert!(has_a_fix(&error), "{path}: {error}");
            }
        });
    }
    assert!(fields > 150, "{fields}");
}

fn has_a_fix(error: &str) -> bool {
    ["write ", "use ", "expected one of `", "expected `"]
        .iter()
        .any(|fix| error.contains(fix))
}

/// In the words of a file.
fn assert_is_plain(what: &str, error: &str) {
    for word in [
        "Some(",
        "None",
        "struct ",
        "enum ",
        "Option",
        "u16",
        "u32",
        "usize",
        "f64",
        "unit variant",
        "newtype",
        "variant,",
        "string",
    ] {
        assert!(!error.contains(word), "{what}: {error}");
    }
}

/// `-2` as a time was to be `-2ms`, and 200 as a share `200%`, and both were refused in turn.
#[test]
fn the_fix_that_is_told_is_accepted() {
    let wrong = [
        json!(-2),
        json!("-2"),
        json!(0),
        json!(2),
        json!(50),
        json!(200),
        json!(1.5),
        json!(1e300),
        json!(-0.5),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!(" "),
        json!("x"),
        json!("5 weeks"),
        json!("1h 30"),
        json!("1.5/s"),
        json!("5/"),
        json!("101%"),
        json!("-1%"),
        json!("99999999999999999999"),
        json!("none"),
        json!("Off"),
        json!("null"),
        json!(null),
        json!(true),
        json!(false),
    ];
    let mut tried = 0;
    for (name, reads) in all_types() {
        each_field(&reads, name, &mut |path, read| {
            for value in &wrong {
                let error = read(value.clone()).err().unwrap_or_default();
                if error.is_empty() || error.contains("missing field") {
                    continue;
                }
                assert_is_plain(path, &error);
                let Some((_, fixes)) = error.split_once("write ") else {
                    assert!(has_a_fix(&error), "{path} = {value}: {error}");
                    continue;
                };
                for fix in fixes.split(", or ").flat_map(|fix| fix.split([',', ' '])) {
                    let fix = fix.trim_matches('"');
                    if fix == "off" || fix.starts_with(|letter: char| letter.is_ascii_digit()) {
                        tried += 1;
                        let fixed = read(json!(fix)).or_else(|_| read(fixed_text(fixes, fix)));
                        let error = fixed.err().unwrap_or_default();
                        // Another field of the same part is needed too.
                        let is_read = error.is_empty() || error.contains("missing field");
                        assert!(is_read, "{path} = {value}: {error}");
                    }
                }
            }
        });
    }
    assert!(tried > 2000, "{tried}");
}

/// A fix of two words, such as `1h 30ms` or `100 calls`.
fn fixed_text(fixes: &str, first: &str) -> serde_json::Value {
    let ends = [", ", " or "];
    let text = &fixes[fixes.find(first).unwrap()..];
    let end = ends.iter().filter_map(|end| text.find(end)).min();
    json!(&text[..end.unwrap_or(text.len())])
}

/// As `config` and `envy` read them.
#[test]
fn values_of_the_environment_are_texts() {
    let variables = [
        ("name", "payments"),
        ("total_timeout", "8s"),
        ("attempt_timeout", "off"),
        ("max_in_flight", "50"),
        ("rate", "100/s"),
        ("burst", "7"),
    ];
    let variables =
        serde::de::value::MapDeserializer::<_, serde::de::value::Error>::new(variables.into_iter());
    let read: ClientSettings = settings::read(variables).unwrap();
    assert_eq!(read.max_in_flight, Some(OrOff::On(50)));
    assert_eq!((read.burst, read.attempt_timeout), (Some(7), OrOff::Off));

    // Whatever reads as a number, or as true or false, reads as a text too.
    let (mut numbers, mut flags) = (0, 0);
    for (name, reads) in all_types() {
        each_field(&reads, name, &mut |path, read| {
            if read(json!(3)).is_ok() {
                numbers += 1;
                assert_eq!(read(json!("3")), Ok(()), "{path}");
                assert_eq!(read(json!(" 3 ")), Ok(()), "{path}");
            }
            if read(json!(true)).is_ok() {
                flags += 1;
                assert_eq!(read(json!("true")), Ok(()), "{path}");
                assert_eq!(read(json!("false")), Ok(()), "{path}");
                assert!(
                    read(json!("no"))
                        .unwrap_err()
                        .contains("write true or false")
                );
            }
        });
    }
    assert!(numbers > 50 && flags > 30, "{numbers} {flags}");
}

#[test]
fn parts_are_turned_off_by_a_word() {
    let off = client(
        "retry = 'off'\ncircuit_breaker = 'off'\nbulkhead = 'off'\nrate_limit = 'off'\n\
         rate = 'off'\ntotal_timeout = 'off'\nattempt_timeout = 'off'",
    );
    assert!(!off.retry.enabled && !off.circuit_breaker.enabled);
    // But for that word it is as before.
    assert_eq!(
        off.circuit_breaker.config(),
        client("").circuit_breaker.config()
    );
    let stack = off
        .apply_to(stack::client().http())
        .unwrap()
        .build()
        .unwrap();
    assert!(stack.handle().rate_limit.is_none());
    let breaker: CircuitBreakerSettings = read("slow_calls = 'off'").unwrap();
    assert_eq!(breaker.slow_calls, None);
    let bulkhead: BulkheadSettings =
        read("limit = 1\nadaptive = 'off'\nmax_wait = 'off'\nwithin = 'off'").unwrap();
    assert_eq!(
        (bulkhead.adaptive, bulkhead.max_wait, bulkhead.within),
        (None, None, None)
    );
    let limit: RateLimitSettings = read("rate = '1/s'\nhonor_retry_after = 'off'").unwrap();
    assert_eq!(limit.honor_retry_after, None);
    let server: ServerSettings = read("bulkhead = 'off'\ntimeout = 'off'").unwrap();
    server
        .apply_to(stack::server().http())
        .unwrap()
        .build()
        .unwrap();

    // The name of a shape has its defaults.
    let named: BulkheadSettings = read("limit = 9\nadaptive = 'vegas'").unwrap();
    assert_eq!(named, read("limit = 9\nadaptive.vegas = {}").unwrap());
    let named: RetrySettings = read("budget = 'throttle'").unwrap();
    assert_eq!(named, read("budget.throttle = {}").unwrap());
}

/// The bulkhead won in silence.
#[test]
fn a_limit_and_a_bulkhead_in_one_file_are_an_error() {
    let both = "max_in_flight = 5\nbulkhead.limit = 7";
    let told = "stack: `max_in_flight` is 5: leave it: `bulkhead`";
    let error = client(both).apply_to(stack::client().http()).unwrap_err();
    assert!(error.to_string().starts_with(told), "{error}");
    for set in ["'off'", "1"] {
        let both = client(&format!("max_in_flight = {set}\nbulkhead.limit = 7"));
        both.apply_to(stack::client().http()).unwrap_err();
    }
    let server: ServerSettings = read(both).unwrap();
    let error = server.apply_to(stack::server().http()).unwrap().build();
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with(told), "{error}");

    // A running one is not moved to it either.
    let before = client("bulkhead.limit = 7");
    let stack = before
        .apply_to(stack::client().http())
        .unwrap()
        .build()
        .unwrap();
    let mut reload = Reload::new(stack.handle(), before);
    reload.apply(client(both)).unwrap_err();
    let before: ServerSettings = read("bulkhead.limit = 7").unwrap();
    let stack = before
        .apply_to(stack::server().http())
        .unwrap()
        .build()
        .unwrap();
    let mut reload = Reload::new(stack.handle(), before);
    reload.apply(server).unwrap_err();
    let changed = reload.apply(read("bulkhead.limit = 8").unwrap()).unwrap();
    assert_eq!(changed.to_string(), "bulkhead: `limit` from 7 to 8");
}

#[test]
fn errors_of_a_build_speak_the_words_of_the_file() {
    let built = |text: &str| {
        let builder = client(text).apply_to(stack::client().http());
        builder.and_then(|builder| builder.build())
    };
    let served = |text: &str| {
        let settings: ServerSettings = read(text).unwrap();
        let builder = settings.apply_to(stack::server().http());
        builder.and_then(|builder| builder.build())
    };
    for (error, told) in [
        (
            built("attempt_timeout = '0s'").unwrap_err(),
            "timeout: `attempt_timeout` is 0ns",
        ),
        (
            built("total_timeout = '0s'\nattempt_timeout = 'off'").unwrap_err(),
            "`total_timeout` is 0ns",
        ),
        (
            built("max_in_flight = 0").unwrap_err(),
            "bulkhead: `max_in_flight` is 0",
        ),
        (
            built("bulkhead.limit = 0").unwrap_err(),
            "bulkhead: `limit` is 0",
        ),
        (
            built("bulkhead.max_wait = '1s'").unwrap_err(),
            "bulkhead: `limit` is not set",
        ),
        (built("burst = 5").unwrap_err(), "stack: `burst` is 5"),
        (
            built("retry.budget.funded.capacity = 0").unwrap_err(),
            "retry.budget: `capacity` is 0",
        ),
        (built("rate = '5/0s'").unwrap_err(), "such as 100/s"),
        (
            served("max_in_flight = 1\ntimeout = '0s'").unwrap_err(),
            "timeout: `timeout` is 0ns",
        ),
        (served("").unwrap_err(), "stack: `max_in_flight` is not set"),
    ] {
        let error = error.to_string();
        assert!(error.contains(told), "{error}");
        assert_is_plain(told, &error);
    }
}

#[test]
fn what_cannot_change_is_told_in_the_files_words() {
    let full = "name = 'pay'\nrate = '5/s'\nbulkhead = { limit = 3, max_wait = '1s' }";
    let before = client(full);
    let stack = before
        .apply_to(stack::client().http())
        .unwrap()
        .build()
        .unwrap();
    let mut reload = Reload::new(stack.handle(), before);
    for (from, to, told) in [
        ("'pay'", "'buy'", "`name` is \"buy\": change it back"),
        ("name = 'pay'", "", "`name` is not set: change it back"),
        ("limit = 3", "limit = 0", "bulkhead (pay): `limit` is 0"),
        ("'1s'", "'2s'", "bulkhead: `max_wait` is 2s"),
        (
            "name",
            "total_timeout = 'off'\nname",
            "stack: `total_timeout` is off",
        ),
        (
            "name",
            "retry.budget = 'off'\nname",
            "retry: `budget` is different: change it back",
        ),
        (
            "name",
            "rate_limit.rate = '3/s'\nname",
            "stack: `rate` is 5/s: leave it: `rate_limit` has",
        ),
        (
            "name",
            "attempt_timeout = '0s'\nname",
            "`attempt_timeout` is 0ns",
        ),
    ] {
        let error = reload.apply(client(&full.replace(from, to))).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(told), "{error}");
        assert_is_plain(told, &error);
    }
    let all = "[retry]\nbackoff = { base = '50ms' }\n[circuit_breaker]\nwindow = '20s'\n\
               slow_calls = { after = '1s', rate = '50%' }\nmax_open = '9s'\nfailure_rate = 'off'";
    let changed = reload.apply(client(&format!("{full}\n{all}"))).unwrap();
    let changed = changed.to_string();
    assert_is_plain("changed", &changed);
    for told in [
        "`backoff` from { base: 100ms, max: 10s, jitter: Exponential } to { base: 50ms",
        "`window` from 10s to 20s",
        "`slow_calls` from not set to { after: 1s, rate: 0.5 }",
        "`failure_rate` from 0.5 to not set",
    ] {
        assert!(changed.contains(told), "{changed}");
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
    assert_eq!(handle.retry.config().attempts, 2);
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
    assert_eq!(circuit.lease, Some(Duration::from_secs(5)));
}

#[test]
fn a_running_stack_keeps_the_last_good_settings() {
    let before = client("rate = '50/s'");
    let stack = before.apply_to(stack::client().http()).unwrap();
    let stack = stack.build().unwrap();
    let mut reload = Reload::new(stack.handle(), before);

    let next = client("rate = '80/s'\nretry.attempts = 5\ncircuit_breaker.failure_rate = '30%'");
    let changed = reload.apply(next.clone()).unwrap();
    let fields: Vec<_> = changed.iter().map(|change| change.field).collect();
    assert!(fields.contains(&"rate"), "{changed}");
    assert_eq!(stack.handle().retry.config().attempts, 5);
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
fn a_manual_change_stays_if_the_file_keeps_its_value() {
    let before = client("rate = '50/s'");
    let stack = before.apply_to(stack::client().http()).unwrap();
    let stack = stack.build().unwrap();
    stack
        .handle()
        .rate_limit
        .unwrap()
        .set_rate(Rate::per_second(7), 7)
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

#[cfg(feature = "fault")]
#[tokio::test(start_paused = true)]
async fn a_file_switches_faults_off() {
    use tower_keep::{
        fault::{Fault, FaultLayer},
        settings::FaultSettings,
    };

    let before: FaultSettings = read("name = 'game day'\nmax_active = 20").unwrap();
    let builder = FaultLayer::builder("a test").protocol(Plain::new());
    let layer = before.apply_to(builder.fault(Fault::hang()));
    let layer = layer.build().unwrap();
    let handle = layer.handle();
    let mut reload = Reload::new(handle.clone(), before);
    let settings = |text: &str| read::<FaultSettings>(&format!("name = 'game day'\n{text}"));
    handle.start_for(Duration::from_secs(60));

    let changed = reload.apply(settings("max_active = 5\nshadow = true").unwrap());
    assert_eq!(
        changed.unwrap().to_string(),
        "fault: `shadow` from false to true, fault: `max_active` from 20 to 5"
    );
    assert!(handle.is_running() && handle.policy().shadow);

    let none = reload.apply(settings("max_active = 0").unwrap());
    assert!(none.unwrap_err().to_string().contains("`max_active` is 0"));
    assert!(handle.is_running());

    reload.apply(settings("enabled = false").unwrap()).unwrap();
    assert!(!handle.is_running() && !handle.start_for(Duration::from_secs(60)));
    // It cannot start them.
    reload.apply(settings("enabled = true").unwrap()).unwrap();
    assert!(!handle.is_running());

    let renamed = reload.apply(read("name = 'other'").unwrap());
    assert!(renamed.unwrap_err().to_string().contains("`name` is"));
    let stranger = read::<FaultSettings>("reason = 'x'").unwrap_err();
    assert!(stranger.to_string().contains("`reason`"), "{stranger}");
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
    // What the schema allows is what is read: no empty value, and `"off"` where it means something.
    assert!(!schema.to_string().contains("null"));
    for (field, told) in fields {
        let can_be_off = told["anyOf"]
            .as_array()
            .is_some_and(|shapes| shapes.iter().any(|shape| shape["const"] == "off"));
        let read = read::<ClientSettings>(&format!("{field} = 'off'"));
        assert_eq!(
            can_be_off,
            field != "name" && read.is_ok(),
            "{field}: {told}"
        );
    }
    for (field, told) in fields {
        assert!(told["description"].is_string(), "{field} is not described");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_sets_and_changes_a_hedge_and_a_throttle() {
    let text = |delay: &str, multiplier: &str| {
        client(&format!(
            "[hedge]\ndelay = '{delay}'\n[throttle]\nmultiplier = {multiplier}\n"
        ))
    };
    let before = text("50ms", "2.0");
    let builder = || stack::client().http().hedge(|hedge| hedge);
    let handle = before
        .apply_to(builder())
        .unwrap()
        .build()
        .unwrap()
        .handle();
    let hedge = handle.hedge.clone().unwrap();
    assert_eq!(hedge.config().delay, Duration::from_millis(50));

    let update = |settings: ClientSettings| Settings::update(&settings, &handle, &before);
    let changed = update(text("20ms", "1.5")).unwrap();
    let expected = "hedge: `delay` from 50ms to 20ms, throttle: `multiplier` from 2.0 to 1.5";
    assert_eq!(changed.to_string(), expected);
    let error = update(client("[throttle]\nmultiplier = 2.0\n"));
    assert_eq!(error.unwrap_err().field, "hedge", "it cannot be taken out");

    // A stack that the code builds without a hedge, or without retries.
    let error = before.apply_to(stack::client().http()).unwrap_err();
    assert_eq!((error.layer, error.field), (Some("stack"), "hedge"));
    let retries = client("[retry]\nattempts = 2\n");
    let error = retries.apply_to(builder()).unwrap_err();
    assert_eq!((error.layer, error.field), (Some("stack"), "retry"));
    let off = client("hedge = 'off'\nthrottle = 'off'");
    assert!(!off.hedge.as_ref().unwrap().enabled && off.throttle.is_none());
    assert!(off.apply_to(stack::client().http()).is_ok());
    let late = client("[hedge]\ndelay = '5s'\n")
        .apply_to(builder())
        .unwrap();
    assert_eq!(late.build().unwrap_err().field, "delay");
}
