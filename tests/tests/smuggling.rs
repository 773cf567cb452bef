//! The corpus of ambiguous requests against a recording upstream: what arrives has one form, and nothing arrives that was
//! hidden in something else.
//!
//! Needs root and bpffs; without them it fails.

use std::time::Duration;

use firewall_inspect::reason::Reason;
use tests::{
    agent::Agent,
    http::{
        raw::{Client, Response},
        recorder::Recorder,
    },
    netns::{HOST_V4, World},
    smuggling::{Case, cases, matches},
};

const CONFIG: &str = r#"
interfaces = ["eth0"]
[[api]]
name = "orders"
port = 8080
[api.timeouts]
head = "1s"
[reputation]
threshold = 1000000
"#;
/// Longer than any timeout of the configuration.
const PATIENCE: Duration = Duration::from_secs(5);
/// Sent behind a case whose connection is still open: what was decided before it is known once it is answered.
const LAST: &[u8] = b"GET /last HTTP/1.1\r\nHost: api.test\r\n\r\n";

struct Bench {
    world: World,
    recorder: Recorder,
    agent: Agent,
}

/// How a connection went.
#[derive(Debug)]
struct Outcome {
    answers: Vec<Response>,
    closed: bool,
}

impl Bench {
    /// Sends these pieces, and reads until the connection is closed or everything was answered.
    fn talk(&self, case: &Case, pieces: &[&[u8]]) -> Result<Outcome, String> {
        let text = |error: &dyn std::fmt::Display| format!("{error:#}");
        let server = format!("{HOST_V4}:8080").parse().expect("an address");
        let mut client = Client::open(&self.world.client, server).map_err(|error| text(&error))?;
        client.patience(PATIENCE).map_err(|error| text(&error))?;
        for piece in pieces {
            // A gateway that has refused already does not take the rest.
            if client.send(piece).is_err() {
                break;
            }
            if pieces.len() > 1 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        let wanted = case.forwarded.iter().chain(&case.instead);
        let heads: Vec<bool> = wanted.map(|sent| sent.method == "HEAD").collect();
        let mut outcome = Outcome { answers: Vec::new(), closed: false };
        let mut last_sent = false;
        loop {
            let bodiless = heads.get(outcome.answers.len()) == Some(&true);
            if case.refused.is_empty() && outcome.answers.len() == case.forwarded.len() && !last_sent {
                last_sent = true;
                if client.send(LAST).is_err() {
                    outcome.closed = true;
                    return Ok(outcome);
                }
            }
            match client.response(bodiless).map_err(|error| format!("{error:#}, after {:?}", outcome.answers))? {
                None => outcome.closed = true,
                Some(response) => outcome.answers.push(response),
            }
            if outcome.closed || outcome.answers.len() > case.forwarded.len() && (last_sent || is_good(&outcome)) {
                return Ok(outcome);
            }
        }
    }

    /// Runs a case; an error says what was wrong.
    fn run(&self, case: &Case, pieces: &[&[u8]]) -> Result<(), String> {
        let mark = self.agent.mark();
        let outcome = self.talk(case, pieces)?;
        if !self.recorder.settle(PATIENCE) {
            return Err("the upstream still waits for the end of a request".into());
        }
        let received = self.recorder.take();
        if !received.faults.is_empty() {
            return Err(format!("the upstream got what it must not: {:?}", received.faults));
        }
        if received.partial > usize::from(case.cut) {
            return Err("the upstream got an unfinished request".into());
        }
        let mut messages = received.messages;
        messages.retain(|message| message.target != "/last" || case.refused.is_empty().then_some(()).is_none());
        let seen: Vec<String> =
            messages.iter().map(|message| format!("{} {} {:?}", message.method, message.target, message.body.escape_ascii().to_string())).collect();
        if messages.iter().any(|message| message.target.contains("smuggled")) {
            return Err(format!("SMUGGLED: {seen:?}"));
        }
        let forwarded = case.forwarded.len();
        let instead = case.instead.as_ref().filter(|_| messages.len() > forwarded);
        let wanted: Vec<_> = case.forwarded.iter().chain(instead).collect();
        let same = wanted.len() == messages.len() && wanted.iter().zip(&messages).all(|(sent, message)| sent.is(message));
        if !same {
            return Err(format!("the upstream got {seen:?}"));
        }
        for message in &messages {
            let dangerous = ["x-original-url", "x-rewrite-url", "x-forwarded-host"];
            if let Some((name, _)) = message.fields.iter().find(|(name, _)| dangerous.contains(&&name[..])) {
                return Err(format!("the upstream got {name}"));
            }
        }
        let good = outcome.answers.iter().take(wanted.len()).filter(|answer| answer.status == 200).count();
        if good != wanted.len() {
            return Err(format!("answers: {outcome:?}"));
        }
        if case.refused.is_empty() || instead.is_some() { Ok(()) } else { self.check_refusal(case, &outcome, mark) }
    }

    /// The event has the reason; the client gets its status, and nothing about the inside.
    fn check_refusal(&self, case: &Case, outcome: &Outcome, mark: usize) -> Result<(), String> {
        if !outcome.closed && outcome.answers.len() <= case.forwarded.len() {
            return Err(format!("not refused: {outcome:?}"));
        }
        let refusal = |event: &tests::agent::Event| event.layer == "lan" && event.action == "refuse";
        let event = self.agent.wait_event_since(mark, refusal, PATIENCE).ok_or("no event of a refusal")?;
        let reason = Reason::ALL.iter().find(|reason| reason.name() == event.reason);
        let reason = reason.ok_or_else(|| format!("the unknown reason {}", event.reason))?;
        if !case.refused.iter().any(|wanted| matches(wanted, reason.name())) {
            return Err(format!("refused as {}", reason.name()));
        }
        match outcome.answers.get(case.forwarded.len()) {
            None if reason.status() == 0 => Ok(()),
            None => Err(format!("{} without an answer", reason.name())),
            Some(answer) if answer.status != reason.status() => Err(format!("{} with status {}", reason.name(), answer.status)),
            Some(answer) if answer.header("content-type") != Some("application/problem+json") => {
                Err(format!("a refusal of type {:?}", answer.header("content-type")))
            }
            Some(answer) => match answer.json() {
                Ok(problem) if problem["status"] == answer.status => Ok(()),
                other => Err(format!("the problem is {other:?}")),
            },
        }
    }
}

/// The last answer came from the upstream.
fn is_good(outcome: &Outcome) -> bool {
    outcome.answers.last().is_some_and(|answer| answer.status == 200)
}

#[test]
fn nothing_ambiguous_reaches_the_upstream() {
    let world = World::new().unwrap();
    let recorder = Recorder::start(&world.host, "[::]:8080".parse().unwrap()).unwrap();
    let agent = Agent::start(&world, CONFIG).unwrap();
    let bench = Bench { world, recorder, agent };
    let mut wrong = Vec::new();
    let cases = cases();
    for case in &cases {
        // At once; byte by byte; and cut in two where line ends and sizes are, so that no decision depends on what a read
        // happened to bring.
        let bytes = &case.bytes[..];
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        let half: Vec<&[u8]> = bytes.chunks(bytes.len() / 2 + 1).collect();
        for (way, pieces) in [("at once", vec![bytes]), ("byte by byte", single), ("in halves", half)] {
            if let Err(error) = bench.run(case, &pieces) {
                wrong.push(format!("{} ({way}): {error}", case.what));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    // Nothing that came before may have left anything behind.
    let mut client = Client::open(&bench.world.client, format!("{HOST_V4}:8080").parse().unwrap()).unwrap();
    assert_eq!(client.get("/after").unwrap().text(), "ok");
    assert_eq!(bench.recorder.take().messages.len(), 1);
    assert_eq!(bench.agent.strange_lines(), Vec::<String>::new());
}
