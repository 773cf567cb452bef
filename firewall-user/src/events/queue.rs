//! The way of a record from the agent to one sink: a bounded queue and the thread that empties it.
//!
//! An [`Entry`] is shared by all sinks it was sent to and counts itself when the last of them lets go of it.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Record, Target};

/// Records a sink takes from its queue at once.
const BATCH: usize = 256;
/// Least time between two complaints of the same sink.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What became of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Written to every sink.
    pub delivered: u64,
    /// Not written to at least one sink: it failed, or its queue was full.
    pub lost: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    accepted: AtomicU64,
    delivered: AtomicU64,
    lost: AtomicU64,
}

impl Tally {
    pub(super) fn counts(&self) -> Counts {
        Counts { delivered: self.delivered.load(Ordering::Relaxed), lost: self.lost.load(Ordering::Relaxed) }
    }

    /// The counts if nothing more is written: whatever is neither delivered nor lost yet is lost.
    pub(super) fn final_counts(&self) -> Counts {
        let delivered = self.delivered.load(Ordering::Relaxed);
        Counts { delivered, lost: self.accepted.load(Ordering::Relaxed).saturating_sub(delivered) }
    }
}

/// A record on its way to the sinks.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    line: OnceLock<Vec<u8>>,
    failed: AtomicBool,
    tally: Arc<Tally>,
}

impl Entry {
    pub(super) fn new(record: Record, tally: Arc<Tally>) -> Self {
        tally.accepted.fetch_add(1, Ordering::Relaxed);
        Self { record, line: OnceLock::new(), failed: AtomicBool::new(false), tally }
    }

    /// The JSON line, made by the first sink that asks.
    pub(super) fn line(&self) -> &[u8] {
        self.line.get_or_init(|| self.record.to_line())
    }

    fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // The last owner sees what all others stored: dropping an `Arc` synchronises.
        let count = if *self.failed.get_mut() { &self.tally.lost } else { &self.tally.delivered };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A write that stopped short.
#[derive(Debug)]
pub(super) struct Failure {
    /// Entries written before, `< batch.len()`.
    pub(super) written: usize,
    pub(super) error: io::Error,
}

/// What a sink's thread writes to. It may block.
pub(super) trait Output: Send + 'static {
    /// Writes all of `batch`, in order and each entry whole, or says how many it wrote and what the next one failed of.
    fn write(&mut self, batch: &[Arc<Entry>]) -> Result<(), Failure>;
}

/// The queue and thread of a sink.
#[derive(Debug)]
pub(super) struct Worker {
    /// `None` once finishing.
    queue: Option<SyncSender<Arc<Entry>>>,
    thread: JoinHandle<()>,
}

impl Worker {
    pub(super) fn spawn(target: &Target, output: Box<dyn Output>, queue: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(queue);
        let target = target.clone();
        let thread = std::thread::Builder::new()
            .name("event-sink".to_owned())
            .spawn(move || work(&target, output, &receiver))?;
        Ok(Self { queue: Some(sender), thread })
    }

    pub(super) fn send(&self, entry: &Arc<Entry>) {
        let sent = self.queue.as_ref().is_some_and(|queue| queue.try_send(Arc::clone(entry)).is_ok());
        if !sent {
            entry.fail();
        }
    }

    /// No more entries come: the thread ends once it has written those it has.
    pub(super) fn finish(&mut self) {
        self.queue = None;
    }

    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

fn work(target: &Target, mut output: Box<dyn Output>, queue: &Receiver<Arc<Entry>>) {
    let mut complained: Option<Instant> = None;
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = queue.recv() {
        batch.push(first);
        batch.extend(queue.try_iter().take(BATCH - 1));
        let mut rest = batch.as_slice();
        while let Err(Failure { written, error }) = output.write(rest) {
            rest[written].fail();
            rest = &rest[written + 1..];
            if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                tracing::warn!(%target, %error, "cannot write events; they count as lost");
                complained = Some(Instant::now());
            }
            if rest.is_empty() {
                break;
            }
        }
        batch.clear();
    }
}
