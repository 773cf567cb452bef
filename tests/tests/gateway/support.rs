//! An application with the gateway before it.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use tests::{
    agent::{Agent, Event},
    http::{
        app::{App, Seen},
        raw::{Client, Response},
    },
    netns::{HOST_V4, HOST_V6, World, client_v4},
};

pub(crate) const PORT: u16 = 8080;
/// Longest wait for what should come at once.
pub(crate) const SOON: Duration = Duration::from_secs(5);
/// A request that no honest client sends, and that is refused with 400 and a closed connection.
pub(crate) const ATTACK: &[u8] = b"GET / HTTP/1.1\r\nHost: api.test\r\nContent-Length : 5\r\n\r\n";
/// Keys of the API that tests add to; tables of it may follow.
pub(crate) const API: &str = "interfaces = [\"eth0\"]\n[[api]]\nname = \"orders\"\nport = 8080\n";
/// For tests whose subject is not reputation.
pub(crate) const NO_BANS: &str = "[reputation]\nthreshold = 1000000\n";

pub(crate) fn host() -> SocketAddr {
    at(HOST_V4, PORT)
}

pub(crate) fn host_v6() -> SocketAddr {
    at(HOST_V6, PORT)
}

pub(crate) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// A world in which port 8080 of the host is steered.
pub(crate) struct Gateway {
    pub(crate) agent: Agent,
    pub(crate) app: App,
    pub(crate) world: World,
}

impl Gateway {
    /// With these further lines in the API's table, and tables behind it.
    pub(crate) fn start(more: &str) -> Self {
        Self::start_config(&format!("{API}{more}"))
    }

    pub(crate) fn start_config(config: &str) -> Self {
        let world = World::new().unwrap();
        let app = App::start(&world.host, at("::", PORT)).unwrap();
        let agent = Agent::start(&world, config).unwrap_or_else(|error| panic!("{error:#}\nin:\n{config}"));
        Self { agent, app, world }
    }

    /// As [`Gateway::start_config`], to be confirmed within this time.
    pub(crate) fn start_unconfirmed(config: &str, within: &str) -> Self {
        let world = World::new().unwrap();
        let app = App::start(&world.host, at("::", PORT)).unwrap();
        let mut agent = Agent::prepare(&world, config, &[]).unwrap();
        agent.launch(&["--confirm", within]).unwrap();
        Self { agent, app, world }
    }

    /// Whether the kernel steers anything for this agent.
    pub(crate) fn is_steered(&self) -> bool {
        steered(&self.agent) > 0
    }

    /// A connection from the client's `n`th address.
    pub(crate) fn client(&self, n: u8) -> Client {
        Client::open_from(&self.world.client, client_v4(n), host()).unwrap()
    }

    /// Sends this from the client's `n`th address on a connection of its own, and gives the answer.
    #[track_caller]
    pub(crate) fn ask(&self, n: u8, request: &[u8]) -> Response {
        let mut client = self.client(n);
        client.send(request).unwrap();
        client.response(false).unwrap().expect("an answer")
    }

    /// What the application sees of a GET with these header lines, each with its CRLF.
    #[track_caller]
    pub(crate) fn seen(&self, n: u8, fields: &str) -> Seen {
        let request = format!("GET /seen HTTP/1.1\r\nHost: api.test\r\n{fields}\r\n");
        let response = self.ask(n, request.as_bytes());
        assert_eq!(response.status, 200, "{}", response.text());
        serde_json::from_value(response.json().unwrap()).unwrap()
    }

    /// Whether the client's `n`th address gets a connection and a good answer.
    pub(crate) fn answers(&self, n: u8) -> bool {
        self.answers_within(n, Duration::from_secs(1)).is_ok()
    }

    pub(crate) fn answers_within(&self, n: u8, timeout: Duration) -> Result<(), String> {
        let mut client =
            Client::try_open(&self.world.client, client_v4(n), host(), timeout).map_err(|e| e.to_string())?;
        client.patience(timeout).map_err(|error| error.to_string())?;
        let response = client.get("/").map_err(|error| format!("{error:#}"))?;
        if response.status == 200 { Ok(()) } else { Err(format!("status {}", response.status)) }
    }

    /// The record of a refusal since `mark`.
    #[track_caller]
    pub(crate) fn refusal(&self, mark: usize, reason: &str) -> Event {
        let wanted = |event: &Event| event.layer == "lan" && event.action == "refuse" && event.reason == reason;
        let event = self.agent.wait_event_since(mark, wanted, SOON);
        event.unwrap_or_else(|| panic!("no refusal for {reason}, but {:?}", self.agent.events().get(mark..)))
    }

    /// The record of a request for `path` since `mark`.
    #[track_caller]
    pub(crate) fn record(&self, mark: usize, path: &str) -> Event {
        let wanted = |event: &Event| event.layer == "lan" && event.text("path") == Some(path);
        let event = self.agent.wait_event_since(mark, wanted, SOON);
        event.unwrap_or_else(|| panic!("no record of {path}, but {:?}", self.agent.events().get(mark..)))
    }

    /// Memory that the agent has resident, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.agent.resident().unwrap()
    }
}

/// Network namespaces in which the kernel steers for this agent, alive or not.
pub(crate) fn steered(agent: &Agent) -> usize {
    let Ok(pins) = std::fs::read_dir(format!("/sys/fs/bpf/{}", agent.instance)) else { return 0 };
    pins.filter(|pin| pin.as_ref().unwrap().file_name().to_string_lossy().starts_with("steer-")).count()
}

/// It is a refusal as RFC 9457 has it, and says nothing about the inside.
#[track_caller]
pub(crate) fn assert_problem(response: &Response, status: u16) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let problem = response.json().unwrap();
    assert_eq!(problem["status"], status, "{problem}");
    let text = response.text().to_ascii_lowercase();
    for inside in ["hyper", "upstream", "192.0.2", "portcullis", "rust"] {
        assert!(!text.contains(inside), "{text}");
    }
    assert_eq!(response.header("server"), None);
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(10), "not {what} after 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
    began.elapsed()
}

pub(crate) fn address(event: &Event) -> IpAddr {
    event.source.expect("a client")
}
