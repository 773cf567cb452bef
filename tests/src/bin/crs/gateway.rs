//! The agent as a reverse proxy with the rules of a suite, its events, and all that is in its way opened as far as it goes.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ::tests::{
    agent::{Agent, Event},
    http::{Server, raw::Response},
    netns::World,
};
use anyhow::{Context as _, Result};

use crate::{backend, client::Clients, request::Request, suite::Stage};

const GATEWAY: &str = "127.0.0.1:8080";
const BACKEND: &str = "127.0.0.1:9000";
/// Requests under way at once.
const AT_ONCE: usize = 16;
/// For events that have not come yet when all is answered.
const PATIENCE: Duration = Duration::from_secs(5);

/// As the suite wants its engine: `tests/regression/README.md` of the Core Rule Set. Its paranoia level has another name in
/// CRS 3.
const DETECT: &str = r#"
SecRuleEngine DetectionOnly
SecAction "id:900005,phase:1,nolog,pass,ctl:ruleEngine=DetectionOnly,ctl:ruleRemoveById=910000,\
    setvar:tx.crs_validate_utf8_encoding=1,setvar:tx.arg_name_length=100,setvar:tx.arg_length=400,\
    setvar:tx.total_arg_length=64000,setvar:tx.max_num_args=255,setvar:tx.max_file_size=64100,\
    setvar:tx.combined_file_sizes=65535"
"#;
/// As a user's API would want it: gRPC is not among the types that the Core Rule Set lets pass by itself.
const BLOCK: &str = r#"
SecRuleEngine On
SecAction "id:900220,phase:1,nolog,pass,t:none,setvar:'tx.allowed_request_content_type=|application/x-www-form-urlencoded| |multipart/form-data| |text/xml| |application/xml| |application/soap+xml| |application/json| |application/grpc|'"
"#;

pub(crate) struct Gateway {
    clients: Clients,
    agent: Agent,
    events: Arc<Mutex<HashMap<u16, Event>>>,
    _backend: Server,
    _world: World,
}

impl Gateway {
    pub(crate) fn start(rules: &Path, stages: &[Stage], blocking: bool, paranoia: u8) -> Result<Self> {
        let world = World::new().context("namespaces of its own (are you root?)")?;
        let backend = backend::start(&world.host, BACKEND)?;
        let files = [setup(rules)?, "engine.conf".into(), rules.canonicalize()?.join("*.conf")];
        let level = format!(
            "SecAction \"id:900006,phase:1,nolog,pass,setvar:tx.blocking_paranoia_level={paranoia},\
             setvar:tx.paranoia_level={paranoia}\"\n"
        );
        let engine = format!("{}{level}", if blocking { BLOCK } else { DETECT });
        let config = format!(
            "interfaces = [\"eth0\"]\n[gateway]\nworkers = 2\n[reputation]\nthreshold = 1000000\n\
             [[api]]\nname = \"crs\"\nlisten = \"{GATEWAY}\"\nupstream = \"http://{BACKEND}\"\nupstream_http = \"1.1\"\n\
             mode = \"{}\"\nencoded_slashes = true\nmethods = {:?}\nrules = {files:?}\n\
             [api.limits]\nrequest_line = \"64KiB\"\nheaders = \"1MiB\"\nheader_count = 1000\nbody = \"1GB\"\n\
             connections_per_client = 1000000\n",
            // What is refused for its path or type alone is only told then, as what rules find is.
            if blocking { "enforce" } else { "monitor" },
            methods(stages)
        );
        let mut agent = Agent::prepare(&world, &config, &[("engine.conf", &engine)])?;
        let events = Arc::<Mutex<HashMap<u16, Event>>>::default();
        let heard = Arc::clone(&events);
        agent.watch(Box::new(move |event| {
            if let (Some(port), "lan") = (event.source_port, &event.layer[..]) {
                // A connection's first request is the one that was sent; what a broken one leaves may look like another.
                heard.lock().unwrap_or_else(PoisonError::into_inner).entry(port).or_insert_with(|| event.clone());
            }
        }));
        agent.launch(&[])?;
        let clients = Clients::new(&world.host, GATEWAY.parse()?);
        Ok(Self { clients, agent, events, _backend: backend, _world: world })
    }

    /// Megabytes that the agent has resident, with two workers.
    pub(crate) fn resident_mb(&self) -> Result<u64> {
        Ok(self.agent.resident()?.div_ceil(1_000_000))
    }

    /// Sends all of these, and hands each with its answer and event to `take`, in their order.
    pub(crate) fn send<'s>(
        &self,
        stages: &[&'s Stage],
        http2: impl Fn(&Stage) -> bool + Sync,
        mut take: impl FnMut(&'s Stage, &Result<Response>, Option<&Event>) -> Result<()>,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let answers = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let work = || -> Result<()> {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(stage) = stages.get(index) else { return Ok(()) };
                    let (port, answer) = self.clients.send(&stage.request, http2(stage))?;
                    answers.lock().unwrap_or_else(PoisonError::into_inner).push((index, port, answer));
                }
            };
            let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
        })?;
        let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        answers.sort_by_key(|(index, ..)| *index);
        let ports: Vec<u16> = answers.iter().map(|(_, port, _)| *port).collect();
        let events = self.events(&ports);
        answers.iter().try_for_each(|(index, port, answer)| take(stages[*index], answer, events.get(port)))
    }

    /// The first event of each connection from these ports, once they are all there, or no more come.
    fn events(&self, ports: &[u16]) -> HashMap<u16, Event> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            if ports.iter().all(|port| events.contains_key(port)) || Instant::now() > deadline {
                return std::mem::take(&mut events);
            }
            drop(events);
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The set-up file: beside the rules, as the project has it, or where Debian puts it.
fn setup(rules: &Path) -> Result<PathBuf> {
    let beside = rules.canonicalize().with_context(|| rules.display().to_string())?;
    let beside = beside.parent().context("no folder")?;
    let places = [
        beside.join("crs-setup.conf"),
        beside.join("crs-setup.conf.example"),
        "/etc/modsecurity/crs/crs-setup.conf".into(),
    ];
    places.into_iter().find(|path| path.exists()).context("there is no crs-setup.conf beside the rules")
}

/// All that stages use and that can be a method; CONNECT cannot be allowed.
fn methods(stages: &[Stage]) -> Vec<String> {
    let usual = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].map(String::from);
    let used = stages.iter().filter_map(|stage| match &stage.request {
        Request::Built(message) => Some(message.method.clone()),
        Request::Raw(_) => None,
    });
    let is_method = |method: &String| method.bytes().all(|byte| byte.is_ascii_alphabetic()) && method != "CONNECT";
    let methods: BTreeSet<String> = usual.into_iter().chain(used.filter(is_method)).collect();
    methods.into_iter().collect()
}
