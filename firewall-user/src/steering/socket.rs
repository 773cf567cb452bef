//! The agent's sockets in a steered namespace: the listener, and connections to the application.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd as _},
    sync::Arc,
    time::Duration,
};

use aya::maps::MapData;
use firewall_common::steer::{OwnEntry, OwnKey, own, seen};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Protocol, Socket, Type};

use super::Steering;
use crate::{agent::bans::now, dmz::syscall};

/// Connections that may wait to be accepted; `net.core.somaxconn` of the namespace bounds it, too.
const BACKLOG: i32 = 4096;
/// How long an entry of [`OwnKey`] holds: longer than anybody waits for a connection on the same host.
const OWN_LIFETIME: Duration = Duration::from_secs(120);

impl Steering {
    /// A listener for [`Self::set_listener`]: non-blocking, on a port that the kernel picks, where nobody can connect
    /// directly while it is in force. It takes IPv4 and IPv6; where the kernel has no IPv6, IPv4 alone.
    ///
    /// IPv4 addresses of its connections are IPv4-mapped. The local address is the one that the client wanted.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel has no room for a socket.
    pub fn listener(&self) -> io::Result<TcpListener> {
        self.netns.enter(|| match listen(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, 0).into()) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                listen(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, 0).into())
            }
            result => result,
        })?
    }

    /// A non-blocking socket that is not connected yet, for a connection to the application at `destination`: where the client
    /// wanted to go. Its source is that same address, so what is served at one address only is reached, nobody from outside
    /// becomes 127.0.0.1, and it is not steered.
    ///
    /// With `local_clients` not even that source is exempt, hence the exemption: hold it until the connection is there, 120
    /// seconds at most.
    ///
    /// # Errors
    /// The address is not one of the namespace, all ports are in use, or the namespace cannot be entered.
    pub fn upstream_socket(
        &self,
        destination: SocketAddr,
        local_clients: bool,
    ) -> io::Result<(TcpStream, Option<Exemption>)> {
        let destination = canonical(destination);
        let mut source = destination;
        source.set_port(0);
        let socket = self.netns.enter(|| new(Domain::for_address(destination)))??;
        if local_clients {
            // The port must be known before the connection: it is taken for all destinations, but for those in TIME_WAIT.
            socket.set_reuse_address(true)?;
            socket.bind(&source.into())?;
            mark(&socket)?;
        } else {
            // The port is chosen with the destination, so that there are enough of them.
            mark(&socket)?;
            socket.bind(&source.into())?;
        }
        socket.set_nonblocking(true)?;
        let exemption = if local_clients {
            let source = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
            Some(self.register(destination, source.port(), own::UPSTREAM, OWN_LIFETIME)?)
        } else {
            None
        };
        Ok((socket.into(), exemption))
    }

    /// Writes down a connection of ours from an address to itself, before it is made.
    pub(super) fn register(
        &self,
        destination: SocketAddr,
        source_port: u16,
        kind: u32,
        lifetime: Duration,
    ) -> io::Result<Exemption> {
        let key = OwnKey { address: destination.ip().into(), port: destination.port(), source_port };
        let until = now() + u64::try_from(lifetime.as_nanos()).unwrap_or(0);
        let entry = OwnEntry { until, kind, seen: seen::NOTHING };
        syscall::update(self.own.fd().as_fd(), &key, &[entry])?;
        Ok(Exemption { map: Arc::clone(&self.own), key, until })
    }
}

/// A connection of ours that is registered as such until this is dropped.
pub struct Exemption {
    map: Arc<MapData>,
    key: OwnKey,
    until: u64,
}

impl Exemption {
    /// The entry, if it is still this one's.
    pub(super) fn entry(&self) -> Option<OwnEntry> {
        let mut entry = [OwnEntry::default()];
        let found = syscall::lookup(self.map.fd().as_fd(), &self.key, &mut entry).unwrap_or(false);
        (found && entry[0].until == self.until).then_some(entry[0])
    }
}

impl std::fmt::Debug for Exemption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exemption").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Drop for Exemption {
    fn drop(&mut self) {
        // The port may have been given to the next connection already.
        if self.entry().is_some() {
            let _expires = syscall::delete(self.map.fd().as_fd(), &self.key);
        }
    }
}

/// Sets what tells our sockets from others in a dump of all: an option that means nothing to a bound socket, that no server
/// sets on its listener, and that connections inherit from theirs. See `existing`.
pub(super) fn mark(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, IpBindAddressNoPort, &true)?)
}

/// The number that the kernel gives a socket, and to no other until it is started anew.
pub(super) fn cookie(socket: &impl AsFd) -> io::Result<u64> {
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes to the word, which outlives the call.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_COOKIE, (&raw mut cookie).cast(), &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// An IPv4-mapped address as what it stands for. Others keep their scope.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

pub(super) fn new(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM, Some(Protocol::TCP))
}

fn listen(domain: Domain, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = new(domain)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    // Connections inherit it, and have the application's port: it could not be started anew while there are some.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    mark(&socket)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_become_what_they_stand_for() {
        let canonical = |text: &str| canonical(text.parse().unwrap()).to_string();
        assert_eq!(canonical("[::ffff:192.0.2.1]:80"), "192.0.2.1:80");
        for same in ["192.0.2.1:80", "[2001:db8::1]:80", "[fe80::1%3]:80", "[::1]:80"] {
            assert_eq!(canonical(same), same);
        }
    }
}
