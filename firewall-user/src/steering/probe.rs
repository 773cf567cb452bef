//! Proof that connections are handed to the agent, by making some: from the host to itself, through what it does to
//! destinations on the way. The kernel's program tells what became of them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::PoisonError,
    time::{Duration, Instant},
};

use firewall_common::steer::{own, seen};
use nix::{
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sys::socket::{AddressFamily, SockaddrLike as _},
};
use socket2::Domain;

use super::{
    Steering,
    socket::{canonical, new},
};

/// A connection on the same host is there at once, or not at all.
const CONNECT: Duration = Duration::from_millis(500);
/// How long the agent knows a probe's source: until it surely has accepted it.
const REMEMBERED: Duration = Duration::from_secs(30);

/// What became of the probes of a port.
#[derive(Debug)]
pub enum Probe {
    /// They came to the agent. Only destination NAT that is for packets from outside alone would be missed.
    Intercepted,
    /// They came to the kernel's program, but no agent was in force.
    NotInForce,
    /// One to this address went elsewhere: destination NAT, such as that of published containers. What is served there is
    /// not protected.
    Diverted { address: IpAddr },
    /// No connection could be tried.
    Unreachable { address: IpAddr, error: io::Error },
    /// The namespace has no addresses but loopback ones.
    NoAddress,
}

impl Steering {
    /// Tries `port`, which must be steered, at every address of the namespace but loopback and link-local ones. Takes up to
    /// half a second for each address where nothing answers: not for a thread that serves.
    ///
    /// # Errors
    /// The addresses cannot be listed.
    pub fn probe(&self, port: u16) -> io::Result<Probe> {
        let mut result = Probe::NoAddress;
        for address in self.netns.enter(addresses)?? {
            let tried = self.probe_one(SocketAddr::new(address, port));
            let one = match tried {
                Ok(seen::STEERED) => Probe::Intercepted,
                Ok(seen::GONE) => Probe::NotInForce,
                Ok(_) => return Ok(Probe::Diverted { address }),
                Err(error) => Probe::Unreachable { address, error },
            };
            if weight(&one) > weight(&result) {
                result = one;
            }
        }
        Ok(result)
    }

    /// Whether a connection that was accepted from `peer` is a probe of ours: nothing will come of it.
    pub fn is_probe(&self, peer: SocketAddr) -> bool {
        let peer = canonical(peer);
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        probes.iter().any(|(source, began)| *source == peer && began.elapsed() < REMEMBERED)
    }

    /// One of [`seen`], or why no connection could be tried.
    fn probe_one(&self, destination: SocketAddr) -> io::Result<u32> {
        let socket = self.netns.enter(|| new(Domain::for_address(destination)))??;
        let mut source = destination;
        source.set_port(0);
        socket.bind(&source.into())?;
        let source = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        {
            let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
            probes.retain(|(_, began)| began.elapsed() < REMEMBERED);
            probes.push((source, Instant::now()));
        }
        let registered = self.register(destination, source.port(), own::PROBE, 2 * CONNECT)?;
        let result = socket.connect_timeout(&destination.into(), CONNECT);
        match (registered.entry().map_or(seen::NOTHING, |entry| entry.seen), result) {
            (seen::NOTHING, Err(error)) if never_left(&error) => Err(error),
            (what, _) => Ok(what),
        }
    }
}

/// Whether the packet did not leave the socket at all.
fn never_left(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EADDRNOTAVAIL | libc::ENETUNREACH | libc::ENETDOWN | libc::EHOSTUNREACH | libc::EPERM | libc::EACCES
        )
    )
}

/// Of two results, which one tells more; a diverted one ends the search.
const fn weight(probe: &Probe) -> u8 {
    match probe {
        Probe::NoAddress => 0,
        Probe::Unreachable { .. } => 1,
        Probe::Intercepted => 2,
        Probe::NotInForce => 3,
        Probe::Diverted { .. } => 4,
    }
}

/// Addresses of the calling thread's namespace.
fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for interface in getifaddrs()? {
        if !interface.flags.contains(InterfaceFlags::IFF_UP) {
            continue;
        }
        let Some(address) = interface.address else { continue };
        let ip = match address.family() {
            Some(AddressFamily::Inet) => address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip())),
            Some(AddressFamily::Inet6) => address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())),
            _ => None,
        };
        let is_link_local = |ip: &IpAddr| match ip {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        addresses.extend(ip.filter(|ip| !ip.is_loopback() && !ip.is_unspecified() && !is_link_local(ip)));
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}
