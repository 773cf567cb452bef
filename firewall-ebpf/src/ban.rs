//! Bans: looked up for every packet, set by rate rules.

use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_ktime_get_coarse_ns};
use firewall_common::{
    ban::{Ban, BanKey, BanOrigin, HOST, NETWORK_V6, guard},
    counter::Tally,
    packet::Headers,
    rate::RateRule,
};

use crate::{
    maps::{BANS, CONTROL, GUARDED},
    report,
};

/// The rule that set the ban on this packet's source, or [`firewall_common::counter::NO_RULE`]; `None` if it is not
/// banned.
#[inline(always)]
pub(crate) fn find(headers: &Headers) -> Option<u16> {
    let found = portcullis_ban(headers);
    (found != NOT_BANNED).then_some(found as u16)
}

const NOT_BANNED: u64 = u64::MAX;

/// Global in BTF, as in `bucket.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn portcullis_ban(headers: *const Headers) -> u64 {
    // SAFETY: the caller's reference. The verifier asks for this check, since it judges this function on its own.
    let Some(headers) = (unsafe { headers.as_ref() }) else { return NOT_BANNED };
    any(headers).map_or(NOT_BANNED, u64::from)
}

#[inline(always)]
fn any(headers: &Headers) -> Option<u16> {
    if let Some(rule) = holds(&BanKey::host(headers.source)) {
        return Some(rule);
    }
    if !headers.v4
        && let Some(rule) = holds(&BanKey::new(&headers.source, NETWORK_V6))
    {
        return Some(rule);
    }
    let control = CONTROL.get(0)?;
    let lengths = if headers.v4 { &control.ban_lengths_v4 } else { &control.ban_lengths_v6 };
    for length in *lengths {
        if length == 0 {
            break;
        }
        if let Some(rule) = holds(&BanKey::new(&headers.source, length)) {
            return Some(rule);
        }
    }
    None
}

/// The rule of this ban, if there is one that has not expired. The clock is only read for a hit,
/// and the coarse one (a tick, 1 to 10 ms) will do.
#[inline(always)]
fn holds(key: &BanKey) -> Option<u16> {
    let ban = BANS.get_ptr_mut(key)?;
    // SAFETY: a live map value; its fields are words that are written whole.
    let (until, rule) = unsafe { ((*ban).until, (*ban).rule) };
    // SAFETY: a helper without arguments.
    if until <= unsafe { bpf_ktime_get_coarse_ns() } {
        return None;
    }
    // SAFETY: a live map value.
    unsafe { (*ban).packets += 1 };
    Some(rule)
}

/// Bans the source of a packet for exceeding `rule`. `true` if it is banned now.
#[inline(always)]
pub(crate) fn set(headers: &Headers, rule: &RateRule, now: u64) -> bool {
    let host = BanKey::host(headers.source);
    if guarded(&host) & guard::PROTECTED != 0 {
        report::tally(Tally::BanProtected, headers.length);
        return false;
    }
    let ban = Ban {
        until: now + rule.ban,
        since: now,
        packets: 0,
        origin: BanOrigin::Rate as u8,
        padding: 0,
        rule: rule.slot,
        padding2: 0,
    };
    let set = BANS.insert(BanKey::new(&headers.source, length(headers)), ban, u64::from(BPF_ANY)).is_ok();
    report::tally(if set { Tally::BanSet } else { Tally::BanFull }, headers.length);
    set
}

/// Prefix length by which a rate bans the source.
#[inline(always)]
pub(crate) fn length(headers: &Headers) -> u8 {
    if headers.v4 {
        HOST
    } else if guarded(&BanKey::new(&headers.source, NETWORK_V6)) & guard::ON_LINK != 0 {
        // A neighbour: others on the link have done nothing.
        HOST
    } else {
        NETWORK_V6
    }
}

#[inline(always)]
fn guarded(key: &BanKey) -> u32 {
    // SAFETY: the value is a word that only the agent writes, whole.
    unsafe { GUARDED.get(key) }.copied().unwrap_or(0)
}
