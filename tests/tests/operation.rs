//! What an operator does, and does wrong: every refusal is said clearly and leaves nothing behind.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tests::{
    agent::Agent,
    frame::Frame,
    loaded::empty_program,
    netns::{HOST_V4, INTERFACE, World},
    traffic::Wire,
};

const POLICY: &str = r#"
interfaces = ["eth0"]
[dmz]
expose = ["6000/udp"]
[[dmz.list]]
name = "bad"
action = "block"
prefixes = ["203.0.113.0/24"]
"#;
const NOBODY: u32 = 65_534;

fn pins(agent: &Agent) -> PathBuf {
    PathBuf::from("/sys/fs/bpf").join(&agent.instance)
}

fn link(world: &World) -> String {
    world.host.run("ip", &["link", "show", INTERFACE]).unwrap()
}

fn has_xdp(world: &World) -> bool {
    link(world).contains("prog/xdp")
}

fn blocked() -> Frame {
    Frame::v4("203.0.113.5", HOST_V4).udp(40_000, 6000)
}

fn run_command(agent: &Agent, more: &[&str]) -> Command {
    let config = agent.config().display().to_string();
    agent.command(&[&["run", "--config", &config], more].concat()).unwrap()
}

/// Runs a command that must end by itself.
fn finish(mut command: Command) -> Output {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("it runs on: {:?}", child.wait_with_output());
        }
        sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// Starts the agent, which must refuse; gives what it said.
fn refusal(agent: &Agent, more: &[&str]) -> String {
    let output = finish(run_command(agent, more));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!pins(agent).exists(), "pins stay behind after: {said}");
    said
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(10), "not {what} after 10 s");
        sleep(Duration::from_millis(10));
    }
    began.elapsed()
}

/// Makes a command run as another user, once it is in its namespace.
fn become_user(command: &mut Command, user: u32, group: u32) {
    let switch = move || {
        // SAFETY: system calls with integers, or an empty list, alone.
        let done =
            unsafe { libc::setgroups(0, std::ptr::null()) == 0 && libc::setgid(group) == 0 && libc::setuid(user) == 0 };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec only system calls are made, which are async-signal-safe.
    unsafe { command.pre_exec(switch) };
}

#[test]
fn a_bad_configuration_is_told_whole_and_touches_nothing() {
    let world = World::new().unwrap();
    let bad =
        POLICY.replace("expose", "exopse").replace("203.0.113.0/24", "203.0.113.1/24").replace("\"block\"", "\"drop\"");
    let agent = Agent::prepare(&world, &bad, &[]).unwrap();
    let config = agent.config().display().to_string();
    for mode in ["check", "run"] {
        let output = finish(agent.command(&[mode, "--config", &config]).unwrap());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{mode}: {said}");
        for place in ["portcullis.toml:4:", "portcullis.toml:7:", "portcullis.toml:8:", "3 errors"] {
            assert!(said.contains(place), "{mode} does not say {place}:\n{said}");
        }
    }
    let json = finish(agent.command(&["check", "--json", "--config", &config]).unwrap());
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.status.code(), value["errors"].as_array().unwrap().len()), (Some(2), 3));
    assert!(!has_xdp(&world) && !pins(&agent).exists());
}

