//! Network namespaces: a host to protect and a client outside, joined by a veth pair.
//!
//! Names carry the process id, so runs side by side do not meet, and what a killed run left behind is removed by the next.
//! Processes and threads enter a namespace by `setns` alone and stay in the mount namespace of the caller: `ip netns exec`
//! would hide bpffs.

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};

/// The interface of both namespaces.
pub const INTERFACE: &str = "eth0";
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Addresses of the host on [`INTERFACE`].
pub const HOST_V4: &str = "192.0.2.1";
pub const HOST_V6: &str = "2001:db8::1";
/// First addresses of the client; see [`client_v4`] for the others.
pub const CLIENT_V4: &str = "192.0.2.2";
pub const CLIENT_V6: &str = "2001:db8::2";
/// The client has the addresses `.2` to `.2 + CLIENT_ADDRESSES - 1`.
pub const CLIENT_ADDRESSES: u8 = 60;

const NAMESPACES: &str = "/run/netns";
const DEADLINE: Duration = Duration::from_secs(10);

static WORLDS: AtomicU32 = AtomicU32::new(0);

/// The client's `n`th address, from 0.
pub fn client_v4(n: u8) -> IpAddr {
    assert!(n < CLIENT_ADDRESSES);
    IpAddr::from([192, 0, 2, 2 + n])
}

/// The client's `n`th address, from 0.
pub fn client_v6(n: u8) -> IpAddr {
    assert!(n < CLIENT_ADDRESSES);
    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2 + u16::from(n)])
}

/// A name that no other run uses: `pc-<pid>-<n>`.
pub fn unique_name() -> String {
    format!("pc-{}-{}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed))
}

/// Whether `name` was given by [`unique_name`] in a process that is dead.
pub fn is_leftover(name: &str) -> bool {
    let Some(pid) = name.strip_prefix("pc-").and_then(|rest| rest.split('-').next()) else { return false };
    pid.parse::<u32>().is_ok_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// A host and a client that see each other and nobody else. Both go when this is dropped.
#[derive(Debug)]
pub struct World {
    pub host: Namespace,
    pub client: Namespace,
}

impl World {
    /// Two namespaces with an MTU of 1500.
    pub fn new() -> Result<Self> {
        Self::with_mtu(1500)
    }

    pub fn with_mtu(mtu: u32) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "network namespaces and XDP need root; run this with sudo. It was not skipped: it failed"
        );
        remove_leftovers()?;
        let name = unique_name();
        let host = Namespace::create(&format!("{name}-host"))?;
        let client = Namespace::create(&format!("{name}-client"))?;
        let world = Self { host, client };
        world.link(INTERFACE, mtu, [HOST_MAC, CLIENT_MAC])?;
        world.host.ip(&format!("addr add {HOST_V4}/24 dev {INTERFACE}"))?;
        world.host.ip(&format!("addr add {HOST_V6}/64 dev {INTERFACE} nodad"))?;
        let addresses: Vec<String> = (0..CLIENT_ADDRESSES)
            .flat_map(|n| {
                [format!("{}/24 dev {INTERFACE}", client_v4(n)), format!("{}/64 dev {INTERFACE} nodad", client_v6(n))]
            })
            .map(|address| format!("addr add {address}"))
            .collect();
        world.client.ip_batch(&addresses)?;
        world.host.wait_for_link(INTERFACE)?;
        world.client.wait_for_link(INTERFACE)?;
        Ok(world)
    }

    /// Joins the two by one more veth pair, called `interface` at both ends, without addresses but link-local ones.
    pub fn add_link(&self, interface: &str, mtu: u32) -> Result<()> {
        let number = WORLDS.fetch_add(1, Ordering::Relaxed) as u8;
        self.link(interface, mtu, [[2, 0, 0, 1, number, 1], [2, 0, 0, 1, number, 2]])?;
        self.host.wait_for_link(interface)?;
        self.client.wait_for_link(interface)
    }

    /// Gives the client another address, from anywhere, that the host answers over the link.
    pub fn add_client_address(&self, address: IpAddr) -> Result<()> {
        let (length, flags) = if address.is_ipv4() { (32, "") } else { (128, "nodad") };
        self.client.ip(&format!("addr add {address}/{length} dev {INTERFACE} {flags}"))?;
        self.host.ip(&format!("route add {address}/{length} dev {INTERFACE}"))
    }

    fn link(&self, interface: &str, mtu: u32, [host_mac, client_mac]: [[u8; 6]; 2]) -> Result<()> {
        let (host_mac, client_mac) = (mac(host_mac), mac(client_mac));
        self.host.ip(&format!(
            "link add {interface} mtu {mtu} address {host_mac} type veth \
             peer name {interface} mtu {mtu} address {client_mac} netns {}",
            self.client.name()
        ))?;
        for namespace in [&self.host, &self.client] {
            // Raw frames and captures shall show what is on the wire: whole checksums, no super-packets.
            namespace.run("ethtool", &["-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off"])?;
            namespace.ip(&format!("link set {interface} up"))?;
        }
        Ok(())
    }
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// A network namespace with `lo` up, removed when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    file: File,
}

impl Namespace {
    pub fn create(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let file = File::open(Path::new(NAMESPACES).join(name)).context("opening the namespace")?;
        let namespace = Self { inner: Arc::new(Inner { name: name.to_owned(), file }) };
        namespace.ip("link set lo up")?;
        for (key, value) in [
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/all/router_solicitations", "0"),
            ("ipv6/conf/default/router_solicitations", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ] {
            namespace.sysctl(key, value)?;
        }
        Ok(namespace)
    }

    /// The name that `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// A command that runs inside the namespace and dies with the thread that started it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let inner = Arc::clone(&self.inner);
        let mut command = Command::new(program);
        // Ctrl-C in a terminal goes to us alone, so that we clean up in order.
        command.process_group(0);
        // SAFETY: between fork and exec only two system calls are made: setns and prctl. Both are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                setns(&inner.file, CloneFlags::CLONE_NEWNET)?;
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        command
    }

