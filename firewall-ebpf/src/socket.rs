//! What sockets the host has for a packet, in the network namespace of the interface.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as TupleV4,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as TupleV6,
    },
    helpers::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
    programs::XdpContext,
};
use firewall_common::packet::{Headers, protocol};

/// TCP states as the kernel numbers them (`BPF_TCP_*`).
mod state {
    pub(super) const SYN_SENT: u32 = 2;
    pub(super) const SYN_RECEIVED: u32 = 3;
    pub(super) const CLOSE: u32 = 7;
    pub(super) const LISTEN: u32 = 10;
    pub(super) const NEW_SYN_RECEIVED: u32 = 12;
}

/// Whether a socket waits for exactly this packet: a TCP connection in any state, or a connected UDP socket.
#[inline(always)]
pub(crate) fn is_open(ctx: &XdpContext, headers: &Headers) -> bool {
    match headers.protocol {
        protocol::TCP => tcp_state(ctx, headers).is_some_and(|state| state != state::LISTEN),
        protocol::UDP => udp_connected(ctx, headers),
        _ => false,
    }
}

/// Whether the packet belongs to a TCP connection that completed its handshake.
#[inline(always)]
pub(crate) fn is_established(ctx: &XdpContext, headers: &Headers) -> bool {
    tcp_state(ctx, headers).is_some_and(|state| {
        !matches!(state, state::LISTEN | state::NEW_SYN_RECEIVED | state::SYN_SENT | state::SYN_RECEIVED | state::CLOSE)
    })
}

/// Calls `lookup` with the packet's tuple and its size, from which the kernel takes the family.
#[inline(always)]
fn with_tuple(headers: &Headers, lookup: impl Fn(*mut bpf_sock_tuple, u32) -> *mut bpf_sock) -> *mut bpf_sock {
    let (sport, dport) = (headers.source_port.to_be(), headers.destination_port.to_be());
    if headers.v4 {
        let mut tuple = TupleV4 { saddr: headers.source.v4_word(), daddr: headers.destination.v4_word(), sport, dport };
        lookup((&raw mut tuple).cast(), size_of::<TupleV4>() as u32)
    } else {
        let mut tuple = TupleV6 { saddr: headers.source.0, daddr: headers.destination.0, sport, dport };
        lookup((&raw mut tuple).cast(), size_of::<TupleV6>() as u32)
    }
}

#[inline(always)]
fn tcp_state(ctx: &XdpContext, headers: &Headers) -> Option<u32> {
    // SAFETY: the context is the kernel's, the tuple is as large as said.
    let socket = with_tuple(headers, |tuple, size| unsafe {
        bpf_skc_lookup_tcp(ctx.as_ptr(), tuple, size, BPF_F_CURRENT_NETNS as u64, 0)
    });
    if socket.is_null() {
        return None;
    }
    // SAFETY: not null, and ours until released.
    let state = unsafe { (*socket).state };
    // SAFETY: acquired above, and not used after.
    unsafe { bpf_sk_release(socket.cast()) };
    Some(state)
}

#[inline(always)]
fn udp_connected(ctx: &XdpContext, headers: &Headers) -> bool {
    // SAFETY: the context is the kernel's, the tuple is as large as said.
    let socket = with_tuple(headers, |tuple, size| unsafe {
        bpf_sk_lookup_udp(ctx.as_ptr(), tuple, size, BPF_F_CURRENT_NETNS as u64, 0)
    });
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null, and ours until released. A socket that is not connected has remote port 0.
    let connected = unsafe { (*socket).dst_port } != 0;
    // SAFETY: acquired above, and not used after.
    unsafe { bpf_sk_release(socket.cast()) };
    connected
}
