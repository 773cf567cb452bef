use std::ops::Range;

use proptest::prelude::*;

use super::*;

fn is_match(pattern: &str, input: &[u8]) -> bool {
    compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")).is_match(input)
}

#[test]
fn bytes_are_bytes() {
    for (pattern, yes, no) in [
        (r"^\x{c2}$", &b"\xc2"[..], "\u{c2}".as_bytes()),
        (r"^[\x{c2}-\xC5]$", b"\xc3", b"\xc6"),
        (r"^\xe4\x{bd}$", b"\xe4\xbd", b"\xe4"),
        ("^ä$", "ä".as_bytes(), b"\xe4"),
        (r"^\0\01\012$", b"\0\x01\n", b"012"),
        (r"^[\1\101]$", b"A", b"1"),
        (r"^\e\cA\a$", b"\x1b\x01\x07", b"eA"),
        (r"^.$", b"\n", b""),
        (r"^.$", b"\xff", b"ab"),
    ] {
        assert!(is_match(pattern, yes), "{pattern}");
        assert!(!is_match(pattern, no), "{pattern}");
    }
}

#[test]
fn the_end_is_the_end() {
    assert!(is_match("a$", b"a") && !is_match("a$", b"a\n") && !is_match("a$", b"a\nb"));
    assert!(is_match("(?m)a$", b"a\nb") && is_match("^a", b"a") && !is_match("^a", b"\na"));
    assert!(is_match(r"a\Z", b"a\n") && !is_match(r"a\z", b"a\n"));
}

#[test]
fn what_the_engine_would_read_otherwise_is_read_as_pcre_has_it() {
    for (pattern, yes, no) in [
        (r"^\<\>$", &b"<>"[..], &b""[..]),
        (r"^[[a]$", b"[", b"]"),
        (r"^[]a]$", b"]", b"["),
        (r"^[^]a]$", b"b", b"]"),
        (r"^[a&&b]$", b"&", b"c"),
        (r"^[a~~b]$", b"~", b"c"),
        (r"^[\--9]$", b"-", b":"),
        (r"^[a-]$", b"-", b"b"),
        (r"^[\d-z]$", b"-", b"y"),
        (r"^[[:alpha:]_[:^space:]]$", b"1", b" "),
        (r"^[[:a]$", b":", b"]"),
        (r"^[\b]$", b"\x08", b"b"),
        (r"^a{,2}$", b"a{,2}", b"aa"),
        (r"^a{2}{x$", b"aa{x", b"aa"),
        (r"^\Qa.b\E.$", b"a.bc", b"axbc"),
        (r"^a(?#no)b$", b"ab", b"a"),
        (r"^(?i)ab(?-i:C)$", b"aBC", b"abc"),
        (r"^(?<name>a)(?P<other>b)$", b"ab", b"a"),
        (r"\bab\b", b"x ab.", b"xab"),
        (r"^a\/b\-\'$", b"a/b-'", b"a"),
        (r"^\h\v\N\R$", b"\t\x0ba\r\n", b"\n"),
        (r"^a+?b*?$", b"aab", b"b"),
        // Not the Kelvin sign, nor the long s.
        (r"^(?i)ks$", b"KS", "\u{212a}s".as_bytes()),
    ] {
        assert!(is_match(pattern, yes), "{pattern}");
        assert!(!is_match(pattern, no), "{pattern}");
    }
}

