//! What content rules found in a request and its answer.
//!
//! In a record: `phases`, the numbers of those that ran; `score_in` and `score_out`, the anomaly scores of the OWASP Core Rule
//! Set, where the rule set keeps any; `rules`, those that matched and are to be logged, each with `id`, `phase`, `severity`,
//! `message`, `tags`, `variable` (where the last match was), `matched` (what it was, after the rule's transformations) and `data`
//! (what the rule logs); `rules_omitted`, how many more there were. What is empty is absent.

use firewall_inspect::transaction::Transaction;

use super::{excerpt, secret};

/// Rules told of a request.
const RULES: usize = 128;
/// Bytes of what matched, and of what a rule says.
const MATCHED: usize = 256;
const TEXT: usize = 512;

#[derive(Clone, Debug, Default)]
pub struct Content {
    pub phases: Vec<u8>,
    pub score_in: Option<i64>,
    pub score_out: Option<i64>,
    pub rules: Vec<Matched>,
    pub omitted: usize,
}

/// A rule that matched.
#[derive(Clone, Debug)]
pub struct Matched {
    pub id: u32,
    pub phase: u8,
    pub severity: Option<&'static str>,
    pub message: Box<str>,
    pub tags: Vec<Box<str>>,
    pub variable: Box<str>,
    pub matched: Box<str>,
    pub data: Box<str>,
}

impl Content {
    pub fn of(transaction: &Transaction) -> Self {
        // Of CRS 4, and of CRS 3.
        let score = |names: [&str; 2]| names.into_iter().find_map(|name| transaction.tx(name));
        let matches = transaction.matches();
        let rules = matches.iter().take(RULES).map(|found| {
            // What a rule says may come from anywhere that its chain matched.
            let is_secret = found.also.iter().chain([&found.variable]).any(|variable| secret::is_secret(variable));
            let told = |text: &[u8], limit| match is_secret && !text.is_empty() {
                true => format!("[masked, {} bytes]", text.len()).into(),
                false => secret::mask(&excerpt(text, limit)).into(),
            };
            Matched {
                id: found.id,
                phase: found.phase as u8,
                severity: found.severity.map(|severity| severity.name()),
                message: secret::mask(&excerpt(&found.message, TEXT)).into(),
                tags: found.tags.iter().map(|tag| excerpt(tag, TEXT)).collect(),
                variable: excerpt(&found.variable, MATCHED),
                matched: told(&found.value, MATCHED),
                data: told(&found.data, TEXT),
            }
        });
        Self {
            phases: transaction.phases().iter().map(|phase| *phase as u8).collect(),
            score_in: score(["blocking_inbound_anomaly_score", "anomaly_score"]),
            score_out: score(["blocking_outbound_anomaly_score", "outbound_anomaly_score"]),
            rules: rules.collect(),
            omitted: matches.len().saturating_sub(RULES),
        }
    }
}
