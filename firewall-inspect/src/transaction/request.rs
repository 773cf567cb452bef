//! The variables of a request.

use std::borrow::Cow;

use super::{Transaction, Worker};
use crate::{
    arguments::{self, ArgumentError, Limits, Pair},
    body::{multipart, xml},
    head::{Head, Version},
    rules::{BodySettings, rule::Source},
    seclang::{BodyProcessor, EngineMode, Phase, Variable},
};

/// Why a body could not be read as what it says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyProblem {
    /// It is beyond a limit, and not merely malformed.
    pub limit: bool,
    pub message: String,
}

impl Transaction {
    /// The head of the request has come: phase 1.
    pub fn request_head(&mut self, worker: &mut Worker, head: &Head) {
        self.state.budget.grant(head.raw.len());
        self.head(head);
        self.phase(worker, Phase::RequestHeaders);
    }

    /// How much of the request's body rules are to see. `None`: nothing, as no rule could look into it.
    pub fn request_body_settings(&self) -> Option<BodySettings> {
        let wanted = self.state.request_body && (self.state.processor.is_some() || self.state.force_body);
        let settings = self.rules.settings.request_body;
        let files = self.state.processor == Some(BodyProcessor::Multipart);
        let limit = if files { settings.limit } else { settings.limit.min(settings.no_files_limit) };
        wanted.then_some(BodySettings { limit, ..settings })
    }

    /// What rules say is carried out.
    pub fn enforces(&self) -> bool {
        self.state.engine == EngineMode::On
    }

    /// The body of the request has come, as the sender meant it: without chunks, decoded. Phase 2. What is wrong with the body is
    /// for rules to judge (REQBODY_ERROR), and told.
    pub fn request_body(&mut self, worker: &mut Worker, body: &[u8]) -> Option<BodyProblem> {
        self.state.budget.grant(body.len());
        let problem = if self.state.request_body { self.body(body) } else { None };
        self.phase(worker, Phase::RequestBody);
        problem
    }

    fn limits(&self) -> Limits {
        Limits { count: self.rules.settings.arguments, depth: self.rules.settings.json_depth }
    }

    fn head(&mut self, head: &Head) {
        let target = head.bytes(head.raw_target);
        let protocol = match head.version {
            Version::Http2 => b"HTTP/2",
            // As sent: it may be one that goes no further.
            Version::Http10 | Version::Http11 => {
                let behind = &head.raw[head.raw_target.range().end..];
                match behind.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default().trim_ascii() {
                    b"" => b"HTTP/0.9",
                    protocol => protocol,
                }
            }
        };
        let (path, query) = match memchr::memchr(b'?', target) {
            Some(at) => (&target[..at], &target[at + 1..]),
            None => (target, &b""[..]),
        };
        let store = &mut self.store;
        store.put_one(Variable::RequestMethod, head.method());
        store.put_one(Variable::RequestProtocol, protocol);
        store.put_one(Variable::RequestLine, &[head.method(), b" ", target, b" ", protocol].concat());
        store.put_one(Variable::RequestUriRaw, target);
        store.put_one(Variable::QueryString, query);
        let decoded = percent_decoded(path);
        store.put_one(Variable::PathInfo, &decoded);
        store.put_one(Variable::RequestFilename, &decoded);
        if let Some(at) = decoded.iter().rposition(|byte| matches!(byte, b'/' | b'\\')) {
            // Empty, but there, for a folder.
            store.put(Source::of(Variable::RequestBasename), b"", &decoded[at + 1..]);
        }
        store.put_one(Variable::RequestUri, without_host(&percent_decoded(target)));
        for field in &head.fields {
            store.put(Source::of(Variable::RequestHeaders), head.bytes(field.name), head.bytes(field.value));
        }
        store.put_names(Variable::RequestHeaders, Variable::RequestHeadersNames);
        if let Some(host) = &head.host {
            store.put_one(Variable::ServerName, host.as_bytes());
        }
        if let Some(authorization) = head.values("authorization").next() {
            let scheme = authorization.split(|byte| *byte == b' ').next().unwrap_or_default();
            store.put_one(Variable::AuthType, scheme);
        }
        let limits = self.limits();
        for value in head.values("cookie") {
            // The head's own limits are far below any number of cookies that would matter.
            for pair in arguments::cookies(value, &Limits { count: usize::MAX, ..limits }).unwrap_or_default() {
                self.store.put(Source::of(Variable::RequestCookies), &pair.name, &pair.value);
            }
        }
        self.store.put_names(Variable::RequestCookies, Variable::RequestCookiesNames);
        let found =
            arguments::url_encoded(query, self.rules.settings.separator, &Limits { count: usize::MAX, ..limits });
        if let Ok(found) = found {
            for pair in &found.pairs {
                self.store.put(Source::of(Variable::ArgsGet), &pair.name, &pair.value);
            }
            self.store.put_names(Variable::ArgsGet, Variable::ArgsGetNames);
            if found.malformed {
                self.store.put_one(Variable::UrlencodedError, b"1");
            }
        }
        self.state.processor = head.values("content-type").next().and_then(processor);
    }

