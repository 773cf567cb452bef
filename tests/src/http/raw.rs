//! A client that says exactly what it is told to, byte for byte, and reads what comes back.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{PATIENCE, message::find};
use crate::{netns::Namespace, servers::connect};

/// A TCP connection from a namespace.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    ended: bool,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| &value[..])
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("the body is {:?}", self.text()))
    }
}

impl Client {
    /// Connects from any address of the namespace.
    pub fn open(namespace: &Namespace, server: SocketAddr) -> Result<Self> {
        let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        Self::open_from(namespace, any, server)
    }

    pub fn open_from(namespace: &Namespace, source: IpAddr, server: SocketAddr) -> Result<Self> {
        Self::open_at(namespace, SocketAddr::new(source, 0), server)
    }

    /// As [`Client::open_from`], from a port of one's own choice.
    pub fn open_at(namespace: &Namespace, source: SocketAddr, server: SocketAddr) -> Result<Self> {
        Self::try_open_at(namespace, source, server, PATIENCE).with_context(|| format!("{source} to {server}"))
    }

    /// As [`Client::open_from`], with the kernel's own error.
    pub fn try_open(ns: &Namespace, source: IpAddr, server: SocketAddr, timeout: Duration) -> io::Result<Self> {
        Self::try_open_at(ns, SocketAddr::new(source, 0), server, timeout)
    }

    fn try_open_at(ns: &Namespace, source: SocketAddr, server: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = ns.enter(|| connect(source, server, timeout))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: Vec::new(), ended: false })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    pub fn patience(&self, timeout: Duration) -> Result<()> {
        Ok(self.stream.set_read_timeout(Some(timeout))?)
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// A GET on this connection.
    pub fn get(&mut self, path: &str) -> Result<Response> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: api.test\r\n\r\n").as_bytes())?;
        self.response(false)?.context("closed without an answer")
    }

    /// The next final answer; `None` if the connection was closed instead. `bodiless`: it answers a HEAD.
    pub fn response(&mut self, bodiless: bool) -> Result<Option<Response>> {
        loop {
            let Some(response) = self.any_response(bodiless)? else { return Ok(None) };
            if response.status >= 200 || response.status == 101 {
                return Ok(Some(response));
            }
        }
    }

    /// The next answer, interim ones included.
    pub fn any_response(&mut self, bodiless: bool) -> Result<Option<Response>> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            if !self.more()? {
                ensure!(self.buffer.is_empty(), "closed within a head: {}", self.buffer.escape_ascii());
                return Ok(None);
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status =
            line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let status: u16 = status.with_context(|| format!("no status line: {line}"))?;
        let fields = lines
            .map(|line| {
                let (name, value) = line.split_once(':').with_context(|| format!("no header: {line}"))?;
                Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut response = Response { status, fields, body: Vec::new() };
        if !bodiless && status >= 200 && status != 204 && status != 304 {
            response.body = self.body(&response)?;
        }
        Ok(Some(response))
    }

    fn body(&mut self, response: &Response) -> Result<Vec<u8>> {
        if response.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            let mut body = Vec::new();
            loop {
                let line = self.line()?;
                let size =
                    usize::from_str_radix(line.trim(), 16).with_context(|| format!("the size of a chunk: {line}"))?;
                if size == 0 {
                    while !self.line()?.is_empty() {}
                    return Ok(body);
                }
                body.extend(self.exactly(size)?);
                ensure!(self.line()?.is_empty(), "a chunk does not end");
            }
        }
        if let Some(length) = response.header("content-length") {
            return self.exactly(length.parse()?);
        }
        while self.more()? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            ensure!(self.more()?, "closed within a line");
        }
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            ensure!(self.more()?, "closed after {} of {length} bytes", self.buffer.len());
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Reads something; false at the end, be it orderly or by reset.
    fn more(&mut self) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let mut buffer = vec![0; 1 << 16];
        // A child's end, of another test, is a signal; with a timeout set, the kernel does not begin anew.
        let read = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(0) => self.ended = true,
            Ok(length) => self.buffer.extend(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.ended = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => bail!("no answer in time"),
            Err(error) => return Err(error.into()),
        }
        Ok(!self.ended)
    }

    /// Reads until the connection is closed, and gives all that came. An error if it stays open.
    pub fn rest(&mut self, timeout: Duration) -> Result<Vec<u8>> {
        self.patience(timeout)?;
        while self.more()? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Reads frames of HTTP/2 until this stream ends, by its own end, a reset, or that of the connection.
    pub fn until_stream_ends(&mut self, stream: u32) -> Result<()> {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const RESET: u8 = 3;
        const GOAWAY: u8 = 7;
        const END_STREAM: u8 = 1;
        loop {
            while self.buffer.len() < 9 {
                if !self.more()? {
                    return Ok(());
                }
            }
            let head = self.exactly(9)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            self.exactly(length)?;
            let ends = match head[3] {
                DATA | HEADERS => id == stream && head[4] & END_STREAM != 0,
                RESET => id == stream,
                kind => kind == GOAWAY,
            };
            if ends {
                return Ok(());
            }
        }
    }

    /// Whether the other side closes it in time.
    pub fn is_closed(&mut self, timeout: Duration) -> bool {
        self.rest(timeout).is_ok()
    }
}
