//! Verdicts of libmodsecurity 3.0.15's libinjection, and what holds of all values.

use proptest::{collection::vec, prelude::*};

use super::*;

#[test]
fn statements_are_judged_as_by_libinjection() {
    let table: &[(&[u8], Option<&[u8]>)] = &[
        (b"", None),
        (b"hello world", None),
        (b"42", None),
        (b"O'Brien", None),
        (b"it's 5 o'clock", None),
        (b"rock and roll", None),
        (b"select a chair from the union", None),
        (b"550e8400-e29b-41d4-a716-446655440000", None),
        (b"a=1&b=2", None),
        (b"1 and 1", None),
        (b"7' OR '7'='7", Some(b"s&sos")),
        (b"7' or 7=7--", Some(b"s&1c")),
        (b"7\" or 7=7#", Some(b"s&1c")),
        (b"7 union select name from users", Some(b"1UEnk")),
        (b"7 union all select null,null", Some(b"1UEv")),
        (b"7/**/union/**/select/**/pw", Some(b"1UEn")),
        (b"7 /*!union*/ select 2", Some(b"X")),
        (b"7 /* a /* b */ c */", Some(b"X")),
        (b"x'; drop table carts; --", Some(b"s;Tnn")),
        (b"7; exec xp_dirtree 'c:'", Some(b"1;Tns")),
        (b"7; if 3=3 waitfor delay '0:0:9'", None),
        (b"7 and sleep(9)", Some(b"1&f(1")),
        (b"7 and user()='root'", Some(b"1&f()")),
        (b"7 or user(9)", None),
        (b"nobody'--", Some(b"sc")),
        (b"nobody'#", None),
        (b"nobody' -- x", None),
        (b"7--", Some(b"1c")),
        (b"7-- ", Some(b"1c")),
        (b"7 --", Some(b"1c")),
        (b"7--x", Some(b"1c")),
        (b"7/*", Some(b"1c")),
        (b"seven--", None),
        (b"seven/*", Some(b"nc")),
        (b"7#", None),
        (b"7 union", None),
        (b"7 union/**/", Some(b"1Uc")),
        (b"(7)union(select(8))", Some(b"1)U(E")),
        (b"-7 or -7", Some(b"1&1")),
        (b"7 or 7", None),
        (b"7 || 7", None),
        (b"7 && 8=8", Some(b"1&1")),
        (b"' and ' and '", None),
        (b"a' + 'b", Some(b"sos")),
        (b"a' or 'b", Some(b"s&s")),
        (b"a\" or \"b", Some(b"s&s")),
        (b"7 in (7,8)", None),
        (b"7 not in (select 8)", Some(b"1o(E1")),
        (b"7 like 'x' or 8", Some(b"1os&1")),
        (b"7 is not null or 8=8", Some(b"1ov&1")),
        (b"7 having 8", Some(b"1B1")),
        (b"7 group by 8", Some(b"1B1")),
        (b"7 order by 8", Some(b"1B1")),
        (b"7 into outfile 'x'", Some(b"1ks")),
        (b"7 into outfile 8", Some(b"1k1")),
        (b"7 into nowhere 8", None),
        (b"@@version or 7", Some(b"v&1")),
        (b"@`x` or @'y' = 7", Some(b"v&v")),
        (b"7.e(ascii(substring(8)))", Some(b"f(f(1")),
        (b"7e union select 8", Some(b"UE1")),
        (b"7fUNION select 8", Some(b"1UE1")),
        (b"0x7f or 8=8", Some(b"1&1")),
        (b"0x or 8=8", Some(b"n&1")),
        (b"b'01' or 8=8", Some(b"1&1")),
        (b"x'7f' or 8=8", Some(b"1&1")),
        (b"q'[a'b]' or 8=8", Some(b"s&1")),
        (b"nq'<a>' or 8=8", Some(b"s&1")),
        (b"n'a' or 8=8", Some(b"s&1")),
        (b"e'a\\'b' or 8=8", Some(b"s&1")),
        (b"u&'a' or 8=8", Some(b"s&1")),
        (b"$7,000.50 or 8=8", Some(b"1&1")),
        (b"$$a$$ or 8=8", Some(b"s&1")),
        (b"$a$b$a$ or 8=8", Some(b"s&1")),
        (b"[a] or 8=8", Some(b"n&1")),
        (b"\\N or 8=8", Some(b"1&1")),
        (b"\\7 or 8=8", Some(b"1&1")),
        (b"\\%7 or 8=8", Some(b"1&1")),
        (b"{x 7} or 8=8", Some(b"1&1")),
        (b"{`` 7}", Some(b"X")),
        (b"7 or `a`.`b` = 8", None),
        (b"select`a`from`b`", None),
        (b"select.7", None),
        (b"7, (8), (9), (10) union select 3", Some(b"1UE1")),
        (b"7::int or 8=8", Some(b"1&1")),
        (b"7 collate latin1_bin or 8=8", None),
        (b"7 <=> 8 or 9", Some(b"1&1")),
        (b"7 := 8 or 9", Some(b"1&1")),
        (b"not 7 or not 8=8", Some(b"1&1")),
        (b"!!7 or 8=8", Some(b"1&1")),
        (b"7;;;drop table x", Some(b"1;Tnn")),
        (b"\xa07\xa0or\xa08=8", Some(b"1&1")),
        (b"\xff' or 7=7--", Some(b"s&1c")),
        (b"7\0or\08=8", Some(b"1&1")),
        (b"0b\0 or 8=8", Some(b"1&1")),
        (b"7 and sp_password--", Some(b"1&nc")),
        (b"current_user() or 7", Some(b"f()&1")),
        (b"database(7) or 8", Some(b"f(1)&")),
        (b"case when 7=7 then 8 end", Some(b"Ek1k1")),
        (b"7;declare @a int", Some(b"1;Tvt")),
        (b"if exists(select 7)", Some(b"f(E1)")),
        (b"'a\\' or '7'='7", None),
        (b"'a'' or '7'='7", None),
        (b"7' or 7=7 `", Some(b"s&1c")),
        (b"7 or 7.7.7", None),
    ];
    for (value, shape) in table {
        let found = sqli(value);
        assert_eq!(found.as_ref().map(Fingerprint::as_bytes), *shape, "{}", value.escape_ascii());
        assert!(sqli_possible(value) || shape.is_none(), "{}", value.escape_ascii());
    }
}

