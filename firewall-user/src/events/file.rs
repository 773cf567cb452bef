//! Lines to a file that is rotated by size: `path` becomes `path.1`, that `path.2`, up to `path.KEEP`.
//!
//! Others may move, remove or cut it as well, as logrotate does: each batch goes to the file that is at the path now.

use std::{
    fs::{DirBuilder, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use super::{
    queue::{Entry, Failure, Output},
    stream::{whole_lines, write_until_error},
};
use crate::config::EventFile;

/// Bounds of a file, which a reload may change while the sink runs.
#[derive(Debug)]
pub(super) struct Limits {
    /// Bytes.
    max_size: AtomicU64,
    keep: AtomicU32,
}

impl Limits {
    pub(super) fn change(&self, file: &EventFile) {
        self.max_size.store(file.max_size, Ordering::Relaxed);
        self.keep.store(file.keep, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(super) struct FileOutput {
    path: PathBuf,
    limits: Arc<Limits>,
    /// `None` after a failure, until it can be opened again.
    file: Option<Open>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Its device and inode.
    id: (u64, u64),
    /// Bytes in it.
    size: u64,
    /// It ends within a line.
    torn: bool,
}

impl FileOutput {
    /// Opens the file, and makes it and its directory where they are missing.
    pub(super) fn open(config: &EventFile) -> io::Result<Self> {
        let limits = Limits { max_size: AtomicU64::new(config.max_size), keep: AtomicU32::new(config.keep) };
        let file = Some(Open::new(&config.path)?);
        Ok(Self { path: config.path.clone(), limits: Arc::new(limits), file, buffer: Vec::new() })
    }

    pub(super) fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.limits)
    }

    /// Finds out what others did to the file.
    fn look(&mut self) {
        match (&mut self.file, std::fs::metadata(&self.path)) {
            (Some(open), Ok(about)) if id(&about) == open.id => {
                open.size = about.len();
                open.torn &= open.size > 0;
            }
            (file, _) => *file = None,
        }
    }

    /// Writes as many of `batch`, at least one, as the file has room for, after a rotation if it has none.
    fn write_some(&mut self, batch: &[Entry<'_>]) -> Result<usize, Failure> {
        let max_size = self.limits.max_size.load(Ordering::Relaxed);
        let first = batch[0].line().len() as u64;
        let fail = |error| Failure { written: 0, error };
        if current(&mut self.file, &self.path).map_err(fail)?.full(first, max_size) {
            self.rotate().map_err(fail)?;
        }

        let buffer = &mut self.buffer;
        buffer.clear();
        let open = current(&mut self.file, &self.path).map_err(fail)?;
        if open.torn {
            buffer.push(b'\n');
        }
        let close = buffer.len();
        let mut count = 0;
        for entry in batch {
            let line = entry.line();
            if count > 0 && open.size + (buffer.len() + line.len()) as u64 > max_size {
                break;
            }
            buffer.extend_from_slice(line);
            count += 1;
        }
        let (bytes, error) = write_until_error(&mut open.file, buffer);
        open.size += bytes as u64;
        let Some(error) = error else {
            open.torn = false;
            return Ok(count);
        };
        let (written, rest) = whole_lines(batch, bytes.saturating_sub(close));
        open.torn = bytes < close && open.torn;
        // A line that was cut off is taken back, so that the file holds whole lines only.
        if rest > 0 {
            open.size -= rest as u64;
            open.torn = open.file.set_len(open.size).is_err();
        }
        Err(Failure { written, error })
    }

    /// Makes room: moves the files on, or empties this one if none is to be kept.
    fn rotate(&mut self) -> io::Result<()> {
        let keep = self.limits.keep.load(Ordering::Relaxed);
        if keep == 0 {
            let open = current(&mut self.file, &self.path)?;
            open.file.set_len(0)?;
            open.size = 0;
            open.torn = false;
            return Ok(());
        }
        for number in (1..keep).rev() {
            rename(&numbered(&self.path, number), &numbered(&self.path, number + 1))?;
        }
        rename(&self.path, &numbered(&self.path, 1))?;
        self.file = None;
        Ok(())
    }
}

impl Output for FileOutput {
    fn write(&mut self, batch: &[Entry<'_>]) -> Result<(), Failure> {
        self.look();
        let mut done = 0;
        while done < batch.len() {
            match self.write_some(&batch[done..]) {
                Ok(count) => done += count,
                Err(failure) => return Err(Failure { written: done + failure.written, ..failure }),
            }
        }
        Ok(())
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o750).create(parent)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o640)
            // A pipe in the place of the file must not hold up the agent; a file ignores this.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let size = metadata.len();
        let mut last = [b'\n'];
        if size > 0 {
            file.read_exact_at(&mut last, size - 1)?;
        }
        Ok(Self { file, id: id(&metadata), size, torn: last != [b'\n'] })
    }

    /// Whether a line of `length` bytes would make the file outgrow `max_size`. An empty file takes any line.
    fn full(&self, length: u64, max_size: u64) -> bool {
        self.size > 0 && self.size + u64::from(self.torn) + length > max_size
    }
}

/// The open file; opened if it is not.
fn current<'a>(file: &'a mut Option<Open>, path: &Path) -> io::Result<&'a mut Open> {
    match file {
        Some(open) => Ok(open),
        None => Ok(file.insert(Open::new(path)?)),
    }
}

fn id(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Renames `from`, if it is there.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{
        super::{queue::Batch, record::tests::sample},
        *,
    };

    /// Records with these numbers, whose lines are all of one length.
    fn batch(numbers: std::ops::Range<u32>) -> Batch {
        let events = numbers.map(|number| crate::events::Record { generation: 1000 + number, ..sample() }.into());
        Batch::new(events, Arc::default())
    }

    fn line_length() -> u64 {
        batch(0..1).entries().next().unwrap().line().len() as u64
    }

    /// Writes the records with these numbers at once.
    fn write(output: &mut FileOutput, numbers: std::ops::Range<u32>) -> Result<(), Failure> {
        output.write(&batch(numbers).entries().collect::<Vec<_>>())
    }

    fn output(path: &Path, max_size: u64, keep: u32) -> FileOutput {
        FileOutput::open(&EventFile { path: path.to_owned(), max_size, keep }).unwrap()
    }

    /// The generations in a file, each line parsed.
    fn generations(path: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["generation"].as_u64().unwrap() - 1000)
            .collect()
    }

    #[test]
    fn rotates_at_the_exact_size() {
        for (slack, expected) in [(0, 3), (1, 3), (-1, 2)] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("events.json");
            let max_size = (line_length() * 3).checked_add_signed(slack).unwrap();
            let mut output = output(&path, max_size, 5);
            for number in 0..expected {
                write(&mut output, number..number + 1).unwrap();
            }
            assert!(!numbered(&path, 1).exists(), "slack {slack}");
            write(&mut output, expected..expected + 1).unwrap();
            assert_eq!(generations(&path), [u64::from(expected)], "slack {slack}");
            assert_eq!(generations(&numbered(&path, 1)).len(), expected as usize, "slack {slack}");
        }
    }

    #[test]
    fn loses_and_tears_no_record_across_rotations() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.json");
        let mut output = output(&path, line_length() * 7 + 3, 100);
        let batch = batch(0..500);
        for entries in batch.entries().collect::<Vec<_>>().chunks(11) {
            output.write(entries).unwrap();
        }
        let mut all = Vec::new();
        for number in (1..=100).rev().filter(|number| numbered(&path, *number).exists()) {
            let part = generations(&numbered(&path, number));
            assert_eq!(part.len(), 7);
            all.extend(part);
        }
        all.extend(generations(&path));
        assert_eq!(all, (0..500).collect::<Vec<u64>>());
    }

    #[test]
    fn keeps_as_many_as_it_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.json");
        let mut output = output(&path, line_length(), 2);
        (0..5).for_each(|number| write(&mut output, number..number + 1).unwrap());
        assert_eq!(generations(&path), [4]);
        assert_eq!(generations(&numbered(&path, 1)), [3]);
        assert_eq!(generations(&numbered(&path, 2)), [2]);
        assert!(!numbered(&path, 3).exists());
    }

    #[test]
    fn keeps_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.json");
        let mut output = output(&path, line_length() * 2, 0);
        write(&mut output, 0..5).unwrap();
        assert_eq!(generations(&path), [4]);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_record_larger_than_the_limit_has_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.json");
        let mut output = output(&path, 1, 3);
        write(&mut output, 0..2).unwrap();
        assert_eq!(generations(&path), [1]);
        assert_eq!(generations(&numbered(&path, 1)), [0]);
    }

    #[test]
    fn makes_the_directory_and_goes_on_after_a_torn_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/events.json");
        drop(output(&path, 1 << 20, 1));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
        std::fs::write(&path, "{\"torn").unwrap();
        write(&mut output(&path, 1 << 20, 1), 0..1).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let batch = batch(0..1);
        let line = batch.entries().next().unwrap().line();
        assert_eq!(text, format!("{{\"torn\n{}", String::from_utf8_lossy(line)));
    }

    #[test]
    fn others_may_rotate_it() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("log");
        let (path, moved) = (folder.join("events.json"), folder.join("moved.json"));
        let mut output = output(&path, line_length() * 2, 1);
        write(&mut output, 0..1).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        write(&mut output, 1..3).unwrap();
        assert_eq!((generations(&moved), generations(&path)), (vec![0], vec![1, 2]));
        // Copied, and cut to nothing: it has room again.
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        write(&mut output, 3..5).unwrap();
        assert_eq!(generations(&path), [3, 4]);
        assert!(!numbered(&path, 1).exists());
        std::fs::remove_file(&path).unwrap();
        write(&mut output, 5..6).unwrap();
        assert_eq!(generations(&path), [5]);
        std::fs::remove_dir_all(&folder).unwrap();
        write(&mut output, 6..7).unwrap();
        assert_eq!(generations(&path), [6]);
    }

    #[test]
    fn refuses_what_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(FileOutput::open(&EventFile { path, max_size: 100, keep: 1 }).is_err());
        let path = directory.path().to_owned();
        assert!(FileOutput::open(&EventFile { path, max_size: 100, keep: 1 }).is_err());
    }

    #[test]
    fn knows_which_lines_are_whole() {
        let batch = batch(0..2);
        let entries: Vec<_> = batch.entries().collect();
        assert_eq!(whole_lines(&entries, line_length() as usize + 5), (1, 5));
        assert_eq!(whole_lines(&entries[..1], line_length() as usize), (1, 0));
        assert_eq!(whole_lines(&entries[..1], 0), (0, 0));
    }

    #[test]
    fn a_failed_rotation_loses_instead_of_growing_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.json");
        let mut output = output(&path, line_length(), 1);
        write(&mut output, 0..1).unwrap();
        // A directory in the way of `path.1` that is not empty cannot be renamed over.
        std::fs::create_dir_all(numbered(&path, 1).join("x")).unwrap();
        assert_eq!(write(&mut output, 1..3).unwrap_err().written, 0);
        std::fs::remove_dir_all(numbered(&path, 1)).unwrap();
        write(&mut output, 3..4).unwrap();
        assert_eq!(generations(&path), [3]);
        assert_eq!(generations(&numbered(&path, 1)), [0]);
    }
}
