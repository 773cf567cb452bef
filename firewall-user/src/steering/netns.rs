//! Network namespaces: the agent's own, or one named by a path, such as that of a container.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use nix::sched::{CloneFlags, setns};

/// The inode of what is at `path`; `None` if nothing is.
pub fn inode_at(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|about| about.ino())
}

const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace. It is kept from going while this is open.
#[derive(Debug)]
pub struct Netns {
    file: File,
    inode: u32,
}

impl Netns {
    /// The one at `path`; that of the calling thread without it.
    ///
    /// # Errors
    /// There is nothing at the path, or it is no network namespace.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let file = File::open(path.unwrap_or(Path::new(OWN)))?;
        // SAFETY: it takes no argument, and fails on what is no namespace.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
        if kind != libc::CLONE_NEWNET {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a network namespace"));
        }
        let inode = u32::try_from(file.metadata()?.ino()).map_err(io::Error::other)?;
        Ok(Self { file, inode })
    }

    /// What tells it from all others that there are at the same time.
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// Whether `path` leads to this one still: a container that was started anew has another.
    pub fn is_at(&self, path: &Path) -> bool {
        inode_at(path) == Some(u64::from(self.inode))
    }

    /// Whether `socket` was made in it.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn has(&self, socket: &impl AsFd) -> io::Result<bool> {
        // SAFETY: it takes no argument, and gives a descriptor.
        let fd = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just opened it for us.
        let netns = unsafe { File::from_raw_fd(fd) };
        Ok(netns.metadata()?.ino() == u64::from(self.inode))
    }

    /// Runs `inside` on this thread in the namespace, and comes back. Sockets that it makes stay there, whoever uses them.
    ///
    /// A thread that cannot come back would go on in the wrong network: then the process ends.
    ///
    /// # Errors
    /// The namespace could not be entered, and nothing was run.
    pub fn enter<T>(&self, inside: impl FnOnce() -> T) -> io::Result<T> {
        if self.is_at(Path::new(OWN)) {
            return Ok(inside());
        }
        let back = Back(File::open(OWN)?);
        setns(&self.file, CloneFlags::CLONE_NEWNET)?;
        let result = inside();
        drop(back);
        Ok(result)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// `_IO(0xb7, 0x3)` of `linux/nsfs.h` (Linux 4.11).
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
/// Of `linux/sockios.h` (Linux 4.10).
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// Comes back when dropped, be it by a panic.
struct Back(File);

impl Drop for Back {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.0, CloneFlags::CLONE_NEWNET) {
            eprintln!("a thread cannot leave a network namespace: {error}");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_told_from_what_is_none() {
        let own = Netns::open(None).unwrap();
        let same = Netns::open(Some(Path::new(OWN))).unwrap();
        assert!(same.inode() == own.inode() && own.is_at(Path::new(OWN)));
        for other in ["/proc/thread-self/ns/mnt", "/dev/null", "/proc/self/status"] {
            assert!(Netns::open(Some(Path::new(other))).is_err(), "{other}");
            assert!(!own.is_at(Path::new(other)));
        }
        assert!(Netns::open(Some(Path::new("/nowhere"))).is_err());
        assert_eq!(own.enter(|| 7).unwrap(), 7);
    }
}
