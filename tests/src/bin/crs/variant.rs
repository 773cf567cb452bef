//! The same request, said in another way that must not change the verdict.

use crate::{
    request::{Message, Request},
    suite::Stage,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Variant {
    /// As the suite has it
    #[default]
    Plain,
    /// With a browser's User-Agent where the suite has its own
    UserAgent,
    /// With bodies in chunks
    Chunked,
    /// By HTTP/2
    Http2,
}

/// How the suites call themselves.
const OURS: [&str; 3] = ["OWASP CRS test agent", "OWASP ModSecurity Core Rule Set", "ModSecurity CRS 3 Tests"];
const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
/// Bytes of a chunk: what is looked for is cut in pieces.
const CHUNK: usize = 7;
/// Rules about Content-Length itself.
const ABOUT_LENGTH: [&str; 3] = ["920160-", "920170-", "920340-"];
/// Headers that belong to one connection, which HTTP/2 forbids (RFC 9113 section 8.2.2). go-ftw's own `Connection: close` has
/// nothing to say there.
const OF_CONNECTION: [&str; 5] = ["keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te"];

impl Variant {
    /// `None` where the request cannot be said like this, would be no other, or is about what changes.
    pub(crate) fn of(self, stage: &Stage) -> Option<Request> {
        if self == Self::Plain {
            return Some(stage.request.clone());
        }
        let Request::Built(message) = &stage.request else { return None };
        let message = match self {
            Self::Plain => None,
            Self::UserAgent => with_browser(message),
            Self::Chunked if ABOUT_LENGTH.iter().any(|rule| stage.title.starts_with(rule)) => None,
            Self::Chunked => in_chunks(message),
            Self::Http2 => in_http2(message),
        };
        message.map(Request::Built)
    }
}

fn with_browser(message: &Message) -> Option<Message> {
    let mut message = message.clone();
    let agent = message.fields.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case("user-agent"))?;
    if !OURS.contains(&&agent.1[..]) {
        return None;
    }
    agent.1 = BROWSER.into();
    Some(message)
}

fn in_chunks(message: &Message) -> Option<Message> {
    let honest = message.header("content-length")? == message.body.len().to_string();
    if !honest
        || message.body.is_empty()
        || message.version != "HTTP/1.1"
        || message.header("transfer-encoding").is_some()
    {
        return None;
    }
    let mut message = message.clone();
    let length = message.fields.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    *length = ("Transfer-Encoding".into(), "chunked".into());
    let chunk = |chunk: &[u8]| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
    message.body = message.body.chunks(CHUNK).flat_map(chunk).chain(*b"0\r\n\r\n").collect();
    Some(message)
}

fn in_http2(message: &Message) -> Option<Message> {
    let mut message = message.clone();
    let close = |(name, value): &(String, String)| name.eq_ignore_ascii_case("connection") && value == "close";
    message.fields.retain(|field| !close(field));
    let forbidden = |name: &str| name == "connection" || OF_CONNECTION.contains(&name);
    let names = message.fields.iter().map(|(name, _)| name.to_ascii_lowercase());
    if message.version != "HTTP/1.1" || !message.target.starts_with('/') || names.clone().any(|name| forbidden(&name)) {
        return None;
    }
    // Its frames say how long a body is; another length is malformed (section 8.1.1).
    // Without any, HTTP/1 has no body.
    let length = message.header("content-length").unwrap_or("0");
    if length != message.body.len().to_string() {
        return None;
    }
    // Values stand there without space around them (section 8.2.1); and there is one host.
    let trimmed = message.fields.iter().all(|(_, value)| value.trim_ascii() == value);
    if !trimmed || names.filter(|name| name == "host").count() != 1 {
        return None;
    }
    message.to_http().is_some().then_some(message)
}

impl Message {
    /// As a client library takes it; `None` if it does not.
    pub(crate) fn to_http(&self) -> Option<http::Request<()>> {
        let host = self.header("host")?;
        let uri = http::Uri::builder().scheme("http").authority(host).path_and_query(&self.target[..]).build().ok()?;
        // A fragment and the like would be lost.
        if uri.path_and_query()?.as_str() != self.target {
            return None;
        }
        let mut request = http::Request::builder().method(&self.method[..]).uri(uri);
        for (name, value) in &self.fields {
            if !name.eq_ignore_ascii_case("host") {
                request = request.header(&name[..], value.as_bytes());
            }
        }
        request.body(()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Expected;

    fn message(fields: &[(&str, &str)], body: &str) -> Message {
        Message {
            method: "POST".into(),
            target: "/x?y=1".into(),
            version: "HTTP/1.1".into(),
            fields: fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            body: body.into(),
        }
    }

    fn of(variant: Variant, title: &str, message: Message) -> Option<Request> {
        variant.of(&Stage { title: title.into(), request: Request::Built(message), expected: Expected::default() })
    }

    fn said(variant: Variant, message: Message) -> Option<String> {
        let bytes = of(variant, "942100-1", message)?.bytes();
        Some(String::from_utf8(bytes).unwrap().replace("\r\n", "|"))
    }

    #[test]
    fn each_changes_one_thing() {
        let agent = ("User-Agent", "OWASP CRS test agent");
        let request = said(Variant::UserAgent, message(&[agent, ("A", "b")], "")).unwrap();
        assert_eq!(request, format!("POST /x?y=1 HTTP/1.1|User-Agent: {BROWSER}|A: b||"));
        assert_eq!(said(Variant::UserAgent, message(&[("User-Agent", "Nikto")], "")), None);

        let request = said(Variant::Chunked, message(&[("content-length", "10")], "0123456789")).unwrap();
        assert_eq!(request, "POST /x?y=1 HTTP/1.1|Transfer-Encoding: chunked||7|0123456|3|789|0||");
        for fields in [&[][..], &[("Content-Length", "9")], &[("Content-Length", "10"), ("Transfer-Encoding", "x")]] {
            assert_eq!(said(Variant::Chunked, message(fields, "0123456789")), None, "{fields:?}");
        }
        assert_eq!(of(Variant::Chunked, "920170-2", message(&[("Content-Length", "1")], "a")), None);
    }

    #[test]
    fn http_2_can_say_less() {
        let host = ("Host", "localhost");
        let good = message(&[host, ("Connection", "close"), ("Content-Length", "1")], "a");
        let Some(Request::Built(said)) = of(Variant::Http2, "", good) else { panic!() };
        let request = said.to_http().unwrap();
        assert_eq!(request.uri(), "http://localhost/x?y=1");
        assert_eq!(request.headers().len(), 1);
        for bad in [
            message(&[], ""),
            message(&[host, host], ""),
            message(&[host, ("Keep-Alive", "300")], ""),
            message(&[host, ("Connection", "x")], ""),
            message(&[host, ("Content-Length", "2")], "a"),
            message(&[host], "a"),
            message(&[host, ("a b", "")], ""),
            message(&[host, ("a", "b ")], ""),
            message(&[("Host", "a b")], ""),
            Message { version: "HTTP/1.0".into(), ..message(&[host], "") },
            Message { target: "http://x/".into(), ..message(&[host], "") },
            Message { target: "/x#y".into(), ..message(&[host], "") },
            Message { target: "/x?y=<".into(), ..message(&[host], "") },
            Message { method: "\tGET".into(), ..message(&[host], "") },
        ] {
            assert_eq!(of(Variant::Http2, "", bad.clone()), None, "{bad:?}");
        }
    }
}
