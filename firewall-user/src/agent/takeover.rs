//! `portcullis run --replace`: a new agent takes over from the one that runs, with no moment in which nobody serves.
//!
//! The new one connects to a socket that only root may use. The old one then stops everything but serving: it changes
//! nothing in the kernel any more, reads no events, writes no bans; and it sends the sockets it listens on. That connection
//! is the lease: the new one starts as it always does, taking over links and steered ports, and says so. If it goes without
//! a word, however it ended, the old one takes back what it had. Once told, the old one answers what it had accepted, and ends.

use std::{
    collections::HashMap,
    fmt,
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::{
        signal::kill,
        socket::{
            ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg, sockopt::PeerCredentials,
        },
    },
    unistd::{Pid, Uid},
};

use super::{core::Core, run::save_bans, service::Service};
use crate::paths::Paths;

/// How long the old one waits for the new one, and serves meanwhile.
const START: Duration = Duration::from_secs(120);
/// How long the new one waits for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// The most sockets of one message (SCM_MAX_FD is 253).
const BATCH: usize = 128;
/// The most bytes of a message beside its sockets.
const TEXT: usize = 512;

/// First bytes of messages of the old one.
const MORE: u8 = b'+';
const LAST: u8 = b'.';
const REFUSED: u8 = b'!';
/// What the new one says.
const TAKEN: u8 = b'.';

/// Why an agent did not take over.
#[derive(Debug)]
pub(super) enum TakeoverError {
    /// The old one said no.
    Refused(String),
    /// The old one did not wait.
    TakenBack,
    Io(io::Error),
}

impl fmt::Display for TakeoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(message) => write!(f, "the agent that runs does not hand over: {message}"),
            Self::TakenBack => f.write_str("the agent that runs did not wait, and goes on"),
            Self::Io(source) => write!(f, "the agent that runs does not hand over: {source}"),
        }
    }
}

impl std::error::Error for TakeoverError {}

impl From<io::Error> for TakeoverError {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

/// The new agent's side: as long as it lives, the old one holds still.
pub(super) struct Lease {
    stream: UnixStream,
    /// What the old one listens on.
    pub(super) listeners: HashMap<SocketAddr, TcpListener>,
}

impl Lease {
    /// Asks the agent that runs to hold still; `None` if none runs. Blocks.
    pub(super) fn ask(paths: &Paths) -> Result<Option<Self>, TakeoverError> {
        let stream = match UnixStream::connect(paths.handover()) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        stream.set_read_timeout(Some(ANSWER))?;
        let mut listeners = HashMap::new();
        loop {
            let (kind, text, sockets) = receive(&stream)?;
            for socket in sockets {
                let listener = TcpListener::from(socket);
                listeners.insert(listener.local_addr()?, listener);
            }
            match kind {
                MORE => {}
                LAST => return Ok(Some(Self { stream, listeners })),
                REFUSED => return Err(TakeoverError::Refused(text)),
                _ => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
            }
        }
    }

    /// Whether the old one waits still, or is gone.
    pub(super) fn check(&self) -> Result<(), TakeoverError> {
        self.stream.set_nonblocking(true)?;
        let read = (&self.stream).read(&mut [0]);
        self.stream.set_nonblocking(false)?;
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            _ => self.alone(),
        }
    }

    /// It does not wait any more: that is no error if it is gone.
    fn alone(&self) -> Result<(), TakeoverError> {
        let old = getsockopt(&self.stream, PeerCredentials).map_err(io::Error::from)?;
        let is_gone = kill(Pid::from_raw(old.pid()), None) == Err(Errno::ESRCH);
        if is_gone { Ok(()) } else { Err(TakeoverError::TakenBack) }
    }

    /// Tells the old one that it is relieved.
    ///
    /// # Errors
    /// It goes on. If it is gone, that is none.
    pub(super) fn take(mut self) -> Result<(), TakeoverError> {
        self.stream.write_all(&[TAKEN]).or_else(|_| self.alone())
    }
}

/// The old agent's side.
pub(super) struct Successor {
    stream: UnixStream,
    pub(super) pid: u32,
}

