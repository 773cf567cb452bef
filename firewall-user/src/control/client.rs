//! The command line's side of the control socket. Each call opens a connection, asks and waits.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::api::{Ban, BanRequest, ContentRule, List, Refusal, Reloaded, Status};

/// How long to wait for an answer. A reload of large lists takes seconds.
const WITHIN: Duration = Duration::from_secs(120);
/// Bytes of an answer.
const MAX_ANSWER: usize = 256 << 20;

/// Why a request was not answered as hoped.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens.
    NoAgent { path: PathBuf },
    /// The user may not use the socket.
    Denied { path: PathBuf, message: Option<String> },
    /// The agent could not make sense of the request.
    BadRequest(Refusal),
    /// The agent understood, and did not do it.
    Refused(Refusal),
    /// The agent accepted the connection, but no answer came of it.
    Broken { path: PathBuf, error: String },
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAgent { path } => write!(f, "no agent is running at {}", path.display()),
            Self::Denied { path, message: None } => {
                write!(f, "permission denied: only root and the control group may use {}", path.display())
            }
            Self::Denied { message: Some(message), .. } => write!(f, "permission denied: {message}"),
            Self::BadRequest(refusal) | Self::Refused(refusal) => f.write_str(&refusal.message),
            Self::Broken { path, error } => write!(f, "the agent at {} did not answer: {error}", path.display()),
        }
    }
}

impl std::error::Error for ClientError {}

/// Asks the agent at a socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn status(&self) -> Result<Status, ClientError> {
        self.ask(Method::GET, "/v1/status", &())
    }

    pub fn reload(&self) -> Result<Reloaded, ClientError> {
        self.ask(Method::POST, "/v1/reload", &())
    }

    pub fn ban(&self, request: &BanRequest) -> Result<Ban, ClientError> {
        self.ask(Method::POST, "/v1/bans", request)
    }

    pub fn unban(&self, prefix: IpNet) -> Result<Ban, ClientError> {
        // No character of a prefix or an address has a meaning of its own in a query (RFC 3986, 3.4).
        self.ask(Method::DELETE, &format!("/v1/bans?prefix={prefix}"), &())
    }

    pub fn bans(&self) -> Result<Vec<Ban>, ClientError> {
        self.ask(Method::GET, "/v1/bans", &())
    }

    pub fn lists(&self, lookup: Option<IpAddr>) -> Result<Vec<List>, ClientError> {
        match lookup {
            Some(address) => self.ask(Method::GET, &format!("/v1/lists?lookup={address}"), &()),
            None => self.ask(Method::GET, "/v1/lists", &()),
        }
    }

    pub fn rules(&self) -> Result<Vec<ContentRule>, ClientError> {
        self.ask(Method::GET, "/v1/rules", &())
    }

    pub fn confirm(&self) -> Result<(), ClientError> {
        self.ask(Method::POST, "/v1/confirm", &())
    }

    fn ask<T: DeserializeOwned>(&self, method: Method, uri: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let broken = |error: String| ClientError::Broken { path: self.path.clone(), error };
        let body = serde_json::to_vec(body).map_err(|error| broken(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| broken(error.to_string()))?;
        let answer = runtime.block_on(async {
            match tokio::time::timeout(WITHIN, exchange(&self.path, method, uri, body)).await {
                Ok(answer) => answer,
                Err(_) => Err(Failure::Broken(format!("no answer within {} seconds", WITHIN.as_secs()))),
            }
        });
        let (status, bytes) = answer.map_err(|failure| match failure {
            Failure::Connect(error) => self.cannot_connect(&error),
            Failure::Broken(error) => broken(error),
        })?;
        if status.is_success() {
            return serde_json::from_slice(&bytes)
                .map_err(|error| broken(format!("its answer makes no sense: {error}")));
        }
        let refusal: Refusal = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Refusal { message: format!("the agent answered with status {status}") });
        Err(match status {
            StatusCode::FORBIDDEN => ClientError::Denied { path: self.path.clone(), message: Some(refusal.message) },
            StatusCode::BAD_REQUEST => ClientError::BadRequest(refusal),
            _ => ClientError::Refused(refusal),
        })
    }

    fn cannot_connect(&self, error: &io::Error) -> ClientError {
        let path = self.path.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoAgent { path },
            io::ErrorKind::PermissionDenied => ClientError::Denied { path, message: None },
            _ => ClientError::Broken { path, error: error.to_string() },
        }
    }
}

enum Failure {
    Connect(io::Error),
    Broken(String),
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

async fn exchange(path: &Path, method: Method, uri: &str, body: Vec<u8>) -> Result<(StatusCode, Bytes), Failure> {
    let stream = UnixStream::connect(path).await.map_err(Failure::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header(header::HOST, "portcullis")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| Failure::Broken(error.to_string()))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let bytes = body.map_err(|error| Failure::Broken(error.to_string()))?.to_bytes();
    connection.abort();
    Ok((status, bytes))
}
