//! An upstream that keeps every byte it receives, and answers what it can delimit without doubt.

use std::{
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Server,
    message::{Message, Parsed, parse},
};
use crate::netns::Namespace;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";
const OK_TO_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n";

/// Records until dropped. It answers each whole request with 200 and `ok`, and closes a connection that has a fault.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    _server: Server,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    connections: Vec<Connection>,
    messages: Vec<Message>,
    faults: Vec<String>,
}

#[derive(Debug, Default)]
struct Connection {
    bytes: Vec<u8>,
    /// Bytes that belong to whole requests.
    whole: usize,
    closed: bool,
    /// Its unfinished request was told of.
    told: bool,
}

/// What came since the last look.
#[derive(Debug, Default)]
pub struct Received {
    pub messages: Vec<Message>,
    /// What no gateway may send, in words.
    pub faults: Vec<String>,
    /// Connections that got an unfinished request since then, open or closed.
    pub partial: usize,
}

impl Recorder {
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let recording = Arc::clone(&shared);
        let server = Server::start(namespace, address, move |stream, _peer| record(stream, Arc::clone(&recording)))?;
        Ok(Self { shared, _server: server })
    }

    /// Every byte of every connection so far, in the order they were opened.
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        self.state().connections.iter().map(|connection| connection.bytes.clone()).collect()
    }

    /// Takes what came since the last call.
    pub fn take(&self) -> Received {
        let mut state = self.state();
        let mut partial = 0;
        for connection in &mut state.connections {
            if connection.whole < connection.bytes.len() && !std::mem::replace(&mut connection.told, true) {
                partial += 1;
            }
        }
        Received { messages: std::mem::take(&mut state.messages), faults: std::mem::take(&mut state.faults), partial }
    }

    /// Waits until no connection is in the middle of a request, or those that are have been closed. False if that does not
    /// happen in time.
    pub fn settle(&self, timeout: Duration) -> bool {
        let unsettled = |state: &mut State| {
            state.connections.iter().any(|connection| !connection.closed && connection.whole < connection.bytes.len())
        };
        let waited = self.shared.changed.wait_timeout_while(self.state(), timeout, unsettled);
        !waited.expect("the recorder does not panic").1.timed_out()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the recorder does not panic")
    }
}

async fn record(mut stream: TcpStream, shared: Arc<Shared>) {
    let number = {
        let mut state = shared.state();
        state.connections.push(Connection::default());
        state.connections.len() - 1
    };
    let mut buffer = vec![0; 1 << 16];
    let mut continued = false;
    loop {
        let Ok(length @ 1..) = stream.read(&mut buffer).await else { break };
        let answers = shared.take_in(number, &buffer[..length], &mut continued);
        shared.changed.notify_all();
        let Some(answers) = answers else { break };
        if stream.write_all(&answers).await.is_err() {
            break;
        }
    }
    shared.state().connections[number].closed = true;
    shared.changed.notify_all();
}

impl Shared {
    /// The answers to what is whole now; `None` if the connection has a fault.
    fn take_in(&self, number: usize, bytes: &[u8], continued: &mut bool) -> Option<Vec<u8>> {
        let mut state = self.state();
        let State { connections, messages, faults } = &mut *state;
        let connection = &mut connections[number];
        connection.bytes.extend(bytes);
        let mut answers = Vec::new();
        while connection.whole < connection.bytes.len() {
            match parse(&connection.bytes[connection.whole..]) {
                Ok(Parsed::Whole(message, taken)) => {
                    answers.extend(if message.method == "HEAD" { OK_TO_HEAD } else { OK });
                    messages.push(message);
                    connection.whole += taken;
                    *continued = false;
                }
                Ok(Parsed::Partial(message)) => {
                    let expects = message.is_some_and(|message| message.header("expect").is_some());
                    if expects && !std::mem::replace(continued, true) {
                        answers.extend(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    break;
                }
                Err(error) => {
                    faults.push(format!("{error:#}"));
                    return None;
                }
            }
        }
        Some(answers)
    }
}
