//! Which of several pods of one name is this cluster's. Slices may be mirrored from another cluster (global Services, the
//! Multi-Cluster Services API), whose pods have the same names: a node there must never take the port of the one here.
//!
//! A pod is ours where this cluster's own controller wrote its slice, or where its Pod exists here. Where Pods are not watched
//! and no label speaks, it may be: then the one that was known stays, and a slice that named another beside it is not asked
//! again for that name, not even while ours is being replaced.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::topology::NodeId;

use super::super::objects::Origin;
use super::offers::Offer;
use super::owners::Disowned;
use super::{Fold, Stranger};

/// One of the pods of a name.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    pub life: usize,
    /// There is evidence that it is this cluster's.
    pub ours: bool,
}

impl Fold {
    /// Chooses for each name anew.
    pub(super) fn sift(&mut self) {
        let mut chosen = Vec::with_capacity(self.lives.len());
        let mut rivals = std::mem::take(&mut self.rivals);
        self.foreign.clear();
        self.doubtful.clear();
        let mut disowned = BTreeSet::new();
        for (id, lives) in &self.lives {
            // What nearly all are.
            if let [life] = lives.as_slice()
                && life.origin == Origin::Controller
                && rivals.is_empty()
                && self.disowns(id, life).is_none()
            {
                chosen.push((id.clone(), Choice { life: 0, ours: true }));
                continue;
            }
            let known = self.known_among(id, lives);
            let mut best: Option<(Choice, &Offer)> = None;
            let mut losers = Vec::new();
            for (at, life) in lives.iter().enumerate() {
                if let Some(why) = self.disowns(id, life) {
                    let disown = |at: &SocketAddr| Disowned { id: id.clone(), address: *at, why: why.to_owned() };
                    disowned.extend(life.places.iter().map(disown));
                    continue;
                }
                let ours = match self.is_ours(id, life, known == Some(at)) {
                    Ok(ours) => ours,
                    Err(why) => {
                        losers.push((life, why));
                        continue;
                    }
                };
                let rival = !ours && life.slices.iter().any(|of| rivals.contains(&(id.clone(), of.clone())));
                let another_stays = known.is_some_and(|known| known != at && lives.get(known).is_some_and(stays));
                let was_ours = self.known.get(id).is_some_and(|known| known.ours);
                if !ours && known != Some(at) && (rival || another_stays || was_ours) {
                    losers.push((life, not_known(id)));
                    continue;
                }
                let next = (Choice { life: at, ours }, life);
                match best {
                    Some(best) if rank(best) >= rank(next) => losers.push((life, not_known(id))),
                    _ => losers.extend(best.replace(next).map(|(_, life)| (life, not_known(id)))),
                }
            }
            let winner = best.map(|(_, life)| life.slices.as_slice()).unwrap_or_default();
            for slice in winner {
                rivals.remove(&(id.clone(), slice.clone()));
            }
            if best.is_some_and(|(choice, _)| !choice.ours) {
                let doubtful = losers.iter().filter(|(life, _)| life.origin == Origin::Unknown);
                let doubtful: Vec<SocketAddr> = doubtful.flat_map(|(life, _)| &life.places).copied().collect();
                self.doubtful.insert(id.clone(), doubtful);
            }
            for (life, why) in losers {
                // Two of this cluster's: one that ends, and the next.
                if life.origin == Origin::Controller {
                    continue;
                }
                let elsewhere = life.slices.iter().filter(|slice| !winner.contains(slice));
                rivals.extend(elsewhere.map(|slice| (id.clone(), slice.clone())));
                let stranger = |at: &SocketAddr| Stranger { address: at.ip(), why: why.clone() };
                self.foreign.extend(life.places.iter().map(stranger));
            }
            if let Some((choice, _)) = best {
                chosen.push((id.clone(), choice));
            }
        }
        let slices = &self.slices;
        rivals.retain(|(_, slice)| slices.get(slice).is_some());
        self.rivals = rivals;
        self.disowned = disowned;
        self.chosen = chosen.into_iter().collect();
    }

    /// Whether a pod is this cluster's: surely, or perhaps; or why it is not. One that `is_known` and once was stays ours: a list
    /// may lack its Pod, and only a watch says that it was deleted.
    fn is_ours(&self, id: &NodeId, life: &Offer, is_known: bool) -> Result<bool, String> {
        let object = self.objects.get(id).filter(|object| object.exists).map(|object| &object.object);
        let at_home = object.is_some_and(|object| match &life.endpoint.uid {
            Some(uid) => object.uid.as_ref() == Some(uid),
            None => life.places.iter().any(|at| object.addresses.contains(&at.ip())),
        });
        match &life.origin {
            Origin::Controller => Ok(true),
            // It has said itself who it is.
            _ if life.endpoint.is_unnamed() => Ok(true),
            _ if at_home || (is_known && self.known.get(id).is_some_and(|known| known.ours)) => Ok(true),
            Origin::Mirrored(cluster) => Err(format!("{id} here is a pod of cluster {cluster}: its slice says so")),
            Origin::Unknown if self.pods.lists() > 0 => {
                Err(format!("this cluster has no Pod {id} there, and its slice is not the endpointslice controller's"))
            }
            Origin::Unknown => Ok(false),
        }
    }

    /// Which of these is the pod that is known.
    fn known_among(&self, id: &NodeId, lives: &[Offer]) -> Option<usize> {
        let known = self.known.get(id)?;
        let at_address = lives.iter().position(|life| life.places.contains(&known.member.address));
        let of_uid = |life: &Offer| {
            life.endpoint.uid.is_some() && life.endpoint.uid.as_ref() == known.shown.as_ref().map(|(uid, _)| uid)
        };
        at_address.or_else(|| lives.iter().position(of_uid))
    }
}

fn not_known(id: &NodeId) -> String {
    format!(
        "another pod {id} is known, and nothing says that this one is the cluster's own: watch Pods, or label the slice"
    )
}

fn stays(life: &Offer) -> bool {
    !life.endpoint.terminating
}

/// The later one is meant, unless it is being ended; of two that were there at once the lower address, whatever slices are called.
fn rank((choice, life): (Choice, &Offer)) -> impl Ord {
    (choice.ours, !life.endpoint.terminating, life.since, Reverse(life.places.first().copied()))
}
