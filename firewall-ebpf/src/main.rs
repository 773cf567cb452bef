//! The DMZ layer's programs: `portcullis_dmz` judges every packet that arrives on an interface (XDP), and
//! `portcullis_egress` remembers the flows that leave through it (tc), so that replies are known as such.
//!
//! Decisions that need no map and no helper live in `firewall-common`, where they are tested on the host; here they are
//! put in order (`pipeline.rs`) and given the kernel's tables.

#![no_std]
#![no_main]
// `cmpxchg` for the token buckets, and the register hints of `frame.rs`, have no other spelling on this target.
#![feature(asm_experimental_arch)]

mod atomic;
mod ban;
mod bucket;
mod egress;
mod exposure;
mod frame;
mod list;
mod maps;
mod pipeline;
mod rate;
mod report;
mod runtime;
mod size;
mod socket;

use aya_ebpf::{
    bindings::{tcx_action_base::TCX_NEXT, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use firewall_common::packet::Headers;

/// Judges a packet from outside.
#[xdp(frags)]
fn portcullis_dmz(ctx: XdpContext) -> u32 {
    let mut headers = Headers::EMPTY;
    let packet = frame::XdpFrame { ctx: &ctx };
    match pipeline::judge(&packet, &mut headers) {
        Ok(reason) => {
            report::passed(&packet, &headers, reason);
            xdp_action::XDP_PASS
        }
        Err(condemned) => {
            report::dropped(&packet, &headers, condemned);
            xdp_action::XDP_DROP
        }
    }
}

/// Takes note of a packet that leaves; never drops one.
#[classifier]
fn portcullis_egress(ctx: TcContext) -> i32 {
    egress::note(&ctx);
    TCX_NEXT
}
