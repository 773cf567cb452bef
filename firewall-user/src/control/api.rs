//! What the agent says over its control socket: the shapes behind `--json`, `status` and the metrics.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

/// What the agent does for those who ask over the control socket. Calls are quick or run on a blocking thread.
pub trait Agent: Send + Sync + 'static {
    fn status(&self) -> Status;
    /// Compiles the configuration anew and swaps it in; the reports of what is wrong with it otherwise.
    fn reload(&self) -> Result<Reloaded, Refusal>;
    fn ban(&self, request: BanRequest) -> Result<Ban, Refusal>;
    /// Lifts the ban of exactly this prefix.
    fn unban(&self, prefix: ipnet::IpNet) -> Result<Ban, Refusal>;
    fn bans(&self) -> Result<Vec<Ban>, Refusal>;
    /// Lists, or where `lookup` is set, what each says of that address.
    fn lists(&self, lookup: Option<IpAddr>) -> Result<Vec<List>, Refusal>;
    /// The content rules of all APIs.
    fn rules(&self) -> Result<Vec<ContentRule>, Refusal>;
    /// Keeps a policy that was started with `--confirm`.
    fn confirm(&self) -> Result<(), Refusal>;
}

/// Why a request was not carried out, for a person to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    pub generation: u32,
    /// Nothing had changed: the policy in force stays, counters and all.
    pub unchanged: bool,
    pub milliseconds: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanRequest {
    /// An address is a prefix of full length. IPv6 addresses are banned as given, not by /64.
    pub prefix: ipnet::IpNet,
    /// How long.
    pub seconds: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ban {
    pub prefix: ipnet::IpNet,
    /// Who set it: `operator`, `dmz` or `lan`.
    pub layer: String,
    /// `operator`, `rate` or `reputation`.
    pub origin: String,
    /// The rate rule that set it.
    pub rule: Option<String>,
    /// RFC 3339, UTC.
    pub since: String,
    pub until: String,
    pub remaining_seconds: u64,
    /// Packets dropped by it.
    pub packets: u64,
    /// Of a ban for a spent reputation, unless it is forgotten.
    pub cause: Option<Cause>,
}

/// Why the LAN layer asked for a ban.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// Whose request made it too much.
    pub api: String,
    /// Of the last refusal.
    pub reason: String,
    pub score: u32,
    /// Bans of this client within a day, this one included.
    pub offences: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct List {
    pub name: String,
    /// `allow` or `block`.
    pub action: String,
    /// `enforce` or `monitor`.
    pub mode: String,
    pub prefixes: u64,
    /// Packets it condemned or, for an allow list, let through.
    pub packets: u64,
    pub bytes: u64,
    /// With a lookup: the longest prefix of this list that holds the address.
    pub matched: Option<ipnet::IpNet>,
}

/// A content rule of an API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRule {
    pub api: String,
    /// 0: it has none.
    pub id: u32,
    /// 1 to 5.
    pub phase: u8,
    /// As `CRITICAL`.
    pub severity: Option<String>,
    pub message: String,
    pub tags: Vec<String>,
    pub file: String,
    pub line: u32,
}

