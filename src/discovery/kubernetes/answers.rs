//! What the API answers, each part within a limit: a list page by page, a watch line by line.
//!
//! The client's own readers take a line of any length, and write an answer that they cannot parse to the log, whole.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use hyper::header::{HeaderMap, RETRY_AFTER};
use hyper::{Request, Response};
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use serde::de::DeserializeOwned;

use super::api_error::{ApiError, root};

/// One page of a list, in bytes: 500 objects of 128 KiB each, a multiple of what Pods with all their history take.
const MAX_PAGE: usize = 64 * 1024 * 1024;
/// One event of a watch. etcd keeps no object above 1.5 MiB (`--max-request-bytes`), and as JSON it is about twice that.
const MAX_EVENT: usize = 8 * 1024 * 1024;
/// What an error says.
const MAX_STATUS: usize = 64 * 1024;

/// Asks of one kind of objects.
pub struct Question<'a> {
    pub client: Client,
    pub verb: &'static str,
    /// As RBAC spells it, with the namespace.
    pub resource: &'a str,
}

impl Question<'_> {
    /// The whole answer, parsed.
    pub async fn ask<T: DeserializeOwned>(&self, request: Request<Vec<u8>>) -> Result<T, ApiError> {
        let body = self.send(request).await?.into_body();
        let body = Limited::new(body, MAX_PAGE).collect().await;
        let body = body.map_err(|error| self.connection(root(error.as_ref())))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| self.unreadable(error.to_string()))
    }

    /// The beginning of an answer that comes line by line.
    pub async fn open(&self, request: Request<Vec<u8>>) -> Result<Lines, ApiError> {
        Ok(Lines { body: self.send(request).await?.into_body(), received: BytesMut::new(), searched: 0 })
    }

    /// The next line, parsed; `None` at a clean end.
    pub async fn next<T: DeserializeOwned>(&self, lines: &mut Lines) -> Result<Option<T>, ApiError> {
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(None),
            Err(LineError::TooLong) => return Err(self.unreadable(format!("an event of more than {MAX_EVENT} bytes"))),
            Err(LineError::Lost(text)) => return Err(self.connection(text)),
        };
        serde_json::from_slice(&line).map(Some).map_err(|error| self.unreadable(error.to_string()))
    }

    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, ApiError> {
        let answer = self.client.send(request.map(Body::from)).await;
        let answer = answer.map_err(|error| ApiError::new(self.verb, self.resource, &error))?;
        let code = answer.status();
        if code.is_success() {
            return Ok(answer);
        }
        let after = retry_after(answer.headers());
        let body = Limited::new(answer.into_body(), MAX_STATUS).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        // Proxies, and priority and fairness, answer in plain text.
        let text = match serde_json::from_slice::<Status>(&body) {
            Ok(status) => status.message,
            Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
        };
        Err(match ApiError::of_code(self.verb, self.resource.to_owned(), code.as_u16(), text) {
            ApiError::Throttled { verb, resource, .. } => ApiError::Throttled { verb, resource, after },
            error => error,
        })
    }

    fn unreadable(&self, text: String) -> ApiError {
        ApiError::Unreadable { verb: self.verb, resource: self.resource.to_owned(), text }
    }

    fn connection(&self, text: String) -> ApiError {
        ApiError::Connection { verb: self.verb, resource: self.resource.to_owned(), text }
    }
}

/// `Retry-After` in seconds (RFC 9110, 10.2.3), the only form that API servers send.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// An answer in lines.
pub struct Lines {
    body: Body,
    received: BytesMut,
    /// So much of what was received has no end of a line in it.
    searched: usize,
}

enum LineError {
    TooLong,
    Lost(String),
}

impl Lines {
    /// The next line that is not empty. What is cut off at the end is no line. Nothing is lost when it is dropped early.
    async fn next(&mut self) -> Result<Option<Bytes>, LineError> {
        loop {
            let ends = self.received.iter().skip(self.searched).position(|byte| *byte == b'\n');
            if let Some(at) = ends {
                let line = self.received.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            self.searched = self.received.len();
            if self.searched > MAX_EVENT {
                return Err(LineError::TooLong);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.received.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(LineError::Lost(root(&error))),
                None => return Ok(None),
            }
        }
    }
}
