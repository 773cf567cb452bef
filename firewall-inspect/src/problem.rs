//! What a refused client reads: `application/problem+json` (RFC 9457), with the request's id and nothing about the inside.

/// The media type of [`body`].
pub const CONTENT_TYPE: &str = "application/problem+json";

/// `{"type":"about:blank","title":"Forbidden","status":403,"instance":"urn:request:00000000000000ff"}`. The id finds the request in
/// the log.
pub fn body(status: u16, id: u64) -> Vec<u8> {
    let title = phrase(status);
    format!(r#"{{"type":"about:blank","title":"{title}","status":{status},"instance":"urn:request:{id:016x}"}}"#)
        .into_bytes()
}

/// The phrase of a status that we send (RFC 9110 section 15). Needs no escapes in JSON.
pub const fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    #[test]
    fn bodies_are_json() {
        for reason in Reason::ALL.iter().filter(|reason| reason.status() > 0) {
            let status = reason.status();
            let parsed: serde_json::Value = serde_json::from_slice(&body(status, u64::from(status))).unwrap();
            let expected = serde_json::json!({
                "type": "about:blank",
                "title": phrase(status),
                "status": status,
                "instance": format!("urn:request:{status:016x}"),
            });
            assert_eq!(parsed, expected);
            assert_ne!(phrase(status), "Error", "{}", reason.name());
        }
    }
}
