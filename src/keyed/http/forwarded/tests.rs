use proptest::prelude::*;

use super::*;

/// Returns a request with lines of a field, and with the peer's address if it is known.
fn request(field: &'static str, lines: &[&[u8]], peer: Option<&str>) -> Request<()> {
    let mut request = Request::new(());
    for line in lines {
        let value = HeaderValue::from_bytes(line).unwrap();
        request.headers_mut().append(field, value);
    }
    if let Some(peer) = peer {
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(peer);
    }
    request
}

fn x_forwarded_for(lines: &[&str], peer: Option<&str>) -> Request<()> {
    let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
    request("x-forwarded-for", &lines, peer)
}

fn rfc_7239(lines: &[&str]) -> Request<()> {
    let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
    request("forwarded", &lines, None)
}

fn subnet(address: &str) -> Option<Subnet> {
    Some(Subnet::of(address.parse().unwrap()))
}

fn hops(hops: usize, lines: &[&str]) -> Option<Subnet> {
    forwarded(Proxies::hops(hops))(&x_forwarded_for(lines, None))
}

fn own() -> Proxies {
    Proxies::networks(["10.0.0.0/8", "fd00::/8"]).unwrap()
}

#[test]
fn the_client_is_so_many_entries_from_the_right() {
    let lines = ["192.0.2.1, 192.0.2.2, 192.0.2.3"];
    assert_eq!(hops(1, &lines), subnet("192.0.2.3"));
    assert_eq!(hops(2, &lines), subnet("192.0.2.2"));
    assert_eq!(hops(3, &lines), subnet("192.0.2.1"));
    // The request did not pass all of the proxies.
    assert_eq!(hops(4, &lines), None);
    assert_eq!(hops(usize::MAX, &lines), None);
    assert_eq!(hops(1, &[]), None);
}

#[test]
fn with_no_hop_the_client_is_the_peer() {
    let request = x_forwarded_for(&["192.0.2.1"], Some("198.51.100.1:80"));
    assert_eq!(
        forwarded(Proxies::hops(0))(&request),
        subnet("198.51.100.1")
    );
    assert_eq!(hops(0, &["192.0.2.1"]), None);
}

#[test]
fn several_lines_are_one_list() {
    let lines = ["192.0.2.1", "192.0.2.2,192.0.2.3", " 192.0.2.4 "];
    for (count, address) in ["192.0.2.4", "192.0.2.3", "192.0.2.2", "192.0.2.1"]
        .into_iter()
        .enumerate()
    {
        assert_eq!(hops(count + 1, &lines), subnet(address));
    }
    // Empty list elements are ignored.
    let lines = ["192.0.2.1,, ,", "", ",192.0.2.2,"];
    assert_eq!(hops(2, &lines), subnet("192.0.2.1"));
}

