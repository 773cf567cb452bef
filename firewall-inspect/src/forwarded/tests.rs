use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::head::parse;

const PEER: &str = "10.0.0.1";

fn trusted() -> Vec<IpNet> {
    ["10.0.0.0/8", "fd00::/8"].iter().map(|net| net.parse().unwrap()).collect()
}

fn named(peer: &str, fields: &str) -> Result<Client, Reason> {
    let head = parse(Bytes::from(format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))).unwrap();
    assert_eq!(head.refusal, None, "{fields}");
    client(peer.parse().unwrap(), &head, &trusted())
}

#[test]
fn the_client_is_the_rightmost_that_is_not_trusted() {
    // Peer, headers, then client and proxies behind it.
    let rows: &[(&str, &str, Option<&str>)] = &[
        ("192.0.2.9", "", Some("192.0.2.9")),
        ("::ffff:192.0.2.9", "", Some("192.0.2.9")),
        ("192.0.2.9", "X-Forwarded-For: 192.0.2.1\r\nForwarded: garbage\r\n", Some("192.0.2.9")),
        (PEER, "", None),
        (PEER, "X-Forwarded-For: 192.0.2.1\r\n", Some("192.0.2.1, 10.0.0.1")),
        ("::ffff:10.0.0.1", "X-Forwarded-For: ::ffff:192.0.2.1\r\n", Some("192.0.2.1, 10.0.0.1")),
        ("fd00::1", "X-Forwarded-For: 2001:db8::1\r\n", Some("2001:db8::1, fd00::1")),
        (PEER, "X-Forwarded-For: 1.1.1.1, 192.0.2.1\r\n", Some("192.0.2.1, 10.0.0.1")),
        (PEER, "X-Forwarded-For: garbage, 192.0.2.1, 10.0.0.2\r\n", Some("192.0.2.1, 10.0.0.2, 10.0.0.1")),
        (PEER, "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 192.0.2.1\r\n", Some("192.0.2.1, 10.0.0.1")),
        (PEER, "X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n", Some("10.0.0.3, 10.0.0.2, 10.0.0.1")),
        (PEER, "X-Forwarded-For: 192.0.2.1:4711\r\n", Some("192.0.2.1, 10.0.0.1")),
        (PEER, "X-Forwarded-For: [2001:db8::1]:4711\r\n", Some("2001:db8::1, 10.0.0.1")),
        (PEER, "X-Forwarded-For: 192.0.2.1, garbage\r\n", None),
        (PEER, "X-Forwarded-For: garbage, 10.0.0.2\r\n", None),
        (PEER, "X-Forwarded-For: 192.0.2.1,\r\n", None),
        (PEER, "X-Forwarded-For:\r\n", None),
        (PEER, "X-Forwarded-For: 192.0.2.1:\r\n", None),
        (PEER, "X-Forwarded-For: 192.0.2.1:8x\r\n", None),
        (PEER, "X-Forwarded-For: 192.0.2.1 10.0.0.2\r\n", None),
        (PEER, "X-Forwarded-For: 192.0.2.01\r\n", None),
        (PEER, "X-Forwarded-For: unknown\r\n", None),
        (PEER, "Forwarded: for=192.0.2.1\r\n", Some("192.0.2.1, 10.0.0.1")),
        (PEER, "Forwarded: For=\"[2001:db8::1]:4711\";proto=https;by=_x\r\n", Some("2001:db8::1, 10.0.0.1")),
        (
            PEER,
            "Forwarded: for=1.1.1.1, for=192.0.2.1;host=\"a,b;for=9.9.9.9\", for=10.0.0.2\r\n",
            Some("192.0.2.1, 10.0.0.2, 10.0.0.1"),
        ),
        (PEER, "Forwarded: for=\"192.0.2.1\\:80\"\r\n", Some("192.0.2.1, 10.0.0.1")),
        (PEER, "Forwarded: for=1.1.1.1\r\nForwarded: for=192.0.2.1\r\n", Some("192.0.2.1, 10.0.0.1")),
        (PEER, "Forwarded: for=_hidden, for=192.0.2.1\r\n", Some("192.0.2.1, 10.0.0.1")),
        (PEER, "Forwarded: for=192.0.2.1, for=_hidden\r\n", None),
        (PEER, "Forwarded: for=unknown\r\n", None),
        (PEER, "Forwarded: proto=https\r\n", None),
        (PEER, "Forwarded: for=192.0.2.1;for=192.0.2.2\r\n", None),
        (PEER, "Forwarded: for=\"192.0.2.1\r\n", None),
        (PEER, "Forwarded: for=\"192.0.2.1\\\r\n", None),
        (PEER, "Forwarded: for=2001:db8::1\r\n", None),
        (PEER, "Forwarded: for = 192.0.2.1\r\n", None),
        (PEER, "Forwarded: for=1.1.1.1\" , for=192.0.2.1\r\n", None),
        (PEER, "Forwarded:\r\n", None),
        (PEER, "Forwarded: for=192.0.2.1\r\nX-Forwarded-For: 192.0.2.1\r\n", Some("192.0.2.1, 10.0.0.1")),
        (PEER, "Forwarded: for=192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n", None),
        (PEER, "Forwarded: for=192.0.2.1\r\nX-Forwarded-For: garbage\r\n", None),
        (PEER, "Forwarded: garbage\r\nX-Forwarded-For: 192.0.2.1\r\n", None),
    ];
    for (peer, fields, expected) in rows {
        let found = named(peer, fields);
        let chain = found.as_ref().map(|client| String::from_utf8(x_forwarded_for(client)).unwrap());
        assert_eq!(chain, expected.map(str::to_owned).ok_or(&Reason::ForwardedMissing), "{peer} {fields}");
        if let Ok(client) = &found {
            assert_eq!(client.proxy().is_some(), expected.is_some_and(|chain| chain.contains(',')));
        }
    }
}

