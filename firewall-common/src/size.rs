//! Sizes that a port or protocol allows.

use crate::{
    packet::{Fragment, Headers},
    pod,
    verdict::DropReason,
};

/// Bounds in bytes, each inclusive. `min <= max`, `min_payload <= max_payload`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SizeRule {
    /// Of the IP packet, IP header included.
    pub min: u32,
    pub max: u32,
    /// Of what follows the transport header.
    pub min_payload: u32,
    pub max_payload: u32,
    /// Counter slot.
    pub slot: u16,
    /// Not 0: count and report only.
    pub monitor: u8,
    pub padding: u8,
}

pod!(SizeRule: 20);

impl SizeRule {
    /// Judges by this rule. `segment` is the largest size a packet can have had on the wire: a super-packet that the
    /// stack merged before a generic-mode program saw it counts as segments of that size.
    #[inline(always)]
    pub fn judge(&self, headers: &Headers, segment: u32) -> Result<(), DropReason> {
        if headers.fragment == Fragment::First {
            return Err(DropReason::SizedFragment);
        }
        bounds(headers.length.min(segment), self.min, self.max)?;
        let before_payload = headers.length - headers.payload;
        let payload = headers.payload.min(segment.saturating_sub(before_payload));
        if payload > self.max_payload {
            return Err(DropReason::PayloadTooLarge);
        }
        if payload < self.min_payload {
            return Err(DropReason::PayloadTooSmall);
        }
        Ok(())
    }
}

/// Judges the size of an IP packet: `min <= length <= max`.
#[inline(always)]
pub fn bounds(length: u32, min: u32, max: u32) -> Result<(), DropReason> {
    if length > max {
        Err(DropReason::PacketTooLarge)
    } else if length < min {
        Err(DropReason::PacketTooSmall)
    } else {
        Ok(())
    }
}
