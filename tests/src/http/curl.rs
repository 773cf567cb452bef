//! curl as a client: what most people try first.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};

use super::raw::Response;
use crate::netns::Namespace;

/// The HTTP that curl speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    One,
    /// By ALPN over TLS.
    Two,
    /// Without TLS, and without asking.
    TwoByPriorKnowledge,
}

/// A request with curl: from the namespace, with more arguments as curl takes them. The answer's `http` says what was
/// spoken: `1.1`, `2`.
#[derive(Debug)]
pub struct Answer {
    pub response: Response,
    pub http: String,
}

pub fn curl(namespace: &Namespace, http: Http, source: Option<IpAddr>, more: &[&str]) -> Result<Answer> {
    let mut command = namespace.command("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--include", "--insecure"]);
    // Behind the answer, so that the body stays as it is.
    command.args(["--write-out", "\n%{http_version} %{http_code}"]);
    command.arg(match http {
        Http::One => "--http1.1",
        Http::Two => "--http2",
        Http::TwoByPriorKnowledge => "--http2-prior-knowledge",
    });
    if let Some(source) = source {
        command.args(["--interface", &source.to_string()]);
    }
    let output = command.args(more).output().context("starting curl")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "curl {}: {}: {said}", more.join(" "), output.status);
    parse(&output.stdout)
}

fn parse(output: &[u8]) -> Result<Answer> {
    let end = output.iter().rposition(|byte| *byte == b'\n').context("no last line")?;
    let last = std::str::from_utf8(&output[end + 1..])?;
    let (http, status) = last.split_once(' ').context("no last line")?;
    let status: u16 = status.parse()?;
    let mut rest = &output[..end];
    loop {
        let end = super::message::find(rest, b"\r\n\r\n").context("no head")?;
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 4..];
        let mut lines = head.split("\r\n");
        let code = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse::<u16>()?;
        // Interim answers come first.
        if code == status {
            let fields = lines.filter_map(|line| line.split_once(':'));
            let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
            return Ok(Answer { response: Response { status, fields, body: rest.to_vec() }, http: http.to_owned() });
        }
    }
}
