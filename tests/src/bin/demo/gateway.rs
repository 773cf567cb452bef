//! The second part: applications behind the gateway. Good requests of each protocol, bad ones of each kind, a client that
//! vanishes into the kernel's bans, users behind one proxy, and a dead agent.
//!
//! What a line claims of a refusal is proved by the answer, the agent's event and its counter; of a ban, by the kernel's.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tests::{
    agent::Agent,
    http::{
        app::App,
        curl::{Http, curl},
        grpc::Call,
        http2,
        raw::Client,
        tls::Authority,
        websocket::Socket,
        within,
    },
    netns::{HOST_V4, HOST_V6, World, client_v4},
};

use crate::judge::Line;

const CONFIG: &str = include_str!("../../../../demo/gateway.toml");
const ORDERS: u16 = 8080;
const PAYMENTS: u16 = 8081;
const SOON: Duration = Duration::from_secs(5);
/// The client's address that is a trusted proxy, `192.0.2.50`.
const PROXY: u8 = 48;

// Fields are dropped in this order: the agent while its host is there.
pub(crate) struct Stage {
    agent: Agent,
    _apps: [App; 3],
    world: World,
    lines: Vec<Line>,
    next: u8,
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// A request that is refused: what is wrong with it, how, and with what answer.
type Bad = (&'static str, &'static str, u16, &'static [u8]);

const BAD: &[Bad] = &[
    (
        "Content-Length beside Transfer-Encoding",
        "length-and-coding",
        400,
        b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "two Content-Lengths",
        "several-lengths",
        400,
        b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
    ),
    (
        "a coding that only looks like chunked",
        "transfer-coding",
        400,
        b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    ("white space before the colon", "space-before-colon", 400, b"GET / HTTP/1.1\r\nHost: api.test\r\nA : b\r\n\r\n"),
    ("a header folded over two lines", "folded-header", 400, b"GET / HTTP/1.1\r\nHost: api.test\r\nA: b\r\n c\r\n\r\n"),
    ("a bare line feed", "bare-line-feed", 400, b"GET / HTTP/1.1\nHost: api.test\n\n"),
    (
        "a chunk whose size is signed",
        "malformed-chunk",
        400,
        b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nabcde\r\n0\r\n\r\n",
    ),
    ("two Hosts", "host-mismatch", 400, b"GET / HTTP/1.1\r\nHost: api.test\r\nHost: evil.test\r\n\r\n"),
    ("a version to come", "http-version", 505, b"GET / HTTP/3.0\r\nHost: api.test\r\n\r\n"),
    ("a host that is not served", "host-not-served", 421, b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n"),
    ("a method that is not offered", "method", 405, b"TRACE / HTTP/1.1\r\nHost: api.test\r\n\r\n"),
    ("dot segments above the root", "path-above-root", 400, b"GET /../etc/passwd HTTP/1.1\r\nHost: api.test\r\n\r\n"),
    ("an encoded slash", "path-encoded-slash", 400, b"GET /a%2fb HTTP/1.1\r\nHost: api.test\r\n\r\n"),
    ("a path encoded twice", "path-double-encoding", 400, b"GET /%252e%252e/ HTTP/1.1\r\nHost: api.test\r\n\r\n"),
    ("NUL in the path", "path-control-character", 400, b"GET /a%00b HTTP/1.1\r\nHost: api.test\r\n\r\n"),
    ("overlong UTF-8 in the path", "path-not-utf8", 400, b"GET /%c0%af HTTP/1.1\r\nHost: api.test\r\n\r\n"),
    (
        "a content type that is not taken",
        "content-type",
        415,
        b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Type: text-plain/x\r\nContent-Length: 1\r\n\r\nx",
    ),
    (
        "a body over the limit",
        "body-too-large",
        413,
        b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Type: text/plain\r\nContent-Length: 2000000\r\n\r\n",
    ),
    (
        "an upgrade to h2c",
        "upgrade",
        400,
        b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    ),
    ("an expectation nobody can meet", "expectation", 417, b"GET / HTTP/1.1\r\nHost: api.test\r\nExpect: gold\r\n\r\n"),
    ("a head that does not end", "head-timeout", 408, b"GET / HTTP/1.1\r\nHost: api.test\r\n"),
    (
        "a body that does not come",
        "body-timeout",
        408,
        b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\nab",
    ),
];

pub(crate) fn run(number: usize) -> Result<Vec<Line>> {
    println!(
        "\nMaking another host, with three applications that know nothing of Portcullis, and starting the gateway …"
    );
    let mut stage = Stage::new()?;
    let warnings = stage.agent.status()?.warnings;
    warnings.iter().for_each(|warning| println!("warning: {warning}"));
    stage.good(number)?;
    stage.bad(number)?;
    stage.ban(number)?;
    stage.proxied(number)?;
    stage.death(number)?;
    Ok(stage.lines)
}

impl Stage {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let apps = [
            App::start(&world.host, at("::", ORDERS))?,
            App::start(&world.host, at(HOST_V4, PAYMENTS))?,
            App::start(&world.host, at("127.0.0.1", 9000))?,
        ];
        let authority = Authority::new()?;
        authority.issue("api", &["api.test", HOST_V4])?;
        let read = |name: &str| std::fs::read_to_string(authority.directory().join(name));
        let (chain, key) = (read("api.pem")?, read("api.key")?);
        let agent = Agent::start_with(&world, CONFIG, &[("api.pem", &chain), ("api.key", &key)])?;
        Ok(Self { agent, _apps: apps, world, lines: Vec::new(), next: 0 })
    }

    /// A client that nobody knows yet: what one does must not count against the next.
    fn fresh(&mut self) -> u8 {
        self.next += 1;
        assert!(self.next < PROXY, "the demo needs more clients");
        self.next
    }

    fn open(&self, client: u8, port: u16) -> Result<Client> {
        Ok(Client::try_open(&self.world.client, client_v4(client), at(HOST_V4, port), Duration::from_secs(1))?)
    }

    fn refused(&self, api: &str, reason: &str) -> Result<u64> {
        let status = self.agent.status()?;
        let api = status.apis.iter().find(|known| known.name == api).context("no such API in status")?;
        Ok(api.traffic.reasons.get(reason).copied().unwrap_or(0))
    }

    /// A line of the table: `what` was done, and `outcome` came of it.
    fn tell(
        &mut self,
        number: usize,
        stage: &'static str,
        what: &str,
        expected: String,
        counter: String,
        outcome: Result<String>,
    ) {
        println!("{:>3}. {stage}: {what}", number + self.lines.len() + 1);
        let (happened, complaints) = match outcome {
            Ok(happened) => (happened, Vec::new()),
            Err(error) => (format!("{error:#}"), vec![format!("{error:#}")]),
        };
        let (family, what, by) = ("HTTP", what.to_owned(), String::new());
        let line = Line { family, stage, what, expected, happened, by, counter, complaints };
        println!("     {}", line.summary());
        self.lines.push(line);
    }

    /// Good requests of each protocol.
    fn good(&mut self, number: usize) -> Result<()> {
        let passes = |stage: &mut Self, what: &str, do_it: &mut dyn FnMut(&Stage) -> Result<String>| -> Result<()> {
            let passed = |stage: &Stage| -> Result<u64> {
                Ok(stage.agent.status()?.apis.iter().map(|api| api.traffic.requests.passed).sum())
            };
            let before = passed(stage)?;
            let outcome = do_it(stage);
            stage.agent.wait_until("counted", |status| {
                status.apis.iter().map(|api| api.traffic.requests.passed).sum::<u64>() > before
            })?;
            let counter = format!("passed +{}", passed(stage)? - before);
            stage.tell(number, "gateway", what, "answered by the application".into(), counter, outcome);
            Ok(())
        };
        let orders = format!("http://{HOST_V4}:{ORDERS}/list?page=1");
        passes(self, "HTTP/1.1 to the port of an unmodified server", &mut |stage| {
            let answer = curl(&stage.world.client, Http::One, None, &[&orders])?;
            ensure!(answer.response.status == 200, "status {}", answer.response.status);
            let seen = answer.response.json()?;
            ensure!(seen["peer"].as_str().is_some_and(|peer| peer.contains(HOST_V4)), "{seen}");
            Ok("200; it sees the host, and Forwarded names the client".into())
        })?;
        let orders_v6 = format!("http://[{HOST_V6}]:{ORDERS}/");
        passes(self, "the same over IPv6", &mut |stage| {
            let answer = curl(&stage.world.client, Http::One, None, &["-H", "Host: api.test", &orders_v6])?;
            ensure!(answer.response.status == 200, "status {}", answer.response.status);
            Ok("200".into())
        })?;
        passes(self, "HTTP/2 by prior knowledge", &mut |stage| {
            let answer = curl(&stage.world.client, Http::TwoByPriorKnowledge, None, &[&orders])?;
            ensure!(answer.response.status == 200 && answer.http == "2", "{} {}", answer.http, answer.response.status);
            Ok("200 over HTTP/2".into())
        })?;
        let shop = format!("https://{HOST_V4}:8443/");
        passes(self, "HTTP/2 over TLS, to the reverse proxy", &mut |stage| {
            let answer = curl(&stage.world.client, Http::Two, None, &[&shop])?;
            ensure!(answer.response.status == 200 && answer.http == "2", "{} {}", answer.http, answer.response.status);
            Ok("200 over HTTP/2".into())
        })?;
        passes(self, "WebSocket: three messages and their echoes", &mut |stage| {
            within(&stage.world.client, async {
                let mut socket = Socket::open(at(HOST_V4, ORDERS)).await?;
                for words in ["one", "two", "three"] {
                    ensure!(socket.say(words).await? == words, "another echo");
                }
                Ok("three echoes".into())
            })
        })?;
        let events = format!("http://{HOST_V4}:{ORDERS}/sse/3/50");
        passes(self, "server-sent events", &mut |stage| {
            let answer = curl(&stage.world.client, Http::One, None, &[&events])?;
            let count = answer.response.text().matches("data: event").count();
            ensure!(count == 3, "{count} events");
            Ok("three events".into())
        })?;
        passes(self, "gRPC: a call, and a conversation in both directions", &mut |stage| {
            within(&stage.world.client, async {
                let mut connection = http2::Connection::open(at(HOST_V4, ORDERS)).await?;
                for method in ["Unary", "Chat"] {
                    let mut call = Call::start(&mut connection, method).await?;
                    call.say(b"hello").await?;
                    ensure!(call.next().await?.is_some_and(|echo| echo == b"hello"[..]), "another echo");
                    call.finish();
                    ensure!(call.next().await?.is_none() && call.status() == Some("0"), "{:?}", call.status());
                }
                Ok("echoes, and grpc-status 0 in the trailers".into())
            })
        })?;
        Ok(())
    }

    /// Bad requests of each kind, each from a client of its own.
    fn bad(&mut self, number: usize) -> Result<()> {
        for (what, reason, status, request) in BAD {
            let (client, mark) = (self.fresh(), self.agent.mark());
            let before = self.refused("orders", reason)?;
            let outcome = self.refusal(client, mark, reason, *status, request);
            let counter = format!("{reason} +{}", self.refused("orders", reason)? - before);
            self.tell(number, "request", what, format!("{status}: {reason}"), counter, outcome);
        }
        Ok(())
    }

    fn refusal(&self, client: u8, mark: usize, reason: &str, status: u16, request: &[u8]) -> Result<String> {
        let mut connection = self.open(client, ORDERS)?;
        connection.patience(SOON)?;
        connection.send(request)?;
        let answer = connection.response(false)?.context("no answer")?;
        ensure!(answer.status == status, "status {}", answer.status);
        ensure!(answer.header("content-type") == Some("application/problem+json"), "no problem+json");
        let source = client_v4(client);
        let told = self.agent.wait_event_since(
            mark,
            |event| event.layer == "lan" && event.source == Some(source) && event.action == "refuse",
            SOON,
        );
        let told = told.context("no event")?;
        ensure!(told.reason == reason, "told as {}", told.reason);
        Ok(format!("{status}, told as {reason}"))
    }

    /// Five refusals, and the client is gone.
    fn ban(&mut self, number: usize) -> Result<()> {
        let client = self.fresh();
        let before = self.agent.counter("ban")?;
        let outcome = self.banned(client);
        let counter = format!("ban +{}", self.agent.counter("ban")? - before);
        let expected = "dropped by the kernel within 100 ms".to_owned();
        self.tell(number, "reputation", "a client that is refused five times", expected, counter, outcome);
        Ok(())
    }

    fn banned(&self, client: u8) -> Result<String> {
        for attempt in 1..=5 {
            let mut connection = self.open(client, ORDERS)?;
            connection.patience(SOON)?;
            connection.send(b"GET /../../etc/passwd HTTP/1.1\r\nHost: api.test\r\n\r\n")?;
            let answer = connection.response(false)?.with_context(|| format!("attempt {attempt}: no answer"))?;
            ensure!(answer.status == 400, "attempt {attempt}: status {}", answer.status);
        }
        let condemned = Instant::now();
        let (source, server) = (client_v4(client), at(HOST_V4, ORDERS));
        while Client::try_open(&self.world.client, source, server, Duration::from_millis(30)).is_ok() {
            ensure!(condemned.elapsed() < SOON, "it is not dropped");
        }
        // The last try waited for an answer that did not come.
        let took = condemned.elapsed().saturating_sub(Duration::from_millis(30));
        ensure!(took <= Duration::from_millis(100), "dropped only after {} ms", took.as_millis());
        ensure!(self.agent.counter("ban")? > 0, "the kernel counted no packet of it");
        ensure!(self.agent.bans()?.iter().any(|ban| ban.prefix.addr() == source), "`portcullis bans` does not show it");
        Ok(format!("dropped {} ms after the fifth answer", took.as_millis()))
    }

    /// Eleven users behind one proxy, one of them bad.
    fn proxied(&mut self, number: usize) -> Result<()> {
        let outcome = self.eleven_users();
        let counter = format!("reputation +{}", self.refused("orders", "reputation")?);
        let expected = "ten keep working, the proxy is not banned".to_owned();
        self.tell(
            number,
            "reputation",
            "eleven users behind one trusted proxy, one is bad",
            expected,
            counter,
            outcome,
        );
        Ok(())
    }

    fn eleven_users(&self) -> Result<String> {
        let ask = |user: u8, path: &str| -> Result<u16> {
            let mut connection = self.open(PROXY, ORDERS)?;
            let head = format!("GET {path} HTTP/1.1\r\nHost: api.test\r\nX-Forwarded-For: 198.51.100.{user}\r\n\r\n");
            connection.send(head.as_bytes())?;
            Ok(connection.response(false)?.context("no answer")?.status)
        };
        for _ in 0..6 {
            let status = ask(11, "/../secret")?;
            ensure!(status == 400 || status == 403, "the bad user got {status}");
        }
        ensure!(ask(11, "/")? == 403, "the bad user is still served");
        for user in 1..=10 {
            let status = ask(user, "/")?;
            ensure!(status == 200, "user {user} got {status}");
        }
        let proxy: IpAddr = client_v4(PROXY);
        ensure!(self.agent.bans()?.iter().all(|ban| ban.prefix.addr() != proxy), "the proxy is banned");
        Ok("ten are answered 200, the bad one 403".into())
    }

    /// The agent is killed: one API is open without it, one is closed.
    fn death(&mut self, number: usize) -> Result<()> {
        let client = self.fresh();
        self.agent.kill9()?;
        let began = Instant::now();
        let open = self
            .application_answers(client)
            .map(|()| format!("answered by the application after {} ms", began.elapsed().as_millis()));
        let what = "the agent is killed (kill -9): an API that stays open";
        self.tell(number, "death", what, "answered, unprotected".into(), String::new(), open);
        let closed = match self.open(client, PAYMENTS) {
            Ok(_) => Err(anyhow::anyhow!("a connection came about")),
            Err(_) => Ok("refused by the kernel".into()),
        };
        let what = "… and one that closes";
        self.tell(number, "death", what, "no connection".into(), String::new(), closed);
        self.agent.launch(&[])?;
        let mark = self.agent.mark();
        let again = self.application_answers(client).and_then(|()| {
            let told = self.agent.wait_event_since(mark, |event| event.text("api") == Some("orders"), SOON);
            told.context("no event")?;
            Ok("through the gateway again".into())
        });
        self.tell(number, "death", "a new agent", "judged again".into(), String::new(), again);
        Ok(())
    }

    fn application_answers(&self, client: u8) -> Result<()> {
        let began = Instant::now();
        loop {
            let answered = self.open(client, ORDERS).and_then(|mut connection| connection.get("/"));
            match answered {
                Ok(response) if response.status == 200 => return Ok(()),
                Ok(response) => bail!("status {}", response.status),
                Err(error) if began.elapsed() > Duration::from_secs(1) => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}
