//! An application, an agent, and clients that ask who answers.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use firewall_common::steer::SteerCounts;
use firewall_user::steering::{self, Flags, Steering};
use tests::netns::{Namespace, World, unique_name};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const OPEN: Flags = Flags { closed: false, local_clients: false };
pub(crate) const CLOSED: Flags = Flags { closed: true, local_clients: false };
pub(crate) const LOCAL: Flags = Flags { closed: false, local_clients: true };

/// A world, and pins of an instance of its own, which go with it.
pub(crate) struct Place {
    pub(crate) world: World,
    pub(crate) pins: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let world = World::new().unwrap();
        Self { world, pins: Path::new("/sys/fs/bpf").join(unique_name()) }
    }

    /// Steering on the host.
    pub(crate) fn open(&self) -> Steering {
        self.open_in(&self.world.host)
    }

    pub(crate) fn open_in(&self, namespace: &Namespace) -> Steering {
        Steering::open(&self.pins, Some(&path(namespace))).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What the client hears at an address of the host.
    pub(crate) fn ask(&self, address: impl ToAddress) -> io::Result<Answer> {
        ask(&self.world.client, address)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        steering::remove_all(&self.pins).unwrap();
        let _gone = std::fs::remove_dir(&self.pins);
    }
}

pub(crate) fn path(namespace: &Namespace) -> PathBuf {
    Path::new("/run/netns").join(namespace.name())
}

pub(crate) trait ToAddress {
    fn to_address(self) -> SocketAddr;
}

impl ToAddress for SocketAddr {
    fn to_address(self) -> SocketAddr {
        self
    }
}

impl ToAddress for (&str, u16) {
    fn to_address(self) -> SocketAddr {
        SocketAddr::new(self.0.parse().unwrap(), self.1)
    }
}

/// What a server says of a connection: its name, whom it sees, and where it was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) name: String,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    /// What the application said that the server asked.
    pub(crate) behind: Option<Box<Answer>>,
}

impl Answer {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let mut next = || {
            let (name, peer, local) = (words.next()?, words.next()?, words.next()?);
            Some(Self { name: name.into(), peer: peer.parse().ok()?, local: local.parse().ok()?, behind: None })
        };
        let mut answer = next()?;
        answer.behind = next().map(Box::new);
        Some(answer)
    }

    fn of(name: &str, stream: &TcpStream) -> io::Result<Self> {
        let (peer, local) = (canonical(stream.peer_addr()?), canonical(stream.local_addr()?));
        Ok(Self { name: name.to_owned(), peer, local, behind: None })
    }

    fn line(&self) -> String {
        let mut line = format!("{} {} {}", self.name, self.peer, self.local);
        if let Some(behind) = &self.behind {
            let _ = write!(line, " {}", behind.line());
        }
        line
    }
}

/// An IPv4-mapped address as what it stands for; others keep their scope.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, address.port())),
        IpAddr::V6(_) => address,
    }
}

/// Connects from the namespace, and hears who answers.
pub(crate) fn ask(from: &Namespace, address: impl ToAddress) -> io::Result<Answer> {
    Ok(Client::connect(from, address)?.answer)
}

/// A connection that was answered and is open still.
pub(crate) struct Client {
    stream: TcpStream,
    pub(crate) answer: Answer,
}

impl Client {
    pub(crate) fn connect(from: &Namespace, address: impl ToAddress) -> io::Result<Self> {
        let address = address.to_address();
        let stream = from.enter(|| TcpStream::connect_timeout(&address, 3 * SECOND))?;
        stream.set_read_timeout(Some(5 * SECOND))?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        let answer = Answer::parse(&line).ok_or_else(|| io::Error::other(format!("{line:?} is no answer")))?;
        Ok(Self { stream, answer })
    }

    /// Whether what it says comes back.
    pub(crate) fn is_alive(&mut self) -> bool {
        let mut echo = [0];
        self.stream.write_all(b"x").and_then(|()| self.stream.read_exact(&mut echo)).is_ok()
    }
}

type Respond = dyn Fn(&TcpStream) -> io::Result<Option<Answer>> + Send + Sync;

/// A server that names itself to all who connect, and echoes then. Dropped, it accepts what waits, and listens no more;
/// connections go on.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<TcpListener>>,
    accepted: Arc<AtomicUsize>,
}

impl Server {
    /// The application at these addresses of the namespace: `[::]` is both families.
    pub(crate) fn app(namespace: &Namespace, address: impl ToAddress) -> Self {
        let address = address.to_address();
        let listener =
            namespace.enter(|| TcpListener::bind(address)).unwrap_or_else(|error| panic!("{address}: {error}"));
        Self::on("app", listener, Box::new(|_| Ok(None)))
    }

