//! Tells the kernel, for each network, that the gateway lives, as long as a worker does.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{network::Network, worker::Worker};

/// How often the kernel is told.
const BEAT: Duration = Duration::from_millis(250);
/// A worker that said nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(1);
/// After so long without a beat the kernel took us for dead: [`firewall_common::steer`].
const DEAD: Duration = Duration::from_secs(2);

/// Beats until it is dropped.
pub(super) struct Keeper {
    networks: Arc<ArcSwap<Vec<Arc<Network>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn spawn(networks: Vec<Arc<Network>>, workers: Vec<Arc<Worker>>) -> io::Result<Self> {
        let networks = Arc::new(ArcSwap::from_pointee(networks));
        let stop = Arc::new(AtomicBool::new(false));
        let (watched, stopped) = (Arc::clone(&networks), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("gateway-keeper".to_owned()).spawn(move || {
            let mut last = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                if workers.iter().any(|worker| worker.silent_for() < SILENCE) {
                    let gap = last.elapsed() >= DEAD;
                    last = Instant::now();
                    for network in watched.load().iter() {
                        network.beat();
                        if gap {
                            network.reset_existing();
                        }
                    }
                }
                std::thread::park_timeout(BEAT);
            }
        })?;
        Ok(Self { networks, stop, thread: Some(thread) })
    }

    /// Beats for these from now on.
    pub(super) fn watch(&self, networks: Vec<Arc<Network>>) {
        self.networks.store(Arc::new(networks));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _panicked = thread.join();
        }
    }
}
