//! The corpus of ambiguous requests against a recording upstream: what arrives has one form, and nothing arrives that was
//! hidden in something else.
//!
//! Needs root and bpffs; without them it fails.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, ensure};
use firewall_inspect::reason::Reason;
use tests::{
    agent::{Agent, Event},
    http::{
        raw::{Client, Response},
        recorder::Recorder,
    },
    netns::{HOST_V4, World},
    smuggling::{
        Case, cases, matches,
        streams::{Stream, streams},
    },
};

const CONFIG: &str = r#"
interfaces = ["eth0"]
[[api]]
name = "orders"
port = 8080
upstream_http = "1.1"
[api.timeouts]
head = "1s"
body = "2s"
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
    /// Those to the case itself.
    answers: Vec<Response>,
    /// The client's, by which its record is found.
    port: u16,
    /// The status of the answer to [`LAST`]; without one, the connection was closed.
    last: Option<u16>,
}

impl Bench {
    /// Sends these pieces, reads the answers, and then asks once more.
    fn talk(&self, case: &Case, pieces: &[&[u8]]) -> anyhow::Result<Outcome> {
        let mut client = Client::open(&self.world.client, format!("{HOST_V4}:8080").parse()?)?;
        client.patience(PATIENCE)?;
        let port = client.stream().local_addr()?.port();
        for piece in pieces {
            // A gateway that has refused already does not take the rest.
            if client.send(piece).is_err() {
                break;
            }
            if pieces.len() > 1 {
                sleep(Duration::from_micros(200));
            }
        }
        let heads: Vec<bool> = case.forwarded.iter().map(|sent| sent.method == "HEAD").collect();
        let mut answers = Vec::new();
        if case.bytes.starts_with(b"PRI ") {
            // Whatever it says, it says it in frames.
            client.rest(PATIENCE)?;
            return Ok(Outcome { answers, port, last: None });
        }
        while answers.len() < case.forwarded.len() + usize::from(!case.refused.is_empty()) {
            let bodiless = heads.get(answers.len()) == Some(&true);
            match client.response(bodiless).with_context(|| format!("after {answers:?}"))? {
                None => return Ok(Outcome { answers, port, last: None }),
                Some(response) => answers.push(response),
            }
        }
        let last =
            if client.send(LAST).is_ok() { client.response(false).context("to the last request")? } else { None };
        Ok(Outcome { answers, port, last: last.map(|response| response.status) })
    }

    /// Runs a case; an error says what was wrong.
    fn run(&self, case: &Case, pieces: &[&[u8]]) -> anyhow::Result<()> {
        let mark = self.agent.mark();
        let outcome = self.talk(case, pieces);
        let settled = self.recorder.settle(PATIENCE);
        let received = self.recorder.take();
        // What the upstream got is worse than any answer.
        ensure!(received.faults.is_empty(), "the upstream got what it must not: {:?}", received.faults);
        let mut messages = received.messages;
        messages.retain(|message| message.target != "/last");
        let seen: Vec<String> = messages
            .iter()
            .map(|message| {
                format!("{} {} with {:?}", message.method, message.target, message.body.escape_ascii().to_string())
            })
            .collect();
        ensure!(messages.iter().all(|message| !message.target.contains("smuggled")), "SMUGGLED: {seen:?}");
        ensure!(settled, "the upstream still waits for the end of a request");
        ensure!(received.partial <= usize::from(case.cut), "the upstream got an unfinished request");
        let instead = case.instead.as_ref().filter(|_| messages.len() > case.forwarded.len());
        let wanted: Vec<_> = case.forwarded.iter().chain(instead).collect();
        let same =
            wanted.len() == messages.len() && wanted.iter().zip(&messages).all(|(sent, message)| sent.is(message));
        ensure!(same, "the upstream got {seen:?}");
        for (name, _) in messages.iter().flat_map(|message| &message.fields) {
            ensure!(!["x-original-url", "x-rewrite-url", "x-forwarded-host"].contains(&&name[..]), "it got {name}");
        }
        let outcome = outcome?;
        let good = outcome.answers.iter().take(wanted.len()).filter(|answer| answer.status == 200).count();
        ensure!(good == wanted.len(), "{outcome:?}");
        // Behind a refusal there may be rubbish, and the last request becomes a part of it.
        let fine = matches!(outcome.last, None | Some(200)) || (!case.refused.is_empty() && instead.is_none());
        ensure!(fine, "the last request got {outcome:?}");
        if case.refused.is_empty() || instead.is_some() { Ok(()) } else { self.check_refusal(case, &outcome, mark) }
    }

