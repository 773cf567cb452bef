//! What a hostile web page can make its visitors' browsers send: it must not get them banned.
//!
//! Browsers say where a request comes from (Sec-Fetch-Site, Origin, Referer), and an attacker may say the same to keep its score
//! down: it is refused all the same. In the clear, a page that suppresses Referer can have a browser send a GET that tells nothing.

use crate::{
    head::{Authority, Head},
    reason::Reason,
};

/// Whether a page can cause it.
enum Page {
    /// No browser sends this, whatever a page does.
    Never,
    /// It can, and then the head tells so.
    Told,
    /// It can, and nothing tells, since there is no head, or the page passes for one of ours.
    Untold,
}

/// Whether a page may have caused this refusal.
pub(super) fn possibly(reason: Reason, head: Option<&Head>) -> bool {
    match page(reason) {
        Page::Never => false,
        Page::Told => head.is_none_or(is_foreign),
        Page::Untold => true,
    }
}

fn page(reason: Reason) -> Page {
    match reason {
        Reason::Http09
        | Reason::RequestLine
        | Reason::HttpVersion
        | Reason::BareLineFeed
        | Reason::BareCarriageReturn
        | Reason::ControlCharacter
        | Reason::FoldedHeader
        | Reason::SpaceBeforeColon
        | Reason::HeaderName
        | Reason::LengthAndCoding
        | Reason::SeveralLengths
        | Reason::MalformedLength
        | Reason::TransferCoding
        | Reason::MalformedChunk
        | Reason::ForbiddenTrailer
        | Reason::ConnectionHeader
        | Reason::HostMissing
        | Reason::HostMismatch
        | Reason::UnexpectedBody
        | Reason::FramingMismatch
        | Reason::Http2
        | Reason::TooManyHeaders
        | Reason::TrailersTooLarge
        | Reason::MalformedTarget
        | Reason::Expectation
        | Reason::HeadTimeout => Page::Never,

        Reason::Method
        | Reason::PathEncoding
        | Reason::PathDoubleEncoding
        | Reason::PathEncodedSlash
        | Reason::PathControlCharacter
        | Reason::PathNotUtf8
        | Reason::PathAboveRoot
        | Reason::ContentType
        | Reason::Upgrade
        | Reason::ContentRule
        | Reason::ContentEncoding
        | Reason::BodyMalformed
        | Reason::BodyStructure
        | Reason::InspectionBudget
        | Reason::BodyTooLarge
        | Reason::BodyTimeout
        | Reason::SlowReader => Page::Told,

        // A link of any length; cookies of a neighbouring host; a name of the page's own that points to us; a certificate that
        // the browser does not like; TLS to a port without, and the other way round.
        Reason::RequestLineTooLong
        | Reason::HeadersTooLarge
        | Reason::MalformedHost
        | Reason::HostNotServed
        | Reason::ConnectionsPerClient
        | Reason::TlsHandshake
        | Reason::TlsTimeout => Page::Untold,

        // Nobody's fault anyway.
        Reason::ConnectionsTotal
        | Reason::AnswerRule
        | Reason::InspectionMemory
        | Reason::ForwardedMissing
        | Reason::Reputation
        | Reason::UpstreamUnreachable
        | Reason::UpstreamTls
        | Reason::UpstreamProtocol
        | Reason::UpstreamTimeout
        | Reason::BodyBrokenOff
        | Reason::ClientGone => Page::Untold,
    }
}

/// Whether a page of another origin caused the request, by what the browser says.
fn is_foreign(head: &Head) -> bool {
    let elsewhere = |site: &[u8]| !matches!(site, b"same-origin" | b"none");
    head.values("sec-fetch-site").any(elsewhere)
        || head.values("origin").chain(head.values("referer")).any(|url| !is_ours(url, head))
}

/// Whether a URL has the host and the port that the request is for.
fn is_ours(url: &[u8], head: &Head) -> bool {
    let Some((scheme, rest)) = str::from_utf8(url).ok().and_then(|url| url.split_once("://")) else { return false };
    let Some(asked) = head.authority().and_then(Authority::parse) else { return false };
    let default = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Authority::parse(&rest.as_bytes()[..end]).is_some_and(|authority| authority.same(&asked, default))
}
