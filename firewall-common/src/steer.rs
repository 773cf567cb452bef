//! Steering: which connections the kernel hands to the agent instead of the application that listens on their port, and what
//! happens to them while there is no agent.
//!
//! One set of these tables belongs to one network namespace.

use crate::{address::Addr, pod};

/// Ports that can be steered in one namespace.
pub const MAX_PORTS: u32 = 4096;
/// Connections of the agent itself that can be on their way at once.
pub const MAX_OWN: u32 = 16_384;
/// A heartbeat older than this, in nanoseconds, is that of an agent that is gone.
pub const HEARTBEAT_LIFETIME: u64 = 2_000_000_000;

/// What is said of a steered port: the value of its table, whose key is the port in host byte order.
pub mod flag {
    /// Without an agent nobody answers. Without this flag the application does, unprotected.
    pub const CLOSED: u32 = 1;
    /// Clients on this host are steered, too.
    pub const LOCAL_CLIENTS: u32 = 2;
}

/// The one record of a namespace. The agent writes it through a mapping, field by field; the program reads.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerControl {
    /// [`crate::ABI_VERSION`] of the agent that made the tables.
    pub abi: u32,
    pub padding: u32,
    /// When the agent was last known to be alive: nanoseconds of CLOCK_MONOTONIC.
    pub heartbeat: u64,
    /// Cookie of the listener in force, 0 if there is none: only its agent may renew the heartbeat.
    pub listener: u64,
}

pod!(SteerControl: 24);

/// A connection that the agent itself opens from an address to the same address, before it connects.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnKey {
    /// Of both ends.
    pub address: Addr,
    /// Steered, in host byte order.
    pub port: u16,
    /// The agent's end, in host byte order.
    pub source_port: u16,
}

pod!(OwnKey: 20);

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnEntry {
    /// Nanoseconds of CLOCK_MONOTONIC; from then on the entry means nothing: what an agent left that died holds no door open.
    pub until: u64,
    /// [`own`].
    pub kind: u32,
    /// [`seen`]. Written by the program, for probes.
    pub seen: u32,
}

pod!(OwnEntry: 16);

/// Kinds of [`OwnEntry`].
pub mod own {
    /// There is no entry in force. Not an `Option`: for none, the compiler would leave its content undefined, which the
    /// verifier does not forgive.
    pub const NONE: u32 = u32::MAX;
    /// To the application: never steered.
    pub const UPSTREAM: u32 = 0;
    /// To find out whether connections are steered: always is.
    pub const PROBE: u32 = 1;
}

/// What became of a probe.
pub mod seen {
    pub const NOTHING: u32 = 0;
    /// It was handed to the agent.
    pub const STEERED: u32 = 1;
    /// It came, but the agent was gone.
    pub const GONE: u32 = 2;
}

/// Counts of one port, on each CPU its own. They count lookups: a SYN that is sent again, or a segment that belongs to no
/// connection, counts once more, and so does a lookup by another program (the DMZ layer has some).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerCounts {
    /// Handed to the agent, probes left out.
    pub steered: u64,
    /// From this host, left to the application.
    pub exempt: u64,
    /// Handed to the agent: probes.
    pub probed: u64,
    /// Left to the application because the agent was gone.
    pub gone_open: u64,
    /// Refused because the agent was gone.
    pub gone_closed: u64,
    /// Of those two: there was a listener and a fresh heartbeat, but the kernel would not hand over.
    pub redirect_failed: u64,
}

pod!(SteerCounts: 48);

/// Where a connection to a steered port goes while there is an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the agent.
    Steer,
    /// To the agent, as a probe.
    Probe,
    /// To the application.
    Exempt,
}

/// Whether a client is on this host: it has the address that it connects to, or a loopback address. Neither can come from
/// outside with an answer: the kernel refuses loopback sources from a wire, and answers to one's own address stay here.
#[inline(always)]
pub fn is_local(remote: &Addr, local: &Addr) -> bool {
    const LOOPBACK_V6: Addr = Addr([0, 0, 0, 1_u32.to_be()]);
    remote == local || *remote == LOOPBACK_V6 || (remote.is_v4() && u32::from_be(remote.v4_word()) >> 24 == 127)
}

/// `flags` are those of the port, `own` is the kind of the entry for exactly this connection.
#[inline(always)]
pub const fn way(flags: u32, is_local: bool, own: u32) -> Way {
    match own {
        _ if !is_local => Way::Steer,
        own::PROBE => Way::Probe,
        own::NONE if flags & flag::LOCAL_CLIENTS != 0 => Way::Steer,
        _ => Way::Exempt,
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    fn local(remote: &str, local: &str) -> bool {
        let address = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        is_local(&address(remote), &address(local))
    }

    #[test]
    fn a_client_is_local_by_its_address_alone() {
        for address in ["192.0.2.1", "2001:db8::1", "fe80::1", "127.0.0.1", "::1"] {
            assert!(local(address, address), "{address}");
        }
        for loopback in ["127.0.0.1", "127.255.255.254", "::1"] {
            assert!(local(loopback, "192.0.2.1"), "{loopback}");
        }
        for (remote, to) in [
            ("192.0.2.2", "192.0.2.1"),
            ("128.0.0.1", "192.0.2.1"),
            ("126.255.255.255", "127.0.0.1"),
            ("2001:db8::2", "2001:db8::1"),
            ("::2", "::1"),
            ("::", "::1"),
            // No IPv4 address, whatever it looks like.
            ("::127.0.0.1", "2001:db8::1"),
            ("7f00::1", "2001:db8::1"),
        ] {
            assert!(!local(remote, to), "{remote}");
        }
    }

    #[test]
    fn who_is_steered() {
        const LOCAL: u32 = flag::LOCAL_CLIENTS;
        // Nobody outside is exempt, whatever was registered.
        for own in [own::NONE, own::UPSTREAM, own::PROBE, 7] {
            for flags in [0, flag::CLOSED, LOCAL, flag::CLOSED | LOCAL] {
                assert_eq!(way(flags, false, own), Way::Steer);
            }
        }
        assert_eq!(way(0, true, own::NONE), Way::Exempt);
        assert_eq!(way(flag::CLOSED, true, own::NONE), Way::Exempt);
        assert_eq!(way(LOCAL, true, own::NONE), Way::Steer);
        assert_eq!(way(LOCAL, true, own::UPSTREAM), Way::Exempt);
        for flags in [0, LOCAL] {
            assert_eq!(way(flags, true, own::PROBE), Way::Probe);
        }
    }
}
