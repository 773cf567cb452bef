//! Carries events from the kernel's ring to the sinks.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use firewall_common::event::EventAction;

use super::core::SharedNames;
use crate::events::{
    Recorder,
    kernel::{WallClock, read, record},
};

/// The program does not wake us: a wake-up would cost it more than the event.
const EVERY: Duration = Duration::from_millis(20);

/// The reader of the ring. There may be one only.
pub(super) struct Drain {
    pub ring: RingBuf<MapData>,
    pub names: SharedNames,
    pub recorder: Recorder,
    /// Set when the kernel banned somebody.
    pub banned: Arc<AtomicBool>,
    /// Another agent is to read the ring. Whoever sets it has waited for a read that was under way.
    pub paused: Arc<Mutex<bool>>,
}

impl Drain {
    /// Runs until dropped.
    pub(super) async fn run(mut self) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.drain();
        }
    }

    /// Sends everything the ring holds.
    pub(super) fn drain(&mut self) {
        let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if *paused {
            return;
        }
        let names = Arc::clone(&self.names.read().unwrap_or_else(PoisonError::into_inner));
        let clock = WallClock::sample();
        while let Some(item) = self.ring.next() {
            // Too short: written by nothing of ours. The ring is ours alone, so that cannot be.
            let Some(event) = read(&item) else { continue };
            if event.action == EventAction::Ban as u8 {
                self.banned.store(true, Ordering::Relaxed);
            }
            self.recorder.push(record(&event, &names, clock));
        }
        self.recorder.flush();
    }
}
