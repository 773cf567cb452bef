//! Attachment of instances to interfaces: a link of XDP for what arrives and, where the policy asks about flows, one of tc
//! for what leaves. A reload swaps the program behind a link atomically; no packet passes in between.
//!
//! With `on_agent_exit = "keep"` links are pinned, and outlive the agent. The link holds the program, the program its maps:
//! nothing else needs a pin to stay.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode as AyaMode,
    links::{FdLink, PinnedLink},
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact},
    xdp::XdpLink,
};

use super::{
    instance::Instance,
    pin::{FILTER_HANDLE, FILTER_PRIORITY, Kind, Pin, filter},
    syscall::{LinkPlace, link_place},
};
use crate::{
    config::{OnAgentExit, XdpMode},
    host::interface::Interface,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Native,
    Generic,
}

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn pin(self) -> Kind {
        match self {
            Self::Native => Kind::Native,
            Self::Generic => Kind::Generic,
        }
    }
}

#[derive(Debug)]
pub enum LinkError {
    NotEthernet {
        interface: String,
        hardware: u16,
    },
    /// Another XDP program is attached there.
    Occupied {
        interface: String,
    },
    Attach {
        interface: String,
        mode: &'static str,
        source: ProgramError,
    },
    Egress {
        interface: String,
        source: ProgramError,
    },
    Pin {
        path: PathBuf,
        source: io::Error,
    },
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotEthernet { interface, hardware } => write!(
                f,
                "{interface} is no Ethernet interface (hardware type {hardware}): its packets have no Ethernet header"
            ),
            Self::Occupied { interface } => write!(
                f,
                "another XDP program is attached to {interface}; `ip link show {interface}` names it, and it stays as it is"
            ),
            Self::Attach { interface, mode, source } => {
                write!(f, "{interface}: the program cannot be attached in {mode} mode: {}", cause(source))
            }
            Self::Egress { interface, source } => {
                write!(f, "{interface}: the program that tracks flows cannot be attached: {}", cause(source))
            }
            Self::Pin { path, source } => write!(f, "{}: {source}", path.display()),
        }
    }
}

impl std::error::Error for LinkError {}

/// The innermost cause, which says what the kernel said.
fn cause(error: &ProgramError) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn errno(error: &ProgramError) -> Option<i32> {
    let mut error: &dyn std::error::Error = error;
    loop {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        error = error.source()?;
    }
}

/// A link that we hold, pinned or not.
enum Held {
    Pinned(PathBuf),
    Own(FdLink),
    /// A tc filter: see [`Kind::Filter`].
    Filter,
}

struct Attached {
    interface: Interface,
    mode: Mode,
    xdp: Held,
    egress: Option<Held>,
}

/// The interfaces we run on.
pub struct Links {
    directory: PathBuf,
    attached: BTreeMap<String, Attached>,
}

