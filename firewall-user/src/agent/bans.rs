//! Bans as operators see them, and the file that carries them over a reboot.
//!
//! The kernel's table is the truth while it lives; the file is written when bans change, and read when the table is new.

use std::{
    fs,
    hash::{DefaultHasher, Hasher as _},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use firewall_common::{
    address::{Addr, V4_OFFSET},
    ban::{Ban, BanKey, BanOrigin, HOST, MAX_LENGTHS, MIN_LENGTH_V4, MIN_LENGTH_V6, NETWORK_V6, guard},
    counter::NO_RULE,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    config::{List, ListAction, prefix_key},
    control::api,
    dmz::{
        shared::{Shared, SharedError},
        slots::Slots,
    },
    events::{format_time, kernel::WallClock},
    host::addresses::Guarded,
};

use super::{
    condemn::{Cause, Condemner},
    exempt::Exempt,
};

/// Longest ban: what a rate rule may ask for, too.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Why a ban is refused.
#[derive(Debug)]
pub enum BanError {
    TooShort {
        prefix: IpNet,
        shortest: u8,
    },
    TooLong,
    /// It would hit this address, which must not be banned.
    Protected {
        prefix: IpNet,
        address: IpAddr,
    },
    Allowed {
        prefix: IpNet,
        list: String,
    },
    /// Each further prefix length costs every packet a lookup.
    Lengths {
        prefix: IpNet,
        in_use: Vec<u8>,
    },
    Full {
        capacity: u32,
    },
    NotBanned {
        prefix: IpNet,
    },
    Shared(SharedError),
}

impl std::fmt::Display for BanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooShort { prefix, shortest } => {
                write!(f, "{prefix} is too large to ban: /{shortest} at the shortest; a block list may hold it")
            }
            Self::TooLong => write!(f, "a ban lasts from 1 second to 365 days; a block list is for ever"),
            Self::Protected { prefix, address } if IpNet::from(*address) == *prefix => {
                write!(f, "{address} is an address of this host, a gateway or a resolver: it is never banned")
            }
            Self::Protected { prefix, address } => write!(
                f,
                "{prefix} holds {address}, an address of this host, a gateway or a resolver: these are never banned"
            ),
            Self::Allowed { prefix, list } => {
                write!(f, "{prefix} is on the allow list `{list}`: what is allowed is never banned")
            }
            Self::Lengths { prefix, in_use } => write!(
                f,
                "{prefix}: bans already use {MAX_LENGTHS} other prefix lengths ({}); each costs every packet a lookup",
                in_use.iter().map(|length| format!("/{length}")).collect::<Vec<_>>().join(", ")
            ),
            Self::Full { capacity } => {
                write!(
                    f,
                    "the table of bans is full ({capacity} entries, `bans` under [dmz.tables]); nothing was evicted"
                )
            }
            Self::NotBanned { prefix } => write!(f, "{prefix} is not banned (`portcullis bans` lists what is)"),
            Self::Shared(error) => error.fmt(f),
        }
    }
}

impl From<SharedError> for BanError {
    fn from(error: SharedError) -> Self {
        Self::Shared(error)
    }
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn now() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What a ban must not hit.
pub struct Limits<'a> {
    pub guarded: &'a Guarded,
    pub lists: &'a [List],
    pub capacity: u32,
}

/// Sets a ban on behalf of the operator; an existing one is replaced.
pub fn set(shared: &mut Shared, limits: &Limits<'_>, prefix: IpNet, lasts: Duration) -> Result<Ban, BanError> {
    let prefix = canonical(prefix);
    let (address, length) = prefix_key(&prefix);
    let (shortest, offset) = shortest(&address);
    if length < shortest {
        return Err(BanError::TooShort { prefix, shortest: shortest - offset });
    }
    if lasts < Duration::from_secs(1) || lasts > LONGEST {
        return Err(BanError::TooLong);
    }
    let protected = limits.guarded.iter().find(|((address, length), bits)| {
        *length == HOST && **bits & guard::PROTECTED != 0 && prefix.contains(address)
    });
    if let Some(((address, _), _)) = protected {
        return Err(BanError::Protected { prefix, address: *address });
    }
    let mut allowed = limits.lists.iter().filter(|list| list.action == ListAction::Allow);
    if let Some(list) = allowed.find(|list| list.prefixes.iter().any(|allow| allow.contains(&prefix))) {
        return Err(BanError::Allowed { prefix, list: list.name.clone() });
    }
    use_length(shared, prefix, address.is_v4(), length)?;
    let since = now();
    let lasts = u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX);
    let ban = Ban {
        until: since.saturating_add(lasts),
        since,
        packets: 0,
        origin: BanOrigin::Operator as u8,
        padding: 0,
        rule: NO_RULE,
        padding2: 0,
    };
    shared
        .bans
        .insert(BanKey::new(&address, length), ban, 0)
        .map_err(|_| BanError::Full { capacity: limits.capacity })?;
    Ok(ban)
}