    /// Runs `inside` on a fresh thread in the namespace. Sockets it makes stay there, whoever uses them.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&self.inner.file, CloneFlags::CLONE_NEWNET).expect("entering a namespace as root");
                    inside()
                })
                .join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a thread that lives in the namespace.
    pub fn spawn<T: Send + 'static>(&self, inside: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        let inner = Arc::clone(&self.inner);
        thread::spawn(move || {
            setns(&inner.file, CloneFlags::CLONE_NEWNET).expect("entering a namespace as root");
            inside()
        })
    }

    /// Runs a program to its end inside the namespace and returns what it printed; failure is an error.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run(self.command(program).args(arguments))
    }

    /// Runs `ip` with these words inside the namespace.
    pub fn ip(&self, words: &str) -> Result<()> {
        run(Command::new("ip").args(["-n", self.name()]).args(words.split_whitespace())).map(drop)
    }

    /// Writes a value below `/proc/sys/net`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        self.enter(|| fs::write(&path, value)).with_context(|| format!("writing {path}"))
    }

    /// The number of an interface here.
    pub fn interface_index(&self, interface: &str) -> Result<u32> {
        self.enter(|| nix::net::if_::if_nametoindex(interface))
            .with_context(|| format!("no interface {interface} in {}", self.name()))
    }

    /// Runs `ip` once for many lines of words.
    fn ip_batch(&self, lines: &[String]) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        io::Write::write_all(&mut file, lines.join("\n").as_bytes())?;
        run(Command::new("ip").args(["-n", self.name(), "-batch"]).arg(file.path())).map(drop)
    }

    /// Waits for the carrier and for a usable link-local address.
    fn wait_for_link(&self, interface: &str) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let link = run(Command::new("ip").args(["-n", self.name(), "link", "show", interface]))?;
            let addresses = run(Command::new("ip").args(["-n", self.name(), "-6", "addr", "show", interface]))?;
            if link.contains("LOWER_UP") && addresses.contains("fe80::") && !addresses.contains("tentative") {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{interface} in {} does not come up: {link}{addresses}", self.name());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = delete(&self.name) {
            eprintln!("namespace {} stays behind: {error:#}", self.name);
        }
    }
}

fn delete(name: &str) -> Result<()> {
    run(Command::new("ip").args(["netns", "delete", name])).map(drop)
}

/// Removes what runs that were killed left behind: namespaces, pins, state.
fn remove_leftovers() -> Result<()> {
    for name in names_in(NAMESPACES) {
        // Another run may be removing the same one.
        if is_leftover(&name)
            && let Err(error) = delete(&name)
            && Path::new(NAMESPACES).join(&name).exists()
        {
            return Err(error);
        }
    }
    let temporary = std::env::temp_dir();
    for directory in ["/sys/fs/bpf", "/run", "/var/lib"].map(Path::new).into_iter().chain([&*temporary]) {
        for name in names_in(directory) {
            if is_leftover(&name) {
                remove_tree(&directory.join(name));
            }
        }
    }
    Ok(())
}

/// Removes a directory that may be gone already.
pub(crate) fn remove_tree(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        eprintln!("{} stays behind: {error}", path.display());
    }
}

fn names_in(directory: impl AsRef<Path>) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Brings loopback up in the namespace of the calling thread, with more addresses.
pub fn loopback_addresses(addresses: &[&str]) -> Result<()> {
    let ip = |words: &[&str]| -> Result<()> {
        let output = Command::new("ip").args(words).output().context("ip")?;
        anyhow::ensure!(output.status.success(), "ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    ip(&["link", "set", "lo", "up"])?;
    addresses.iter().try_for_each(|address| ip(&["address", "add", address, "dev", "lo"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leftover_is_one_of_ours_whose_process_is_dead() {
        assert!(!is_leftover(&format!("{}-host", unique_name())));
        assert!(is_leftover("pc-4194304999-0-host"));
        assert!(!is_leftover("pc-x-0"));
        assert!(!is_leftover("portcullis"));
    }

    #[test]
    fn host_and_client_reach_each_other_until_dropped() {
        let world = World::new().unwrap();
        for address in [HOST_V4, HOST_V6] {
            world.client.run("ping", &["-c1", "-W2", address]).unwrap();
        }
        world.add_client_address("198.51.100.7".parse().unwrap()).unwrap();
        world.client.run("ping", &["-c1", "-W2", "-I", "198.51.100.7", HOST_V4]).unwrap();
        world.add_link("eth1", 1500).unwrap();
        let index = world.host.interface_index("eth1").unwrap();
        assert!(index > 1, "{index}");
        let name = world.host.name().to_owned();
        assert!(Path::new(NAMESPACES).join(&name).exists());
        drop(world);
        assert!(!Path::new(NAMESPACES).join(&name).exists());
    }

    #[test]
    fn a_panic_inside_comes_out_and_removes_the_world() {
        let name = std::sync::Mutex::new(String::new());
        let result = std::panic::catch_unwind(|| {
            let world = World::new().unwrap();
            world.client.name().clone_into(&mut name.lock().unwrap());
            world.client.enter(|| panic!("inside"));
        });
        assert_eq!(result.unwrap_err().downcast_ref::<&str>(), Some(&"inside"));
        let name = name.into_inner().unwrap();
        assert!(!name.is_empty() && !Path::new(NAMESPACES).join(name).exists());
    }
}
