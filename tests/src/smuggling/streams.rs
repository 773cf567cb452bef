//! HTTP/2 on its way to an upstream that speaks HTTP/1: what no library would send, and what must not become a second
//! request or another header there.

use bytes::Bytes;

use super::{SMUGGLED, Sent};
use crate::http::http2::{frame, preface};

/// One stream, as frames.
#[derive(Clone, Debug)]
pub struct Stream {
    pub what: &'static str,
    /// Names and values as sent, pseudo-headers among them.
    pub fields: Vec<(&'static str, &'static str)>,
    /// The DATA frames; without any, the headers end the stream.
    pub data: Vec<&'static str>,
    /// Behind the data.
    pub trailers: Vec<(&'static str, &'static str)>,
    /// What the upstream must receive; nothing, if there is none.
    pub forwarded: Option<Sent>,
    /// A header that it must have, once and with this value.
    pub has: Option<(&'static str, &'static str)>,
}

impl Stream {
    fn new(what: &'static str, fields: &[(&'static str, &'static str)]) -> Self {
        let (data, trailers) = (Vec::new(), Vec::new());
        Self { what, fields: fields.to_vec(), data, trailers, forwarded: None, has: None }
    }

    fn data(mut self, data: &[&'static str]) -> Self {
        self.data = data.to_vec();
        self
    }

    fn trailers(mut self, trailers: &[(&'static str, &'static str)]) -> Self {
        self.trailers = trailers.to_vec();
        self
    }

    fn sends(mut self, method: &'static str, target: &'static str, body: &'static str) -> Self {
        self.forwarded = Some(Sent { method, target, body: body.as_bytes() });
        self
    }

    fn has(mut self, name: &'static str, value: &'static str) -> Self {
        self.has = Some((name, value));
        self
    }

    /// A connection with this stream.
    pub fn bytes(&self) -> Vec<u8> {
        const END_STREAM: u8 = 1;
        const END_HEADERS: u8 = 4;
        let ends = |last| if last { END_STREAM } else { 0 };
        let whole = self.data.is_empty() && self.trailers.is_empty();
        let mut frames: Vec<Bytes> = vec![preface(), frame(1, END_HEADERS | ends(whole), 1, &encoded(&self.fields))];
        for (number, data) in self.data.iter().enumerate() {
            let last = number + 1 == self.data.len() && self.trailers.is_empty();
            frames.push(frame(0, ends(last), 1, data.as_bytes()));
        }
        if !self.trailers.is_empty() {
            frames.push(frame(1, END_HEADERS | END_STREAM, 1, &encoded(&self.trailers)));
        }
        frames.concat()
    }
}

/// Literals that are not indexed (RFC 7541 section 6.2.2), with names and values of less than 127 bytes.
fn encoded(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        assert!(name.len() < 127 && value.len() < 127, "{name}: {value}");
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", "api.test");
const GET: (&str, &str) = (":method", "GET");
const POST: (&str, &str) = (":method", "POST");
const PATH: (&str, &str) = (":path", "/x");

pub fn streams() -> Vec<Stream> {
    let get = |what, field| Stream::new(what, &[GET, SCHEME, AUTHORITY, PATH, field]);
    let post = |what, field| Stream::new(what, &[POST, SCHEME, AUTHORITY, PATH, field]).data(&["abcde"]);
    let path = |what, path| Stream::new(what, &[GET, SCHEME, AUTHORITY, (":path", path)]);
    let authority = |what, name| Stream::new(what, &[GET, SCHEME, (":authority", name), PATH]);
    vec![
        get("a header", ("x", "y")).sends("GET", "/x", "").has("x", "y"),
        Stream::new("cookie crumbs", &[GET, SCHEME, AUTHORITY, PATH, ("cookie", "a=b"), ("x", "y"), ("cookie", "c=d")])
            .sends("GET", "/x", "")
            .has("cookie", "a=b; c=d"),
        Stream::new("Host in place of :authority", &[GET, SCHEME, PATH, ("host", "api.test")])
            .sends("GET", "/x", "")
            .has("host", "api.test"),
        get("Host beside :authority, and they agree", ("host", "api.test"))
            .sends("GET", "/x", "")
            .has("host", "api.test"),
        get("Host beside :authority, and they differ", ("host", "other.test")),
        Stream::new("no host at all", &[GET, SCHEME, PATH]),
        post("DATA without a length", ("x", "y")).sends("POST", "/x", "abcde").has("transfer-encoding", "chunked"),
        post("a length that is right", ("content-length", "5")).sends("POST", "/x", "abcde").has("content-length", "5"),
        post("a request as DATA", ("x", "y")).data(&[SMUGGLED, SMUGGLED]).sends(
            "POST",
            "/x",
            "GET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n",
        ),
        post("chunks as DATA", ("x", "y")).data(&["0\r\n\r\n", SMUGGLED]).sends(
            "POST",
            "/x",
            "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n",
        ),
        get("a GET with DATA", ("x", "y")).data(&["abcde"]).sends("GET", "/x", "abcde"),
        post("a length greater than the DATA", ("content-length", "50")),
        post("a length smaller than the DATA", ("content-length", "3")),
        post("a length smaller than the second DATA", ("content-length", "5")).data(&["abcde", SMUGGLED]),
        get("a length without DATA", ("content-length", "42")),
        post("a length that is no number", ("content-length", "+5")),
        post("a list of lengths", ("content-length", "5, 5")),
        Stream::new("two lengths", &[POST, SCHEME, AUTHORITY, PATH, ("content-length", "5"), ("content-length", "5")])
            .data(&["abcde"]),
        post("a length with an underscore", ("content_length", "0")),
        post("a coding", ("transfer-encoding", "chunked")).data(&["0\r\n\r\n", SMUGGLED]),
        post("a coding with an underscore", ("transfer_encoding", "chunked")),
        get("Connection", ("connection", "close")),
        get("Connection that names a header", ("connection", "authorization")),
        get("Keep-Alive", ("keep-alive", "timeout=5")),
        get("Proxy-Connection", ("proxy-connection", "keep-alive")),
        get("Upgrade", ("upgrade", "websocket")),
        get("TE other than trailers", ("te", "chunked")),
        get("TE: trailers", ("te", "trailers")).sends("GET", "/x", ""),
        get("Expect", ("expect", "100-continue")).sends("GET", "/x", ""),
        get("Expect something else", ("expect", "200-ok")),
        get("a request in a value", ("x", "y\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: api.test")),
        get("a header in a value", ("x", "y\r\ntransfer-encoding: chunked")),
        get("a line feed in a value", ("x", "y\ntransfer-encoding: chunked")),
        get("a carriage return in a value", ("x", "y\rz")),
        get("NUL in a value", ("x", "y\0z")),
        get("white space around a value", ("x", " y ")),
        get("a header in a name", ("x: y\r\ntransfer-encoding", "chunked")),
        get("a colon in a name", ("transfer-encoding: chunked\r\nx", "y")),
        get("a space behind a name", ("content-length ", "0")),
        get("capital letters in a name", ("Content-Length", "0")),
        get("no name", ("", "y")),
        path("a space in :path", "/x HTTP/1.1"),
        path("a request in :path", "/x HTTP/1.1\r\nHost: api.test\r\n\r\nGET /smuggled"),
        path("a URL as :path", "http://other.test/smuggled"),
        path("no slash in :path", "smuggled"),
        path("an empty :path", ""),
        path("a question mark as :path", "?x"),
        path("an asterisk as :path of GET", "*"),
        path("dot segments in :path", "/a/../x").sends("GET", "/x", ""),
        path("above the root in :path", "/../smuggled"),
        path("an encoded line end in :path", "/x%0d%0aX:%20y"),
        // The HTTP/2 layer takes it away, as a client should have.
        path("a fragment in :path", "/x#/../smuggled").sends("GET", "/x", ""),
        path("a backslash in :path", "/x\\..\\smuggled"),
        Stream::new("a request as :method", &[(":method", "GET /smuggled HTTP/1.1\r\nX:"), SCHEME, AUTHORITY, PATH]),
        Stream::new("a space in :method", &[(":method", "GET /smuggled"), SCHEME, AUTHORITY, PATH]),
        Stream::new("an empty :method", &[(":method", ""), SCHEME, AUTHORITY, PATH]),
        Stream::new("a URL as :scheme", &[GET, (":scheme", "http://other.test/smuggled?"), AUTHORITY, PATH]),
        Stream::new("another scheme", &[GET, (":scheme", "file"), AUTHORITY, PATH]),
        authority("a path in :authority", "api.test/smuggled"),
        authority("a header in :authority", "api.test\r\nX: y"),
        authority("user information in :authority", "api.test@other.test"),
        authority("an empty :authority", ""),
        authority("a list as :authority", "api.test,other.test"),
        Stream::new("two :paths", &[GET, SCHEME, AUTHORITY, PATH, (":path", "/smuggled")]),
        Stream::new("two :methods", &[GET, POST, SCHEME, AUTHORITY, PATH]),
        Stream::new("a pseudo-header behind a header", &[GET, SCHEME, AUTHORITY, ("x", "y"), PATH]),
        Stream::new("an unknown pseudo-header", &[GET, SCHEME, AUTHORITY, PATH, (":x", "y")]),
        Stream::new("an answer's pseudo-header", &[GET, SCHEME, AUTHORITY, PATH, (":status", "200")]),
        Stream::new("no :path", &[GET, SCHEME, AUTHORITY]),
        Stream::new("no :method", &[SCHEME, AUTHORITY, PATH]),
        Stream::new("CONNECT", &[(":method", "CONNECT"), (":authority", "api.test:443")]),
        Stream::new(
            "CONNECT for a WebSocket",
            &[(":method", "CONNECT"), (":protocol", "websocket"), SCHEME, AUTHORITY, PATH],
        ),
        Stream::new("trailers", &[POST, SCHEME, AUTHORITY, PATH])
            .data(&["abcde"])
            .trailers(&[("x-sum", "1"), ("content-length", "0"), ("authorization", "Basic YQ==")])
            .sends("POST", "/x", "abcde"),
        Stream::new("trailers with a pseudo-header", &[POST, SCHEME, AUTHORITY, PATH])
            .data(&["abcde"])
            // The HTTP/2 layer takes it away.
            .trailers(&[(":path", "/smuggled")])
            .sends("POST", "/x", "abcde"),
        Stream::new(
            "what routes and names clients",
            &[
                GET,
                SCHEME,
                AUTHORITY,
                PATH,
                ("x-original-url", "/smuggled"),
                ("x_forwarded_for", "10.0.0.1"),
                ("x!real!ip", "10.0.0.1"),
            ],
        )
        .sends("GET", "/x", "")
        .has("x-forwarded-for", "192.0.2.2"),
    ]
}
