//! Notices when the configuration or a list file changes, whatever way an editor saves it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use notify_debouncer_full::{
    DebounceEventResult, Debouncer, RecommendedCache, new_debouncer,
    notify::{self, RecommendedWatcher, RecursiveMode},
};

/// Saving may take several steps; we wait until nothing has happened for as long.
const QUIET: Duration = Duration::from_millis(100);

/// Watches the folders of files: editors replace files by renaming, which a watch on the file would lose.
pub(super) struct Files {
    watcher: Debouncer<RecommendedWatcher, RecommendedCache>,
    folders: BTreeSet<PathBuf>,
    files: Vec<PathBuf>,
    seen: Vec<Option<Stamp>>,
}

/// What changes when a file's content does: device, inode, size, modification time.
type Stamp = (u64, u64, u64, i64, i64);

impl Files {
    /// Calls `changed` when something happened in a folder that is watched.
    pub(super) fn new(changed: impl Fn() + Send + 'static) -> notify::Result<Self> {
        let handler = move |result: DebounceEventResult| match result {
            // Reading a file is no change; a look at a changed one costs little.
            Ok(events) if events.iter().all(|event| event.kind.is_access()) => {}
            // Errors are overflows of the queue: something happened.
            Ok(_) | Err(_) => changed(),
        };
        let watcher = new_debouncer(QUIET, None, handler)?;
        Ok(Self { watcher, folders: BTreeSet::new(), files: Vec::new(), seen: Vec::new() })
    }

    /// Watches exactly these files from now on. What was written after `read_at` counts as changed.
    pub(super) fn watch(&mut self, files: &[PathBuf], read_at: SystemTime) -> notify::Result<()> {
        let folders: BTreeSet<PathBuf> = files.iter().filter_map(|file| file.parent()).map(Path::to_owned).collect();
        for folder in folders.difference(&self.folders) {
            self.watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        for folder in self.folders.difference(&folders) {
            // A folder that is gone is not watched either.
            let _gone = self.watcher.unwatch(folder);
        }
        self.folders = folders;
        if files != self.files {
            self.files = files.to_vec();
            let read_at = read_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i128;
            let written = |(.., seconds, nanos): &Stamp| i128::from(*seconds) * 1_000_000_000 + i128::from(*nanos);
            self.seen =
                self.stamps().into_iter().map(|stamp| stamp.filter(|stamp| written(stamp) <= read_at)).collect();
        }
        Ok(())
    }

    /// Whether a file differs from what it was at the last call.
    pub(super) fn changed(&mut self) -> bool {
        let stamps = self.stamps();
        let changed = stamps != self.seen;
        self.seen = stamps;
        changed
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        let stamp = |about: fs::Metadata| (about.dev(), about.ino(), about.size(), about.mtime(), about.mtime_nsec());
        self.files.iter().map(|file| fs::metadata(file).ok().map(stamp)).collect()
    }
}