#[test]
fn markup_is_judged_as_by_libinjection() {
    let table: &[(&[u8], bool)] = &[
        (b"", false),
        (b"a < b", false),
        (b"a > b", false),
        (b"1 <2", false),
        (b"x=y", false),
        (b"a=b&on=off", false),
        (b"<b>bold</b>", false),
        (b"<a href=\"https://example.org/\">x</a>", false),
        (b"<img src=cat.png>", false),
        (b"<p class=x>", false),
        (b"<p style=x>", true),
        (b"<script>", true),
        (b"<SCRIPT SRC=//x>", true),
        (b"<scr\0ipt>", true),
        (b"</script>", false),
        (b"</script x>", true),
        (b"<script", true),
        (b"<sc", false),
        (b"<svg>", true),
        (b"<svgx y>", true),
        (b"<xsl:x>", true),
        (b"<iframe/src=x>", true),
        (b"<x onload=1>", true),
        (b"<x onloadx=1>", true),
        (b"<x/onload=1>", true),
        (b"<x onloa=1>", false),
        (b"<x onload>", false),
        (b"<x onload =\n1>", true),
        (b"<x on\0load=1>", false),
        (b"onload=1", true),
        (b"x' onload='1", true),
        (b"x\" onload=\"1", true),
        (b"x` onload=`1", true),
        (b"x\"onload=1", true),
        (b"x onclick=1", true),
        (b"onclick = 1", true),
        (b"onfoo=1", false),
        (b"<a href=javascript:1>", true),
        (b"<a href=\" java\nscript:1\">", true),
        (b"<a href=\"&#106;ava:\">", true),
        (b"<a href='&#x6A;ava:'>", true),
        (b"<a href='&#x16A;ava:'>", false),
        (b"<a href='&#106ava:'>", true),
        (b"<a href='&#x1000fff;java:'>", false),
        (b"<a href='&#32;java:'>", true),
        (b"<a href=\xe2\x80\x83data:x>", true),
        (b"<a href='vbscript:x'>", true),
        (b"<a href='view-source:x'>", true),
        (b"<a href=jav\0ascript:1>", false),
        (b"<a xlink:href=x>", true),
        (b"<a xmlns:x=y>", true),
        (b"<a by='data:x'>", true),
        (b"<set attributeName=onload>", true),
        (b"<set attributeName=color>", false),
        (b"<!doctype html>", true),
        (b"<!DOCTYP>", false),
        (b"<!-- x -->", false),
        (b"<!-- ` -->", true),
        (b"<!--[if IE]>", true),
        (b"<!--x--><script>", true),
        (b"<!--x--!><script>", true),
        (b"<!--x-!><script>", true),
        (b"<!--x-\0-><script>", true),
        (b"<!--><script>", true),
        (b"<![CDATA[<script>]]>", false),
        (b"<![CDATA[x]]><script>", true),
        (b"<!ENTITY x>", true),
        (b"<?xml ?>", true),
        (b"<?import x>", true),
        (b"<?php ?>", false),
        (b"<% x `%>", true),
        (b"<%x%><script>", true),
        (b"<\0script>", true),
        (b"<a x=\xff onload=1>", false),
        (b"<a \xff onload=1>", false),
        (b"<////a onload=1>", true),
        (b"<a////onload=1>", true),
        (b"<a b='c'onload=1>", true),
        (b"<a =onload=1>", false),
        (b"</a b><script>", true),
        (b"<a b=c/onload=1>", false),
        (b"style=x", true),
        (b"filter=x", true),
        (b"abc==", false),
        (b"to==", false),
        (b"action=data", true),
        (b"\x0bonload=1", true),
    ];
    for (value, runs) in table {
        assert_eq!(xss(value), *runs, "{}", value.escape_ascii());
        assert!(xss_possible(value) || !runs, "{}", value.escape_ascii());
    }
}

