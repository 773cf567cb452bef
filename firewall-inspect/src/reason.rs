//! The vocabulary of the LAN layer: why a request or a connection is refused, and what the client is told.

/// Whose doing a refusal is. Only what a client alone can cause counts against its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// No honest client sends this.
    Attack,
    /// An honest client may do so now and then: a slow link, an outdated path.
    Client,
    /// The upstream, the host, or nobody.
    Nobody,
}

impl Blame {
    /// What a refusal adds to a client's score.
    pub const fn weight(self) -> u32 {
        match self {
            Self::Attack => 20,
            Self::Client => 5,
            Self::Nobody => 0,
        }
    }
}

/// Defines [`Reason`] with status, blame and the name each reason has in events, metrics and documentation.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal $status:literal $blame:ident,)*) => {
        /// Why the LAN layer refuses.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in events, metrics and documentation.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The status of the answer; 0 where the connection is closed without one.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            pub const fn blame(self) -> Blame {
                match self { $(Self::$variant => Blame::$blame,)* }
            }
        }
    };
}

reasons! {
    // Framing: always refused, whatever the mode.
    /// HTTP/0.9: a request line without a version.
    Http09 = "http-0.9" 0 Attack,
    /// A request line that is not method, target and version, single spaces between them.
    RequestLine = "request-line" 400 Attack,
    /// A version that is neither 1.0 nor 1.1 on this connection.
    HttpVersion = "http-version" 505 Attack,
    /// A line feed without its carriage return, in a head or a chunk.
    BareLineFeed = "bare-line-feed" 400 Attack,
    /// A carriage return without its line feed.
    BareCarriageReturn = "bare-carriage-return" 400 Attack,
    /// A NUL or other control character in a head.
    ControlCharacter = "control-character" 400 Attack,
    /// A header continued on the next line (obs-fold, RFC 9112 section 5.2).
    FoldedHeader = "folded-header" 400 Attack,
    /// White space between a header's name and its colon.
    SpaceBeforeColon = "space-before-colon" 400 Attack,
    /// A header line without a colon, or a name that is no token.
    HeaderName = "header-name" 400 Attack,
    /// Content-Length beside Transfer-Encoding.
    LengthAndCoding = "length-and-coding" 400 Attack,
    /// Several Content-Lengths, equal or not.
    SeveralLengths = "several-lengths" 400 Attack,
    /// A Content-Length that is not plain digits below 2^63.
    MalformedLength = "malformed-length" 400 Attack,
    /// A Transfer-Encoding other than exactly one final `chunked`, or one in HTTP/1.0.
    TransferCoding = "transfer-coding" 400 Attack,
    /// A chunk whose size line or end is malformed.
    MalformedChunk = "malformed-chunk" 400 Attack,
    /// A trailer that would change framing or routing, had it been read as a header.
    ForbiddenTrailer = "forbidden-trailer" 400 Attack,
    /// Connection names a header that is not its to remove: Host, Authorization, Cookie and the like.
    ConnectionHeader = "connection-header" 400 Attack,
    /// No Host, or an empty one where one is required.
    HostMissing = "host-missing" 400 Attack,
    /// Several Hosts, or one that contradicts the target or `:authority`.
    HostMismatch = "host-mismatch" 400 Attack,
    /// A Host that is no host with an optional port.
    MalformedHost = "malformed-host" 400 Attack,
    /// A body where the method has none by definition (TRACE, CONNECT).
    UnexpectedBody = "unexpected-body" 400 Attack,
    /// Framing changed below us: what we fed and what was read do not agree. A fault of ours; the connection closes.
    FramingMismatch = "framing-mismatch" 400 Nobody,
    /// HTTP/2 that breaks the protocol, or floods it (rapid reset, CONTINUATION, SETTINGS, header bombs).
    Http2 = "http2" 0 Attack,

    // Limits.
    /// The request line is longer than allowed.
    RequestLineTooLong = "request-line-too-long" 414 Attack,
    /// All headers together are larger than allowed.
    HeadersTooLarge = "headers-too-large" 431 Attack,
    /// More header lines than allowed.
    TooManyHeaders = "too-many-headers" 431 Attack,
    /// The body is larger than allowed, by its declared length or by what came.
    BodyTooLarge = "body-too-large" 413 Client,
    /// Trailers larger or more than allowed.
    TrailersTooLarge = "trailers-too-large" 431 Attack,
    /// The client has more connections than allowed.
    ConnectionsPerClient = "connections-per-client" 0 Client,
    /// All clients together have more connections than allowed.
    ConnectionsTotal = "connections-total" 0 Nobody,

    // Time.
    /// The head did not arrive in time.
    HeadTimeout = "head-timeout" 408 Client,
    /// The body came too slowly.
    BodyTimeout = "body-timeout" 408 Client,
    /// The connection, or the stream, ended before the body did.
    BodyBrokenOff = "body-broken-off" 400 Nobody,
    /// The client left before it was answered.
    ClientGone = "client-gone" 0 Nobody,
    /// The client did not take the response in time.
    SlowReader = "slow-reader" 0 Client,
    /// The TLS handshake failed, or came to a port without TLS.
    TlsHandshake = "tls-handshake" 0 Client,
    /// The TLS handshake did not end in time.
    TlsTimeout = "tls-timeout" 0 Client,

    // Protocol policy.
    /// A method the API does not offer.
    Method = "method" 405 Attack,
    /// A host the API does not serve, or another than the TLS handshake was for.
    HostNotServed = "host-not-served" 421 Attack,
    /// A target that is neither path, URL nor `*`, or has characters that a target cannot have.
    MalformedTarget = "malformed-target" 400 Attack,
    /// Percent signs without two hexadecimal digits in the path.
    PathEncoding = "path-encoding" 400 Attack,
    /// The path is percent-encoded twice.
    PathDoubleEncoding = "path-double-encoding" 400 Attack,
    /// An encoded slash or backslash in the path, or a plain backslash.
    PathEncodedSlash = "path-encoded-slash" 400 Attack,
    /// NUL or another control character in the path, encoded or not.
    PathControlCharacter = "path-control-character" 400 Attack,
    /// The path decodes to what is not UTF-8, overlong forms included.
    PathNotUtf8 = "path-not-utf8" 400 Attack,
    /// Dot segments that lead above the root.
    PathAboveRoot = "path-above-root" 400 Attack,
    /// A content type the API does not take, or several.
    ContentType = "content-type" 415 Client,
    /// An Expect other than `100-continue`.
    Expectation = "expectation" 417 Attack,
    /// An Upgrade that is not allowed, `h2c` always, or one with a body.
    Upgrade = "upgrade" 400 Client,

    // Content.
    /// A content rule. What a rule takes for an attack may be one's password manager: it counts less than breaking HTTP.
    ContentRule = "content-rule" 403 Client,
    /// A content rule, for what the upstream's answer says.
    AnswerRule = "answer-rule" 403 Nobody,
    /// A body whose coding is unknown, or more than one, or that is not what it says.
    ContentEncoding = "content-encoding" 415 Client,
    /// A body that is not what its content type says.
    BodyMalformed = "body-malformed" 400 Client,
    /// A body with more arguments, parts or levels than content rules look at.
    BodyStructure = "body-structure" 413 Attack,
    /// Content rules would have more to do than the request's size allows.
    InspectionBudget = "inspection-budget" 413 Attack,
    /// Bodies that wait for content rules take all the memory there is for them.
    InspectionMemory = "inspection-memory" 503 Nobody,

    // The client.
    /// A trusted proxy named no client, or one that is no address.
    ForwardedMissing = "forwarded-missing" 400 Nobody,
    /// The client's reputation: it was refused too often. Below, where it can, the kernel drops it.
    Reputation = "reputation" 403 Nobody,

    // The upstream and ourselves.
    /// The upstream does not accept connections.
    UpstreamUnreachable = "upstream-unreachable" 502 Nobody,
    /// The upstream's certificate, or its TLS, is not acceptable.
    UpstreamTls = "upstream-tls" 502 Nobody,
    /// The upstream broke off before or within its answer, or answered what is not HTTP.
    UpstreamProtocol = "upstream-protocol" 502 Nobody,
    /// The upstream did not accept, or did not answer, in time.
    UpstreamTimeout = "upstream-timeout" 504 Nobody,
}

