//! Notices when the configuration or a list file changes, whatever way an editor saves it.
//!
//! It looks at the files themselves, again and again. A look costs a few microseconds, and sees what a watch of folders
//! does not tell of: a folder that was replaced, a link that leads elsewhere now, a network file system.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How often to ask [`Files::changed`]. Saving may take several steps, so a change counts once two looks agree on it.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks after which a file that is written to all the time is taken as it is.
const PATIENCE: u32 = 5;

#[derive(Default)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    /// The files as they were when a change was last told, or they were first read.
    known: Vec<Option<Stamp>>,
    /// As they were at the last look.
    last: Vec<Option<Stamp>>,
    /// Looks that found them other than known, in a row.
    unlike: u32,
}

/// What changes when a file is written or another takes its place: device, inode, size, time of the last change. `None`
/// for a file that is not there.
type Stamp = (u64, u64, u64, Duration);

impl Files {
    /// Looks at exactly these files from now on. Of those that are new here, what was written after `read_at` counts as
    /// changed.
    pub(super) fn watch(&mut self, paths: Vec<PathBuf>, read_at: SystemTime) {
        let read_at = read_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let known = paths.iter().map(|path| match self.paths.iter().position(|watched| watched == path) {
            Some(index) => self.known[index],
            None => stamp(path).filter(|(.., written)| *written <= read_at),
        });
        self.known = known.collect();
        self.paths = paths;
        self.last.clear();
    }

    /// Whether a file has changed since this last said so.
    pub(super) fn changed(&mut self) -> bool {
        let now: Vec<_> = self.paths.iter().map(stamp).collect();
        if now == self.known {
            self.unlike = 0;
            return false;
        }
        self.unlike += 1;
        let rests = now == self.last;
        self.last = now;
        if !rests && self.unlike < PATIENCE {
            return false;
        }
        self.known.clone_from(&self.last);
        self.unlike = 0;
        true
    }
}

fn stamp(path: &PathBuf) -> Option<Stamp> {
    let about = fs::metadata(path).ok()?;
    // Unlike the time of modification, nobody can set this one back.
    let changed = Duration::new(about.ctime().try_into().unwrap_or(0), about.ctime_nsec().try_into().unwrap_or(0));
    Some((about.dev(), about.ino(), about.size(), changed))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, path::Path};

    use super::*;

    /// Files that were read long after they were written.
    fn watched(paths: &[&Path]) -> Files {
        let mut files = Files::default();
        files.watch(paths.iter().map(|path| path.to_path_buf()).collect(), SystemTime::now() + Duration::from_secs(1));
        assert!(!files.changed());
        files
    }

    /// Asks as often as it takes, and once more: a change is told once.
    #[track_caller]
    fn assert_told(files: &mut Files) {
        assert!(!files.changed(), "at once: it may be half written");
        assert!(files.changed());
        assert!(!files.changed());
    }

    #[test]
    fn whatever_way_it_is_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("a")).unwrap();
        fs::create_dir(path("b")).unwrap();
        fs::write(path("a/list"), "1").unwrap();
        fs::write(path("b/list"), "2").unwrap();
        symlink("a", path("now")).unwrap();
        let list = path("now/list");
        let mut files = watched(&[&list]);

        fs::write(path("a/list"), "in place").unwrap();
        assert_told(&mut files);
        fs::write(path("a/new"), "renamed").unwrap();
        fs::rename(path("a/new"), path("a/list")).unwrap();
        assert_told(&mut files);
        fs::remove_file(path("a/list")).unwrap();
        assert_told(&mut files);
        fs::write(path("a/list"), "made anew").unwrap();
        assert_told(&mut files);
        symlink("b", path("next")).unwrap();
        fs::rename(path("next"), path("now")).unwrap();
        assert_told(&mut files);
        fs::write(path("b/list"), "behind the link").unwrap();
        assert_told(&mut files);
        fs::remove_dir_all(path("b")).unwrap();
        fs::create_dir(path("b")).unwrap();
        fs::write(path("b/list"), "in a folder made anew").unwrap();
        assert_told(&mut files);
        fs::write(path("b/list"), "and again").unwrap();
        assert_told(&mut files);
    }

    #[test]
    fn a_file_that_never_rests_is_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let mut files = watched(&[&path]);
        let told = (1..20).filter(|length| {
            fs::write(&path, "x".repeat(*length)).unwrap();
            files.changed()
        });
        assert_eq!(told.collect::<Vec<_>>(), [5, 10, 15]);
    }

    #[test]
    fn what_was_written_while_it_was_read_counts() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
        fs::write(&old, "").unwrap();
        let mut files = watched(&[&old]);
        fs::write(&new, "").unwrap();
        files.watch(vec![old.clone(), new.clone()], SystemTime::now() + Duration::from_secs(1));
        assert!(!files.changed());
        fs::write(&old, "changed, not told yet").unwrap();
        files.watch(vec![old.clone()], SystemTime::now() + Duration::from_secs(1));
        assert_told(&mut files);
        files.watch(vec![old, new], SystemTime::now() - Duration::from_secs(1));
        assert_told(&mut files);
    }
}
