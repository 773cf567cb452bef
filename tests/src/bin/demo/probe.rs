//! What a probe is: traffic, and what should become of it.

use std::{
    cell::Cell,
    fmt,
    net::{IpAddr, SocketAddr},
};

use anyhow::Result;
use tests::{
    frame::Frame,
    netns::{HOST_V4, HOST_V6, client_v4, client_v6},
};

use crate::bench::Bench;

/// Something to do on the bench.
pub(crate) type Action<T> = Box<dyn FnOnce(&mut Bench) -> Result<T>>;

pub(crate) enum Step {
    /// Something the operator does, and what it is.
    Do(String, Action<()>),
    Probe(Probe),
}

pub(crate) struct Probe {
    pub(crate) stage: &'static str,
    pub(crate) family: &'static str,
    pub(crate) what: String,
    pub(crate) send: Action<Sent>,
    pub(crate) expect: Expect,
    /// The rule of the user that decides: its counter must grow, and the event must name it.
    pub(crate) by: Option<&'static str>,
    /// A counter beside that of the reason that must have grown.
    pub(crate) tally: Option<&'static str>,
    /// Reasons beside the expected one that this traffic may cause.
    pub(crate) also: &'static [&'static str],
}

/// What was sent, and how it can be told whether it arrived.
pub(crate) enum Sent {
    /// Raw frames, which the witness on the host knows by their bytes.
    Frames(Vec<Vec<u8>>),
    /// A real client's traffic: what it got, or why it got nothing.
    Client(Result<String, String>),
}

#[derive(Clone, Debug)]
pub(crate) enum Expect {
    Passes,
    /// `source`: `None` if the frame is broken before it could be read.
    Drops {
        reason: &'static str,
        source: Option<IpAddr>,
    },
    /// It passes, and is reported.
    Monitors {
        reason: &'static str,
        source: IpAddr,
    },
    /// Between `least` and `most` frames pass, the others are dropped.
    Limits {
        reason: &'static str,
        source: IpAddr,
        least: usize,
        most: usize,
    },
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passes => f.write_str("passes"),
            Self::Drops { reason, .. } => write!(f, "dropped: {reason}"),
            Self::Monitors { reason, .. } => write!(f, "passes, monitored: {reason}"),
            Self::Limits { reason, least, most, .. } => write!(f, "{least} to {most} pass, then {reason}"),
        }
    }
}

/// Addresses of one family, and short ways to write probes in it.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) host: IpAddr,
    next_far: Cell<u16>,
    next_near: Cell<u8>,
}

impl Family {
    pub(crate) fn v4() -> Self {
        Self::new("IPv4", HOST_V4)
    }

    pub(crate) fn v6() -> Self {
        Self::new("IPv6", HOST_V6)
    }

    fn new(name: &'static str, host: &str) -> Self {
        let host = host.parse().expect("an address");
        Self { name, host, next_far: Cell::new(1), next_near: Cell::new(0) }
    }

    pub(crate) fn is_v4(&self) -> bool {
        self.host.is_ipv4()
    }

    /// One of two addresses, by family.
    pub(crate) fn pick(&self, v4: &str, v6: &str) -> IpAddr {
        let text = if self.is_v4() { v4 } else { v6 };
        text.parse().expect("an address")
    }

    /// A source beyond the link that no other probe uses, in a /64 that none uses. Raw frames only: nothing answers it.
    pub(crate) fn far(&self) -> IpAddr {
        let n = self.next_far.get();
        self.next_far.set(n + 1);
        if self.is_v4() {
            let [high, low] = n.to_be_bytes();
            IpAddr::from([198, 18, high, low])
        } else {
            IpAddr::from([0x2001, 0xdb8, 0xf000, n, 0, 0, 0, 1])
        }
    }

    /// An address of the client that no other probe uses.
    pub(crate) fn near(&self) -> IpAddr {
        let n = self.next_near.get();
        self.next_near.set(n + 1);
        if self.is_v4() { client_v4(n) } else { client_v6(n) }
    }

    pub(crate) fn from(&self, source: IpAddr) -> Frame {
        Frame::ip(source, self.host)
    }

    pub(crate) fn server(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.host, port)
    }

    fn probe(
        &self,
        stage: &'static str,
        what: impl Into<String>,
        expect: Expect,
        send: impl FnOnce(&mut Bench) -> Result<Sent> + 'static,
    ) -> Probe {
        let send = Box::new(send);
        Probe { stage, family: self.name, what: what.into(), send, expect, by: None, tally: None, also: &[] }
    }

    /// Raw frames.
    pub(crate) fn frames(
        &self,
        stage: &'static str,
        what: impl Into<String>,
        expect: Expect,
        frames: Vec<Vec<u8>>,
    ) -> Probe {
        self.probe(stage, what, expect, move |bench| bench.send(frames))
    }

    /// A frame that passes.
    pub(crate) fn passes(&self, stage: &'static str, what: impl Into<String>, frame: Frame) -> Probe {
        self.frames(stage, what, Expect::Passes, vec![frame.build()])
    }

    /// A frame from `source` that is dropped, by no rule of the user.
    pub(crate) fn drops(
        &self,
        stage: &'static str,
        what: impl Into<String>,
        source: IpAddr,
        reason: &'static str,
        frame: Frame,
    ) -> Probe {
        self.frames(stage, what, Expect::Drops { reason, source: Some(source) }, vec![frame.build()])
    }

    /// A real client: what it gets is success, what it does not get is an error.
    pub(crate) fn client(
        &self,
        stage: &'static str,
        what: impl Into<String>,
        expect: Expect,
        act: impl FnOnce(&mut Bench) -> Result<String> + 'static,
    ) -> Probe {
        self.probe(stage, what, expect, move |bench| Ok(Sent::Client(act(bench).map_err(|error| format!("{error:#}")))))
    }

    /// curl gets the page from the host, or does not.
    pub(crate) fn curl(&self, stage: &'static str, what: impl Into<String>, expect: Expect, source: IpAddr) -> Probe {
        let server = self.server(80);
        self.client(stage, what, expect, move |bench| bench.curl(source, server))
    }

    /// What `send` does itself.
    pub(crate) fn special(
        &self,
        stage: &'static str,
        what: impl Into<String>,
        expect: Expect,
        send: impl FnOnce(&mut Bench) -> Result<Sent> + 'static,
    ) -> Probe {
        self.probe(stage, what, expect, send)
    }
}

impl Probe {
    pub(crate) fn tally(mut self, name: &'static str) -> Self {
        self.tally = Some(name);
        self
    }

    pub(crate) fn also(mut self, reasons: &'static [&'static str]) -> Self {
        self.also = reasons;
        self
    }

    pub(crate) fn by(mut self, rule: &'static str) -> Self {
        self.by = Some(rule);
        self
    }

    /// Dropped before its source could be read.
    pub(crate) fn sourceless(mut self) -> Self {
        let Expect::Drops { source, .. } = &mut self.expect else { panic!("nothing is dropped") };
        *source = None;
        self
    }
}

impl From<Probe> for Step {
    fn from(probe: Probe) -> Self {
        Self::Probe(probe)
    }
}

/// Something the operator does.
pub(crate) fn act(what: impl Into<String>, action: impl FnOnce(&mut Bench) -> Result<()> + 'static) -> Step {
    Step::Do(what.into(), Box::new(action))
}
