//! Rates: of packets, bytes and new connections.

use aya_ebpf::{bindings::xdp_md, helpers::bpf_ktime_get_ns, programs::XdpContext};
use firewall_common::{
    address::Addr,
    counter::{NO_RULE, Tally},
    hygiene::{Control, flag},
    packet::{Fragment, Headers, protocol},
    policy::stage,
    port::{MAX_RATE_RULES, PortPolicy},
    rate::{Dimension, Key, RateRule},
    token_bucket::Limit,
    verdict::{Condemned, DropReason},
};

use crate::{
    ban,
    bucket::Bucket,
    frame::XdpFrame,
    maps::{RATES, has_stage, monitored},
    pipeline::settle,
    report, socket,
};

/// What the rates need to know of a packet beside its headers.
pub(crate) struct Subject {
    pub(crate) service: u32,
    pub(crate) port: PortPolicy,
    /// Packets it was on the wire.
    pub(crate) segments: u32,
    pub(crate) control: Option<Control>,
    pub(crate) allowed: bool,
}

/// Bucket ids that are no rule's: those are hashes.
const CONTROL_ID: u64 = 1;
const PROVEN_ID: u64 = 2;

const CONTROL_LIMIT: Limit =
    Limit { interval: (1_000_000_000 << 16) / Control::LIMIT_PER_SECOND, tolerance: 1_000_000_000 };

/// How long a source counts as proven after a packet in an established connection, and how long before its end the
/// next packet proves it anew.
const PROVEN_FOR: u64 = 300_000_000_000;
const PROVE_AGAIN: u64 = 60_000_000_000;

#[inline(always)]
pub(crate) fn judge(packet: &XdpFrame<'_>, headers: &Headers, subject: &Subject) -> Result<(), Condemned> {
    if let Some(control) = subject.control {
        return judge_control(packet, headers, control);
    }
    if !has_stage(stage::RATES) || subject.port.rates == 0 {
        return Ok(());
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut rules = subject.port.rates;
    for index in 0..MAX_RATE_RULES {
        if rules == 0 {
            break;
        }
        if rules & 1 != 0 {
            let packed = u64::from(index) | u64::from(subject.segments) << 8 | u64::from(subject.allowed) << 40;
            let found = portcullis_rate(packet.ctx.ctx, headers, packed, u64::from(subject.service), now);
            if let Some(reason) = DropReason::from_number(found as u8) {
                settle(packet, headers, reason, (found >> 16) as u16, found >> 8 & 1 != 0)?;
            }
        }
        rules >>= 1;
    }
    if has_stage(stage::RATE_BANS) {
        portcullis_prove(packet.ctx.ctx, headers, now);
    }
    Ok(())
}

const WITHIN: u64 = 0xff;

/// Judges by one rule: reason, whether it only monitors, and slot, from the lowest bits on; or [`WITHIN`]. `packed`: index of
/// the rule, packets on the wire (32 bits), whether an allow list names the source.
///
/// Global in BTF, as in `bucket.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn portcullis_rate(ctx: *mut xdp_md, headers: *const Headers, packed: u64, service: u64, now: u64) -> u64 {
    // SAFETY: the caller's reference. The verifier asks for this check, since it judges this function on its own.
    let Some(headers) = (unsafe { headers.as_ref() }) else { return WITHIN };
    let Some(rule) = RATES.get(packed as u8 as u32) else { return WITHIN };
    let (segments, allowed) = ((packed >> 8) as u32, packed >> 40 & 1 != 0);
    if allowed && rule.key == Key::Source as u8 {
        return WITHIN;
    }
    let Some(reason) = exceeded(headers, segments, service as u32, rule, now) else { return WITHIN };
    let monitor = rule.monitor != 0 || monitored(0);
    if !monitor && rule.ban != 0 {
        punish(ctx, headers, rule, now);
    }
    reason as u64 | u64::from(monitor) << 8 | u64::from(rule.slot) << 16
}

/// The limit of `rule` that this packet exceeds. Tokens taken for the limits before it stay taken: each counts what is
/// offered, connections first.
#[inline(always)]
fn exceeded(headers: &Headers, segments: u32, service: u32, rule: &RateRule, now: u64) -> Option<DropReason> {
    let whose = rule.subject(headers, service);
    if rule.connections.is_set() && opens_connection(headers) {
        let bucket = Bucket::of(rule.id ^ Dimension::Connections as u64, &whose);
        if !bucket.take(&rule.connections, 1, now) {
            return Some(DropReason::ConnectionRate);
        }
    }
    if rule.packets.is_set() {
        let bucket = Bucket::of(rule.id ^ Dimension::Packets as u64, &whose);
        if !bucket.take(&rule.packets, segments, now) {
            return Some(DropReason::PacketRate);
        }
    }
    if rule.bytes.is_set() {
        let bucket = Bucket::of(rule.id ^ Dimension::Bytes as u64, &whose);
        if !bucket.take(&rule.bytes, headers.length, now) {
            return Some(DropReason::ByteRate);
        }
    }
    None
}

#[inline(always)]
fn opens_connection(headers: &Headers) -> bool {
    headers.protocol == protocol::TCP && headers.tcp_flags & (flag::SYN | flag::ACK) == flag::SYN
}

/// Bans the source, if it is proven to be the one that sends.
#[inline(always)]
fn punish(ctx: *mut xdp_md, headers: &Headers, rule: &RateRule, now: u64) {
    portcullis_prove(ctx, headers, now);
    if proof(headers).remembered() <= now {
        report::tally(Tally::BanUnproven, headers.length);
    } else if ban::set(headers, rule, now) {
        report::banned(&XdpContext::new(ctx), headers, rule.slot);
    }
}

/// Remembers the source as proven if this packet belongs to an established TCP connection. The packet itself may be forged
/// by someone who guesses the ports, but the connection is not: its handshake needed the host's answer.
///
/// Global in BTF, as in `bucket.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn portcullis_prove(ctx: *mut xdp_md, headers: *const Headers, now: u64) -> u64 {
    // SAFETY: the caller's reference. The verifier asks for this check, since it judges this function on its own.
    let Some(headers) = (unsafe { headers.as_ref() }) else { return 0 };
    if headers.protocol != protocol::TCP
        || headers.tcp_flags & (flag::SYN | flag::RST | flag::ACK) != flag::ACK
        || headers.fragment != Fragment::Whole
    {
        return 0;
    }
    let bucket = proof(headers);
    if bucket.remembered() <= now + PROVE_AGAIN && socket::is_established(&XdpContext::new(ctx), headers) {
        bucket.remember(now, now + PROVEN_FOR);
    }
    0
}

/// Where it is remembered that a source is proven: for the prefix that would be banned. A neighbour's proof is his alone.
#[inline(always)]
fn proof(headers: &Headers) -> Bucket {
    Bucket::of(PROVEN_ID, &headers.source.masked(ban::length(headers)))
}

/// The built-in limit of control traffic.
#[inline(always)]
fn judge_control(packet: &XdpFrame<'_>, headers: &Headers, control: Control) -> Result<(), Condemned> {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let whose = match control {
        Control::NeighbourDiscovery => headers.source,
        Control::Error | Control::Mld | Control::Dhcp => Addr([0; 4]),
    };
    let id = CONTROL_ID | (control as u64) << 8;
    if !Bucket::of(id, &whose).take(&CONTROL_LIMIT, 1, now) {
        settle(packet, headers, DropReason::ControlRate, NO_RULE, monitored(0))?;
    }
    Ok(())
}
