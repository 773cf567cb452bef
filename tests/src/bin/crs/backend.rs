//! What the suite expects behind the gateway: an application that answers as albedo does (github.com/coreruleset/albedo).
//!
//! A POST to `/reflect` holds, as JSON, the answer that it shall get. Everything else is answered with an empty 200.

use std::{collections::BTreeMap, convert::Infallible};

use ::tests::{http::Server, netns::Namespace};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response, body::Incoming, header::CONTENT_TYPE, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use crate::request;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wanted {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
    encoded_body: String,
}

pub(crate) fn start(namespace: &Namespace, address: &str) -> Result<Server> {
    Server::start(namespace, address.parse()?, |stream, _peer| async {
        // A connection that breaks is the gateway's to notice.
        let _ =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let reflects = request.method() == Method::POST && (path == "/reflect" || path.starts_with("/reflect/"));
    let Ok(body) = request.into_body().collect().await else { return Ok(refused("Failed to parse request body")) };
    if !reflects {
        return Ok(Response::default());
    }
    let Ok(wanted) = serde_json::from_slice::<Wanted>(&body.to_bytes()) else {
        return Ok(refused("Invalid JSON in request body"));
    };
    Ok(wanted.answer().unwrap_or_else(|_| refused("Invalid answer in request body")))
}

fn refused(why: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(why));
    *response.status_mut() = hyper::StatusCode::BAD_REQUEST;
    response.headers_mut().insert(CONTENT_TYPE, media(why.as_bytes()));
    response
}

impl Wanted {
    fn answer(self) -> Result<Response<Full<Bytes>>> {
        let body = match self.body.is_empty() {
            true => request::base64(&self.encoded_body)?,
            false => self.body.into_bytes(),
        };
        let mut response = Response::builder().status(if self.status == 0 { 200 } else { self.status });
        let headers = response.headers_mut().context("no such status")?;
        for (name, value) in self.headers {
            // What cannot be a header is left out.
            if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), value.parse()) {
                headers.append(name, value);
            }
        }
        if !body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, media(&body));
        }
        Ok(response.body(Full::from(body))?)
    }
}

/// What a body is called that has no type: Go goes by how it begins (mimesniff.spec.whatwg.org).
fn media(body: &[u8]) -> http::HeaderValue {
    const TAGS: [&[u8]; 17] = [
        b"<!DOCTYPE HTML",
        b"<HTML",
        b"<HEAD",
        b"<SCRIPT",
        b"<IFRAME",
        b"<H1",
        b"<DIV",
        b"<FONT",
        b"<TABLE",
        b"<A",
        b"<STYLE",
        b"<TITLE",
        b"<B",
        b"<BODY",
        b"<BR",
        b"<P",
        b"<!--",
    ];
    let body = &body[..body.len().min(512)];
    let text = body.trim_ascii_start();
    let is_html = TAGS.iter().any(|tag| {
        let begins = text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
        begins && text.get(tag.len()).is_some_and(|next| *tag == b"<!--" || matches!(next, b' ' | b'>'))
    });
    let is_binary = body.iter().any(|byte| matches!(byte, 0..=8 | 11 | 14..=26 | 28..=31));
    http::HeaderValue::from_static(match () {
        () if is_html => "text/html; charset=utf-8",
        () if text.starts_with(b"<?xml") => "text/xml; charset=utf-8",
        () if body.starts_with(b"\x1f\x8b\x08") => "application/x-gzip",
        () if body.starts_with(b"PK\x03\x04") => "application/zip",
        () if is_binary => "application/octet-stream",
        () => "text/plain; charset=utf-8",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_guessed() {
        for (body, expected) in [
            (&b"\n <Script >"[..], "text/html; charset=utf-8"),
            (b"<b", "text/plain; charset=utf-8"),
            (b"<abc>", "text/plain; charset=utf-8"),
            (b"<?xml version", "text/xml; charset=utf-8"),
            (b"PK\x03\x04", "application/zip"),
            (b"a\0b", "application/octet-stream"),
            (b"ORA-01400: cannot", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(media(body), expected, "{}", body.escape_ascii());
        }
    }

    #[test]
    fn answers_are_as_asked_for() {
        let answer = |wanted: &str| serde_json::from_str::<Wanted>(wanted).unwrap().answer();
        let response = answer(r#"{"status": 418, "headers": {"A": "b", "c d": ""}, "encodedBody": "Yg=="}"#).unwrap();
        assert_eq!(response.status(), 418);
        assert_eq!(response.headers()["a"], "b");
        assert_eq!(response.headers().len(), 2);
        assert_eq!(answer(r#"{"body": "x", "logMessage": "y"}"#).unwrap().status(), 200);
        assert!(answer(r#"{"status": 99}"#).is_err());
    }
}
