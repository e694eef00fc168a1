//! One kind of objects, listed once and then watched for as long as the gateway runs.
//!
//! Every watch ends: by the server's clock, by a dead connection that only silence gives away, or because its place in the
//! history is gone (410), and then the list is read again; and so it is after some minutes, because a watch may wait for a future
//! that does not come (etcd was restored from a backup). Whoever reads what comes out of here sees none of that: only
//! [`Seen`], whole lists and single changes, and now and then whether the API is being heard.
//!
//! Never gives up, and never asks faster than its waits allow: an API server that is in trouble is not helped by questions.
//!
//! Why not `kube::runtime::watcher` (as of 5.0.0): its list has no deadline, so that a server which accepts and is silent stops
//! it until the client's own read timeout (here [`Timing::answer`]); a dead connection is found 5 s after the server would have
//! ended the watch (here after [`Timing::silence`], half of that); bookmarks are swallowed, and with them the only sign that an
//! API without news is heard, on which every wait of the fold depends; a watch that cannot begin is begun at the same place for
//! ever, also where the server answers 410 to the request itself; and `Retry-After` is not in its errors. What would remain
//! is its paging and its match over five events.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, ListParams, ObjectList, WatchEvent, WatchParams};
use kube::core::{self, NamespaceResourceScope};
use kube::{Resource, ResourceExt};
use prometheus::IntGauge;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::metrics::Metrics;

use super::super::backoff::{jittered, shortened};
use super::answers::Question;
pub use super::api_error::ApiError;
use super::cluster::Cluster;
use super::listing::Seen;
use super::timing::Timing;

/// The server is asked to end a watch after this: load balancers in front of it cut idle connections after 240 s.
const WATCH_SECONDS: u32 = 200;
/// Objects in one page of a list, as in client-go.
const PAGE: u32 = 500;
/// A server that wants to be left alone for longer than this (`Retry-After`) is asked all the same.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum News<T> {
    Seen(Seen<T>),
    /// The API was heard: something came, or a watch was begun. At least every `Timing::silence`.
    Heard,
    Failed(ApiError),
}

/// Objects of one kind of one namespace.
pub struct Watch<K> {
    api: Api<K>,
    /// As RBAC spells it, with the namespace: `endpointslices.discovery.k8s.io in namespace db`.
    resource: String,
    /// What they are watched for, in one word, for metrics.
    kind: &'static str,
    labels: Option<String>,
    fields: Option<String>,
    relist: Arc<Notify>,
    metrics: Arc<Metrics>,
    timing: Timing,
}

/// How a watch ended.
enum Ended {
    /// By the server's clock, or in silence.
    Over,
    /// The list must be read again.
    Relist,
    /// The list is old.
    Old,
    Failed(ApiError),
    /// Nobody listens any more.
    Stopped,
}

/// How the API does, as one watch sees it.
struct Health {
    kind: &'static str,
    resource: String,
    metrics: Arc<Metrics>,
    timing: Timing,
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
        self.metrics.watch_failed(self.kind, error.failure());
        // Ordinary: the history is as short as the server likes.
        let ordinary = matches!(error, ApiError::Gone { .. });
        if ordinary || self.said.as_ref().is_some_and(|before| before.failure() == error.failure()) {
            debug!(%error, "the API is not heard");
            return;
        }
        warn!(%error, "the API is not heard; what is known stays");
        self.said = Some(error.clone());
    }

    /// Grows with every failure, and is never shorter than the server asked for.
    fn next_wait(&mut self, error: Option<&ApiError>) -> Duration {
        let doubled =
            self.timing.first_wait.saturating_mul(2u32.saturating_pow(self.failures)).min(self.timing.longest_wait);
        self.failures = self.failures.saturating_add(1);
        let asked_for = match error {
            Some(ApiError::Throttled { after: Some(after), .. }) => LONGEST_RETRY_AFTER.min(*after),
            _ => Duration::ZERO,
        };
        shortened(doubled, doubled / 2).max(asked_for)
    }
}

