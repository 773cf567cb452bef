use proptest::prelude::*;

use super::*;
use crate::byte_set::ByteSet;

#[track_caller]
fn assert_gives(transformation: Transformation, rows: &[(&str, &str)]) {
    for (input, expected) in rows {
        let mut output = Vec::new();
        let changed = transformation.apply(input.as_bytes(), &mut output);
        assert_eq!(changed, input != expected, "{} of {input:?}: {}", transformation.name(), output.escape_ascii());
        if changed {
            assert_eq!(output.escape_ascii().to_string(), expected.as_bytes().escape_ascii().to_string(), "{input:?}");
        }
    }
}

#[test]
fn urls() {
    let plain = [("", ""), ("a+b%20c", "a b c"), ("%", "%"), ("%4", "%4"), ("%4g%41", "%4gA"), ("%u0041", "%u0041")];
    assert_gives(Transformation::UrlDecode, &plain);
    let unicode = [
        ("%u0041%41+", "AA "),
        ("%uff1cscript%uFF1E", "<script>"),
        ("%uff00", "\0"),
        ("%u00zz%u12", "%u00zz%u12"),
        ("%U0027", "'"),
        ("%%u0041", "%A"),
    ];
    assert_gives(Transformation::UrlDecodeUni, &unicode);
    assert_gives(Transformation::UrlEncode, &[("a b*/", "a+b*%2f")]);
}

#[test]
fn escapes() {
    let html = [
        ("&lt;a&GT;&quot;&amp;amp;", "<a>\"&amp;"),
        ("&#60;&#x3c;&#X3C&#60a", "<<<<a"),
        ("&#;&#x;&&foo;&lts!", "&#;&#x;&&foo;<!"),
        ("&#316;", "<"),
    ];
    assert_gives(Transformation::HtmlEntityDecode, &html);
    let js = [("\\u0061\\x62\\143\\n\\q\\", "abc\nq\\"), ("\\uff1c\\8\\477", "<8'7"), ("\\u00\\xg", "u00xg")];
    assert_gives(Transformation::JsDecode, &js);
    let css =
        [("\\61 b\\000061c\\ff1cx", "abac<x"), ("a\\\nb\\q\\", "abq"), ("\\0ff1c\\00ff1c!", "<<!"), ("\\7 ", "\u{7}")];
    assert_gives(Transformation::CssDecode, &css);
    let c = [("\\x41\\101\\n\\\\\\?\\q\\", "AA\n\\?q\\"), ("\\xg\\400", "xg\0")];
    assert_gives(Transformation::EscapeSeqDecode, &c);
}

#[test]
fn encodings() {
    assert_gives(
        Transformation::Base64Decode,
        &[("SGVsbG8=", "Hello"), ("SGVs bG8=", "SGVs bG8="), ("SGVsbG8", "SGVsbG8"), ("SGVs\nbG8=", "Hello")],
    );
    assert_gives(Transformation::Base64DecodeExt, &[("SG.Vs bG8=", "Hello"), ("P.HNj", "<sc"), ("SGVsb=", "")]);
    assert_gives(Transformation::Base64Encode, &[("Hello", "SGVsbG8="), ("Hell", "SGVsbA=="), ("Hel", "SGVs")]);
    assert_gives(Transformation::HexEncode, &[("\0az", "00617a")]);
    assert_gives(Transformation::HexDecode, &[("417a", "Az"), ("41 ", "A"), ("4142g", "AB")]);
    assert_gives(Transformation::SqlHexDecode, &[("a 0x414243, 0x4", "a ABC, 0x4"), ("0Xzz", "0Xzz")]);
    assert_gives(Transformation::Utf8ToUnicode, &[("aä€😀", "a%u00e4%u20ac%u1f600")]);
    assert_gives(Transformation::Length, &[("", "0"), ("abc", "3")]);
    let mut output = Vec::new();
    assert!(Transformation::Sha1.apply(b"abc", &mut output));
    assert_eq!(output[..4], [0xa9, 0x99, 0x3e, 0x36]);
    assert!(Transformation::Md5.apply(b"abc", &mut output));
    assert_eq!(output[..4], [0x90, 0x01, 0x50, 0x98]);
}

#[test]
fn white_space_and_comments() {
    assert_gives(Transformation::CompressWhitespace, &[("a \t\n b  ", "a b "), ("a b", "a b")]);
    assert_gives(Transformation::RemoveWhitespace, &[(" a\u{b}b ", "ab"), ("ab", "ab")]);
    assert_gives(Transformation::CmdLine, &[("C^At  \"/etc\"/pass;,wd (x)", "cat/etc/pass wd(x)")]);
    assert_gives(Transformation::ReplaceComments, &[("a/**/b/*c", "a b "), ("a*/b", "a*/b"), ("/*/x*/y", " y")]);
    assert_gives(Transformation::RemoveComments, &[("a/*x*/b<!--y-->c--d", "abc"), ("a#b", "a"), ("a/*b", "a ")]);
    assert_gives(Transformation::RemoveCommentsChar, &[("a/*b*/c--d#e<!--f-->", "abcdef")]);
    assert_gives(Transformation::Trim, &[(" a b\n", "a b"), ("a", "a"), ("  ", "")]);
    assert_gives(Transformation::TrimLeft, &[(" a ", "a ")]);
    assert_gives(Transformation::TrimRight, &[(" a ", " a")]);
    assert_gives(Transformation::RemoveNulls, &[("a\0b\0", "ab")]);
    assert_gives(Transformation::ReplaceNulls, &[("a\0b", "a b")]);
    assert_gives(Transformation::Lowercase, &[("aÄB", "aÄb"), ("ab", "ab")]);
    assert_gives(Transformation::Uppercase, &[("ab", "AB")]);
}

#[test]
fn paths() {
    let rows = [
        ("/a//b/./c/../d", "/a/b/d"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("../../a", "../../a"),
        ("a/../../b", "../b"),
        ("/a/", "/a/"),
        ("/", "/"),
        ("/a/..", "/"),
        ("a\\..\\b", "a\\..\\b"),
    ];
    assert_gives(Transformation::NormalizePath, &rows);
    assert_gives(Transformation::NormalizePathWin, &[("a\\..\\b\\\\c", "b/c"), ("\\a", "/a")]);
}

proptest! {
    #[test]
    fn unchanged_means_equal_and_nothing_panics(input in prop::collection::vec(prop_oneof![
        any::<u8>(),
        prop::sample::select(b"%u&#x;\\0aF/*-.<>! QUI=".to_vec()),
    ], 0..60)) {
        for transformation in Transformation::ALL {
            let mut output = b"left over".to_vec();
            if transformation.apply(&input, &mut output) {
                prop_assert_ne!(&output, &input, "{}", transformation.name());
                prop_assert!(output.len() <= input.len() || transformation.grows(), "{}", transformation.name());
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn nothing_changes_without_its_triggers(value in proptest::collection::vec(
        proptest::prelude::prop_oneof![
            proptest::sample::select(&b"aA0zx \\/%&;#*-<>'\"^,(\0\xa0\xc2+.\t\n=="[..]),
            proptest::sample::select(&b"aQ4="[..]),
            proptest::num::u8::ANY,
        ],
        1..12,
    )) {
        let mut output = Vec::new();
        for transformation in Transformation::ALL {
            if transformation.apply(&value, &mut output) {
                proptest::prop_assert!(
                    transformation.triggers().meet(&ByteSet::of(&value), value.len()), "{} {}", transformation.name(), value.escape_ascii()
                );
            }
        }
    }
}
