//! Who is connected: how many connections each client has, and the means to end them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use ipnet::IpNet;
use tokio::sync::Notify;

/// How a connection is told to end.
#[derive(Default)]
pub(super) struct Handle {
    /// Ends it as soon as no request is under way.
    pub(super) drain: Notify,
    draining: AtomicBool,
    /// Ends it at once.
    pub(super) abort: Notify,
}

impl Handle {
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.drain.notify_one();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn abort(&self) {
        self.abort.notify_one();
    }
}

/// Every open connection of all workers.
#[derive(Default)]
pub(super) struct Registry {
    clients: Mutex<HashMap<IpNet, Vec<Open>>>,
    total: AtomicU32,
}

struct Open {
    api: Arc<str>,
    since: Instant,
    handle: Arc<Handle>,
}

/// Why a connection was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Total,
    Client,
}

impl Registry {
    fn clients(&self) -> MutexGuard<'_, HashMap<IpNet, Vec<Open>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn total(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// Admits a connection within these bounds; it counts until the ticket is dropped.
    /// `client` is who counts as one client with the peer, as [`super::Reputation`] has it.
    pub(super) fn admit(
        self: &Arc<Self>,
        client: IpNet,
        api: &Arc<str>,
        most: u32,
        most_of_client: u32,
    ) -> Result<Ticket, Full> {
        if self.total.fetch_add(1, Ordering::Relaxed) >= most {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Total);
        }
        let handle = Arc::new(Handle::default());
        let mut clients = self.clients();
        let open = clients.entry(client).or_default();
        if open.len() >= most_of_client as usize {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Client);
        }
        open.push(Open { api: Arc::clone(api), since: Instant::now(), handle: Arc::clone(&handle) });
        Ok(Ticket { registry: Arc::clone(self), client, handle })
    }

    /// Ends every connection of a client at once; how many.
    pub(super) fn abort(&self, client: IpNet) -> usize {
        let clients = self.clients();
        let open = clients.get(&client).map_or(&[][..], Vec::as_slice);
        open.iter().for_each(|open| open.handle.abort());
        open.len()
    }

    /// Ends connections of an API as soon as they have no request under way.
    pub(super) fn drain(&self, api: &str) {
        self.drain_those(|open| *open.api == *api);
    }

    /// The same for all connections at least this old. On a younger one the first request may be on its way.
    pub(super) fn drain_older(&self, than: Duration) {
        self.drain_those(|open| open.since.elapsed() >= than);
    }

    fn drain_those(&self, which: impl Fn(&Open) -> bool) {
        let clients = self.clients();
        clients.values().flatten().filter(|open| which(open)).for_each(|open| open.handle.drain());
    }
}

/// An admitted connection.
pub(super) struct Ticket {
    registry: Arc<Registry>,
    client: IpNet,
    pub(super) handle: Arc<Handle>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.registry.total.fetch_sub(1, Ordering::Relaxed);
        let mut clients = self.registry.clients();
        if let Some(open) = clients.get_mut(&self.client) {
            if let Some(place) = open.iter().position(|open| Arc::ptr_eq(&open.handle, &self.handle)) {
                open.swap_remove(place);
            }
            if open.is_empty() {
                clients.remove(&self.client);
            }
        }
    }
}
