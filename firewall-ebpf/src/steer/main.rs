//! `portcullis_steer`: hands connections for steered ports to the agent. It runs in the network namespace it is attached to,
//! whenever the kernel looks for a listener of a TCP or UDP packet (sk_lookup), after destination NAT.
//!
//! Decisions that need no map and no helper are in `firewall_common::steer`, where they are tested on the host.

#![no_std]
#![no_main]

mod maps;
#[path = "../runtime.rs"]
mod runtime;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        bpf_sock,
        sk_action::{SK_DROP, SK_PASS},
    },
    helpers::{bpf_ktime_get_ns, bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release},
    macros::sk_lookup,
    programs::SkLookupContext,
};
use firewall_common::{
    address::Addr,
    packet::protocol,
    steer::{HEARTBEAT_LIFETIME, OwnEntry, OwnKey, SteerCounts, Way, flag, is_local, own, seen, way},
};

use crate::maps::{CONTROL, COUNTS, LISTENER, OWN, PORTS};

const AF_INET: u32 = 2;

#[sk_lookup]
fn portcullis_steer(ctx: SkLookupContext) -> u32 {
    judge(&ctx)
}

/// A field of the context. The kernel takes loads of whole words only, and the compiler would merge neighbours.
macro_rules! field {
    ($ctx:expr, $($field:tt)+) => {
        // SAFETY: the kernel's context, readable as a whole.
        unsafe { core::ptr::read_volatile(&raw const (*$ctx.lookup).$($field)+) }
    };
}

#[inline(always)]
fn judge(ctx: &SkLookupContext) -> u32 {
    if field!(ctx, protocol) != u32::from(protocol::TCP) {
        return SK_PASS;
    }
    let port = field!(ctx, local_port);
    // SAFETY: the value is a word that only the agent writes, whole.
    let Some(flags) = unsafe { PORTS.get(port) }.copied() else {
        return if is_listener(port) { SK_DROP } else { SK_PASS };
    };
    let (remote, local) = addresses(ctx);
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut entry_in_force = core::ptr::null_mut();
    let mut kind = own::NONE;
    if remote == local {
        let source_port = u16::from_be(field!(ctx, remote_port));
        if let Some(entry) = OWN.get_ptr_mut(OwnKey { address: local, port: port as u16, source_port }) {
            // SAFETY: a live map value; only the agent writes these fields, and before anybody can look for them.
            let (until, its_kind) = unsafe { ((*entry).until, (*entry).kind) };
            if until > now {
                (entry_in_force, kind) = (entry, its_kind);
            }
        }
    }
    let way = way(flags, is_local(&remote, &local), kind);
    if way == Way::Exempt {
        count(port, |counts| &mut counts.exempt);
        return SK_PASS;
    }
    let handed_over = is_alive(now) && hand_over(ctx, port);
    if way == Way::Probe {
        tell(entry_in_force, if handed_over { seen::STEERED } else { seen::GONE });
    }
    match (handed_over, way) {
        (true, Way::Probe) => count(port, |counts| &mut counts.probed),
        (true, _) => count(port, |counts| &mut counts.steered),
        (false, _) if flags & flag::CLOSED != 0 => {
            count(port, |counts| &mut counts.gone_closed);
            return SK_DROP;
        }
        (false, _) => count(port, |counts| &mut counts.gone_open),
    }
    SK_PASS
}

/// Remote and local address.
#[inline(always)]
fn addresses(ctx: &SkLookupContext) -> (Addr, Addr) {
    if field!(ctx, family) == AF_INET {
        return (Addr::v4(field!(ctx, remote_ip4)), Addr::v4(field!(ctx, local_ip4)));
    }
    let remote = [
        field!(ctx, remote_ip6[0]),
        field!(ctx, remote_ip6[1]),
        field!(ctx, remote_ip6[2]),
        field!(ctx, remote_ip6[3]),
    ];
    let local =
        [field!(ctx, local_ip6[0]), field!(ctx, local_ip6[1]), field!(ctx, local_ip6[2]), field!(ctx, local_ip6[3])];
    (Addr(remote), Addr(local))
}

/// Whether an agent's heartbeat is fresh.
#[inline(always)]
fn is_alive(now: u64) -> bool {
    let Some(control) = CONTROL.get_ptr(0) else { return false };
    // SAFETY: a live map value; the agent writes the word whole.
    let heartbeat = unsafe { core::ptr::read_volatile(&raw const (*control).heartbeat) };
    now.saturating_sub(heartbeat) < HEARTBEAT_LIFETIME
}

/// Hands the connection to the listener; `false` if there is none, or the kernel would not.
#[inline(always)]
fn hand_over(ctx: &SkLookupContext, port: u32) -> bool {
    // SAFETY: the kernel's context, and a socket that is ours until released.
    let result = with_listener(|listener| unsafe { bpf_sk_assign(ctx.as_ptr(), listener.cast(), 0) });
    match result {
        Some(0) => true,
        Some(_) => {
            count(port, |counts| &mut counts.redirect_failed);
            false
        }
        None => false,
    }
}

/// Whether this is the agent's own port, where nobody may connect but by way of a steered one.
#[inline(always)]
fn is_listener(port: u32) -> bool {
    // SAFETY: not null, and ours until released.
    with_listener(|listener| unsafe { (*listener).src_port }) == Some(port)
}

#[inline(always)]
fn with_listener<T>(then: impl FnOnce(*mut bpf_sock) -> T) -> Option<T> {
    let index = 0_u32;
    // SAFETY: the map is one, and the key outlives the call.
    let listener = unsafe { bpf_map_lookup_elem((&raw const LISTENER).cast_mut().cast(), (&raw const index).cast()) };
    if listener.is_null() {
        return None;
    }
    let result = then(listener.cast());
    // SAFETY: acquired above, and not used after.
    unsafe { bpf_sk_release(listener) };
    Some(result)
}

/// Tells the agent what became of its probe.
#[inline(always)]
fn tell(probe: *mut OwnEntry, what: u32) {
    if !probe.is_null() {
        // SAFETY: a live map value; the word is written whole.
        unsafe { core::ptr::write_volatile(&raw mut (*probe).seen, what) };
    }
}

#[inline(always)]
fn count(port: u32, which: impl FnOnce(&mut SteerCounts) -> &mut u64) {
    if let Some(counts) = COUNTS.get_ptr_mut(port) {
        // SAFETY: this CPU's own value. A lookup may interrupt another one on the same CPU: then one of them may be missing.
        *which(unsafe { &mut *counts }) += 1;
    }
}
