//! `discovery.kubernetes`: the pods behind a headless Service, as the Kubernetes API shows them.
//!
//! ```text
//!   EndpointSlices ─┐
//!   Pods ───────────┼─ watch ─▶ fold ─▶ members ─▶ placement (ordinal, ranges, ledger) ─▶ Input::Nodes
//!   Service ────────┘                                  │
//!                                       pod names ─────┘ (DNS: what TLS verifies; decides only while the API is away)
//!
//!   the gateway's own Service ─ watch ─▶ load_balancer ─▶ Input::External
//! ```
//!
//! What one list alone says against what a watch said is told as such, and lists are read again where a node that is up contradicts it.
//! What speaks against the watches makes them list again, too (`suspicion`): a node that is not up, a name that leads elsewhere, time. A node
//! that is silent is asked for at its pod's other addresses (`elsewhere`), and an endpoint without a pod who it is (`unnamed`).
//! `simulation` plays all of this but the asking, from a seed.
//!
//! Where several StatefulSets have no ranges, `agreed_ports` keeps to the ledger in a ConfigMap that replicas share.
//!
//! Every watch is a task of its own (`watch`); one task, [`Source`], folds what they tell and owns everything else. While the
//! API is away it says nothing, and so the topology stays as it is; probes go on.

mod agreed_ports;
mod answers;
mod api_error;
mod cluster;
mod config_map;
mod elsewhere;
mod fold;
mod ledger;
mod listing;
mod load_balancer;
mod names;
mod objects;
mod oddities;
mod pending;
mod placement;
mod ports;
#[cfg(test)]
mod random;
#[cfg(test)]
mod simulation;
mod slices;
mod snapshot;
mod suspicion;
mod telling;
mod timing;
mod unnamed;
mod watch;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::{Notify, mpsc, watch as latest};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, interval, sleep_until};
use tracing::{error, info};

use crate::config::{self, kubernetes::Kubernetes};
use crate::metrics::Metrics;
use crate::proxy::current::Current;
use crate::proxy::dial::Dialer;
use crate::readiness::Readiness;
use crate::topology::Topology;
use crate::topology::input::Input;
use crate::topology::ports::PortRange;

use super::allow::Allow;
use super::clock::Clock;
use super::own_login::OwnLogin;
use super::refusals::Said;
use super::resolve::Names;
use elsewhere::Elsewhere;
use names::PodNames;
use objects::{PodObject, ServiceObject};
use oddities::Oddities;
use pending::Why;
use placement::Placements;
use snapshot::Snapshot;
use suspicion::Suspicion;
use unnamed::{Asks, Unnamed};
use watch::{ApiError, News, Watch};

pub use cluster::{Cluster, ClusterError};
pub use fold::Fold;
pub use listing::Seen;
pub use load_balancer::run as follow_load_balancer;
pub use slices::{Endpoint, Origin, Slice, split as pod_name};
#[cfg(test)]
pub use timing::Timing;

/// News that wait to be folded, of one watch.
const QUEUE: usize = 256;

/// What the source needs of the rest.
pub struct Parts {
    pub cluster: Cluster,
    pub config: Kubernetes,
    /// Later ones: who has which port may be another matter then, and nothing else is.
    pub changes: latest::Receiver<Option<Kubernetes>>,
    pub range: PortRange,
    pub allow: Allow,
    pub names: Names,
    pub dialer: Current<Dialer>,
    pub login: OwnLogin,
    /// Its silence is how long a node's answer may take.
    pub probe: Current<config::Probe>,
    pub inputs: mpsc::Sender<Input>,
    pub topology: latest::Receiver<Arc<Topology>>,
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
}

/// The source; everything that it started ends with it.
pub struct Source {
    clock: Clock,
    cluster: Cluster,
    namespace: String,
    config: Kubernetes,
    allow: Allow,
    login: OwnLogin,
    refused: Said,
    inputs: mpsc::Sender<Input>,
    topology: latest::Receiver<Arc<Topology>>,
    metrics: Arc<Metrics>,
    fold: Fold,
    names: PodNames,
    elsewhere: Elsewhere,
    unnamed: Unnamed,
    /// Somebody was told of nodes.
    told: bool,
    snapshot: Option<Snapshot>,
    placements: Placements,
    /// The last thing heard of the EndpointSlices was a failure.
    api_away: bool,
    /// Why nobody is known yet.
    why: Why,
    relist: Arc<Notify>,
    relist_pods: Arc<Notify>,
    watches: JoinSet<()>,
    range: PortRange,
    /// Whoever keeps the ledger, where there may be one.
    keeper: Option<AbortHandle>,
    /// The selector of the Pods that are watched, and the watch.
    pods: Option<(String, AbortHandle)>,
    /// What speaks against what the API said last.
    suspicion: Suspicion,
    /// Since when Pods have been forbidden.
    pods_forbidden: Option<Instant>,
    oddities: Oddities,
}

