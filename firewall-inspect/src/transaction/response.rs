//! The variables of an answer.

use super::{Transaction, Worker};
use crate::{
    rules::{BodySettings, rule::Source},
    seclang::{Phase, Variable},
};

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    pub status: u16,
    /// `HTTP/1.1`.
    pub protocol: &'static str,
    pub fields: &'a [(&'a [u8], &'a [u8])],
}

impl Transaction {
    /// The head of the answer has come: phase 3.
    pub fn response_head(&mut self, worker: &mut Worker, answer: &Answer<'_>) {
        let store = &mut self.store;
        store.put_one(Variable::ResponseStatus, answer.status.to_string().as_bytes());
        store.put_one(Variable::ResponseProtocol, answer.protocol.as_bytes());
        store.put_one(Variable::StatusLine, format!("{} {}", answer.protocol, answer.status).as_bytes());
        for (name, value) in answer.fields {
            store.put(Source::of(Variable::ResponseHeaders), name, value);
        }
        store.put_names(Variable::ResponseHeaders, Variable::ResponseHeadersNames);
        let one = |wanted: &[u8]| answer.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        if let Some((_, media)) = one(b"content-type") {
            let end = media.iter().position(|byte| *byte == b';').unwrap_or(media.len());
            store.put_one(Variable::ResponseContentType, media[..end].trim_ascii());
        }
        self.phase(worker, Phase::ResponseHeaders);
    }

    /// Whether the body of an answer of this type is to be looked at. Parameters of the type do not matter.
    pub fn wants_response_body(&self, content_type: &[u8]) -> bool {
        let end = content_type.iter().position(|byte| *byte == b';').unwrap_or(content_type.len());
        let media = content_type[..end].trim_ascii();
        let mut types = self.rules.settings.response_types.iter();
        self.state.response_body && types.any(|wanted| media.eq_ignore_ascii_case(wanted.as_bytes()))
    }

    /// How much of the answer's body is looked at.
    pub fn response_body_settings(&self) -> BodySettings {
        self.rules.settings.response_body
    }

    /// The body of the answer has come, decoded, or as much of it as is looked at: phase 4.
    pub fn response_body(&mut self, worker: &mut Worker, body: &[u8]) {
        self.state.budget.grant(body.len());
        self.store.put_one(Variable::ResponseContentLength, body.len().to_string().as_bytes());
        self.store.put_one(Variable::ResponseBody, body);
        self.phase(worker, Phase::ResponseBody);
    }
}
