use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use proptest::prelude::*;

use super::*;

fn found(uri: &str, field: Option<&str>) -> Option<Host> {
    let mut request = Request::get(uri);
    if let Some(field) = field {
        request = request.header(HOST, field);
    }
    ByHost.find(&request.body(()).unwrap())
}

fn of(uri: &str) -> String {
    found(uri, None).unwrap().to_string()
}

#[test]
fn the_uri_goes_before_the_host_field() {
    let api = "api.example:8080".parse::<Host>().unwrap();
    assert_eq!(found("http://api.example:8080/a", None), Some(api.clone()));
    assert_eq!(
        found("http://API.Example:8080/a", Some("b.example")),
        Some(api.clone())
    );
    assert_eq!(found("/a", Some("api.example:8080")), Some(api));
    assert_eq!(found("/a", None), None);
    assert_eq!(found("/a", Some("not a host")), None);
}

#[test]
fn a_host_is_one_in_all_its_forms() {
    for (host, forms) in [
        (
            "api.example",
            &[
                "http://api.example/",
                "http://api.example./",
                "http://API.Example",
                "http://api.example:80/a?b",
                "http://api.example.:0080/",
                "http://api.example:/",
                "https://api.example:443/",
                "http://user@api.example/",
                "http://user:password@api.example:80/",
                "http://:@API.EXAMPLE.:80/",
                "http://a%40b@api.example/",
                "ws://api.example:80/",
                "wss://api.example:443/",
            ][..],
        ),
        (
            "api.example:8080",
            &[
                "http://api.example:8080/",
                "http://api.example.:8080/",
                "http://u:p@API.example:08080/",
                "https://api.example:8080/",
            ],
        ),
        ("api.example:443", &["http://api.example:443/"]),
        ("api.example:80", &["https://api.example:80/"]),
        (
            "[::1]",
            &[
                "http://[::1]/",
                "http://[0:0:0:0:0:0:0:1]:80/",
                "http://u@[0000::0001]/",
            ],
        ),
        (
            "[2001:db8::a]:8080",
            &[
                "http://[2001:db8::a]:8080/",
                "http://[2001:DB8:0:0::A]:8080/",
            ],
        ),
        (
            "127.0.0.1:8080",
            &[
                "http://127.0.0.1:8080/",
                "http://127.0.0.1.:8080/",
                "http://127.1:8080/",
                "http://0x7f.0.0.1:8080/",
                "http://0X7F000001:8080/",
                "http://2130706433:8080/",
                "http://0177.0.0.01:8080/",
            ],
        ),
        ("xn--bcher-kva.example", &["http://XN--Bcher-KVA.example/"]),
        // No addresses.
        ("256.0.0.1", &["http://256.0.0.1/"]),
        ("1.2.3.4.5", &["http://1.2.3.4.5/"]),
        ("0x7g.1a", &["http://0x7G.1a/"]),
        ("a.1", &["http://a.1/"]),
        ("1.2.3.4.example", &["http://1.2.3.4.example/"]),
    ] {
        for form in forms {
            assert_eq!(of(form), host, "{form}");
        }
    }
}

#[test]
fn without_a_scheme_the_ports_of_both_are_left_out() {
    for field in ["api.example", "API.example:80", "u:p@api.example.:443"] {
        assert_eq!(found("/", Some(field)).unwrap().as_str(), "api.example");
        assert_eq!(field.parse::<Host>().unwrap().as_str(), "api.example");
    }
    for text in ["http://api.example:443", "https://u:p@api.example:0443"] {
        let port = if text.starts_with("https") {
            ""
        } else {
            ":443"
        };
        let host: Host = text.parse().unwrap();
        assert_eq!(host.as_str(), format!("api.example{port}"));
    }
    for text in ["", "http://", "/a", "user@", ":80", ".", "u:p@:80", "a b"] {
        assert!(text.parse::<Host>().is_err(), "{text}");
    }
}

#[test]
fn no_form_of_a_host_tells_a_password() {
    let host = found("http://user:secret@api.example:8080/", None).unwrap();
    let clone = host.clone();
    for text in [
        format!("{host} {host:?} {host:#?}"),
        format!("{clone} {clone:?} {}", clone.as_str()),
    ] {
        assert!(!text.contains("secret") && !text.contains("user"), "{text}");
    }
    #[cfg(feature = "serde")]
    assert_eq!(
        serde_json::to_string(&host).unwrap(),
        r#""api.example:8080""#
    );
}

#[test]
fn a_host_of_any_length_is_a_short_key() {
    let long = |last: char| format!("http://{}{last}.example:8080/", "a".repeat(60_000));
    let (one, other) = (of(&long('x')), of(&long('y')));
    assert!(one.len() <= 256 && one.starts_with("aaaa"), "{one}");
    assert_ne!(one, other);
    assert_eq!(of(&long('x')), one);
    assert_eq!(of(&long('X')), one);
    let longest = format!("http://{}/", "a".repeat(256));
    assert_eq!(of(&longest), "a".repeat(256));
}

#[test]
fn a_clone_shares_no_buffer() {
    let found = found("http://api.example/a/long/path", None).unwrap();
    let kept = found.clone();
    assert_eq!(found, kept);
    assert_ne!(found.as_str().as_ptr(), kept.as_str().as_ptr());
}

/// A look-up shares the request's text.
#[test]
fn what_is_canonical_is_not_copied() {
    for uri in [
        "http://api.example/a",
        "http://api.example:80/",
        "http://u:p@api.example./",
        "http://api.example:8080/",
        "http://[2001:db8::a]:8080/",
        "http://127.0.0.1:8080/",
    ] {
        let host = found(uri, None).unwrap();
        assert!(matches!(host.0, Text::Part(..)), "{uri}");
    }
}

proptest! {
    #[test]
    fn no_authority_makes_it_panic(
        authority in "[a-zA-Z0-9.:@%\\[\\]_~!$&'()*+,;=-]{0,24}",
        scheme in prop::sample::select(vec!["http", "https", "ftp"]),
    ) {
        let _ = authority.parse::<Host>();
        if let Ok(uri) = format!("{scheme}://{authority}/").parse::<Uri>() {
            if let Some(host) = uri.authority().and_then(|it| Host::of(it, uri.scheme())) {
                // A host that is found is its own canonical form.
                prop_assert!(!host.as_str().contains('@'));
                // A bracket may be a user's, and its pair the host's.
                if let Ok(again) = format!("{scheme}://{host}/").parse::<Uri>() {
                    let again = Host::of(again.authority().unwrap(), again.scheme()).unwrap();
                    let seed = BuildHasherDefault::<DefaultHasher>::default();
                    prop_assert_eq!(seed.hash_one(&again), seed.hash_one(&host));
                    prop_assert_eq!(again.as_str(), host.as_str());
                }
            }
        }
    }
}