impl Source {
    /// Runs until nobody takes what it finds, or one of its watches breaks.
    pub async fn run(parts: Parts) {
        let Parts { cluster, config, range, allow, names, dialer, login, probe, changes, .. } = parts;
        let Parts { inputs, topology, metrics, readiness, .. } = parts;
        let namespace = config.namespace.clone().unwrap_or_else(|| cluster.namespace.clone());
        info!(service = %config.service, %namespace, "watching the pods behind the Service");
        let snapshot = config.snapshot_file.as_deref().map(|path| Snapshot::new(path, &namespace, &config.service));
        let (names, answers) = PodNames::new(
            names,
            &config.service,
            &namespace,
            &config.cluster_domain,
            cluster.timing,
            Arc::clone(&metrics),
        );
        let again = cluster.timing.elsewhere;
        let (elsewhere, found_elsewhere) = Elsewhere::new(dialer.clone(), probe.clone(), again);
        let (unnamed, said) = Unnamed::new(Asks { dialer, login: login.clone(), probe, again });
        let clock = Clock::new();
        let placements = Placements::new(config.clone(), range.clone(), None);
        let oddities = Oddities::new(&config.service, &namespace);
        if !config.watch_pods {
            Oddities::without_pods("are not watched (discovery.kubernetes.watch_pods: false)");
        }
        let (fold, suspicion) = (Fold::new(cluster.timing, config.family), Suspicion::new(cluster.timing));
        let mut source = Self {
            clock,
            range,
            keeper: None,
            cluster,
            namespace,
            config,
            allow,
            login,
            refused: Said::default(),
            inputs,
            topology,
            metrics,
            fold,
            names,
            elsewhere,
            unnamed,
            told: false,
            snapshot,
            placements,
            api_away: false,
            why: Why::new("discovery", readiness),
            relist: Arc::default(),
            relist_pods: Arc::default(),
            watches: JoinSet::new(),
            pods: None,
            suspicion,
            pods_forbidden: None,
            oddities,
        };
        source.replace(source.config.clone());
        source.follow(answers, found_elsewhere, said, changes).await;
    }

    async fn follow(
        mut self,
        mut answers: mpsc::Receiver<names::Answer>,
        mut found_elsewhere: mpsc::Receiver<elsewhere::Answer>,
        mut said: mpsc::Receiver<unnamed::Said>,
        mut changes: latest::Receiver<Option<Kubernetes>>,
    ) {
        let mut slices = self.watch_slices();
        let mut services = self.watch_service();
        let timing = self.cluster.timing;
        let (tell_pods, mut pods) = mpsc::channel(QUEUE);
        let mut topology = self.topology.clone();
        let mut known = self.placements.known();
        let mut still_true = interval(timing.still_true);
        let mut settle_at: Option<Instant> = None;
        let began = Instant::now();
        loop {
            let now = self.clock.now();
            let due = [self.fold.deadline(), self.suspicion.deadline()].into_iter().flatten().min();
            let due = due.map(|at| Instant::now() + at.duration_since(now).unwrap_or_default());
            let due = [settle_at, due].into_iter().flatten().min();
            tokio::select! {
                Some(news) = slices.recv() => self.hear_slices(news),
                Some(news) = pods.recv() => self.hear_pods(news),
                Some(news) = services.recv() => {
                    self.hear_service(news, &tell_pods);
                    continue;
                }
                Some(answer) = answers.recv() => self.names.learn(answer),
                Some((id, address)) = found_elsewhere.recv() => self.fold.see_answer(&id, address),
                Some((address, who)) = said.recv() => self.fold.see_identity(address, who),
                // Whether nodes answer decides what is believed of the API.
                Ok(()) = topology.changed() => {}
                Ok(()) = changed(&mut known) => {}
                Ok(()) = changes.changed() => {
                    let config = changes.borrow_and_update().clone();
                    let Some(config) = config.filter(|config| *config != self.config) else { continue };
                    self.replace(config);
                    known = self.placements.known();
                }
                // Without one of them the gateway would be blind to what it watched, and say that nothing changes.
                Some(Err(ended)) = self.watches.join_next() => {
                    if ended.is_panic() {
                        error!(%ended, "a watch has ended");
                        return;
                    }
                    continue;
                }
                () = sleep_until(due.unwrap_or(began)), if due.is_some() => {
                    settle_at = None;
                    if self.settle().await.is_err() {
                        return;
                    }
                    continue;
                }
                _ = still_true.tick() => {
                    if self.api_away || !self.fold.is_listed() {
                        self.start_from_snapshot(began).await;
                        continue;
                    }
                }
                () = sleep_until(began + timing.patience), if began.elapsed() < timing.patience => {
                    self.start_from_snapshot(began).await;
                }
            }
            settle_at = settle_at.or(Some(Instant::now() + timing.settle));
        }
    }

