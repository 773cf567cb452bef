//! The record of a ban that the LAN layer asked for, as operators read it: one line of JSON.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use firewall_inspect::reason::Reason;
use ipnet::IpNet;

/// A client whose reputation was spent. The JSON: `time`, `layer` (`lan`), `action`, `reason` (`reputation`), `api`,
/// `source`, `prefix`, `last_reason`, `score`, `offences`, `ban_seconds`.
#[derive(Clone, Debug)]
pub struct BanRecord {
    pub time: SystemTime,
    pub outcome: BanOutcome,
    /// The one whose requests made it too much.
    pub api: Arc<str>,
    /// The client, IPv4 never mapped.
    pub source: IpAddr,
    /// What is banned with it.
    pub prefix: IpNet,
    /// Of the last refusal.
    pub cause: Reason,
    pub score: u32,
    /// Bans of this client within a day, this one included.
    pub offences: u32,
    pub lasts: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BanOutcome {
    Ban,
    /// It would have been banned, but the layer is in monitor mode.
    Monitor,
    /// The kernel's table has no room, or would not take it.
    Fail,
}

impl BanOutcome {
    /// The name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ban => "ban",
            Self::Monitor => "monitor",
            Self::Fail => "fail",
        }
    }
}

impl BanRecord {
    /// What a person reads first, e.g. `ban: reputation, 203.0.113.7 for 600 s, score 104 at shop`.
    pub fn summary(&self) -> String {
        let (action, seconds) = (self.outcome.name(), self.lasts.as_secs());
        format!("{action}: reputation, {} for {seconds} s, score {} at {}", self.source, self.score, self.api)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    pub(crate) fn sample() -> BanRecord {
        BanRecord {
            time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_007),
            outcome: BanOutcome::Ban,
            api: "shop".into(),
            source: [203, 0, 113, 7].into(),
            prefix: "203.0.113.7/32".parse().unwrap(),
            cause: Reason::PathAboveRoot,
            score: 104,
            offences: 2,
            lasts: Duration::from_secs(600),
        }
    }

    #[test]
    fn summarises() {
        assert_eq!(sample().summary(), "ban: reputation, 203.0.113.7 for 600 s, score 104 at shop");
    }
}