/// An IPv4 prefix in IPv6 notation as the IPv4 prefix that it is in the tables.
fn canonical(prefix: IpNet) -> IpNet {
    let IpNet::V6(v6) = prefix else { return prefix };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(V4_OFFSET));
    v4.and_then(|(address, length)| IpNet::new(address.into(), length).ok()).unwrap_or(prefix)
}

/// The shortest prefix that can be banned around `address`, in the 128-bit space, and where lengths of its family start.
fn shortest(address: &Addr) -> (u8, u8) {
    if address.is_v4() { (MIN_LENGTH_V4, V4_OFFSET) } else { (MIN_LENGTH_V6, 0) }
}

/// Makes the program look for bans of this length.
fn use_length(shared: &mut Shared, prefix: IpNet, v4: bool, length: u8) -> Result<(), BanError> {
    if length == HOST || (!v4 && length == NETWORK_V6) {
        return Ok(());
    }
    let mut control = shared.control()?;
    let lengths = if v4 { &mut control.ban_lengths_v4 } else { &mut control.ban_lengths_v6 };
    if lengths.contains(&length) {
        return Ok(());
    }
    match lengths.iter_mut().find(|slot| **slot == 0) {
        Some(slot) => *slot = length,
        None => {
            let offset = if v4 { V4_OFFSET } else { 0 };
            let in_use = lengths.iter().map(|length| length - offset).collect();
            return Err(BanError::Lengths { prefix, in_use });
        }
    }
    Ok(shared.set_control(control)?)
}

/// Lifts the bans that hit a protected address; gives their prefixes.
pub fn lift_protected(shared: &mut Shared, guarded: &Guarded) -> Result<Vec<IpNet>, SharedError> {
    let control = shared.control()?;
    let mut lifted = Vec::new();
    for ((address, _), _) in
        guarded.iter().filter(|((_, length), bits)| *length == HOST && **bits & guard::PROTECTED != 0)
    {
        let address = Addr::from(*address);
        let (usual, lengths) =
            if address.is_v4() { (HOST, control.ban_lengths_v4) } else { (NETWORK_V6, control.ban_lengths_v6) };
        for length in [HOST, usual].into_iter().chain(lengths).filter(|length| *length != 0) {
            let key = BanKey::new(&address, length);
            if shared.bans.remove(&key).is_ok() {
                lifted.push(prefix_of(&key));
            }
        }
    }
    Ok(lifted)
}

/// Lifts bans of the LAN layer that by now hit whom it must not ban; gives their prefixes.
pub fn lift_exempt(shared: &mut Shared, exempt: &Exempt) -> Result<Vec<IpNet>, SharedError> {
    let wrong = shared
        .all_bans()?
        .into_iter()
        .filter(|(key, ban)| ban.origin == BanOrigin::Reputation as u8 && exempt.forbids(key));
    Ok(wrong.filter(|(key, _)| shared.bans.remove(key).is_ok()).map(|(key, _)| prefix_of(&key)).collect())
}

/// Lifts the ban of exactly this prefix.
pub fn lift(shared: &mut Shared, prefix: IpNet) -> Result<Ban, BanError> {
    let prefix = canonical(prefix);
    let (address, length) = prefix_key(&prefix);
    let key = BanKey::new(&address, length);
    let ban = shared.bans.get(&key, 0).map_err(|_| BanError::NotBanned { prefix })?;
    shared.bans.remove(&key).map_err(|_| BanError::NotBanned { prefix })?;
    sweep(shared)?;
    if ban.until <= now() { Err(BanError::NotBanned { prefix }) } else { Ok(ban) }
}

