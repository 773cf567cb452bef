//! What content rules found in a request and its answer.
//!
//! In a record: `phases`, the numbers of those that ran; `score_in` and `score_out`, the anomaly scores of the OWASP Core Rule
//! Set, where the rule set keeps any; `rules`, those that matched and are to be logged, each with `id`, `phase`, `severity`,
//! `message`, `tags`, `variable` (where the last match was), `matched` (what it was, after the rule's transformations) and `data`
//! (what the rule logs); `rules_omitted`, how many more there were. What is empty is absent.

use firewall_inspect::transaction::Transaction;

use super::excerpt;

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
            let secret = is_secret(&found.variable);
            let told = |text: &[u8], limit| match secret && !text.is_empty() {
                true => format!("[masked, {} bytes]", text.len()).into(),
                false => excerpt(text, limit),
            };
            Matched {
                id: found.id,
                phase: found.phase as u8,
                severity: found.severity.map(|severity| severity.name()),
                message: excerpt(&found.message, TEXT),
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

/// Whether a variable's value may be what nobody should read in a log: cookies, credentials, and what is called so.
fn is_secret(variable: &[u8]) -> bool {
    const HEADERS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];
    const WORDS: [&str; 10] =
        ["pass", "pwd", "secret", "token", "apikey", "api-key", "api_key", "session", "credential", "card"];
    let variable = String::from_utf8_lossy(variable).to_ascii_lowercase();
    let (collection, member) = variable.split_once(':').unwrap_or((&variable, ""));
    // Names are told: they are what a rule about names matched.
    let names = collection.ends_with("_names");
    !names
        && (collection == "request_cookies"
            || (collection.ends_with("_headers") && HEADERS.contains(&member))
            || WORDS.iter().any(|word| member.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_where_they_are() {
        for (variable, secret) in [
            ("REQUEST_COOKIES:sid", true),
            ("REQUEST_COOKIES_NAMES:sid", false),
            ("REQUEST_HEADERS:Authorization", true),
            ("REQUEST_HEADERS:X-Api-Key", true),
            ("REQUEST_HEADERS:User-Agent", false),
            ("ARGS:newPassword", true),
            ("ARGS:json.user.access_token", true),
            ("ARGS:q", false),
            ("REQUEST_URI", false),
            ("TX:0", false),
        ] {
            assert_eq!(is_secret(variable.as_bytes()), secret, "{variable}");
        }
    }
}
