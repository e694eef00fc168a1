//! Which of several pods of one name is this cluster's. Slices may be mirrored from another cluster (global Services, the
//! Multi-Cluster Services API), whose pods have the same names: a node there must never take the port of the one here.
//!
//! A pod is ours where this cluster's own controller wrote its slice, or where its Pod exists here. Where Pods are not watched
//! and no label speaks, it may be: then the one that was known stays, and a slice that named another beside it is not asked
//! again for that name, not even while ours is being replaced.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::topology::NodeId;

use super::super::listing::Listing;
use super::super::slices::{Offer, Origin, Slice};
use super::owners::Disowned;
use super::{Fold, Stranger};

/// One of the pods of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub life: usize,
    /// There is evidence that it is this cluster's.
    pub ours: bool,
}

/// What came of the choice among the pods of each name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sifted {
    pub chosen: BTreeMap<NodeId, Choice>,
    /// Slices that named another pod of a name than the one that is known.
    pub rivals: BTreeMap<NodeId, BTreeSet<Arc<str>>>,
    /// Where those are.
    pub doubtful: BTreeMap<NodeId, Vec<SocketAddr>>,
    /// Pods of other clusters.
    pub foreign: BTreeSet<Stranger>,
    /// Pods in slices that are not of the StatefulSet whose name they have.
    pub disowned: BTreeSet<Disowned>,
    /// Names of which there is more to say than that this cluster has one pod of it: whether that is still so depends on what is
    /// known of the pod and its owner, too.
    pub odd: BTreeSet<NodeId>,
}

impl Sifted {
    /// Some slice names another pod of this name.
    pub fn is_contested(&self, id: &NodeId) -> bool {
        self.rivals.contains_key(id)
    }

    /// Those of slices that are no more.
    pub fn forget_rivals(&mut self, slices: &Listing<Slice>) {
        self.rivals.retain(|_, of| {
            of.retain(|slice| slices.get(slice).is_some());
            !of.is_empty()
        });
    }
}

impl Fold {
    /// Chooses among the pods of one name.
    pub(super) fn sift(&self, id: &NodeId, lives: &[Offer], sifted: &mut Sifted) -> Option<Choice> {
        sifted.odd.insert(id.clone());
        let rivals = sifted.rivals.entry(id.clone()).or_default();
        let known = self.known_among(id, lives);
        let mut best: Option<(Choice, &Offer)> = None;
        let mut losers = Vec::new();
        for (at, life) in lives.iter().enumerate() {
            if let Some(why) = self.disowns(id, life) {
                let disown = |at: &SocketAddr| Disowned { id: id.clone(), address: *at, why: why.to_owned() };
                sifted.disowned.extend(life.places.iter().map(disown));
                continue;
            }
            let ours = match self.is_ours(id, life, known == Some(at)) {
                Ok(ours) => ours,
                Err(why) => {
                    losers.push((life, why));
                    continue;
                }
            };
            let rival = !ours && life.slices.iter().any(|of| rivals.contains(of));
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
        rivals.retain(|slice| !winner.contains(slice));
        if best.is_some_and(|(choice, _)| !choice.ours) {
            let doubtful = losers.iter().filter(|(life, _)| life.origin == Origin::Unknown);
            let doubtful: Vec<SocketAddr> = doubtful.flat_map(|(life, _)| &life.places).copied().collect();
            sifted.doubtful.insert(id.clone(), doubtful);
        }
        for (life, why) in losers {
            // Two of this cluster's: one that ends, and the next.
            if life.origin == Origin::Controller {
                continue;
            }
            rivals.extend(life.slices.iter().filter(|slice| !winner.contains(slice)).cloned());
            let stranger = |at: &SocketAddr| Stranger { address: at.ip(), why: why.clone() };
            sifted.foreign.extend(life.places.iter().map(stranger));
        }
        best.map(|(choice, _)| choice)
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
