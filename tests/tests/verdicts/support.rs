//! What the tables are written in: two families of addresses, and a bench that judges a packet and asserts everything that
//! came of it.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use firewall_common::{
    counter::NO_RULE,
    event::{Event, EventAction},
    packet,
    verdict::DropReason,
};
use firewall_user::agent::bans::now;
use tests::{
    frame::{Frame, ToIp as _},
    loaded::{Counters, Loaded, Verdict},
};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// Addresses of one family, and what differs with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) client: &'static str,
    pub(crate) host: &'static str,
    /// Bytes of its IP header.
    pub(crate) header: u32,
    pub(crate) icmp: u8,
    pub(crate) echo_request: u8,
}

pub(crate) const V4: Family =
    Family { client: "198.51.100.7", host: "192.0.2.1", header: 20, icmp: 1, echo_request: 8 };
pub(crate) const V6: Family =
    Family { client: "2001:db8:1::7", host: "2001:db8::1", header: 40, icmp: 58, echo_request: 128 };
pub(crate) const FAMILIES: [Family; 2] = [V4, V6];

impl Family {
    /// A packet from the client to the host.
    pub(crate) fn frame(&self) -> Frame {
        Frame::ip(self.client, self.host)
    }

    /// A packet to the host.
    pub(crate) fn from(&self, source: &str) -> Frame {
        Frame::ip(source, self.host)
    }

    /// How an event shows a packet from the client with `length` bytes behind its IP header.
    pub(crate) fn seen(&self, protocol: u8, ports: (u16, u16), length: u32) -> Seen {
        self.seen_from(self.client, protocol, ports, length)
    }

    pub(crate) fn seen_from(&self, source: &str, protocol: u8, ports: (u16, u16), length: u32) -> Seen {
        Seen {
            // An IPv4-mapped address is shown as what it stands for.
            source: source.to_ip().to_canonical(),
            destination: self.host.to_ip(),
            ports,
            protocol,
            length: self.header + length,
            count: 1,
        }
    }
}

/// How an event shows a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) ports: (u16, u16),
    pub(crate) protocol: u8,
    /// Of the IP packet; of the frame, if that was not read.
    pub(crate) length: u32,
    pub(crate) count: u32,
}

impl Seen {
    /// A frame of which no address was read.
    pub(crate) fn nothing(length: u32) -> Self {
        let none = IpAddr::from([0; 16]);
        Self { source: none, destination: none, ports: (0, 0), protocol: 0, length, count: 1 }
    }
}

/// An event, but for its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) action: EventAction,
    pub(crate) reason: DropReason,
    /// As `list/NAME`, `rate/NAME` or `size/SERVICES`.
    pub(crate) rule: Option<String>,
    pub(crate) seen: Seen,
    pub(crate) generation: u32,
}

impl Told {
    pub(crate) fn new(action: EventAction, reason: DropReason, rule: Option<&str>, seen: Seen) -> Self {
        Self { action, reason, rule: rule.map(str::to_owned), seen, generation: 1 }
    }

    pub(crate) fn read(event: &Event, loaded: &Loaded) -> Self {
        let name = || loaded.compiled.slots.name_of(event.rule).expect("an event of a rule that exists").to_owned();
        Self {
            action: EventAction::from_number(event.action).expect("a known action"),
            reason: DropReason::from_number(event.reason).expect("a known reason"),
            rule: (event.rule != NO_RULE).then(name),
            seen: Seen {
                source: event.source.into(),
                destination: event.destination.into(),
                ports: (event.source_port, event.destination_port),
                protocol: event.protocol,
                length: event.length,
                count: event.count,
            },
            generation: event.generation,
        }
    }
}

/// What can be put on the bench.
pub(crate) trait Bytes {
    fn bytes(&self) -> Vec<u8>;
}

impl Bytes for Frame {
    fn bytes(&self) -> Vec<u8> {
        self.build()
    }
}

