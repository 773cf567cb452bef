//! What the agent says over its control socket: the shapes behind `--json`, `status` and the metrics.

use std::{net::IpAddr, time::Duration};

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
    /// `operator` or `rate`.
    pub origin: String,
    /// The rate rule that set it.
    pub rule: Option<String>,
    /// RFC 3339, UTC.
    pub since: String,
    pub until: String,
    pub remaining_seconds: u64,
    /// Packets dropped by it.
    pub packets: u64,
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
    pub tallies: std::collections::BTreeMap<String, Count>,
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