#[test]
fn without_privileges_or_bpffs_it_says_what_to_do() {
    let world = World::new().unwrap();
    let agent = Agent::prepare(&world, POLICY, &[]).unwrap();
    fs::set_permissions(agent.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    for mode in ["run", "detach"] {
        let mut command = if mode == "run" { run_command(&agent, &[]) } else { agent.command(&["detach"]).unwrap() };
        become_user(&mut command, NOBODY, NOBODY);
        let output = finish(command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{mode}: {said}");
        assert!(said.contains("only root") && said.contains("sudo"), "{mode}: {said}");
    }
    let mut command = run_command(&agent, &[]);
    let unmount = || {
        use nix::{
            mount::{MntFlags, MsFlags, mount, umount2},
            sched::{CloneFlags, unshare},
        };
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        while nix::sys::statfs::statfs("/sys/fs/bpf")?.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC {
            umount2("/sys/fs/bpf", MntFlags::MNT_DETACH)?;
        }
        Ok(())
    };
    // SAFETY: system calls alone; the paths are short enough to need no memory.
    unsafe { command.pre_exec(unmount) };
    let output = finish(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no bpf file system at /sys/fs/bpf") && said.contains("mount -t bpf"), "{said}");
    assert!(!has_xdp(&world));
}

#[test]
fn interfaces_that_cannot_be_guarded_are_refused() {
    let world = World::new().unwrap();
    world.host.ip("tuntap add tun9 mode tun").unwrap();
    let agent = Agent::prepare(&world, POLICY, &[]).unwrap();
    let said = refusal(&agent, &["--interface", "nope0"]);
    assert!(said.contains("no interface `nope0`"), "{said}");
    for name in ["lo", "tun9"] {
        // After another one that could be: that is let go again.
        let said = refusal(&agent, &["--interface", "eth0", "--interface", name]);
        assert!(said.contains(&format!("{name} is no Ethernet interface")), "{said}");
        assert!(!has_xdp(&world), "{name}");
    }
}

const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_XDP: u32 = 37;
const DRIVER_MODE: u32 = 1 << 2;

/// Attaches a program of somebody else.
fn attach(program: &OwnedFd, index: u32) -> io::Result<OwnedFd> {
    let attributes = [program.as_raw_fd().cast_unsigned(), index, BPF_XDP, DRIVER_MODE];
    // SAFETY: the kernel reads the attributes, which live through the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, attributes.as_ptr(), size_of_val(&attributes)) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the host's end has these offloads on.
fn offloads(world: &World, interface: &str) -> [bool; 2] {
    let text = world.host.run("ethtool", &["-k", interface]).unwrap();
    ["generic-receive-offload: on", "rx-vlan-offload: on"].map(|line| text.contains(line))
}

#[test]
fn offloads_are_off_only_where_we_are() {
    let world = World::new().unwrap();
    world.add_link("eth9", 1500).unwrap();
    for interface in [INTERFACE, "eth9"] {
        world.host.run("ethtool", &["-K", interface, "gro", "on", "rxvlan", "on"]).unwrap();
    }
    let both = POLICY.replace("[\"eth0\"]", "[\"eth0\", \"eth9\"]\nxdp_mode = \"generic\"");
    let mut agent = Agent::prepare(&world, &both, &[]).unwrap();
    // A start that fails, and one that nobody confirms.
    refusal(&agent, &["--interface", "eth0", "--interface", "lo"]);
    assert_eq!(offloads(&world, INTERFACE), [true, true]);
    agent.launch(&["--confirm", "1s"]).unwrap();
    assert_eq!(offloads(&world, INTERFACE), [false, false]);
    wait_until("gone", || agent.status().is_err());
    agent.kill9().unwrap();
    assert_eq!([offloads(&world, INTERFACE), offloads(&world, "eth9")], [[true, true]; 2]);
    // An interface that a reload lets go; the other one stays as it is.
    agent.launch(&[]).unwrap();
    assert_eq!(offloads(&world, "eth9"), [false, false]);
    agent.edit_config(&both.replace(", \"eth9\"", "")).unwrap();
    agent.reload().unwrap();
    assert_eq!([offloads(&world, INTERFACE), offloads(&world, "eth9")], [[false, false], [true, true]]);
    agent.detach().unwrap();
    assert_eq!(offloads(&world, INTERFACE), [true, true]);
}

#[test]
fn detach_stops_an_agent_that_does_not_answer() {
    let world = World::new().unwrap();
    let agent = Agent::start(&world, &format!("on_agent_exit = \"detach\"\n{POLICY}")).unwrap();
    agent.signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
    // It cannot stop: then it is not said that nothing filters.
    let output = finish(agent.command(&["detach"]).unwrap());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("does not stop") && said.contains("kill -9"), "{said}");
    assert!(has_xdp(&world) && pins(&agent).exists());
    agent.signal(nix::sys::signal::Signal::SIGCONT).unwrap();
    agent.detach().unwrap();
    assert!(!has_xdp(&world) && !pins(&agent).exists());
}

#[test]
fn the_status_of_a_dead_agent_tells_what_goes_on() {
    let world = World::new().unwrap();
    let mut agent = Agent::start(&world, POLICY).unwrap();
    let status = |agent: &Agent| {
        let output = finish(agent.command(&["status"]).unwrap());
        assert_eq!(output.status.code(), Some(3));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    agent.kill9().unwrap();
    let said = status(&agent);
    assert!(said.contains("the last policy goes on without its agent on eth0: no agent is running"), "{said}");
    agent.detach().unwrap();
    let said = status(&agent);
    assert!(said.starts_with("portcullis: no agent is running"), "{said}");
}

#[test]
fn an_agent_outlives_the_terminal_it_was_started_in() {
    let world = World::new().unwrap();
    let agent = Agent::prepare(&world, POLICY, &[]).unwrap();
    let mut command = run_command(&agent, &[]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("attached", || agent.status().is_ok());
    // Nobody reads what it says from now on.
    drop((child.stdout.take(), child.stderr.take()));
    agent.edit_config("nonsense").unwrap();
    wait_until("refused", || agent.status().is_ok_and(|status| status.reloads.failed > 0));
    assert!(!Wire::open(&world).unwrap().passes(&blocked()).unwrap());
    agent.edit_config(&POLICY.replace("6000", "6001")).unwrap();
    wait_until("in force", || agent.status().is_ok_and(|status| status.reloads.last_error.is_none()));
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Filters of tc on what leaves, which only kernels before 6.6 need.
fn filters(world: &World) -> String {
    // Without the queueing discipline there are none.
    world.host.run("tc", &["filter", "show", "dev", INTERFACE, "egress"]).unwrap_or_default()
}

#[test]
fn programs_of_others_stay() {
    let world = World::new().unwrap();
    let index = world.host.interface_index(INTERFACE).unwrap();
    let program = empty_program().unwrap();
    let foreign = world.host.enter(|| attach(&program, index)).unwrap();
    let before = link(&world);
    assert!(before.contains("prog/xdp"), "{before}");
    let mut agent = Agent::prepare(&world, POLICY, &[]).unwrap();
    let said = refusal(&agent, &[]);
    assert!(said.contains("another XDP program is attached to eth0"), "{said}");
    assert_eq!(link(&world), before);
    assert_eq!(filters(&world), "");
    drop(foreign);
    wait_until("free", || !has_xdp(&world));
    // A queueing discipline of tc, which filters are attached to. Before Linux 6.6, the refused agent left one.
    world.host.run("tc", &["qdisc", "replace", "dev", INTERFACE, "clsact"]).unwrap();
    agent.launch(&[]).unwrap();
    assert!(agent.status().unwrap().interfaces[0].egress);
    // `detach` takes what is ours, the agent included, and nothing else.
    agent.detach().unwrap();
    assert!(!has_xdp(&world) && !pins(&agent).exists());
    assert!(world.host.run("tc", &["qdisc", "show", "dev", INTERFACE]).unwrap().contains("clsact"));
    assert_eq!(filters(&world), "");
    let output = finish(agent.command(&["status"]).unwrap());
    assert_eq!(output.status.code(), Some(3));
    assert!(Wire::open(&world).unwrap().passes(&blocked()).unwrap());
    // There is nothing left to do.
    assert!(agent.run(&["detach"]).unwrap().contains("nothing of ours"));
}

#[test]
fn there_is_one_agent_of_a_name() {
    let world = World::new().unwrap();
    let taken = world.host.enter(|| std::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = taken.local_addr().unwrap().port();
    drop(taken);
    let metrics = format!("{POLICY}[metrics]\nlisten = \"127.0.0.1:{port}\"\n");
    let agent = Agent::start(&world, &metrics).unwrap();
    let output = finish(run_command(&agent, &[]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("socket in use"), "{said}");
    let status = agent.status().unwrap();
    assert!(status.interfaces[0].attached && Some(status.pid) == agent.pid());
}

#[test]
fn without_confirmation_everything_is_as_before() {
    let world = World::new().unwrap();
    let wire = Wire::open(&world).unwrap();
    let other = Frame::v4("198.51.100.5", HOST_V4).udp(40_000, 6000);
    let passes = |frame: &Frame| wire.passes(frame).unwrap();
    let mut agent = Agent::prepare(&world, POLICY, &[]).unwrap();
    // Nothing before.
    agent.launch(&["--confirm", "2s"]).unwrap();
    assert!(agent.status().unwrap().confirm_within_seconds.is_some());
    assert!(!passes(&blocked()) && passes(&other));
    wait_until("taken back", || !has_xdp(&world));
    assert!(passes(&blocked()));
    wait_until("gone", || agent.status().is_err());
    agent.kill9().unwrap();
    assert!(agent.stderr().contains("not confirmed in time"), "{}", agent.stderr());
    // Confirmed: it outlives its agent.
    agent.launch(&["--confirm", "20s"]).unwrap();
    agent.run(&["confirm"]).unwrap();
    assert_eq!(agent.status().unwrap().confirm_within_seconds, None);
    assert!(agent.run(&["confirm"]).unwrap_err().to_string().contains("nothing to confirm"));
    agent.kill9().unwrap();
    assert!(!passes(&blocked()));
    // An earlier policy at work: it is that which comes back, and not a moment of none.
    agent.edit_config(&POLICY.replace("203.0.113.0/24", "198.51.100.0/24")).unwrap();
    for death in [false, true] {
        agent.launch(&["--confirm", "2s"]).unwrap();
        assert!(passes(&blocked()) && !passes(&other));
        if death {
            agent.terminate().unwrap();
        } else {
            wait_until("gone", || agent.status().is_err());
            agent.kill9().unwrap();
        }
        assert!(has_xdp(&world) && !passes(&blocked()) && passes(&other), "terminated: {death}");
    }
}

#[test]
fn whoever_would_lock_himself_out_is_warned() {
    let world = World::new().unwrap();
    let mut agent = Agent::prepare(&world, POLICY, &[]).unwrap();
    let config = agent.config().display().to_string();
    let check = |client: &str, port: u16| {
        let mut command = agent.command(&["check", "--config", &config]).unwrap();
        command.env("SSH_CONNECTION", format!("{client} 50000 {HOST_V4} {port}"));
        let output = finish(command);
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(check("198.51.100.7", 22).contains("not exposed"), "{}", check("198.51.100.7", 22));
    assert!(check("203.0.113.7", 22).contains("block list `bad`"));
    assert!(check("240.0.0.1", 22).contains("hygiene"));
    // Over the loopback interface: nothing judges that.
    assert!(!check("127.0.0.1", 22).contains("session") && !check(HOST_V4, 22).contains("session"));
    agent.edit_config(&POLICY.replace("6000/udp", "22/tcp")).unwrap();
    assert!(!check("198.51.100.7", 22).contains("session"));
    assert!(check("198.51.100.7", 2222).contains("\"2222/tcp\""));
    assert!(!has_xdp(&world) && !pins(&agent).exists(), "check touches nothing");
    let mut command = run_command(&agent, &["--confirm", "1s"]);
    command.env("SSH_CONNECTION", format!("198.51.100.7 50000 {HOST_V4} 2222"));
    let said = String::from_utf8_lossy(&finish(command).stderr).into_owned();
    assert!(said.contains("you could not come back"), "{said}");
    agent.launch(&[]).unwrap();
    assert!(!agent.stderr().contains("come back"));
}

#[test]
fn the_control_socket_is_for_root_and_the_group() {
    let world = World::new().unwrap();
    let daemon = nix::unistd::Group::from_name("daemon").unwrap().expect("every Linux has this group").gid.as_raw();
    let status = |agent: &Agent, group: u32| {
        let mut command = agent.command(&["status", "--json"]).unwrap();
        become_user(&mut command, NOBODY, group);
        let output = finish(command);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let mut agent = Agent::start(&world, POLICY).unwrap();
    let (code, said) = status(&agent, daemon);
    assert!(code == Some(1) && said.contains("permission denied"), "{said}");
    agent.terminate().unwrap();
    agent.edit_config(&format!("{POLICY}[control]\ngroup = \"daemon\"\n")).unwrap();
    agent.launch(&[]).unwrap();
    assert_eq!(status(&agent, daemon).0, Some(0));
    let (code, said) = status(&agent, NOBODY);
    assert!(code == Some(1) && said.contains("permission denied"), "{said}");
}

#[test]
fn an_interface_that_cannot_be_guarded_again_does_not_keep_others_from_it() {
    let world = World::new().unwrap();
    for name in ["eth8", "eth9"] {
        world.add_link(name, 1500).unwrap();
    }
    let three = POLICY.replace("[\"eth0\"]", "[\"eth0\", \"eth8\", \"eth9\"]");
    let agent = Agent::start(&world, &three).unwrap();
    for name in ["eth8", "eth9"] {
        world.host.ip(&format!("link del {name}")).unwrap();
    }
    wait_until("absent", || agent.status().unwrap().interfaces.iter().filter(|one| one.mode == "absent").count() == 2);
    // It comes as one without Ethernet headers.
    world.host.ip("tuntap add eth8 mode tun").unwrap();
    world.add_link("eth9", 1500).unwrap();
    let status = || agent.status().unwrap();
    wait_until("attached", || status().interfaces[2].attached);
    assert!(status().interfaces[0].attached && !status().interfaces[1].attached);
    wait_until("warned of", || status().warnings.iter().any(|text| text.contains("eth8 is no Ethernet interface")));
    // Of what went nothing stays pinned.
    let links = || {
        fs::read_dir(pins(&agent))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("xdp-"))
    };
    wait_until("tidied up", || links().count() <= 3);
    for _ in 0..2 {
        world.host.ip("link del eth9").unwrap();
        wait_until("absent", || status().interfaces[2].mode == "absent");
        world.add_link("eth9", 1500).unwrap();
        wait_until("attached", || status().interfaces[2].attached);
    }
    assert!(links().count() <= 3, "{}", links().count());
}

#[test]
fn an_interface_that_goes_and_comes_is_guarded_again() {
    let world = World::new().unwrap();
    let agent = Agent::start(&world, POLICY).unwrap();
    let mode = || agent.status().unwrap().interfaces[0].mode.clone();
    world.host.ip(&format!("link del {INTERFACE}")).unwrap();
    wait_until("absent", || mode() == "absent");
    wait_until("warned of", || agent.status().unwrap().warnings.iter().any(|text| text.contains("does not exist")));
    world.add_link(INTERFACE, 1500).unwrap();
    let took = wait_until("attached", || agent.status().unwrap().interfaces[0].attached);
    println!("guarded again {took:.1?} after the interface was up");
    assert!(took < Duration::from_secs(2), "{took:?}");
    let wire = Wire::open(&world).unwrap();
    assert!(!wire.passes(&blocked()).unwrap());
    assert!(agent.status().unwrap().warnings.is_empty());
    let status = agent.status().unwrap();
    assert!(status.interfaces[0].egress && status.interfaces[0].mode == "native");
    // Another MTU is another constant in the program.
    for side in [&world.host, &world.client] {
        side.ip(&format!("link set {INTERFACE} mtu 1400")).unwrap();
    }
    wait_until("reloaded", || agent.status().unwrap().generation > status.generation);
    assert!(agent.status().unwrap().interfaces[0].attached && !wire.passes(&blocked()).unwrap());
}

#[test]
fn traces_tell_each_verdict() {
    let world = World::new().unwrap();
    let mut agent = Agent::prepare(&world, POLICY, &[]).unwrap();
    agent.launch(&["--trace"]).unwrap();
    let traced = || {
        assert!(!Wire::open(&world).unwrap().passes(&blocked()).unwrap());
        wait_until("traced", || {
            ["verdict: action 0 reason", "pass: "].iter().all(|words| agent.stderr().contains(words))
        });
    };
    traced();
    // Another instance of the program, another listener.
    let (before, said) = (agent.status().unwrap(), agent.stderr().len());
    agent.edit_config(&POLICY.replace("6000", "6001")).unwrap();
    agent.wait_reload(&before).unwrap();
    traced();
    wait_until("traced after a reload", || agent.stderr()[said..].contains("verdict: action 0 reason"));
}