#[test]
fn what_is_not_supported_is_an_error_with_its_place() {
    for (pattern, offset, message) in [
        (r"ab(?=c)", 2, "look-around is supported only"),
        (r"(a)\1", 3, "a back-reference is supported only"),
        (r"ab++", 3, "a possessive quantifier is supported only"),
        (r"a(?>b)", 1, "atomic"),
        (r"a{2}+", 4, "possessive"),
        (r"(?:ab)*+", 7, "possessive"),
        (r"a\x{100}", 1, "must be a byte"),
        (r"a[b", 1, "not closed"),
        (r"[z-a]", 1, "ends before it begins"),
        (r"[[:foo:]]", 1, "no class `foo`"),
        (r"a\y", 1, "there is no `\\y`"),
        (r"a\", 1, "escapes nothing"),
        (r"(?R)", 0, "recursion"),
        (r"(a", 0, "unclosed group"),
        (r"(?:(?:a{1000}){1000}){1000}", 0, "size limit"),
    ] {
        let error = compile(pattern).unwrap_err();
        assert!(error.offset == offset && error.message.contains(message), "{pattern}: {error:?}");
    }
}

#[test]
fn what_of_conditions_is_not_supported_is_an_error_with_its_place() {
    for (pattern, offset, message) in [
        (r"a?+b", 2, "possessive"),
        (r"a(?=b*)", 1, "no greatest length"),
        (r"a(?<=b+)", 1, "no greatest length"),
        (r"a(?=b{256})", 1, "more than 255"),
        (r"a(?=b(?!c))", 5, "within look-around"),
        (r"(a)(b)\1\2", 8, "several groups"),
        (r"(a)(?<=\1)", 3, "within look-behind"),
        (r"(a)\10", 3, r"only `\1` to `\9`"),
        (r"(?=a)b{5000}", 0, "4096 steps"),
        (r"\b++", 3, "possessive"),
    ] {
        let error = parse_any(pattern).map(|_| ()).unwrap_err();
        assert!(error.offset == offset && error.message.contains(message), "{pattern}: {error:?}");
    }
}

type Found = Option<(Range<usize>, Option<Range<usize>>)>;

/// The first match and its first group.
fn search(pattern: &str, value: &[u8]) -> Result<Found, conditions::Excess> {
    let (wide, conditions) = parse_any(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
    let regex = build(&wide).unwrap();
    let slots = conditions.expect("conditions").search(&regex, &mut regex.create_cache(), value)?;
    Ok(slots.map(|slots| {
        let range = |at: usize| Some(slots[at]?.get()..slots[at + 1]?.get());
        (range(0).unwrap(), range(2))
    }))
}

#[test]
fn conditions_are_asked() {
    for (pattern, value, expected) in [
        (r"<\?(?!xml)", &b"<?xml <?php"[..], Some(6..8)),
        (r"<\?(?!xml)", b"<?xml", None),
        (r"<\?(?!xml)", b"<?", Some(0..2)),
        (r"(?i)a(?=BC)", b"abd aBc", Some(4..5)),
        (r"(?<!&amp|&auml);", b"&amp;&auml;x;", Some(12..13)),
        (r"(?<=a|bc)d", b"cd bcd", Some(5..6)),
        (r"(?<!^)a", b"aa", Some(1..2)),
        (r"(?<=\n)a", b"a\na", Some(2..3)),
        // It gives nothing back.
        (r"^\s*+[^a]", b"  a", None),
        (r"^[a-c]++c", b"abc", None),
        (r"a{2,}+[ab]", b"aaab", Some(0..4)),
        (r"a{2,}+[ab]", b"aaa", None),
        (r"\b(\w+)=\1\b", b"a=b bc=bc", Some(4..9)),
        (r"(?i)\b(\w+)=\1\b", b"Ab=aB", Some(0..5)),
        (r"\b(\w+)=\1\b", b"Ab=aB", None),
        (r"\b(\w+)=(?!\1\b)\w+", b"a=a b=c", Some(4..7)),
        (r"(a)?b\1", b"b", None),
        (r"(a*)b\1c", b"aabac", Some(1..5)),
        // As far as the first way goes, not as far as can be.
        (r"(?=a)(?:a|ab)", b"ab", Some(0..1)),
        (r"(?=a)a+?", b"aaa", Some(0..1)),
        (r"(?=.)(?:)*\xff", b"\x00\xff", Some(1..2)),
    ] {
        let found = search(pattern, value).unwrap().map(|(range, _)| range);
        assert_eq!(found, expected, "{pattern} in {}", value.escape_ascii());
    }
    // Groups count as the expression has them.
    assert_eq!(search(r"(?!c)a++(?=(x))?(b)", b"aab"), Ok(Some((0..3, None))));
    assert_eq!(search(r"(?<!c)a++(b)", b"aab"), Ok(Some((0..3, Some(2..3)))));
}

#[test]
fn conditions_that_say_nothing_are_none() {
    for (pattern, needed) in [
        (r"^\s*+;", false),
        (r"^\s*+(?:;|$)", false),
        (r"a{2,}+b", false),
        (r"(?:\s*+;\s*+(?:q\s*+=)?)*$", true),
        (r"(?:\s*+;(?:q\s*+=)?)*$", false),
        (r"(?:b*+a|b)", false),
        (r"(?:ab*+)*", true),
        (r"(?:ab*+){2}$", false),
        (r"(?:b?ab*+){2}$", true),
        (r"\s*+", true),
        (r"\s*+(?=;)", true),
        (r"\s*+(?=;);", true),
        (r"(a)b*+\1", true),
        (r"b*+\x{62}", true),
        (r"(?i)b*+B", true),
    ] {
        assert_eq!(parse_any(pattern).unwrap().1.is_some(), needed, "{pattern}");
    }
}

/// An expression that matches for sure where it does, and whether it does.
fn is_sure(pattern: &str, value: &[u8]) -> bool {
    let conditions = parse_any(pattern).unwrap().1.expect("conditions");
    conditions.sure.is_some_and(|sure| sure.is_match(value))
}

#[test]
fn what_is_sure_needs_no_conditions() {
    for (pattern, value, expected) in [
        (r"^\s*+[^;]", "  a", true),
        (r"^\s*+[^;]", "   ", false),
        (r"^(?:;\s*+(?:q=1|[^c;]+|,?))*$", "; q=1;  ab", true),
        // It does match, which is not said.
        (r"^(?:;\s*+(?:q=1|[^c;]+|,?))*$", "; ;", false),
        (r"^a\s*+.*$", "a  b", true),
        (r"^a++[ab]?$", "aab", true),
        (r"^a++(?:$|a)", "aa", true),
        (r"^(?:a{2,}+[ab])+$", "aabaab", true),
        (r"(?!x)a", "a", false),
    ] {
        assert_eq!(is_sure(pattern, value.as_bytes()), expected, "{pattern} in {value:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn what_is_sure_is_true(
        pattern in prop::sample::select(&[
            r"^\s*+[^;]",
            r"^(?:;\s*+(?:q=1|[^c]+|,?))*$",
            r"^(?:a\s*+[^b]*,?)*$",
            r"\s*+(?:b|;?)\s*+[;q ]",
            r"a++(?:a?b?\b|$)c?",
            r"(?:a*+(?:b|[a-c]|;a?)?){2}$",
            r"^(?:b++.?a++.?)+(?:c|)$",
        ][..]),
        value in "[abc ;,q=1]{0,12}",
    ) {
        if is_sure(pattern, value.as_bytes()) {
            prop_assert!(search(pattern, value.as_bytes()).unwrap().is_some());
        }
    }
}

#[test]
fn work_grows_with_the_value_and_no_faster() {
    // Every way remembers another start.
    let value = "a".repeat(20_000);
    assert_eq!(search(r"(a+).*(?!\1)b", value.as_bytes()), Ok(None), "the wide expression says no");
    assert_eq!(search(r"(a+).*b\1c", format!("{value}b{value}c").as_bytes()).map(|_| ()), Err(conditions::Excess));
    assert_eq!(search(r"(?<!q)a*b(?!c)", format!("{value}bc").as_bytes()), Ok(None));
    assert_eq!(search(r"(?<![qa])a*b(?!c)", format!("{}bc", value.repeat(10)).as_bytes()), Ok(None));
}