impl Reason {
    /// Whether it is open what was asked: lines, or an end of the body, that not all servers read alike.
    pub const fn is_ambiguous(self) -> bool {
        matches!(
            self,
            Self::BareLineFeed
                | Self::BareCarriageReturn
                | Self::ControlCharacter
                | Self::FoldedHeader
                | Self::SpaceBeforeColon
                | Self::HeaderName
                | Self::LengthAndCoding
                | Self::SeveralLengths
                | Self::MalformedLength
                | Self::TransferCoding
        )
    }

    /// Whether monitor mode may let it pass: what was asked is plain, it is only not wanted. Framing and our own limits are always
    /// enforced, and so is whatever stands in [`crate::head::Head::refusal`].
    pub const fn may_monitor(self) -> bool {
        matches!(
            self,
            Self::Method
                | Self::HostNotServed
                | Self::PathEncoding
                | Self::PathDoubleEncoding
                | Self::PathEncodedSlash
                | Self::PathControlCharacter
                | Self::PathNotUtf8
                | Self::PathAboveRoot
                | Self::ContentType
                | Self::Expectation
                | Self::Upgrade
                | Self::BodyTooLarge
                | Self::ContentRule
                | Self::AnswerRule
                | Self::ContentEncoding
                | Self::BodyMalformed
                | Self::BodyStructure
                | Self::InspectionBudget
                | Self::Reputation
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_statuses_are_errors() {
        for reason in Reason::ALL {
            let twins = Reason::ALL.iter().filter(|other| other.name() == reason.name()).count();
            assert_eq!(twins, 1, "{}", reason.name());
            assert!(reason.status() == 0 || (400..600).contains(&reason.status()), "{}", reason.name());
        }
    }
}
