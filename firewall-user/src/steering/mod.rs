//! Steering: takes ports over from applications that need not know of it. The kernel hands connections from outside for
//! these ports to the agent's listener, in one network namespace; [`Steering`] is what is in force in one.
//!
//! `open` → `set_listener` → `set_ports`, then `beat` for as long as the agent serves. What the kernel does once nobody beats
//! any more, or the listener is closed, it knows from the ports' flags. Everything is pinned, and the next agent takes it
//! over without a gap. Dropping a [`Steering`] changes nothing in the kernel.
//!
//! Accepting, and what is said on connections, is the gateway's.

mod control;
mod diag;
mod error;
pub mod existing;
pub mod netns;
mod pins;
mod probe;
mod socket;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use aya::maps::MapData;
use firewall_common::steer::{MAX_PORTS, SteerCounts, flag};

use self::{control::Control, pins::Maps};
pub use self::{
    error::SteerError, netns::Netns, pins::memory, pins::remove_all, pins::remove_others, probe::Probe,
    socket::Exemption,
};
use crate::dmz::syscall;

/// What is said of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Without an agent nobody answers; else the application does, unprotected.
    pub closed: bool,
    /// Clients on this host are steered, too.
    pub local_clients: bool,
}

impl Flags {
    const fn bits(self) -> u32 {
        (if self.closed { flag::CLOSED } else { 0 }) | (if self.local_clients { flag::LOCAL_CLIENTS } else { 0 })
    }
}

/// Steering in one network namespace. Every method may be called from any thread.
pub struct Steering {
    netns: Netns,
    directory: PathBuf,
    ports: MapData,
    listener: MapData,
    own: Arc<MapData>,
    counts: MapData,
    control: Control,
    /// Cookie of our own listener; 0: none.
    cookie: AtomicU64,
    predecessor: bool,
    /// Sources of probes, and when they began.
    probes: Mutex<Vec<(SocketAddr, Instant)>>,
    /// One change of ports at a time.
    changing: Mutex<()>,
}

