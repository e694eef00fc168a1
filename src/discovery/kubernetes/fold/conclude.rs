//! Who is a member and where, from all that was heard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::SystemTime;

use super::cursor::Cursor;
use super::offers::Offer;
use super::sift::Choice;
use super::verdict::Verdict;
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

impl Fold {
    /// All who are known from now on, and pods without an address of the configured family.
    pub(super) fn conclude(
        &self,
        now: SystemTime,
        answers: impl Fn(&NodeId, SocketAddr) -> bool,
    ) -> (BTreeMap<NodeId, Known>, BTreeSet<Stranger>) {
        let (mut lives, mut chosen) = (Cursor::new(&self.lives), Cursor::new(&self.chosen));
        let (mut objects, mut before) = (Cursor::new(&self.objects), Cursor::new(&self.known));
        let ids: BTreeSet<&NodeId> = self.chosen.keys().chain(self.known.keys()).collect();
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
}