impl Bytes for Vec<u8> {
    fn bytes(&self) -> Vec<u8> {
        self.clone()
    }
}

/// A loaded policy. Each packet is judged as if nothing had been reported before, so that its event is sent.
pub(crate) struct Bench {
    pub(crate) loaded: Loaded,
    before: Counters,
}

impl Bench {
    pub(crate) fn new(policy: &str) -> Self {
        let loaded = Loaded::new(policy).unwrap_or_else(|error| panic!("{error:#}\nin:\n{policy}"));
        Self::of(loaded)
    }

    pub(crate) fn of(loaded: Loaded) -> Self {
        let before = loaded.counters().expect("counters can be read");
        Self { loaded, before }
    }

    /// Verdict, counters that changed, and events.
    pub(crate) fn run(&mut self, frame: &impl Bytes) -> (Verdict, Vec<(String, u64)>, Vec<Told>) {
        self.loaded.forget_events().expect("the sampler can be reset");
        let verdict = self.loaded.judge(&frame.bytes()).expect("the kernel runs the program");
        let (counted, told) = self.since();
        (verdict, counted, told)
    }

    /// Counters that changed and events since the last packet.
    pub(crate) fn since(&mut self) -> (Vec<(String, u64)>, Vec<Told>) {
        let after = self.loaded.counters().expect("counters can be read");
        let mut counted = after.since(&self.before, &self.loaded);
        counted.sort();
        self.before = after;
        let told = self.loaded.events();
        (counted, told.iter().map(|event| Told::read(event, &self.loaded)).collect())
    }

    /// Asserts the verdict, all counters that changed, and all events.
    #[track_caller]
    pub(crate) fn check(
        &mut self,
        what: &str,
        frame: &impl Bytes,
        verdict: Verdict,
        counters: &[(String, u64)],
        events: &[Told],
    ) {
        let mut counters = counters.to_vec();
        counters.sort();
        let result = self.run(frame);
        assert_eq!(result, (verdict, counters, events.to_vec()), "{what}");
    }

    /// It passes, no event is sent, and beside `passed` these are counted.
    #[track_caller]
    pub(crate) fn passes(&mut self, what: &str, frame: &impl Bytes, also: &[&str]) {
        self.check(what, frame, Verdict::Pass, &counted("passed", also), &[]);
    }

    /// It is dropped by no rule.
    #[track_caller]
    pub(crate) fn drops(&mut self, what: &str, frame: &impl Bytes, reason: DropReason, seen: Seen) {
        self.drops_by(what, frame, (reason, None), &[], seen);
    }

    /// It is dropped for the reason and by the rule of `why`; `also` is counted beside.
    #[track_caller]
    pub(crate) fn drops_by(
        &mut self,
        what: &str,
        frame: &impl Bytes,
        why: (DropReason, Option<&str>),
        also: &[&str],
        seen: Seen,
    ) {
        let (reason, rule) = why;
        let mut counters = counted("dropped", also);
        counters.extend(counted(&format!("dropped {}", reason.name()), &["event-sent"]));
        counters.extend(rule.map(|rule| (rule.to_owned(), 1)));
        let event = Told::new(EventAction::Drop, reason, rule, seen);
        self.check(what, frame, Verdict::Drop, &counters, &[event]);
    }

    /// It passes, but these verdicts against it are counted and reported.
    #[track_caller]
    pub(crate) fn monitors(
        &mut self,
        what: &str,
        frame: &impl Bytes,
        whys: &[(DropReason, Option<&str>)],
        also: &[&str],
        seen: Seen,
    ) {
        let mut counters = counted("passed", also);
        let verdicts = whys.len() as u64;
        counters.extend([("monitored".to_owned(), verdicts), ("event-sent".to_owned(), verdicts)]);
        let mut events = Vec::new();
        for (reason, rule) in whys {
            counters.push((format!("monitored {}", reason.name()), 1));
            counters.extend(rule.map(|rule| (rule.to_owned(), 1)));
            events.push(Told::new(EventAction::Monitor, *reason, *rule, seen));
        }
        self.check(what, frame, Verdict::Pass, &counters, &events);
    }

