//! The pods' DNS names: `pod.service.namespace.svc.domain` (Kubernetes documentation, "Stable Network ID"), each looked up
//! whenever the watch says that its pod has moved, and when its TTL is over while there is a reason: the node is not up, or the name
//! leads elsewhere. The others are looked up every few minutes, because a name that leads elsewhere may say that a watch is silent.
//!
//! A name never decides while the API is heard: DNS is fed by the same API, through caches. It decides only when the API is not
//! heard and the address that was last known is dead, because the cluster's DNS may still hear what the gateway does not.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use crate::metrics::Metrics;
use crate::topology::NodeId;
use crate::topology::input::Listed;

use super::super::resolve::{Addresses, Failures, Names, Pace, follow};
use super::fold::Member;
use super::timing::Timing;

/// What a look-up found; `None` when it failed.
pub type Answer = (NodeId, Option<Addresses>);

struct Followed {
    host: Arc<str>,
    /// Where the watch says that the pod lives.
    address: IpAddr,
    answer: Option<Addresses>,
    /// Where the name led when the API was not heard and the node was dead.
    led: Option<IpAddr>,
    wake: Arc<Notify>,
    /// There is no reason to ask for it.
    is_calm: watch::Sender<bool>,
    task: AbortOnDropHandle<()>,
}

impl Followed {
    fn disagrees(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.has(self.address))
    }
}

/// The names of all members that have one.
pub struct PodNames {
    names: Names,
    timing: Timing,
    /// `.service.namespace.svc.domain`.
    suffix: String,
    followed: HashMap<NodeId, Followed>,
    tell: mpsc::Sender<Answer>,
    metrics: Arc<Metrics>,
}

impl PodNames {
    /// With the end at which answers arrive, for [`Self::learn`].
    pub fn new(
        names: Names,
        service: &str,
        namespace: &str,
        domain: &str,
        timing: Timing,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Receiver<Answer>) {
        let (tell, answers) = mpsc::channel(64);
        let suffix = format!(".{service}.{namespace}.svc.{domain}");
        (Self { names, timing, suffix, followed: HashMap::new(), tell, metrics }, answers)
    }

    /// The name of a pod that has one.
    pub fn host(&self, member: &Member) -> Option<Arc<str>> {
        member.hostname.as_ref().map(|hostname| format!("{hostname}{}", self.suffix).into())
    }

    /// Follows the names of these members and of no others; looks one up at once when its pod has moved, and rarely while it is up.
    pub fn follow<'a>(
        &mut self,
        members: impl Iterator<Item = (&'a NodeId, &'a Member)>,
        is_up: impl Fn(&NodeId) -> bool,
    ) {
        let wanted: HashMap<&NodeId, (Arc<str>, IpAddr)> =
            members.filter_map(|(id, member)| Some((id, (self.host(member)?, member.address.ip())))).collect();
        // A look-up never ends by itself: one that panicked is begun anew.
        self.followed.retain(|id, followed| {
            !followed.task.is_finished() && wanted.get(id).is_some_and(|(host, _)| *host == followed.host)
        });
        for (id, (host, address)) in wanted {
            if let Some(followed) = self.followed.get_mut(id) {
                if followed.address != address {
                    followed.address = address;
                    followed.wake.notify_one();
                }
                let is_calm = is_up(id) && !followed.disagrees();
                followed.is_calm.send_if_modified(|before| std::mem::replace(before, is_calm) != is_calm);
                continue;
            }
            let (wake, tell, of) = (Arc::new(Notify::new()), self.tell.clone(), id.clone());
            let told = move |answer| {
                let (tell, of) = (tell.clone(), of.clone());
                async move { _ = tell.send((of, answer)).await }
            };
            // With the dot at its end the name is absolute: no search list is gone through.
            let (names, name, woken) = (self.names.clone(), format!("{host}."), Arc::clone(&wake));
            let (is_calm, calm) = watch::channel(is_up(id));
            let pace = Some(Pace { is_calm: calm, rarely: self.timing.names });
            let following = follow(names, name, woken, Failures::Ordinary, pace, told);
            let task = AbortOnDropHandle::new(tokio::spawn(following));
            let followed = Followed { host, address, answer: None, led: None, wake, is_calm, task };
            self.followed.insert(id.clone(), followed);
        }
    }

    /// Takes an answer in; one that disagrees with the watch is counted.
    pub fn learn(&mut self, (id, answer): Answer) {
        let (Some(followed), Some(answer)) = (self.followed.get_mut(&id), answer) else { return };
        if !answer.has(followed.address) {
            self.metrics.dns_disagreements.inc();
            if followed.answer.as_ref() != Some(&answer) {
                debug!(node = %id, host = %followed.host, watch = %followed.address, dns = ?answer, "DNS is behind the watch");
            }
        }
        followed.answer = Some(answer);
    }

    /// Whether a node's name leads elsewhere than where the watch says that it lives.
    pub fn disagrees(&self, id: &NodeId) -> bool {
        self.followed.get(id).is_some_and(Followed::disagrees)
    }

    /// Whether a node's name leads where it is listed.
    pub fn agrees(&self, id: &NodeId, member: &Member) -> bool {
        let answer = self.followed.get(id).and_then(|followed| followed.answer.as_ref());
        member.listed == Listed::Here && answer.is_some_and(|answer| answer.has(member.address.ip()))
    }

    /// The API is not heard and the node is away, or dead where it is dialled: from now on it is dialled where its name leads.
    pub fn lead(&mut self, id: &NodeId, known: IpAddr) {
        let Some(followed) = self.followed.get_mut(id) else { return };
        let from = followed.led.unwrap_or(known);
        let answer = followed.answer.as_ref().filter(|answer| !answer.has(from));
        if let Some(to) = answer.and_then(|answer| answer.choose(None)) {
            info!(node = %id, %from, %to, "the API is not heard and the node is dead: dialling where its name leads");
            followed.led = Some(to);
        }
    }

    /// Where [`Self::lead`] has led a node.
    pub fn led(&self, id: &NodeId) -> Option<IpAddr> {
        self.followed.get(id)?.led
    }

    /// The API is heard: what it says counts again, for every node.
    pub fn trust_watch(&mut self) {
        self.followed.values_mut().for_each(|followed| followed.led = None);
    }
}
