//! What the slices say of one pod: its endpoints put together, and which of several pods of one name is meant.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::topology::NodeId;

use super::super::objects::Endpoint;

/// One pod as the slices show it.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The one that describes it best.
    pub endpoint: Endpoint,
    pub port: u16,
    /// The news that named it first at one of its addresses, and last at another.
    pub since: u64,
    pub news: u64,
    /// All its addresses, IPv4 first.
    pub places: Vec<SocketAddr>,
}

impl Offer {
    pub fn new(endpoint: &Endpoint, port: u16, news: u64) -> Self {
        let places = vec![SocketAddr::new(endpoint.address, port)];
        Self { endpoint: endpoint.clone(), port, since: news, news, places }
    }

    /// The same pod: while endpoints move from slice to slice it may be in two, and a dual-stack pod always is.
    fn is_of(&self, other: &Self) -> bool {
        self.endpoint.uid == other.endpoint.uid
    }

    fn merge(&mut self, other: Self) {
        let rank = |of: &Self| (!of.endpoint.terminating, of.endpoint.address.is_ipv4(), of.endpoint.serving, of.news);
        let (since, news) = (self.since.min(other.since), self.news.max(other.news));
        let mut places = std::mem::take(&mut self.places);
        places.extend(&other.places);
        places.sort_unstable_by_key(|at| (at.is_ipv6(), *at));
        places.dedup();
        if rank(&other) > rank(self) {
            *self = other;
        }
        (self.since, self.news, self.places) = (since, news, places);
    }

    /// Of two pods of one name the one that came later is meant, unless it is being ended.
    fn is_better_than(&self, other: &Self) -> bool {
        let rank = |of: &Self| (!of.endpoint.terminating, of.since);
        rank(self) > rank(other)
    }
}

/// The pods that slices show, by name: of each name, all of them.
#[derive(Debug, Default)]
pub struct Offers(BTreeMap<NodeId, Vec<Offer>>);

impl Offers {
    pub fn add(&mut self, id: NodeId, offer: Offer) {
        let lives = self.0.entry(id).or_default();
        match lives.iter_mut().find(|life| life.is_of(&offer)) {
            Some(life) => life.merge(offer),
            None => lives.push(offer),
        }
    }

    /// The one pod of each name that is meant.
    pub fn best(self) -> BTreeMap<NodeId, Offer> {
        let best = |lives: Vec<Offer>| {
            lives.into_iter().reduce(|best, next| if next.is_better_than(&best) { next } else { best })
        };
        self.0.into_iter().filter_map(|(id, lives)| Some((id, best(lives)?))).collect()
    }
}
