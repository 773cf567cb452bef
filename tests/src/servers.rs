//! Real servers to protect: HTTP in a process of its own, TCP and UDP echo on threads inside a namespace.

use std::{
    io::{self, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::netns::Namespace;

const DEADLINE: Duration = Duration::from_secs(10);
/// How soon a server thread notices that it shall stop.
const TICK: Duration = Duration::from_millis(50);

/// Answers every GET with 200 and `portcullis demo`, over IPv4 and IPv6.
const HTTP: &str = r#"
import http.server, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"portcullis demo\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 512
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
Server(("::", int(sys.argv[1])), Handler).serve_forever()
"#;

/// A process (`python3`) that serves HTTP.
#[derive(Debug)]
pub struct HttpServer {
    child: Child,
}

impl HttpServer {
    /// Starts it and waits until it accepts connections.
    pub fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        let child = namespace
            .command("python3")
            .args(["-c", HTTP, &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting python3 as HTTP server")?;
        let mut server = Self { child };
        let deadline = Instant::now() + DEADLINE;
        while namespace.enter(|| TcpStream::connect((Ipv6Addr::LOCALHOST, port))).is_err() {
            ensure!(server.child.try_wait()?.is_none(), "the HTTP server ended at once");
            ensure!(Instant::now() < deadline, "the HTTP server does not listen on port {port}");
            thread::sleep(TICK);
        }
        Ok(server)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        // It may have ended already; waiting is what leaves no zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends back what each TCP connection or UDP datagram says, until dropped. Stands for SSH, DNS and the like.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub fn tcp(namespace: &Namespace, port: u16) -> Result<Self> {
        let listener = namespace.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?;
        listener.set_nonblocking(true)?;
        Ok(Self::run(move |stop| {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _peer)) => {
                        let stop = Arc::clone(stop);
                        thread::spawn(move || echo_stream(stream, &stop));
                    }
                    Err(_) => thread::sleep(TICK / 5),
                }
            }
        }))
    }

    pub fn udp(namespace: &Namespace, port: u16) -> Result<Self> {
        Self::udp_at(namespace, (Ipv6Addr::UNSPECIFIED, port).into())
    }

    /// On one address of several: a socket on all of them answers from the one the kernel likes best.
    pub fn udp_at(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let socket = namespace.enter(|| UdpSocket::bind(address))?;
        socket.set_read_timeout(Some(TICK))?;
        Ok(Self::run(move |stop| {
            let mut buffer = [0; 1 << 16];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                    // The peer may be gone by now, as with any server.
                    let _ = socket.send_to(&buffer[..length], peer);
                }
            }
        }))
    }

    fn run(serve: impl FnOnce(&Arc<AtomicBool>) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || serve(&stop)
        });
        Self { stop, thread: Some(thread) }
    }
}

fn echo_stream(mut stream: TcpStream, stop: &AtomicBool) {
    if stream.set_nonblocking(false).is_err() || stream.set_read_timeout(Some(TICK)).is_err() {
        return;
    }
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("an echo server panicked");
        }
    }
}

/// A long-lived TCP session with an [`Echo`], as an operator's SSH is.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
}

impl Session {
    /// Connects from `source` (port 0 for any) inside the namespace.
    pub fn open(namespace: &Namespace, source: SocketAddr, server: SocketAddr, timeout: Duration) -> Result<Self> {
        let stream = namespace.enter(|| connect(source, server, timeout)).with_context(|| format!("to {server}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        Ok(Self { stream })
    }

    /// Says something and waits for the echo.
    pub fn say(&mut self, words: &str) -> Result<()> {
        self.stream.write_all(words.as_bytes())?;
        let mut answer = vec![0; words.len()];
        self.stream.read_exact(&mut answer).context("no echo")?;
        ensure!(answer == words.as_bytes(), "another echo: {answer:?}");
        Ok(())
    }
}

/// Connects a TCP socket from a given source; call it inside a namespace.
pub fn connect(source: SocketAddr, server: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, setsockopt, socket, sockopt,
    };
    use std::os::fd::AsRawFd;

    let family = if source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(source))?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(server)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one `pollfd`, which lives through the call.
    if unsafe { libc::poll(&raw mut poll, 1, milliseconds) } == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let error = getsockopt(&fd, sockopt::SocketError)?;
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let stream = TcpStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Sends a datagram from `source` and waits for one in return; call it inside a namespace.
pub fn ask_udp(source: SocketAddr, server: SocketAddr, words: &[u8], timeout: Duration) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(source)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send_to(words, server)?;
    let mut buffer = vec![0; 1 << 16];
    let (length, _peer) = socket.recv_from(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::netns::{HOST_V4, HOST_V6, World, client_v4, client_v6};

    #[test]
    fn servers_answer_both_families() {
        let world = World::new().unwrap();
        let _http = HttpServer::start(&world.host, 80).unwrap();
        let _ssh = Echo::tcp(&world.host, 22).unwrap();
        let _dns = Echo::udp(&world.host, 5000).unwrap();
        let second = Duration::from_secs(1);
        for (host, client) in [(HOST_V4, client_v4(3)), (HOST_V6, client_v6(3))] {
            let host: IpAddr = host.parse().unwrap();
            let url = format!("http://{}/", SocketAddr::new(host, 80));
            let page = world.client.run("curl", &["-sS", "-m2", "--interface", &client.to_string(), &url]).unwrap();
            assert_eq!(page, "portcullis demo\n");
            let source = SocketAddr::new(client, 0);
            let mut session = Session::open(&world.client, source, SocketAddr::new(host, 22), second).unwrap();
            session.say("who").unwrap();
            session.say("whoami").unwrap();
            let answer = world.client.enter(|| ask_udp(source, SocketAddr::new(host, 5000), b"ping", second));
            assert_eq!(answer.unwrap(), b"ping");
            let refused = Session::open(&world.client, source, SocketAddr::new(host, 23), second);
            assert!(refused.is_err());
        }
    }
}
