//! The addresses that clients are told to dial: what the configuration names, and the present meaning of each.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::External;
use crate::config::advertise::Path;
use crate::topology::Advertised;
use crate::topology::input::Input;
use crate::topology::paths::Learned;

use super::kubernetes::{Cluster, follow_load_balancer};
use super::resolve::{Addresses, Failures, Names, follow};
use super::sources::{Common, Source};
use crate::readiness::{Pending, Readiness};

/// Tells of the plan, and of each address in it for as long as it is polled; `cluster` is there where the Kubernetes API says which it
/// is. What clients are told already stays until there is something else.
pub fn source(common: &Common, paths: &[Path], cluster: Option<&Cluster>, readiness: Readiness) -> Source {
    let (common, plan) = (common.clone(), Arc::<[Path]>::from(paths));
    let cluster = cluster.cloned();
    Box::pin(async move {
        let named: BTreeSet<External> =
            plan.iter().flat_map(Path::parts).map(|part| part.external.clone()).filter(may_change).collect();
        if common.inputs.send(Input::Paths(plan)).await.is_err() {
            return;
        }
        // Whoever is told of some of several would take the others for gone.
        let several = named.len() > 1;
        let mut followers = JoinSet::new();
        for external in named {
            let first = First(several.then(|| readiness.pending(&format!("advertised address: {external}"))));
            match (&external, &cluster) {
                (External::Service(service), Some(cluster)) => {
                    let (cluster, service, readiness) = (cluster.clone(), service.clone(), readiness.clone());
                    followers.spawn(follow_load_balancer(cluster, service, common.clone(), first, readiness));
                }
                (External::Name(host), _) => {
                    let known = common.topology.borrow().paths.learned().get(&external).cloned().unwrap_or_default();
                    let (names, inputs) = (common.names.clone(), common.inputs.clone());
                    followers.spawn(run(host.clone(), known.advertised, names, inputs, first));
                }
                _ => {}
            }
        }
        match followers.join_next().await {
            Some(ended) => tracing::error!(?ended, "an advertised address is followed no more"),
            None => pending().await,
        }
    })
}

fn may_change(external: &External) -> bool {
    !matches!(external, External::Addresses { .. })
}

/// Readiness waits for it until something is said of an address, be it that there is none.
pub struct First(Option<Pending>);

impl First {
    pub fn said(&mut self) {
        self.0 = None;
    }
}

/// Sends the address of a name, whenever it changes. A name that stops resolving keeps its last address. Never ends, as no source
/// does. `in_use` is what clients are told already.
async fn run(host: String, in_use: Advertised, names: Names, inputs: mpsc::Sender<Input>, mut first: First) {
    let external = External::Name(host.clone());
    let mut advertised = in_use;
    follow(names, host, Arc::default(), Failures::Wrong, None, move |addresses| {
        first.said();
        let news = addresses.map(|addresses| choose_each(advertised, &addresses)).filter(|next| *next != advertised);
        advertised = news.unwrap_or(advertised);
        let (inputs, external) = (inputs.clone(), external.clone());
        async move {
            if let Some(advertised) = news {
                let learned = Learned { advertised, ..Learned::default() };
                let _ = inputs.send(Input::External(external, learned)).await;
            }
        }
    })
    .await;
}

/// Per family: the address in use while the name has it, else its lowest.
pub fn choose_each(in_use: Advertised, addresses: &Addresses) -> Advertised {
    Advertised { ipv4: choose(in_use.ipv4, &addresses.ipv4), ipv6: choose(in_use.ipv6, &addresses.ipv6) }
}

fn choose<T: Ord + Copy>(in_use: Option<T>, addresses: &[T]) -> Option<T> {
    in_use.filter(|address| addresses.contains(address)).or_else(|| addresses.iter().min().copied())
}