#[cfg(test)]
impl ContentRule {
    pub(crate) fn sample() -> Self {
        Self {
            api: "shop".to_owned(),
            id: 942_100,
            phase: 2,
            severity: Some("CRITICAL".to_owned()),
            message: "SQL injection".to_owned(),
            tags: vec!["attack-sqli".to_owned()],
            file: "rules/a.conf".to_owned(),
            line: 7,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    /// Seconds since this agent started.
    pub uptime_seconds: u64,
    pub config: String,
    pub generation: u32,
    /// `enforce` or `monitor`.
    pub mode: String,
    /// Seconds left to confirm, while a start with `--confirm` is not confirmed.
    pub confirm_within_seconds: Option<u64>,
    pub interfaces: Vec<Interface>,
    pub packets: Packets,
    pub reasons: Vec<Reason>,
    pub rules: Vec<Rule>,
    pub tables: Vec<Table>,
    /// What the LAN layer protects.
    pub apis: Vec<ApiStatus>,
    /// Bans that the LAN layer asked for, by what became of them: `set`, `kept` (a longer ban was there), `protected`,
    /// `monitored`, `failed` (the table is full), `overflow` (too many at once).
    pub sentences: BTreeMap<String, u64>,
    pub events: EventCounts,
    pub reloads: Reloads,
    /// What an operator should know: the policy could be better, or protection is not complete.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    /// `native`, `generic`, or `absent` while there is no such interface.
    pub mode: String,
    /// Whether our program is the one attached, asked of the kernel just now.
    pub attached: bool,
    /// Whether the egress program that tracks flows is attached. `false` where the policy needs none.
    pub egress: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

/// Counters since the pinned maps were made, by [`firewall_common::counter::Tally`] name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Packets {
    pub passed: Count,
    pub dropped: Count,
    /// Verdicts that monitor mode kept from dropping.
    pub monitored: Count,
    /// Every other tally, by name (`non-ip`, `allowed`, `reply`, `ban-full`, …).
    pub tallies: BTreeMap<String, Count>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// [`firewall_common::verdict::DropReason::name`].
    pub reason: String,
    pub dropped: Count,
    pub monitored: Count,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// `list`, `rate` or `size`.
    pub kind: String,
    pub name: String,
    pub mode: String,
    pub matched: Count,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// `bans`, `lists-v4`, `lists-v6`, `rules`.
    pub name: String,
    pub entries: u64,
    /// 0: made to fit with every policy, so it is never full.
    pub capacity: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCounts {
    /// Written to every configured sink.
    pub delivered: u64,
    /// Merged into another event by the kernel's sampler; their packets are in its `count` or in the counters.
    pub sampled: u64,
    /// Lost in the kernel: the ring buffer was full.
    pub lost_kernel: u64,
    /// Lost in the agent: a sink failed or was too slow.
    pub lost_sink: u64,
}

/// An API of the LAN layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiStatus {
    pub name: String,
    /// `enforce` or `monitor`.
    pub mode: String,
    /// How connections arrive, and where requests go, to read: `8080 steered`, `0.0.0.0:443 → http://10.0.0.2:80`.
    pub entry: String,
    /// Clients speak TLS with us.
    pub tls: bool,
    /// Whether requests go through the gateway, as far as can be told.
    pub protected: bool,
    /// Why they do not, or may not.
    pub problem: Option<String>,
    /// Content rules that are loaded, and what is done with what they say: `enforce`, `detect` or `off`.
    pub rules: u64,
    pub rules_engine: Option<String>,
    /// Of a steered API.
    pub steering: Option<Steering>,
    #[serde(flatten)]
    pub traffic: ApiTraffic,
}

/// Connections to steered ports, counted by the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steering {
    /// Handed to the gateway.
    pub steered: u64,
    /// Of this host's own, and left alone.
    pub exempt: u64,
    /// While the gateway was gone: left to the application, or refused.
    pub gone_open: u64,
    pub gone_closed: u64,
    /// What a connection of the agent's own found out, to read.
    pub probe: String,
}

/// What the gateway counted of an API since it is known by this name. Maps are by [`firewall_inspect::reason::Reason::name`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiTraffic {
    pub connections: Connections,
    pub requests: Requests,
    /// Requests and connections with a reason against them, whatever became of them.
    pub reasons: BTreeMap<String, u64>,
    pub upstream_errors: BTreeMap<String, u64>,
    pub handshakes: Handshakes,
    pub tunnels: Tunnels,
    /// From the end of a request's head to the end of its answer.
    pub duration: Latency,
    /// The same without the wait for the head of the upstream's answer.
    pub gateway_duration: Latency,
    /// Requests by all they are told apart by.
    pub counts: Vec<RequestCount>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    pub open: u64,
    pub accepted: u64,
    /// Closed before they had a request.
    pub refused: BTreeMap<String, u64>,
    /// Cut off by us later.
    pub cut: BTreeMap<String, u64>,
    /// Older than the agent, and therefore reset.
    pub reset: u64,
}

/// By verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    pub passed: u64,
    pub refused: u64,
    /// Passed, but only because the API is in monitor mode.
    pub monitored: u64,
    /// Passed, but the upstream failed.
    pub failed: u64,
}

/// Of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshakes {
    pub succeeded: u64,
    pub failed: u64,
}

/// Connections that changed to another protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnels {
    pub open: u64,
    pub total: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Requests for each of [`crate::gateway::metrics::BOUNDS`], not cumulative, and those above the last.
    pub buckets: Vec<u64>,
    /// Microseconds.
    pub sum_us: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCount {
    /// `other` for those that are not well known.
    pub method: String,
    /// `1xx` to `5xx`; `none` without an answer.
    pub status: String,
    /// `pass`, `refuse`, `monitor` or `fail`.
    pub verdict: String,
    pub reason: Option<String>,
    pub count: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reloads {
    pub succeeded: u64,
    pub failed: u64,
    /// RFC 3339, UTC.
    pub last: Option<String>,
    /// Why the last one failed: the whole report, place and cause. Gone once one succeeds.
    pub last_error: Option<String>,
}

/// Seconds, rounded up, so that a ban that has begun its last second does not show as over.
pub fn ceil_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
