//! What becomes of bodies: a table of libmodsecurity's verdicts, bounds, and time.

use std::time::{Duration, Instant};

use super::*;
use crate::{rules::rule::Source, seclang::Variable, transaction::request::BodyProblem};

/// A transaction that has seen the body, and what was wrong with it.
fn seen(rules: &Arc<Rules>, media: &[u8], body: &[u8]) -> (Transaction, Option<BodyProblem>) {
    let mut worker = Worker::default();
    let mut transaction = Transaction::new(Arc::clone(rules), about(), EngineMode::On);
    let raw = [b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Type: ", media, b"\r\n\r\n"].concat();
    transaction.request_head(&mut worker, &head::parse(Bytes::from(raw)).unwrap());
    let problem = transaction.request_body(&mut worker, body);
    (transaction, problem)
}

/// The reverse of what the table does to bytes.
fn unescaped(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match (byte, if byte == b'\\' { rest.next() } else { None }) {
            (_, Some(b't')) => b'\t',
            (_, Some(b'n')) => b'\n',
            (_, Some(b'r')) => b'\r',
            (_, Some(b'x')) => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            (byte, None) | (_, Some(byte)) => byte,
        });
    }
    bytes
}

/// What the table tells of a transaction.
fn told(transaction: &Transaction, problem: Option<&BodyProblem>) -> Vec<Vec<u8>> {
    let store = &transaction.store;
    assert_eq!(store.first(Variable::ReqbodyError, None) == Some(b"1"), problem.is_some());
    if problem.is_some() {
        return vec![b"refused".to_vec()];
    }
    let mut told = Vec::new();
    let names = store.range(Source::of(Variable::ArgsPostNames));
    for (at, name) in store.range(Source::of(Variable::ArgsPost)).zip(names) {
        assert_eq!(store.name(at), store.value(name));
        told.push([b"ARGS:", store.name(at), b"=", store.value(at)].concat());
    }
    for (source, label) in [
        (Source::of(Variable::Files), "FILES:"),
        (Source::of(Variable::FilesNames), "FILES_NAMES:"),
        (Source::of(Variable::FilesSizes), "FILES_SIZES:"),
        (Source::of(Variable::MultipartName), "NAME:"),
        (Source::of(Variable::MultipartFilename), "FILENAME:"),
        (Source::of(Variable::MultipartPartHeaders), "PART_HEADERS:"),
        (Source::of(Variable::Xml), "XML:"),
        (Source::XML_ATTRIBUTES, "@:"),
    ] {
        told.extend(store.range(source).map(|at| [label.as_bytes(), store.value(at)].concat()));
    }
    for flag in Variable::ALL.iter().filter(|variable| variable.name().starts_with("MULTIPART_")) {
        let name = flag.name().trim_start_matches("MULTIPART_").as_bytes();
        match store.first(*flag, None) {
            _ if flag.is_collection() => {}
            None | Some(b"0") => {}
            Some(b"1") => told.push(name.to_vec()),
            Some(other) => told.push([name, b"=", other].concat()),
        }
    }
    if store.first(Variable::UrlencodedError, None) == Some(b"1") {
        told.push(b"URLENCODED_ERROR".to_vec());
    }
    if told.is_empty() { vec![b"nothing".to_vec()] } else { told }
}

#[test]
fn as_libmodsecurity_reads_them() {
    let rules = rules("SecArgumentsLimit 1000");
    let table = include_str!("bodies.tsv").lines().skip(1);
    assert!(table.clone().count() > 500);
    for line in table {
        let columns: Vec<&str> = line.split('\t').collect();
        let [media, body, expected] = match columns[..] {
            [media, body, theirs] => [media, body, theirs],
            [media, body, _, ours] => [media, body, ours],
            _ => panic!("{line}"),
        };
        let mut expected: Vec<Vec<u8>> = expected.split(" | ").map(unescaped).collect();
        expected.sort_unstable();
        let (transaction, problem) = seen(&rules, &unescaped(media), &unescaped(body));
        let mut told = told(&transaction, problem.as_ref());
        told.sort_unstable();
        let shown = |all: &[Vec<u8>]| all.iter().map(|one| one.escape_ascii().to_string()).collect::<Vec<_>>();
        assert_eq!(shown(&told), shown(&expected), "{media} {body} {problem:?}");
    }
}

