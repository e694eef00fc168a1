//! One kind of objects, listed once and then watched for as long as the gateway runs.
//!
//! Every watch ends: by the server's clock, by a dead connection that only silence gives away, or because its place in the
//! history is gone (410), and then the list is read again. Whoever reads what comes out of here sees none of that: only
//! [`Seen`], whole lists and single changes, and now and then whether the API is being heard.
//!
//! Never gives up, and never asks faster than its waits allow: an API server that is in trouble is not helped by questions.

use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::{Resource, ResourceExt};
use prometheus::IntGauge;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::metrics::{Metrics, WatchFailure};

use super::listing::Seen;

/// A list, one page of it, and the beginning of a watch may take so long.
const ANSWER: Duration = Duration::from_secs(15);
/// The server is asked to end a watch after this: load balancers in front of it cut idle connections after 240 s.
const WATCH_SECONDS: u32 = 200;
/// A watch in which nothing was heard for so long has died unnoticed. Bookmarks come every minute where the server sends
/// them; where it does not, the watch is begun again at the same place, which costs one request.
const SILENCE: Duration = Duration::from_secs(100);
/// Objects in one page of a list, as in client-go.
const PAGE: u32 = 500;
/// The waits after failures: doubled from the first to the longest, each shortened by up to half.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Two watches begin at least this far apart, however soon the server ends them.
const APART: Duration = Duration::from_secs(1);

