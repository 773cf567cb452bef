//! The elements of `Forwarded` and `X-Forwarded-For`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::class::TOKEN;

/// One hop, as the proxy that it reached tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// `None` for a hop without an address: `unknown`, `_hidden`, or garbage.
    pub(super) address: Option<IpAddr>,
    pub(super) https: Option<bool>,
}

/// Appends the elements of one `Forwarded` value. `None` if it is malformed (RFC 7239 section 4) anywhere, since with quotes there is
/// no telling from the right.
pub(super) fn elements(value: &[u8], into: &mut Vec<Element>) -> Option<()> {
    let mut rest = value;
    loop {
        let (mut element, mut has_for, mut has_proto) = (Element::default(), false, false);
        loop {
            let (name, value, tail) = pair(rest.trim_ascii_start())?;
            rest = tail.trim_ascii_start();
            if name.eq_ignore_ascii_case(b"for") {
                if has_for {
                    return None;
                }
                has_for = true;
                element.address = address(&value);
            } else if name.eq_ignore_ascii_case(b"proto") {
                if has_proto {
                    return None;
                }
                has_proto = true;
                element.https = is_https(&value);
            }
            match rest.split_first() {
                Some((b';', tail)) => rest = tail,
                _ => break,
            }
        }
        into.push(element);
        match rest.split_first() {
            Some((b',', tail)) => rest = tail,
            Some(_) => return None,
            None => return Some(()),
        }
    }
}

/// `token = token | quoted-string`, and what follows.
fn pair(text: &[u8]) -> Option<(&[u8], Vec<u8>, &[u8])> {
    let (name, text) = token(text)?;
    let text = text.strip_prefix(b"=")?;
    let Some(mut text) = text.strip_prefix(b"\"") else {
        let (value, text) = token(text)?;
        return Some((name, value.to_vec(), text));
    };
    let mut value = Vec::new();
    loop {
        match text {
            [b'"', tail @ ..] => return Some((name, value, tail)),
            [b'\\'] | [] => return None,
            [b'\\', byte, tail @ ..] | [byte, tail @ ..] => {
                value.push(*byte);
                text = tail;
            }
        }
    }
}

fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = text.iter().position(|byte| !TOKEN.has(*byte)).unwrap_or(text.len());
    (length > 0).then(|| text.split_at(length))
}

/// An address, with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`. IPv4 is not
/// mapped in the answer.
pub(super) fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let (address, rest) = if let Some(text) = text.strip_prefix('[') {
        let (address, rest) = text.split_once(']')?;
        (IpAddr::V6(address.parse::<Ipv6Addr>().ok()?), rest)
    } else if let Ok(address) = text.parse::<Ipv6Addr>() {
        (IpAddr::V6(address), "")
    } else {
        let end = text.find(':').unwrap_or(text.len());
        (IpAddr::V4(text[..end].parse::<Ipv4Addr>().ok()?), &text[end..])
    };
    let port = rest.strip_prefix(':').map(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    if port == Some(false) || (port.is_none() && !rest.is_empty()) {
        return None;
    }
    Some(address.to_canonical())
}

pub(super) fn is_https(scheme: &[u8]) -> Option<bool> {
    let is = |name: &[u8]| scheme.eq_ignore_ascii_case(name);
    if is(b"https") || is(b"wss") {
        Some(true)
    } else if is(b"http") || is(b"ws") {
        Some(false)
    } else {
        None
    }
}
