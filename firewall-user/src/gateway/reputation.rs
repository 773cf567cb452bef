//! What clients earn: refusals weigh on a client, good requests make up for some, and who has too much is banned.
//!
//! In: how requests ended. Out: sentences for the kernel, or for a client behind a trusted proxy, whose packets are the
//! proxy's, a ban in here. Scores are `firewall-inspect`'s.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use firewall_inspect::{
    reason::Reason,
    reputation::{self, Scores},
};
use ipnet::IpNet;

use super::{policy::ApiPolicy, worker::Worker};
use crate::{
    agent::condemn::{Condemner, Sentence},
    config::{self, Mode},
    events::request::Verdict,
};

/// Clients behind proxies that are banned at once, at most; those that do not fit are refused for what they send only.
const BANNED: usize = 1 << 16;
/// How long a client that was banned may still read the answer that told it so.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// How a request ended.
pub(super) struct Conduct<'c> {
    pub(super) worker: &'c Worker,
    pub(super) policy: &'c ApiPolicy,
    pub(super) client: IpAddr,
    /// The client is our peer, not behind a proxy.
    pub(super) direct: bool,
    pub(super) verdict: Verdict,
    pub(super) reason: Option<Reason>,
    pub(super) cross_site: bool,
}

pub(super) struct Reputation {
    config: ArcSwap<config::api::Reputation>,
    scores: Mutex<Scores>,
    /// Clients behind proxies, and until when.
    banned: Mutex<HashMap<IpAddr, Instant>>,
    condemner: Condemner,
    began: Instant,
}