    /// Runs a stream of HTTP/2; an error says what was wrong.
    fn run_stream(&self, stream: &Stream) -> anyhow::Result<()> {
        let mut client = Client::open(&self.world.client, format!("{HOST_V4}:8080").parse()?)?;
        client.send(&stream.bytes())?;
        client.until_stream_ends(1)?;
        let settled = self.recorder.settle(PATIENCE);
        let received = self.recorder.take();
        ensure!(received.faults.is_empty(), "the upstream got what it must not: {:?}", received.faults);
        let messages = received.messages;
        ensure!(messages.iter().all(|message| !message.target.contains("smuggled")), "SMUGGLED: {messages:?}");
        ensure!(settled, "the upstream still waits for the end of a request");
        let same = match &stream.forwarded {
            None => messages.is_empty(),
            Some(sent) => messages.len() == 1 && sent.is(&messages[0]),
        };
        ensure!(same, "the upstream got {messages:?}");
        for message in &messages {
            ensure!(message.trailers.is_empty(), "it got the trailers {:?}", message.trailers);
            let odd =
                message.fields.iter().find(|(name, _)| name.contains(['_', '!']) || name.starts_with("x-original"));
            ensure!(odd.is_none(), "it got {odd:?}");
            if let Some((name, value)) = stream.has {
                let values: Vec<&[u8]> = message.headers(name).collect();
                ensure!(values == [value.as_bytes()], "of {name} it got {values:?}");
            }
        }
        Ok(())
    }

    /// The event has the reason; the client gets its status, and nothing about the inside.
    fn check_refusal(&self, case: &Case, outcome: &Outcome, mark: usize) -> anyhow::Result<()> {
        let refusal =
            |event: &Event| event.layer == "lan" && event.action == "refuse" && event.source_port == Some(outcome.port);
        let event = self.agent.wait_event_since(mark, refusal, PATIENCE).context("no event of a refusal")?;
        let reason = Reason::ALL.iter().find(|reason| reason.name() == event.reason);
        let reason = reason.with_context(|| format!("the unknown reason {}", event.reason))?;
        ensure!(case.refused.iter().any(|wanted| matches(wanted, reason.name())), "refused as {}", reason.name());
        ensure!(outcome.last.is_none() || is_delimited(*reason), "open after {}", reason.name());
        let Some(answer) = outcome.answers.get(case.forwarded.len()) else {
            // Of one in frames none was kept.
            let silent = reason.status() == 0 || case.bytes.starts_with(b"PRI ");
            ensure!(silent, "{} without an answer", reason.name());
            return Ok(());
        };
        ensure!(answer.status == reason.status(), "{} with status {}", reason.name(), answer.status);
        ensure!(event.status() == Some(answer.status.into()), "the event has the status {:?}", event.status());
        let kind = answer.header("content-type");
        ensure!(kind == Some("application/problem+json"), "a refusal of type {kind:?}");
        ensure!(answer.json()?["status"] == answer.status, "the problem is {}", answer.text());
        Ok(())
    }
}

/// Whether the end of a request is certain although it was refused, so that the connection may go on.
fn is_delimited(reason: Reason) -> bool {
    let policy = ["path-", "method", "malformed-target", "expectation", "upgrade", "connection-header"];
    policy.iter().any(|start| reason.name().starts_with(start))
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
                wrong.push(format!("{} ({way}): {error:#}", case.what));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let streams = streams();
    for stream in &streams {
        if let Err(error) = bench.run_stream(stream) {
            wrong.push(format!("{}: {error:#}", stream.what));
        }
    }
    assert!(wrong.is_empty(), "{} of {} streams:\n{}", wrong.len(), streams.len(), wrong.join("\n"));
    // Nothing that came before may have left anything behind.
    let mut client = Client::open(&bench.world.client, format!("{HOST_V4}:8080").parse().unwrap()).unwrap();
    assert_eq!(client.get("/after").unwrap().text(), "ok");
    assert_eq!(bench.recorder.take().messages.len(), 1);
    assert_eq!(bench.agent.strange_lines(), Vec::<String>::new());
}
