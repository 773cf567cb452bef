//! Tells when interfaces, addresses or routes change, so that the agent looks again.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use tokio::io::{Interest, unix::AsyncFd};

/// A subscription to the kernel's routing messages. Their content is not read: whoever is told looks for himself.
#[derive(Debug)]
pub struct Changes {
    socket: AsyncFd<OwnedFd>,
}

impl Changes {
    pub fn subscribe() -> io::Result<Self> {
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_ROUTE;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups.cast_unsigned()))?;
        // SAFETY: the descriptor is owned by what is registered, and an `OwnedFd` is always the same descriptor.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE)? };
        Ok(Self { socket })
    }

    /// Waits for the next change, or several at once.
    pub async fn next(&self) -> io::Result<()> {
        let mut ready = self.socket.readable().await?;
        let mut buffer = [0u8; 8192];
        loop {
            match recv(self.socket.get_ref().as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(_) => {}
                Err(nix::errno::Errno::EAGAIN) => break,
                // Messages were lost: all the more reason to look.
                Err(nix::errno::Errno::ENOBUFS | nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}