#[test]
fn ordinary_values_are_not_looked_into() {
    for value in [
        &b"hello"[..],
        b"42",
        b"2024-11-26T19:54:56Z",
        b"550e8400-e29b-41d4-a716-446655440000",
        b"en-US,en;q=0.9",
        b"gzip, deflate, br",
        b"application/json",
        b"+49 30 1234567",
        b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
        b"the quick brown fox jumps",
    ] {
        assert!(!sqli_possible(value) && !xss_possible(value), "{}", value.escape_ascii());
    }
}

#[test]
fn words_and_numbers_are_harmless() {
    let pieces = [
        "1", "0", ".", "_", "a", "1e", "0x1", "0b", "union", "select", "or", "sleep", "case", "in", "int", "xor1", "by",
    ];
    let check = |value: &str| {
        if statement::is_harmless(value.as_bytes()) {
            assert_eq!(statement::judge(value.as_bytes()), None, "{value}");
        }
    };
    let extend = |values: &[String]| -> Vec<String> {
        values.iter().flat_map(|value| pieces.map(|piece| format!("{value}{piece}"))).collect()
    };
    let three = extend(&extend(&extend(&[String::new()])));
    three.iter().for_each(|value| check(value));
    for value in extend(&three) {
        check(&value);
        check(&(value + ".union"));
    }
    for line in include_str!("libinjection/words.txt").lines() {
        for word in line[2..].split(' ') {
            for before in ["", "1", "1e", "0x1", "_", "a", "a.", ".", "1int.", "or."] {
                check(&[before, word].concat());
                check(&[before, word, "1union"].concat());
                check(&[before, word, ".union"].concat());
            }
        }
    }
    assert!(statement::is_harmless(b"json.array_1") && !statement::is_harmless(b"1eint1.1union"));
}

/// Pieces of what is judged, and bytes of any kind.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "'",
        "\"",
        "`",
        "\\",
        " ",
        "(",
        ")",
        ",",
        ";",
        "--",
        "#",
        "/*",
        "*/",
        "/*!",
        "@",
        "$$",
        "$a$",
        "{",
        "}",
        "[",
        "]",
        "=",
        "::",
        ".",
        "-",
        "&&",
        "1",
        "1e",
        "0x",
        "a",
        "or ",
        "and ",
        "union ",
        "all ",
        "select ",
        "in ",
        "not ",
        "like ",
        "is ",
        "into ",
        "outfile ",
        "user",
        "if",
        "int ",
        "collate ",
        "a_b ",
        "case ",
        "waitfor ",
        "delay ",
        "own3d ",
        "by ",
        "q'(",
        "x'",
        "<",
        ">",
        "/",
        "!",
        "?",
        "%",
        "<!--",
        "-->",
        "<a ",
        "script",
        "href=",
        "src=",
        "java",
        "&#",
        "&#x6a;",
        "onload",
        "style",
        "attributename=",
        "xmlns",
        "\0",
        "\n",
    ];
    let piece = prop::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec());
    vec(prop_oneof![12 => piece, 1 => vec(any::<u8>(), 1..4)], 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_is_found_is_possible(value in value()) {
        let shape = statement::judge(&value);
        prop_assert!(shape.is_none() || sqli_possible(&value));
        prop_assert!(!script::judge(&value) || xss_possible(&value));
        prop_assert!(shape.is_none_or(|shape| (1..=5).contains(&shape.as_bytes().len())));
    }

    #[test]
    fn no_value_is_too_much(value in vec(any::<u8>(), 0..300)) {
        let shape = statement::judge(&value);
        prop_assert_eq!(sqli(&value), shape);
        prop_assert_eq!(xss(&value), script::judge(&value));
    }
}
