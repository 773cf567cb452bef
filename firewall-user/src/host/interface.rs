//! Network interfaces: index, kind, MTU, and the offloads that would hide packets from the DMZ layer.

use std::{
    ffi::c_void,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    /// `ARPHRD_*`; Ethernet is 1.
    pub hardware: u16,
    pub mtu: u32,
}

/// ARPHRD_ETHER: frames begin with an Ethernet header.
const ETHERNET: u16 = 1;

impl Interface {
    /// `None` if there is no interface of this name.
    pub fn find(name: &str) -> io::Result<Option<Self>> {
        let Ok(index) = nix::net::if_::if_nametoindex(name) else {
            return Ok(None);
        };
        let request = Request::new(name)?;
        // SAFETY: SIOCGIFHWADDR fills `ifru_hwaddr`.
        let hardware = unsafe { request.ask(libc::SIOCGIFHWADDR)?.ifr_ifru.ifru_hwaddr.sa_family };
        // SAFETY: SIOCGIFMTU fills `ifru_mtu`.
        let mtu = unsafe { request.ask(libc::SIOCGIFMTU)?.ifr_ifru.ifru_mtu };
        Ok(Some(Self { name: name.to_owned(), index, hardware, mtu: u32::try_from(mtu).unwrap_or(0) }))
    }

    pub fn is_ethernet(&self) -> bool {
        self.hardware == ETHERNET
    }

    /// Switches an offload on or off; gives what it was. Asks again afterwards: some drivers agree and do nothing.
    pub fn set_offload(&self, offload: Offload, on: bool) -> Result<bool, OffloadError> {
        let failed = |source| OffloadError { interface: self.name.clone(), offload, source };
        let before = self.offload(offload).map_err(failed)?;
        if before != on {
            self.change(offload, on).map_err(failed)?;
            if self.offload(offload).map_err(failed)? != on {
                return Err(failed(io::Error::other("the driver does not let go of it")));
            }
        }
        Ok(before)
    }

    fn offload(&self, offload: Offload) -> io::Result<bool> {
        let (get, _, bit) = offload.commands();
        Ok(self.ethtool(get, 0)? & bit != 0)
    }

    fn change(&self, offload: Offload, on: bool) -> io::Result<()> {
        let (get, set, bit) = offload.commands();
        let value = self.ethtool(get, 0)?;
        self.ethtool(set, if on { value | bit } else { value & !bit })?;
        Ok(())
    }

    /// One `struct ethtool_value` through SIOCETHTOOL.
    fn ethtool(&self, command: u32, value: u32) -> io::Result<u32> {
        let mut exchanged = [command, value];
        let mut request = Request::new(&self.name)?;
        request.ifreq.ifr_ifru.ifru_data = exchanged.as_mut_ptr().cast::<libc::c_char>();
        request.ask(libc::SIOCETHTOOL)?;
        Ok(exchanged[1])
    }
}

/// What a network card or the stack does to packets before a program sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offload {
    /// Merges TCP segments: sizes and packet rates of a generic-mode program would count merged packets.
    GenericReceive,
    /// The same, in the card.
    LargeReceive,
    /// Takes VLAN tags out of frames: the program would not see them.
    VlanStripping,
}

impl Offload {
    /// Commands to read and write, and the bit within the value (`linux/ethtool.h`).
    const fn commands(self) -> (u32, u32, u32) {
        match self {
            Self::GenericReceive => (0x2b, 0x2c, 1),
            Self::LargeReceive => (0x25, 0x26, 1 << 15),
            Self::VlanStripping => (0x25, 0x26, 1 << 8),
        }
    }

    /// As `ethtool -K` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GenericReceive => "gro",
            Self::LargeReceive => "lro",
            Self::VlanStripping => "rxvlan",
        }
    }
}

#[derive(Debug)]
pub struct OffloadError {
    pub interface: String,
    pub offload: Offload,
    pub source: io::Error,
}

impl std::fmt::Display for OffloadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} cannot be switched: {}", self.interface, self.offload.name(), self.source)
    }
}

impl std::error::Error for OffloadError {}

/// A `struct ifreq` for one interface, and the socket to send it through.
struct Request {
    socket: OwnedFd,
    ifreq: libc::ifreq,
}

impl Request {
    fn new(name: &str) -> io::Result<Self> {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        // SAFETY: all zero is a valid `ifreq`.
        let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= ifreq.ifr_name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in ifreq.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        Ok(Self { socket, ifreq })
    }

    fn ask(&self, command: libc::Ioctl) -> io::Result<libc::ifreq> {
        let mut ifreq = self.ifreq;
        let argument: *mut c_void = (&raw mut ifreq).cast();
        // SAFETY: every command used here takes a `struct ifreq`; where it points elsewhere (SIOCETHTOOL), the caller keeps
        // what it points to.
        if unsafe { libc::ioctl(self.socket.as_raw_fd(), command, argument) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(ifreq)
    }
}
