//! The control socket as a file: made so that it never exists with the wrong owner, and never takes the place of one
//! that is in use.

use std::{
    fs::{DirBuilder, File, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::{Gid, Pid},
};
use socket2::{Domain, SockAddr, Socket, Type};

/// Why there is no control socket.
#[derive(Debug)]
pub enum BindError {
    /// Another agent answers there.
    InUse { path: PathBuf },
    /// Something that is no socket has its name.
    NotASocket { path: PathBuf },
    /// The kernel refused.
    Io { path: PathBuf, error: io::Error },
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InUse { path } => write!(f, "socket in use: another agent answers at {}", path.display()),
            Self::NotASocket { path } => write!(f, "{} is in the way: it is not a socket", path.display()),
            Self::Io { path, error } => write!(f, "cannot make the control socket {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for BindError {}

/// Listens at `path`, for root and, if there is one, for `group`. Makes the directory if it is missing and takes the
/// place of a socket that an agent has left behind. The caller's umask does not matter.
pub fn bind(path: &Path, group: Option<Gid>) -> Result<UnixListener, BindError> {
    bind_at(path, group, false)
}

/// As [`bind`], but takes the place of a socket that is in use, too: the agent behind it has handed over.
pub fn replace(path: &Path, group: Option<Gid>) -> Result<UnixListener, BindError> {
    bind_at(path, group, true)
}

fn bind_at(path: &Path, group: Option<Gid>, from_another: bool) -> Result<UnixListener, BindError> {
    let io_error = |error| BindError::Io { path: path.to_owned(), error };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(io_error)?;
    // Of two agents that start at once, one waits here and then finds the other's socket.
    let _lock = File::open(directory)
        .and_then(|file| Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into()))
        .map_err(io_error)?;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.to_owned() });
        }
        Ok(_) if !from_another && is_in_use(path).map_err(io_error)? => {
            return Err(BindError::InUse { path: path.to_owned() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(error)),
    }
    listen(path, group).map_err(io_error)
}

/// Makes the socket under another name, gives it its owner and mode, and only then its name.
fn listen(path: &Path, group: Option<Gid>) -> io::Result<UnixListener> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    let ready = || {
        if let Some(group) = group {
            std::os::unix::fs::chown(&new, None, Some(group.as_raw()))?;
        }
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        std::fs::set_permissions(&new, Permissions::from_mode(mode))?;
        listener.set_nonblocking(true)?;
        std::fs::rename(&new, path)
    };
    let result = ready();
    if result.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    result.map(|()| listener)
}

/// Whether someone listens at `path`. Does not wait: an agent that hangs is in use, too.
fn is_in_use(path: &Path) -> io::Result<bool> {
    match connect(path) {
        Ok(connected) => Ok(connected.is_some()),
        // The backlog is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

/// The process that listens at `path`, if there is one. The kernel says so, whether or not it answers.
pub fn owner(path: &Path) -> io::Result<Option<Pid>> {
    let Some(socket) = connect(path)? else { return Ok(None) };
    Ok(Some(Pid::from_raw(getsockopt(&socket, PeerCredentials)?.pid())))
}

/// A connection to whoever listens at `path`; `None` if nobody does. Does not wait.
fn connect(path: &Path) -> io::Result<Option<Socket>> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(Some(socket)),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::MetadataExt, net::UnixStream};

    use super::*;

    #[test]
    fn makes_the_directory_and_sets_the_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/control.sock");
        let listener = bind(&path, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        UnixStream::connect(&path).unwrap();
        drop(listener);

        // Its own group is one that any user may give a file to.
        let group = Gid::effective();
        let _listener = bind(&path, Some(group)).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.gid()), (0o660, group.as_raw()));
    }

    #[test]
    fn replaces_a_stale_socket_but_none_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(owner(&path).unwrap(), None);
        let listener = bind(&path, None).unwrap();
        assert_eq!(owner(&path).unwrap(), Some(Pid::this()));
        let error = bind(&path, None).unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }));
        let text = error.to_string();
        assert!(text.contains("socket in use") && text.contains(&path.display().to_string()), "{text}");
        // It is still the first one that answers.
        UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        listener.accept().unwrap();
        listener.accept().unwrap();
        let successor = replace(&path, None).unwrap();
        UnixStream::connect(&path).unwrap();
        successor.accept().unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_socket_with_a_full_backlog_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert!(matches!(bind(&path, None).unwrap_err(), BindError::InUse { .. }));
    }

    #[test]
    fn leaves_alone_what_is_no_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path, None).unwrap_err(), BindError::NotASocket { .. }));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn one_of_many_wins() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| bind(&path, None))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        UnixStream::connect(&path).unwrap();
    }
}
