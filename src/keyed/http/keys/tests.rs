use bytes::Bytes;

use super::*;

#[test]
fn a_peer_is_found_where_the_server_has_put_it() {
    #[derive(Clone)]
    struct Connection(SocketAddr);

    impl Deref for Connection {
        type Target = SocketAddr;

        fn deref(&self) -> &SocketAddr {
            &self.0
        }
    }

    let keys = |request: &Request<()>| {
        [
            peer()(request),
            peer_in(|peer: &Connection| peer.0)(request),
            peer_from::<Connection, _>()(request),
        ]
    };
    let subnet = |address: &str| Some(Subnet::of(address.parse().unwrap()));
    let mut request = Request::new(());
    assert_eq!(keys(&request), [None; 3]);
    let address: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
    request.extensions_mut().insert(address);
    assert_eq!(keys(&request), [subnet("2001:db8::"), None, None]);
    let connection = Connection("192.0.2.1:80".parse().unwrap());
    request.extensions_mut().insert(connection);
    let own = subnet("192.0.2.1");
    assert_eq!(keys(&request), [subnet("2001:db8::"), own, own]);
}

#[test]
fn a_header_key_that_is_kept_owns_just_its_bytes() {
    // given a header that is a slice of a large read buffer
    let buffer = Bytes::from(vec![b'a'; 1 << 16]);
    let mut request = Request::new(());
    let mut value = HeaderValue::from_maybe_shared(buffer.slice(..10)).unwrap();
    value.set_sensitive(true);
    request.headers_mut().insert("x-api-key", value);
    // when a layer keeps the key
    let key = header("X-Api-Key")(&request).unwrap();
    let kept = key.clone();
    drop((key, request));
    // then the buffer is free
    assert!(buffer.is_unique());
    assert_eq!(kept.as_bytes(), [b'a'; 10]);
    assert_eq!(format!("{kept:?}"), "Sensitive");
    assert_eq!(kept, HeaderValue::from_static("aaaaaaaaaa").into());
}
