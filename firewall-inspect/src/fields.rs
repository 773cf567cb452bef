//! Which fields pass through a gateway, in either direction.
//!
//! Out of a request go: what is about the connection (RFC 9110 section 7.6.1), what the gateway writes itself (Host, the framing,
//! who the client is), and what upstreams take for routing or for the client's address, in any spelling. What to add is not said here.

use crate::{
    class::TOKEN,
    head::{Head, Version},
    reason::Reason,
};

/// All names that are known here are shorter.
const LONGEST: usize = 32;
/// How many headers one request may declare to be about its connection.
const MOST_NAMED: usize = 16;

/// Whether a request's field goes to the upstream as it came. Names in any case; `_`, `.` and what else is neither letter nor
/// digit count as `-`, as CGI and its heirs have it.
///
/// TE does not; see [`upstream`].
pub fn goes_upstream(name: &[u8]) -> bool {
    let mut buffer = [0; LONGEST];
    let name = fold(name, &mut buffer);
    !about_connection(name)
        && !matches!(
            name,
            b"content-length"
                | b"expect"
                | b"host"
                | b"http2-settings"
                | b"proxy-authorization"
                // httpoxy: CGI turns it into HTTP_PROXY.
                | b"proxy"
        )
        && !names_client(name)
        && !reroutes(name)
}

/// Whether a response's field goes to the client as it came. Content-Length does: a response to HEAD has it without a body.
pub fn goes_downstream(name: &[u8]) -> bool {
    let mut buffer = [0; LONGEST];
    !about_connection(fold(name, &mut buffer))
}

/// Whether a request's trailer may go to an upstream that speaks HTTP/2: whoever takes trailers for headers must not learn by them of
/// framing, routing, credentials or the content's type (RFC 9110 section 6.5.1).
pub fn may_trail(name: &[u8]) -> bool {
    goes_upstream(name) && !end_to_end(fold(name, &mut [0; LONGEST]))
}

/// The fields of a request that go to the upstream, names and values as sent, in order. With `http2`, spoken by both sides, `TE:
/// trailers` is among them: gRPC wants it.
///
/// # Errors
///
/// [`Reason::ConnectionHeader`], as [`Named::in_request`].
pub fn upstream(head: &Head, http2: bool) -> Result<impl Iterator<Item = (&[u8], &[u8])>, Reason> {
    let named = Named::in_request(head.values("connection"))?;
    let te = http2 && head.version == Version::Http2;
    let fields = head.fields.iter().map(|field| (head.bytes(field.name), head.bytes(field.value)));
    Ok(fields
        .filter(move |(name, _)| (goes_upstream(name) && !named.has(name)) || (te && name.eq_ignore_ascii_case(b"te"))))
}

/// The headers that Connection declares to be about the connection.
#[derive(Debug, Default)]
pub struct Named<'a>(Vec<&'a [u8]>);

impl<'a> Named<'a> {
    /// From the values of a request's Connection headers.
    ///
    /// # Errors
    ///
    /// [`Reason::ConnectionHeader`] if it names what is not about a connection, so that it would be lost on the way and the upstream
    /// decide without it; or what is no token; or too many.
    pub fn in_request(values: impl Iterator<Item = &'a [u8]>) -> Result<Self, Reason> {
        let named = Self::new(values);
        let mut buffer = [0; LONGEST];
        let harmless = |name: &&[u8]| TOKEN.all(name) && !end_to_end(fold(name, &mut buffer));
        if named.0.len() <= MOST_NAMED && named.0.iter().all(harmless) {
            Ok(named)
        } else {
            Err(Reason::ConnectionHeader)
        }
    }

    /// From the values of a response's Connection headers: the upstream may name what it likes.
    pub fn in_response(values: impl Iterator<Item = &'a [u8]>) -> Self {
        Self::new(values)
    }

    pub fn has(&self, name: &[u8]) -> bool {
        self.0.iter().any(|named| named.eq_ignore_ascii_case(name))
    }

    /// Leaves out what is common and no header anyway.
    fn new(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let option = |name: &[u8]| {
            [&b"keep-alive"[..], b"close", b"upgrade"].iter().any(|known| name.eq_ignore_ascii_case(known))
        };
        Self(values.flat_map(elements).filter(|name| !option(name)).collect())
    }
}

/// The elements of a comma-separated list that are not empty, without quoted strings (RFC 9110 section 5.6.1).
pub fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// In lower case, with hyphens; cut where it is too long to be known but by its start.
fn fold<'b>(name: &[u8], buffer: &'b mut [u8; LONGEST]) -> &'b [u8] {
    for (folded, byte) in buffer.iter_mut().zip(name) {
        *folded = if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    }
    &buffer[..name.len().min(LONGEST)]
}

fn about_connection(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection" | b"keep-alive" | b"proxy-connection" | b"te" | b"trailer" | b"transfer-encoding" | b"upgrade"
    )
}

/// What one product or another takes for the client's address.
fn names_client(name: &[u8]) -> bool {
    name.starts_with(b"x-forwarded")
        || matches!(
            name,
            b"cf-connecting-ip"
                | b"cf-connecting-ipv6"
                | b"cf-pseudo-ipv4"
                | b"client-ip"
                | b"fastly-client-ip"
                | b"fly-client-ip"
                | b"forwarded"
                | b"forwarded-for"
                | b"front-end-https"
                | b"proxy-client-ip"
                | b"remote-addr"
                | b"true-client-ip"
                | b"wl-proxy-client-ip"
                | b"x-azure-clientip"
                | b"x-azure-socketip"
                | b"x-client-ip"
                | b"x-cluster-client-ip"
                | b"x-envoy-external-address"
                | b"x-originating-ip"
                | b"x-proxyuser-ip"
                | b"x-real-ip"
                | b"x-real-port"
                | b"x-remote-addr"
                | b"x-remote-ip"
                | b"x-scheme"
                | b"x-url-scheme"
        )
}