/// Removes bans that are over, forgets rules that are gone, and prefix lengths that no ban uses any more.
pub fn sweep(shared: &mut Shared) -> Result<(), SharedError> {
    let now = now();
    let slots = shared.slots()?;
    let (mut used_v4, mut used_v6) = (Vec::new(), Vec::new());
    for (key, ban) in shared.all_bans()? {
        if ban.until <= now {
            // The kernel may have removed or renewed it meanwhile; a renewed one is in the next sweep's hands.
            if shared.bans.get(&key, 0).is_ok_and(|again| again.until <= now) {
                let _gone = shared.bans.remove(&key);
            }
            continue;
        }
        let used = if key.address.is_v4() { &mut used_v4 } else { &mut used_v6 };
        used.push(key.length as u8);
        if ban.rule != NO_RULE && slots.name_of(ban.rule).is_none() {
            let _gone = shared.bans.insert(key, Ban { rule: NO_RULE, ..ban }, 0);
        }
    }
    let control = shared.control()?;
    let mut swept = control;
    swept.ban_lengths_v4 = still_used(control.ban_lengths_v4, &used_v4);
    swept.ban_lengths_v6 = still_used(control.ban_lengths_v6, &used_v6);
    if swept != control {
        shared.set_control(swept)?;
    }
    Ok(())
}

fn still_used(lengths: [u8; MAX_LENGTHS], used: &[u8]) -> [u8; MAX_LENGTHS] {
    let mut left = [0; MAX_LENGTHS];
    let kept = lengths.into_iter().filter(|length| used.contains(length));
    left.iter_mut().zip(kept).for_each(|(slot, length)| *slot = length);
    left
}

/// A ban for the control interface.
pub fn describe(key: &BanKey, ban: &Ban, slots: &Slots, clock: WallClock, condemner: &Condemner) -> api::Ban {
    let remaining = Duration::from_nanos(ban.until.saturating_sub(now()));
    let origin = BanOrigin::from_number(ban.origin);
    let layer = match origin {
        Some(BanOrigin::Operator) => "operator",
        Some(BanOrigin::Rate) => "dmz",
        Some(BanOrigin::Reputation) => "lan",
        None => "unknown",
    };
    let cause = cause(ban, key, condemner);
    api::Ban {
        prefix: prefix_of(key),
        layer: layer.to_owned(),
        origin: origin.map_or("unknown", BanOrigin::name).to_owned(),
        rule: slots.name_of(ban.rule).map(|name| name.split_once('/').map_or(name, |(_, name)| name).to_owned()),
        since: format_time(clock.time(ban.since)),
        until: format_time(clock.time(ban.until)),
        remaining_seconds: api::ceil_seconds(remaining),
        packets: ban.packets,
        cause: cause.map(|Cause { api, reason, score, offences }| api::Cause {
            api: api.to_string(),
            reason: reason.to_string(),
            score,
            offences,
        }),
    }
}

/// Why the LAN layer asked for this ban, if it did.
fn cause(ban: &Ban, key: &BanKey, condemner: &Condemner) -> Option<Cause> {
    (ban.origin == BanOrigin::Reputation as u8).then(|| condemner.cause(key))?
}

pub(super) fn prefix_of(key: &BanKey) -> IpNet {
    let address = IpAddr::from(key.address);
    let length = if address.is_ipv4() { (key.length as u8).saturating_sub(V4_OFFSET) } else { key.length as u8 };
    IpNet::new(address, length).unwrap_or_else(|_| IpNet::from(address))
}

/// A ban in the file. Times are milliseconds of the wall clock since 1970.
#[derive(Serialize, Deserialize)]
struct Saved {
    prefix: IpNet,
    since: u64,
    until: u64,
    origin: u8,
    rule: Option<String>,
    packets: u64,
    /// Of a ban of the LAN layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
}

/// Every ban as the file holds it.
pub fn to_save(shared: &Shared, condemner: &Condemner) -> io::Result<Vec<u8>> {
    let clock = WallClock::sample();
    let millis = |time: u64| {
        let since = clock.time(time).duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    };
    let slots = shared.slots().map_err(io::Error::other)?;
    let now = now();
    let saved: Vec<Saved> = shared
        .all_bans()
        .map_err(io::Error::other)?
        .into_iter()
        .filter(|(_, ban)| ban.until > now)
        .map(|(key, ban)| Saved {
            prefix: prefix_of(&key),
            since: millis(ban.since),
            until: millis(ban.until),
            origin: ban.origin,
            rule: slots.name_of(ban.rule).map(str::to_owned),
            packets: ban.packets,
            cause: cause(&ban, &key, condemner),
        })
        .collect();
    Ok(serde_json::to_vec(&saved)?)
}

