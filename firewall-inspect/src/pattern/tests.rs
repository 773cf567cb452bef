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
        (r"ab(?=c)", 2, "look-around"),
        (r"(?<!a)", 0, "look-around"),
        (r"(a)\1", 3, "back-references"),
        (r"a(?>b)", 1, "atomic"),
        (r"ab++", 3, "possessive"),
        (r"a{2}+", 4, "possessive"),
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
