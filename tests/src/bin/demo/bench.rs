//! The stage of the demo: the world, the servers, the agent, and the sockets that send and bear witness.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use firewall_user::control::api::Status;
use tests::{
    agent::{Agent, Event},
    netns::{CLIENT_V4, CLIENT_V6, INTERFACE, World},
    raw::Raw,
    servers::{Echo, HttpServer, Session, connect},
};

use crate::probe::Sent;

/// What `cargo xtask demo` starts with. The demo edits copies of these.
const CONFIG: &str = include_str!("../../../../demo/portcullis.toml");
pub(crate) const DROP_LIST: &str = "lists/drop.txt";
const LISTS: [(&str, &str); 2] = [
    (DROP_LIST, include_str!("../../../../demo/lists/drop.txt")),
    ("lists/watch.txt", include_str!("../../../../demo/lists/watch.txt")),
];
/// More than the 1500 bytes that the policy allows, so that larger packets can be sent at all. Real clients stay below.
const MTU: u32 = 1600;
/// How long a client waits for what does not come. Less than the first retransmission of a SYN.
const PATIENCE: Duration = Duration::from_millis(600);

/// Exit status of curl.
const CURL_TIMEOUT: i32 = 28;

/// Addresses of the client beyond the link: allowed, blocked, watched, and those for the rates.
const FAR_CLIENTS: [&str; 12] = [
    "198.51.100.7",
    "2001:db8:1::7",
    "198.51.100.66",
    "2001:db8:1::66",
    "203.0.113.9",
    "2001:db8:bad::9",
    "198.19.7.7",
    "2001:db8:7::7",
    "198.19.1.1",
    "2001:db8:a::1",
    "198.19.1.2",
    "2001:db8:b::1",
];

// Fields are dropped in this order: the agent while its host is there.
pub(crate) struct Bench {
    pub(crate) agent: Agent,
    /// Of the operator, from the office.
    pub(crate) sessions: Vec<Session>,
    /// Connections that a flood left open.
    idle: Vec<TcpStream>,
    pub(crate) sender: Raw,
    pub(crate) witness: Raw,
    _servers: (HttpServer, [Echo; 5]),
    pub(crate) world: World,
}

impl Bench {
    pub(crate) fn new(mode: XdpMode) -> Result<Self> {
        let world = World::with_mtu(MTU)?;
        for address in FAR_CLIENTS {
            world.add_client_address(address.parse()?)?;
        }
        for namespace in [&world.host, &world.client] {
            for network in ["192.0.2.0/24", "2001:db8::/64 metric 256"] {
                namespace.ip(&format!("route replace {network} dev {INTERFACE} mtu 1500"))?;
            }
        }
        let http = HttpServer::start(&world.host, 80)?;
        let echoes = [
            Echo::tcp(&world.host, 22)?,
            Echo::udp(&world.host, 5000)?,
            // Servers elsewhere, that the host itself is a client of.
            Echo::tcp(&world.client, 443)?,
            Echo::udp_at(&world.client, (CLIENT_V4.parse::<IpAddr>()?, 53).into())?,
            Echo::udp_at(&world.client, (CLIENT_V6.parse::<IpAddr>()?, 53).into())?,
        ];
        let agent = Agent::start_with(&world, &CONFIG.replace("xdp_mode = \"native\"", mode.setting()), &LISTS)?;
        let sender = Raw::open(&world.client, INTERFACE)?;
        let witness = Raw::open(&world.host, INTERFACE)?;
        Ok(Self { agent, sessions: Vec::new(), idle: Vec::new(), sender, witness, _servers: (http, echoes), world })
    }

    /// Prints every event from now on.
    pub(crate) fn show_events(&self) {
        self.agent.watch(Box::new(|event| println!("     event: {}", describe(event))));
    }

    /// What runs where.
    pub(crate) fn introduction(&self) -> Result<String> {
        let status = self.agent.status()?;
        let interfaces: Vec<String> =
            status.interfaces.iter().map(|interface| format!("{} ({})", interface.name, interface.mode)).collect();
        let mut text = format!(
            "Portcullis {} guards {} in {} mode, policy generation {}, configuration {}.",
            status.version,
            interfaces.join(", "),
            status.mode,
            status.generation,
            status.config
        );
        for warning in &status.warnings {
            text.push_str("\nwarning: ");
            text.push_str(warning);
        }
        Ok(text)
    }