/// Writes the bans to `path`, whole or not at all, unless they are what was written `before`. Gives what to compare with the
/// next time.
pub fn save(text: &[u8], path: &Path, before: Option<u64>) -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    hasher.write(text);
    let hash = hasher.finish();
    if before == Some(hash) {
        return Ok(hash);
    }
    let partial = path.with_extension("partial");
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    }
    {
        // Who is banned is nobody's business.
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(text)?;
        file.sync_all()?;
    }
    fs::rename(&partial, path)?;
    Ok(hash)
}

/// Puts the bans of `path` into the table, those it already holds excepted. Gives how many, or what is wrong with the file:
/// then it is set aside under another name, not overwritten. Causes of all of them go to `condemner`.
pub fn restore(shared: &mut Shared, path: &Path, condemner: &Condemner) -> Result<usize, (PathBuf, io::Error)> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err((path.to_owned(), error)),
    };
    let saved: Vec<Saved> = serde_json::from_slice(&text).map_err(|error| {
        let aside = path.with_extension("damaged");
        let _kept = fs::rename(path, &aside);
        (aside, error.into())
    })?;
    let slots = shared.slots().map_err(|error| (path.to_owned(), io::Error::other(error)))?;
    let (wall, now) = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), now());
    let monotonic = |millis: u64| {
        let ahead = i128::from(millis) * 1_000_000 - wall.as_nanos() as i128;
        u64::try_from((i128::from(now) + ahead).max(0)).unwrap_or(u64::MAX)
    };
    let mut restored = 0;
    for saved in saved {
        let prefix = canonical(saved.prefix);
        let (address, length) = prefix_key(&prefix);
        // The wall clock may have been set, or not be set yet: no ban lasts longer than it was meant to from its start.
        let lasts = Duration::from_millis(saved.until.saturating_sub(saved.since)).min(LONGEST);
        let ban = Ban {
            until: monotonic(saved.until).min(now.saturating_add(u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX))),
            since: monotonic(saved.since),
            packets: saved.packets,
            origin: saved.origin,
            padding: 0,
            rule: saved.rule.and_then(|rule| slots.get(&rule)).unwrap_or(NO_RULE),
            padding2: 0,
        };
        let no_overwrite = 1;
        let key = BanKey::new(&address, length);
        if let Some(cause) = saved.cause.filter(|_| ban.until > now) {
            condemner.remember(key, ban.until, cause);
        }
        if ban.until > now
            && length >= shortest(&address).0
            && use_length(shared, prefix, address.is_v4(), length).is_ok()
            && shared.bans.insert(key, ban, no_overwrite).is_ok()
        {
            restored += 1;
        }
    }
    Ok(restored)
}

/// Puts bans of a table that was made anew into its successor, except where that has a longer one by now. Gives how many did
/// not fit.
pub fn carry_over(shared: &mut Shared, bans: &[(BanKey, Ban)]) -> usize {
    let now = now();
    let mut left_out = 0;
    for (key, ban) in bans.iter().filter(|(_, ban)| ban.until > now) {
        let found = shared.bans.get(key, 0);
        if found.is_ok_and(|found| found.until >= ban.until) {
            continue;
        }
        left_out += usize::from(shared.bans.insert(key, ban, 0).is_err());
    }
    left_out
}

/// What the kernel's tables call an address, for those who look one up.
pub fn key_of(address: IpAddr) -> BanKey {
    BanKey::host(Addr::from(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_prefix_is_its_ipv4_prefix() {
        for (text, canonical_text) in [
            ("::ffff:192.0.2.1/128", "192.0.2.1/32"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("2001:db8::/64", "2001:db8::/64"),
            ("::/95", "::/95"),
        ] {
            let prefix: IpNet = text.parse().unwrap();
            assert_eq!(canonical(prefix), canonical_text.parse().unwrap(), "{text}");
            assert_eq!(prefix_key(&canonical(prefix)), prefix_key(&prefix), "{text}");
        }
    }
}
