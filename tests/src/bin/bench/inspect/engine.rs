//! The engine alone: transactions from the head to the last phase, one after the other.

use std::{
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use firewall_inspect::{
    head::{self, Head},
    rules::Rules,
    seclang::EngineMode,
    transaction::{About, Answer, Transaction, Worker},
};
use firewall_user::config::api::RuleSet;
use tempfile::NamedTempFile;

/// What ModSecurity recommends: for both sides.
const BASE: &str = include_str!("../../../../nginx/modsecurity.conf");
/// A case is measured so often, each time for at least so long, and with each request at least once.
const ROUNDS: usize = 3;
const AT_LEAST: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(3);

/// Files of a rule set, in order.
pub(super) struct RuleFiles {
    pub(super) patterns: Vec<String>,
    _first: NamedTempFile,
}

impl RuleFiles {
    /// The Core Rule Set's set-up file and its rules, at this paranoia level.
    pub(super) fn new([setup, rules]: [String; 2], level: u8) -> Result<Self> {
        let mut first = NamedTempFile::with_suffix(".conf")?;
        // The names of CRS 3 and of CRS 4; a rule set looks at its own.
        let variables = ["paranoia_level", "blocking_paranoia_level", "detection_paranoia_level"];
        let sets: Vec<String> = variables.iter().map(|name| format!("setvar:tx.{name}={level}")).collect();
        writeln!(first, "{BASE}\nSecAction \"id:900000,phase:1,pass,nolog,{}\"", sets.join(","))?;
        Ok(Self { patterns: vec![first.path().display().to_string(), setup, rules], _first: first })
    }
}

pub(super) struct Engine {
    rules: Arc<Rules>,
    pub(super) compile_ms: f64,
}

/// A request, taken apart.
type Parsed = (Head, Vec<u8>);

impl Engine {
    pub(super) fn load(files: &RuleFiles) -> Result<Self> {
        let began = Instant::now();
        let patterns: Vec<_> = files.patterns.iter().map(Into::into).collect();
        let set = RuleSet::load(&patterns).map_err(|errors| anyhow::anyhow!("{errors}"))?;
        Ok(Self { rules: Arc::clone(set.rules()), compile_ms: began.elapsed().as_secs_f64() * 1e3 })
    }

    /// Every request is refused, or none, as `blocked` says; `None`: either.
    pub(super) fn assert_verdicts(&self, requests: &[Vec<u8>], blocked: Option<bool>) -> Result<()> {
        let mut worker = Worker::default();
        for request in requests {
            let (head, body) = parse(request)?;
            let transaction = self.judge(&mut worker, &head, &body);
            let found = transaction.matches().iter().map(|found| found.id.to_string()).collect::<Vec<_>>().join(", ");
            let status = transaction.interruption().map(|interruption| interruption.status);
            if blocked.is_some_and(|blocked| status != blocked.then_some(403)) {
                bail!("the verdict is {status:?} by {found} on {}", request[..request.len().min(300)].escape_ascii());
            }
        }
        Ok(())
    }

    /// A worker's first request: its memory is made on the way.
    pub(super) fn first_us(&self, request: &[u8]) -> Result<f64> {
        let (head, body) = parse(request)?;
        let mut worker = Worker::default();
        let began = Instant::now();
        self.judge(&mut worker, &head, &body);
        Ok(began.elapsed().as_secs_f64() * 1e6)
    }

    /// The least of the rounds' means: what disturbs only adds.
    pub(super) fn mean_us(&self, requests: &[Vec<u8>]) -> Result<f64> {
        let parsed = requests.iter().map(|request| parse(request)).collect::<Result<Vec<Parsed>>>()?;
        let mut worker = Worker::default();
        // Caches, branch predictors.
        parsed.iter().take(100).for_each(|(head, body)| drop(self.judge(&mut worker, head, body)));
        let mut round = || {
            let (began, mut count) = (Instant::now(), 0_u32);
            while began.elapsed() < AT_LEAST {
                parsed.iter().for_each(|(head, body)| drop(self.judge(&mut worker, head, body)));
                count += parsed.len() as u32;
            }
            began.elapsed().as_secs_f64() * 1e6 / f64::from(count)
        };
        let (whole, mut least) = (Instant::now(), round());
        for _ in 1..ROUNDS {
            // What takes long is steady enough.
            if whole.elapsed() > LONG {
                break;
            }
            least = least.min(round());
        }
        Ok(least)
    }

    fn judge(&self, worker: &mut Worker, head: &Head, body: &[u8]) -> Transaction {
        let about = About {
            client: ([192, 0, 2, 7], 40_000).into(),
            server: ([192, 0, 2, 1], 443).into(),
            time: SystemTime::UNIX_EPOCH,
            id: 1,
        };
        let mut transaction = Transaction::new(Arc::clone(&self.rules), about, EngineMode::On);
        transaction.request_head(worker, head);
        transaction.request_body(worker, body);
        let fields: [(&[u8], &[u8]); 2] = [(b"content-type", b"text/plain"), (b"content-length", b"3")];
        transaction.response_head(worker, &Answer { status: 200, protocol: "HTTP/1.1", fields: &fields });
        transaction.response_body(worker, b"ok\n");
        transaction.finish(worker);
        transaction
    }
}

fn parse(request: &[u8]) -> Result<Parsed> {
    let end = request.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("a head without an end")? + 4;
    let head = head::parse(Bytes::copy_from_slice(&request[..end]));
    let head = head.map_err(|reason| anyhow::anyhow!("a head that is {}", reason.name()))?;
    ensure!(head.refusal.is_none(), "a head that is refused");
    Ok((head, request[end..].to_vec()))
}
