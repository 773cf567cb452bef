//! Sinks as a whole: counting, slow and broken sinks, reloads.

use std::{
    io::{Read, Write},
    sync::mpsc,
};

use super::{
    queue::{Entry, Failure},
    record::tests::sample,
    *,
};
use crate::config::{EventFile, Events};

const OFF: Events = Events { stdout: false, journald: false, file: None };

fn to_file(path: &std::path::Path) -> Events {
    Events { file: Some(EventFile { path: path.to_owned(), max_size: 1 << 20, keep: 1 }), ..OFF }
}

fn numbered(number: u32) -> Record {
    Record { generation: number, ..sample() }
}

/// Writes each entry once it is allowed to.
struct Gate(mpsc::Receiver<()>);

impl Output for Gate {
    fn write(&mut self, batch: &[Entry<'_>]) -> Result<(), Failure> {
        for _ in batch {
            // A closed gate lets all through.
            let _ = self.0.recv();
        }
        Ok(())
    }
}

/// Fails each record of an odd generation.
struct Odd;

impl Output for Odd {
    fn write(&mut self, batch: &[Entry<'_>]) -> Result<(), Failure> {
        match batch
            .iter()
            .position(|entry| matches!(entry.event(), Event::Packet(record) if record.generation % 2 == 1))
        {
            Some(written) => Err(Failure { written, error: io::ErrorKind::StorageFull.into() }),
            None => Ok(()),
        }
    }
}

#[test]
fn a_slow_sink_neither_blocks_nor_miscounts() {
    let (gate, receiver) = mpsc::channel();
    let (pipe_reader, pipe_writer) = io::pipe().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        io::BufReader::new(pipe_reader).read_to_string(&mut text).unwrap();
        text
    });
    let sinks = Sinks::with_outputs(vec![Box::new(Gate(receiver)), Box::new(StreamOutput::new(pipe_writer))], 10_000);
    for number in 0..30_000 {
        sinks.send(numbered(number));
    }
    // The slow sink holds what fits into its queue and the batch it took; everything else is lost once the other sink
    // has let go of it.
    let held = |counts: Counts| (30_000 - 10_000 - 256..=20_000).contains(&counts.lost);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !held(sinks.counts()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(held(sinks.counts()) && sinks.counts().delivered == 0, "{:?}", sinks.counts());
    drop(gate);
    let counts = sinks.close();
    assert!(held(counts) && counts.delivered + counts.lost == 30_000, "{counts:?}");
    assert_eq!(sinks.counts(), counts);
    // The other sink had them all, unless the reader was slow.
    drop(sinks);
    assert!(reader.join().unwrap().lines().count() as u64 >= counts.delivered);
}

#[test]
fn counts_each_failure_once() {
    let sinks = Sinks::with_outputs(vec![Box::new(Odd), Box::new(Odd)], 1000);
    (0..999).for_each(|number| sinks.send(numbered(number)));
    assert_eq!(sinks.close(), Counts { delivered: 500, lost: 499 });
}

#[test]
fn a_sink_that_never_ends_is_left_behind() {
    let (gate, receiver) = mpsc::channel();
    let sinks = Sinks::with_outputs(vec![Box::new(Gate(receiver))], 100);
    (0..10).for_each(|number| sinks.send(numbered(number)));
    let started = Instant::now();
    assert_eq!(sinks.close(), Counts { delivered: 0, lost: 10 });
    assert!(started.elapsed() < CLOSE_WITHIN * 2);
    drop(gate);
}

#[test]
fn a_broken_pipe_is_counted() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for output in
        [Box::new(StreamOutput::new(writer)) as Box<dyn Output>, Box::new(StreamOutput::new(full)) as Box<dyn Output>]
    {
        let sinks = Sinks::with_outputs(vec![output], 100);
        (0..20).for_each(|number| sinks.send(numbered(number)));
        assert_eq!(sinks.close(), Counts { delivered: 0, lost: 20 });
    }
}

/// Takes 500 bytes, then fails once, then takes everything.
struct Hiccup {
    taken: Arc<Mutex<Vec<u8>>>,
    failed: bool,
}

impl Write for Hiccup {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = self.taken.lock().unwrap();
        let room = if self.failed { bytes.len() } else { 500 - taken.len() };
        if room == 0 {
            self.failed = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let count = room.min(bytes.len());
        taken.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_torn_line_is_lost_alone() {
    let taken = Arc::default();
    let sinks = Sinks::with_outputs(
        vec![Box::new(StreamOutput::new(Hiccup { taken: Arc::clone(&taken), failed: false }))],
        100,
    );
    (0..9).for_each(|number| sinks.send(numbered(number)));
    assert_eq!(sinks.close(), Counts { delivered: 8, lost: 1 });
    let text = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
    let torn = text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err()).count();
    assert_eq!((text.lines().count(), torn), (9, 1));
}

#[test]
fn without_sinks_nothing_counts() {
    let sinks = Sinks::open(&OFF).unwrap();
    sinks.send(sample());
    assert_eq!(sinks.close(), Counts::default());
}

#[test]
fn a_reload_keeps_opens_and_removes_sinks() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["first.json", "second.json"].map(|name| directory.path().join(name));
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap().lines().count();

