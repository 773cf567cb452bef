//! Collects the events of one thread, so that a sink is woken once for many of them.
//!
//! In: events, one at a time. Out: a batch for [`Sinks`] when 512 have come, or when the owner says so, which it must
//! within [`FLUSH_EVERY`] of the first. It has no clock and no thread of its own.

use std::{sync::Arc, time::Duration};

use super::{Event, Sinks};

/// Events that are handed over without being asked.
pub(super) const FULL: usize = 512;
/// The longest that an event may wait here.
pub const FLUSH_EVERY: Duration = Duration::from_millis(50);

/// Of one thread. What it holds goes to the sinks when it is dropped.
#[derive(Debug)]
pub struct Recorder {
    sinks: Arc<Sinks>,
    waiting: Vec<Event>,
}

impl Recorder {
    pub fn new(sinks: Arc<Sinks>) -> Self {
        Self { sinks, waiting: Vec::new() }
    }

    /// Whether anybody would read an event. If not, it need not be made.
    pub fn is_heard(&self) -> bool {
        self.sinks.are_open()
    }

    /// Takes an event. `true` if it is the first that waits: now the owner has [`FLUSH_EVERY`] to call [`Self::flush`].
    pub fn push(&mut self, event: impl Into<Event>) -> bool {
        if !self.is_heard() {
            return false;
        }
        self.waiting.push(event.into());
        if self.waiting.len() >= FULL {
            self.flush();
        }
        self.waiting.len() == 1
    }

    /// Hands over what waits. Cheap if nothing does.
    pub fn flush(&mut self) {
        if !self.waiting.is_empty() {
            // The sinks get an allocation of the right size, and this one is used again.
            self.sinks.send_all(self.waiting.drain(..));
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
    }
}
