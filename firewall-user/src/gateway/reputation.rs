//! What clients earn: refusals weigh on a client, good requests make up for some, and who has too much is banned.
//!
//! In: how requests ended. Out: sentences for the kernel, or for a client behind a trusted proxy, whose packets are the
//! proxy's, a ban in here. Scores are `firewall-inspect`'s.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use firewall_inspect::{
    reason::Reason,
    reputation::{self, Scores, Settings},
};
use ipnet::IpNet;

use super::{policy::ApiPolicy, worker::Worker};
use crate::{
    agent::condemn::{Condemner, Sentence},
    config::{self, Mode},
    events::{BanOutcome, BanRecord, request::Verdict},
};

/// Clients that are scored at once: 5 MB.
const SCORED: usize = 1 << 16;
/// Clients behind proxies that are banned at once, at most; those that do not fit are refused for what they send only.
const BANNED: usize = 1 << 16;
/// How long a client that was banned may still read the answer that told it so, before its connections end.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// How a request, or a connection, ended.
pub(super) struct Conduct {
    pub(super) client: IpAddr,
    /// The client is our peer, not behind a proxy.
    pub(super) direct: bool,
    pub(super) verdict: Verdict,
    pub(super) reason: Option<Reason>,
    /// Of the refusal.
    pub(super) weight: u32,
}

/// The scores of all clients, and the bans that are carried out here.
pub struct Reputation {
    config: ArcSwap<config::api::Reputation>,
    scores: Scores,
    /// There may be scores; a good request need not look for its client's if there are none.
    scored: AtomicBool,
    /// Clients behind proxies, and until when.
    banned: Mutex<HashMap<IpNet, Instant>>,
    condemner: Condemner,
    began: Instant,
}

impl Reputation {
    pub(super) fn new(config: config::api::Reputation, condemner: &Condemner) -> Self {
        Self {
            config: ArcSwap::from_pointee(config),
            scores: Scores::new(SCORED),
            scored: AtomicBool::new(false),
            banned: Mutex::default(),
            condemner: condemner.clone(),
            began: Instant::now(),
        }
    }

    pub(super) fn configure(&self, config: config::api::Reputation) {
        self.config.store(Arc::new(config));
    }

    /// Who counts as one client: an IPv4 address, a /64 of IPv6; where a ban must not hit neighbours, an address of IPv6.
    pub(super) fn key(&self, client: IpAddr) -> IpNet {
        self.condemner.prefix(client)
    }

    fn banned(&self) -> MutexGuard<'_, HashMap<IpNet, Instant>> {
        self.banned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a client behind a proxy is banned. One that is our peer is the kernel's to drop.
    pub(super) fn refuses(&self, client: IpAddr) -> bool {
        let banned = self.banned();
        !banned.is_empty() && banned.get(&self.key(client)).is_some_and(|until| Instant::now() < *until)
    }

    /// Weighs how something ended.
    pub(super) fn judge(&self, worker: &Worker, policy: &ApiPolicy, conduct: &Conduct) {
        let now = self.began.elapsed();
        let config = self.config.load();
        let settings = settings(&config);
        match (conduct.verdict, conduct.reason) {
            // Most of the time there are no scores.
            (Verdict::Pass, None) if self.scored.load(Ordering::Relaxed) => {
                self.scores.good(self.key(conduct.client).addr(), now, &settings);
            }
            (Verdict::Refuse, Some(reason)) if conduct.weight > 0 && !self.condemner.is_exempt(conduct.client) => {
                self.scored.store(true, Ordering::Relaxed);
                let sentence = self.scores.refused(self.key(conduct.client).addr(), conduct.weight, now, &settings);
                if let Some(sentence) = sentence {
                    self.carry_out(worker, policy, conduct, reason, sentence, config.mode);
                }
            }
            _ => {}
        }
    }

    fn carry_out(
        &self,
        worker: &Worker,
        policy: &ApiPolicy,
        conduct: &Conduct,
        reason: Reason,
        sentence: reputation::Sentence,
        mode: Mode,
    ) {
        let score = sentence.score as u32;
        if conduct.direct && mode == Mode::Enforce {
            self.condemner.condemn(Sentence {
                address: conduct.client,
                lasts: sentence.ban,
                score,
                offences: sentence.offences,
                api: policy.name(),
                reason,
            });
            if self.condemner.only_tells() {
                return;
            }
            let (registry, client) = (Arc::clone(&worker.shared.registry), self.key(conduct.client));
            tokio::spawn(async move {
                tokio::time::sleep(LAST_WORDS).await;
                registry.abort(client);
            });
            return;
        }
        if mode == Mode::Enforce {
            let mut banned = self.banned();
            let now = Instant::now();
            if banned.len() >= BANNED {
                banned.retain(|_, until| now < *until);
            }
            if banned.len() < BANNED {
                banned.insert(self.key(conduct.client), now + sentence.ban);
            }
        }
        worker.record(BanRecord {
            time: SystemTime::now(),
            outcome: if mode == Mode::Enforce { BanOutcome::Ban } else { BanOutcome::Monitor },
            api: policy.name(),
            source: conduct.client,
            prefix: self.key(conduct.client),
            cause: reason,
            score,
            offences: sentence.offences,
            lasts: sentence.ban,
        });
    }

    /// Clients in this prefix start anew.
    pub fn forget(&self, prefix: IpNet) {
        // An address may have been told that counts as part of its network.
        let whole = self.key(prefix.addr());
        let prefix = if whole.contains(&prefix) { whole } else { prefix.trunc() };
        self.scores.forgive(prefix);
        self.banned().retain(|client, _| !prefix.contains(client));
    }
}

fn settings(config: &config::api::Reputation) -> Settings {
    Settings { threshold: config.threshold, half_life: config.half_life, ban: config.ban, max_ban: config.max_ban }
}
