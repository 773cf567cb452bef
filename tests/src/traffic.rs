//! Frames across the link, a few at a time or in a steady stream, and what of them passed.

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::{
    frame::{Frame, without_ethernet},
    netns::{INTERFACE, World},
    raw::Raw,
};

/// An Ethernet type for experiments (IEEE 802): it passes as every type that is not IP.
const SENTINEL: u16 = 0x88b5;
const PATIENCE: Duration = Duration::from_secs(5);
/// Frames that were under way on another CPU when the sentinel came.
const STRAGGLERS: Duration = Duration::from_millis(10);

/// Sends frames from the client and tells which of them reached the host's stack.
#[derive(Debug)]
pub struct Wire {
    pub sender: Raw,
    pub witness: Raw,
    sentinels: AtomicU32,
}

impl Wire {
    pub fn open(world: &World) -> Result<Self> {
        Self::on(world, INTERFACE)
    }

    pub fn on(world: &World, interface: &str) -> Result<Self> {
        let (sender, witness) = (Raw::open(&world.client, interface)?, Raw::open(&world.host, interface)?);
        Ok(Self { sender, witness, sentinels: AtomicU32::new(0) })
    }

    /// How many of these frames pass, each counted as often as it is sent.
    pub fn passed(&self, frames: &[Vec<u8>]) -> Result<usize> {
        self.witness.clear();
        for frame in frames {
            self.sender.send(frame)?;
        }
        let number = self.sentinels.fetch_add(1, Ordering::Relaxed);
        let sentinel = Frame::ethernet(SENTINEL, [&number.to_be_bytes()[..], &[0; 42]].concat()).build();
        self.sender.send(&sentinel)?;
        let mut missing: Vec<&[u8]> = frames.iter().map(|frame| without_ethernet(frame)).collect();
        let mut seen = false;
        while let Some(frame) = self.witness.receive(if seen { STRAGGLERS } else { PATIENCE }) {
            if frame == sentinel {
                seen = true;
            } else if let Some(found) = missing.iter().position(|body| frame.ends_with(body)) {
                missing.swap_remove(found);
            }
        }
        anyhow::ensure!(seen, "the link is down, or frames that are not IP are dropped");
        Ok(frames.len() - missing.len())
    }

    /// Whether this frame passes.
    pub fn passes(&self, frame: &Frame) -> Result<bool> {
        Ok(self.passed(&[frame.build()])? == 1)
    }
}

/// Only one load-heavy test of this machine runs at a time, whatever process it is in; held until dropped.
pub fn load_lock() -> Result<Flock<File>> {
    let file = File::create("/run/portcullis-load-tests.lock").context("the lock of load tests")?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// What is known of one kind of frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    pub sent: u64,
    pub arrived: u64,
}

/// A steady stream of frames, one of each kind in turn, and a witness that counts those that pass. A kind is told by its
/// name, which its payload ends with.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    kinds: BTreeMap<String, [AtomicU64; 2]>,
    stop: AtomicBool,
    stop_witness: AtomicBool,
    lost: AtomicU32,
}

/// Bytes of a kind's name in its payload.
const NAME: usize = 12;

impl Traffic {
    /// Starts it: `rate` frames a second, over all kinds.
    pub fn start(world: &World, rate: u32, kinds: Vec<(String, Frame)>) -> Result<Self> {
        let (sender, witness) = (Raw::open(&world.client, INTERFACE)?, Raw::open(&world.host, INTERFACE)?);
        let frames: Vec<(String, Vec<u8>)> = kinds
            .into_iter()
            .map(|(name, frame)| {
                assert!(name.len() <= NAME, "{name} is too long");
                let frame = frame.payload_bytes(format!("{name:<NAME$}")).build();
                (name, frame)
            })
            .collect();
        let shared = Arc::new(Shared {
            kinds: frames.iter().map(|(name, _)| (name.clone(), Default::default())).collect(),
            stop: AtomicBool::new(false),
            stop_witness: AtomicBool::new(false),
            lost: AtomicU32::new(0),
        });
        let threads = vec![
            thread::spawn({
                let shared = Arc::clone(&shared);
                move || {
                    send(&shared, &sender, rate, &frames);
                    Ok(())
                }
            }),
            thread::spawn({
                let shared = Arc::clone(&shared);
                move || watch(&shared, &witness)
            }),
        ];
        Ok(Self { shared, threads })
    }

    pub fn kind(&self, name: &str) -> Kind {
        let [sent, arrived] = &self.shared.kinds[name];
        Kind { sent: sent.load(Ordering::Acquire), arrived: arrived.load(Ordering::Acquire) }
    }

    /// Frames sent so far, of all kinds.
    pub fn sent(&self) -> u64 {
        self.shared.kinds.values().map(|[sent, _]| sent.load(Ordering::Relaxed)).sum()
    }

    /// Waits until one more frame of this kind has passed; gives how long it took.
    pub fn wait_for(&self, name: &str, timeout: Duration) -> Option<Duration> {
        let (before, began) = (self.kind(name).arrived, Instant::now());
        while self.kind(name).arrived == before {
            if began.elapsed() > timeout {
                return None;
            }
            thread::sleep(Duration::from_micros(500));
        }
        Some(began.elapsed())
    }

    /// Stops sending, lets the last frames arrive, and gives the totals. An error if the witness missed any.
    pub fn stop(mut self) -> Result<BTreeMap<String, Kind>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(200));
        self.shared.stop_witness.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("neither thread panics")?;
        }
        let lost = self.shared.lost.load(Ordering::Relaxed);
        anyhow::ensure!(lost == 0, "the witness missed {lost} frames");
        Ok(self.shared.kinds.keys().map(|name| (name.clone(), self.kind(name))).collect())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.stop_witness.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

fn send(shared: &Shared, sender: &Raw, rate: u32, frames: &[(String, Vec<u8>)]) {
    let began = Instant::now();
    let (mut done, mut next) = (0_u64, frames.iter().cycle());
    while !shared.stop.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        // What was missed while we did not run is caught up with in small steps: the ring of a veth holds 256 frames.
        let step = due.min(done + 64);
        while done < step {
            let Some((name, frame)) = next.next() else { return };
            // A full ring: the frame was never on the wire.
            if sender.send(frame).is_ok() {
                shared.kinds[name][0].fetch_add(1, Ordering::Release);
            }
            done += 1;
        }
        thread::sleep(Duration::from_micros(500));
    }
}

fn watch(shared: &Shared, witness: &Raw) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    while !shared.stop_witness.load(Ordering::Relaxed) {
        let Some(length) = witness.receive_into(&mut buffer, Duration::from_millis(20)) else { continue };
        let name = buffer[..length].last_chunk::<NAME>().and_then(|name| std::str::from_utf8(name).ok());
        // Others are neighbour discovery and the like.
        if let Some([_, arrived]) = name.and_then(|name| shared.kinds.get(name.trim_end())) {
            arrived.fetch_add(1, Ordering::Release);
        }
    }
    shared.lost.store(witness.lost()?, Ordering::Relaxed);
    Ok(())
}