impl std::fmt::Debug for Steering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steering").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Steering {
    /// Puts this agent's program in force in the namespace at `netns` (the calling thread's without it), with the ports, the
    /// listener and the counts of the agent before, if there was one. `pins` is the directory of the instance on bpffs.
    ///
    /// # Errors
    /// The namespace is not there, what is pinned is of another version or not ours, or the kernel refuses. Then the agent
    /// before goes on as it was.
    pub fn open(pins: &Path, netns: Option<&Path>) -> Result<Self, SteerError> {
        let netns =
            Netns::open(netns).map_err(|source| SteerError::Netns { path: netns.map(Path::to_owned), source })?;
        let (directory, Maps { ports, listener, own, counts, control }) = pins::open(pins, &netns)?;
        let mut steering = Self {
            netns,
            directory,
            ports,
            listener,
            own: Arc::new(own),
            counts,
            control,
            cookie: AtomicU64::new(0),
            predecessor: false,
            probes: Mutex::default(),
            changing: Mutex::default(),
        };
        steering.predecessor = steering.listener_in_force()? != 0 && steering.control.is_alive();
        Ok(steering)
    }

    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Whether an agent served here when this one came: it had a listener and beat.
    pub fn predecessor_in_force(&self) -> bool {
        self.predecessor
    }

    /// Makes `listener`, which [`Self::listener`] made, the one that connections are handed to, in the place of that of an
    /// agent before, and beats. Call it before [`Self::set_ports`], so that nobody gets connections for ports that are not his.
    ///
    /// # Errors
    /// The socket is of another namespace, or the kernel does not take it. The listener before stays in force.
    pub fn set_listener(&self, listener: &TcpListener) -> Result<(), SteerError> {
        // The kernel would hand over all the same, and nobody would get an answer.
        if !self.netns.has(listener).map_err(SteerError::Listener)? {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is in another network namespace");
            return Err(SteerError::Listener(error));
        }
        let cookie = socket::cookie(listener).map_err(SteerError::Listener)?;
        let _lock = self.lock()?;
        // First the name, so that the agent before beats no more; a failure gives it back.
        let before = self.control.listener().swap(cookie, Ordering::SeqCst);
        let fd = u64::from(listener.as_raw_fd().cast_unsigned());
        if let Err(source) = syscall::update(self.listener.fd().as_fd(), &0_u32, &[fd]) {
            self.control.listener().store(before, Ordering::SeqCst);
            return Err(SteerError::Listener(source));
        }
        self.cookie.store(cookie, Ordering::SeqCst);
        self.control.beat();
        Ok(())
    }

    /// Tells the kernel that the agent is alive: call it at least every second; it costs as much as reading the clock. Does
    /// nothing once another agent has taken over.
    pub fn beat(&self) {
        if self.is_named() {
            self.control.beat();
        }
    }

    /// Whether the kernel hands connections to this agent at the moment.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn in_force(&self) -> Result<bool, SteerError> {
        let cookie = self.cookie.load(Ordering::SeqCst);
        Ok(cookie != 0 && self.listener_in_force()? == cookie && self.control.is_alive())
    }

    /// Whether connections would be handed to nobody at the moment.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn is_vacant(&self) -> Result<bool, SteerError> {
        Ok(self.listener_in_force()? == 0)
    }

    /// Gives up the listener's place, unless another agent has taken it: from now on the ports' flags say what happens, and
    /// what was handed over already can still be accepted.
    ///
    /// # Errors
    /// The kernel does not let go. To close the listener has the same effect.
    pub fn withdraw(&self) -> Result<(), SteerError> {
        let _lock = match self.lock() {
            // Another agent has ended steering here.
            Err(SteerError::Pin { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            lock => lock?,
        };
        let cookie = self.cookie.swap(0, Ordering::SeqCst);
        if cookie == 0 || self.listener_in_force()? != cookie {
            return Ok(());
        }
        syscall::delete(self.listener.fd().as_fd(), &0_u32).map_err(map_error("LISTENER"))?;
        let _other = self.control.listener().compare_exchange(cookie, 0, Ordering::SeqCst, Ordering::SeqCst);
        Ok(())
    }

    /// Makes these the steered ports. One that stays is never missing, and keeps its counts; its flags change at once.
    ///
    /// # Errors
    /// There are too many, and nothing was changed; or the kernel refuses, and ports of before may still be there.
    pub fn set_ports(&self, ports: &[(u16, Flags)]) -> Result<(), SteerError> {
        let _one = self.changing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Old and new ones have room beside each other.
        let most = MAX_PORTS as usize / 2;
        let wanted: BTreeMap<u32, Flags> = ports.iter().map(|(port, flags)| (u32::from(*port), *flags)).collect();
        if wanted.len() > most {
            return Err(SteerError::TooManyPorts { count: wanted.len(), most });
        }
        let (ports, counts) = (self.ports.fd().as_fd(), self.counts.fd().as_fd());
        let before = self.steered()?;
        let zero = vec![SteerCounts::default(); possible_cpus()?];
        for (port, flags) in &wanted {
            if !before.contains(port) {
                syscall::update(counts, port, &zero).map_err(map_error("COUNTS"))?;
            }
            syscall::update(ports, port, &[flags.bits()]).map_err(map_error("PORTS"))?;
        }
        for port in before.iter().filter(|port| !wanted.contains_key(port)) {
            syscall::delete(ports, port).map_err(map_error("PORTS"))?;
            syscall::delete(counts, port).map_err(map_error("COUNTS"))?;
        }
        Ok(())
    }

    /// What was counted for each steered port since it became one.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn counts(&self) -> Result<BTreeMap<u16, SteerCounts>, SteerError> {
        let mut each = vec![SteerCounts::default(); possible_cpus()?];
        let mut counts = BTreeMap::new();
        for port in self.steered()? {
            let found = syscall::lookup(self.counts.fd().as_fd(), &port, &mut each).map_err(map_error("COUNTS"))?;
            let Ok(number) = u16::try_from(port) else { continue };
            counts.insert(number, if found { sum(&each) } else { SteerCounts::default() });
        }
        Ok(counts)
    }

    /// Ends steering here: applications answer themselves again, whatever the ports' flags say.
    ///
    /// # Errors
    /// A pin could not be removed.
    pub fn detach(&self) -> Result<(), SteerError> {
        pins::remove_one(&self.directory).map_err(|source| SteerError::Pin { path: self.directory.clone(), source })
    }

    /// Whether our listener is the one of the record.
    fn is_named(&self) -> bool {
        let cookie = self.cookie.load(Ordering::Relaxed);
        cookie != 0 && self.control.listener().load(Ordering::Relaxed) == cookie
    }

    /// Cookie of the socket that connections are handed to; 0 if there is none.
    fn listener_in_force(&self) -> Result<u64, SteerError> {
        let mut cookie = [0_u64];
        let found = syscall::lookup(self.listener.fd().as_fd(), &0_u32, &mut cookie).map_err(map_error("LISTENER"))?;
        Ok(if found { cookie[0] } else { 0 })
    }

    fn steered(&self) -> Result<BTreeSet<u32>, SteerError> {
        let mut ports = BTreeSet::new();
        let all = |keys: &[u32], _: &[u32]| ports.extend(keys);
        syscall::lookup_batch(self.ports.fd().as_fd(), all).map_err(map_error("PORTS"))?;
        Ok(ports)
    }

    /// Keeps other agents from changing the listener while it is held.
    fn lock(&self) -> Result<File, SteerError> {
        let pin = |source| SteerError::Pin { path: self.directory.clone(), source };
        let directory = File::open(&self.directory).map_err(pin)?;
        directory.lock().map_err(pin)?;
        Ok(directory)
    }
}

fn map_error(name: &'static str) -> impl Fn(io::Error) -> SteerError {
    move |source| SteerError::Map { name, source }
}

fn possible_cpus() -> Result<usize, SteerError> {
    aya::util::nr_cpus().map_err(|(path, source)| SteerError::Pin { path: path.into(), source })
}

fn sum(each: &[SteerCounts]) -> SteerCounts {
    each.iter().fold(SteerCounts::default(), |sum, part| SteerCounts {
        steered: sum.steered + part.steered,
        exempt: sum.exempt + part.exempt,
        probed: sum.probed + part.probed,
        gone_open: sum.gone_open + part.gone_open,
        gone_closed: sum.gone_closed + part.gone_closed,
        redirect_failed: sum.redirect_failed + part.redirect_failed,
    })
}