impl Links {
    /// `directory` lies in bpffs and exists.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), attached: BTreeMap::new() }
    }

    /// Makes `instance` judge the packets of `interface`: by swapping the program behind a link that is there, ours or of
    /// an agent before us, or else by a new link. An interface that came anew under its old name gets a new one.
    pub fn attach(
        &mut self,
        instance: &mut Instance,
        interface: &Interface,
        wanted: XdpMode,
        exit: OnAgentExit,
        egress: bool,
    ) -> Result<Mode, LinkError> {
        if !interface.is_ethernet() {
            return Err(LinkError::NotEthernet { interface: interface.name.clone(), hardware: interface.hardware });
        }
        let before = self.attached.remove(&interface.name).filter(|before| before.interface.index == interface.index);
        let (held_xdp, held_egress, known) = match before {
            Some(before) => (Some(before.xdp), before.egress, Some(before.mode)),
            None => (None, None, None),
        };
        // Flows are noted before anything asks about them.
        let egress = if egress {
            match self.attach_egress(instance.egress(), interface, held_egress, exit) {
                Ok(held) => Some(held),
                Err(error) => {
                    // Dropped, the link would be gone, and with it the policy before.
                    if let Some((xdp, mode)) = held_xdp.zip(known) {
                        let attached = Attached { interface: interface.clone(), mode, xdp, egress: None };
                        self.attached.insert(interface.name.clone(), attached);
                    }
                    return Err(error);
                }
            }
        } else {
            self.remove_egress(interface);
            None
        };
        let (xdp, mode) = self.attach_xdp(instance.xdp(), interface, held_xdp, known, wanted, exit)?;
        self.attached.insert(interface.name.clone(), Attached { interface: interface.clone(), mode, xdp, egress });
        Ok(mode)
    }

    fn attach_xdp(
        &self,
        program: &mut Xdp,
        interface: &Interface,
        held: Option<Held>,
        known: Option<Mode>,
        wanted: XdpMode,
        exit: OnAgentExit,
    ) -> Result<(Held, Mode), LinkError> {
        let pin = |kind| Pin::new(&self.directory, kind, interface.index);
        let path = pin(Kind::Xdp).path;
        let marker = |mode: Mode| pin(mode.pin()).path;
        // The kernel does not tell a link's mode.
        let known = known.or_else(|| [Mode::Native, Mode::Generic].into_iter().find(|mode| marker(*mode).exists()));
        let fits = match (known, wanted) {
            (Some(Mode::Native), XdpMode::Generic) | (Some(Mode::Generic), XdpMode::Native) => false,
            (Some(_), _) => true,
            (None, _) => false,
        };
        let held = held_fd(held, &path).filter(|link| is_at(link, interface));
        if let (Some(link), Some(mode), true) = (held, known, fits)
            && let Ok(link) = XdpLink::try_from(link)
            && let Ok(id) = program.attach_to_link(link)
            && let Ok(link) = program.take_link(id).map_err(drop).and_then(|link| FdLink::try_from(link).map_err(drop))
        {
            return Ok((self.keep(link, &path, Some(&marker(mode)), exit)?, mode));
        }
        // No link, a stale one, or one in the wrong mode.
        for stale in [Kind::Xdp, Kind::Native, Kind::Generic].map(pin) {
            stale.remove().map_err(|source| LinkError::Pin { path: stale.path, source })?;
        }
        let modes: &[(Mode, AyaMode)] = match wanted {
            XdpMode::Native => &[(Mode::Native, AyaMode::Driver)],
            XdpMode::Generic => &[(Mode::Generic, AyaMode::Skb)],
            XdpMode::Auto => &[(Mode::Native, AyaMode::Driver), (Mode::Generic, AyaMode::Skb)],
        };
        let mut refused = None;
        for (mode, flags) in modes {
            match program.attach_to_if_index(interface.index, *flags) {
                Ok(id) => {
                    // What the netlink fallback of old kernels attaches is no link, and ends with us.
                    let link = program.take_link(id).and_then(|link| {
                        FdLink::try_from(link).map_err(|_| io::Error::other("this kernel has no XDP links").into())
                    });
                    let link = link.map_err(|source| LinkError::Attach {
                        interface: interface.name.clone(),
                        mode: mode.name(),
                        source,
                    })?;
                    return Ok((self.keep(link, &path, Some(&marker(*mode)), exit)?, *mode));
                }
                Err(source) if matches!(errno(&source), Some(libc::EBUSY | libc::EEXIST)) => {
                    return Err(LinkError::Occupied { interface: interface.name.clone() });
                }
                Err(source) => {
                    refused.get_or_insert(LinkError::Attach {
                        interface: interface.name.clone(),
                        mode: mode.name(),
                        source,
                    });
                }
            }
        }
        Err(refused.expect("there is at least one mode to try"))
    }

    fn attach_egress(
        &self,
        program: &mut SchedClassifier,
        interface: &Interface,
        held: Option<Held>,
        exit: OnAgentExit,
    ) -> Result<Held, LinkError> {
        let failed = |source| LinkError::Egress { interface: interface.name.clone(), source };
        let path = Pin::new(&self.directory, Kind::Egress, interface.index).path;
        if !has_tcx() {
            let marker = Pin::new(&self.directory, Kind::Filter, interface.index).path;
            if let Err(source) = fs::create_dir(&marker)
                && source.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(LinkError::Pin { path: marker, source });
            }
            return attach_filter(program, interface).map_err(failed);
        }
        if let Some(link) = held_fd(held, &path).filter(|link| is_at(link, interface))
            && let Ok(link) = SchedClassifierLink::try_from(link)
            && let Ok(id) = program.attach_to_link(link)
            && let Ok(link) = program.take_link(id).map_err(drop).and_then(|link| FdLink::try_from(link).map_err(drop))
        {
            return self.keep(link, &path, None, exit);
        }
        remove(&path)?;
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program.attach_with_options(&interface.name, TcAttachType::Egress, order).map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        let link = FdLink::try_from(link).map_err(|error| failed(io::Error::other(error.to_string()).into()))?;
        self.keep(link, &path, None, exit)
    }

    fn remove_egress(&self, interface: &Interface) {
        for kind in [Kind::Egress, Kind::Filter] {
            let _absent = Pin::new(&self.directory, kind, interface.index).remove();
        }
    }

    /// Pins the link, and as `marker` once more, or keeps it open, as `exit` says.
    fn keep(&self, link: FdLink, path: &Path, marker: Option<&Path>, exit: OnAgentExit) -> Result<Held, LinkError> {
        match exit {
            OnAgentExit::Keep => {
                let pin = |link: FdLink, path: &Path| -> Result<FdLink, LinkError> {
                    // The pin of a link that was only updated stays untouched: at no moment may it be missing.
                    let id = |link: &FdLink| link.info().ok().map(|info| info.id());
                    let pinned = PinnedLink::from_pin(path).ok().map(FdLink::from);
                    if pinned.is_some_and(|pinned| id(&pinned).is_some() && id(&pinned) == id(&link)) {
                        return Ok(link);
                    }
                    remove(path)?;
                    let failed = |error: &dyn std::error::Error| LinkError::Pin {
                        path: path.to_owned(),
                        source: io::Error::other(error.to_string()),
                    };
                    link.pin(path).map_err(|error| failed(&error))?;
                    PinnedLink::from_pin(path).map(FdLink::from).map_err(|error| failed(&error))
                };
                let link = match marker {
                    Some(marker) => pin(link, marker)?,
                    None => link,
                };
                pin(link, path)?;
                Ok(Held::Pinned(path.to_owned()))
            }
            OnAgentExit::Detach => {
                remove(path)?;
                if let Some(marker) = marker {
                    remove(marker)?;
                }
                Ok(Held::Own(link))
            }
        }
    }

    /// Lets go of every interface that `keep` does not name, those that an agent before us left behind included.
    pub fn detach_others(&mut self, keep: &[u32]) {
        self.attached.retain(|_, attached| keep.contains(&attached.interface.index));
        self.remove_pins(|index| !keep.contains(&index));
    }

    /// Lets go of one interface.
    pub fn detach(&mut self, interface: &Interface) {
        self.attached.remove(&interface.name);
        self.remove_pins(|index| index == interface.index);
    }

    /// Removes the pins of the interfaces that `which` accepts.
    fn remove_pins(&self, which: impl Fn(u32) -> bool) {
        for pin in Pin::all(&self.directory).into_iter().filter(|pin| which(pin.index)) {
            if let Err(error) = pin.remove() {
                tracing::error!("{}: {error}", pin.path.display());
            }
        }
    }

    /// How the interface is attached, and whether the kernel confirms it: that our program is the one behind the link, and
    /// the link where it should be. `None` if it never was.
    pub fn state(&self, name: &str, program: u32) -> Option<(Mode, bool, bool)> {
        let attached = self.attached.get(name)?;
        let xdp = place(&attached.xdp)
            .is_some_and(|place| place.program == program && place.interface == attached.interface.index);
        let egress = attached.egress.as_ref().is_some_and(|held| match held {
            Held::Filter => true,
            held => place(held).is_some_and(|place| place.interface == attached.interface.index),
        });
        Some((attached.mode, xdp, egress))
    }

    /// Every interface that we, or an agent before us, are attached to.
    pub fn indices(&self) -> Vec<u32> {
        let pinned = Pin::all(&self.directory).into_iter().map(|pin| pin.index);
        self.attached.values().map(|attached| attached.interface.index).chain(pinned).collect()
    }

    /// Index of the interface that we are attached to under this name.
    pub fn index_of(&self, name: &str) -> Option<u32> {
        self.attached.get(name).map(|attached| attached.interface.index)
    }
}

