//! The address that clients are told to dial: given, or the present meaning of a name.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::config::Advertise;
use crate::topology::Advertised;
use crate::topology::input::Input;

use super::kubernetes::{Cluster, follow_load_balancer};
use super::resolve::{Addresses, Failures, Names, follow};
use super::sources::{Common, Source};
use crate::readiness::Readiness;

/// Tells of the address for as long as it is polled; `cluster` is there where the Kubernetes API says which it is. What clients are
/// told already stays until there is another one.
pub fn source(common: &Common, advertise: &Advertise, cluster: Option<&Cluster>, readiness: Readiness) -> Source {
    let Common { names, inputs, topology, metrics } = common.clone();
    match (advertise, cluster) {
        (Advertise::Service(service), Some(cluster)) => {
            let (cluster, service) = (cluster.clone(), service.clone());
            Box::pin(follow_load_balancer(cluster, service, names, inputs, topology, metrics, readiness))
        }
        (advertise, _) => {
            let in_use = topology.borrow().advertised;
            Box::pin(run(advertise.clone(), in_use, names, inputs))
        }
    }
}

/// Sends the address; for a name, whenever it changes. A name that stops resolving keeps its last address. Never ends, as no
/// source does, though there may be nothing more to say. `in_use` is what clients are told already.
async fn run(advertise: Advertise, in_use: Advertised, names: Names, inputs: mpsc::Sender<Input>) {
    let host = match advertise {
        Advertise::Addresses { ipv4, ipv6 } => {
            let _ = inputs.send(Input::Advertised(Advertised { ipv4, ipv6 })).await;
            return pending().await;
        }
        Advertise::Name(host) => host,
        // What the Kubernetes API says is followed there.
        Advertise::Service(_) => return pending().await,
    };
    let mut advertised = in_use;
    follow(names, host, Arc::default(), Failures::Wrong, None, move |addresses| {
        let news = addresses.map(|addresses| choose_each(advertised, &addresses)).filter(|next| *next != advertised);
        advertised = news.unwrap_or(advertised);
        let inputs = inputs.clone();
        async move {
            if let Some(advertised) = news {
                let _ = inputs.send(Input::Advertised(advertised)).await;
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
