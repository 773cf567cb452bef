//! What the agent says: events on its standard output, the rest on standard error.

use std::{
    fmt,
    io::{BufRead, BufReader, Read},
    net::IpAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

use serde::Deserialize;

/// One line of the agent's standard output.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    pub time: String,
    /// `dmz` or `lan`.
    pub layer: String,
    /// Of a packet `drop`, `monitor` or `ban`; of a request `pass`, `refuse`, `monitor` or `fail`.
    pub action: String,
    /// Empty where there is none, as for a request that passed.
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub rule: Option<String>,
    #[serde(default)]
    pub list: Option<String>,
    #[serde(default)]
    pub source: Option<IpAddr>,
    #[serde(default)]
    pub source_port: Option<u16>,
    #[serde(default)]
    pub destination: Option<IpAddr>,
    #[serde(default)]
    pub destination_port: Option<u16>,
    #[serde(default)]
    pub protocol: Option<serde_json::Value>,
    #[serde(default)]
    pub length: Option<u64>,
    #[serde(default)]
    pub interface: Option<String>,
    #[serde(default)]
    pub count: u64,
    #[serde(default)]
    pub generation: u32,
    /// What only requests have: `api`, `method`, `path`, `status` and the like.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl Event {
    /// The status that a request was answered with.
    pub fn status(&self) -> Option<u64> {
        self.more.get("status")?.as_u64()
    }

    /// A text that only requests have.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.more.get(name)?.as_str()
    }

    /// The rule or list that gave the verdict.
    pub fn by(&self) -> Option<&str> {
        self.rule.as_deref().or(self.list.as_deref())
    }
}

/// Called with each event as it comes.
pub type Watcher = Box<dyn Fn(&Event) + Send>;

/// What the agent said, shared with the threads that listen.
#[derive(Default)]
pub(super) struct Log {
    pub(super) state: Mutex<LogState>,
    pub(super) changed: Condvar,
    pub(super) watcher: Mutex<Option<Watcher>>,
}

#[derive(Debug, Default)]
pub(super) struct LogState {
    pub(super) events: Vec<Event>,
    /// Lines of standard output that are no event.
    pub(super) strange: Vec<String>,
    pub(super) stderr: String,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

impl Log {
    pub(super) fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().expect("listeners do not panic")
    }

    /// Hands every line to `take` until the other end is closed.
    pub(super) fn listen(
        self: &Arc<Self>,
        pipe: impl Read + Send + 'static,
        take: fn(&Self, String),
    ) -> thread::JoinHandle<()> {
        let log = Arc::clone(self);
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                take(&log, line);
            }
        })
    }

    pub(super) fn take_event(&self, line: String) {
        match serde_json::from_str::<Event>(&line) {
            Ok(event) => {
                if let Some(watcher) = &*self.watcher.lock().expect("watchers do not panic") {
                    watcher(&event);
                }
                self.state().events.push(event);
            }
            Err(error) => self.state().strange.push(format!("{line} ({error})")),
        }
        self.changed.notify_all();
    }

    pub(super) fn take_error(&self, line: String) {
        let mut state = self.state();
        state.stderr.push_str(&line);
        state.stderr.push('\n');
    }
}
