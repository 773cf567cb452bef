//! The record of a request as operators read it: one line of JSON.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

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
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Refuse => "refuse",
            Self::Monitor => "monitor",
            Self::Fail => "fail",
        }
    }
}
