//! Endpoints that name no pod: a node there is known by its host_id, which only the node itself can tell.

use std::net::SocketAddr;

use crate::topology::{HostId, NodeId};

use super::{Fold, Presence, Withdrawn};

impl Fold {
    /// Addresses without a pod's name, of which it is not known who is there, or that are silent: to be asked, and told to
    /// [`Self::see_identity`].
    pub fn unnamed(&self) -> impl Iterator<Item = SocketAddr> {
        let silent = |at: &SocketAddr, host_id: HostId| {
            let known = self.known.get(&NodeId::new(&host_id.to_string()));
            let here = known.filter(|known| known.presence == Presence::Here && known.member.address == *at);
            here.and_then(|known| known.place.silent_for(self.timing.elsewhere))
                .is_some_and(|at| Some(at) <= self.settled)
        };
        self.offers.unnamed().filter(move |(at, who)| who.is_none_or(|host_id| silent(at, host_id))).map(|(at, _)| at)
    }

    /// True where endpoints name no pods.
    pub fn has_unnamed(&self) -> bool {
        self.offers.unnamed().next().is_some()
    }

    /// Who is at one of these addresses, or why that is not known.
    pub fn see_identity(&mut self, address: SocketAddr, said: Result<HostId, String>) {
        if self.offers.see_identity(address, said) {
            self.news += 1;
            self.read_slices();
            self.choose(Withdrawn::Told, None);
        }
    }
}