#[test]
fn ports_brackets_and_quotes_are_understood() {
    for (entry, address) in [
        ("192.0.2.1:8080", "192.0.2.1"),
        ("\"192.0.2.1:8080\"", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("\"[2001:db8::1]:443\"", "2001:db8::1"),
        ("[2001:db8::1]:_tls", "2001:db8::1"),
        ("192.0.2.1:_a.b-c", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ] {
        assert_eq!(hops(1, &["192.0.2.9", entry]), subnet(address), "{entry}");
    }
}

#[test]
fn what_is_no_address_is_no_key() {
    for entry in [
        "unknown",
        "_hidden",
        "-",
        "unix:",
        "localhost",
        "192.0.2",
        "192.0.2.1:",
        "192.0.2.1:port",
        "192.0.2.1:123456",
        "192.0.2.1:_",
        "192.0.2.1 192.0.2.2",
        "[2001:db8::1",
        "[2001:db8::1]443",
        "[192.0.2.1]",
        "[]",
        "[[::1]]",
        "\"192.0.2.1",
        "\"",
        "\"\"",
        "fe80::1%eth0",
        "192.0.2.1;",
    ] {
        assert_eq!(hops(1, &["192.0.2.9", entry]), None, "{entry}");
        let request = x_forwarded_for(&["192.0.2.9", entry], Some("10.0.0.1:80"));
        assert_eq!(forwarded(own())(&request), None, "{entry}");
    }
}

#[test]
fn the_first_address_that_is_no_proxys_is_the_client() {
    for (lines, peer, client) in [
        (&["192.0.2.1"][..], "10.0.0.1:80", "192.0.2.1"),
        (
            &["192.0.2.1, 10.0.0.3", "[fd00::1]:1"],
            "10.0.0.1:80",
            "192.0.2.1",
        ),
        (&["forged, 192.0.2.1, 10.0.0.3"], "10.0.0.1:80", "192.0.2.1"),
        // All are proxies: the request comes from inside.
        (&["10.0.0.2, 10.0.0.3"], "10.0.0.1:80", "10.0.0.2"),
        (&[], "10.0.0.1:80", "10.0.0.1"),
        (&["192.0.2.1"], "[::ffff:10.0.0.1]:80", "192.0.2.1"),
    ] {
        let request = x_forwarded_for(lines, Some(peer));
        assert_eq!(forwarded(own())(&request), subnet(client), "{lines:?}");
    }
}

#[test]
fn a_peer_outside_the_networks_is_the_client() {
    let request = x_forwarded_for(&["192.0.2.1, 10.0.0.1"], Some("198.51.100.1:80"));
    assert_eq!(forwarded(own())(&request), subnet("198.51.100.1"));
}

#[test]
fn without_a_peer_no_field_is_believed() {
    for lines in [&["192.0.2.1, 10.0.0.1"][..], &["192.0.2.1"], &[]] {
        let request = x_forwarded_for(lines, None);
        assert_eq!(forwarded(own())(&request), None);
        assert_eq!(forwarded(own().rfc_7239())(&request), None);
    }
}

#[test]
fn without_a_peer_a_field_is_believed_if_that_is_said() {
    let alone = || own().only_proxies_call();
    let request = x_forwarded_for(&["192.0.2.1, 10.0.0.1"], None);
    assert_eq!(forwarded(alone())(&request), subnet("192.0.2.1"));
    assert_eq!(forwarded(alone())(&x_forwarded_for(&[], None)), None);
    // A known peer is still checked.
    let request = x_forwarded_for(&["192.0.2.1"], Some("198.51.100.1:80"));
    assert_eq!(forwarded(alone())(&request), subnet("198.51.100.1"));
}

#[test]
fn an_extension_of_any_type_holds_the_peers_address() {
    #[derive(Clone)]
    struct Connection(SocketAddr);

    impl Deref for Connection {
        type Target = SocketAddr;

        fn deref(&self) -> &SocketAddr {
            &self.0
        }
    }

    let mut request = x_forwarded_for(&["192.0.2.1"], Some("10.0.0.1:80"));
    let peer = Connection("198.51.100.1:80".parse().unwrap());
    request.extensions_mut().insert(peer);
    assert_eq!(forwarded(own())(&request), subnet("192.0.2.1"));
    let key = forwarded(own().peer_from::<Connection>());
    assert_eq!(key(&request), subnet("198.51.100.1"));
}

#[test]
fn what_cannot_be_a_network_is_an_error() {
    let error = Proxies::networks(["10.0.0.0/8", "10.0.0.0/33"]).unwrap_err();
    assert_eq!(error.field, "networks");
    assert!(error.to_string().contains("10.0.0.0/33"));
    assert!(Proxies::networks::<&str>([]).is_err());
}

fn in_forwarded(hops: usize, lines: &[&str]) -> Option<Subnet> {
    forwarded(Proxies::hops(hops).rfc_7239())(&rfc_7239(lines))
}

#[test]
fn the_examples_of_rfc_7239_are_read() {
    for (line, address) in [
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
        ("for=192.0.2.43, for=198.51.100.17", "198.51.100.17"),
        ("by=\"a;for=x,\\\"\";FOR=192.0.2.1", "192.0.2.1"),
        ("for=192.0.2.1:8080;host=\"a\"", "192.0.2.1"),
        (";;for=192.0.2.1;", "192.0.2.1"),
    ] {
        assert_eq!(in_forwarded(1, &[line]), subnet(address), "{line}");
    }
    let lines = ["for=192.0.2.43", "for=\"[2001:db8:cafe::17]\";proto=https"];
    assert_eq!(in_forwarded(2, &lines), subnet("192.0.2.43"));
}

#[test]
fn an_obfuscated_or_absent_identifier_is_no_key() {
    for line in [
        "for=unknown",
        "for=\"_gazonk\"",
        "for=_SEVKISEK",
        "proto=https;by=192.0.2.1",
        "for=192.0.2.1;for=192.0.2.2",
        "for=192.0.2.1;For=192.0.2.1",
        "for",
        "for=",
        "for=\"192\\.0.2.1\"",
        "192.0.2.1",
        "xfor=192.0.2.1",
    ] {
        assert_eq!(in_forwarded(1, &["for=192.0.2.9", line]), None, "{line}");
        // The entry still counts as one.
        assert_eq!(
            in_forwarded(2, &["for=192.0.2.9", line]),
            subnet("192.0.2.9")
        );
    }
}

#[test]
fn a_separator_within_quotes_separates_nothing() {
    for (line, expected) in [
        (r#"a;b="x;y";c"#, &["c", r#"b="x;y""#, "a"][..]),
        (r#"a;b="x\";y";c"#, &["c", r#"b="x\";y""#, "a"]),
        (r#"a;b="x\";c"#, &["c", r#"b="x\""#, "a"]),
        (r#"a;b="x\\";y";c"#, &["c", r#"b="x\\";y""#, "a"]),
        ("a ;\t; b", &["b", "", "a"]),
        ("", &[""]),
    ] {
        let parts = from_the_right(line.as_bytes(), b';');
        assert!(
            parts.eq(expected.iter().map(|part| part.as_bytes())),
            "{line}"
        );
    }
}

#[test]
fn a_clients_open_quote_hides_no_entry_of_a_proxy() {
    for forged in [
        "for=\"",
        "for=\"\\",
        "\"",
        "for=\"a\\\"",
        "for=\"a, for=b",
        "\\",
    ] {
        let line = format!("{forged}, for=\"[2001:db8::1]:443\";proto=https");
        assert_eq!(in_forwarded(1, &[&line]), subnet("2001:db8::1"), "{line}");
    }
}

#[test]
fn the_other_field_is_not_read() {
    let mut request = x_forwarded_for(&["192.0.2.1"], None);
    let forged = HeaderValue::from_static("for=198.51.100.1");
    request.headers_mut().insert(FORWARDED, forged);
    let proxies = Proxies::hops(1);
    assert_eq!(forwarded(proxies.clone())(&request), subnet("192.0.2.1"));
    let rfc_7239 = forwarded(proxies.rfc_7239())(&request);
    assert_eq!(rfc_7239, subnet("198.51.100.1"));
}

/// Bytes that a header may contain.
fn header_bytes() -> impl Strategy<Value = Vec<u8>> {
    let signs = prop::sample::select(b"\"\\,;=:[] for.192_\t\x80".to_vec());
    prop::collection::vec(prop_oneof![4 => signs, 1 => 32..127_u8], 0..60)
}

proptest! {
    /// Whatever a client writes, on the proxy's line or on lines of its own, the key is the address
    /// that the proxies report.
    #[test]
    fn no_client_chooses_its_key(
        forged in header_bytes(),
        before in header_bytes(),
        port in prop::option::of(any::<u16>()),
        v6: bool,
        own_line: bool,
        blank in " {0,2}",
    ) {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let (client, node) = if v6 {
            ("2001:db8:1::", format!("[2001:db8:1::7]{port}"))
        } else {
            ("192.0.2.1", format!("192.0.2.1{port}"))
        };
        for (field, added) in [
            ("x-forwarded-for", format!("{node},{blank}10.0.0.2")),
            ("forwarded", format!("for=\"{node}\";proto=https,{blank}for=10.0.0.2")),
        ] {
            let mut line = forged.clone();
            let lines: &[&[u8]] = if own_line {
                &[&before, &forged, added.as_bytes()]
            } else {
                line.extend(format!(",{blank}{added}").bytes());
                &[&before, &line]
            };
            let request = request(field, lines, Some("10.0.0.1:80"));
            for proxies in [Proxies::hops(2), own()] {
                let proxies = match field {
                    "forwarded" => proxies.rfc_7239(),
                    _ => proxies,
                };
                prop_assert_eq!(forwarded(proxies)(&request), subnet(client));
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4),
        hops in 0..5_usize,
    ) {
        let valid = |line: &&[u8]| HeaderValue::from_bytes(line).is_ok();
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).filter(valid).collect();
        for field in ["x-forwarded-for", "forwarded"] {
            let request = request(field, &lines, None);
            for proxies in [Proxies::hops(hops), own()] {
                let rfc_7239 = proxies.clone().rfc_7239();
                let _ = (forwarded(proxies)(&request), forwarded(rfc_7239)(&request));
            }
        }
    }

    #[test]
    fn any_address_is_read_as_it_is_written(bits: u128, v4: u32, port: u16) {
        for address in [IpAddr::from(Ipv6Addr::from(bits)), Ipv4Addr::from(v4).into()] {
            let with_port = SocketAddr::new(address, port).to_string();
            prop_assert_eq!(address_of(with_port.as_bytes()), Some(address));
            prop_assert_eq!(address_of(address.to_string().as_bytes()), Some(address));
            let entry = format!("for=\"{with_port}\"");
            prop_assert_eq!(address_for(entry.as_bytes()), Some(address));
        }
    }
}
