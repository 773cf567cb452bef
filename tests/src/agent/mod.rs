//! The agent under test: the real binary, in the host namespace, driven through its own command line.
//!
//! In flow a configuration and commands, out come its status, its events and what its commands print. Each agent is an
//! instance of its own, so that tests run side by side; everything it pinned and wrote is removed on drop.

mod log;
#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use firewall_user::control::api::{Ban, Count, List, Status};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use tempfile::TempDir;

use self::log::Log;
pub use self::log::{Event, Watcher};
use crate::netns::{Namespace, World, remove_tree, unique_name};

/// For the agent to attach, to stop, to reload.
const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(30);

/// A running agent. It is killed, detached and wiped on drop.
#[derive(Debug)]
pub struct Agent {
    /// `--instance`: names its pins, its socket, its state.
    pub instance: String,
    /// Holds the configuration and its lists.
    directory: TempDir,
    child: Option<Child>,
    listeners: Vec<thread::JoinHandle<()>>,
    log: Arc<Log>,
    namespace: Namespace,
}

impl Agent {
    /// Starts the agent with this configuration on the host of `world`, and waits until its program is attached.
    pub fn start(world: &World, config: &str) -> Result<Self> {
        Self::start_with(world, config, &[])
    }

    /// As [`Agent::start`], with files beside the configuration: name and content.
    pub fn start_with(world: &World, config: &str, files: &[(&str, &str)]) -> Result<Self> {
        let mut agent = Self::prepare(world, config, files)?;
        agent.launch(&[])?;
        Ok(agent)
    }

    /// Writes the files, but starts nothing yet: see [`Agent::launch`].
    pub fn prepare(world: &World, config: &str, files: &[(&str, &str)]) -> Result<Self> {
        mount_bpffs()?;
        let instance = unique_name();
        let agent = Self {
            directory: TempDir::with_prefix(format!("{instance}-"))?,
            instance,
            child: None,
            listeners: Vec::new(),
            log: Arc::default(),
            namespace: world.host.clone(),
        };
        agent.edit_config(config)?;
        for (name, content) in files {
            agent.write(name, content)?;
        }
        Ok(agent)
    }

    /// Starts the process with `more` options, and waits until every interface that exists has the program.
    pub fn launch(&mut self, more: &[&str]) -> Result<()> {
        ensure!(self.child.is_none(), "it runs already");
        self.spawn(more)?;
        self.wait_until("attached", |status| {
            !status.interfaces.is_empty()
                && status.interfaces.iter().all(|interface| interface.attached || interface.mode == "absent")
        })
    }

