//! The one record of a namespace, in the memory of the agent and of the kernel at once: to beat costs no system call.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use aya::maps::MapData;
use firewall_common::{
    ABI_VERSION,
    steer::{HEARTBEAT_LIFETIME, SteerControl},
};

use crate::agent::bans::now;

pub(super) struct Control(NonNull<SteerControl>);

// SAFETY: the mapping belongs to no thread, and its fields are touched by atomic operations only.
unsafe impl Send for Control {}
// SAFETY: as above.
unsafe impl Sync for Control {}

impl Control {
    /// Maps the record of this array, which lives on without its descriptor.
    pub(super) fn of(map: &MapData) -> io::Result<Self> {
        let (length, access) = (size_of::<SteerControl>(), libc::PROT_READ | libc::PROT_WRITE);
        let fd = map.fd().as_fd().as_raw_fd();
        // SAFETY: a new mapping, wherever the kernel wants it.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, fd, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // The kernel maps nothing at 0.
        NonNull::new(address.cast()).map(Self).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    pub(super) fn abi(&self) -> u32 {
        // SAFETY: a live, aligned word of the mapping, as below.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.0.as_ptr()).abi) }.load(Ordering::Relaxed)
    }

    pub(super) fn stamp(&self) {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.0.as_ptr()).abi) }.store(ABI_VERSION, Ordering::Relaxed);
    }

    /// Cookie of the listener in force.
    pub(super) fn listener(&self) -> &AtomicU64 {
        // SAFETY: the mapping is page-aligned, lives as long as `self`, and this word of it is used as an atomic only.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.0.as_ptr()).listener) }
    }

    fn heartbeat(&self) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.0.as_ptr()).heartbeat) }
    }

    pub(super) fn beat(&self) {
        self.heartbeat().store(now(), Ordering::Relaxed);
    }

    pub(super) fn is_alive(&self) -> bool {
        now().saturating_sub(self.heartbeat().load(Ordering::Relaxed)) < HEARTBEAT_LIFETIME
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of this length, and nobody can refer to it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<SteerControl>()) };
    }
}
