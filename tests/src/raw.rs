//! AF_PACKET sockets: frames out as they are, and a witness of frames that came in.
//!
//! A socket on the host sees a frame only after the XDP program passed it, native or generic, and before anything else of
//! the stack judges it: what the witness saw has passed, what it did not see was dropped.

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{frame::without_ethernet, netns::Namespace};

const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const ALL_PROTOCOLS: u16 = libc::ETH_P_ALL as u16;
/// Room for a burst of frames that nobody has read yet.
const BUFFER: libc::c_int = 16 << 20;

/// A raw socket on one interface. It receives every frame that arrives there, none that leaves.
#[derive(Debug)]
pub struct Raw {
    socket: OwnedFd,
}

impl Raw {
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let index = namespace.interface_index(interface)?;
        let socket = namespace.enter(open).context("opening a packet socket")?;
        set(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1).context("PACKET_IGNORE_OUTGOING")?;
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER).context("SO_RCVBUFFORCE")?;
        // SAFETY: all zero is a valid `sockaddr_ll`.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ALL_PROTOCOLS.to_be();
        address.sll_ifindex = i32::try_from(index)?;
        // SAFETY: `address` is a `sockaddr_ll` of the length given, and lives through the call.
        let bound = unsafe {
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32)
        };
        check(bound as isize).with_context(|| format!("binding to {interface}"))?;
        Ok(Self { socket })
    }

    /// Puts a whole frame on the wire.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: the pointer and the length are those of a live slice.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        let sent = check(sent).with_context(|| format!("sending a frame of {} bytes", frame.len()))?;
        anyhow::ensure!(sent == frame.len(), "{sent} of {} bytes sent", frame.len());
        Ok(())
    }

    /// The next frame, without the outer VLAN tag that the kernel takes off; `None` if none comes in time.
    pub fn receive(&self, timeout: Duration) -> Option<Vec<u8>> {
        let mut frame = vec![0; 1 << 16];
        let length = self.receive_into(&mut frame, timeout)?;
        frame.truncate(length);
        Some(frame)
    }

    /// As [`Raw::receive`], into a buffer; gives the length.
    pub fn receive_into(&self, buffer: &mut [u8], timeout: Duration) -> Option<usize> {
        let deadline = Instant::now() + timeout;
        loop {
            // SAFETY: the pointer and the length are those of a live buffer.
            let read = unsafe {
                libc::recv(self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
            };
            if let Ok(length) = check(read) {
                return Some(length);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            let milliseconds = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            // SAFETY: one `pollfd`, which lives through the call.
            unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
        }
    }

    /// Frames that came in since the last call, but found no room to wait for a reader.
    pub fn lost(&self) -> Result<u32> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the value has the size given, and both live through the call.
        let done = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        check(done as isize).context("PACKET_STATISTICS")?;
        Ok(statistics.tp_drops)
    }

    /// Forgets everything received so far.
    pub fn clear(&self) {
        while self.receive(Duration::ZERO).is_some() {}
    }

    /// The first frame that `wanted` accepts; others are forgotten.
    pub fn wait_for(&self, timeout: Duration, mut wanted: impl FnMut(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            let frame = self.receive(deadline.saturating_duration_since(Instant::now()))?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// How many of these frames arrive before the time is up, each one counted as often as it was sent. Returns early once
    /// all have.
    pub fn count_arrivals(&self, sent: &[Vec<u8>], timeout: Duration) -> usize {
        let mut missing: Vec<&[u8]> = sent.iter().map(|frame| without_ethernet(frame)).collect();
        let deadline = Instant::now() + timeout;
        while !missing.is_empty() {
            let Some(frame) = self.receive(deadline.saturating_duration_since(Instant::now())) else { break };
            if let Some(found) = missing.iter().position(|body| frame.ends_with(body)) {
                missing.swap_remove(found);
            }
        }
        sent.len() - missing.len()
    }
}

fn open() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: takes and returns integers only. Protocol 0 receives nothing before `bind` names one.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    check(fd as isize)?;
    // SAFETY: the descriptor is new, open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as u32;
    // SAFETY: the value is an integer of the length given, and lives through the call.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    check(done as isize).map(drop)
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_negative| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame::Frame,
        netns::{HOST_V4, INTERFACE, World},
    };

    #[test]
    fn the_witness_sees_what_arrives_and_nothing_else() {
        let world = World::new().unwrap();
        let client = Raw::open(&world.client, INTERFACE).unwrap();
        let witness = Raw::open(&world.host, INTERFACE).unwrap();
        let base = Frame::v4("198.51.100.7", HOST_V4);
        let plain = base.clone().udp(1, 2).payload(9).build();
        let tagged = base.clone().udp(3, 4).payload(9).vlan(5).build();
        let twice_tagged = base.clone().udp(5, 6).payload(9).vlan(5).vlan(6).build();
        let never_sent = base.udp(7, 8).payload(9).build();
        for frame in [&plain, &tagged, &twice_tagged] {
            client.send(frame).unwrap();
        }
        let sent = [plain.clone(), tagged, twice_tagged];
        assert_eq!(witness.count_arrivals(&sent, Duration::from_secs(2)), 3);
        client.send(&plain).unwrap();
        assert_eq!(witness.count_arrivals(&[never_sent, plain.clone(), plain], Duration::from_millis(200)), 1);
        // What the host itself sends is no arrival.
        witness.clear();
        world.host.run("ping", &["-c1", "-W1", "192.0.2.2"]).unwrap();
        let own = witness.wait_for(Duration::from_millis(200), |frame| frame[6..12] == crate::netns::HOST_MAC);
        assert_eq!(own, None);
    }
}
