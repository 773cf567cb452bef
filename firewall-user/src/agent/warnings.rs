//! What an operator should know: each warning stands in `status` for as long as it holds, and once in the log.

use std::{
    collections::BTreeMap,
    time::{Instant, SystemTime},
};

use super::core::Core;
use crate::gateway::tls;

impl Core {
    /// Sets or, with `None`, lifts the warning about `subject`.
    pub fn warn(&mut self, subject: &str, warning: Option<String>) {
        match warning {
            Some(text) if self.warnings.get(subject) != Some(&text) => {
                tracing::warn!("{text}");
                self.warnings.insert(subject.to_owned(), text);
            }
            Some(_) => {}
            None => {
                self.warnings.remove(subject);
            }
        }
    }

    pub fn warnings(&self) -> Vec<String> {
        self.warnings.values().cloned().collect()
    }

    /// Says which APIs have trouble.
    pub fn warn_of_apis(&mut self) {
        let troubles = self.gateway.troubles();
        self.warn_each("api ", troubles.into_iter().map(|(name, trouble)| (name.to_string(), trouble)));
    }

    /// Says which certificates should be put right.
    pub fn warn_of_certificates(&mut self) {
        self.certificates_seen = Instant::now();
        let served = self.config.apis.iter().filter_map(|api| Some((&api.name, api.tls.as_ref()?)));
        let notices = served.flat_map(|(name, tls)| {
            // What cannot be read by now is told when it is to be served.
            let notices = tls::notices(tls, SystemTime::now()).unwrap_or_default().into_iter().enumerate();
            notices.map(move |(index, notice)| (format!("{name} {index}"), format!("API `{name}`: {notice}")))
        });
        let notices: Vec<_> = notices.collect();
        self.warn_each("certificate ", notices.into_iter());
    }

    /// Sets these warnings, whose subjects begin with `kind`, and lifts all others of that kind.
    fn warn_each(&mut self, kind: &str, warnings: impl Iterator<Item = (String, String)>) {
        let warnings: BTreeMap<String, String> =
            warnings.map(|(subject, text)| (format!("{kind}{subject}"), text)).collect();
        self.warnings.retain(|subject, _| !subject.starts_with(kind) || warnings.contains_key(subject));
        for (subject, text) in warnings {
            self.warn(&subject, Some(text));
        }
    }
}
