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

#[test]
fn a_header_of_any_length_is_a_short_key() {
    let key = |bytes: Vec<u8>| HeaderKey::from(HeaderValue::from_bytes(&bytes).unwrap());
    let long = |last: u8| key([vec![b'a'; 60_000], vec![last]].concat());
    let (one, other) = (long(b'x'), long(b'y'));
    assert!(one.as_bytes().len() <= 256 && one.as_bytes().starts_with(b"aaaa"));
    assert_ne!(one, other);
    assert_eq!((long(b'x'), one.clone()), (one.clone(), one));
    assert_eq!(key(vec![b'a'; 256]).as_bytes(), [b'a'; 256]);
    assert_ne!(key(vec![b'a'; 257]), key(vec![b'a'; 256]));
    let mut secret = HeaderValue::from_bytes(&[b'a'; 300]).unwrap();
    secret.set_sensitive(true);
    assert_eq!(format!("{:?}", HeaderKey::from(secret)), "Sensitive");
}