    /// Gives these addresses a meaning of their own: bits of [`firewall_common::ban::guard`].
    pub(crate) fn guard(&mut self, guarded: &[(&str, u8, u32)]) {
        let guarded = guarded.iter().map(|(address, length, bits)| ((address.to_ip(), *length), *bits)).collect();
        self.loaded.shared.set_guarded(&guarded).expect("room for a few addresses");
    }

    /// Bans `prefix` for an hour, as `portcullis ban` would.
    pub(crate) fn ban(&mut self, prefix: &str) {
        self.ban_until(prefix, now() + 3_600_000_000_000);
    }

    /// Bans `prefix` until a time of CLOCK_MONOTONIC, in nanoseconds.
    pub(crate) fn ban_until(&mut self, prefix: &str, until: u64) {
        use firewall_user::{agent::bans, config::prefix_key};
        let host = || prefix.parse().map(|address: IpAddr| ipnet::IpNet::from(address));
        let prefix: ipnet::IpNet = prefix.parse().or_else(|_| host()).expect("a prefix or an address");
        let (guarded, hour) = (Default::default(), std::time::Duration::from_secs(3600));
        let limits = bans::Limits { guarded: &guarded, lists: &[], capacity: self.loaded.config.dmz.tables.bans };
        let shared = &mut self.loaded.shared;
        let ban = bans::set(shared, &limits, prefix, hour).unwrap_or_else(|error| panic!("{error}"));
        let (address, length) = prefix_key(&prefix);
        let key = firewall_common::ban::BanKey::new(&address, length);
        shared.bans.insert(key, firewall_common::ban::Ban { until, ..ban }, 0).expect("room for a ban");
    }
}

/// Each of these counted once.
pub(crate) fn counted(first: &str, also: &[&str]) -> Vec<(String, u64)> {
    [&[first], also].concat().into_iter().map(|name| (name.to_owned(), 1)).collect()
}

/// A real TCP connection on the loopback interface, where test runs take place: the kernel program finds its sockets.
pub(crate) struct Connection {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    _streams: [TcpStream; 2],
}

impl Connection {
    /// To a server at `address`.
    pub(crate) fn open(address: &str) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("the loopback interface is up");
        let server = listener.local_addr().expect("it is bound");
        let near = TcpStream::connect(server).expect("it listens");
        let (far, client) = listener.accept().expect("it was asked");
        Self { client, server, _streams: [near, far] }
    }

    /// A packet from the client to the server.
    pub(crate) fn tcp(&self) -> Frame {
        Frame::ip(self.client.ip(), self.server.ip()).tcp(self.client.port(), self.server.port()).flags(16)
    }

    pub(crate) fn seen(&self) -> Seen {
        let ports = (self.client.port(), self.server.port());
        let length = if self.client.is_ipv4() { 40 } else { 60 };
        Seen { source: self.client.ip(), destination: self.server.ip(), ports, protocol: TCP, length, count: 1 }
    }
}

/// Hygiene that lets loopback addresses through.
pub(crate) const ON_LOOPBACK: &str = "dmz.hygiene.bogons = false\ndmz.hygiene.land = false\n";

/// The readable bytes of a frame, for the parser on the host.
pub(crate) struct Plain<'a>(pub(crate) &'a [u8]);

impl packet::Frame for Plain<'_> {
    fn length(&self) -> u32 {
        self.0.len() as u32
    }

    fn load<T: packet::Header>(&self, offset: usize) -> Option<T> {
        let bytes = self.0.get(offset..offset.checked_add(size_of::<T>())?)?;
        // SAFETY: `bytes` are as many as `T` has, and `T: Header` is valid for every bit pattern.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }
}
