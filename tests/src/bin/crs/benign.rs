//! The rules enforced: how many stages of the suite they refuse, and whether what good clients send passes.
//!
//! The good clients are `tests/crs/benign/*.txt`. Lines that begin with `>` are the headers of what follows. A request is
//! `METHOD target`, and where it has a body its kind and what it holds: `form`, `json` and `xml` as it is, `multipart` the name
//! of a file that comes with two fields, `grpc` a message in hexadecimal, which is sent by HTTP/2.

use ::tests::{agent::Event, http::raw::Response};
use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

use crate::{
    gateway::Gateway,
    judge,
    request::{Message, Request},
    suite::{Expected, Stage},
};

const CLIENTS: [(&str, &str); 4] = [
    ("browser", include_str!("../../../crs/benign/browser.txt")),
    ("mobile", include_str!("../../../crs/benign/mobile.txt")),
    ("cli", include_str!("../../../crs/benign/cli.txt")),
    ("grpc", include_str!("../../../crs/benign/grpc.txt")),
];
/// What a rule that blocks answers with.
const REFUSED: u16 = 403;

#[derive(Debug, Serialize)]
struct Report {
    stages: usize,
    /// Refused by a rule.
    blocked: usize,
    /// Refused by the gateway itself, before rules could.
    refused: usize,
    benign: Benign,
    resident_mb: u64,
}

#[derive(Debug, Serialize)]
struct Benign {
    sent: usize,
    passed: usize,
}

/// Whether all good requests passed.
pub(crate) fn run(gateway: &Gateway, stages: &[Stage], http2: bool, json: bool) -> Result<bool> {
    let all: Vec<&Stage> = stages.iter().collect();
    let (mut blocked, mut refused) = (0, 0);
    gateway.send(
        &all,
        |_| http2,
        |_, answer, event| {
            let by_rule = event.is_some_and(|event| event.reason == "content-rule" || event.reason == "answer-rule");
            blocked += usize::from(by_rule && answer.as_ref().is_ok_and(|answer| answer.status == REFUSED));
            refused += usize::from(!by_rule && event.is_some_and(|event| event.action == "refuse"));
            Ok(())
        },
    )?;
    let good = requests()?;
    let all: Vec<&Stage> = good.iter().collect();
    let mut benign = Benign { sent: all.len(), passed: 0 };
    gateway.send(
        &all,
        |stage| http2 || is_grpc(stage),
        |stage, answer, event| {
            let why = complaints(stage, answer, event)?;
            if why.is_empty() {
                benign.passed += 1;
            } else {
                eprintln!("{}: {}", stage.title, why.join("; "));
            }
            Ok(())
        },
    )?;
    let report = Report { stages: stages.len(), blocked, refused, benign, resident_mb: gateway.resident_mb()? };
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        let Benign { sent, passed } = &report.benign;
        println!(
            "{} stages: {blocked} blocked by rules, {refused} refused by the gateway; {passed} of {sent} benign requests passed",
            report.stages
        );
        println!("the agent holds {} MB", report.resident_mb);
    }
    Ok(report.benign.passed == report.benign.sent)
}

fn complaints(stage: &Stage, answer: &Result<Response>, event: Option<&Event>) -> Result<Vec<String>> {
    let mut why = judge::judge(&stage.expected, answer, event)?;
    if let Some(event) = event
        && event.action != "pass"
        && why.is_empty()
    {
        why.push(judge::told(event));
    }
    Ok(why)
}

fn is_grpc(stage: &Stage) -> bool {
    let Request::Built(message) = &stage.request else { return false };
    message.header("Content-Type") == Some("application/grpc")
}

fn requests() -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    for (client, text) in CLIENTS {
        let mut headers = Vec::new();
        let mut complete = false;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(header) = line.strip_prefix("> ") {
                // The first header after requests begins a new client.
                if std::mem::take(&mut complete) {
                    headers.clear();
                }
                let (name, value) = header.split_once(": ").with_context(|| line.to_owned())?;
                headers.push((name.to_owned(), value.to_owned()));
            } else {
                complete = true;
                let message = message(line, &headers).with_context(|| line.to_owned())?;
                let expected = Expected { status: vec![200], ..Expected::default() };
                let title = format!("{client}: {} {}", message.method, message.target);
                stages.push(Stage { title, request: Request::Built(message), expected });
            }
        }
    }
    Ok(stages)
}

fn message(line: &str, headers: &[(String, String)]) -> Result<Message> {
    let mut words = line.splitn(4, ' ');
    let mut word = || words.next();
    let (method, target) = word().zip(word()).context("a request is METHOD target")?;
    let mut fields = headers.to_vec();
    let mut body = Vec::new();
    if let Some(kind) = word() {
        let data = word().unwrap_or_default();
        let media = match kind {
            "form" => "application/x-www-form-urlencoded",
            "json" => "application/json",
            "xml" => "text/xml; charset=utf-8",
            "multipart" => "multipart/form-data; boundary=----geckoformboundary8a1f2c",
            "grpc" => "application/grpc",
            _ => bail!("{kind} is no kind of body"),
        };
        body = match kind {
            "multipart" => parts(data),
            "grpc" => framed(data)?,
            _ => data.into(),
        };
        fields.push(("Content-Type".into(), media.into()));
        if kind != "grpc" {
            fields.push(("Content-Length".into(), body.len().to_string()));
        }
    }
    Ok(Message { method: method.into(), target: target.into(), version: "HTTP/1.1".into(), fields, body })
}

/// Two fields and a file of this name, as a browser sends them.
fn parts(file: &str) -> Vec<u8> {
    let field = |name: &str, value: &str| {
        format!("------geckoformboundary8a1f2c\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let file = format!(
        "------geckoformboundary8a1f2c\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{file}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\nThe first line of a file.\r\n"
    );
    let all = [&field("title", "November")[..], &field("public", "no"), &file, "------geckoformboundary8a1f2c--\r\n"];
    all.concat().into()
}

/// A message as gRPC frames it: not compressed, its length, itself.
fn framed(message: &str) -> Result<Vec<u8>> {
    ensure!(message.len().is_multiple_of(2), "half a byte");
    let bytes = (0..message.len()).step_by(2).map(|at| Ok(u8::from_str_radix(&message[at..at + 2], 16)?));
    let bytes = bytes.collect::<Result<Vec<u8>>>()?;
    let length = u32::try_from(bytes.len())?.to_be_bytes();
    Ok([&[0][..], &length, &bytes].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_200_of_four_kinds_of_clients() {
        let stages = requests().unwrap();
        assert_eq!(stages.len(), 200);
        assert_eq!(stages.iter().filter(|stage| is_grpc(stage)).count(), 40);
        let mut requests: Vec<Vec<u8>> = stages.iter().map(|stage| stage.request.bytes()).collect();
        requests.sort();
        requests.dedup();
        assert_eq!(requests.len(), 200, "one of them is there twice");
    }

    #[test]
    fn a_line_is_a_request() {
        let headers = [("Host".to_owned(), "x".to_owned())];
        let bytes = Request::Built(message(r#"POST /a json {"b": 1}"#, &headers).unwrap()).bytes();
        let expected =
            "POST /a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{\"b\": 1}";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        assert_eq!(message("POST /a grpc 0a01ff", &[]).unwrap().body, b"\0\0\0\0\x03\x0a\x01\xff");
        assert!(message("POST /a yaml x", &[]).is_err());
    }
}
