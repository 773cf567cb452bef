//! `[[api]]`, `[gateway]` and `[reputation]`: what the LAN layer protects, and how.
//!
//! Files of certificates and keys are named here, and read by [`crate::gateway::tls`].

mod clash;
mod lower;
mod protocol;
mod rules;
mod settings;
mod words;

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::Mode;
pub(super) use lower::lower;
pub use rules::RuleSet;
pub(super) use settings::{gateway, reputation};

/// An API behind the gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    /// As [`super::List::name`]; unique among APIs.
    pub name: Arc<str>,
    pub mode: Mode,
    pub entry: Entry,
    /// TLS towards clients; without it the API is served in the clear.
    pub tls: Option<Tls>,
    /// The HTTP version spoken to the upstream.
    pub upstream_http: UpstreamHttp,
    /// How many clients learn of: see [`Forward`].
    pub forward: Forward,
    /// Peers whose word about the client counts.
    pub trusted_proxies: Vec<IpNet>,
    pub protocol: Protocol,
    /// Content rules.
    pub rules: Option<RuleSet>,
    pub limits: Limits,
    pub timeouts: Timeouts,
}

/// How connections arrive, and where requests go.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// The kernel hands over connections to these ports; requests go to where the client wanted to go.
    Steered(Steered),
    /// The agent listens itself. No two addresses of all APIs overlap, which counts on `[::]` taking IPv6 alone; none is
    /// IPv4 in IPv6 notation. `listen` is not empty.
    Proxy { listen: Vec<SocketAddr>, upstream: Upstream },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Steered {
    /// Not empty, no duplicates; no other API of the same network namespace has one of them.
    pub ports: Vec<u16>,
    /// Absolute path of the network namespace; the agent's own without it.
    pub netns: Option<PathBuf>,
    pub on_agent_exit: OnExit,
    pub existing: Existing,
    /// Take over clients on this host, too.
    pub local_clients: bool,
    /// The application itself speaks TLS.
    pub upstream_tls: Option<UpstreamTls>,
}

/// What the kernel does with new connections while there is no agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    /// The application answers, unprotected.
    Open,
    /// Nobody answers.
    Closed,
}

/// What becomes of connections that were there before the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Reset,
    Keep,
}

/// Where a reverse proxy sends requests: `http://host[:port]` or `https://host[:port]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// A name in lower case or an address, without brackets.
    pub host: String,
    pub port: u16,
    pub tls: Option<UpstreamTls>,
}

/// How the upstream's certificate is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// PEM file of authorities; the system's without it.
    pub ca: Option<PathBuf>,
    /// The name in lower case, or the address without brackets, that its certificate must have; the host of the URL, or of the request if steered, without it.
    pub server_name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamHttp {
    /// HTTP/2 for gRPC, for clients that came by prior knowledge, and where an upstream's TLS offers it; else HTTP/1.1.
    Auto,
    Http1,
    Http2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// `Forwarded` (RFC 7239), `X-Forwarded-For` and `X-Forwarded-Proto`.
    Headers,
    /// The same, and PROXY protocol version 2 at the start of each upstream connection, which then serves one client only.
    ProxyV2,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Not empty. The first answers clients that ask for no name, or for one that none has.
    pub certificates: Vec<Certificate>,
    pub min_version: TlsVersion,
    pub client_certificates: Option<ClientCertificates>,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Certificate {
    /// The certificate itself first, then its issuers.
    pub chain: PathBuf,
    pub key: PathBuf,
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chain.display().fmt(f)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    V12,
    V13,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// PEM file of authorities.
    pub ca: PathBuf,
    /// Without one there is no handshake.
    pub required: bool,
}

/// What may be asked, in terms of HTTP alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// In upper case as they are sent; `GET`, `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE`, `OPTIONS` by default.
    pub methods: Vec<String>,
    /// Names in lower case, `*.example.com` for names below, without ports; IPv6 addresses in brackets, in their canonical
    /// form. Empty: every host.
    pub hosts: Vec<String>,
    /// Media types in lower case, without parameters, `type/*` for all of a type. Empty: every type.
    pub content_types: Vec<String>,
    /// Upgrade tokens in lower case; `websocket` by default.
    pub upgrades: Vec<String>,
    /// Allow `%2F`, `%5C` and backslashes in paths.
    pub encoded_slashes: bool,
}

/// Inclusive, in bytes or pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub request_line: u32,
    /// All header lines together.
    pub headers: u32,
    pub header_count: u32,
    pub body: u64,
    /// All trailer lines together.
    pub trailers: u32,
    /// Requests of one HTTP/2 connection at once.
    pub streams: u32,
    /// Connections of one client address (of a /64 with IPv6). Trusted proxies have no such limit.
    pub connections_per_client: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a head to its last; for TLS, the handshake as well.
    pub head: Duration,
    /// The body: this long, and a second more for each 500 bytes that came.
    pub body: Duration,
    /// A connection without a request, and the longest a client may take none of an answer.
    pub idle: Duration,
    /// To connect to the upstream.
    pub connect: Duration,
    /// From the end of the request to the head of the upstream's answer, and between two parts of it. Event streams, gRPC and tunnels
    /// are exempt from the latter.
    pub upstream: Duration,
}

/// `[gateway]`: the LAN layer as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Threads; the number of CPUs by default. Takes effect with the next start.
    pub workers: u32,
    /// Connections of all clients together.
    pub connections: u32,
    /// How long connections may go on after SIGTERM.
    pub drain: Duration,
}

/// `[reputation]`: when a client that was refused is banned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reputation {
    pub mode: Mode,
    /// A refusal for what no honest client sends weighs 20, for other faults of a client 5; a good request takes 1 away.
    pub threshold: u32,
    /// After so long, half of a score is forgotten.
    pub half_life: Duration,
    /// The first ban; each further one within a day is twice as long.
    pub ban: Duration,
    pub max_ban: Duration,
}
