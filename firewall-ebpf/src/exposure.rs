//! Replies: packets to a port that is not exposed, but in a flow that the host opened.

use aya_ebpf::{bindings::xdp_md, helpers::bpf_ktime_get_coarse_ns, programs::XdpContext};
use firewall_common::{
    flow::FlowKey,
    hygiene::flag,
    packet::{Headers, protocol},
    verdict::PassReason,
};

use crate::{frame::XdpFrame, maps::FLOWS, socket};

/// How the packet is known as a reply, if it is one.
#[inline(always)]
pub(crate) fn reply(packet: &XdpFrame<'_>, headers: &Headers) -> Option<PassReason> {
    match portcullis_reply(packet.ctx.ctx, headers) {
        IN_FLOW => Some(PassReason::Reply),
        BY_SOCKET => Some(PassReason::ReplySocket),
        _ => None,
    }
}

const NONE: u64 = 0;
const IN_FLOW: u64 = 1;
const BY_SOCKET: u64 = 2;

/// Global in BTF, as in `bucket.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn portcullis_reply(ctx: *mut xdp_md, headers: *const Headers) -> u64 {
    // SAFETY: the caller's reference. The verifier asks for this check, since it judges this function on its own.
    let Some(headers) = (unsafe { headers.as_ref() }) else { return NONE };
    judge(&XdpContext::new(ctx), headers)
}

#[inline(always)]
fn judge(ctx: &XdpContext, headers: &Headers) -> u64 {
    // A new connection is none, at once and without a lookup.
    if headers.protocol == protocol::TCP && headers.tcp_flags & (flag::SYN | flag::ACK) == flag::SYN {
        return NONE;
    }
    let Some(flow) = FlowKey::of_arriving(headers) else {
        return NONE;
    };
    // SAFETY: the value is a word that is written whole.
    if let Some(last) = unsafe { FLOWS.get(flow) } {
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_coarse_ns() };
        if now.saturating_sub(*last) < flow.lifetime() {
            return IN_FLOW;
        }
    }
    if socket::is_open(ctx, headers) { BY_SOCKET } else { NONE }
}
