//! Who is a member and where, from all that was heard: what both witnesses together say of each pod, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use super::super::slices::{Offer, split};
use super::cursor::Cursor;
use super::sift::Choice;
use super::{Fold, Known, Member, Object, Presence, Stranger, Withdrawn};
use crate::topology::NodeId;
use crate::topology::input::Listed;

/// What the witnesses say of one name now.
#[derive(Clone, Copy)]
pub struct Heard<'a> {
    /// The pod that is meant, as the slices show it.
    pub offer: Option<&'a Offer>,
    pub object: Option<&'a Object>,
    choice: Option<&'a Choice>,
}

/// What they come to.
enum Verdict {
    /// With all addresses that it could be at, at least one, the likelier first.
    Here(Member, Vec<SocketAddr>),
    Away,
    /// It is there, and has no address of the configured family.
    OtherFamily(IpAddr),
    /// In no slice any more.
    Missing(Withdrawn),
}

impl Fold {
    /// All who are known from now on, and pods without an address of the configured family.
    pub(super) fn conclude(
        &self,
        now: SystemTime,
        answers: impl Fn(&NodeId, SocketAddr) -> bool,
    ) -> (BTreeMap<NodeId, Known>, BTreeSet<Stranger>) {
        let (mut lives, mut chosen) = (Cursor::new(self.offers.lives()), Cursor::new(&self.sifted.chosen));
        let (mut objects, mut before) = (Cursor::new(&self.objects), Cursor::new(&self.known));
        let ids: BTreeSet<&NodeId> = self.sifted.chosen.keys().chain(self.known.keys()).collect();
        let mut other_family = BTreeSet::new();
        let mut known = Vec::with_capacity(ids.len());
        for id in ids {
            let (choice, object, before) = (chosen.at(id), objects.at(id), before.at(id));
            let offer = lives.at(id).zip(choice).and_then(|(lives, choice)| lives.get(choice.life));
            let answers = before.is_some_and(|known| answers(id, known.member.address));
            let heard = Heard { offer, object, choice };
            let verdict = self.verdict(id, before, heard);
            if let Verdict::OtherFamily(address) = verdict {
                let family = self.family.map(|family| family.to_string()).unwrap_or_default();
                let why = format!("pod {id} has no {family} address, and discovery.kubernetes.family wants one");
                other_family.insert(Stranger { address, why });
            }
            if let Some(next) = self.known_from(verdict, heard, before, answers, now) {
                known.push((id.clone(), next));
            }
        }
        (known.into_iter().collect(), other_family)
    }

    fn known_from(
        &self,
        verdict: Verdict,
        heard: Heard<'_>,
        before: Option<&Known>,
        answers: bool,
        now: SystemTime,
    ) -> Option<Known> {
        let presence = match (&verdict, before.map(|known| &known.presence)) {
            (Verdict::Here(..), _) => Presence::Here,
            (_, Some(Presence::Away(since))) => Presence::Away(*since),
            (Verdict::Missing(Withdrawn::List(said)), _) if self.believed_at(said).is_none_or(|at| at > now) => {
                Presence::Doubted
            }
            (Verdict::Missing(Withdrawn::Slice), _) => Presence::Doubted,
            _ => Presence::Away(now),
        };
        let mut place = before.map(|known| known.place.clone()).unwrap_or_default();
        let mut moved = before.and_then(|known| known.moved);
        let member = match verdict {
            Verdict::Here(member, places) => {
                let now_at = place.choose(&places, before.map(|known| known.member.address), answers, now);
                let address = now_at.unwrap_or(member.address);
                moved = self.moved(heard, before, &places, now);
                Member { address, confirmed: moved.is_none(), ..member }
            }
            _ => {
                let (listed, confirmed) = (Listed::Away, presence != Presence::Doubted);
                Member { listed, confirmed, ..before?.member.clone() }
            }
        };
        let exists = heard.object.is_some_and(|object| object.exists);
        let answered = answers || before.is_some_and(|known| known.answered);
        let ours = exists || heard.choice.map_or(before.is_some_and(|known| known.ours), |choice| choice.ours);
        let shown = heard.offer.map_or_else(|| before.and_then(|of| of.shown.clone()), Offer::shown);
        Some(Known { member, presence, heard: true, moved, place, shown, answered, ours })
    }

    fn verdict(&self, id: &NodeId, before: Option<&Known>, heard: Heard<'_>) -> Verdict {
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
                let doubtful = self.sifted.doubtful.get(id).map(Vec::as_slice).unwrap_or_default();
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
                let member = Member { leaving: object.ending, ..member };
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

fn member(id: &NodeId, offer: &Offer, object: Option<&Object>) -> Option<Member> {
    let (from_name, ordinal) = if offer.endpoint.is_unnamed() { ("", 0) } else { split(&id.0)? };
    let owner = object.and_then(|object| object.object.stateful_set.clone());
    let ends = object.is_some_and(|of| of.object.ending && of.object.uid == offer.endpoint.uid);
    Some(Member {
        stateful_set: owner.unwrap_or_else(|| Arc::from(from_name)),
        ordinal,
        address: SocketAddr::new(offer.endpoint.address, offer.port),
        listed: Listed::Here,
        confirmed: true,
        leaving: ends || offer.endpoint.terminating,
        hostname: offer.endpoint.hostname.clone(),
        zone: offer.endpoint.zone.clone(),
    })
}
