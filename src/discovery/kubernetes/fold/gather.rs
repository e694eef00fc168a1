//! From slices to the pods that they show, each under the identity by which its node is known: the pod's name, or the host_id of the
//! node at an address where no pod is named.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::topology::{HostId, NodeId};

use super::super::objects::{Endpoint, Origin};
use super::identity::{Named, named};
use super::offers::{self, Lives, Offer};
use super::{Fold, Presence, Stranger, Withdrawn};

impl Fold {
    /// Reads all slices anew.
    pub(super) fn gather(&mut self) {
        let mut lives = Lives::new();
        let mut first_seen = BTreeMap::new();
        let mut unnamed = BTreeMap::new();
        self.strangers.clear();
        let mut add = |id: NodeId, endpoint: &Endpoint, port, origin: &Origin, name: &Arc<str>| {
            let life = (id.clone(), endpoint.uid.clone(), endpoint.address);
            let news = self.first_seen.get(&life).copied().unwrap_or(self.news);
            first_seen.insert(life, news);
            offers::add(&mut lives, id, Offer::new(endpoint, port, origin, name, news));
        };
        for (name, slice) in self.slices.iter() {
            let name: Arc<str> = name.as_str().into();
            for endpoint in &slice.endpoints {
                let why = match named(endpoint, slice.port) {
                    Ok(Named::Pod(id, port)) => {
                        add(id, endpoint, port, &slice.origin, &name);
                        continue;
                    }
                    Ok(Named::Nothing(port)) => match &slice.origin {
                        Origin::Mirrored(cluster) => {
                            format!("the endpoint is one of cluster {cluster} and names no pod")
                        }
                        origin => {
                            let at = SocketAddr::new(endpoint.address, port);
                            unnamed.entry(at).or_insert((endpoint, origin, Arc::clone(&name)));
                            continue;
                        }
                    },
                    Err(why) => why,
                };
                self.strangers.insert(Stranger { address: endpoint.address, why });
            }
        }
        // What is written by hand beside a named pod is that pod.
        if !unnamed.is_empty() {
            let of_pods: BTreeSet<IpAddr> =
                self.pods.iter().flat_map(|(_, pod)| pod.addresses.iter().copied()).collect();
            let endpoints = self.slices.iter().flat_map(|(_, slice)| &slice.endpoints);
            let named = endpoints.filter(|endpoint| !endpoint.is_unnamed());
            let of_slices: BTreeSet<IpAddr> = named.map(|endpoint| endpoint.address).collect();
            unnamed.retain(|at, _| !of_pods.contains(&at.ip()) && !of_slices.contains(&at.ip()));
        }
        self.who.retain(|at, _| unnamed.contains_key(at));
        for (at, (endpoint, origin, name)) in &unnamed {
            match self.who.get(at) {
                Some(Ok(host_id)) => {
                    let id = NodeId::new(&host_id.to_string());
                    let endpoint = Endpoint { uid: Some(Arc::clone(&id.0)), ..(*endpoint).clone() };
                    add(id, &endpoint, at.port(), origin, name);
                }
                Some(Err(error)) => {
                    let why = format!("the endpoint names no pod, and who it is is not known: {error}");
                    self.strangers.insert(Stranger { address: at.ip(), why });
                }
                None => {}
            }
        }
        self.unnamed = unnamed.into_keys().collect();
        self.lives = lives;
        self.first_seen = first_seen;
    }

    /// Addresses without a pod's name, of which it is not known who is there, or that are silent: to be asked, and told to
    /// [`Self::see_identity`].
    pub fn unnamed(&self) -> impl Iterator<Item = SocketAddr> {
        let silent = |at: &SocketAddr, host_id: &HostId| {
            let known = self.known.get(&NodeId::new(&host_id.to_string()));
            let here = known.filter(|known| known.presence == Presence::Here && known.member.address == *at);
            here.and_then(|known| known.place.silent_for(self.timing.elsewhere))
                .is_some_and(|at| Some(at) <= self.settled)
        };
        let asked = move |at: &&SocketAddr| match self.who.get(*at) {
            Some(Ok(host_id)) => silent(at, host_id),
            _ => true,
        };
        self.unnamed.iter().filter(asked).copied()
    }

    /// True where endpoints name no pods.
    pub fn has_unnamed(&self) -> bool {
        !self.unnamed.is_empty()
    }

    /// Who is at one of these addresses, or why that is not known. A failure is no news of one that is known.
    pub fn see_identity(&mut self, address: SocketAddr, said: Result<HostId, String>) {
        let known = self.who.get(&address);
        if !self.unnamed.contains(&address) || known == Some(&said) || (said.is_err() && matches!(known, Some(Ok(_)))) {
            return;
        }
        self.who.insert(address, said);
        self.news += 1;
        self.gather();
        self.choose(Withdrawn::Told);
    }
}
