//! A network namespace in which ports are steered: the kernel's side of it, and what each port leads to.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use firewall_common::steer::SteerCounts;
use nix::sys::socket::{setsockopt, sockopt::IpFreebind};

use super::{metrics::ApiMetrics, worker::ApiSlot};
use crate::{
    config::api::{Existing, OnExit, Steered},
    steering::{Exemption, Flags, Probe, SteerError, Steering, existing},
};

/// Connections that may wait to be accepted; the kernel bounds it by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// What began while no agent was there may end by itself within this: a restart cuts off no request that is short. Who
/// keeps a connection to go by the gateway gets no more than this.
const GRACE: Duration = Duration::from_millis(500);
/// Handshakes that had begun with the application end within this.
const HANDSHAKE: Duration = Duration::from_secs(5);

pub(super) struct Network {
    steering: Option<Arc<Steering>>,
    /// Until the workers have it.
    listener: Mutex<Option<TcpListener>>,
    ports: ArcSwap<Ports>,
}

/// Ports of an API whose connections from before are to be reset.
#[derive(Clone)]
pub(super) struct Uninspected {
    ports: Vec<(u16, Flags)>,
    metrics: Arc<ApiMetrics>,
}

#[derive(Default)]
struct Ports {
    slots: HashMap<u16, Arc<ApiSlot>>,
    flags: HashMap<u16, Flags>,
    /// Those where no connection may go on uninspected, by API.
    inspected: Vec<Uninspected>,
}

impl Ports {
    /// What the kernel is told. While the policy is not confirmed, no port closes because we are gone.
    fn flags(&self, confirmed: bool) -> Vec<(u16, Flags)> {
        let each = self.flags.iter();
        each.map(|(port, flags)| (*port, Flags { closed: flags.closed && confirmed, ..*flags })).collect()
    }
}

impl Network {
    /// For APIs that are not steered.
    pub(super) fn none() -> Arc<Self> {
        Arc::new(Self { steering: None, listener: Mutex::new(None), ports: ArcSwap::default() })
    }

    /// Loads the kernel's side for the namespace at `netns`, without taking a port yet.
    pub(super) fn open(pins: &Path, netns: Option<&Path>) -> Result<Self, SteerError> {
        let steering = Steering::open(pins, netns)?;
        let listener = steering.listener().map_err(SteerError::Listener)?;
        Ok(Self { steering: Some(Arc::new(steering)), listener: Mutex::new(Some(listener)), ports: ArcSwap::default() })
    }

    /// The listener that connections are handed to, for the workers; once.
    pub(super) fn take_listener(&self) -> Option<TcpListener> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Makes `listener` the one of the kernel.
    pub(super) fn serve(&self, listener: &TcpListener) -> Result<(), SteerError> {
        self.steering.as_ref().map_or(Ok(()), |steering| steering.set_listener(listener))
    }

    /// Says where the ports lead that are to be taken over. Call it before anything can come by them, [`Self::take`] then.
    pub(super) fn lead<'s>(
        &self,
        slots: HashMap<u16, Arc<ApiSlot>>,
        entries: impl Iterator<Item = (&'s Steered, Arc<ApiMetrics>)>,
    ) -> Vec<Uninspected> {
        let before = self.ports.load_full();
        let mut flags = HashMap::new();
        let (mut inspected, mut reset) = (Vec::new(), Vec::new());
        for (entry, metrics) in entries {
            let of_entry = Flags { closed: entry.on_agent_exit == OnExit::Closed, local_clients: entry.local_clients };
            flags.extend(entry.ports.iter().map(|port| (*port, of_entry)));
            let new = entry.ports.iter().filter(|port| !before.flags.contains_key(port));
            let new: Vec<(u16, Flags)> = new.map(|port| (*port, of_entry)).collect();
            if entry.existing == Existing::Reset {
                if !new.is_empty() {
                    reset.push(Uninspected { ports: new, metrics: Arc::clone(&metrics) });
                }
                let ports = entry.ports.iter().map(|port| (*port, of_entry)).collect();
                inspected.push(Uninspected { ports, metrics });
            }
        }
        self.ports.store(Arc::new(Ports { slots, flags, inspected }));
        reset
    }

    /// Takes the ports over that were named last, and no others. Connections from before that nobody inspects are reset.
    pub(super) fn take(&self, confirmed: bool, from_before: Vec<Uninspected>) -> Result<(), SteerError> {
        let Some(steering) = &self.steering else { return Ok(()) };
        steering.set_ports(&self.ports.load().flags(confirmed))?;
        if !from_before.is_empty() {
            reset_existing(Arc::clone(steering), from_before);
        }
        Ok(())
    }

    /// For a while the kernel took us for dead: what went to the applications meanwhile is reset.
    pub(super) fn reset_existing(&self) {
        let ports = self.ports.load();
        if let Some(steering) = &self.steering
            && !ports.inspected.is_empty()
        {
            reset_existing(Arc::clone(steering), ports.inspected.clone());
        }
    }

