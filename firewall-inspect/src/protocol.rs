//! What an API lets be asked, in terms of HTTP alone.
//!
//! In: a [`Head`], and the name that the client asked for in TLS. Out: what goes upstream in its place, or why nothing does. Neither
//! bodies nor rules are looked at, and cheap questions come first.

use std::collections::HashSet;

use bytes::Bytes;

use crate::{
    fields::{Named, elements},
    framing::Framing,
    head::{Head, TargetForm, Version},
    path::normalise,
    reason::Reason,
};

/// As the operator wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// As they are sent, in upper case. CONNECT is refused even if it is here.
    pub methods: Vec<String>,
    /// Names in lower case, `*.example.com` for names below, without ports. Empty: every host.
    pub hosts: Vec<String>,
    /// Media types in lower case, without parameters, `type/*` for all of a type. Empty: every type.
    pub content_types: Vec<String>,
    /// Upgrade tokens in lower case. `h2c` is refused even if it is here.
    pub upgrades: Vec<String>,
    /// Allow `%2F`, `%5C` and backslashes in paths.
    pub encoded_slashes: bool,
    /// The longest body, in bytes.
    pub body: u64,
}

/// Compiled [`Rules`].
#[derive(Clone, Debug)]
pub struct Policy {
    methods: Vec<Box<[u8]>>,
    hosts: HashSet<Box<str>>,
    /// What hosts may end in, each with its first dot.
    suffixes: HashSet<Box<str>>,
    /// Types, or what they start with: `type/`.
    content_types: Vec<Box<[u8]>>,
    upgrades: Vec<Box<[u8]>>,
    encoded_slashes: bool,
    body: u64,
}

/// A request that goes on. Shares the head's memory where nothing had to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// In normal form, or `*`. Under monitoring, as sent if it has no normal form.
    pub path: Bytes,
    /// Path and query, as they go upstream.
    pub target: Bytes,
    /// The token of Upgrade, in lower case. HTTP/1.1 only.
    pub upgrade: Option<Bytes>,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// Under monitoring: the first reason why it would have been refused.
    pub monitored: Option<Reason>,
}

impl Policy {
    pub fn new(rules: &Rules) -> Self {
        let bytes = |list: &[String]| list.iter().map(|entry| entry.as_bytes().into()).collect();
        let (suffixes, hosts): (Vec<_>, Vec<_>) = rules.hosts.iter().partition(|host| host.starts_with("*."));
        Self {
            methods: bytes(&rules.methods),
            hosts: hosts.into_iter().map(|host| host.as_str().into()).collect(),
            suffixes: suffixes.into_iter().map(|host| host[1..].into()).collect(),
            content_types: rules
                .content_types
                .iter()
                .map(|kind| kind.trim_end_matches('*').as_bytes().into())
                .collect(),
            upgrades: bytes(&rules.upgrades),
            encoded_slashes: rules.encoded_slashes,
            body: rules.body,
        }
    }

    /// Judges a request. `server_name` is what the client asked for in TLS, if it did. With `monitor`, a reason that
    /// [may be monitored](Reason::may_monitor) is noted, and an upgrade or expectation that is not allowed goes away.
    ///
    /// # Errors
    ///
    /// Why the request is refused. [`Head::refusal`] is enforced in any case.
    pub fn judge(&self, head: &Head, server_name: Option<&str>, monitor: bool) -> Result<Judged, Reason> {
        if let Some(reason) = head.refusal {
            return Err(reason);
        }
        Named::in_request(head.values("connection"))?;
        let mut monitored = None;
        let mut refuse = |reason: Reason| {
            if !monitor || !reason.may_monitor() {
                return Err(reason);
            }
            monitored.get_or_insert(reason);
            Ok(())
        };
        if !self.methods.iter().any(|method| **method == *head.method()) {
            refuse(Reason::Method)?;
        }
        if !self.serves(head.host.as_deref(), server_name) {
            refuse(Reason::HostNotServed)?;
        }
        let path = match self.path(head) {
            Ok(path) => path,
            Err(reason) => {
                refuse(reason)?;
                head.shared(head.target.path)
            }
        };
        if !self.takes_content(head) {
            refuse(Reason::ContentType)?;
        }
        if matches!(head.framing, Framing::Length(length) if length > self.body) {
            refuse(Reason::BodyTooLarge)?;
        }
        let expect_continue = match expectation(head) {
            Ok(expects) => expects,
            Err(reason) => {
                refuse(reason)?;
                false
            }
        };
        let upgrade = match self.upgrade(head) {
            Ok(upgrade) => upgrade,
            Err(reason) => {
                refuse(reason)?;
                None
            }
        };
        Ok(Judged { target: target(head, &path), path, upgrade, expect_continue, monitored })
    }

