//! Logs as people have them.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use tower_keep::replay::{Call, End, Format, Log, LogOptions};

/// A file that goes with the test.
pub(crate) struct Temporary(pub(crate) PathBuf);

impl Temporary {
    pub(crate) fn new(name: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("replay-test-{}-{number}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn with(name: &str, content: impl AsRef<[u8]>) -> Self {
        let file = Self::new(name);
        fs::write(&file.0, content).unwrap();
        file
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

fn read(content: impl AsRef<[u8]>, options: &LogOptions) -> std::io::Result<Log> {
    let file = Temporary::with("log", content);
    Log::read([&file.0], options, &mut |_| {})
}

fn auto(content: impl AsRef<[u8]>) -> Log {
    read(content, &LogOptions::default()).unwrap()
}

fn nginx(format: &str) -> LogOptions {
    let mut options = LogOptions::default();
    options.format = Format::Nginx(format.into());
    options
}

fn calls(log: &Log) -> Vec<Call> {
    let mut calls = Vec::new();
    log.calls.each(&mut |call| calls.push(*call)).unwrap();
    calls
}

/// The start in seconds since 1970, the milliseconds, and the end.
fn facts(log: &Log) -> Vec<(f64, u64, End)> {
    let calls = calls(log).into_iter();
    calls
        .map(|call| {
            // Whole microseconds, which a float can tell.
            let start = (call.start / 1000) as f64 / 1e6;
            (start, call.duration / 1_000_000, call.end)
        })
        .collect()
}

const LINE: &str =
    r#"10.0.0.7 - - [30/Nov/2026:18:08:48 +0000] "GET /a HTTP/1.1" 200 12 "-" "curl/8" 0.250"#;

#[test]
fn the_end_of_an_nginx_line_is_its_time() {
    let log = auto(format!("{LINE}\n"));
    let [call] = calls(&log)[..] else { panic!() };
    assert_eq!(call.duration, 250_000_000);
    assert!(call.is_coarse && call.key != 0 && call.host == 0);
    // Within its second, less what it took.
    let end = call.start + call.duration;
    assert!((1_796_062_128_000_000_000..1_796_062_129_000_000_000).contains(&end));
    assert_eq!(log.lines.coarse, 1);
    assert_eq!(log.keys[&call.key], "10.0.0.7");
}

#[test]
fn nginx_without_a_duration_says_what_to_add() {
    let line = LINE.strip_suffix(" 0.250").unwrap();
    let error = read(line, &LogOptions::default()).unwrap_err().to_string();
    assert!(
        error.contains("no duration") && error.contains("$request_time"),
        "{error}"
    );
    let error = read(line, &nginx("[$time_local] $status"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("lacks a duration"), "{error}");
}

#[test]
fn a_log_format_is_read_as_nginx_writes_it() {
    let format = r#"$msec ${remote_addr} "$request" $status ($upstream_addr|$upstream_status) $upstream_response_time $request_time $limit_req_status"#;
    let lines = [
        r#"1796062128.500 10.0.0.1 "GET / HTTP/1.1" 200 (10.1.0.1:80, 10.1.0.2:80|502, 200) 0.100, 0.050 0.151 PASSED"#,
        r#"1796062129.000 10.0.0.1 "GET / HTTP/1.1" 429 (-|-) - 0.000 -"#,
        r#"1796062130.000 10.0.0.1 "GET / HTTP/1.1" 503 (-|-) - 0.000 REJECTED"#,
        r#"1796062131.000 10.0.0.1 "GET / HTTP/1.1" 429 (10.1.0.1:80|429) 0.001 0.001 PASSED"#,
        r#"1796062132.000 10.0.0.1 "GET / HTTP/1.1" 499 (10.1.0.1:80|-) 2.000 2.000 PASSED"#,
        r#"1796062133.000 10.0.0.1 "GET / HTTP/1.1" 504 (10.1.0.1:80|504) 1.000 1.000 PASSED"#,
    ];
    let log = read(lines.join("\n"), &nginx(format)).unwrap();
    assert_eq!(
        facts(&log),
        [
            (1_796_062_128.349, 151, End::Success),
            (1_796_062_129.0, 0, End::Rejected),
            (1_796_062_130.0, 0, End::Rejected),
            (1_796_062_130.0, 2000, End::Cancelled),
            (1_796_062_130.999, 1, End::Overload),
            (1_796_062_132.0, 1000, End::Failure),
        ]
    );
    assert_eq!(
        (log.lines.rejected, log.lines.broken, log.lines.coarse),
        (2, 0, 0)
    );
    let mut options = nginx(format);
    options.upstream_times = true;
    let log = read(lines.join("\n"), &options).unwrap();
    assert_eq!(facts(&log)[0].1, 150, "the sum of both upstreams");
}

#[test]
fn a_format_without_the_calls_own_status_is_an_error() {
    let line = "1796062128.500 0.151 200\n";
    let error = read(line, &nginx("$msec $request_time $upstream_status")).unwrap_err();
    assert!(error.to_string().contains("lacks a status"), "{error}");
}

#[test]
fn a_rejection_by_either_limit_of_nginx_counts() {
    for format in [
        "$msec $request_time $status $limit_req_status $limit_conn_status",
        "$msec $request_time $status $limit_conn_status $limit_req_status",
    ] {
        let lines = "1796062128.500 0.000 503 REJECTED PASSED\n\
             1796062129.500 0.000 503 PASSED REJECTED\n\
             1796062130.500 0.000 503 REJECTED_DRY_RUN PASSED\n";
        let log = read(lines, &nginx(format)).unwrap();
        let ends: Vec<_> = facts(&log).into_iter().map(|(_, _, end)| end).collect();
        let expected = [End::Rejected, End::Rejected, End::Failure];
        assert_eq!(ends, expected, "{format}");
    }
}

#[test]
fn an_envoy_line_begins_at_its_time() {
    let line = |flags: &str, code: u16| {
        format!(
            "[2026-11-30T18:08:48.123Z] \"GET /a HTTP/1.1\" {code} {flags} 0 12 250 248 \
             \"10.0.0.7\" \"curl/8\" \"id\" \"shop\" \"10.1.0.1:80\"\n"
        )
    };
    let lines = [
        line("-", 200),
        line("RL", 429),
        line("UO", 503),
        line("DC", 0),
        line("UT", 504),
    ];
    let log = auto(lines.concat());
    let ends: Vec<_> = facts(&log).into_iter().map(|(_, _, end)| end).collect();
    let expected = [
        End::Success,
        End::Rejected,
        End::Rejected,
        End::Cancelled,
        End::Failure,
    ];
    assert_eq!(ends, expected);
    assert_eq!(facts(&log)[0], (1_796_062_128.123, 250, End::Success));
    let hosts: Vec<_> = log.hosts.values().collect();
    assert_eq!(hosts, ["10.1.0.1:80"]);
}

#[test]
fn csv_has_units_quotes_and_words() {
    let log = auto(
        "start;latency_us;outcome;tenant;cost\n\
         2026-11-30T18:08:48.5+00:00;1500;ok;\"a;b \"\"c\"\"\";3\n\
         2026-11-30T18:08:49.5+00:00;2500000;failure;b;\n",
    );
    let calls = calls(&log);
    assert_eq!(
        facts(&log),
        [
            (1_796_062_128.5, 1, End::Success),
            (1_796_062_129.5, 2500, End::Failure)
        ]
    );
    assert_eq!((calls[0].cost, calls[1].cost), (3, 1));
    assert_eq!(log.keys[&calls[0].key], "a;b \"c\"");
    let error = read("start,key\n1796062128,a\n", &LogOptions::default()).unwrap_err();
    assert!(error.to_string().contains("names no duration"), "{error}");
}

#[test]
fn broken_lines_are_counted_and_the_first_shown() {
    let broken = "\u{1b}[2Jnonsense\n".repeat(9);
    let log = auto(format!("{LINE}\n{broken}\n{LINE}\n"));
    assert_eq!(
        (log.lines.read, log.lines.broken, log.calls.count()),
        (11, 9, 2)
    );
    assert_eq!(log.lines.first_broken.len(), 5);
    let first = &log.lines.first_broken[0];
    assert_eq!((first.number, first.text.as_str()), (2, "?[2Jnonsense"));
}

#[test]
fn a_line_without_end_takes_no_memory() {
    let long = "x".repeat(10 << 20);
    let log = auto(format!("{LINE}\n{long}\n{LINE}"));
    assert_eq!((log.lines.broken, log.calls.count()), (1, 2));
    assert!(log.lines.first_broken[0].why.contains("64 KiB"));
}

#[test]
fn rotated_files_may_come_in_any_order_and_compressed() {
    let line = |second: u64| LINE.replace(":48 +", &format!(":{second} +")) + "\n";
    let newer = Temporary::with("access.log", line(30) + &line(20));
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(line(10).as_bytes()).unwrap();
    let mut packed = packed.finish().unwrap();
    // Two members, as `cat a.gz b.gz` makes them.
    let mut second = GzEncoder::new(Vec::new(), Compression::default());
    second.write_all(line(15).as_bytes()).unwrap();
    packed.extend(second.finish().unwrap());
    let older = Temporary::with("access.log.1.gz", &packed);
    let mut options = LogOptions::default();
    options.in_memory = 2;
    let log = Log::read([&newer.0, &older.0], &options, &mut |_| {}).unwrap();
    let starts: Vec<_> = calls(&log).iter().map(|call| call.start).collect();
    assert_eq!(starts.len(), 4);
    assert!(starts.is_sorted());

    let cut = Temporary::with("cut.gz", &packed[..packed.len() - 6]);
    let log = Log::read([&cut.0], &options, &mut |_| {}).unwrap();
    assert_eq!(
        (log.calls.count(), log.lines.broken),
        (2, 1),
        "what was read of it counts"
    );
}

#[test]
fn a_zone_is_taken_for_times_without_one() {
    let csv = "start,duration_ms,status\n2026-11-30 20:08:48.0,1,200\n";
    let mut options = LogOptions::default();
    options.set_zone("+02:00").unwrap();
    assert_eq!(facts(&read(csv, &options).unwrap())[0].0, 1_796_062_128.0);
    assert!(options.set_zone("Berlin").unwrap_err().contains("+02:00"));
}

#[test]
fn a_chosen_key_or_host_is_read_from_any_format() {
    let format = "$msec $request_time $status $host $http_x_api_key $remote_addr";
    let line = "1796062128.500 0.151 200 shop k1 10.0.0.1\n";
    let csv = "start,duration_ms,status,Plan,key,host\n1796062128.5,20,200,gold,a,shop\n";
    let envoy = Format::Envoy("%START_TIME% %DURATION% %RESPONSE_CODE% %REQ(X-API-KEY)%".into());
    let read_with = |content: &str, format: Format, key: &str, host: &str| {
        let mut options = LogOptions::default();
        options.format = format;
        options.key = Some(key.into()).filter(|key: &String| !key.is_empty());
        options.host = Some(host.into()).filter(|host: &String| !host.is_empty());
        let log = read(content, &options).unwrap();
        let first =
            |texts: Vec<&String>| texts.first().map_or(String::new(), |text| (*text).clone());
        (
            first(log.keys.values().collect()),
            first(log.hosts.values().collect()),
        )
    };
    let nginx = || Format::Nginx(format.into());
    for (content, format, key, host, expected) in [
        (line, nginx(), "$http_x_api_key", "", ("k1", "shop")),
        (line, nginx(), "", "http_x_api_key", ("10.0.0.1", "k1")),
        // A field that is chosen keeps its usual meaning.
        (line, nginx(), "host", "", ("shop", "shop")),
        (line, nginx(), "status", "", ("200", "shop")),
        (csv, Format::Auto, "plan", "", ("gold", "shop")),
        (csv, Format::Csv, "", "plan", ("a", "gold")),
        (
            "2026-11-30T18:08:48.123Z 250 200 k2\n",
            envoy,
            "%REQ(x-api-key)%",
            "",
            ("k2", ""),
        ),
    ] {
        let (key_text, host_text) = read_with(content, format, key, host);
        assert_eq!(
            (key_text.as_str(), host_text.as_str()),
            expected,
            "{key} {host}"
        );
    }
}

#[test]
fn a_chosen_field_that_a_log_lacks_is_an_error() {
    let mut options = nginx("$msec $request_time $status $remote_addr");
    options.key = Some("$http_x_api_kee".into());
    let line = "1796062128.500 0.151 200 10.0.0.1\n";
    let error = read(line, &options).unwrap_err().to_string();
    let text = "--key is `$http_x_api_kee`, which this log does not have: \
                use one of msec, request_time, status, remote_addr";
    assert!(error.ends_with(text), "{error}");
    options.format = Format::Auto;
    for (content, name) in [
        (LINE, "body_bytes_sent"),
        ("start,duration_ms,status\n1796062128.5,20,200\n", "start"),
    ] {
        let error = read(content, &options).unwrap_err().to_string();
        assert!(
            error.contains("--key is") && error.contains(name),
            "{error}"
        );
        let mut options = LogOptions::default();
        options.host = Some("shop".into());
        let error = read(content, &options).unwrap_err().to_string();
        assert!(error.contains("--host is `shop`"), "{error}");
    }
}

#[test]
fn what_nobody_can_read_is_an_error() {
    for (content, words) in [
        ("hello\nworld\n", "format is not known"),
        ("{\"a\": 1}\n", "jq -r"),
        ("", "format is not known"),
        ("start,duration_ms,status\n", "no call"),
        ("\u{28}\u{b5}", "format is not known"),
    ] {
        let error = read(content, &LogOptions::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{content:?}: {error}");
    }
    let missing = Log::read(["/does/not/exist"], &LogOptions::default(), &mut |_| {});
    assert!(missing.unwrap_err().to_string().contains("/does/not/exist"));
}

#[test]
fn formats_are_named_on_a_command_line() {
    let text = "nginx:$msec $request_time $status";
    let format = Format::Nginx("$msec $request_time $status".into());
    assert_eq!(text.parse(), Ok(format));
    assert_eq!("csv".parse(), Ok(Format::Csv));
    assert!("json".parse::<Format>().unwrap_err().contains("no format"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_make_a_reader_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400), head in 0usize..6, format in 0usize..4,
    ) {
        let heads: [&[u8]; 6] = [
            b"",
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
            b"start,duration_ms,status\n",
            b"tower-keep recording\0\0\0\0\x01\0\0\0\x20\0\0\0",
            b"10.0.0.7 - - [30/Nov/2026:18:08:48 +0000] \"GET / HTTP/1.1\" 200 1 \"-\" \"-\" 0.2\n",
            b"[2026-11-30T18:08:48.123Z] \"GET /a HTTP/1.1\" 200 - 0 12 250 248 \"1\" \"c\" \"i\" \"s\" \"u\"\n",
        ];
        let mut options = LogOptions::default();
        options.in_memory = 3;
        options.format = match format {
            0 => Format::Nginx("[$time_local] $status$request_time \"$upstream_addr\" x".into()),
            1 => Format::Envoy("%START_TIME(%s.%3f)% %DURATION%|%RESPONSE_CODE% %%".into()),
            _ => Format::Auto,
        };
        let _ = read([heads[head], &bytes].concat(), &options);
    }

    #[test]
    fn no_change_of_a_line_makes_a_reader_panic(at in 0usize..100, with in "\\PC{0,3}", cut in 0usize..100) {
        let mut line: Vec<char> = LINE.chars().collect();
        let end = line.len();
        line.splice(at.min(end)..(at + cut % 5).min(end), with.chars());
        let line: String = line.into_iter().collect();
        let log = auto(format!("{LINE}\n{line}\n"));
        prop_assert!(log.calls.count() >= 1);
    }
}
