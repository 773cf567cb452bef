//! Counters and events. Counters are exact; events are sampled by source and reason, and those not sent are counted.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
    programs::XdpContext,
};
use aya_log_ebpf::debug;
use firewall_common::{
    counter::{DROPPED, MONITORED, NO_RULE, RULES, Tally},
    event::{Event, EventAction, SAMPLE_BUDGET, SAMPLE_JIFFIES, SAMPLE_SLOTS},
    packet::Headers,
    policy::stage,
    rate,
    verdict::{Condemned, DropReason, PassReason},
};

use crate::{
    atomic,
    frame::XdpFrame,
    maps::{COUNTERS, EVENTS, SAMPLE_BUDGETS, SAMPLES, has_stage, policy, seed},
};

/// Leave the agent asleep: it drains the ring by the clock.
const NO_WAKEUP: u64 = 1;

#[inline(always)]
pub(crate) fn passed(packet: &XdpFrame<'_>, headers: &Headers, reason: PassReason) {
    tally(Tally::Passed, headers.length);
    let way = match reason {
        PassReason::NonIp => Some(Tally::NonIp),
        PassReason::Control => Some(Tally::Control),
        PassReason::Reply => Some(Tally::Reply),
        PassReason::ReplySocket => Some(Tally::ReplySocket),
        PassReason::Allowed => Some(Tally::Allowed),
        PassReason::Judged => None,
    };
    if let Some(way) = way {
        tally(way, headers.length);
    }
    if has_stage(stage::TRACE) {
        debug!(packet.ctx, "pass: {} bytes", headers.length);
    }
}

#[inline(always)]
pub(crate) fn dropped(packet: &XdpFrame<'_>, headers: &Headers, condemned: Condemned) {
    count(DROPPED + condemned.reason as u32, headers.length);
    rule(condemned.rule, headers.length);
    event(packet.ctx, headers, condemned.reason, condemned.rule, EventAction::Drop);
}

#[inline(always)]
pub(crate) fn monitored(packet: &XdpFrame<'_>, headers: &Headers, condemned: Condemned) {
    count(MONITORED + condemned.reason as u32, headers.length);
    rule(condemned.rule, headers.length);
    event(packet.ctx, headers, condemned.reason, condemned.rule, EventAction::Monitor);
}

/// A rate rule banned the packet's source. Its drop is counted on its own.
#[inline(always)]
pub(crate) fn banned(ctx: &XdpContext, headers: &Headers, rule: u16) {
    event(ctx, headers, DropReason::Ban, rule, EventAction::Ban);
}

#[inline(always)]
pub(crate) fn tally(tally: Tally, bytes: u32) {
    count(tally as u32, bytes);
}

/// Counts for the rule in this slot.
#[inline(always)]
pub(crate) fn rule(slot: u16, bytes: u32) {
    if slot != NO_RULE {
        count(RULES + u32::from(slot), bytes);
    }
}

#[inline(always)]
fn count(index: u32, bytes: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: this CPU's own value. A packet on this CPU ends before the next begins, whatever the instance.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(bytes);
        }
    }
}

/// Sends an event, unless one of the same source, reason, rule and action was sent a moment ago.
#[inline(always)]
fn event(ctx: &XdpContext, headers: &Headers, reason: DropReason, rule: u16, action: EventAction) {
    let id = u64::from(rule) << 16 | u64::from(action as u8) << 8 | u64::from(reason as u8);
    portcullis_event(ctx.ctx, headers, id);
}

/// `id`: reason, action and rule, from the lowest bits on.
///
/// Global in BTF, as in `bucket.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn portcullis_event(ctx: *mut xdp_md, headers: *const Headers, id: u64) -> u64 {
    // SAFETY: the caller's reference. The verifier asks for this check, since it judges this function on its own.
    let Some(headers) = (unsafe { headers.as_ref() }) else { return 0 };
    let ctx = &XdpContext::new(ctx);
    let (reason, action, rule) = (id as u8, (id >> 8) as u8, (id >> 16) as u16);
    if has_stage(stage::TRACE) {
        debug!(ctx, "verdict: action {} reason {} rule {}", action, reason, rule);
    }
    let tag = rate::hash(seed(), id, &headers.source);
    let Some(slot) = SAMPLES.get_ptr_mut((tag >> 32) as u32 & (SAMPLE_SLOTS - 1)) else { return 0 };
    // SAFETY: a helper without arguments. Jiffies cost 3 ns where the clock costs 37.
    let jiffies = unsafe { bpf_jiffies64() };
    // SAFETY: a live map value. Its words are read and written whole; a lost race costs or adds one event.
    let (known, last) = unsafe { ((*slot).tag == tag, (*slot).last) };
    if known && jiffies.wrapping_sub(last) < SAMPLE_JIFFIES {
        // SAFETY: the place of a field of a live map value.
        atomic::add(unsafe { &raw mut (*slot).merged }, 1);
        return 0;
    }
    if !within_budget(jiffies) {
        if known {
            // SAFETY: as above.
            atomic::add(unsafe { &raw mut (*slot).merged }, 1);
        }
        return 0;
    }
    // SAFETY: as above.
    let count = unsafe {
        let count = if known { (*slot).merged + 1 } else { 1 };
        (*slot).tag = tag;
        (*slot).last = jiffies;
        (*slot).merged = 0;
        count
    };
    let Some(mut record) = EVENTS.reserve::<Event>(0) else {
        tally(Tally::EventLost, 0);
        // What it stood for, the next one tells.
        // SAFETY: as above.
        atomic::add(unsafe { &raw mut (*slot).merged }, count);
        return 0;
    };
    record.write(Event {
        // SAFETY: a helper without arguments.
        time: unsafe { bpf_ktime_get_ns() },
        source: headers.source,
        destination: headers.destination,
        count: count as u32,
        interface: ctx.ingress_ifindex() as u32,
        generation: policy!(generation),
        length: headers.length,
        source_port: headers.source_port,
        destination_port: headers.destination_port,
        rule,
        reason,
        action,
        protocol: headers.protocol,
        tcp_flags: headers.tcp_flags,
        icmp_type: headers.icmp_type,
        icmp_code: headers.icmp_code,
        padding: [0; 4],
    });
    record.submit(NO_WAKEUP);
    tally(Tally::EventSent, 0);
    0
}

/// Takes one event from this CPU's budget.
#[inline(always)]
fn within_budget(jiffies: u64) -> bool {
    let Some(budget) = SAMPLE_BUDGETS.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own value.
    unsafe {
        if jiffies.wrapping_sub((*budget).since) >= SAMPLE_JIFFIES {
            (*budget).since = jiffies;
            (*budget).sent = 0;
        }
        if (*budget).sent >= SAMPLE_BUDGET {
            return false;
        }
        (*budget).sent += 1;
    }
    true
}
