//! TCP sockets of a network namespace, as the kernel's socket diagnosis tells of them (`sock_diag(7)`).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::{
    socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt},
    time::TimeVal,
};

/// States of TCP as the kernel numbers them.
pub(super) mod state {
    pub(in crate::steering) const ESTABLISHED: u8 = 1;
    pub(in crate::steering) const SYN_RECEIVED: u8 = 3;
    pub(in crate::steering) const FIN_WAIT_1: u8 = 4;
    pub(in crate::steering) const FIN_WAIT_2: u8 = 5;
    pub(in crate::steering) const CLOSE_WAIT: u8 = 8;
    pub(in crate::steering) const LISTEN: u8 = 10;
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// Attribute with the options of a socket (Linux 5.10), and the bit in its second byte that [`super::socket::mark`] sets.
const INET_DIAG_SOCKOPT: u16 = 22;
const BIND_ADDRESS_NO_PORT: u8 = 1;
/// Nobody waits for the kernel longer than this.
const TIMEOUT: i64 = 5;

/// `struct inet_diag_sockid`, in network byte order but for its last two fields.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Id {
    source_port: [u8; 2],
    destination_port: [u8; 2],
    source: [u8; 16],
    destination: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// A netlink header and `struct inet_diag_req_v2`.
#[repr(C)]
struct Request {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    sender: u32,
    family: u8,
    protocol: u8,
    extensions: u8,
    padding: u8,
    states: u32,
    id: Id,
}

const _: () = assert!(size_of::<Id>() == 48 && size_of::<Request>() == 16 + 56);

const HEADER: usize = 16;
/// `struct inet_diag_msg`.
const MESSAGE: usize = 72;

/// A socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Addresses are not IPv4-mapped.
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) state: u8,
    /// Whether [`super::socket::mark`] was called on it, or on its listener; `None` if the kernel does not tell, as for
    /// handshakes.
    pub(super) is_ours: Option<bool>,
    family: u8,
    id: Id,
}

/// A conversation with the kernel about the namespace in which it was opened.
pub(super) struct Diag {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Diag {
    pub(super) fn open() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkSockDiag;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(TIMEOUT, 0))?;
        Ok(Self { socket, buffer: vec![0; 1 << 16] })
    }

    /// Every socket in one of these states, of both families.
    pub(super) fn dump(&mut self, states: &[u8]) -> io::Result<Vec<Found>> {
        let states = states.iter().fold(0, |states, state| states | 1_u32 << state);
        let mut found = Vec::new();
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
            self.send(SOCK_DIAG_BY_FAMILY, flags, family, states, None)?;
            self.receive(|message| found.extend(parse(message)))?;
        }
        Ok(found)
    }

    /// Closes a connection at once, with a reset to both ends. `false` if it is gone already.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the kernel was built without `INET_DIAG_DESTROY`.
    pub(super) fn destroy(&mut self, found: &Found) -> io::Result<bool> {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        self.send(SOCK_DESTROY, flags, found.family, 1 << found.state, Some(found.id))?;
        match self.receive(|_| {}) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn send(&self, kind: u16, flags: u16, family: u8, states: u32, id: Option<Id>) -> io::Result<()> {
        let any = Id {
            source_port: [0; 2],
            destination_port: [0; 2],
            source: [0; 16],
            destination: [0; 16],
            interface: 0,
            cookie: [u32::MAX; 2],
        };
        let request = Request {
            length: size_of::<Request>() as u32,
            kind,
            flags,
            sequence: 0,
            sender: 0,
            family,
            protocol: libc::IPPROTO_TCP as u8,
            extensions: 0,
            padding: 0,
            states,
            id: id.unwrap_or(any),
        };
        // SAFETY: plain data without padding, as its size shows.
        let bytes = unsafe { std::slice::from_raw_parts((&raw const request).cast::<u8>(), size_of::<Request>()) };
        send(self.socket.as_raw_fd(), bytes, MsgFlags::empty())?;
        Ok(())
    }

    /// Takes messages up to the end of an answer, be it an error of the kernel's.
    fn receive(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let cut = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is cut short");
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            let mut rest = self.buffer.get(..length).ok_or_else(cut)?;
            while !rest.is_empty() {
                let length = usize::try_from(word(rest, 0).ok_or_else(cut)?).map_err(|_| cut())?;
                let message = rest.get(HEADER..length).ok_or_else(cut)?;
                match i32::from(half(rest, 4).ok_or_else(cut)?) {
                    libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                        let error = word(message, 0).map_or(0, u32::cast_signed);
                        return if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-error)) };
                    }
                    _ => each(message),
                }
                rest = rest.get(aligned(length)..).unwrap_or_default();
            }
        }
    }
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A socket from a `struct inet_diag_msg` and its attributes.
fn parse(message: &[u8]) -> Option<Found> {
    let (fixed, mut attributes) = message.split_at_checked(MESSAGE)?;
    let id = Id {
        source_port: fixed.get(4..6)?.try_into().ok()?,
        destination_port: fixed.get(6..8)?.try_into().ok()?,
        source: fixed.get(8..24)?.try_into().ok()?,
        destination: fixed.get(24..40)?.try_into().ok()?,
        interface: word(fixed, 40)?,
        cookie: [word(fixed, 44)?, word(fixed, 48)?],
    };
    let (family, state) = (*fixed.first()?, *fixed.get(1)?);
    let address = |bytes: [u8; 16], port: [u8; 2]| {
        let ip = if i32::from(family) == libc::AF_INET {
            let [a, b, c, d, ..] = bytes;
            IpAddr::from(Ipv4Addr::new(a, b, c, d))
        } else {
            IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()
        };
        SocketAddr::new(ip, u16::from_be_bytes(port))
    };
    let mut is_ours = None;
    while let (Some(length), Some(kind)) = (half(attributes, 0), half(attributes, 2)) {
        if kind == INET_DIAG_SOCKOPT {
            is_ours = attributes.get(5).map(|options| options & BIND_ADDRESS_NO_PORT != 0);
        }
        let Some(rest) = attributes.get(aligned(usize::from(length).max(4))..) else { break };
        attributes = rest;
    }
    let (local, remote) = (address(id.source, id.source_port), address(id.destination, id.destination_port));
    Some(Found { local, remote, state, is_ours, family, id })
}
