//! Replies: packets to a port that is not exposed, but in a flow that the host opened.

use aya_ebpf::{bindings::xdp_md, helpers::bpf_ktime_get_coarse_ns, programs::XdpContext};
use firewall_common::{
    counter::Tally,
    flow::FlowKey,
    hygiene::flag,
    packet::{Headers, protocol},
};

use crate::{frame::XdpFrame, maps::FLOWS, report, socket};

#[inline(always)]
pub(crate) fn is_reply(packet: &XdpFrame<'_>, headers: &Headers) -> bool {
    portcullis_is_reply(packet.ctx.ctx, headers) != 0
}

/// Global in BTF, as in `bucket.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn portcullis_is_reply(ctx: *mut xdp_md, headers: *const Headers) -> u64 {
    // SAFETY: the caller's reference. The verifier asks for this check, since it judges this function on its own.
    let Some(headers) = (unsafe { headers.as_ref() }) else { return 0 };
    u64::from(judge(&XdpContext::new(ctx), headers))
}

#[inline(always)]
fn judge(ctx: &XdpContext, headers: &Headers) -> bool {
    // A new connection is none, at once and without a lookup.
    if headers.protocol == protocol::TCP && headers.tcp_flags & (flag::SYN | flag::ACK) == flag::SYN {
        return false;
    }
    let Some(flow) = FlowKey::of_arriving(headers) else {
        return false;
    };
    // SAFETY: the value is a word that is written whole.
    if let Some(last) = unsafe { FLOWS.get(flow) } {
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_coarse_ns() };
        if now.saturating_sub(*last) < flow.lifetime() {
            report::tally(Tally::Reply, headers.length);
            return true;
        }
    }
    if socket::is_open(ctx, headers) {
        report::tally(Tally::ReplySocket, headers.length);
        return true;
    }
    false
}
