//! Network namespaces in which ports are steered: which there are now, and which the policy names. Those of containers come
//! and go; [`Gateway::follow`] goes with them.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use super::{
    Gateway, GatewayError, Keeper, Prepared,
    network::Network,
    steer,
    worker::{ApiSlot, Entrance, Routing},
};
use crate::{
    config::api::Entry,
    steering::{SteerError, netns::inode_at, remove_others},
};

/// The network namespaces of a policy.
#[derive(Default)]
pub(super) struct Places {
    pub(super) networks: HashMap<Option<PathBuf>, Arc<Network>>,
    pub(super) absent: HashMap<PathBuf, Absent>,
}

/// A network namespace that is not there, or cannot be steered: a container that is down, or not up yet.
pub(super) struct Absent {
    /// Of what is at the path; `None` if nothing is.
    inode: Option<u64>,
    pub(super) problem: String,
}

impl Gateway {
    /// The network at `place`, opened if it is new there; `None` if there is none. Where it cannot be steered, that is an error,
    /// or with `forgiving` a place without one, too.
    pub(super) fn look_up(
        &self,
        places: &mut Places,
        place: &Option<PathBuf>,
        forgiving: bool,
    ) -> Result<Option<Arc<Network>>, SteerError> {
        if let Some(network) = places.networks.get(place) {
            return Ok(Some(Arc::clone(network)));
        }
        if place.as_ref().is_some_and(|path| places.absent.contains_key(path)) {
            return Ok(None);
        }
        let known = self.networks.get(place).map(|(network, _)| network);
        let network = match known.filter(|network| network.is_at(place.as_deref())) {
            Some(network) => Arc::clone(network),
            None => {
                // Before it is opened: what takes its place meanwhile is found to be another then.
                let inode = place.as_deref().and_then(inode_at);
                match (Network::open(&self.pins, place.as_deref()), place) {
                    (Ok(network), _) => Arc::new(network),
                    (Err(error), Some(path)) if forgiving || error.is_absence() => {
                        places.absent.insert(path.clone(), Absent { inode, problem: error.to_string() });
                        return Ok(None);
                    }
                    (Err(error), _) => return Err(error),
                }
            }
        };
        places.networks.insert(place.clone(), Arc::clone(&network));
        Ok(Some(network))
    }

    /// Whether a network namespace came, went, or is another by now. With `again`, one that could not be steered counts, too.
    pub fn has_moved(&self, again: bool) -> bool {
        let moved = self.networks.iter().any(|(place, (network, _))| !network.is_at(place.as_deref()));
        let came = |(path, absent): (&PathBuf, &Absent)| {
            let inode = inode_at(path);
            inode != absent.inode || again && inode.is_some()
        };
        moved || self.absent.iter().any(came)
    }

    /// Steers where the network namespaces of APIs are now, and no longer where they were.
    pub fn follow(&mut self) -> Result<(), GatewayError> {
        let mut places = Places::default();
        let mut policies = Vec::new();
        let nowhere = Network::none();
        for (api, slot) in self.apis.values() {
            let Some(policy) = slot.policy() else { continue };
            let network = match &api.entry {
                Entry::Steered(steered) => self
                    .look_up(&mut places, &steered.netns, steered.netns.is_some())
                    .map_err(|source| steer(&api.name, source))?,
                Entry::Proxy { .. } => None,
            };
            let network = network.as_ref().unwrap_or(&nowhere);
            policies.push(if policy.is_in(network) { policy } else { Arc::new(policy.moved_to(network)) });
        }
        self.put_in_force(Prepared { policies, places, listeners: HashMap::new() })
    }

    pub(super) fn open_networks(
        &mut self,
        places: Places,
        mut routes: HashMap<Option<PathBuf>, HashMap<u16, Arc<ApiSlot>>>,
    ) -> Result<(), GatewayError> {
        let Places { networks, absent } = places;
        self.absent = absent;
        let mut before = std::mem::take(&mut self.networks);
        let mut result = Ok(());
        for (place, network) in networks {
            let steered = self.apis.values().filter_map(|(api, _)| match &api.entry {
                Entry::Steered(steered) if steered.netns == place => Some((&api.name, steered)),
                _ => None,
            });
            let steered: Vec<_> = steered.collect();
            let fail = |source| steer(steered.first().map_or("", |(name, _)| name), source);
            let same = match before.remove(&place) {
                Some((earlier, entrance)) if Arc::ptr_eq(&earlier, &network) => Some(entrance),
                Some(gone) => {
                    // Another namespace at the same place.
                    before.insert(place.clone(), gone);
                    None
                }
                None => None,
            };
            // First where ports lead, then what comes by them: the kernel may know them from an agent before us.
            let slots = routes.remove(&place).unwrap_or_default();
            let entries = steered.iter().map(|(name, entry)| (*entry, self.metrics.api(name)));
            let from_before = network.lead(slots, entries);
            let entrance = match (same, network.take_listener()) {
                (Some(entrance), _) => entrance,
                (None, Some(listener)) => {
                    // Whoever had the ports before us hands them over here.
                    if let Err(source) = network.serve(&listener) {
                        result = Err(fail(source));
                    }
                    let entrance = Entrance::new(listener, Routing::Steered(Arc::clone(&network)));
                    self.threads.iter().for_each(|thread| thread.enter(&entrance));
                    entrance
                }
                // A network is opened with its listener.
                (None, None) => continue,
            };
            if let Err(source) = network.take(self.confirmed, from_before) {
                result = Err(fail(source));
            }
            self.networks.insert(place, (network, entrance));
        }
        for (place, (network, entrance)) in before {
            if let Err(error) = network.leave() {
                tracing::error!("ports are still steered: {error}");
            }
            entrance.close();
            // Connections of these lead to applications that are no more.
            for (api, _) in self.apis.values() {
                if matches!(&api.entry, Entry::Steered(steered) if steered.netns == place) {
                    self.shared.registry.drain(&api.name);
                }
            }
        }
        let networks = self.networks.values().map(|(network, _)| Arc::clone(network)).collect();
        match &self.keeper {
            Some(keeper) => keeper.watch(networks),
            None if !self.networks.is_empty() => {
                let workers = self.threads.iter().map(|thread| Arc::clone(&thread.worker)).collect();
                self.keeper = Some(Keeper::spawn(networks, workers).map_err(GatewayError::Thread)?);
            }
            None => {}
        }
        result
    }

    /// What an agent before us steered elsewhere is no longer steered, nor closed.
    pub fn forget_others(&self) {
        let steered = self.networks.values().filter_map(|(network, _)| network.inode());
        let absent = self.absent.values().filter_map(|absent| u32::try_from(absent.inode?).ok());
        let keep: Vec<u32> = steered.chain(absent).collect();
        if let Err(error) = remove_others(&self.pins, &keep) {
            tracing::error!("{}: what an agent before steered cannot be removed: {error}", self.pins.display());
        }
    }

    /// Nothing of steering stays in the kernel: applications answer for themselves.
    pub fn leave(&mut self) {
        self.keeper = None;
        for (network, _) in self.networks.values() {
            if let Err(error) = network.leave() {
                tracing::error!("ports are still steered: {error}");
            }
        }
        self.proxies.values().for_each(|entrance| entrance.close());
    }
}
