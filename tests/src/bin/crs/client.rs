//! One request on a connection of its own, and the answer.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use ::tests::{
    http::raw::{Client, Response},
    netns::Namespace,
};
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;

use crate::request::{Message, Request};

/// Where clients' ports begin: below those that the kernel gives away.
const FIRST_PORT: u16 = 10_000;
/// Longest wait for an answer. To a body that never comes there is none, as some stages expect.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connections to the gateway, no two of them from the same port.
pub(crate) struct Clients {
    namespace: Namespace,
    gateway: SocketAddr,
    port: AtomicU16,
}

impl Clients {
    pub(crate) fn new(namespace: &Namespace, gateway: SocketAddr) -> Self {
        Self { namespace: namespace.clone(), gateway, port: AtomicU16::new(FIRST_PORT) }
    }

    /// Gives the port, by which its event is known, and the answer.
    pub(crate) fn send(&self, request: &Request, http2: bool) -> Result<(u16, Result<Response>)> {
        let port = self.port.fetch_add(1, Ordering::Relaxed);
        let source = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let client = Client::open_at(&self.namespace, source, self.gateway)?;
        let answer = match request {
            Request::Built(message) if http2 => by_http2(client, message),
            _ => by_http1(client, request),
        };
        Ok((port, answer))
    }
}

fn by_http1(mut client: Client, request: &Request) -> Result<Response> {
    client.patience(PATIENCE)?;
    client.send(&request.bytes())?;
    client.response(request.is_head())?.context("closed without an answer")
}

fn by_http2(client: Client, message: &Message) -> Result<Response> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exchange = async {
        let stream = client.into_stream();
        stream.set_nonblocking(true)?;
        let (sender, connection) = h2::client::handshake(tokio::net::TcpStream::from_std(stream)?).await?;
        tokio::spawn(connection);
        let mut sender = sender.ready().await?;
        let request = message.to_http().context("not to be said in HTTP/2")?;
        let (answer, mut body) = sender.send_request(request, message.body.is_empty())?;
        if !message.body.is_empty() {
            body.send_data(Bytes::copy_from_slice(&message.body), true)?;
        }
        let (head, mut body) = answer.await?.into_parts();
        let fields = head.headers.iter();
        let fields = fields.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()));
        let mut response = Response { status: head.status.as_u16(), fields: fields.collect(), body: Vec::new() };
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            response.body.extend(data);
        }
        Ok(response)
    };
    runtime.block_on(async {
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(answer) => answer,
            Err(_) => bail!("no answer in time"),
        }
    })
}