impl<K> Watch<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Those that `labels` selects.
    pub fn labelled(
        cluster: &Cluster,
        namespace: &str,
        labels: String,
        kind: &'static str,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let resource = format!("{} in namespace {namespace}", plural::<K>());
        Self { labels: Some(labels), ..Self::of(cluster, namespace, resource, kind, metrics) }
    }

    /// The one of this name.
    pub fn named(cluster: &Cluster, namespace: &str, name: &str, kind: &'static str, metrics: &Arc<Metrics>) -> Self {
        let resource = format!("{} (that named {name}) in namespace {namespace}", plural::<K>());
        let fields = Some(format!("metadata.name={name}"));
        Self { fields, ..Self::of(cluster, namespace, resource, kind, metrics) }
    }

    fn of(cluster: &Cluster, namespace: &str, resource: String, kind: &'static str, metrics: &Arc<Metrics>) -> Self {
        Self {
            api: Api::namespaced(cluster.client.clone(), namespace),
            resource,
            kind,
            labels: None,
            fields: None,
            relist: Arc::default(),
            metrics: Arc::clone(metrics),
            timing: cluster.timing,
        }
    }

    /// Asks for the list to be read again.
    pub fn relist(&self) -> Arc<Notify> {
        Arc::clone(&self.relist)
    }

    /// Lists and watches for ever; returns when nobody takes the news any more. `reduce` keeps what matters of an object.
    pub async fn run<T: Send>(self, tell: mpsc::Sender<News<T>>, reduce: impl Fn(K) -> T + Send) {
        let mut health = Health {
            kind: self.kind,
            resource: self.resource.clone(),
            metrics: Arc::clone(&self.metrics),
            timing: self.timing,
            connected: self.metrics.watch_connected(self.kind),
            failures: 0,
            said: None,
        };
        // Where the last watch was in the history.
        let mut place: Option<String> = None;
        loop {
            let mut version = match self.list(&tell, &reduce).await {
                Ok(Some(version)) => {
                    self.compare(place.as_deref(), &version);
                    version
                }
                Ok(None) => return,
                Err(error) => {
                    health.failed(&error);
                    let wait = health.next_wait(Some(&error));
                    if tell.send(News::Failed(error)).await.is_err() {
                        return;
                    }
                    sleep(wait).await;
                    continue;
                }
            };
            let old_at = Instant::now() + jittered(self.timing.renew);
            loop {
                let begun = Instant::now();
                let ended = self.watch(&mut version, old_at, &tell, &reduce, &mut health).await;
                if begun.elapsed() >= self.timing.longest_wait {
                    health.failures = 0;
                }
                match ended {
                    Ended::Over => sleep_until(begun + self.timing.apart).await,
                    Ended::Stopped => return,
                    Ended::Old => break,
                    Ended::Relist => {
                        sleep(health.next_wait(None)).await;
                        break;
                    }
                    Ended::Failed(error) => {
                        health.failed(&error);
                        // What cannot be read would come again at this place in the history.
                        let stuck = matches!(error, ApiError::Gone { .. } | ApiError::Unreadable { .. });
                        let wait = health.next_wait(Some(&error));
                        if tell.send(News::Failed(error)).await.is_err() {
                            return;
                        }
                        sleep(wait).await;
                        if stuck {
                            break;
                        }
                    }
                }
            }
            place = Some(version);
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
        let mut begins = Some(Seen::Init);
        loop {
            let request = self.request().list(&parameters).map_err(|error| self.unasked("list", &error))?;
            let list: ObjectList<K> = match timeout(self.timing.answer, self.question("list").ask(request)).await {
                Ok(list) => list?,
                Err(_) => return Err(self.late("list")),
            };
            // Only an answer begins a list: until then the API may be away.
            if let Some(init) = begins.take()
                && tell.send(News::Seen(init)).await.is_err()
            {
                return Ok(None);
            }
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

    /// Watches from `version` on, and keeps it at the last one that was seen; until `old_at` at the latest.
    async fn watch<T>(
        &self,
        version: &mut String,
        old_at: Instant,
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
        let request = match self.request().watch(&parameters, version) {
            Ok(request) => request,
            Err(error) => return Ended::Failed(self.unasked("watch", &error)),
        };
        let question = self.question("watch");
        let mut lines = match timeout(self.timing.answer, question.open(request)).await {
            Ok(Ok(lines)) => lines,
            Ok(Err(error)) => return Ended::Failed(error),
            Err(_) => return Ended::Failed(self.late("watch")),
        };
        health.heard();
        if tell.send(News::Heard).await.is_err() {
            return Ended::Stopped;
        }
        loop {
            let event = tokio::select! {
                event = timeout(self.timing.silence, question.next::<WatchEvent<K>>(&mut lines)) => event,
                () = self.relist.notified() => return Ended::Relist,
                () = sleep_until(old_at) => return Ended::Old,
            };
            let news = match event {
                Err(_) => {
                    debug!(resource = %self.resource, after = ?self.timing.silence, "nothing heard; watching anew");
                    return Ended::Over;
                }
                Ok(Ok(None)) => return Ended::Over,
                Ok(Ok(Some(WatchEvent::Added(object) | WatchEvent::Modified(object)))) => {
                    advance(version, object.resource_version());
                    News::Seen(Seen::Apply(object.name_any(), reduce(object)))
                }
                Ok(Ok(Some(WatchEvent::Deleted(object)))) => {
                    advance(version, object.resource_version());
                    News::Seen(Seen::Delete(object.name_any()))
                }
                Ok(Ok(Some(WatchEvent::Bookmark(bookmark)))) => {
                    advance(version, Some(bookmark.metadata.resource_version));
                    News::Heard
                }
                Ok(Ok(Some(WatchEvent::Error(status)))) => {
                    let (code, text) = (status.code, status.message.clone());
                    return Ended::Failed(ApiError::of_code("watch", self.resource.clone(), code, text));
                }
                Ok(Err(error)) => return Ended::Failed(error),
            };
            if tell.send(news).await.is_err() {
                return Ended::Stopped;
            }
        }
    }

    /// Versions only grow, by their numbers, but where the store was replaced by an earlier one.
    fn compare(&self, watched: Option<&str>, listed: &str) {
        let number = |version: &str| version.parse::<u64>().ok();
        if let (Some(watched), Some(listed)) = (watched.and_then(number), number(listed))
            && listed < watched
        {
            warn!(
                resource = %self.resource, watched, listed,
                "the API's history has gone back (etcd restored from a backup?); what it lists now is believed"
            );
        }
    }

    fn request(&self) -> core::Request {
        core::Request::new(self.api.resource_url())
    }

    fn question(&self, verb: &'static str) -> Question<'_> {
        Question { client: self.api.clone().into_client(), verb, resource: &self.resource }
    }

    fn unasked(&self, verb: &'static str, error: &dyn std::error::Error) -> ApiError {
        ApiError::Connection { verb, resource: self.resource.clone(), text: error.to_string() }
    }

    fn late(&self, verb: &'static str) -> ApiError {
        ApiError::Timeout { verb, resource: self.resource.clone(), after: self.timing.answer }
    }
}

/// As RBAC spells it: `services`, `endpointslices.discovery.k8s.io`.
fn plural<K: Resource<DynamicType = ()>>() -> String {
    match K::group(&()) {
        group if group.is_empty() => K::plural(&()).into_owned(),
        group => format!("{}.{group}", K::plural(&())),
    }
}

/// The place in the history from which to go on; an object that does not tell its own leaves it where it is.
fn advance(version: &mut String, seen: Option<String>) {
    if let Some(seen) = seen.filter(|seen| !seen.is_empty()) {
        *version = seen;
    }
}