    /// Has another process take over from the one that runs, and waits until that has ended; how it did.
    pub fn replace(&mut self) -> Result<ExitStatus> {
        let mut old = self.child.take().context("no agent runs")?;
        let listeners = std::mem::take(&mut self.listeners);
        self.spawn(&["--replace"])?;
        let pid = self.pid();
        self.listeners.extend(listeners);
        if let Err(error) = self.wait_until("in charge", |status| Some(status.pid) == pid) {
            old.kill()?;
            old.wait()?;
            return Err(error);
        }
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = old.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                old.kill()?;
                old.wait()?;
                bail!("the agent before does not end; it was killed. They said:\n{}", self.stderr());
            }
            thread::sleep(POLL);
        }
    }

    fn spawn(&mut self, more: &[&str]) -> Result<()> {
        let mut child = self
            .command(&["run", "--config"])?
            .arg(self.config())
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting the agent")?;
        self.listeners = vec![
            self.log.listen(child.stdout.take().expect("piped"), Log::take_event),
            self.log.listen(child.stderr.take().expect("piped"), Log::take_error),
        ];
        self.child = Some(child);
        Ok(())
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("portcullis.toml")
    }

    /// Where the configuration and its lists lie.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The agent's process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    // Commands.

    /// A `portcullis` command for this instance, in the host's namespace.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.namespace.command(binary()?);
        command.args(["--instance", &self.instance]).args(arguments);
        Ok(command)
    }

    /// Runs a command to its end and returns what it printed; failure is an error with what it said.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments)?.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "portcullis {}: {}: {}", arguments.join(" "), output.status, said.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    pub fn status(&self) -> Result<Status> {
        let text = self.run(&["status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("status is {text}"))
    }

    /// Memory that it has resident, in bytes.
    pub fn resident(&self) -> Result<u64> {
        resident(self.pid().context("the agent has ended")?)
    }

    pub fn ban(&self, prefix: &str, duration: &str) -> Result<()> {
        self.run(&["ban", prefix, "--for", duration]).map(drop)
    }

    pub fn unban(&self, prefix: &str) -> Result<()> {
        self.run(&["unban", prefix]).map(drop)
    }

    pub fn bans(&self) -> Result<Vec<Ban>> {
        Ok(serde_json::from_str(&self.run(&["bans", "--json"])?)?)
    }

    pub fn lists(&self) -> Result<Vec<List>> {
        Ok(serde_json::from_str(&self.run(&["lists", "--json"])?)?)
    }

    pub fn reload(&self) -> Result<()> {
        self.run(&["reload"]).map(drop)
    }

    pub fn detach(&self) -> Result<()> {
        self.run(&["detach"]).map(drop)
    }

    /// Packets dropped for a reason so far.
    pub fn counter(&self, reason: &str) -> Result<u64> {
        Ok(dropped(&self.status()?, reason)?.packets)
    }

    // Files.

    /// Writes a file beside the configuration; the agent notices by itself.
    pub fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.directory.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
    }

    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.directory.path().join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    pub fn edit_config(&self, config: &str) -> Result<()> {
        self.write("portcullis.toml", config)
    }

    /// Waits until a reload has succeeded or failed since `before`, and returns the status then.
    pub fn wait_reload(&self, before: &Status) -> Result<Status> {
        let mut after = None;
        self.wait_until("reloaded", |status| {
            let changed =
                status.reloads.succeeded != before.reloads.succeeded || status.reloads.failed != before.reloads.failed;
            after = changed.then(|| status.clone());
            changed
        })?;
        after.context("a status")
    }

    // Events.

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        self.log.state().events.clone()
    }

    /// How many events there are so far: a mark for [`Agent::wait_event_since`].
    pub fn mark(&self) -> usize {
        self.log.state().events.len()
    }

    /// Lines of standard output that were no event. Should be none.
    pub fn strange_lines(&self) -> Vec<String> {
        self.log.state().strange.clone()
    }

    /// What the agent logged.
    pub fn stderr(&self) -> String {
        self.log.state().stderr.clone()
    }

    /// Calls `watcher` with every event from now on.
    pub fn watch(&self, watcher: Watcher) {
        *self.log.watcher.lock().expect("watchers do not panic") = Some(watcher);
    }

    /// The first event, of all so far and those to come, that `wanted` accepts.
    pub fn wait_event(&self, wanted: impl Fn(&Event) -> bool, timeout: Duration) -> Option<Event> {
        self.wait_event_since(0, wanted, timeout)
    }

    /// As [`Agent::wait_event`], without the first `mark` events.
    pub fn wait_event_since(&self, mark: usize, wanted: impl Fn(&Event) -> bool, timeout: Duration) -> Option<Event> {
        let mut next = mark;
        let mut found = None;
        let state = self.log.state();
        let result = self.log.changed.wait_timeout_while(state, timeout, |state| {
            found = state.events.iter().skip(next).find(|event| wanted(event)).cloned();
            next = state.events.len().max(mark);
            found.is_none()
        });
        drop(result.expect("listeners do not panic"));
        found
    }

    // Life and death.

    /// Asks the agent to stop (SIGTERM) and waits for it.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let mut child = self.child.take().context("no agent runs")?;
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                self.hear_out();
                return Ok(status);
            }
            thread::sleep(POLL);
        }
        child.kill()?;
        child.wait()?;
        bail!("the agent does not stop on SIGTERM; it was killed. It said:\n{}", self.stderr())
    }

    /// Kills the agent, as the kernel would when memory runs out.
    pub fn kill9(&mut self) -> Result<()> {
        let mut child = self.child.take().context("no agent runs")?;
        child.kill()?;
        child.wait()?;
        self.hear_out();
        Ok(())
    }

    /// Waits for the last words of an agent that has ended.
    fn hear_out(&mut self) {
        for listener in self.listeners.drain(..) {
            listener.join().expect("listeners do not panic");
        }
    }

    /// Stops the agent if it runs, and starts it anew on what is pinned.
    pub fn restart(&mut self) -> Result<()> {
        if self.child.is_some() {
            self.terminate()?;
        }
        self.launch(&[])
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid().context("no agent runs")?)?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Asks for the status until `done` accepts it.
    pub fn wait_until(&self, what: &str, mut done: impl FnMut(&Status) -> bool) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.status();
            if status.as_ref().is_ok_and(&mut done) {
                return Ok(());
            }
            if let Some(exit) = self.exited()? {
                // Its last words may still be on their way.
                thread::sleep(POLL);
                bail!("the agent ended ({exit:?}) before it was {what}. It said:\n{}", self.stderr());
            }
            if Instant::now() > deadline {
                let last = status.map_or_else(|error| format!("{error:#}"), |status| format!("{status:#?}"));
                bail!("the agent is not {what} after {DEADLINE:?}: {last}\nIt said:\n{}", self.stderr());
            }
            thread::sleep(POLL);
        }
    }
}

