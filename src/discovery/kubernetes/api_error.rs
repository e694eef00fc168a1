//! Why the API could not be asked, or did not answer: always with the verb and the resource, as RBAC spells them.

use std::time::Duration;

use thiserror::Error;

use crate::label::label_set;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApiError {
    #[error("{verb} {resource}: forbidden: the Role of the gateway's ServiceAccount needs {verb} ({text})")]
    Forbidden { verb: &'static str, resource: String, text: String },
    #[error("{verb} {resource}: the API does not know who the gateway is: {text}")]
    Unauthorized { verb: &'static str, resource: String, text: String },
    #[error("{verb} {resource}: the place in the history is gone: {text}")]
    Gone { verb: &'static str, resource: String, text: String },
    /// `after`: how long the server wants to be left alone, where it says so.
    #[error("{verb} {resource}: too many requests")]
    Throttled { verb: &'static str, resource: String, after: Option<Duration> },
    #[error("{verb} {resource}: HTTP {code}: {text}")]
    Status { verb: &'static str, resource: String, code: u16, text: String },
    #[error("{verb} {resource}: the answer cannot be read: {text}")]
    Unreadable { verb: &'static str, resource: String, text: String },
    #[error("{verb} {resource}: no answer within {after:?}")]
    Timeout { verb: &'static str, resource: String, after: Duration },
    #[error("{verb} {resource}: {text}")]
    Connection { verb: &'static str, resource: String, text: String },
}

impl ApiError {
    pub fn new(verb: &'static str, resource: &str, error: &kube::Error) -> Self {
        let resource = resource.to_owned();
        match error {
            kube::Error::Api(status) => Self::of_code(verb, resource, status.code, status.message.clone()),
            error => Self::Connection { verb, resource, text: root(error) },
        }
    }

    pub fn of_code(verb: &'static str, resource: String, code: u16, text: String) -> Self {
        match code {
            401 => Self::Unauthorized { verb, resource, text },
            403 => Self::Forbidden { verb, resource, text },
            410 => Self::Gone { verb, resource, text },
            429 => Self::Throttled { verb, resource, after: None },
            code => Self::Status { verb, resource, code, text },
        }
    }

    pub fn failure(&self) -> WatchFailure {
        match self {
            Self::Forbidden { .. } => WatchFailure::Forbidden,
            Self::Unauthorized { .. } => WatchFailure::Unauthorized,
            Self::Gone { .. } => WatchFailure::Gone,
            Self::Throttled { .. } => WatchFailure::Throttled,
            Self::Status { .. } | Self::Unreadable { .. } => WatchFailure::Server,
            Self::Timeout { .. } => WatchFailure::Timeout,
            Self::Connection { .. } => WatchFailure::Connection,
        }
    }
}

label_set! {
    /// Why the Kubernetes API was not heard.
    pub enum WatchFailure {
        Forbidden = "forbidden",
        Unauthorized = "unauthorized",
        /// 410: the place in the history is too old.
        Gone = "gone",
        Throttled = "throttled",
        /// Another answer than was asked for.
        Server = "server",
        Timeout = "timeout",
        Connection = "connection",
    }
}

/// The innermost cause, which says "connection refused" where the outer ones say "client error".
pub fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