    let sinks = Sinks::open(&to_file(&first)).unwrap();
    sinks.send(sample());
    // Cannot be opened: the first stays.
    let error = sinks.reconfigure(&to_file(directory.path())).unwrap_err();
    assert!(error.to_string().contains(&directory.path().display().to_string()), "{error}");
    sinks.send(sample());
    // The file has been moved by someone else: the next event makes a new one.
    while sinks.counts().delivered < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let moved = directory.path().join("moved.json");
    std::fs::rename(&first, &moved).unwrap();
    sinks.reconfigure(&to_file(&first)).unwrap();
    sinks.send(sample());
    sinks.reconfigure(&to_file(&second)).unwrap();
    sinks.send(sample());
    sinks.send(sample());
    sinks.reconfigure(&OFF).unwrap();
    sinks.send(sample());
    assert_eq!(sinks.close(), Counts { delivered: 5, lost: 0 });
    assert_eq!((lines(&moved), lines(&first), lines(&second)), (2, 1, 2));
}

#[test]
fn a_recorder_hands_over_what_is_full_or_asked_for() {
    let (gate, receiver) = mpsc::channel();
    drop(gate);
    let sinks = Arc::new(Sinks::with_outputs(vec![Box::new(Gate(receiver))], 10_000));
    let delivered = |count: u64| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while sinks.counts().delivered < count && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(sinks.counts(), Counts { delivered: count, lost: 0 });
    };
    let mut recorder = Recorder::new(Arc::clone(&sinks));
    assert!(recorder.is_heard());
    let first: Vec<bool> = (0..recorder::FULL as u32 + 1).map(|number| recorder.push(numbered(number))).collect();
    // The owner is told whenever something begins to wait.
    assert_eq!(first.iter().filter(|first| **first).count(), 2);
    assert!(first[0] && first[recorder::FULL]);
    delivered(recorder::FULL as u64);
    recorder.flush();
    recorder.flush();
    delivered(recorder::FULL as u64 + 1);
    recorder.push(numbered(0));
    drop(recorder);
    delivered(recorder::FULL as u64 + 2);
}

#[test]
fn batches_are_bounded_and_counted_by_event() {
    let (gate, receiver) = mpsc::channel();
    let sinks = Arc::new(Sinks::with_outputs(vec![Box::new(Gate(receiver)), Box::new(Odd)], 1000));
    let mut recorder = Recorder::new(Arc::clone(&sinks));
    // The slow sink has at most three of these batches in its hands, and room for ten.
    for _ in 0..20 {
        (0..100).for_each(|number| _ = recorder.push(numbered(number)));
        recorder.flush();
    }
    drop(gate);
    drop(recorder);
    let counts = sinks.close();
    assert_eq!(counts.delivered + counts.lost, 2000, "{counts:?}");
    // Of each batch that had room, half; and of those without room, none. The other sink was quick, or had room as well.
    assert!(counts.delivered.is_multiple_of(50) && (500..=650).contains(&counts.delivered), "{counts:?}");
}

#[test]
fn a_recorder_nobody_listens_to_keeps_nothing() {
    let sinks = Arc::new(Sinks::open(&OFF).unwrap());
    let mut recorder = Recorder::new(Arc::clone(&sinks));
    assert!(!recorder.is_heard() && !recorder.push(sample()));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.json");
    sinks.reconfigure(&to_file(&path)).unwrap();
    assert!(recorder.push(sample()));
    drop(recorder);
    assert_eq!(sinks.close(), Counts { delivered: 1, lost: 0 });
    assert!(!sinks.are_open());
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
}

#[test]
fn a_packet_a_request_and_a_ban_share_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.json");
    let sinks = Sinks::open(&to_file(&path)).unwrap();
    sinks.send(sample());
    sinks.send(request::tests::sample());
    sinks.send(ban::tests::sample());
    assert_eq!(sinks.close(), Counts { delivered: 3, lost: 0 });
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // One query finds a client, whatever told of it.
    assert!(lines.iter().all(|line| line["source"] == "203.0.113.7"), "{text}");
    let told: Vec<_> = lines.iter().map(|line| (line["layer"].as_str(), line["action"].as_str())).collect();
    assert_eq!(told, [(Some("dmz"), Some("drop")), (Some("lan"), Some("refuse")), (Some("lan"), Some("ban"))]);
}
