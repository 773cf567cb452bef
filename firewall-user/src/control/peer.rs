//! Who is at the other end of the control socket, and whether they may use it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::{
    errno::Errno,
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::{Gid, Uid},
};

/// The credentials a peer had when it connected, as the kernel recorded them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    /// Supplementary groups.
    pub(super) groups: Vec<Gid>,
}

impl Peer {
    pub(super) fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = getsockopt(&socket.as_fd(), PeerCredentials)?;
        Ok(Self {
            uid: Uid::from_raw(credentials.uid()),
            gid: Gid::from_raw(credentials.gid()),
            groups: groups_of(socket)?,
        })
    }

    /// Root, the agent's own user `own`, and the members of `group`.
    pub(super) fn is_admitted(&self, own: Uid, group: Option<Gid>) -> bool {
        self.uid.is_root()
            || self.uid == own
            || group.is_some_and(|group| self.gid == group || self.groups.contains(&group))
    }
}

/// Reads SO_PEERGROUPS (Linux 4.13). Unlike /proc/PID/status it cannot describe another process that has the peer's
/// number by now, or the peer after it has changed its groups.
fn groups_of(socket: &impl AsFd) -> io::Result<Vec<Gid>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 32];
    loop {
        let mut length = size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: `groups` has room for `length` bytes, any of which may be written, and both pointers outlive the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<libc::gid_t>();
        match Errno::result(result) {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups.into_iter().map(Gid::from_raw).collect());
            }
            // The kernel says how much room it needs.
            Err(Errno::ERANGE) if count > groups.len() => groups.resize(count, 0),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn admits_root_itself_and_the_group() {
        let (own, group) = (Uid::from_raw(990), Gid::from_raw(500));
        let peer = |uid, gid, groups: &[u32]| Peer {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups: groups.iter().copied().map(Gid::from_raw).collect(),
        };
        for (description, peer, alone, with_group) in [
            ("root", peer(0, 0, &[]), true, true),
            ("the agent's user", peer(990, 990, &[]), true, true),
            ("a stranger", peer(1000, 1000, &[4, 27]), false, false),
            ("primary group", peer(1000, 500, &[]), false, true),
            ("supplementary group", peer(1000, 1000, &[4, 500]), false, true),
            ("a user whose number is the group's", peer(500, 1000, &[]), false, false),
            ("root's group", peer(1000, 0, &[0]), false, false),
        ] {
            assert_eq!(peer.is_admitted(own, None), alone, "{description}");
            assert_eq!(peer.is_admitted(own, Some(group)), with_group, "{description}");
        }
    }

    #[test]
    fn reads_its_own_credentials() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        assert_eq!((peer.uid, peer.gid), (Uid::effective(), Gid::effective()));
        assert_eq!(peer.groups, nix::unistd::getgroups().unwrap());
    }

    #[test]
    fn reads_the_groups_of_another_process() {
        if !Uid::effective().is_root() {
            eprintln!("skipped: only root can change its groups");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let supplementary: Vec<libc::gid_t> = (2000..2100).collect();
        let expected: Vec<Gid> = supplementary.iter().copied().map(Gid::from_raw).collect();
        std::thread::spawn(move || {
            UnixStream::connect(&path).unwrap();
            // The system calls, not the functions of libc, which would change every thread.
            // SAFETY: they change the credentials of this thread only, and read `supplementary` within its bounds.
            let results = unsafe {
                [
                    libc::syscall(libc::SYS_setgroups, supplementary.len(), supplementary.as_ptr()),
                    libc::syscall(libc::SYS_setresgid, 1001, 1001, 1001),
                ]
            };
            assert_eq!(results, [0, 0]);
            UnixStream::connect(&path).unwrap();
        })
        .join()
        .unwrap();
        let (first, _) = listener.accept().unwrap();
        assert_eq!(Peer::of(&first).unwrap().gid, Gid::effective());
        let (second, _) = listener.accept().unwrap();
        let peer = Peer::of(&second).unwrap();
        assert_eq!((peer.gid, peer.groups), (Gid::from_raw(1001), expected));
    }
}
