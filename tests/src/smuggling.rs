//! Requests on which two readers might disagree, and what must become of each.
//!
//! A case is bytes for one connection. Out of the gateway comes, in order, what it lists as forwarded, and then nothing or a
//! refusal. Nothing else may reach the upstream; above all nothing for `/smuggled`, which is only ever hidden in something
//! else. What does reach it must have the one form that [`crate::http::message`] takes.

mod chunks;
mod framing;
mod kept;
mod lines;
pub mod streams;
mod targets;

/// One connection.
#[derive(Clone, Debug)]
pub struct Case {
    pub what: &'static str,
    pub bytes: Vec<u8>,
    /// What the upstream must receive, in order.
    pub forwarded: Vec<Sent>,
    /// Reasons of which one refuses what comes next; a final `*` stands for any end. Empty: nothing is refused.
    pub refused: &'static [&'static str],
    /// What may be forwarded in place of the refusal.
    pub instead: Option<Sent>,
    /// The refusal comes within a body, whose beginning may be on its way already.
    pub cut: bool,
}

/// A request as it must arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub method: &'static str,
    pub target: &'static str,
    pub body: &'static [u8],
}

impl Sent {
    pub fn is(&self, message: &crate::http::message::Message) -> bool {
        self.method == message.method && self.target == message.target && self.body == message.body
    }
}

impl Case {
    fn new(what: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { what, bytes: bytes.into(), forwarded: Vec::new(), refused: &[], instead: None, cut: false }
    }

    fn sends(mut self, method: &'static str, target: &'static str, body: &'static str) -> Self {
        self.forwarded.push(Sent { method, target, body: body.as_bytes() });
        self
    }

    fn refused(mut self, reasons: &'static [&'static str]) -> Self {
        self.refused = reasons;
        self
    }

    fn or_sends(mut self, method: &'static str, target: &'static str, body: &'static str) -> Self {
        self.instead = Some(Sent { method, target, body: body.as_bytes() });
        self
    }

    fn cut(mut self) -> Self {
        self.cut = true;
        self
    }
}

/// The whole corpus.
pub fn cases() -> Vec<Case> {
    [framing::cases(), chunks::cases(), lines::cases(), targets::cases(), kept::cases()].concat()
}

/// The request that must never arrive, where only a second reader would see it.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n";

/// A GET with more header lines, each with its CRLF.
fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: api.test\r\n{fields}\r\n")
}

/// A POST to `/x` with these header lines and this body.
fn post(fields: &str, body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: api.test\r\n{fields}\r\n{body}")
}

/// A POST to `/x` in chunks.
fn chunked(chunks: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", chunks)
}

/// Whether a reason of a case stands for this name.
pub fn matches(wanted: &str, name: &str) -> bool {
    wanted.strip_suffix('*').map_or(wanted == name, |start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use firewall_inspect::reason::Reason;

    use super::*;

    #[test]
    fn cases_are_many_and_make_sense() {
        let cases = cases();
        assert!(cases.len() >= 100, "{}", cases.len());
        for case in &cases {
            let twins = cases.iter().filter(|other| other.what == case.what || other.bytes == case.bytes).count();
            assert_eq!(twins, 1, "{}", case.what);
            assert!(!case.refused.is_empty() || !case.forwarded.is_empty(), "{} expects nothing", case.what);
            assert!(!case.refused.is_empty() || case.instead.is_none(), "{}", case.what);
            assert!(case.forwarded.iter().all(|sent| !sent.target.contains("smuggled")), "{}", case.what);
            for reason in case.refused {
                let known = Reason::ALL.iter().any(|known| matches(reason, known.name()));
                assert!(known, "{}: no reason {reason}", case.what);
            }
        }
    }
}