impl Successor {
    /// Whoever just connected; nobody but root and our own user is let.
    pub(super) fn meet(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(ANSWER))?;
        let peer = getsockopt(&stream, PeerCredentials)?;
        let user = Uid::from_raw(peer.uid());
        if !user.is_root() && user != Uid::effective() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Self { stream, pid: peer.pid().cast_unsigned() })
    }

    pub(super) fn refuse(&self, why: &str) -> io::Result<()> {
        send(&self.stream, REFUSED, why.as_bytes().get(..TEXT - 1).unwrap_or(why.as_bytes()), &[])
    }

    /// Lends it these sockets, and waits; whether it has taken over. Blocks, until [`Self::handle`] is shut down at the latest.
    pub(super) fn lend(mut self, listeners: &[TcpListener]) -> io::Result<bool> {
        let sockets: Vec<RawFd> = listeners.iter().map(|listener| listener.as_raw_fd()).collect();
        let mut rest = sockets.as_slice();
        while let Some((batch, after)) = rest.split_at_checked(BATCH) {
            send(&self.stream, MORE, &[], batch)?;
            rest = after;
        }
        send(&self.stream, LAST, &[], rest)?;
        self.stream.set_read_timeout(Some(START))?;
        let mut word = [0];
        match self.stream.read(&mut word) {
            Ok(read) => Ok(read == 1 && word == [TAKEN]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// To end the wait from elsewhere.
    pub(super) fn handle(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }
}

/// Lets another agent take over; whether it has.
pub(super) fn hand_over(
    service: &Service,
    successor: Successor,
    scraped: Option<TcpListener>,
    paused: &Mutex<bool>,
) -> bool {
    let pid = successor.pid;
    let pause = |pause: bool| *paused.lock().unwrap_or_else(PoisonError::into_inner) = pause;
    let refuse = |why: &str| {
        tracing::error!("process {pid} does not take over: {why}");
        let _gone = successor.refuse(why);
        false
    };
    let listeners = {
        let mut core = service.core();
        if core.confirm.is_some() {
            return refuse("its policy is not confirmed yet");
        }
        tracing::info!("process {pid} is about to take over");
        save_bans(&core);
        let lent = core.lend().map_err(|error| error.to_string());
        match lent.and_then(|()| core.gateway.listeners().map_err(|error| error.to_string())) {
            Ok(listeners) => listeners.into_iter().chain(scraped).collect::<Vec<_>>(),
            Err(error) => {
                take_back(&mut core);
                return refuse(&error);
            }
        }
    };
    pause(true);
    match successor.lend(&listeners) {
        Ok(true) => {
            tracing::info!("process {pid} has taken over: what was accepted is answered");
            // Under systemd, the unit goes on with it.
            let _nobody = sd_notify::notify(&[sd_notify::NotifyState::MainPid(pid)]);
            return true;
        }
        Ok(false) => tracing::error!("process {pid} has not taken over: this agent goes on"),
        Err(error) => tracing::error!("process {pid} has not taken over: this agent goes on: {error}"),
    }
    pause(false);
    take_back(&mut service.core());
    false
}

fn take_back(core: &mut Core) {
    if let Err(error) = core.take_back() {
        tracing::error!("not all is as it was before: {error}");
    }
}

fn send(stream: &UnixStream, kind: u8, text: &[u8], sockets: &[RawFd]) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(sockets)];
    let control: &[ControlMessage<'_>] = if sockets.is_empty() { &[] } else { &rights };
    // A line break ends it: a stream may give two messages at once.
    let message = [&[kind], text, b"\n"].concat();
    let flags = MsgFlags::MSG_NOSIGNAL;
    let sent = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&message)], control, flags, None)?;
    if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Kind, text and sockets of the next message.
fn receive(stream: &UnixStream) -> io::Result<(u8, String, Vec<OwnedFd>)> {
    let mut message = Vec::new();
    let mut sockets = Vec::new();
    // Byte by byte, so that nothing of the next one is taken: they are few and short.
    while message.last() != Some(&b'\n') {
        let mut byte = [0];
        let mut space = cmsg_space!([RawFd; BATCH]);
        let mut buffers = [IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(stream.as_raw_fd(), &mut buffers, Some(&mut space), flags)?;
        for control in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                // SAFETY: the kernel just opened them for us.
                sockets.extend(received.into_iter().map(|socket| unsafe { OwnedFd::from_raw_fd(socket) }));
            }
        }
        if received.bytes == 0 || message.len() > TEXT {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        message.extend(byte);
    }
    message.pop();
    let Some((kind, text)) = message.split_first() else { return Err(io::ErrorKind::InvalidData.into()) };
    Ok((*kind, String::from_utf8_lossy(text).into_owned(), sockets))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn pair() -> (UnixStream, Successor) {
        let (new, old) = UnixStream::pair().unwrap();
        (new, Successor::meet(old).unwrap())
    }

    #[test]
    fn sockets_come_over_however_many() {
        let listeners: Vec<TcpListener> = (0..300).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<SocketAddr> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let (mut new, old) = pair();
        assert_eq!(old.pid, std::process::id());
        let lending = thread::spawn(move || old.lend(&listeners).unwrap());
        let mut found = Vec::new();
        loop {
            let (kind, text, sockets) = receive(&new).unwrap();
            assert_eq!(text, "");
            found.extend(sockets.into_iter().map(|socket| TcpListener::from(socket).local_addr().unwrap()));
            if kind == LAST {
                break;
            }
            assert_eq!(kind, MORE);
        }
        assert_eq!(found, addresses);
        new.write_all(&[TAKEN]).unwrap();
        assert!(lending.join().unwrap());
    }

    #[test]
    fn a_successor_that_goes_has_taken_nothing() {
        let (new, old) = pair();
        let lending = thread::spawn(move || old.lend(&[]).unwrap());
        assert_eq!(receive(&new).unwrap().0, LAST);
        drop(new);
        assert!(!lending.join().unwrap());
    }

    #[test]
    fn the_wait_can_be_ended_and_a_refusal_has_its_reason() {
        let (new, old) = pair();
        old.refuse("not now").unwrap();
        let (kind, text, sockets) = receive(&new).unwrap();
        assert_eq!((kind, text.as_str(), sockets.len()), (REFUSED, "not now", 0));
        let handle = old.handle().unwrap();
        let lending = thread::spawn(move || old.lend(&[]).unwrap());
        assert_eq!(receive(&new).unwrap().0, LAST);
        handle.shutdown(std::net::Shutdown::Both).unwrap();
        assert!(!lending.join().unwrap());
        assert_eq!(receive(&new).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
