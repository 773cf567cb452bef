//! The way of events from the agent to one sink: a bounded queue and the thread that empties it.
//!
//! Events travel in a [`Batch`], which is shared by all sinks it was sent to. It counts its events when the last sink lets
//! go of it; a sink says of each event alone whether it failed.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Event, Target, line::LineWriter};

/// Events after which a sink takes no further batch from its queue before it writes.
const AT_ONCE: usize = 256;
/// Least time between two complaints of the same sink.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What became of the events.
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

/// Events on their way to the sinks.
#[derive(Debug)]
pub(super) struct Batch {
    slots: Box<[Slot]>,
    lines: OnceLock<Lines>,
    tally: Arc<Tally>,
}

#[derive(Debug)]
struct Slot {
    event: Event,
    failed: AtomicBool,
}

/// The JSON lines of a batch, one behind the other; `ends.len()` is that of the batch.
#[derive(Debug)]
struct Lines {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    pub(super) fn new(events: impl Iterator<Item = Event>, tally: Arc<Tally>) -> Self {
        let slots: Box<[Slot]> = events.map(|event| Slot { event, failed: AtomicBool::new(false) }).collect();
        tally.accepted.fetch_add(slots.len() as u64, Ordering::Relaxed);
        Self { slots, lines: OnceLock::new(), tally }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.slots.len()).map(|index| Entry { batch: self, index })
    }

    fn len(&self) -> usize {
        self.slots.len()
    }

    /// Made by the first sink that asks.
    fn lines(&self) -> &Lines {
        self.lines.get_or_init(|| {
            let mut writer = LineWriter::default();
            let mut lines = Lines { text: Vec::with_capacity(384 * self.len()), ends: Vec::with_capacity(self.len()) };
            for slot in &self.slots {
                writer.write(&slot.event, &mut lines.text);
                lines.ends.push(lines.text.len());
            }
            lines
        })
    }

    fn fail(&self) {
        self.entries().for_each(Entry::fail);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // The last owner sees what all others stored: dropping an `Arc` synchronises.
        let lost = self.slots.iter_mut().filter_map(|slot| slot.failed.get_mut().then_some(())).count();
        self.tally.lost.fetch_add(lost as u64, Ordering::Relaxed);
        self.tally.delivered.fetch_add((self.slots.len() - lost) as u64, Ordering::Relaxed);
    }
}

/// An event on its way to the sinks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    batch: &'a Batch,
    index: usize,
}

impl<'a> Entry<'a> {
    pub(super) fn event(self) -> &'a Event {
        &self.batch.slots[self.index].event
    }

    /// The JSON, closed by a newline.
    pub(super) fn line(self) -> &'a [u8] {
        let Lines { text, ends } = self.batch.lines();
        let start = if self.index == 0 { 0 } else { ends[self.index - 1] };
        &text[start..ends[self.index]]
    }

    fn fail(self) {
        self.batch.slots[self.index].failed.store(true, Ordering::Relaxed);
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
    fn write(&mut self, batch: &[Entry<'_>]) -> Result<(), Failure>;
}

/// The queue and thread of a sink.
#[derive(Debug)]
pub(super) struct Worker {
    /// `None` once finishing.
    queue: Option<Sender<Arc<Batch>>>,
    /// Events in the queue, `<= capacity`.
    waiting: Arc<AtomicUsize>,
    capacity: usize,
    thread: JoinHandle<()>,
}

impl Worker {
    /// `capacity` is in events: the queue itself has no bound, since how much a batch holds differs.
    pub(super) fn spawn(target: &Target, output: Box<dyn Output>, capacity: usize) -> io::Result<Self> {
        let (sender, receiver) = channel();
        let target = target.clone();
        let waiting = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&waiting);
        let thread = std::thread::Builder::new()
            .name("event-sink".to_owned())
            .spawn(move || work(&target, output, &receiver, &count))?;
        Ok(Self { queue: Some(sender), waiting, capacity, thread })
    }

    /// A batch that does not fit into the queue is lost whole.
    pub(super) fn send(&self, batch: &Arc<Batch>) {
        let room = |waiting: usize| Some(waiting + batch.len()).filter(|sum| *sum <= self.capacity);
        let fits = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok();
        let sent = fits && self.queue.as_ref().is_some_and(|queue| queue.send(Arc::clone(batch)).is_ok());
        if !sent {
            batch.fail();
        }
    }

    /// No more events come: the thread ends once it has written those it has.
    pub(super) fn finish(&mut self) {
        self.queue = None;
    }

    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

fn work(target: &Target, mut output: Box<dyn Output>, queue: &Receiver<Arc<Batch>>, waiting: &AtomicUsize) {
    let mut complained: Option<Instant> = None;
    while let Ok(first) = queue.recv() {
        let mut count = first.len();
        let mut batches = vec![first];
        while count < AT_ONCE
            && let Ok(next) = queue.try_recv()
        {
            count += next.len();
            batches.push(next);
        }
        waiting.fetch_sub(count, Ordering::Relaxed);
        let entries: Vec<Entry<'_>> = batches.iter().flat_map(|batch| batch.entries()).collect();
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let Err(Failure { written, error }) = output.write(rest) else { break };
            rest[written].fail();
            rest = &rest[written + 1..];
            if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                tracing::warn!(%target, %error, "cannot write events; they count as lost");
                complained = Some(Instant::now());
            }
        }
    }
}
