use proptest::prelude::*;

use super::*;

fn written(quota: Quota) -> [String; 2] {
    let mut headers = HeaderMap::new();
    write_fields(&mut headers, &quota, false);
    [RATE_LIMIT_POLICY, RATE_LIMIT].map(|field| headers[field].to_str().unwrap().to_owned())
}

const QUOTA: Quota = Quota {
    dimension: None,
    name: None,
    part: 0,
    unit: None,
    rate: Some(Rate::per_minute(100)),
    burst: 100,
    available: 50,
    reset: Some(Duration::from_millis(29_001)),
    partition: None,
};

#[test]
fn writes_policy_and_state_as_the_draft_has_them() {
    assert_eq!(
        written(QUOTA),
        [r#""default";q=100;w=60"#, r#""default";r=50;t=30"#]
    );
}

#[test]
fn the_window_is_the_shortest_that_refills_a_burst() {
    assert_eq!(policy(Rate::per_second(100), 100), (100, 1));
    assert_eq!(policy(Rate::per_second(100), 2), (100, 1));
    assert_eq!(policy(Rate::per_second(10), 15), (20, 2));
    assert_eq!(policy(Rate::per_minute(1), 2), (2, 120));
    assert_eq!(policy(Rate::per_day(1), 1), (1, 86_400));
}

#[test]
fn nothing_left_is_never_for_no_time() {
    let quota = Quota {
        available: 0,
        reset: Some(Duration::ZERO),
        ..QUOTA
    };
    assert_eq!(written(quota)[1], r#""default";r=0;t=1"#);
    let quota = Quota {
        available: 100,
        reset: Some(Duration::ZERO),
        ..QUOTA
    };
    assert_eq!(written(quota)[1], r#""default";r=100;t=0"#);
}

#[test]
fn a_name_stays_within_its_quotes() {
    let quota = Quota {
        name: Some("a\"b\\c\r\nx-evil: ü"),
        ..QUOTA
    };
    assert_eq!(written(quota)[1], r#""a\"b\\c??x-evil: ?";r=50;t=30"#);
}

#[test]
fn every_part_of_a_limit_has_a_name_of_its_own() {
    assert_eq!(
        written(Quota { part: 1, ..QUOTA })[1],
        r#""default-2";r=50;t=30"#
    );
    assert_eq!(
        written(Quota {
            name: Some("api"),
            part: 2,
            ..QUOTA
        })[1],
        r#""api-3";r=50;t=30"#
    );
}

#[test]
fn a_burst_that_the_window_does_not_tell_is_told() {
    let quota = Quota {
        rate: Some(Rate::per_second(100)),
        burst: 2,
        ..QUOTA
    };
    assert_eq!(
        written(quota)[0],
        r#""default";q=100;w=1;tower-keep-burst=2"#
    );
}

#[test]
fn units_and_partitions_are_told() {
    let quota = Quota {
        unit: Some("content-bytes"),
        partition: Some(u64::from_be_bytes(*b"a key..?")),
        ..QUOTA
    };
    let [policy, limit] = written(quota);
    assert_eq!(
        policy,
        r#""default";q=100;qu="content-bytes";w=60;pk=:YSBrZXkuLj8=:"#
    );
    assert_eq!(limit, r#""default";r=50;t=30;pk=:YSBrZXkuLj8=:"#);
}

#[test]
fn a_bound_on_what_is_in_flight_has_no_window() {
    let quota = Quota {
        unit: Some(Quota::CONCURRENT_REQUESTS),
        rate: None,
        reset: None,
        ..QUOTA
    };
    assert_eq!(
        written(quota),
        [
            r#""concurrency";q=100;qu="concurrent-requests""#,
            r#""concurrency";r=50"#
        ]
    );
    let quota = Quota {
        name: Some("api"),
        available: 0,
        ..quota
    };
    assert_eq!(written(quota)[1], r#""api-concurrency";r=0"#);
}

#[test]
fn several_limits_are_one_list_behind_the_services() {
    let mut response = Response::new(());
    let upstream = HeaderValue::from_static(r#""upstream";r=9;t=9"#);
    response.headers_mut().insert(RATE_LIMIT, upstream);
    write(&mut response, &QUOTA);
    let daily = Quota {
        name: Some("daily"),
        ..QUOTA
    };
    write(&mut response, &daily);
    let lines = response.headers().get_all(RATE_LIMIT);
    let expected = [
        r#""upstream";r=9;t=9"#,
        r#""default";r=50;t=30, "daily";r=50;t=30"#,
    ];
    assert!(lines.iter().eq(expected));
    let policies = response.headers().get_all(RATE_LIMIT_POLICY);
    let expected = [r#""default";q=100;w=60, "daily";q=100;w=60"#];
    assert!(policies.iter().eq(expected));
}

/// The test vectors of RFC 4648, section 10.
#[test]
fn bytes_are_base64() {
    for (bytes, expected) in [
        ("", "::"),
        ("f", ":Zg==:"),
        ("fo", ":Zm8=:"),
        ("foo", ":Zm9v:"),
        ("foob", ":Zm9vYg==:"),
        ("fooba", ":Zm9vYmE=:"),
        ("foobar", ":Zm9vYmFy:"),
    ] {
        let mut text = String::new();
        byte_sequence(bytes.as_bytes(), &mut text);
        assert_eq!(text, expected);
    }
}

#[test]
fn no_number_is_larger_than_the_field_can_hold() {
    for rate in [
        Rate::new(u64::MAX, Duration::from_nanos(1)),
        Rate::new(1, Duration::MAX),
        Rate::new(0, Duration::ZERO),
    ] {
        let (units, window) = policy(rate, u32::MAX.into());
        assert!(
            units <= LARGEST && (1..=LARGEST).contains(&window),
            "{rate:?}: {units} in {window}"
        );
    }
    let quota = Quota {
        available: 0,
        reset: Some(Duration::MAX),
        ..QUOTA
    };
    assert_eq!(written(quota)[1], format!(r#""default";r=0;t={LARGEST}"#));
}

fn read(lines: &[&'static str]) -> Option<u64> {
    let lines = lines
        .iter()
        .map(|line| (RATE_LIMIT, HeaderValue::from_static(line)));
    used_up_in_fields(&HeaderMap::from_iter(lines), 0).map(|wait| wait.as_secs())
}

#[test]
fn nothing_left_is_read_with_its_time() {
    assert_eq!(read(&[r#""default";r=0;t=30"#]), Some(30));
    assert_eq!(
        read(&[r#"default;t=30;r=0;pk=:cHV0dHk=:;acme-note="a;r=9, \"b\"";f"#]),
        Some(30)
    );
    assert_eq!(read(&[r#""default";r=0;t=0"#]), Some(0));
    assert_eq!(read(&[r#""default";r=0;t=999999999999999"#]), Some(LARGEST));
}

/// RFC 9651 has eight types of values, and any server may add a parameter.
#[test]
fn a_parameter_of_any_type_is_read_over() {
    for value in [
        "1",
        "-1.5",
        "a/b:c*",
        r#""a;r=9""#,
        ":cHV0dHk=:",
        "?0",
        "@1659578233",
        "@-62135596800",
        "@0",
        r#"%"This is intended for display to %c3%bcsers.""#,
        r#"%"""#,
        r#"%"a;r=9, %22b%22 %25""#,
    ] {
        for line in [
            format!(r#""default";x={value};r=0;t=30"#),
            format!(r#""default";r=0;t=30;x={value}, "b";r=1"#),
            format!("limit=100, remaining=0, reset=30, x={value}"),
            format!("limit=100;x={value}, remaining=0, reset=30"),
            format!("x=({value} a;y={value}  {value}), remaining=0, reset=30"),
        ] {
            assert_eq!(read(&[line.leak()]), Some(30), "{value}");
        }
    }
    for value in [
        "@",
        "@1.5",
        "@1659578233.0",
        "@@1",
        "@9999999999999999",
        r#"%"a"#,
        "%a",
        "%",
        r#"%"%"#,
        r#"%"%2""#,
        r#"%"%C3%BC""#,
        r#"%"%c3""#,
        r#"%"%ff""#,
        "%\"\u{7f}\"",
    ] {
        let line = format!(r#""default";x={value};r=0;t=30"#).leak();
        let value = HeaderValue::from_bytes(line.as_bytes());
        let Ok(value) = value else { continue };
        let headers = HeaderMap::from_iter([(RATE_LIMIT, value)]);
        assert_eq!(used_up_in_fields(&headers, 0), None, "{line}");
    }
    for list in ["(", "(a", "(a(b))", r#"("a""b")"#, "(a,b)", "a)"] {
        let line = format!("x={list}, remaining=0, reset=30").leak();
        assert_eq!(read(&[line]), None, "{line}");
    }
    // A time of day is not a number of seconds to wait.
    assert_eq!(read(&[r#""default";r=0;t=@30"#]), None);
}

#[test]
fn the_longest_of_several_used_up_quotas_counts() {
    assert_eq!(
        read(&[r#""minute";r=0;t=5, "hour";r=0;t=50 ,	"day";r=1;t=500"#]),
        Some(50)
    );
    assert_eq!(
        read(&[
            r#""minute";r=0;t=5"#,
            r#""hour";r=0;t=50"#,
            r#""day";r=1;t=500"#
        ]),
        Some(50)
    );
}

#[test]
fn something_left_or_no_time_told_is_no_wait() {
    for line in [
        r#""default";r=1;t=30"#,
        r#""default";r=0"#,
        r#""default";t=30"#,
        r#""default""#,
        r#""a";r=0, "b";t=30"#,
    ] {
        assert_eq!(read(&[line]), None, "{line}");
    }
    assert_eq!(used_up_in_fields(&HeaderMap::new(), 0), None);
}

#[test]
fn garbage_is_ignored_and_does_not_spoil_other_lines() {
    let garbage = [
        "",
        ",",
        "0",
        "limit=100, remaining=0",
        r#""default;r=0;t=30"#,
        r#""default";r=0;t=-30"#,
        r#""default";r=-0.0;t=30"#,
        r#""default";r=0;t=30.5"#,
        r#""default";r=0;t="30""#,
        r#""default";r=0;t=9999999999999999"#,
        r#""default";r=0;t=30,"#,
        r#""default";r=0;t=30 "other""#,
        r#""default";r=0;T=30"#,
        r#""default";r=0;t=30;t"#,
        r#""default";r=0;t=+30"#,
        r#""default" ;r=0;t=30"#,
        r#""a\x";r=0;t=30"#,
        r#"("default");r=0;t=30"#,
        "\";r=0;t=30",
    ];
    for line in garbage {
        assert_eq!(read(&[line]), None, "{line:?}");
        assert_eq!(read(&[line, r#""default";r=0;t=7"#]), Some(7), "{line:?}");
    }
}

#[test]
fn the_oldest_fields_are_read_without_a_newer_one() {
    let read = |lines: &[(&'static str, &'static str)]| {
        let lines = lines.iter().map(|(field, value)| {
            (
                HeaderName::from_static(field),
                HeaderValue::from_static(value),
            )
        });
        used_up_in_fields(&HeaderMap::from_iter(lines), 0).map(|wait| wait.as_secs())
    };
    let old = |remaining, reset| {
        [
            ("ratelimit-limit", "100"),
            ("ratelimit-remaining", remaining),
            ("ratelimit-reset", reset),
        ]
    };
    assert_eq!(read(&old("0", "30")), Some(30));
    assert_eq!(read(&old(" 0", "30 ")), Some(30));
    assert_eq!(read(&old("0", "29.003")), Some(30));
    assert_eq!(read(&old("0.5", "30")), None);
    for (remaining, reset) in [
        ("1", "30"),
        ("", "30"),
        ("0", ""),
        ("0", "-1"),
        ("0", "1700000000"),
    ] {
        assert_eq!(read(&old(remaining, reset)), None, "{remaining} {reset}");
    }
    assert_eq!(read(&[("ratelimit-remaining", "0")]), None);
    let [limit, remaining, reset] = old("0", "30");
    assert_eq!(
        read(&[
            limit,
            remaining,
            reset,
            ("ratelimit", r#""default";r=0;t=7"#)
        ]),
        Some(7)
    );
}

#[test]
fn the_form_of_draft_7_is_read() {
    for line in [
        "limit=100, remaining=0, reset=30",
        "reset=30,remaining=0",
        r#"limit=100;w=60 , remaining=0;a="b", reset=30, policy="100;w=60""#,
    ] {
        assert_eq!(read(&[line]), Some(30), "{line}");
    }
    // One Dictionary in several lines, in which a later key replaces an earlier one.
    assert_eq!(read(&["limit=100, remaining=0", "reset=30"]), Some(30));
    assert_eq!(read(&["remaining=0, reset=30", "reset=7"]), Some(7));
    for line in [
        "limit=100, remaining=1, reset=30",
        "limit=100, remaining=0",
        "limit=100, reset=30",
        "remaining=0, reset=30,",
        "remaining=0 reset=30",
        "remaining=0, reset=-30",
        "remaining, reset=30",
    ] {
        assert_eq!(read(&[line]), None, "{line}");
    }
}

#[test]
fn a_newer_form_goes_before_an_older_one() {
    let list = r#""default";r=0;t=7"#;
    assert_eq!(read(&[list, "remaining=0, reset=30"]), Some(7));
    assert_eq!(read(&["remaining=0, reset=30", list]), Some(7));
}

#[test]
fn lines_of_our_own_limits_are_not_the_upstreams() {
    let mut response = Response::new(());
    assert_eq!(used_up(&response), None);
    let own = Quota {
        available: 0,
        ..QUOTA
    };
    write(&mut response, &own);
    write(&mut response, &own);
    assert_eq!(used_up(&response), None);

    let upstream = HeaderValue::from_static(r#""default";r=0;t=7"#);
    let mut response = Response::new(());
    response.headers_mut().insert(RATE_LIMIT, upstream);
    write(&mut response, &own);
    assert_eq!(used_up(&response), Some(Duration::from_secs(7)));
}

#[test]
fn what_is_written_is_read() {
    let mut headers = HeaderMap::new();
    write_fields(
        &mut headers,
        &Quota {
            name: Some("a\"\\, ;r=1"),
            available: 0,
            partition: Some(7),
            ..QUOTA
        },
        false,
    );
    assert_eq!(
        used_up_in_fields(&headers, 0),
        Some(Duration::from_secs(30))
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(line in prop::collection::vec(32u8..=255, 0..60)) {
        if let Ok(line) = HeaderValue::from_bytes(&line) {
            used_up_in_fields(&HeaderMap::from_iter([(RATE_LIMIT, line)]), 0);
        }
    }

    #[test]
    fn no_bytes_of_the_old_fields_make_it_panic(
        remaining in prop::collection::vec(any::<u8>(), 0..30),
        reset in prop::collection::vec(any::<u8>(), 0..30),
    ) {
        let values = [(RATE_LIMIT_REMAINING, &remaining), (RATE_LIMIT_RESET, &reset)];
        let fields = values.into_iter().filter_map(|(field, bytes)| {
            Some((field, HeaderValue::from_bytes(bytes).ok()?))
        });
        used_up_in_fields(&fields.collect(), 0);
    }

    #[test]
    fn any_dictionary_of_draft_7_is_read(reset in 0..=LARGEST, limit in 0..=LARGEST) {
        let line = format!("limit={limit}, remaining=0, reset={reset}");
        let fields = HeaderMap::from_iter([(RATE_LIMIT, HeaderValue::from_str(&line).unwrap())]);
        prop_assert_eq!(used_up_in_fields(&fields, 0), Some(Duration::from_secs(reset)));
    }

    #[test]
    fn no_text_of_its_own_signs_makes_it_panic(line in r#"[a"\\;:,=?rt0 ().-]{0,40}"#) {
        used_up_in_fields(&HeaderMap::from_iter([(RATE_LIMIT, HeaderValue::from_str(&line).unwrap())]), 0);
    }
}
