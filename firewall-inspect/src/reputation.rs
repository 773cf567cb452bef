//! Who was refused too often: scores of clients that decay, and the bans that follow.
//!
//! In: each refusal with its weight, each good request. Out: a [`Sentence`] when a score crosses the threshold. Who may not be banned,
//! and by whom a ban is carried out, is not decided here.
//!
//! The table has a fixed size. It consists of small sets, and an address can only ever be in the one that a secret hash gives it.
//! A newcomer to a full set replaces the lowest score that weighs no more than its own and has no ban of the last day; if there is
//! none, the newcomer is not scored, which is counted. So a flood of addresses cannot make the table forget an offender; while the flood
//! lasts, what it fails to do is notice new ones.

use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;

use crate::{head::Head, reason::Reason};

mod forced;

/// Entries of one set.
const WAYS: usize = 8;
/// How long a ban, once over, makes the next one longer.
const MEMORY: Duration = Duration::from_secs(24 * 60 * 60);
/// A score below this is none.
const NOTHING: f64 = 0.01;

/// When scores lead to bans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A score of so much bans.
    pub threshold: u32,
    /// After so long, half of a score is forgotten.
    pub half_life: Duration,
    /// The first ban; each further one within a day of the last is twice as long.
    pub ban: Duration,
    pub max_ban: Duration,
}

/// A client goes too far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sentence {
    pub ban: Duration,
    /// What it had come to; the score starts anew.
    pub score: f64,
    /// Bans without a day between them, this one included.
    pub offences: u32,
}

/// Scores by client address; who counts several addresses as one client gives the first of them. Threads share it: each set has a lock of its own. Time is any clock that only goes forward.
#[derive(Debug)]
pub struct Scores {
    sets: Box<[Mutex<Set>]>,
    hash: RandomState,
    missed: AtomicU64,
}

type Set = [Option<Entry>; WAYS];

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u128,
    /// At `time`.
    score: f64,
    time: Duration,
    offences: u32,
    /// Until when the last ban lasts.
    banned: Duration,
}

impl Scores {
    /// Room for `entries` addresses, rounded up to a power of two. About 70 bytes each.
    pub fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(WAYS).next_power_of_two();
        Self {
            sets: (0..sets).map(|_| Mutex::default()).collect(),
            hash: RandomState::new(),
            missed: AtomicU64::new(0),
        }
    }

    /// Adds to the score of a client that was refused. A ban that still lasts is not made longer by what was under way when it came.
    pub fn refused(&self, address: IpAddr, weight: u32, now: Duration, settings: &Settings) -> Option<Sentence> {
        if weight == 0 {
            return None;
        }
        let key = key(address);
        let mut set = self.set(key);
        let entry = match place(&mut set, key, f64::from(weight), now, settings) {
            Some(place) => {
                place.get_or_insert(Entry { key, score: 0.0, time: now, offences: 0, banned: Duration::ZERO })
            }
            None => {
                self.missed.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        };
        if now < entry.banned {
            return None;
        }
        entry.decay(now, settings);
        entry.score += f64::from(weight);
        if entry.score < f64::from(settings.threshold) {
            return None;
        }
        let doublings = entry.offences.min(31);
        let ban = settings.ban.saturating_mul(1 << doublings).min(settings.max_ban);
        entry.offences = entry.offences.saturating_add(1);
        entry.banned = now.saturating_add(ban);
        let score = std::mem::take(&mut entry.score);
        Some(Sentence { ban, score, offences: entry.offences })
    }

    /// Takes 1 from the score of a client, if it has one.
    pub fn good(&self, address: IpAddr, now: Duration, settings: &Settings) {
        let key = key(address);
        let mut set = self.set(key);
        let Some(place) = set.iter_mut().find(|entry| entry.is_some_and(|entry| entry.key == key)) else { return };
        if let Some(entry) = place {
            entry.decay(now, settings);
            entry.score = (entry.score - 1.0).max(0.0);
            if entry.is_empty(now) {
                *place = None;
            }
        }
    }

    /// The score as of now; 0 of a client that has none.
    pub fn score(&self, address: IpAddr, now: Duration, settings: &Settings) -> f64 {
        let key = key(address);
        let set = self.set(key);
        set.iter().flatten().find(|entry| entry.key == key).map_or(0.0, |entry| entry.at(now, settings))
    }

    /// Forgets all clients in a prefix, as when an operator lifts its ban.
    pub fn forgive(&self, prefix: IpNet) {
        let meant = |entry: Entry| prefix.contains(&Ipv6Addr::from_bits(entry.key).to_canonical());
        for set in &self.sets {
            let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
            for place in set.iter_mut().filter(|entry| entry.is_some_and(meant)) {
                *place = None;
            }
        }
    }

    /// How many refusals were not scored, since a set was full of worse.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// No code of ours panics with a lock held, and an entry is sound at any point in any case.
    fn set(&self, key: u128) -> MutexGuard<'_, Set> {
        let index = self.hash.hash_one(key) as usize & (self.sets.len() - 1);
        self.sets[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a refusal adds to the score of a client: the weight of its [blame](crate::reason::Blame), or nothing if a web page could have
/// made a visitor's browser ask so. `head` is the request's, where there is one.
pub fn weight(reason: Reason, head: Option<&Head>) -> u32 {
    if forced::possibly(reason, head) { 0 } else { reason.blame().weight() }
}

/// Where the key is, or may go.
fn place<'s>(
    set: &'s mut Set,
    key: u128,
    weight: f64,
    now: Duration,
    settings: &Settings,
) -> Option<&'s mut Option<Entry>> {
    if let Some(known) = set.iter().position(|entry| entry.is_some_and(|entry| entry.key == key)) {
        return set.get_mut(known);
    }
    let rank = |entry: &Option<Entry>| match entry {
        None => -1.0,
        Some(entry) if entry.offences > 0 && now < entry.banned.saturating_add(MEMORY) => f64::INFINITY,
        Some(entry) => entry.at(now, settings),
    };
    set.iter_mut().min_by(|one, other| rank(one).total_cmp(&rank(other))).filter(|lowest| rank(lowest) <= weight).map(
        |lowest| {
            *lowest = None;
            lowest
        },
    )
}

impl Entry {
    fn at(&self, now: Duration, settings: &Settings) -> f64 {
        let half_life = settings.half_life.as_secs_f64().max(f64::MIN_POSITIVE);
        let half_lives = now.saturating_sub(self.time).as_secs_f64() / half_life;
        self.score * (-half_lives).exp2()
    }

    fn decay(&mut self, now: Duration, settings: &Settings) {
        self.score = self.at(now, settings);
        // Another thread may have been here with a later time.
        self.time = self.time.max(now);
        if now >= self.banned.saturating_add(MEMORY) {
            self.offences = 0;
        }
    }

    fn is_empty(&self, now: Duration) -> bool {
        self.score < NOTHING && self.offences == 0 && now >= self.banned
    }
}

/// IPv4 as mapped.
fn key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests;
