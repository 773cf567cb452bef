use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { count: 10, depth: 4 };

fn told(pairs: &[Pair<'_>]) -> Vec<String> {
    pairs.iter().map(|Pair { name, value }| format!("{}={}", name.escape_ascii(), value.escape_ascii())).collect()
}

/// As libmodsecurity 3.0.15 gives them.
#[test]
fn queries_and_forms() {
    for (input, expected, malformed) in [
        ("", &[][..], false),
        ("&&a", &["=", "=", "a="], false),
        ("a=b=c&d", &["a=b=c", "d="], false),
        ("a&b=&=c&", &["a=", "b=", "=c"], false),
        ("a=%zz&b=%41+x", &["a=%zz", "b=A x"], true),
        ("a;b=1", &["a;b=1"], false),
        ("A=1&a=2&a=3", &["A=1", "a=2", "a=3"], false),
        ("%00=a%00b", &["\\x00=a\\x00b"], false),
        ("c=%&d=%2b", &["c=%", "d=+"], true),
    ] {
        let found = url_encoded(input.as_bytes(), b'&', &LIMITS).unwrap();
        assert_eq!(
            (told(&found.pairs), found.malformed),
            (expected.iter().map(ToString::to_string).collect(), malformed),
            "{input}"
        );
    }
    assert_eq!(told(&url_encoded(b"a;b=1", b';', &LIMITS).unwrap().pairs), ["a=", "b=1"]);
    assert_eq!(url_encoded("a&".repeat(10).as_bytes(), b'&', &LIMITS).unwrap().pairs.len(), 10);
    assert_eq!(url_encoded("a&".repeat(11).as_bytes(), b'&', &LIMITS), Err(ArgumentError::TooMany));
}

/// As libmodsecurity 3.0.15 gives them.
#[test]
fn cookies_are_as_they_stand() {
    for (input, expected) in [
        ("a=b; c=d", &["a=b", "c=d"][..]),
        ("a; b=; =c;;", &["a=", "b="]),
        ("a=b=c; d =e", &["a=b=c", "d =e"]),
        (" x=y,z=w", &["x=y,z=w"]),
        ("a=b;c=%41", &["a=b", "c=%41"]),
    ] {
        assert_eq!(told(&cookies(input.as_bytes(), &LIMITS).unwrap()), expected, "{input}");
    }
    assert_eq!(cookies("a=1;".repeat(11).as_bytes(), &LIMITS), Err(ArgumentError::TooMany));
}

/// As libmodsecurity 3.0.15 gives them.
#[test]
fn json_documents() {
    for (input, expected) in [
        (
            r#"{"a":[1,2.50,-1e5],"t":true,"items":[{"sku":"x"},{"sku":null}],"f":false,"":"e","a":"dup"}"#,
            &[
                "json.a.array_0=1",
                "json.a.array_1=2.50",
                "json.a.array_2=-1e5",
                "json.t=true",
                "json.items.array_0.sku=x",
                "json.items.array_1.sku=",
                "json.f=false",
                "json.empty-key=e",
                "json.a=dup",
            ][..],
        ),
        (
            r#"[1,[2,3],{"a":4}]"#,
            &["json.array_0=1", "json.array_1.array_0=2", "json.array_1.array_1=3", "json.array_2.a=4"],
        ),
        ("5", &["json=5"]),
        (r#""str""#, &["json=str"]),
        ("{}", &[]),
        ("[]", &[]),
        (r#"{"a":{"b.c":{"d":[]}}}"#, &[]),
        (r#"{"a":{"b.c":{"d":1}},"e":[[],[2]]}"#, &["json.a.b.c.d=1", "json.e.array_1.array_0=2"]),
        (r#"{"a":"\u0041\ud83d\ude00\n"}"#, &["json.a=A\\xf0\\x9f\\x98\\x80\\n"]),
    ] {
        assert_eq!(told(&json(input.as_bytes(), &LIMITS).unwrap()), expected, "{input}");
    }
}

#[test]
fn what_is_no_json_is_an_error() {
    for input in [
        &b""[..],
        b"{\"a\":",
        b"{\"a\":1} x",
        b"{\"a\":\"\xff\"}",
        b"{'a':1}",
        b"[1,]",
        b"{\"a\":01}",
        b"[NaN]",
        b"\"a\nb\"",
        b"\"\\ud800\"",
        b"[1]]",
        b"\xef\xbb\xbf{}",
    ] {
        let error = json(input, &LIMITS).unwrap_err();
        assert!(matches!(error, ArgumentError::Malformed(..)), "{}: {error:?}", input.escape_ascii());
    }
    assert_eq!(json(b"[[[[[]]]]]", &LIMITS), Err(ArgumentError::TooDeep));
    assert_eq!(json(b"[1,2,3,4,5,6,7,8,9,10,11]", &LIMITS), Err(ArgumentError::TooMany));
    let deep = "[".repeat(1_000_000);
    assert!(json(deep.as_bytes(), &Limits { count: 10, depth: usize::MAX }).is_err());
}

proptest! {
    #[test]
    fn json_agrees_with_serde(input in "[\\[\\]{}:,\"a-c0-3.eE+\\- \\\\ntruefalsu]{0,40}") {
        let theirs = serde_json::from_str::<serde_json::Value>(&input);
        let ours = json(input.as_bytes(), &Limits { count: usize::MAX, depth: 100 });
        // A number too large for a float is one all the same.
        let large = theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
        prop_assert!(large || theirs.is_ok() == ours.is_ok(), "{:?} {:?}", theirs, ours);
    }

    #[test]
    fn nothing_panics(input in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = json(&input, &LIMITS);
        let _ = cookies(&input, &LIMITS);
        let _ = url_encoded(&input, b'&', &LIMITS);
    }
}
