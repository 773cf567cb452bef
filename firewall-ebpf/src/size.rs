//! Sizes: of every packet, and by port.

use firewall_common::{
    counter::NO_RULE,
    packet::Headers,
    policy::stage,
    port::PortPolicy,
    size::{bounds, segments},
    verdict::Condemned,
};

use crate::{
    frame::XdpFrame,
    maps::{INTERFACES, SIZES, has_stage, monitored, policy},
    pipeline::settle,
};

/// Judges the sizes; gives the number of packets this one was on the wire.
#[inline(always)]
pub(crate) fn judge(packet: &XdpFrame<'_>, headers: &Headers, port: PortPolicy) -> Result<u32, Condemned> {
    let mtu = mtu(packet, headers);
    let segment = headers.length.min(mtu);
    if has_stage(stage::SIZE)
        && let Err(reason) = bounds(segment, policy!(min_packet), policy!(max_packet))
    {
        settle(packet, headers, reason, NO_RULE, monitored(stage::SIZE))?;
    }
    if has_stage(stage::SIZE_RULES)
        && port.size != 0
        && let Some(rule) = SIZES.get(u32::from(port.size) - 1)
        && let Err(reason) = rule.judge(headers, segment)
    {
        settle(packet, headers, reason, rule.slot, rule.monitor != 0 || monitored(stage::SIZE))?;
    }
    Ok(segments(headers, mtu))
}

/// The largest size the packet can have had on the wire. Larger ones were merged by the stack before a generic-mode
/// program saw them.
#[inline(always)]
fn mtu(packet: &XdpFrame<'_>, headers: &Headers) -> u32 {
    if headers.length <= policy!(mtu) {
        return u32::MAX;
    }
    let interface = packet.ctx.ingress_ifindex() as u32;
    // SAFETY: the value is a word that only the agent writes, whole.
    unsafe { INTERFACES.get(interface) }.map_or(u32::MAX, |interface| interface.mtu)
}
