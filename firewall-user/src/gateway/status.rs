//! What `status` tells of the gateway, and the probes that prove it.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Gateway, network::Network};
use firewall_inspect::seclang::EngineMode;

use crate::{
    config::{
        Mode,
        api::{Api, Entry, Steered, Upstream},
    },
    control::api::{ApiStatus, Steering},
    steering::Probe,
};

/// A steered port: in which network namespace, and its number.
type Port = (Option<PathBuf>, u16);

/// What the last probe of each port found, and whether anything listens behind it.
#[derive(Default)]
pub(super) struct Findings {
    ports: Mutex<HashMap<Port, Finding>>,
    /// One probes at a time.
    running: AtomicBool,
    /// There is something new since somebody asked.
    fresh: AtomicBool,
}

impl Findings {
    fn ports(&self) -> MutexGuard<'_, HashMap<Port, Finding>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct Finding {
    /// To read.
    probe: String,
    /// Why requests do not go through us, or may not.
    problem: Option<String>,
    /// Nobody listens there.
    silent: bool,
}

/// The ports to probe. It takes seconds, so not with the agent's state held.
pub struct Probes {
    findings: Arc<Findings>,
    ports: Vec<(Option<PathBuf>, u16, Arc<Network>)>,
}

impl Probes {
    /// Tries every steered port by its real path. Blocks. Does nothing while others do.
    pub fn run(self) {
        if self.findings.running.swap(true, Ordering::Acquire) {
            return;
        }
        let found = self.ports.into_iter().map(|(place, port, network)| ((place, port), examine(&network, port)));
        // Those of ports that are no longer steered go.
        let found: HashMap<_, _> = found.collect();
        *self.findings.ports() = found;
        self.findings.fresh.store(true, Ordering::Relaxed);
        self.findings.running.store(false, Ordering::Release);
    }
}

fn examine(network: &Network, port: u16) -> Finding {
    let (probe, problem) = match network.probe(port) {
        Ok(Probe::Intercepted) => ("intercepted".to_owned(), None),
        Ok(Probe::NotInForce) => {
            ("not in force".to_owned(), Some("the kernel does not hand connections to this agent".to_owned()))
        }
        Ok(Probe::Diverted { address }) => (
            format!("diverted at {address}"),
            Some(format!(
                "connections to {address} go elsewhere before they can be steered: destination NAT, as of a published \
                 container; `netns` takes steering into its namespace"
            )),
        ),
        Ok(Probe::Unreachable { address, error }) => {
            (format!("unreachable at {address}"), Some(format!("no connection to {address} could be tried: {error}")))
        }
        Ok(Probe::NoAddress) => ("no address but loopback".to_owned(), None),
        Err(error) => ("not tried".to_owned(), Some(format!("the addresses cannot be listed: {error}"))),
    };
    let silent = network.listens(port).is_ok_and(|listens| !listens);
    Finding { probe, problem, silent }
}

impl Gateway {
    /// Every steered port, to be probed.
    pub fn probes(&self) -> Probes {
        let steered = self.apis.values().filter_map(|(api, _)| match &api.entry {
            Entry::Steered(steered) => Some(steered),
            Entry::Proxy { .. } => None,
        });
        let ports = steered.flat_map(|steered| {
            let network = self.networks.get(&steered.netns).map(|(network, _)| network);
            let of_port = |port: &u16| Some((steered.netns.clone(), *port, Arc::clone(network?)));
            steered.ports.iter().filter_map(of_port).collect::<Vec<_>>()
        });
        Probes { findings: Arc::clone(&self.findings), ports: ports.collect() }
    }

    /// Whether probes found something that [`Gateway::troubles`] was not asked for yet.
    pub fn has_news(&self) -> bool {
        self.findings.fresh.swap(false, Ordering::Relaxed)
    }

    /// What an operator should know of each API that has trouble.
    pub fn troubles(&self) -> BTreeMap<Arc<str>, String> {
        let of = |api: &Api| {
            let Entry::Steered(steered) = &api.entry else { return None };
            let trouble = match self.steering(steered).1 {
                Some(problem) => format!("API `{}` is not protected: {problem}", api.name),
                None => format!("API `{}`: {}", api.name, silence(&self.silent(steered))?),
            };
            Some((Arc::clone(&api.name), trouble))
        };
        self.apis.values().filter_map(|(api, _)| of(api)).collect()
    }

    /// Ports behind which nothing listened at the last look.
    fn silent(&self, steered: &Steered) -> Vec<u16> {
        let findings = self.findings.ports();
        let is_silent = |port: &&u16| findings.get(&(steered.netns.clone(), **port)).is_some_and(|found| found.silent);
        steered.ports.iter().filter(is_silent).copied().collect()
    }