    /// What the agent says at the end, and what is wrong with it.
    pub(crate) fn closing(&self) -> Result<(String, Vec<String>)> {
        let status = self.agent.status()?;
        let reasons = status.reasons.iter().filter(|reason| reason.dropped.packets > 0).count();
        let events = &status.events;
        let text = format!(
            "The kernel dropped {} packets for {reasons} reasons and passed {}; the agent reported {} events since it was \
             started anew.",
            status.packets.dropped.packets, status.packets.passed.packets, events.delivered
        );
        let mut wrong = self.agent.strange_lines();
        if events.lost_kernel + events.lost_sink > 0 {
            wrong.push(format!("events were lost: {events:?}"));
        }
        Ok((text, wrong))
    }

    /// Puts raw frames on the wire.
    pub(crate) fn send(&self, frames: Vec<Vec<u8>>) -> Result<Sent> {
        for frame in &frames {
            self.sender.send(frame)?;
        }
        Ok(Sent::Frames(frames))
    }

    /// Gets the page, from this source.
    pub(crate) fn curl(&self, source: IpAddr, server: SocketAddr) -> Result<String> {
        let patience = PATIENCE.as_secs_f64().to_string();
        let url = format!("http://{server}/");
        let output = self
            .world
            .client
            .command("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", &patience])
            .args(["--interface", &source.to_string(), &url])
            .output()?;
        let code = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.code() != Some(CURL_TIMEOUT), "no answer");
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        ensure!(code == "200", "HTTP {code}");
        Ok(format!("HTTP {code}"))
    }

    pub(crate) fn ping(&self, source: IpAddr, host: IpAddr, size: usize) -> Result<String> {
        let arguments = ["-c1", "-W1", "-s", &size.to_string(), "-I", &source.to_string(), &host.to_string()];
        self.world.client.run("ping", &arguments)?;
        Ok("pong".into())
    }

    /// Opens connections as fast as it can until one is not answered, from a source that is proven to be real by a first,
    /// honest request.
    pub(crate) fn flood(&mut self, source: IpAddr, server: SocketAddr, most: usize) -> Result<String> {
        self.curl(source, server)?;
        let source = SocketAddr::new(source, 0);
        let open = self.world.client.enter(|| {
            let mut open = Vec::new();
            for number in 1..=most {
                match connect(source, server, PATIENCE) {
                    Ok(stream) => open.push(stream),
                    Err(error) => return (open, Err(anyhow!("no connection {number} ({error})"))),
                }
            }
            (open, Ok(format!("{most} connections")))
        });
        // Closed now, they would say so again and again from behind the ban.
        self.idle.extend(open.0);
        open.1
    }

    /// Changes a file as an operator would, and waits until the agent has taken it over.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(String) -> String) -> Result<Status> {
        let before = self.agent.status()?;
        self.agent.write(name, &change(self.agent.read(name)?))?;
        let after = self.agent.wait_reload(&before)?;
        ensure!(
            after.reloads.failed == before.reloads.failed,
            "the reload failed: {}",
            after.reloads.last_error.unwrap_or_default()
        );
        Ok(after)
    }
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum XdpMode {
    /// In the driver, before the kernel makes a packet of it.
    Native,
    /// In the stack, for drivers without a native mode.
    Generic,
}

impl XdpMode {
    fn setting(self) -> &'static str {
        match self {
            Self::Native => "xdp_mode = \"native\"",
            Self::Generic => "xdp_mode = \"generic\"",
        }
    }
}

/// An event in one line.
fn describe(event: &Event) -> String {
    let end = |address: Option<IpAddr>, port: Option<u16>| match (address, port) {
        (None, _) => "?".to_owned(),
        (Some(address), None | Some(0)) => address.to_string(),
        (Some(address), Some(port)) => SocketAddr::new(address, port).to_string(),
    };
    format!(
        "{} {:<8} {:<18} {} → {}{}{}",
        event.time.get(11..23).unwrap_or(&event.time),
        event.action,
        event.reason,
        end(event.source, event.source_port),
        end(event.destination, event.destination_port),
        event.by().map(|rule| format!(", by {rule}")).unwrap_or_default(),
        if event.count > 1 { format!(", {} packets", event.count) } else { String::new() },
    )
}

#[cfg(test)]
mod test {
    use firewall_user::config::{self, Overrides};

    use super::*;

    #[test]
    fn the_demonstration_starts_with_a_valid_policy() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("lists")).unwrap();
        for (name, content) in LISTS.iter().chain(&[("portcullis.toml", CONFIG)]) {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        let config = config::load(&directory.path().join("portcullis.toml"), &Overrides::default());
        let config = config.unwrap_or_else(|errors| panic!("{}", errors.report(false)));
        assert_eq!(config.interfaces, [INTERFACE]);
        assert_eq!(config.dmz.lists.len(), 3);
        assert!(config.dmz.lists.iter().all(|list| list.prefixes.len() >= 2));
    }
}