/// What one framework or another takes for host or path, in place of those that were judged.
fn reroutes(name: &[u8]) -> bool {
    name.starts_with(b"x-original-")
        || matches!(
            name,
            b"x-envoy-original-path"
                | b"x-host"
                | b"x-http-destinationurl"
                | b"x-http-host-override"
                | b"x-override-url"
                | b"x-rewrite-url"
        )
}

/// What an upstream decides by, or what this gateway adds: nobody may have it removed.
fn end_to_end(name: &[u8]) -> bool {
    name.starts_with(b"content-")
        || name.starts_with(b"if-")
        || name.starts_with(b"sec-")
        || names_client(name)
        || matches!(
            name,
            b"accept"
                | b"authorization"
                | b"cache-control"
                | b"cookie"
                | b"date"
                | b"expect"
                | b"host"
                | b"origin"
                | b"range"
                | b"referer"
                | b"transfer-encoding"
                | b"user-agent"
                | b"x-api-key"
        )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::head::{Http2, Limits, from_http2, parse};

    #[test]
    fn names_are_known_in_any_spelling() {
        let stay = [
            "Connection",
            "KEEP-ALIVE",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Expect",
            "Host",
            "Content-Length",
            "HTTP2-Settings",
            "Proxy-Authorization",
            "Proxy",
            "Forwarded",
            "X-Forwarded-For",
            "X_Forwarded_For",
            "x.forwarded.for",
            "X-Forwarded_Proto",
            "X-Forwarded-Host",
            "X-Forwarded-Anything-Of-More-Than-32-Bytes",
            "X-Forwarded",
            "X-Real-IP",
            "X_REAL_IP",
            "True-Client-IP",
            "Client-IP",
            "X-Client-IP",
            "CF-Connecting-IP",
            "X-Cluster-Client-IP",
            "X-Original-URL",
            "X-Original-Host",
            "X-Rewrite-URL",
            "x_rewrite_url",
            "X-HTTP-Host-Override",
        ];
        let go = [
            "Accept",
            "Authorization",
            "Cookie",
            "Content-Type",
            "Content-Encoding",
            "Origin",
            "Range",
            "X-Api-Key",
            "X-Real",
            "X-Forward",
            "Hosts",
            "Upgrade-Insecure-Requests",
            "Sec-WebSocket-Key",
            "",
            "X",
            "X-A-Very-Long-Name-That-Nobody-Has-A-Meaning-For",
        ];
        for name in stay {
            assert!(!goes_upstream(name.as_bytes()), "{name}");
        }
        for name in go {
            assert!(goes_upstream(name.as_bytes()), "{name}");
        }
        for (name, goes) in
            [("Connection", false), ("transfer-encoding", false), ("Upgrade", false), ("Content-Length", true)]
        {
            assert_eq!(goes_downstream(name.as_bytes()), goes, "{name}");
        }
    }

    #[test]
    fn trailers_are_no_headers() {
        for (name, may) in [
            ("grpc-status", true),
            ("Digest", true),
            ("Content-Length", false),
            ("transfer_encoding", false),
            ("Host", false),
            ("authorization", false),
            ("Content-Type", false),
            ("cookie", false),
            ("x-forwarded-for", false),
            ("Connection", false),
        ] {
            assert_eq!(may_trail(name.as_bytes()), may, "{name}");
        }
    }

    #[test]
    fn connection_removes_only_what_is_its_own() {
        let rows: &[(&str, Option<&[&str]>)] = &[
            ("", Some(&["A", "X-Hop"])),
            ("Connection: close\r\n", Some(&["A", "X-Hop"])),
            ("Connection: keep-alive, x-hop\r\n", Some(&["A"])),
            ("Connection: ,x-hop ,\r\nConnection: a\r\n", Some(&[])),
            ("Connection: Host\r\n", None),
            ("Connection: close, Authorization\r\n", None),
            ("Connection: cookie\r\n", None),
            ("Connection: X-Forwarded-For\r\n", None),
            ("Connection: x_forwarded_proto\r\n", None),
            ("Connection: Content-Length\r\n", None),
            ("Connection: sec-websocket-key\r\n", None),
            ("Connection: close;a\r\n", None),
            ("Connection: a b\r\n", None),
            ("Connection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q\r\n", None),
        ];
        for (connection, expected) in rows {
            let raw = format!("GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\n{connection}TE: trailers\r\nX-Hop: 2\r\n\r\n");
            let head = parse(Bytes::from(raw)).unwrap();
            let found = upstream(&head, true).ok().map(|fields| fields.map(|(name, _)| name).collect::<Vec<_>>());
            let expected = expected.map(|names| names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
            assert_eq!(found, expected, "{connection}");
        }
    }

    #[test]
    fn te_goes_from_http2_to_http2() {
        let limits = Limits { request_line: 100, headers: 100, header_count: 10 };
        let request =
            Http2 { method: b"GET", scheme: Some(b"http"), authority: Some(b"h"), path: b"/", end_of_stream: true };
        let head = from_http2(request, [(&b"te"[..], &b"trailers"[..])].into_iter(), &limits).unwrap();
        assert_eq!(upstream(&head, true).unwrap().count(), 1);
        assert_eq!(upstream(&head, false).unwrap().count(), 0);
    }

    #[test]
    fn a_response_may_name_anything() {
        let named = Named::in_response([&b"close, Set-Cookie"[..]].into_iter());
        assert!(named.has(b"set-cookie") && !named.has(b"close"));
    }
}