/// The interfaces that pinned links in `directory` hold a program on, whoever left them.
pub fn pinned_interfaces(directory: &Path) -> Vec<String> {
    let at_work = |pin: &Pin| place(&Held::Pinned(pin.path.clone())).is_some_and(|place| place.interface == pin.index);
    let xdp = Pin::all(directory).into_iter().filter(|pin| pin.kind == Kind::Xdp);
    xdp.filter(at_work).filter_map(|pin| pin.interface()).collect()
}

fn remove(path: &Path) -> Result<(), LinkError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LinkError::Pin { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// The link we hold, or that is pinned at `path`.
fn held_fd(held: Option<Held>, path: &Path) -> Option<FdLink> {
    match held {
        Some(Held::Own(link)) => Some(link),
        Some(Held::Pinned(_)) | None => PinnedLink::from_pin(path).ok().map(FdLink::from),
        Some(Held::Filter) => None,
    }
}

fn is_at(link: &FdLink, interface: &Interface) -> bool {
    place_of(link).is_some_and(|place| place.interface == interface.index)
}

fn place(held: &Held) -> Option<LinkPlace> {
    match held {
        Held::Pinned(path) => place_of(&FdLink::from(PinnedLink::from_pin(path).ok()?)),
        Held::Own(link) => place_of(link),
        Held::Filter => None,
    }
}

fn place_of(link: &FdLink) -> Option<LinkPlace> {
    link_place(link.info().ok()?.id()).ok()
}

/// Links for tc came with Linux 6.6.
fn has_tcx() -> bool {
    aya::util::KernelVersion::current().is_ok_and(|version| version >= aya::util::KernelVersion::new(6, 6, 0))
}

/// Replaces our filter, or adds it.
fn attach_filter(program: &mut SchedClassifier, interface: &Interface) -> Result<Held, ProgramError> {
    // It says so if it is there already.
    let _exists = qdisc_add_clsact(&interface.name);
    let replaced = filter(&interface.name).map_err(ProgramError::from).and_then(|link| program.attach_to_link(link));
    let id = replaced.or_else(|_| {
        let options = NlOptions { priority: FILTER_PRIORITY, handle: FILTER_HANDLE, classid: None };
        program.attach_with_options(&interface.name, TcAttachType::Egress, TcAttachOptions::Netlink(options))
    })?;
    // Dropped, it would be detached; the kernel is to keep it.
    std::mem::forget(program.take_link(id)?);
    Ok(Held::Filter)
}