    fn on(name: &'static str, listener: TcpListener, behind: Box<Respond>) -> Self {
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let behind: Arc<Respond> = behind.into();
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&accepted));
        listener.set_nonblocking(false).unwrap();
        // It holds for accepting, too.
        socket2::SockRef::from(&listener).set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let thread = thread::spawn(move || {
            loop {
                let stopping = stopped.load(Ordering::Relaxed);
                let stream = match listener.accept() {
                    Ok((stream, _peer)) => stream,
                    // Nothing waits any more.
                    Err(_) if stopping => break,
                    Err(_) => continue,
                };
                counted.fetch_add(1, Ordering::Relaxed);
                let behind = Arc::clone(&behind);
                thread::spawn(move || serve(name, &stream, &*behind));
            }
            listener
        });
        Self { stop, thread: Some(thread), accepted }
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Accepts no more, but keeps the socket: as a process that hangs.
    pub(crate) fn hang(mut self) -> TcpListener {
        self.end().unwrap()
    }

    fn end(&mut self) -> Option<TcpListener> {
        self.stop.store(true, Ordering::Relaxed);
        Some(self.thread.take()?.join().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end());
    }
}

fn serve(name: &str, stream: &TcpStream, behind: &Respond) -> io::Result<()> {
    stream.set_read_timeout(None)?;
    let answer = Answer { behind: behind(stream)?.map(Box::new), ..Answer::of(name, stream)? };
    let (mut reader, mut writer) = (stream, stream);
    writeln!(writer, "{}", answer.line())?;
    io::copy(&mut reader, &mut writer).map(drop)
}

/// An agent: it accepts what is steered, and beats. Dropped, it is as dead as after `kill -9`.
pub(crate) struct Agent {
    pub(crate) steering: Arc<Steering>,
    pub(crate) server: Server,
    pub(crate) port: u16,
    heart: Heart,
}

impl Agent {
    /// One that answers itself.
    pub(crate) fn start(steering: Steering, ports: &[(u16, Flags)]) -> Self {
        Self::named("agent", steering, ports)
    }

    pub(crate) fn named(name: &'static str, steering: Steering, ports: &[(u16, Flags)]) -> Self {
        Self::with(name, steering, ports, |_| Box::new(|_| Ok(None)))
    }

    /// One that asks the application first.
    pub(crate) fn proxy(steering: Steering, ports: &[(u16, Flags)]) -> Self {
        let local_clients = ports.iter().any(|(_, flags)| flags.local_clients);
        Self::with("agent", steering, ports, |steering| {
            Box::new(move |stream| {
                if steering.is_probe(stream.peer_addr()?) {
                    return Ok(None);
                }
                upstream(&steering, stream.local_addr()?, local_clients).map(Some)
            })
        })
    }

    fn with(
        name: &'static str,
        steering: Steering,
        ports: &[(u16, Flags)],
        behind: impl FnOnce(Arc<Steering>) -> Box<Respond>,
    ) -> Self {
        let steering = Arc::new(steering);
        let listener = steering.listener().unwrap();
        let port = listener.local_addr().unwrap().port();
        steering.set_listener(&listener).unwrap_or_else(|error| panic!("{error}"));
        steering.set_ports(ports).unwrap_or_else(|error| panic!("{error}"));
        let server = Server::on(name, listener, behind(Arc::clone(&steering)));
        let heart = Heart::start(&steering);
        Self { steering, server, port, heart }
    }

    pub(crate) fn counts(&self, port: u16) -> SteerCounts {
        self.steering.counts().unwrap()[&port]
    }

    /// It hangs: it neither beats nor accepts, but its socket is there.
    pub(crate) fn hang(self) -> (Arc<Steering>, TcpListener) {
        drop(self.heart);
        (self.steering, self.server.hang())
    }
}

/// Asks the application where the client wanted to go.
fn upstream(steering: &Steering, destination: SocketAddr, local_clients: bool) -> io::Result<Answer> {
    let (stream, exemption) = steering.upstream_socket(destination, local_clients)?;
    assert_eq!(exemption.is_some(), local_clients);
    let socket = socket2::Socket::from(stream);
    socket.connect_timeout(&canonical(destination).into(), 2 * SECOND)?;
    drop(exemption);
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(2 * SECOND))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    Answer::parse(&line).ok_or_else(|| io::Error::other(format!("{line:?} is no answer")))
}

struct Heart {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Heart {
    fn start(steering: &Arc<Steering>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, steering) = (Arc::clone(&stop), Arc::clone(steering));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                steering.beat();
                thread::sleep(Duration::from_millis(50));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn wait(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
    began.elapsed()
}

#[track_caller]
pub(crate) fn refused(answer: io::Result<Answer>) {
    assert_eq!(answer.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionRefused));
}

/// Names of those who answered, taken down by several threads.
#[derive(Clone, Default)]
pub(crate) struct Names(Arc<Mutex<Vec<String>>>);

impl Names {
    pub(crate) fn add(&self, name: String) {
        self.0.lock().unwrap().push(name);
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
