//! What may be asked of an API in terms of HTTP alone: methods, hosts, media types, upgrades.

use super::{
    Protocol,
    lower::distinct,
    words::{host_pattern, is_token},
};
use crate::config::{
    raw::Table,
    report::{Invalid, quoted},
};

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

pub(super) fn lower(table: &Table<'_>) -> Protocol {
    Protocol {
        methods: words(table, "methods", method, Some("leave it out for the usual ones"))
            .unwrap_or_else(|| METHODS.iter().map(ToString::to_string).collect()),
        hosts: words(table, "hosts", host_pattern, Some("leave it out for every host")).unwrap_or_default(),
        content_types: words(table, "content_types", content_type, Some("leave it out for every type"))
            .unwrap_or_default(),
        upgrades: words(table, "upgrades", upgrade, None).unwrap_or_else(|| vec!["websocket".to_owned()]),
        encoded_slashes: table.switch("encoded_slashes", false),
    }
}

/// The words of an array, each once; `None` if it is not there. With a help, it must not be empty.
fn words(
    table: &Table<'_>,
    key: &'static str,
    parse: fn(&str) -> Result<String, Invalid>,
    not_empty: Option<&str>,
) -> Option<Vec<String>> {
    let value = table.get(key)?;
    let items = value.clone().items()?;
    if let (true, Some(help)) = (items.is_empty(), not_empty) {
        value.problem(format!("`{key}` is empty: nothing could be asked"), help.to_owned());
    }
    Some(distinct(items, |item| item.parsed(parse)).into_iter().map(|(word, _)| word).collect())
}

/// As it is sent: methods are told apart by case (RFC 9110 section 9.1).
fn method(text: &str) -> Result<String, Invalid> {
    let wrong = |message: &str| Invalid::new(format!("{} {message}", quoted(text)));
    if !is_token(text) || text.len() > 32 {
        return Err(wrong("is no method").help("1 to 32 letters, digits and `-`, such as `GET` or `M-SEARCH`"));
    }
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(wrong("has small letters").help(format!("write `{}`", text.to_ascii_uppercase())));
    }
    if text == "CONNECT" {
        return Err(wrong("is for forward proxies").help("WebSocket over HTTP/2 needs `upgrades` alone"));
    }
    Ok(text.to_owned())
}

/// A media type without parameters (RFC 9110 section 8.3.1), or `type/*`.
fn content_type(text: &str) -> Result<String, Invalid> {
    let wrong = |message: &str| Invalid::new(format!("{} {message}", quoted(text)));
    if text.contains(';') {
        let plain = text.split(';').next().unwrap_or_default().trim();
        return Err(wrong("has parameters").help(format!("any are allowed with {}", quoted(plain))));
    }
    match text.split_once('/') {
        Some(("*", _)) => Err(wrong("is every type").help("leave `content_types` out for every type")),
        Some((kind, "*")) if is_token(kind) => Ok(text.to_ascii_lowercase()),
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) && !text.contains('*') => {
            Ok(text.to_ascii_lowercase())
        }
        _ => Err(wrong("is no media type").help("`application/json`, or `text/*` for all of a type")),
    }
}

/// A protocol to upgrade to (RFC 9110 section 7.8); not one in which requests would go on unseen.
fn upgrade(text: &str) -> Result<String, Invalid> {
    let wrong = |message: &str| Invalid::new(format!("{} {message}", quoted(text)));
    let word = text.to_ascii_lowercase();
    let (name, version) = word.split_once('/').map_or((&*word, None), |(name, version)| (name, Some(version)));
    if !is_token(name) || version.is_some_and(|version| !is_token(version)) {
        return Err(wrong("is no protocol to upgrade to").help("such as `websocket`"));
    }
    if matches!(name, "h2c" | "h2" | "http" | "tls") {
        let help = "requests in it would pass unseen; HTTP/2 needs no upgrade, and is always spoken";
        return Err(wrong("is not allowed").help(help));
    }
    Ok(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(method("M-SEARCH"), Ok("M-SEARCH".to_owned()));
        assert_eq!(content_type("Application/Problem+JSON"), Ok("application/problem+json".to_owned()));
        assert_eq!(content_type("text/*"), Ok("text/*".to_owned()));
        assert_eq!(upgrade("WebSocket"), Ok("websocket".to_owned()));
        assert_eq!(upgrade("irc/6.9"), Ok("irc/6.9".to_owned()));
    }

    #[test]
    fn wrong_words() {
        type Parse = fn(&str) -> Result<String, Invalid>;
        for (parse, text, message, help) in [
            (method as Parse, "", "is no method", "`GET`"),
            (method, "GE T", "is no method", "`GET`"),
            (method, "GÉT", "is no method", "`GET`"),
            (method, "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", "is no method", "32"),
            (method, "get", "has small letters", "write `GET`"),
            (method, "CONNECT", "is for forward proxies", "`upgrades`"),
            (content_type, "", "is no media type", "`text/*`"),
            (content_type, "json", "is no media type", "`application/json`"),
            (content_type, "text/", "is no media type", ""),
            (content_type, "/json", "is no media type", ""),
            (content_type, "text/*+xml", "is no media type", ""),
            (content_type, "a/b/c", "is no media type", ""),
            (content_type, "*/*", "is every type", "leave"),
            (content_type, "text/html; charset=utf-8", "has parameters", "`text/html`"),
            (upgrade, "", "is no protocol", "`websocket`"),
            (upgrade, "a b", "is no protocol", ""),
            (upgrade, "irc/", "is no protocol", ""),
            (upgrade, "H2C", "is not allowed", "unseen"),
            (upgrade, "h2", "is not allowed", "unseen"),
            (upgrade, "TLS/1.0", "is not allowed", "unseen"),
            (upgrade, "HTTP/2.0", "is not allowed", "unseen"),
        ] {
            let invalid = parse(text).unwrap_err();
            assert!(invalid.message.contains(message), "{text}: {invalid}");
            assert!(invalid.help.as_ref().unwrap().contains(help), "{text}: {invalid}");
        }
    }
}