    fn body(&mut self, body: &[u8]) -> Option<BodyProblem> {
        let limits = self.limits();
        let length = body.len().to_string();
        if !body.is_empty() {
            self.store.put_one(Variable::RequestBodyLength, length.as_bytes());
        }
        let mut problem = None;
        match self.state.processor {
            _ if body.is_empty() => {}
            Some(BodyProcessor::UrlEncoded) => {
                match arguments::url_encoded(body, self.rules.settings.separator, &limits) {
                    Ok(found) => {
                        self.arguments(&found.pairs);
                        if found.malformed && self.store.first(Variable::UrlencodedError, None).is_none() {
                            self.store.put_one(Variable::UrlencodedError, b"1");
                        }
                    }
                    Err(error) => problem = Some(BodyProblem::of(&error)),
                }
            }
            Some(BodyProcessor::Json) => match arguments::json(body, &limits) {
                Ok(pairs) => self.arguments(&pairs),
                Err(error) => {
                    let told = BodyProblem::of(&error);
                    problem = Some(BodyProblem { message: format!("JSON: {}", told.message), ..told });
                }
            },
            Some(BodyProcessor::Xml) => problem = self.xml(body),
            Some(BodyProcessor::Multipart) => problem = self.multipart(body),
            None => {}
        }
        // What forms with files and XML hold is there piece by piece; the whole of it would be judged for what no reader makes of it.
        if !matches!(self.state.processor, Some(BodyProcessor::Multipart | BodyProcessor::Xml)) || self.state.force_body
        {
            self.store.put_one(Variable::RequestBody, body);
        }
        let error: &[u8] = if problem.is_some() { b"1" } else { b"0" };
        self.store.put_one(Variable::ReqbodyError, error);
        self.store.put_one(Variable::ReqbodyProcessorError, error);
        if let Some(problem) = &problem {
            self.store.put_one(Variable::ReqbodyErrorMsg, problem.message.as_bytes());
            self.store.put_one(Variable::ReqbodyProcessorErrorMsg, problem.message.as_bytes());
        }
        problem
    }

    fn arguments(&mut self, pairs: &[Pair<'_>]) {
        for pair in pairs {
            self.store.put(Source::of(Variable::ArgsPost), &pair.name, &pair.value);
        }
        self.store.put_names(Variable::ArgsPost, Variable::ArgsPostNames);
    }
}

impl BodyProblem {
    fn of(error: &ArgumentError) -> Self {
        Self { limit: error.is_limit(), message: error.to_string() }
    }
}

/// What reads a body of this type.
fn processor(content_type: &[u8]) -> Option<BodyProcessor> {
    let end = content_type.iter().position(|byte| matches!(byte, b';' | b' ' | b'\t' | b','));
    let media = content_type[..end.unwrap_or(content_type.len())].to_ascii_lowercase();
    // As ModSecurity's recommended rules have it, and for more types of XML and JSON than those: what begins with a name counts.
    let is_one_of = |names: &[&str]| names.iter().any(|name| media.starts_with(name.as_bytes()));
    if is_one_of(&["application/x-www-form-urlencoded"]) {
        Some(BodyProcessor::UrlEncoded)
    } else if is_one_of(&["multipart/form-data"]) {
        Some(BodyProcessor::Multipart)
    } else if is_one_of(&["application/json", "text/json"]) || media.ends_with(b"+json") {
        Some(BodyProcessor::Json)
    } else if is_one_of(&["application/xml", "text/xml"]) || media.ends_with(b"+xml") {
        Some(BodyProcessor::Xml)
    } else {
        None
    }
}

/// With every `%` and its two digits as the byte that they mean; whatever else stays.
fn percent_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let (mut decoded, mut at) = (Vec::with_capacity(text.len()), 0);
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(decoded)
}

/// An absolute URL from its path on; anything else as it is.
fn without_host(target: &[u8]) -> &[u8] {
    if target.first() == Some(&b'/') {
        return target;
    }
    let authority = memchr::memmem::find(target, b"://").map(|at| at + 3);
    let path = authority.and_then(|start| memchr::memchr(b'/', &target[start..]).map(|at| start + at));
    path.map_or(target, |at| &target[at..])
}

