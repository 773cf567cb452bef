//! The stages in order. Each gives a verdict; the first against the packet ends it, unless it only monitors.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use firewall_common::{
    ban::{BanKey, guard},
    counter::NO_RULE,
    hygiene::{self, Control, check},
    packet::{Fragment, Headers, Network, parse, protocol},
    policy::stage,
    port::{PortPolicy, Service, flag},
    verdict::{Condemned, DropReason, PassReason},
};

use crate::{
    ban, exposure,
    frame::XdpFrame,
    list,
    maps::{CONTROL, GUARDED, PORTS, has_stage, monitored, policy},
    rate, report, size,
};

/// Judges a packet; `headers` holds what was read of it, whatever the verdict.
#[inline(always)]
pub(crate) fn judge(packet: &XdpFrame<'_>, headers: &mut Headers) -> Result<PassReason, Condemned> {
    // 1. Parse. What cannot be read cannot be judged: in monitor mode it passes.
    match portcullis_parse(packet.ctx.ctx, headers) {
        IP => {}
        NOT_IP => return Ok(PassReason::NonIp),
        refused => {
            let reason = DropReason::from_number(refused as u8).unwrap_or(DropReason::Truncated);
            return settle(packet, headers, reason, NO_RULE, monitored(0)).map(|()| PassReason::Judged);
        }
    }
    let headers = &*headers;

    // 2–4. Lists and bans. Neighbour discovery comes from the link itself, and whoever bans its sender would lose the
    // link's other hosts, too.
    let control = hygiene::control(headers);
    let allowed = if control == Some(Control::NeighbourDiscovery) { false } else { identity(packet, headers)? };

    // 5. Hygiene.
    if has_stage(stage::HYGIENE) {
        let verdict = hygiene::judge(headers, policy!(hygiene)).and_then(|()| match control {
            // A neighbour that answers from our own address tells us that it is taken (RFC 4862, 5.4).
            Some(Control::NeighbourDiscovery) => Ok(()),
            _ => own_source(headers),
        });
        if let Err(reason) = verdict {
            settle(packet, headers, reason, NO_RULE, monitored(stage::HYGIENE))?;
        }
    }

    // 6. Size.
    let service = Service::of(headers).index();
    let port = PORTS.get(service).copied().unwrap_or_default();
    let segments = size::judge(packet, headers, port)?;

    // 7. Exposure, QUIC and UDP reflection, which replies are exempt from.
    let reply = reachable(packet, headers, port, control, allowed)?;

    // 8. Rates.
    rate::judge(packet, headers, &rate::Subject { service, port, segments, control, allowed })?;
    Ok(match (control, reply) {
        (Some(_), _) => PassReason::Control,
        (None, Some(reply)) => reply,
        (None, None) if allowed => PassReason::Allowed,
        (None, None) => PassReason::Judged,
    })
}

const IP: u64 = 0x100;
const NOT_IP: u64 = 0x101;

/// [`IP`], [`NOT_IP`], or the number of the reason to drop the packet for.
///
/// Global in BTF, as in `bucket.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn portcullis_parse(ctx: *mut xdp_md, headers: *mut Headers) -> u64 {
    // SAFETY: the caller's reference. The verifier asks for this check, since it judges this function on its own.
    let Some(headers) = (unsafe { headers.as_mut() }) else { return NOT_IP };
    match parse(&XdpFrame { ctx: &XdpContext::new(ctx) }, headers) {
        Ok(Network::Ip) => IP,
        Ok(Network::Other) => NOT_IP,
        Err(reason) => reason as u64,
    }
}

/// A verdict against the packet: final if enforced, only reported if not.
#[inline(always)]
pub(crate) fn settle(
    packet: &XdpFrame<'_>,
    headers: &Headers,
    reason: DropReason,
    rule: u16,
    monitor: bool,
) -> Result<(), Condemned> {
    let condemned = Condemned { reason, rule, monitor };
    if monitor {
        report::monitored(packet, headers, condemned);
        Ok(())
    } else {
        Err(condemned)
    }
}

/// Judges the source by lists and bans; `Ok(true)` if an allow list names it.
#[inline(always)]
fn identity(packet: &XdpFrame<'_>, headers: &Headers) -> Result<bool, Condemned> {
    if let Some(entry) = list::find(headers) {
        if entry.allow != NO_RULE {
            report::rule(entry.allow, headers.length);
            return Ok(true);
        }
        if entry.monitor != NO_RULE {
            settle(packet, headers, DropReason::BlockList, entry.monitor, true)?;
        }
        if entry.block != NO_RULE {
            settle(packet, headers, DropReason::BlockList, entry.block, monitored(0))?;
        }
    }
    if let Some(rule) = ban::find(headers) {
        settle(packet, headers, DropReason::Ban, rule, monitored(0))?;
    }
    Ok(false)
}

/// Refuses the host's own addresses as source.
#[inline(always)]
fn own_source(headers: &Headers) -> Result<(), DropReason> {
    if policy!(hygiene) & check::OWN_SOURCE == 0 {
        return Ok(());
    }
    let filter = CONTROL.get(0).map_or(u64::MAX, |control| control.own_filter);
    if filter & guard::filter_bit(&headers.source) == 0 {
        return Ok(());
    }
    let key = BanKey::host(headers.source);
    // SAFETY: the value is a word that only the agent writes, whole.
    let known = unsafe { GUARDED.get(key) }.copied().unwrap_or(0);
    if known & guard::OWN != 0 { Err(DropReason::OwnSource) } else { Ok(()) }
}

/// Judges whether the packet goes where something exists for the outside; tells what kind of reply it is, if that is why.
#[inline(always)]
fn reachable(
    packet: &XdpFrame<'_>,
    headers: &Headers,
    port: PortPolicy,
    control: Option<Control>,
    allowed: bool,
) -> Result<Option<PassReason>, Condemned> {
    // Later fragments have no ports; without their first fragment the stack drops them.
    if headers.fragment == Fragment::Later || control.is_some() {
        return Ok(None);
    }
    let hidden = has_stage(stage::EXPOSURE) && port.flags & flag::EXPOSED == 0 && !allowed;
    let reflected = has_stage(stage::HYGIENE)
        && policy!(hygiene) & check::REFLECTION != 0
        && headers.protocol == protocol::UDP
        && from_reflector(headers, port);
    // The gateway inspects sources on allow lists, too.
    let quic = has_stage(stage::QUIC) && headers.protocol == protocol::UDP && port.flags & flag::NO_QUIC != 0;
    if !hidden && !quic && !reflected {
        return Ok(None);
    }
    if let Some(reply) = exposure::reply(packet, headers) {
        return Ok(Some(reply));
    }
    if hidden {
        settle(packet, headers, DropReason::NotExposed, NO_RULE, monitored(stage::EXPOSURE))?;
    }
    if quic {
        settle(packet, headers, DropReason::Quic, NO_RULE, monitored(0))?;
    }
    if reflected {
        settle(packet, headers, DropReason::Reflection, NO_RULE, monitored(stage::HYGIENE))?;
    }
    Ok(None)
}

/// Whether a UDP packet comes from a port known for reflection. Servers of the same service talk port to port (NTP peers,
/// resolvers): that passes where the port is exposed by name.
#[inline(always)]
fn from_reflector(headers: &Headers, port: PortPolicy) -> bool {
    let peers = headers.source_port == headers.destination_port && port.flags & flag::SERVED != 0;
    let source = PORTS.get(Service::Udp(headers.source_port).index()).copied().unwrap_or_default();
    source.flags & flag::REFLECTS != 0 && !peers
}
