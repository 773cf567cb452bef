//! Bodies of requests that are more than names and values: forms with files, and XML.

pub mod multipart;
pub mod xml;

/// Why a body is not what it says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyError {
    /// It is beyond a limit, and not malformed.
    pub limit: bool,
    pub message: String,
}

impl BodyError {
    fn malformed(message: impl Into<String>) -> Self {
        Self { limit: false, message: message.into() }
    }

    fn limit(message: impl Into<String>) -> Self {
        Self { limit: true, message: message.into() }
    }
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BodyError {}
