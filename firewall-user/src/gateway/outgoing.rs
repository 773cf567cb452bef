//! The head that goes upstream in place of the client's: path in normal form, one host, one framing, no header that is the
//! client's word for who it is, and ours instead.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use firewall_inspect::{fields, forwarded, head::Head, protocol::Judged, reason::Reason};
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header};

use super::{connection::Peer, upstream::RequestFraming};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// All that it is made of.
pub(super) struct Outgoing<'r> {
    head: &'r Head,
    judged: &'r Judged,
    method: Method,
    target: Uri,
    host: Bytes,
    forwarded: Vec<u8>,
    forwarded_for: Vec<u8>,
    proto: &'static str,
    /// The answer is to come without a coding, for those who look into it.
    plain: bool,
    /// The body goes on without its content coding.
    pub(super) decoded: bool,
}

impl<'r> Outgoing<'r> {
    /// # Errors
    ///
    /// What was judged under monitoring, or came by HTTP/2, may be what nobody can send.
    pub(super) fn new(
        peer: &Peer,
        head: &'r Head,
        judged: &'r Judged,
        client: &forwarded::Client,
        plain: bool,
    ) -> Result<Self, Reason> {
        let method = Method::from_bytes(head.method()).map_err(|_| Reason::Method)?;
        let target = if judged.target.is_empty() { Bytes::from_static(b"/") } else { judged.target.clone() };
        let target = Uri::from_maybe_shared(target).map_err(|_| Reason::MalformedTarget)?;
        let host = match head.authority() {
            Some(authority) => head.raw.slice_ref(authority),
            // HTTP/1.0 goes on as HTTP/1.1, which has one: where the client went.
            None => SocketAddr::new(peer.local.ip(), peer.local.port()).to_string().into(),
        };
        let https = client.speaks_tls(peer.tls.is_some());
        Ok(Self {
            head,
            judged,
            method,
            target,
            host,
            forwarded: forwarded::forwarded(client, https, head.authority()),
            forwarded_for: forwarded::x_forwarded_for(client),
            proto: forwarded::x_forwarded_proto(https),
            plain,
            decoded: false,
        })
    }

    /// The client's headers that go on.
    fn fields(&self, http2: bool) -> Result<impl Iterator<Item = (&[u8], &[u8])>, Reason> {
        let fields = fields::upstream(self.head, http2)?;
        Ok(fields.filter(|(name, _)| {
            let is = |word: &[u8]| name.eq_ignore_ascii_case(word);
            !((self.plain && is(b"accept-encoding")) || (self.decoded && is(b"content-encoding")))
        }))
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// For an upstream that speaks HTTP/1.1.
    ///
    /// # Errors
    ///
    /// A header that cannot be sent: nothing is written then.
    pub(super) fn write(&self, output: &mut BytesMut, framing: RequestFraming) -> Result<(), Reason> {
        let start = output.len();
        let written = self.try_write(output, framing);
        if written.is_err() {
            output.truncate(start);
        }
        written
    }

    fn try_write(&self, output: &mut BytesMut, framing: RequestFraming) -> Result<(), Reason> {
        output.reserve(self.head.raw.len() + 256);
        output.extend_from_slice(self.method.as_str().as_bytes());
        output.extend_from_slice(b" ");
        output.extend_from_slice(self.target.path_and_query().map_or("/", |target| target.as_str()).as_bytes());
        output.extend_from_slice(b" HTTP/1.1\r\n");
        let mut field = |name: &[u8], value: &[u8]| {
            // Neither parser lets such a byte through. Should one do so some day, this is what an attacker would want.
            if memchr::memchr3(b'\r', b'\n', b'\0', value).is_some() {
                return Err(Reason::ControlCharacter);
            }
            for part in [name, b": ", value, b"\r\n"] {
                output.extend_from_slice(part);
            }
            Ok(())
        };
        field(b"host", &self.host)?;
        for (name, value) in self.fields(false)? {
            field(name, value)?;
        }
        if self.plain {
            field(b"accept-encoding", b"identity")?;
        }
        if let Some(token) = &self.judged.upgrade {
            field(b"connection", b"upgrade")?;
            field(b"upgrade", token)?;
        }
        field(b"forwarded", &self.forwarded)?;
        field(b"x-forwarded-for", &self.forwarded_for)?;
        field(b"x-forwarded-proto", self.proto.as_bytes())?;
        match framing {
            RequestFraming::Chunked => field(b"transfer-encoding", b"chunked")?,
            // A method that usually has a body says that there is none (RFC 9110 section 8.6).
            RequestFraming::Length(0) if !self.has_length() => {}
            RequestFraming::Length(length) => field(b"content-length", length.to_string().as_bytes())?,
        }
        output.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Whether a length goes along even if it is 0.
    fn has_length(&self) -> bool {
        self.head.values("content-length").next().is_some()
            || matches!(self.method, Method::POST | Method::PUT | Method::PATCH)
    }

    /// For an upstream that speaks HTTP/2, which names scheme and authority in the request line.
    ///
    /// # Errors
    ///
    /// A header that cannot be sent.
    pub(super) fn request(&self, tls: bool) -> Result<Request<()>, Reason> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.version_mut() = Version::HTTP_2;
        let authority = std::str::from_utf8(&self.host).unwrap_or("localhost");
        let path = self.target.path_and_query().map_or("/", |path| path.as_str());
        let scheme = if tls { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
        *request.uri_mut() = uri.map_err(|_| Reason::MalformedTarget)?;
        let headers = request.headers_mut();
        headers.reserve(self.head.fields.len() + 4);
        let value = |bytes: Bytes| HeaderValue::from_maybe_shared(bytes).map_err(|_| Reason::ControlCharacter);
        for (name, sent) in self.fields(true)? {
            let name = HeaderName::from_bytes(name).map_err(|_| Reason::HeaderName)?;
            headers.append(name, value(self.head.raw.slice_ref(sent))?);
        }
        if self.plain {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        headers.insert(header::FORWARDED, value(self.forwarded.clone().into())?);
        headers.insert(X_FORWARDED_FOR, value(self.forwarded_for.clone().into())?);
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.proto));
        Ok(request)
    }
}