    fn serves(&self, host: Option<&str>, server_name: Option<&str>) -> bool {
        let Some(host) = host else { return self.hosts.is_empty() && self.suffixes.is_empty() };
        let asked = server_name.map(|name| name.strip_suffix('.').unwrap_or(name));
        if asked.is_some_and(|name| !name.eq_ignore_ascii_case(host)) {
            return false;
        }
        if (self.hosts.is_empty() && self.suffixes.is_empty()) || self.hosts.contains(host) {
            return true;
        }
        !self.suffixes.is_empty()
            && host.match_indices('.').any(|(dot, _)| dot > 0 && self.suffixes.contains(&host[dot..]))
    }

    fn path(&self, head: &Head) -> Result<Bytes, Reason> {
        let target = &head.target;
        let star = target.form == TargetForm::Asterisk
            // RFC 9112 section 3.2.4.
            || (target.form == TargetForm::Absolute
                && head.method() == b"OPTIONS"
                && target.path.range().is_empty()
                && target.query.is_none());
        if star {
            return Ok(Bytes::from_static(b"*"));
        }
        let sent = head.bytes(target.path);
        let path = normalise(sent, self.encoded_slashes)?;
        Ok(if *path == *sent { head.shared(target.path) } else { Bytes::from(path.into_owned()) })
    }

    /// One type at most, and with a body one of those that are listed.
    fn takes_content(&self, head: &Head) -> bool {
        let mut sent = head.values("content-type");
        let kind = sent.next();
        if sent.next().is_some() {
            return false;
        }
        if head.framing == Framing::None || self.content_types.is_empty() {
            return true;
        }
        let kind = kind.unwrap_or_default();
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        self.content_types.iter().any(|taken| match taken.last() {
            Some(b'/') => kind.len() > taken.len() && kind[..taken.len()].eq_ignore_ascii_case(taken),
            _ => kind.eq_ignore_ascii_case(taken),
        })
    }

    /// Exactly one token, listed, asked for as RFC 9110 section 7.8 has it, with GET and without a body.
    fn upgrade(&self, head: &Head) -> Result<Option<Bytes>, Reason> {
        let mut tokens = head.values("upgrade").flat_map(elements);
        let Some(token) = tokens.next() else {
            return if head.values("upgrade").next().is_none() { Ok(None) } else { Err(Reason::Upgrade) };
        };
        let token = token.to_ascii_lowercase();
        let says = |option: &[u8]| {
            head.values("connection").flat_map(elements).any(|element| element.eq_ignore_ascii_case(option))
        };
        let proper = tokens.next().is_none()
            && says(b"upgrade")
            && !says(b"close")
            && head.version == Version::Http11
            && head.method() == b"GET"
            && head.framing == Framing::None
            && token != b"h2c"
            && self.upgrades.iter().any(|allowed| **allowed == *token)
            && (token != b"websocket" || opens_websocket(head));
        if proper { Ok(Some(token.into())) } else { Err(Reason::Upgrade) }
    }
}

/// One key of 16 bytes in base64, one version, 13 (RFC 6455 section 4.2.1).
fn opens_websocket(head: &Head) -> bool {
    let one = |name| {
        let mut values = head.values(name);
        values.next().filter(|_| values.next().is_none())
    };
    let key = one("sec-websocket-key").and_then(|key| key.strip_suffix(b"=="));
    key.is_some_and(|key| {
        key.len() == 22 && key.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    }) && one("sec-websocket-version") == Some(b"13")
}

/// HTTP/1.0 has no expectations to meet (RFC 9110 section 10.1.1), and without a body there is nothing to wait for.
fn expectation(head: &Head) -> Result<bool, Reason> {
    let mut expects = false;
    for value in head.values("expect") {
        if expects || !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Reason::Expectation);
        }
        expects = true;
    }
    Ok(expects && head.version != Version::Http10 && head.framing != Framing::None)
}

fn target(head: &Head, path: &Bytes) -> Bytes {
    match head.target.query {
        None => path.clone(),
        Some(_) if head.target.form == TargetForm::Origin && **path == *head.bytes(head.target.path) => {
            head.shared(head.raw_target)
        }
        Some(query) => [path, &b"?"[..], head.bytes(query)].concat().into(),
    }
}

#[cfg(test)]
mod tests;
