//! How a request's body is delimited.

/// Decided once for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// Exactly so many bytes, more than 0 and below 2^63.
    Length(u64),
    /// Chunks of HTTP/1.1.
    Chunked,
    /// Ended by the stream of HTTP/2.
    Stream,
}
