//! The vocabulary of verdicts: why a packet is dropped, and by which layer of rules.

/// Defines [`DropReason`] with the name each reason has in events, metrics and documentation.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $value:literal $name:literal,)*) => {
        /// Why the DMZ layer drops a packet. The numbers are ABI: they index counters and travel in events.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $variant = $value,)*
        }

        impl DropReason {
            /// Every reason, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in events, metrics and documentation.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The reason with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($value => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    /// A header is cut short by the end of the frame, or lies beyond the part of it that a program can read.
    Truncated = 0 "truncated",
    /// A length field contradicts the frame or another field.
    BadLength = 1 "bad-length",
    /// More than two VLAN tags.
    VlanDepth = 2 "vlan-depth",
    /// More than six IPv6 extension headers.
    ExtensionHeaders = 3 "extension-headers",
    /// A first fragment without the whole header chain (RFC 7112), or TCP at fragment offset 1 (RFC 3128).
    FragmentHeader = 4 "fragment-header",
    /// Source on a block list.
    BlockList = 5 "block-list",
    /// Source banned.
    Ban = 6 "ban",
    /// TCP flags that no stack sends.
    TcpFlags = 7 "tcp-flags",
    /// TCP port 0 at either end, or UDP destination port 0.
    PortZero = 8 "port-zero",
    /// Source equals destination.
    Land = 9 "land",
    /// A source address that cannot be one: 0/8, 127/8, 224/4, 240/4, ::, ::1, ff00::/8, ::ffff:0:0/96.
    Bogon = 10 "bogon",
    /// One of the host's own addresses as source.
    OwnSource = 11 "own-source",
    /// A private source address (RFC 1918, RFC 6598, RFC 4193), where these are refused.
    PrivateSource = 12 "private-source",
    /// A link-local source address (169.254/16, fe80::/10), where these are refused.
    LinkLocalSource = 13 "link-local-source",
    /// A fragment, where these are refused.
    Fragment = 14 "fragment",
    /// UDP from a port known for reflection that answers nothing we sent.
    Reflection = 15 "reflection",
    /// Larger than the largest packet allowed.
    PacketTooLarge = 16 "packet-too-large",
    /// Smaller than the smallest packet allowed.
    PacketTooSmall = 17 "packet-too-small",
    /// Larger payload than allowed.
    PayloadTooLarge = 18 "payload-too-large",
    /// Smaller payload than allowed.
    PayloadTooSmall = 19 "payload-too-small",
    /// A first fragment to a port with a size rule: the size of the whole cannot be judged.
    SizedFragment = 20 "sized-fragment",
    /// The port or protocol does not exist for the outside, and the packet is no reply.
    NotExposed = 21 "not-exposed",
    /// More packets than the rate allows.
    PacketRate = 22 "packet-rate",
    /// More bytes than the rate allows.
    ByteRate = 23 "byte-rate",
    /// More new connections than the rate allows.
    ConnectionRate = 24 "connection-rate",
    /// More control traffic (ICMP errors, neighbour discovery, MLD, DHCP) than the built-in limit.
    ControlRate = 25 "control-rate",
    /// UDP to a port whose TLS connections the gateway inspects, and no reply: QUIC would go around it.
    Quic = 26 "quic",
}

/// Why a packet passed, for the counters: the first of these that is true of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassReason {
    /// Not IP: ARP and others, which the DMZ layer does not judge.
    NonIp,
    /// Control traffic, see [`crate::hygiene::Control`].
    Control,
    /// A reply in a flow of ours.
    Reply,
    /// A reply, by the socket that waits for it.
    ReplySocket,
    /// Its source is on an allow list.
    Allowed,
    /// It went through every stage.
    Judged,
}

/// A verdict against a packet: the reason, and the rule that gave it, if it was one the user wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condemned {
    pub reason: DropReason,
    /// Counter slot of the rule, [`crate::counter::NO_RULE`] if none.
    pub rule: u16,
    /// Counted and reported, but not dropped.
    pub monitor: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_one_to_one() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert_eq!(DropReason::from_number(index as u8), Some(*reason));
            let twins = DropReason::ALL.iter().filter(|other| other.name() == reason.name()).count();
            assert_eq!(twins, 1, "{}", reason.name());
        }
        assert_eq!(DropReason::from_number(DropReason::ALL.len() as u8), None);
    }
}
