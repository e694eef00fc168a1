//! What whoever reads the log should know of the Service and its pods, once each, and again when it has become so anew.

use std::collections::BTreeSet;

use tracing::warn;

use crate::topology::NodeId;
use crate::topology::input::Notice;

use super::agreed_ports::Known;
use super::fold::{Fold, Stranger};
use super::ledger::agreement::Unplaced;
use super::objects::ServiceObject;

/// What was said and still holds.
pub struct Oddities {
    service: String,
    namespace: String,
    strangers: BTreeSet<Stranger>,
    nameless: BTreeSet<NodeId>,
    /// Nodes that keep another port than the one that is pinned to them.
    unpinned: BTreeSet<NodeId>,
    nobody: bool,
    by_hand: bool,
    not_headless: bool,
    pods_unseen: bool,
}

impl Oddities {
    pub fn new(service: &str, namespace: &str) -> Self {
        Self {
            service: service.to_owned(),
            namespace: namespace.to_owned(),
            strangers: BTreeSet::new(),
            nameless: BTreeSet::new(),
            unpinned: BTreeSet::new(),
            nobody: false,
            by_hand: false,
            not_headless: false,
            pods_unseen: false,
        }
    }

    /// Pods may not be watched, or may again.
    pub fn of_pods(&mut self, unseen: bool) {
        if begins(&mut self.pods_unseen, unseen) {
            Self::without_pods("may not be watched");
        }
    }

    /// Pods are not watched, for this reason.
    pub fn without_pods(reason: &str) {
        warn!(
            "Pods {reason}; EndpointSlices alone do not tell a pod that was scaled away from one that is being replaced: its node \
             stays down for a day, in place of a minute, before it counts as gone. Nor do they tell the StatefulSet's pods from \
             one that somebody made with such a name: each counts, and over plain TCP none is sent the gateway's password unless \
             probe.plain_password is always"
        );
    }

    pub fn of_service(&mut self, service: &ServiceObject) {
        if begins(&mut self.not_headless, !service.headless) {
            warn!(service = %self.service, "the Service is not headless (clusterIP: None): its pods have no names in DNS");
        }
    }

    /// A node without any port is named when the topology is made.
    pub fn of_pins(&mut self, known: &Known) {
        let Known::Agreed(agreed) = known else { return };
        let mut unpinned = BTreeSet::new();
        for (id, why) in agreed.unplaced.iter().filter(|(id, _)| agreed.ports.contains_key(id)) {
            if let Unplaced::Port(error) = why {
                if !self.unpinned.contains(id) {
                    warn!("{}", Notice::KeepsPort { id: id.clone(), error: error.clone() });
                }
                unpinned.insert(id.clone());
            }
        }
        self.unpinned = unpinned;
    }

    /// `by_name`: pods are dialled by their names.
    pub fn of_fold(&mut self, fold: &Fold, by_name: bool) {
        let (service, namespace) = (&self.service, &self.namespace);
        let nobody = fold.is_listed() && fold.members().next().is_none();
        if begins(&mut self.nobody, nobody) {
            warn!(%service, %namespace, "the Service has no endpoints: is there one of this name, and do its pods run?");
        }
        if begins(&mut self.by_hand, fold.has_unnamed()) {
            warn!(
                %service, %namespace,
                "endpoints of the Service name no pods: nodes are known by their host_id and have ports of the ledger. Better is a \
                 headless Service (clusterIP: None) that selects the StatefulSet's pods and is its serviceName"
            );
        }
        for stranger in fold.strangers().filter(|stranger| !self.strangers.contains(stranger)) {
            warn!(address = %stranger.address, "hidden from clients: {}", stranger.why);
        }
        self.strangers = fold.strangers().cloned().collect();
        let nameless = fold.members().filter(|(_, member)| by_name && member.is_present() && member.hostname.is_none());
        let nameless: BTreeSet<NodeId> = nameless.map(|(id, _)| id.clone()).collect();
        for node in nameless.difference(&self.nameless) {
            warn!(
                %node,
                "the pod has no DNS name and is dialled by its address: its StatefulSet's serviceName is not {service}"
            );
        }
        self.nameless = nameless;
    }
}

/// True when it holds and did not hold before.
fn begins(held: &mut bool, holds: bool) -> bool {
    !std::mem::replace(held, holds) && holds
}