/// Why the API could not be asked, or did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApiError {
    #[error("{verb} {resource}: the gateway's ServiceAccount may not: its Role needs {verb} on {resource} ({text})")]
    Forbidden { verb: &'static str, resource: String, text: String },
    #[error("{verb} {resource}: the API does not know who the gateway is: {text}")]
    Unauthorized { verb: &'static str, resource: String, text: String },
    #[error("{verb} {resource}: the place in the history is gone: {text}")]
    Gone { verb: &'static str, resource: String, text: String },
    #[error("{verb} {resource}: too many requests")]
    Throttled { verb: &'static str, resource: String },
    #[error("{verb} {resource}: HTTP {code}: {text}")]
    Status { verb: &'static str, resource: String, code: u16, text: String },
    #[error("{verb} {resource}: no answer within {after:?}")]
    Timeout { verb: &'static str, resource: String, after: Duration },
    #[error("{verb} {resource}: {text}")]
    Connection { verb: &'static str, resource: String, text: String },
}

impl ApiError {
    pub fn new(verb: &'static str, resource: &str, error: &kube::Error) -> Self {
        let resource = resource.to_owned();
        match error {
            kube::Error::Api(status) => Self::of_status(verb, resource, status),
            error => Self::Connection { verb, resource, text: root(error) },
        }
    }

    fn of_status(verb: &'static str, resource: String, status: &kube::core::Status) -> Self {
        let text = status.message.clone();
        match status.code {
            401 => Self::Unauthorized { verb, resource, text },
            403 => Self::Forbidden { verb, resource, text },
            410 => Self::Gone { verb, resource, text },
            429 => Self::Throttled { verb, resource },
            code => Self::Status { verb, resource, code, text },
        }
    }

    pub fn label(&self) -> WatchFailure {
        match self {
            Self::Forbidden { .. } => WatchFailure::Forbidden,
            Self::Unauthorized { .. } => WatchFailure::Unauthorized,
            Self::Gone { .. } => WatchFailure::Gone,
            Self::Throttled { .. } => WatchFailure::Throttled,
            Self::Status { .. } => WatchFailure::Server,
            Self::Timeout { .. } => WatchFailure::Timeout,
            Self::Connection { .. } => WatchFailure::Connection,
        }
    }
}

/// The innermost cause, which says "connection refused" where the outer ones say "client error".
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum News<T> {
    Seen(Seen<T>),
    /// The API was heard: something came, or a watch was begun. At least every [`SILENCE`].
    Heard,
    Failed(ApiError),
}

/// One kind of objects of one namespace.
pub struct Watch<K> {
    pub api: Api<K>,
    /// As RBAC spells it, with the namespace: `endpointslices.discovery.k8s.io in namespace db`.
    pub resource: String,
    /// The same in one word, for metrics.
    pub kind: &'static str,
    pub labels: Option<String>,
    pub fields: Option<String>,
    /// Asks for the list to be read again.
    pub relist: Arc<Notify>,
    pub metrics: Arc<Metrics>,
}

/// How a watch ended.
enum Ended {
    /// By the server's clock, or in silence.
    Over,
    /// The list must be read again.
    Relist,
    Failed(ApiError),
    /// Nobody listens any more.
    Stopped,
}

/// How the API does, as one watch sees it.
struct Health {
    kind: &'static str,
    resource: String,
    metrics: Arc<Metrics>,
    connected: IntGauge,
    /// Failures since a watch last held for a while.
    failures: u32,
    /// What was said last, until the API answers again.
    said: Option<ApiError>,
}

impl Health {
    fn heard(&mut self) {
        self.connected.set(1);
        if self.said.take().is_some() {
            info!(resource = %self.resource, "the API answers again");
        }
    }

    /// Each kind of failure is said once, until the API answers again.
    fn failed(&mut self, error: &ApiError) {
        self.connected.set(0);
        self.metrics.watch_failed(self.kind, error.label());
        // Ordinary: the history is as short as the server likes.
        let ordinary = matches!(error, ApiError::Gone { .. });
        if ordinary || self.said.as_ref().is_some_and(|before| before.label() == error.label()) {
            debug!(%error, "the API is not heard");
            return;
        }
        warn!(%error, "the API is not heard; what is known stays");
        self.said = Some(error.clone());
    }

    fn next_wait(&mut self) -> Duration {
        let doubled = FIRST_WAIT.saturating_mul(2u32.saturating_pow(self.failures)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        let part = (RandomState::new().hash_one(0u8) % 256) as u32;
        doubled - doubled / 2 * part / 256
    }
}

impl<K> Watch<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Lists and watches for ever; returns when nobody takes the news any more. `reduce` keeps what matters of an object.
    pub async fn run<T: Send>(self, tell: mpsc::Sender<News<T>>, reduce: impl Fn(K) -> T + Send) {
        let mut health = Health {
            kind: self.kind,
            resource: self.resource.clone(),
            metrics: Arc::clone(&self.metrics),
            connected: self.metrics.watch_connected(self.kind),
            failures: 0,
            said: None,
        };
        loop {
            let mut version = match self.list(&tell, &reduce).await {
                Ok(Some(version)) => version,
                Ok(None) => return,
                Err(error) => {
                    health.failed(&error);
                    if tell.send(News::Failed(error)).await.is_err() {
                        return;
                    }
                    sleep(health.next_wait()).await;
                    continue;
                }
            };
            loop {
                let begun = Instant::now();
                let ended = self.watch(&mut version, &tell, &reduce, &mut health).await;
                if begun.elapsed() >= LONGEST_WAIT {
                    health.failures = 0;
                }
                match ended {
                    Ended::Over => sleep_until(begun + APART).await,
                    Ended::Stopped => return,
                    Ended::Relist => {
                        sleep(health.next_wait()).await;
                        break;
                    }
                    Ended::Failed(error) => {
                        health.failed(&error);
                        let gone = matches!(error, ApiError::Gone { .. });
                        if tell.send(News::Failed(error)).await.is_err() {
                            return;
                        }
                        sleep(health.next_wait()).await;
                        if gone {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// The whole list, page by page; the version at which to begin to watch. `None` when nobody listens.
    async fn list<T>(
        &self,
        tell: &mpsc::Sender<News<T>>,
        reduce: &impl Fn(K) -> T,
    ) -> Result<Option<String>, ApiError> {
        let mut parameters = ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        if tell.send(News::Seen(Seen::Init)).await.is_err() {
            return Ok(None);
        }
        loop {
            let list = match timeout(ANSWER, self.api.list(&parameters)).await {
                Ok(Ok(list)) => list,
                Ok(Err(error)) => return Err(ApiError::new("list", &self.resource, &error)),
                Err(_) => return Err(self.late("list")),
            };
            for object in list.items {
                let seen = Seen::InitApply(object.name_any(), reduce(object));
                if tell.send(News::Seen(seen)).await.is_err() {
                    return Ok(None);
                }
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => {
                    self.metrics.discovery_relists.inc();
                    let sent = tell.send(News::Seen(Seen::InitDone)).await;
                    return Ok(sent.is_ok().then(|| list.metadata.resource_version.unwrap_or_default()));
                }
            }
        }
    }

    /// Watches from `version` on, and keeps it at the last one that was seen.
    async fn watch<T>(
        &self,
        version: &mut String,
        tell: &mpsc::Sender<News<T>>,
        reduce: &impl Fn(K) -> T,
        health: &mut Health,
    ) -> Ended {
        let parameters = WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let events = match timeout(ANSWER, self.api.watch(&parameters, version)).await {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => return Ended::Failed(ApiError::new("watch", &self.resource, &error)),
            Err(_) => return Ended::Failed(self.late("watch")),
        };
        let mut events = pin!(events);
        health.heard();
        if tell.send(News::Heard).await.is_err() {
            return Ended::Stopped;
        }
        loop {
            let event = tokio::select! {
                event = timeout(SILENCE, events.next()) => event,
                () = self.relist.notified() => return Ended::Relist,
            };
            let news = match event {
                Err(_) => {
                    debug!(resource = %self.resource, after = ?SILENCE, "nothing heard; watching anew");
                    return Ended::Over;
                }
                Ok(None) => return Ended::Over,
                Ok(Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)))) => {
                    *version = object.resource_version().unwrap_or_default();
                    News::Seen(Seen::Apply(object.name_any(), reduce(object)))
                }
                Ok(Some(Ok(WatchEvent::Deleted(object)))) => {
                    *version = object.resource_version().unwrap_or_default();
                    News::Seen(Seen::Delete(object.name_any()))
                }
                Ok(Some(Ok(WatchEvent::Bookmark(bookmark)))) => {
                    *version = bookmark.metadata.resource_version;
                    News::Heard
                }
                Ok(Some(Ok(WatchEvent::Error(status)))) => {
                    return Ended::Failed(ApiError::of_status("watch", self.resource.clone(), &status));
                }
                Ok(Some(Err(error))) => return Ended::Failed(ApiError::new("watch", &self.resource, &error)),
            };
            if tell.send(news).await.is_err() {
                return Ended::Stopped;
            }
        }
    }

    fn late(&self, verb: &'static str) -> ApiError {
        ApiError::Timeout { verb, resource: self.resource.clone(), after: ANSWER }
    }
}
