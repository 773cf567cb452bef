//! Events: what the kernel and the agent tell of verdicts, and where it is written.
//!
//! In: [`Event`]s, through a [`Recorder`] or [`Sinks::send`], which never block. Out: lines of JSON on standard output and
//! in a file, entries in the journal. Each sink has its own thread and its own bounded queue, so that a slow disk or a
//! reader that sleeps holds up neither the agent nor the other sinks. An event counts as delivered once every sink has
//! written it, and as lost if one of them could not; each counts exactly once.
//!
//! All kinds of events have `time`, `layer` (`dmz` or `lan`), `action` and `reason` (of a request only if there is one),
//! and call the client's address `source` and its port `source_port`: one query finds a client in both layers.

mod ban;
mod event;
mod file;
mod journal;
pub mod kernel;
mod line;
mod queue;
mod record;
mod recorder;
pub mod request;
mod stream;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

pub use self::{
    ban::{BanOutcome, BanRecord},
    event::Event,
    queue::Counts,
    record::{Record, format_time},
    recorder::{FLUSH_EVERY, Recorder},
};
use self::{
    file::{FileOutput, Limits},
    journal::JournalOutput,
    queue::{Batch, Output, Tally, Worker},
    stream::StreamOutput,
};
use crate::config;

/// Events that may wait for each sink: a second of what eight busy CPUs may send. About 25 MB when full, 90 MB if every one
/// is a request with the longest path.
const QUEUE: usize = 1 << 16;
/// How long [`Sinks::close`] waits for the sinks to write what they have.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Why a sink cannot be used.
#[derive(Debug)]
pub enum SinkError {
    /// The sink cannot be opened.
    Open { target: Target, error: io::Error },
    /// It was removed by an earlier reload, but is still writing what it had been sent.
    Busy { target: Target },
}

impl std::fmt::Display for SinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open { target, error } => write!(f, "cannot write events to {target}: {error}"),
            Self::Busy { target } => write!(f, "{target} is still writing older events; try again"),
        }
    }
}

impl std::error::Error for SinkError {}

/// Where a sink writes. No two sinks have the same target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Stdout,
    Journal,
    File(PathBuf),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::Journal => f.write_str("the journal"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// The sinks of the configuration in force.
#[derive(Debug, Default)]
pub struct Sinks {
    running: RwLock<Vec<Sink>>,
    /// There are sinks among these.
    open: AtomicBool,
    /// Sinks that a reload removed, while they write what they have.
    retired: Mutex<Vec<Sink>>,
    tally: Arc<Tally>,
}

#[derive(Debug)]
struct Sink {
    target: Target,
    worker: Worker,
    /// Of a file.
    limits: Option<Arc<Limits>>,
}

impl Sinks {
    /// Opens every sink of `config`, or none.
    pub fn open(config: &config::Events) -> Result<Self, SinkError> {
        let sinks = Self::default();
        sinks.reconfigure(config)?;
        Ok(sinks)
    }

    /// Changes to the sinks of `config`. If one of them cannot be opened, everything stays as it was.
    pub fn reconfigure(&self, config: &config::Events) -> Result<(), SinkError> {
        let mut running = self.running.write().unwrap_or_else(PoisonError::into_inner);
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|sink| !sink.worker.is_finished());

        let wanted = targets(config);
        let mut opened = Vec::new();
        for target in wanted.iter().filter(|target| running.iter().all(|sink| sink.target != **target)) {
            if retired.iter().any(|sink| sink.target == *target) {
                return Err(SinkError::Busy { target: target.clone() });
            }
            let sink = Sink::open(target.clone(), config.file.as_ref());
            opened.push(sink.map_err(|error| SinkError::Open { target: target.clone(), error })?);
        }

        let (kept, removed): (Vec<_>, Vec<_>) = running.drain(..).partition(|sink| wanted.contains(&sink.target));
        for sink in &kept {
            if let (Some(limits), Some(file)) = (&sink.limits, &config.file) {
                limits.change(file);
            }
        }
        for mut sink in removed {
            sink.worker.finish();
            retired.push(sink);
        }
        running.extend(kept);
        running.extend(opened);
        self.open.store(!running.is_empty(), Ordering::Relaxed);
        Ok(())
    }

    /// Whether there is a sink.
    pub fn are_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Hands an event to every sink; a sink whose queue is full loses it. Without sinks, this does nothing.
    pub fn send(&self, event: impl Into<Event>) {
        self.send_all(std::iter::once(event.into()));
    }

    /// The same with many at once; a sink whose queue has not room for all of them loses all.
    fn send_all(&self, events: impl Iterator<Item = Event>) {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        if running.is_empty() {
            return;
        }
        let batch = Arc::new(Batch::new(events, Arc::clone(&self.tally)));
        for sink in running.iter() {
            sink.worker.send(&batch);
        }
    }

    /// Events so far. Those still in a queue are in neither number.
    pub fn counts(&self) -> Counts {
        self.tally.counts()
    }

    /// Writes what waits and ends the sinks, within two seconds. What then still waits counts as lost in the result.
    pub fn close(&self) -> Counts {
        let mut sinks: Vec<_> = self.running.write().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        self.open.store(false, Ordering::Relaxed);
        sinks.append(&mut self.retired.lock().unwrap_or_else(PoisonError::into_inner));
        for sink in &mut sinks {
            sink.worker.finish();
        }
        let deadline = Instant::now() + CLOSE_WITHIN;
        while sinks.iter().any(|sink| !sink.worker.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.tally.final_counts()
    }

    /// For tests: sinks that write to `outputs`, each with a queue of `queue` events.
    #[cfg(test)]
    fn with_outputs(outputs: Vec<Box<dyn Output>>, queue: usize) -> Self {
        let sinks = Self::default();
        for (index, output) in outputs.into_iter().enumerate() {
            let target = Target::File(index.to_string().into());
            let worker = Worker::spawn(&target, output, queue).unwrap();
            sinks.running.write().unwrap().push(Sink { target, worker, limits: None });
        }
        sinks.open.store(true, Ordering::Relaxed);
        sinks
    }
}

impl Sink {
    /// `file` is that of [`Target::File`].
    fn open(target: Target, file: Option<&config::EventFile>) -> io::Result<Self> {
        let mut limits = None;
        let output: Box<dyn Output> = match (&target, file) {
            (Target::Stdout, _) => Box::new(StreamOutput::stdout()?),
            (Target::Journal, _) => Box::new(JournalOutput::open()?),
            (Target::File(_), None) => return Err(io::ErrorKind::NotFound.into()),
            (Target::File(_), Some(file)) => {
                let output = FileOutput::open(file)?;
                limits = Some(output.limits());
                Box::new(output)
            }
        };
        let worker = Worker::spawn(&target, output, QUEUE)?;
        Ok(Self { target, worker, limits })
    }
}

fn targets(config: &config::Events) -> Vec<Target> {
    let stdout = config.stdout.then_some(Target::Stdout);
    let journal = config.journald.then_some(Target::Journal);
    let file = config.file.as_ref().map(|file| Target::File(file.path.clone()));
    stdout.into_iter().chain(journal).chain(file).collect()
}

#[cfg(test)]
mod tests;