/// Parts of a form, elements of XML and the like, at most, beside what the rule set says of arguments.
const NODES: usize = 100_000;
/// Elements of XML within one another, as libxml2 has it.
const XML_DEPTH: usize = 256;
/// What a variable holds of a file: its part, and its name as the client gave it.
type OfFile = fn(&multipart::Part<'_>, &[u8]) -> Vec<u8>;

/// Bytes of the headers of one part.
const PART_HEADERS: usize = 16 << 10;

impl Transaction {
    fn xml(&mut self, body: &[u8]) -> Option<BodyProblem> {
        let limits = xml::Limits { depth: XML_DEPTH, nodes: NODES };
        match xml::read(body, &limits) {
            Ok(document) => {
                if !document.text.is_empty() {
                    self.store.put(Source::of(Variable::Xml), b"/*", &document.text);
                }
                for value in &document.attributes {
                    self.store.put(Source::XML_ATTRIBUTES, b"//@*", value);
                }
                None
            }
            Err(error) => Some(BodyProblem { limit: error.limit, message: error.message }),
        }
    }

    fn multipart(&mut self, body: &[u8]) -> Option<BodyProblem> {
        let limits = multipart::Limits { parts: self.rules.settings.arguments, headers: PART_HEADERS };
        let content_type =
            self.store.first(Variable::RequestHeaders, Some(b"content-type")).unwrap_or_default().to_vec();
        let (form, result) = multipart::read(&content_type, body, &limits);
        let named = || form.parts.iter().filter_map(|part| part.filename.as_ref().map(|filename| (part, filename)));
        let files = || named().filter(|(part, _)| part.is_file());
        let pairs: Vec<Pair<'_>> = form
            .parts
            .iter()
            .filter(|part| !part.is_file())
            .map(|part| Pair { name: Cow::Borrowed(&part.name), value: Cow::Borrowed(part.content) })
            .collect();
        self.arguments(&pairs);
        let store = &mut self.store;
        let headers = form.parts.iter().flat_map(|part| part.headers.iter().map(|header| (&part.name[..], header)));
        for (name, header) in headers.chain(form.unread.iter().map(|header| (&b""[..], header))) {
            store.put(Source::of(Variable::MultipartPartHeaders), name, header);
        }
        for part in &form.parts {
            store.put(Source::of(Variable::MultipartName), &part.name, &part.name);
        }
        for (_, filename) in named() {
            store.put(Source::of(Variable::MultipartFilename), filename, filename);
        }
        let each: [(Variable, OfFile); 4] = [
            (Variable::Files, |_, filename| filename.to_vec()),
            (Variable::FilesNames, |part, _| part.name.clone()),
            (Variable::FilesSizes, |part, _| part.content.len().to_string().into_bytes()),
            (Variable::FilesTmpContent, |part, _| part.content.to_vec()),
        ];
        for (variable, value) in each {
            for (part, filename) in files() {
                store.put(Source::of(variable), &part.name, &value(part, filename));
            }
        }
        let size: usize = files().map(|(part, _)| part.content.len()).sum();
        store.put_one(Variable::FilesCombinedSize, size.to_string().as_bytes());
        let (flags, error) = (form.flags, result.err());
        let limit = error.as_ref().is_some_and(|error| error.limit);
        for (variable, flag) in [
            (Variable::MultipartStrictError, flags.is_strict_error() || error.is_some()),
            (Variable::MultipartBoundaryQuoted, flags.boundary_quoted),
            (Variable::MultipartBoundaryWhitespace, flags.boundary_whitespace),
            (Variable::MultipartDataBefore, flags.data_before),
            (Variable::MultipartDataAfter, flags.data_after),
            (Variable::MultipartHeaderFolding, flags.header_folding),
            (Variable::MultipartInvalidHeaderFolding, flags.invalid_header_folding),
            (Variable::MultipartInvalidPart, flags.invalid_part),
            (Variable::MultipartInvalidQuoting, flags.invalid_quoting),
            (Variable::MultipartLfLine, flags.lf_line),
            (Variable::MultipartCrlfLfLines, flags.crlf_lf_lines),
            (Variable::MultipartMissingSemicolon, flags.missing_semicolon),
            (Variable::MultipartFileLimitExceeded, limit),
        ] {
            store.put_one(variable, if flag { b"1" } else { b"0" });
        }
        store.put_one(Variable::MultipartUnmatchedBoundary, flags.unmatched().to_string().as_bytes());
        error.map(|error| BodyProblem { limit: error.limit, message: error.message })
    }
}
