//! The record of a request as operators read it: one line of JSON.
//!
//! Its fields, in this order: `time`, `layer` (`lan`), `action` ([`Verdict::name`]), `reason` ([`Reason::name`]), `id`, `api`,
//! `source` and `source_port` (the client, as in the record of a packet) or `source`, `proxy` and `proxy_port`, `method`,
//! `host`, `path`, `version`, `tls`, `status`, `bytes_in`, `bytes_out`, `duration_us`, `upstream_us`, `generation`. What is
//! not known, empty, or a status of 0 is absent. Times are microseconds. The names are an interface: people write queries
//! against them. Where content rules looked at it, [`Content`] follows.
//!
//! A record holds no header but Host, and no query, but for what a content rule matched: of that, what may be secret is masked.

mod content;
mod secret;

use std::{net::IpAddr, sync::Arc, time::SystemTime};

pub use self::content::{Content, Matched};

use firewall_inspect::reason::Reason;

/// What became of a request, or of a connection that was refused before it had one.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    pub time: SystemTime,
    /// 16 hexadecimal digits, unique enough to find a request by.
    pub id: u64,
    pub api: Arc<str>,
    /// The client, IPv4 never mapped; behind a trusted proxy, the one it named.
    pub client: IpAddr,
    /// Of the peer: the client's, or where there is one, the proxy's.
    pub client_port: u16,
    /// The trusted proxy, where there is one.
    pub proxy: Option<IpAddr>,
    /// As sent, cut after 32 bytes. Empty if there was no request.
    pub method: Box<str>,
    pub host: Option<Box<str>>,
    /// The path in normal form, or as sent where it has none; cut after 1,024 bytes. Never the query: it may hold secrets.
    pub path: Box<str>,
    /// `HTTP/1.0`, `HTTP/1.1`, `HTTP/2`; `None` for a connection without a request.
    pub version: Option<&'static str>,
    /// `TLSv1.2`, `TLSv1.3`.
    pub tls: Option<&'static str>,
    pub verdict: Verdict,
    pub reason: Option<Reason>,
    /// The status that the client got; 0 if none.
    pub status: u16,
    /// Bytes of the bodies, as far as they came.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Microseconds: from the end of the head to the end of the answer, and of these, those until the upstream's head came.
    pub duration: u64,
    pub upstream: Option<u64>,
    /// Generation of the policy that judged.
    pub generation: u32,
    /// Where content rules looked at it.
    pub content: Option<Box<Content>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It went to the upstream, and its answer to the client.
    Pass,
    /// It was answered by us, or cut off.
    Refuse,
    /// It would have been refused, but the API is in monitor mode.
    Monitor,
    /// It passed, but the upstream failed.
    Fail,
}

impl Verdict {
    pub const ALL: [Self; 4] = [Self::Pass, Self::Refuse, Self::Monitor, Self::Fail];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Refuse => "refuse",
            Self::Monitor => "monitor",
            Self::Fail => "fail",
        }
    }
}

/// The start of what a client sent, as text of at most `limit` bytes: cut before a character rather than within it, and with
/// U+FFFD for each piece that is not UTF-8.
pub fn excerpt(bytes: &[u8], limit: usize) -> Box<str> {
    let start_of_next = |at: &usize| bytes[*at] & 0xc0 != 0x80;
    let end = if bytes.len() <= limit {
        bytes.len()
    } else {
        // No character has more than four bytes: without a start among them, it was none.
        (limit.saturating_sub(3)..=limit).rev().find(start_of_next).unwrap_or(limit)
    };
    let text = String::from_utf8_lossy(&bytes[..end]);
    // A replacement has up to three bytes for one.
    text[..text.floor_char_boundary(limit)].into()
}

impl RequestRecord {
    /// What a person reads first, e.g. `refuse: path-above-root, 203.0.113.7 GET shop.example/a, status 400`.
    pub fn summary(&self) -> String {
        let mut text = self.verdict.name().to_owned();
        if let Some(reason) = self.reason {
            text += &format!(": {}", reason.name());
        }
        text += &format!(", {}", self.client);
        if !self.method.is_empty() {
            text += &format!(" {} {}{}", self.method, self.host.as_deref().unwrap_or_default(), self.path);
        }
        if self.status != 0 {
            text += &format!(", status {}", self.status);
        }
        text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// A record with every field set but `proxy`.
    pub(crate) fn sample() -> RequestRecord {
        RequestRecord {
            time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_007),
            id: 255,
            api: "shop".into(),
            client: [203, 0, 113, 7].into(),
            client_port: 40000,
            proxy: None,
            method: "GET".into(),
            host: Some("shop.example".into()),
            path: "/a/../../b".into(),
            version: Some("HTTP/1.1"),
            tls: Some("TLSv1.3"),
            verdict: Verdict::Refuse,
            reason: Some(Reason::PathAboveRoot),
            status: 400,
            bytes_in: 0,
            bytes_out: 120,
            duration: 350,
            upstream: Some(0),
            generation: 3,
            content: None,
        }
    }

    #[test]
    fn summarises() {
        let expected = "refuse: path-above-root, 203.0.113.7 GET shop.example/a/../../b, status 400";
        assert_eq!(sample().summary(), expected);
        let bare = RequestRecord { method: "".into(), reason: None, status: 0, verdict: Verdict::Pass, ..sample() };
        assert_eq!(bare.summary(), "pass, 203.0.113.7");
        let hostile = RequestRecord { path: "/\n\u{9b}31m".into(), ..sample() };
        assert!(!hostile.summary().contains(char::is_control));
    }

    #[test]
    fn excerpts_end_between_characters() {
        for (bytes, limit, expected) in [
            (&b"abc"[..], 3, "abc"),
            (b"abcd", 3, "abc"),
            ("aéé".as_bytes(), 3, "aé"),
            ("aéé".as_bytes(), 4, "aé"),
            ("a\u{1f600}".as_bytes(), 4, "a"),
            (b"a\xffb", 9, "a\u{fffd}b"),
            (&[0x80; 9], 7, "\u{fffd}\u{fffd}"),
            (b"", 0, ""),
            (b"a", 0, ""),
        ] {
            assert_eq!(&*excerpt(bytes, limit), expected, "{bytes:?} {limit}");
        }
    }
}
