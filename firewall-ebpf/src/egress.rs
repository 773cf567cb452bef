//! Remembers the flows that leave, so that their replies may come in.

use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_ktime_get_coarse_ns, programs::TcContext};
use firewall_common::{
    counter::Tally,
    flow::FlowKey,
    packet::{Headers, Network, parse, protocol},
    policy::stage,
    port::{Service, flag},
};

use crate::{
    frame::SkbFrame,
    maps::{FLOWS, PORTS, has_stage},
    report,
};

/// A flow's time is written anew at most this often.
const REFRESH: u64 = 1_000_000_000;

#[inline(always)]
pub(crate) fn note(ctx: &TcContext) {
    let mut headers = Headers::EMPTY;
    if parse(&SkbFrame { ctx }, &mut headers) != Ok(Network::Ip) {
        return;
    }
    let Some(flow) = FlowKey::of_leaving(&headers) else { return };
    if !matters(&headers) {
        return;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    if let Some(last) = FLOWS.get_ptr_mut(flow) {
        // SAFETY: a word of a live map value, written whole.
        unsafe {
            if now.saturating_sub(*last) > REFRESH {
                *last = now;
            }
        }
    } else if FLOWS.insert(flow, now, u64::from(BPF_ANY)).is_err() {
        report::tally(Tally::FlowRefused, 0);
    }
}

/// Whether anybody will ask for this flow. Answers from an exposed port need no entry, and must not have one: forged
/// requests could fill the table with them.
#[inline(always)]
fn matters(headers: &Headers) -> bool {
    let flags = |service: Service| PORTS.get(service.index()).map_or(0, |port| port.flags);
    // Port to port, a served one needs no entry either: see `from_reflector` in `pipeline.rs`.
    let peers =
        headers.source_port == headers.destination_port && flags(Service::Udp(headers.source_port)) & flag::SERVED != 0;
    if headers.protocol == protocol::UDP
        && !peers
        && flags(Service::Udp(headers.destination_port)) & flag::REFLECTS != 0
    {
        return true;
    }
    // What we ask from a port that refuses QUIC is answered there.
    if has_stage(stage::QUIC)
        && headers.protocol == protocol::UDP
        && flags(Service::Udp(headers.source_port)) & flag::NO_QUIC != 0
    {
        return true;
    }
    if !has_stage(stage::EXPOSURE) {
        return false;
    }
    let local = match headers.protocol {
        protocol::TCP => Service::Tcp(headers.source_port),
        protocol::UDP => Service::Udp(headers.source_port),
        other => Service::Protocol(other),
    };
    flags(local) & flag::EXPOSED == 0
}
