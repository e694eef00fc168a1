//! What both witnesses together say of one pod.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::topology::NodeId;
use crate::topology::input::Listed;

use super::conclude::Heard;
use super::identity::split;
use super::offers::Offer;
use super::{Fold, Known, Member, Object, Withdrawn};

impl Fold {
    pub(super) fn verdict(&self, id: &NodeId, before: Option<&Known>, heard: Heard<'_>) -> Verdict {
        let offer = heard.offer;
        // The slices have shown a later pod of this name, and may lack it only for now: that an earlier one is there, or was
        // deleted, says nothing of it.
        let shown = offer.map_or_else(|| before.and_then(|known| known.shown.clone()), Offer::shown);
        let outlived = |object: &&Object| {
            shown.as_ref().is_some_and(|(uid, since)| *since > object.since && object.object.uid.as_ref() != Some(uid))
        };
        let disowned =
            |object: &&Object| object.exists && self.owners.refused(id, object.object.uid.as_ref()).is_some();
        let object = heard.object.filter(|object| !outlived(object) && !disowned(object));
        let spoke_last = match (offer, object) {
            (Some(offer), Some(object)) => offer.news >= object.news,
            (offer, _) => offer.is_some(),
        };
        match (offer, object) {
            (Some(offer), _) if spoke_last => {
                // The Service may be of one family, and the pod of both.
                let same = object.filter(|of| of.exists && of.object.uid == offer.endpoint.uid);
                let more = same.map(|of| of.object.addresses.as_slice()).unwrap_or_default();
                let at = |ip: &IpAddr| SocketAddr::new(*ip, offer.port);
                // Where nothing but an answer tells which of two pods is meant; not once a pod of this name has answered.
                let doubtful = self.doubtful.get(id).map(Vec::as_slice).unwrap_or_default();
                let doubted = |known: &Known| doubtful.contains(&known.member.address) || !known.answered;
                let doubtful = doubtful.iter().filter(|_| before.is_none_or(doubted));
                let all = offer.places.iter().copied().chain(more.iter().map(at)).chain(doubtful.copied());
                self.here(member(id, offer, object), all)
            }
            (_, Some(Object { object, exists: true, .. })) => {
                let described = offer.and_then(|offer| member(id, offer, None));
                let Some(member) = described.or_else(|| before.map(|known| known.member.clone())) else {
                    return self.missing(id);
                };
                // The slices may name some of its addresses already.
                let named = offer.iter().flat_map(|offer| &offer.places).copied();
                let named: Vec<SocketAddr> = named.filter(|at| object.addresses.contains(&at.ip())).collect();
                let port = member.address.port();
                let all = object.addresses.iter().map(|ip| SocketAddr::new(*ip, port));
                match self.here(Some(member), named.into_iter().chain(all)) {
                    // A Pod that has no address yet may be old news.
                    Verdict::Away => self.missing(id),
                    verdict => verdict,
                }
            }
            (_, Some(_)) => Verdict::Away,
            (Some(_), None) | (None, None) => self.missing(id),
        }
    }

    fn missing(&self, id: &NodeId) -> Verdict {
        self.withdrawn.get(id).map_or(Verdict::Away, |withdrawn| Verdict::Missing(*withdrawn))
    }

    fn here(&self, member: Option<Member>, at: impl Iterator<Item = SocketAddr>) -> Verdict {
        let mut places: Vec<SocketAddr> = Vec::new();
        for at in at {
            // One address once, with the port that the slices give it.
            if places.iter().all(|known| known.ip() != at.ip()) {
                places.push(at);
            }
        }
        let first = places.first().map(SocketAddr::ip);
        places.retain(|at| self.family.is_none_or(|family| family.is_of(at.ip())));
        match (member, places.first(), first) {
            (Some(member), Some(&address), _) => {
                Verdict::Here(Member { address, listed: Listed::Here, confirmed: true, ..member }, places)
            }
            (_, None, Some(other)) => Verdict::OtherFamily(other),
            _ => Verdict::Away,
        }
    }
}

pub enum Verdict {
    /// With all addresses that it could be at, at least one, the likelier first.
    Here(Member, Vec<SocketAddr>),
    Away,
    /// It is there, and has no address of the configured family.
    OtherFamily(IpAddr),
    /// In no slice any more.
    Missing(Withdrawn),
}

fn member(id: &NodeId, offer: &Offer, object: Option<&Object>) -> Option<Member> {
    let (from_name, ordinal) = if offer.endpoint.is_unnamed() { ("", 0) } else { split(&id.0)? };
    let owner = object.and_then(|object| object.object.stateful_set.clone());
    Some(Member {
        stateful_set: owner.unwrap_or_else(|| Arc::from(from_name)),
        ordinal,
        address: SocketAddr::new(offer.endpoint.address, offer.port),
        listed: Listed::Here,
        confirmed: true,
        hostname: offer.endpoint.hostname.clone(),
        zone: offer.endpoint.zone.clone(),
    })
}