    fn hear_slices(&mut self, news: News<Slice>) {
        let heard = !matches!(news, News::Failed(_));
        match news {
            News::Seen(seen) => {
                self.api_away = false;
                self.fold.see_slice(seen);
            }
            News::Heard => self.api_away = false,
            // A history that is too short is an answer.
            News::Failed(ApiError::Gone { .. }) => {}
            News::Failed(error) => {
                self.why.note(&error);
                self.api_away = true;
            }
        }
        // Nothing else is news of the cluster, least of all that time has passed.
        if heard && self.fold.is_listed() {
            self.metrics.discovery_heard();
        }
    }

    fn hear_pods(&mut self, news: News<PodObject>) {
        match news {
            News::Seen(seen) => self.fold.see_pod(seen),
            News::Failed(ApiError::Forbidden { .. }) => {
                let since = *self.pods_forbidden.get_or_insert_with(Instant::now);
                if since.elapsed() < self.cluster.timing.forbidden {
                    return;
                }
                self.oddities.of_pods(true);
                // When they may be watched again they are listed first: the history does not tell who was there all along.
                if self.fold.forget_pods() {
                    self.relist_pods.notify_one();
                }
            }
            News::Heard => {
                self.pods_forbidden = None;
                self.oddities.of_pods(false);
            }
            News::Failed(_) => {}
        }
    }

    /// The Service says which Pods are its own.
    fn hear_service(&mut self, news: News<ServiceObject>, tell_pods: &mpsc::Sender<News<PodObject>>) {
        let News::Seen(listing::Seen::Apply(_, service) | listing::Seen::InitApply(_, service)) = news else { return };
        self.oddities.of_service(&service);
        if !self.config.watch_pods || service.selector.as_ref() == self.pods.as_ref().map(|(selector, _)| selector) {
            return;
        }
        if let Some((_, watching)) = self.pods.take() {
            watching.abort();
            // The Pods of other labels are nobody's testimony.
            self.fold.forget_pods();
        }
        self.pods = service.selector.map(|selector| {
            let labels = selector.clone();
            let watch = Watch::<Pod>::labelled(&self.cluster, &self.namespace, labels, "pods", &self.metrics);
            self.relist_pods = watch.relist();
            (selector, self.watches.spawn(watch.run(tell_pods.clone(), PodObject::new)))
        });
    }

    fn watch_slices(&mut self) -> mpsc::Receiver<News<Slice>> {
        let (tell, news) = mpsc::channel(QUEUE);
        let labels = format!("kubernetes.io/service-name={}", self.config.service);
        let (cluster, namespace) = (&self.cluster, &self.namespace);
        let watch = Watch::<EndpointSlice>::labelled(cluster, namespace, labels, "endpointslices", &self.metrics);
        self.relist = watch.relist();
        let port = self.config.port.clone();
        self.watches.spawn(watch.run(tell, move |slice| Slice::new(slice, port.as_ref())));
        news
    }

    fn watch_service(&mut self) -> mpsc::Receiver<News<ServiceObject>> {
        let (tell, news) = mpsc::channel(QUEUE);
        let (cluster, namespace) = (&self.cluster, &self.namespace);
        let watch = Watch::<Service>::named(cluster, namespace, &self.config.service, "service", &self.metrics);
        self.watches.spawn(watch.run(tell, ServiceObject::new));
        news
    }

    /// The API has not answered since the start: what an earlier process knew is better than nothing.
    async fn start_from_snapshot(&mut self, began: Instant) {
        if self.fold.is_listed()
            || self.fold.members().next().is_some()
            || began.elapsed() < self.cluster.timing.patience
        {
            return;
        }
        let Some(snapshot) = &self.snapshot else { return };
        let Some((saved, learned)) = snapshot.read().await else { return };
        self.placements.remember(saved.iter().map(|(id, _, port)| (id.clone(), *port)).collect());
        self.fold.restore(saved.into_iter().map(|(id, member, _)| (id, member)));
        let news = learned.news(&self.topology.borrow().paths);
        for (external, learned) in news {
            let _ = self.inputs.send(Input::External(external, learned)).await;
        }
        let _ = self.settle().await;
    }
}

/// Waits for the next change; for ever where there is nothing that could.
async fn changed<T>(latest: &mut Option<latest::Receiver<T>>) -> Result<(), latest::error::RecvError> {
    match latest {
        Some(latest) => latest.changed().await,
        None => std::future::pending().await,
    }
}
