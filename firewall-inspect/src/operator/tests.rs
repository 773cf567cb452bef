use super::*;
use crate::seclang::{Piece, Variable};

fn text(text: &str) -> Text {
    Text(if text.is_empty() { Vec::new() } else { vec![Piece::Literal(text.into())] })
}

fn compile(operator: Operator, argument: &str) -> Result<Matcher, String> {
    let mut read = |file: &str| match file {
        "words.data" => Ok(b"# words\nUNION select \n\n  sleep\n".to_vec()),
        "nets.data" => Ok(b"10.0.0.0/8\n2001:db8::/32\n".to_vec()),
        _ => Err(format!("{file}: not found")),
    };
    Matcher::compile(operator, &text(argument), &mut read)
}

#[track_caller]
fn assert_finds(operator: Operator, argument: &str, rows: &[(&[u8], Option<Range<usize>>)]) {
    let matcher = compile(operator, argument).unwrap();
    for (value, expected) in rows {
        let found = matcher.find(value, |regex| Box::leak(Box::new(regex.create_cache())), b"");
        assert_eq!(found, *expected, "@{} {argument} in {}", operator.name(), value.escape_ascii());
    }
}

#[test]
fn text_in_its_place() {
    assert_finds(Operator::BeginsWith, "ab", &[(b"abc", Some(0..2)), (b"cab", None), (b"a", None)]);
    assert_finds(Operator::Contains, "ab", &[(b"cabab", Some(1..3)), (b"ba", None)]);
    assert_finds(Operator::Contains, "", &[(b"x", Some(0..0)), (b"", Some(0..0))]);
    assert_finds(Operator::EndsWith, "ab", &[(b"cab", Some(1..3)), (b"abc", None)]);
    assert_finds(Operator::StrEq, "ab", &[(b"ab", Some(0..2)), (b"abc", None), (b"AB", None)]);
    assert_finds(Operator::Within, "GET POST", &[(b"GET", Some(0..3)), (b"PUT", None), (b"", Some(0..0))]);
    let words: [(&[u8], _); 4] = [(b"xab ab", Some(4..6)), (b"ab", Some(0..2)), (b"ab_", None), (b"(ab)", Some(1..3))];
    assert_finds(Operator::ContainsWord, "ab", &words);
}

#[test]
fn words_in_any_case() {
    assert_finds(
        Operator::Pm,
        "union  Select |41 0d|",
        &[(b"a UNION b", Some(2..7)), (b"sELECT", Some(0..6)), (b"a\r", Some(0..2)), (b"unio", None)],
    );
    // A line is a word, spaces and all.
    assert_finds(Operator::PmFromFile, "words.data", &[(b"union  select", None), (b"Union Select", Some(0..12))]);
    assert_finds(Operator::PmFromFile, "words.data", &[(b"SLEEP(5)", Some(0..5)), (b"# words", None)]);
}

#[test]
fn numbers_as_atoi_reads_them() {
    for (operator, yes, no) in [
        (Operator::Eq, &b"5"[..], &b"6"[..]),
        (Operator::Ge, b"5", b"4"),
        (Operator::Gt, b" 6x", b"5"),
        (Operator::Le, b"-7", b"6"),
        (Operator::Lt, b"x", b"5"),
    ] {
        let (length, none) = (yes.len(), None);
        assert_finds(operator, "5", &[(yes, Some(0..length)), (no, none)]);
    }
    assert_eq!([number(b"99999999999999999999"), number(b"-3a"), number(b"")], [i64::MAX, -3, 0]);
    let argument = Text(vec![Piece::Macro(Variable::Tx, Some("limit".into()))]);
    let matcher = Matcher::compile(Operator::Gt, &argument, &mut |_| Err("none".into())).unwrap();
    assert_eq!(matcher.find(b"10", |_| panic!("no expression"), b"9"), Some(0..2));
    assert_eq!(matcher.find(b"10", |_| panic!("no expression"), b"10"), None);
}

#[test]
fn addresses_and_encodings() {
    let rows: [(&[u8], _); 4] =
        [(b"10.1.2.3", Some(0..8)), (b"::ffff:10.1.2.3", Some(0..15)), (b"11.0.0.1", None), (b"x", None)];
    assert_finds(Operator::IpMatch, "10.0.0.0/8, 192.0.2.1", &rows);
    assert_finds(Operator::IpMatchFromFile, "nets.data", &[(b"2001:db8::1", Some(0..11)), (b"2001:db9::1", None)]);
    assert_finds(
        Operator::ValidateByteRange,
        "32-126, 9",
        &[(b"a\tb", None), (b"ab\n", Some(2..3)), (b"\xff", Some(0..1))],
    );
    assert_finds(Operator::ValidateUrlEncoding, "", &[(b"%41%zz", Some(3..6)), (b"%4", Some(0..2)), (b"%41", None)]);
    assert_finds(Operator::ValidateUtf8Encoding, "", &[("ä€".as_bytes(), None), (b"a\xc0\xaf", Some(1..3))]);
    assert_finds(Operator::Rx, "a+", &[(b"baa", Some(1..3)), (b"b", None)]);
    assert_finds(Operator::UnconditionalMatch, "", &[(b"", Some(0..0))]);
    assert_finds(Operator::NoMatch, "", &[(b"a", None)]);
}

#[test]
fn bad_arguments_are_errors() {
    for (operator, argument, message) in [
        (Operator::Rx, "a(?>b)", "an atomic group is not supported"),
        (Operator::Pm, "  ", "there are no words"),
        (Operator::Pm, "|4", "has no other"),
        (Operator::Pm, "|4|", "no list of bytes"),
        (Operator::Pm, "|+4|", "no list of bytes"),
        (Operator::PmFromFile, "gone.data", "gone.data: not found"),
        (Operator::Eq, "five", "is no number"),
        (Operator::IpMatch, "10.0.0.0/33", "no address and no prefix"),
        (Operator::ValidateByteRange, "1-256", "no byte and no range"),
        (Operator::ValidateByteRange, "9-1", "no byte and no range"),
    ] {
        let error = compile(operator, argument).unwrap_err();
        assert!(error.contains(message), "@{} {argument}: {error}", operator.name());
    }
    let macros = Text(vec![Piece::Macro(Variable::Tx, None)]);
    assert!(Matcher::compile(Operator::Pm, &macros, &mut |_| Err("none".into())).is_err());
}

#[test]
fn what_there_is_no_data_for_is_never_found() {
    for operator in [Operator::GeoLookup, Operator::Rbl] {
        assert_finds(operator, "dnsbl.example.test", &[(b"192.0.2.1", None)]);
    }
}
