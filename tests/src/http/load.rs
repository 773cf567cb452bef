//! Steady clients, and what of their requests failed.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::raw::Client;
use crate::netns::{Namespace, client_v4};

/// How a client uses its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// One connection for all requests, opened anew only where the answer says `Connection: close`.
    Kept,
    /// A connection for each request.
    Fresh,
}

/// Clients that ask for `/` until stopped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
    failures: Mutex<Vec<(Instant, String)>>,
}

impl Load {
    /// Starts `clients` of them, each from an address of its own.
    pub fn start(namespace: &Namespace, clients: u8, server: SocketAddr, kind: Use) -> Self {
        let shared = Arc::<Shared>::default();
        let threads = (0..clients)
            .map(|number| {
                let (shared, namespace) = (Arc::clone(&shared), namespace.clone());
                thread::spawn(move || {
                    let mut client = None;
                    while !shared.stop.load(Ordering::Relaxed) {
                        match ask(&namespace, number, server, &mut client) {
                            Ok(()) => _ = shared.answered.fetch_add(1, Ordering::Relaxed),
                            Err(error) => {
                                client = None;
                                shared
                                    .failures
                                    .lock()
                                    .expect("nobody panics")
                                    .push((Instant::now(), format!("{error:#}")));
                                thread::sleep(Duration::from_millis(2));
                            }
                        }
                        if kind == Use::Fresh {
                            client = None;
                        }
                    }
                })
            })
            .collect();
        Self { shared, threads }
    }

    /// Answers so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Waits for so many more answers. False if they do not come in time.
    pub fn wait_for(&self, more: u64, timeout: Duration) -> bool {
        let (before, began) = (self.answered(), Instant::now());
        while self.answered() < before + more {
            if began.elapsed() > timeout {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// When which request failed, and how.
    pub fn failures(&self) -> Vec<(Instant, String)> {
        self.shared.failures.lock().expect("nobody panics").clone()
    }

    /// Stops, and gives answers and failures.
    pub fn stop(mut self) -> (u64, Vec<(Instant, String)>) {
        self.end();
        (self.answered(), self.failures())
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("a client panicked");
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

fn ask(namespace: &Namespace, number: u8, server: SocketAddr, kept: &mut Option<Client>) -> anyhow::Result<()> {
    let mut client = match kept.take() {
        Some(client) => client,
        None if server.is_ipv4() => Client::open_from(namespace, client_v4(number), server)?,
        None => Client::open(namespace, server)?,
    };
    let response = client.get("/")?;
    anyhow::ensure!(response.status == 200, "status {}: {}", response.status, response.text());
    if response.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close")) {
        *kept = Some(client);
    }
    Ok(())
}