#[test]
fn the_scheme_is_that_of_the_client() {
    let rows: &[(&str, Option<bool>)] = &[
        ("X-Forwarded-For: 192.0.2.1\r\n", None),
        ("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n", Some(true)),
        ("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https, http\r\n", Some(false)),
        (
            "Forwarded: for=192.0.2.1;proto=https\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n",
            Some(true),
        ),
        ("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: gopher\r\n", None),
        ("Forwarded: for=192.0.2.1;proto=HTTPS, for=10.0.0.2;proto=http\r\n", Some(true)),
        ("Forwarded: proto=https;for=1.1.1.1, for=192.0.2.1\r\n", None),
    ];
    for (fields, expected) in rows {
        assert_eq!(named(PEER, fields).map(|client| client.https), Ok(*expected), "{fields}");
    }
    let contradiction =
        "Forwarded: for=192.0.2.1;proto=https\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n";
    assert_eq!(named(PEER, contradiction), Err(Reason::ForwardedMissing));
    assert_eq!(named("192.0.2.9", "X-Forwarded-Proto: https\r\n").unwrap().https, None);
}

#[test]
fn the_upstream_is_told() {
    let client = named(PEER, "X-Forwarded-For: 2001:db8::1, 10.0.0.2\r\n").unwrap();
    let value = |client, https, host| String::from_utf8(forwarded(client, https, host)).unwrap();
    assert_eq!(
        value(&client, true, Some(b"h:80")),
        "for=\"[2001:db8::1]\";host=\"h:80\";proto=https, for=10.0.0.2, for=10.0.0.1"
    );
    let direct = Client { address: "192.0.2.1".parse().unwrap(), proxies: vec![], https: None };
    assert_eq!(value(&direct, false, Some(b"h")), "for=192.0.2.1;host=h;proto=http");
    assert_eq!(value(&direct, false, None), "for=192.0.2.1;proto=http");
    assert_eq!(value(&direct, false, Some(b"a\"\\")), "for=192.0.2.1;host=\"a\\\"\\\\\";proto=http");
}

#[test]
fn the_proxy_protocol_is_to_the_letter() {
    let header = |source: &str, destination: &str| proxy_v2(source.parse().unwrap(), destination.parse().unwrap());
    assert_eq!(
        header("192.0.2.1:258", "198.51.100.2:80"),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\x01\x02\0\x50"
    );
    assert_eq!(header("[::ffff:192.0.2.1]:258", "198.51.100.2:80"), header("192.0.2.1:258", "198.51.100.2:80"));
    let v6 = header("[2001:db8::1]:1", "192.0.2.1:80");
    assert_eq!((v6.len(), &v6[12..16]), (52, &b"\x21\x21\0\x24"[..]));
    assert_eq!(&v6[16..20], b"\x20\x01\x0d\xb8");
    assert_eq!(&v6[32..], b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x01\0\x01\0\x50");
}

proptest! {
    /// What we tell reads back, whatever the client claimed before: an upstream that trusts us sees the same client.
    #[test]
    fn what_is_told_reads_back(claimed in "[ -~]{0,30}", last: IpAddr, hops in 0u8..4) {
        let hops: String = (0..hops).map(|hop| format!(", 10.0.1.{hop}")).collect();
        let Ok(client) = named(PEER, &format!("X-Forwarded-For: {claimed},{last}{hops}\r\n")) else { return Ok(()) };
        let standard = String::from_utf8(forwarded(&client, true, Some(b"h:1"))).unwrap();
        let plain = String::from_utf8(x_forwarded_for(&client)).unwrap();
        let again = named(PEER, &format!("Forwarded: {standard}\r\nX-Forwarded-For: {plain}\r\n")).unwrap();
        prop_assert_eq!(again.address, client.address);
        if !is_trusted(last.to_canonical(), &trusted()) {
            prop_assert_eq!(client.address, last.to_canonical());
        }
    }

    #[test]
    fn no_value_panics(value in "[\"\\\\=;, a:.1\\[\\]]{0,12}|for=[\"\\\\;,1\\[:\\]]{0,8}") {
        let _ = named(PEER, &format!("Forwarded: {value}\r\nX-Forwarded-For: {value}\r\n"));
        let mut elements = Vec::new();
        if node::elements(value.as_bytes(), &mut elements).is_some() {
            prop_assert!(!elements.is_empty());
        }
    }
}

#[test]
fn addresses_are_written_as_the_standard_library_does() {
    for octet in 0..=255 {
        let address = IpAddr::from([octet, 255 - octet, 10, octet]);
        let mut written = Vec::new();
        push_address(&mut written, address);
        assert_eq!(written, address.to_string().into_bytes());
    }
}