    /// The policy is in force for good.
    pub(super) fn confirm(&self) -> Result<(), SteerError> {
        let Some(steering) = &self.steering else { return Ok(()) };
        steering.set_ports(&self.ports.load().flags(true))
    }

    pub(super) fn slot(&self, port: u16) -> Option<Arc<ApiSlot>> {
        self.ports.load().slots.get(&port).cloned()
    }

    pub(super) fn is_probe(&self, peer: SocketAddr) -> bool {
        self.steering.as_ref().is_some_and(|steering| steering.is_probe(peer))
    }

    /// A socket for the application at `destination`; the exemption must live until it is connected.
    pub(super) fn upstream_socket(&self, destination: SocketAddr) -> io::Result<(TcpStream, Option<Exemption>)> {
        let Some(steering) = &self.steering else { return Err(io::ErrorKind::Unsupported.into()) };
        let flags = self.ports.load().flags.get(&destination.port()).copied().unwrap_or_default();
        steering.upstream_socket(destination, flags.local_clients)
    }

    pub(super) fn beat(&self) {
        if let Some(steering) = &self.steering {
            steering.beat();
        }
    }

    pub(super) fn withdraw(&self) -> Result<(), SteerError> {
        self.steering.as_ref().map_or(Ok(()), |steering| steering.withdraw())
    }

    /// Nothing is steered any more, and nothing of ours stays in the kernel; what was handed over can still be accepted.
    pub(super) fn leave(&self) -> Result<(), SteerError> {
        let Some(steering) = &self.steering else { return Ok(()) };
        steering.set_ports(&[])?;
        steering.withdraw()?;
        steering.detach()
    }

    /// Whether `path` leads to it still; without a path, always.
    pub(super) fn is_at(&self, path: Option<&Path>) -> bool {
        path.is_none_or(|path| self.steering.as_ref().is_some_and(|steering| steering.netns().is_at(path)))
    }

    /// What tells it from other namespaces.
    pub(super) fn inode(&self) -> Option<u32> {
        self.steering.as_ref().map(|steering| steering.netns().inode())
    }

    /// Puts the ports back in force, and `listener`, where another agent has taken its place; with `vacant`, only if nobody has
    /// it now.
    pub(super) fn reclaim(&self, listener: &TcpListener, confirmed: bool, vacant: bool) -> Result<(), SteerError> {
        let Some(steering) = &self.steering else { return Ok(()) };
        if vacant && !steering.is_vacant()? {
            return Ok(());
        }
        if !steering.in_force()? {
            steering.set_listener(listener)?;
        }
        steering.set_ports(&self.ports.load().flags(confirmed))
    }

    /// Whether the kernel hands connections to us.
    pub(super) fn in_force(&self) -> Result<bool, SteerError> {
        self.steering.as_ref().map_or(Ok(true), |steering| steering.in_force())
    }

    pub(super) fn counts(&self) -> Result<BTreeMap<u16, SteerCounts>, SteerError> {
        self.steering.as_ref().map_or_else(|| Ok(BTreeMap::new()), |steering| steering.counts())
    }

    /// Whether an application listens on a port.
    pub(super) fn listens(&self, port: u16) -> io::Result<bool> {
        match &self.steering {
            Some(steering) => Ok(!existing::listening(steering.netns(), port)?.is_empty()),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Tries the real path to a port; may take seconds.
    pub(super) fn probe(&self, port: u16) -> io::Result<Probe> {
        match &self.steering {
            Some(steering) => steering.probe(port),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Resets connections older than the gateway, and again those whose handshake was under way.
fn reset_existing(steering: Arc<Steering>, apis: Vec<Uninspected>) {
    let reset = move || {
        std::thread::sleep(GRACE);
        for last in [false, true] {
            // Once we have withdrawn, what applications have is theirs.
            if !steering.in_force().unwrap_or(false) {
                return;
            }
            let mut handshakes = 0;
            for Uninspected { ports, metrics } in &apis {
                match existing::reset(steering.netns(), ports) {
                    Ok(found) => {
                        metrics.reset(found.reset as u64);
                        handshakes += found.handshakes;
                        if found.reset > 0 {
                            let ports: Vec<String> = ports.iter().map(|(port, _)| port.to_string()).collect();
                            let (count, ports) = (found.reset, ports.join(", "));
                            tracing::info!("{count} connections to port {ports} older than the gateway were reset");
                        }
                    }
                    Err(error) => {
                        return tracing::error!("connections older than the gateway go on uninspected: {error}");
                    }
                }
            }
            if handshakes == 0 || last {
                return;
            }
            std::thread::sleep(HANDSHAKE);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("reset-existing".to_owned()).spawn(reset) {
        tracing::error!("connections older than the gateway go on uninspected: {error}");
    }
}

/// A listener of a reverse proxy.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM.nonblocking(),
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    // Its successor may listen while this one drains.
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        // Another API may have the IPv4 side of the port.
        socket.set_only_v6(true)?;
    }
    // At boot the address may come after the agent.
    setsockopt(&socket, IpFreebind, &true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