#[test]
fn limits_are_told_as_such() {
    let rules = rules("SecArgumentsLimit 3\nSecRequestBodyJsonDepthLimit 2");
    let part = "--B\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n";
    let large = format!("--B\r\nX: {}\r\n", "y".repeat(20_000));
    for (media, body, expected) in [
        ("application/x-www-form-urlencoded", "a&b&c".to_owned(), None),
        ("application/x-www-form-urlencoded", "a&b&c&d".to_owned(), Some(true)),
        ("application/json", "[[1,2,3]]".to_owned(), None),
        ("application/json", "[1,2,3,4]".to_owned(), Some(true)),
        ("application/json", "[[[1]]]".to_owned(), Some(true)),
        ("application/json", "[[[1]".to_owned(), Some(true)),
        ("application/json", "[[1]".to_owned(), Some(false)),
        ("multipart/form-data; boundary=B", format!("{}--B--", part.repeat(3)), None),
        ("multipart/form-data; boundary=B", format!("{}--B--", part.repeat(4)), Some(true)),
        ("multipart/form-data; boundary=B", large, Some(true)),
        ("text/xml", format!("{}{}", "<a>".repeat(256), "</a>".repeat(256)), None),
        ("text/xml", format!("{}{}", "<a>".repeat(257), "</a>".repeat(257)), Some(true)),
        ("text/xml", format!("<a>{}</a>", "<b/>".repeat(100_000)), Some(true)),
    ] {
        let (_, problem) = seen(&rules, media.as_bytes(), body.as_bytes());
        assert_eq!(problem.map(|problem| problem.limit), expected, "{media} {}", &body[..body.len().min(80)]);
    }
}

/// Keys are in the name of each value below them: a long one would be there as often as there are values.
#[test]
fn names_of_json_are_bounded_altogether() {
    let rules = rules("");
    let nested = |key: usize, values: usize| format!("{{\"{}\":[{}1]}}", "k".repeat(key), "1,".repeat(values));
    for (body, refused) in [(nested(20, 30_000), false), (nested(64 << 10, 32_000), true), (nested(1000, 50), false)] {
        let (transaction, problem) = seen(&rules, b"application/json", body.as_bytes());
        assert_eq!(problem.map(|problem| problem.limit), refused.then_some(true));
        assert!(transaction.store.bytes.len() < (64 << 10) + 40 * body.len());
    }
}

/// The worst bodies that came to mind take a few milliseconds, and seconds if a reader needs time by the square of the size.
#[test]
fn no_body_takes_long() {
    let rules = rules("");
    let boundary = format!("{}B", "A".repeat(60));
    let multipart = format!("multipart/form-data; boundary={boundary}");
    let part = format!("--{boundary}\r\nContent-Disposition: form-data; name=a\r\n");
    let mut bodies: Vec<(&str, String, String)> = Vec::new();
    for line in
        ["\n", "-", "--\n", "--A\n", "-- A\n", &format!("--{}\n", "A".repeat(60)), "--AAAA", "\r", " a\r\n", "a:\n"]
    {
        for before in [String::new(), part.clone(), format!("{part}\r\n")] {
            bodies.push((&multipart, before, line.to_owned()));
        }
    }
    bodies.push((
        "multipart/form-data; boundary=A",
        String::new(),
        "--A\nContent-Disposition:form-data;name=a\n\n\n".into(),
    ));
    for piece in ["[", "[],", "{},", "\"\",", "1,", "\\u0041", "\"", "1", " ", "\\"] {
        for before in ["[", "[\"", "{\"a\":"] {
            bodies.push(("application/json", before.into(), piece.into()));
        }
    }
    for piece in ["&", "=", "%", "+", "%41&", "a&"] {
        bodies.push(("application/x-www-form-urlencoded", String::new(), piece.into()));
    }
    for piece in [
        "<a>",
        "<a/>",
        "&lt;",
        "&",
        "\r",
        "]",
        "<!---->",
        "<!--",
        "<![CDATA[",
        "<?a?>",
        "<?",
        "<",
        "<a b=''/>",
        "a='' ",
    ] {
        for before in ["<a>", "<a b='", "<a "] {
            bodies.push(("text/xml", before.into(), piece.into()));
        }
    }
    for (media, before, piece) in &bodies {
        let body = [before.as_bytes(), &piece.as_bytes().repeat((128 << 10) / piece.len())].concat();
        let started = Instant::now();
        seen(&rules, media.as_bytes(), &body);
        assert!(started.elapsed() < Duration::from_secs(2), "{media} {before:?} {piece:?} {:?}", started.elapsed());
    }
}