impl Agent {
    /// How the process ended, if it did by itself. It stays there to be waited for.
    fn exited(&self) -> Result<Option<WaitStatus>> {
        let Some(pid) = self.pid() else { return Ok(None) };
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let status = waitid(Id::Pid(Pid::from_raw(i32::try_from(pid)?)), flags)?;
        Ok((status != WaitStatus::StillAlive).then_some(status))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(error) = self.kill9()
        {
            eprintln!("the agent stays behind: {error:#}");
        }
        if let Err(error) = self.detach() {
            eprintln!("{}: {error:#}", self.instance);
        }
        for directory in ["/sys/fs/bpf", "/run", "/var/lib"] {
            remove_tree(&Path::new(directory).join(&self.instance));
        }
        if thread::panicking() {
            eprintln!("The agent said:\n{}", self.stderr());
        }
    }
}

/// The counter of a reason. An unknown reason is an error, so that a misspelt one does not count as zero.
pub fn dropped(status: &Status, reason: &str) -> Result<Count> {
    Ok(find(status, reason)?.dropped)
}

/// As [`dropped`], of what monitor mode let pass.
pub fn monitored(status: &Status, reason: &str) -> Result<Count> {
    Ok(find(status, reason)?.monitored)
}

fn find<'a>(status: &'a Status, reason: &str) -> Result<&'a firewall_user::control::api::Reason> {
    status.reasons.iter().find(|entry| entry.reason == reason).ok_or_else(|| anyhow!("no reason {reason}"))
}

/// The agent's binary: `$PORTCULLIS_BIN`, or what cargo builds from this workspace.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| match std::env::var_os("PORTCULLIS_BIN") {
        Some(path) => Ok(path.into()),
        None => build().map_err(|error| format!("{error:#}")),
    });
    found.as_deref().map_err(|error| anyhow!("no agent to test: {error}"))
}

fn build() -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--package", "firewall-user", "--bin", "portcullis", "--message-format=json"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.arg("--manifest-path").arg(workspace).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "portcullis")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .context("cargo names no executable")
}

/// Pins need bpffs. Most systems mount it at boot; containers and small virtual machines do not.
fn mount_bpffs() -> Result<()> {
    const PATH: &str = "/sys/fs/bpf";
    static ONCE: Mutex<()> = Mutex::new(());
    let _guard = ONCE.lock().expect("nothing panics with this lock");
    let kind = nix::sys::statfs::statfs(PATH)?.filesystem_type();
    if kind == nix::sys::statfs::BPF_FS_MAGIC {
        return Ok(());
    }
    nix::mount::mount(Some("bpf"), PATH, Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting bpffs on {PATH}"))
}

/// Memory that a process has resident, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes: u64 = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?.parse()?;
    Ok(kibibytes * 1024)
}