    /// Every API, and how connections come to it, in one line each.
    pub fn entries(&self) -> Vec<String> {
        let line = |api: &Api| {
            let tls = if api.tls.is_some() { ", with TLS" } else { "" };
            let monitor = if api.mode == Mode::Monitor { ", refusing nothing (monitor)" } else { "" };
            let how = match &api.entry {
                Entry::Steered(steered) if !self.networks.contains_key(&steered.netns) => "NOT steering",
                Entry::Steered(_) => "steering",
                Entry::Proxy { .. } => "listening at",
            };
            let entry = entry(&api.entry).replacen(" steered", "", 1);
            format!("API `{}`: {how} {entry}{tls}{monitor}", api.name)
        };
        self.apis.values().map(|(api, _)| line(api)).collect()
    }

    pub fn status(&self) -> Vec<ApiStatus> {
        self.apis.values().map(|(api, _)| self.status_of(api)).collect()
    }

    fn status_of(&self, api: &Api) -> ApiStatus {
        let (steering, problem) = match &api.entry {
            Entry::Steered(steered) => {
                let (steering, problem) = self.steering(steered);
                (Some(steering), problem)
            }
            Entry::Proxy { .. } => (None, None),
        };
        ApiStatus {
            name: api.name.to_string(),
            mode: match api.mode {
                Mode::Enforce => "enforce",
                Mode::Monitor => "monitor",
            }
            .to_owned(),
            entry: entry(&api.entry),
            tls: api.tls.is_some(),
            protected: problem.is_none(),
            problem,
            rules: api.rules.as_ref().map_or(0, |set| set.rules().len() as u64),
            rules_engine: api.rules.as_ref().map(|set| engine(set.rules().settings.engine).to_owned()),
            steering,
            traffic: self.metrics.api(&api.name).traffic(),
        }
    }

    fn steering(&self, steered: &Steered) -> (Steering, Option<String>) {
        let mut told = Steering::default();
        let Some((network, _)) = self.networks.get(&steered.netns) else {
            told.probe = "not steered".to_owned();
            let absent = steered.netns.as_ref().and_then(|path| self.absent.get(path));
            let problem = absent.map_or("its network namespace is not steered", |absent| &absent.problem);
            return (told, Some(problem.to_owned()));
        };
        let mut problem = match network.in_force() {
            Ok(true) => None,
            Ok(false) => Some("the kernel does not hand connections to this agent".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        match network.counts() {
            Ok(counts) => {
                for count in steered.ports.iter().filter_map(|port| counts.get(port)) {
                    told.steered += count.steered;
                    told.exempt += count.exempt;
                    told.gone_open += count.gone_open;
                    told.gone_closed += count.gone_closed;
                }
            }
            Err(error) => problem = problem.or_else(|| Some(error.to_string())),
        }
        let findings = self.findings.ports();
        let found = steered.ports.iter().map(|port| findings.get(&(steered.netns.clone(), *port)).cloned());
        let found: Vec<Option<Finding>> = found.collect();
        let worst = found.iter().flatten().find(|finding| finding.problem.is_some());
        told.probe = match worst.or_else(|| found.iter().flatten().next()) {
            Some(finding) => finding.probe.clone(),
            None => "not yet".to_owned(),
        };
        problem = problem.or_else(|| worst.and_then(|finding| finding.problem.clone()));
        (told, problem)
    }
}

/// `None` if something listens behind each port.
pub fn silence(ports: &[u16]) -> Option<String> {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    (!ports.is_empty()).then(|| format!("nothing listens behind port {}", ports.join(", ")))
}

/// How connections arrive, and where requests go, to read.
fn entry(entry: &Entry) -> String {
    match entry {
        Entry::Steered(steered) => {
            let ports: Vec<String> = steered.ports.iter().map(u16::to_string).collect();
            let place = steered.netns.as_ref().map_or_else(String::new, |path| format!(" in {}", path.display()));
            format!("{} steered{place}", ports.join(", "))
        }
        Entry::Proxy { listen, upstream: Upstream { host, port, tls } } => {
            let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
            let scheme = if tls.is_some() { "https" } else { "http" };
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            format!("{} → {scheme}://{host}:{port}", listen.join(", "))
        }
    }
}
/// What a rule set says of itself; the API's own mode comes on top.
fn engine(mode: Option<EngineMode>) -> &'static str {
    match mode {
        None | Some(EngineMode::On) => "enforce",
        Some(EngineMode::DetectionOnly) => "detect",
        Some(EngineMode::Off) => "off",
    }
}
