//! HTTP from end to end: upstreams to protect, and clients to try the gateway with.
//!
//! In flow bytes and requests, out come answers as the client got them and requests as the upstream got them. Upstreams run
//! on threads of the test inside a namespace; clients run inside one for a single errand. Nothing here repairs what it
//! sends or gets: what a client library would not say is said by [`raw`].

pub mod app;
pub mod body;
pub mod curl;
pub mod grpc;
pub mod http2;
pub mod load;
pub mod message;
pub mod raw;
pub mod recorder;
pub mod tls;
pub mod websocket;

use std::{
    future::Future,
    net::{SocketAddr, TcpListener},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpStream, sync::oneshot};

use crate::netns::Namespace;

/// Longest wait of a client for anything, unless it says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A server on a thread in a namespace, until dropped; its connections end with it.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `address` (of both families, if it is `[::]`), and calls `serve` with each connection.
    pub fn start<F>(
        namespace: &Namespace,
        address: SocketAddr,
        serve: impl Fn(TcpStream, SocketAddr) -> F + Send + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = namespace.enter(|| listen(address)).with_context(|| format!("listening on {address}"))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread = namespace.spawn(move || {
            runtime().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("it does not block");
                let accepting = async {
                    loop {
                        // Whoever was gone before we looked is nobody's loss.
                        if let Ok((stream, peer)) = listener.accept().await {
                            // A connection that cannot do this is closed already.
                            let _ = stream.set_nodelay(true);
                            tokio::spawn(serve(stream, peer));
                        }
                    }
                };
                tokio::select! {
                    () = accepting => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("a server panicked");
        }
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Runs a client inside a namespace to its end, on a runtime of its own.
pub fn within<T: Send>(namespace: &Namespace, client: impl Future<Output = T> + Send) -> T {
    namespace.enter(|| runtime().block_on(client))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime needs a few descriptors")
}

/// Connects from `source`, or from wherever the kernel likes. For use inside [`within`].
pub async fn connect(source: Option<std::net::IpAddr>, server: SocketAddr) -> Result<TcpStream> {
    let socket = if server.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if let Some(source) = source {
        socket.bind((source, 0).into())?;
    }
    let connecting = tokio::time::timeout(PATIENCE, socket.connect(server)).await;
    let stream = connecting.context("no answer to SYN")?.with_context(|| format!("connecting to {server}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests;
