//! What the slices say of one pod: its endpoints put together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::topology::NodeId;

use super::super::objects::{Endpoint, Origin};

/// One pod as the slices show it.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The one that describes it best.
    pub endpoint: Endpoint,
    pub port: u16,
    /// Whose it is, by the slice that says most.
    pub origin: Origin,
    /// The slices that name it.
    pub slices: Vec<Arc<str>>,
    /// The news that named it first at one of its addresses, and last at another.
    pub since: u64,
    pub news: u64,
    /// All its addresses, IPv4 first.
    pub places: Vec<SocketAddr>,
}

/// The pods that slices show, by name: of each name, all of them.
pub type Lives = BTreeMap<NodeId, Vec<Offer>>;

impl Offer {
    pub fn new(endpoint: &Endpoint, port: u16, origin: &Origin, slice: &Arc<str>, news: u64) -> Self {
        Self {
            endpoint: endpoint.clone(),
            port,
            origin: origin.clone(),
            slices: vec![Arc::clone(slice)],
            since: news,
            news,
            places: vec![SocketAddr::new(endpoint.address, port)],
        }
    }

    /// Which pod it is, where that is told, and the news that named it first.
    pub fn shown(&self) -> Option<(Arc<str>, u64)> {
        self.endpoint.uid.clone().map(|uid| (uid, self.since))
    }

    /// The same pod: while endpoints move from slice to slice it may be in two, and a dual-stack pod always is. Without a
    /// `targetRef` nothing but the address, or the other family, speaks for it.
    fn is_of(&self, other: &Self) -> bool {
        let same_place = self.places.contains(&SocketAddr::new(other.endpoint.address, other.port));
        let other_family = self.places.iter().all(|at| at.is_ipv4() != other.endpoint.address.is_ipv4());
        let nameless = self.origin == other.origin && (same_place || other_family);
        self.endpoint.uid == other.endpoint.uid && (self.endpoint.uid.is_some() || nameless)
    }

    fn merge(&mut self, other: Self) {
        let rank = |of: &Self| (!of.endpoint.terminating, of.endpoint.address.is_ipv4(), of.endpoint.serving, of.news);
        let (since, news) = (self.since.min(other.since), self.news.max(other.news));
        let mut places = std::mem::take(&mut self.places);
        places.extend(&other.places);
        places.sort_unstable_by_key(|at| (at.is_ipv6(), *at));
        places.dedup();
        let mut slices = std::mem::take(&mut self.slices);
        slices.extend(other.slices.iter().cloned());
        let origin = self.origin.clone().max(other.origin.clone());
        if rank(&other) > rank(self) {
            *self = other;
        }
        (self.since, self.news, self.places, self.slices, self.origin) = (since, news, places, slices, origin);
    }
}

/// Adds what one endpoint shows.
pub fn add(lives: &mut Lives, id: NodeId, offer: Offer) {
    let of_name = lives.entry(id).or_default();
    match of_name.iter_mut().find(|life| life.is_of(&offer)) {
        Some(life) => life.merge(offer),
        None => of_name.push(offer),
    }
}
