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

/// Packets this one was on the wire, where `mtu` is the largest IP packet the wire carries. A sender with a smaller
/// segment size sent more than that; the bytes are exact all the same.
#[inline(always)]
pub fn segments(headers: &Headers, mtu: u32) -> u32 {
    if headers.length <= mtu {
        return 1;
    }
    let room = mtu.saturating_sub(headers.length - headers.payload).max(1);
    headers.payload.div_ceil(room).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_packets_count_as_they_came() {
        let merged = Headers { length: 40 + 3 * 1460, payload: 3 * 1460, ..Headers::EMPTY };
        assert_eq!(segments(&merged, 1500), 3);
        let rest = Headers { length: merged.length + 1, payload: merged.payload + 1, ..merged };
        assert_eq!(segments(&rest, 1500), 4);
        assert_eq!(segments(&merged, u32::MAX), 1);
        assert_eq!(segments(&Headers { length: 1500, payload: 1460, ..Headers::EMPTY }, 1500), 1);
        let rule = SizeRule { min: 0, max: 1500, min_payload: 0, max_payload: 1460, slot: 0, monitor: 0, padding: 0 };
        assert_eq!(rule.judge(&merged, 1500), Ok(()));
        assert_eq!(rule.judge(&merged, u32::MAX), Err(DropReason::PacketTooLarge));
        let tight = SizeRule { max_payload: 1459, ..rule };
        assert_eq!(tight.judge(&merged, 1500), Err(DropReason::PayloadTooLarge));
    }
}
