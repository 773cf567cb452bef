//! What a rule set says of the engine: how much is looked at, and what becomes of the rest.

use crate::seclang::{Access, Directive, EngineMode, LimitAction};

/// The engine's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `None`: the rule set does not say.
    pub engine: Option<EngineMode>,
    pub request_body: BodySettings,
    pub response_body: BodySettings,
    /// MIME types of responses whose bodies are looked at, in lower case.
    pub response_types: Vec<String>,
    /// Arguments of a request, at most.
    pub arguments: usize,
    /// Objects and arrays within one another, at most.
    pub json_depth: usize,
    pub separator: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodySettings {
    pub inspected: bool,
    /// In bytes.
    pub limit: u64,
    /// In bytes, files aside.
    pub no_files_limit: u64,
    pub over_limit: LimitAction,
}

impl Default for Settings {
    /// As the recommended configuration of ModSecurity v3 has it, but for bodies of responses: 512 KiB of text are looked at.
    fn default() -> Self {
        Self {
            engine: None,
            request_body: BodySettings {
                inspected: true,
                limit: 13_107_200,
                no_files_limit: 131_072,
                over_limit: LimitAction::Reject,
            },
            response_body: BodySettings {
                inspected: true,
                limit: 524_288,
                no_files_limit: u64::MAX,
                over_limit: LimitAction::ProcessPartial,
            },
            response_types: ["text/plain", "text/html", "text/xml", "application/json"].map(Into::into).into(),
            arguments: 32_768,
            json_depth: 512,
            separator: b'&',
        }
    }
}

impl Settings {
    /// Follows a directive, if it is about these.
    pub(super) fn apply(&mut self, directive: &Directive) {
        match directive {
            Directive::RuleEngine(mode) => self.engine = Some(*mode),
            Directive::RequestBody(access) => self.request_body.apply(access),
            Directive::ResponseBody(access) => self.response_body.apply(access),
            Directive::RequestBodyJsonDepthLimit(depth) => self.json_depth = *depth as usize,
            Directive::ResponseBodyMimeTypes(types) => self.response_types.extend(types.iter().cloned()),
            Directive::ResponseBodyMimeTypesClear => self.response_types.clear(),
            Directive::ArgumentSeparator(separator) => self.separator = *separator,
            Directive::ArgumentsLimit(limit) => self.arguments = *limit as usize,
            _ => {}
        }
    }
}

impl BodySettings {
    fn apply(&mut self, access: &Access) {
        match access {
            Access::Inspected(inspected) => self.inspected = *inspected,
            Access::Limit(limit) => self.limit = *limit,
            Access::NoFilesLimit(limit) => self.no_files_limit = *limit,
            Access::OverLimit(action) => self.over_limit = *action,
        }
    }
}
