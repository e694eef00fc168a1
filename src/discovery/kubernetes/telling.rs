//! What the source makes of all that it has folded: who is there and with which port, told to the writer of the topology.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{debug, info};

use crate::config::kubernetes::Dial;
use crate::topology::input::{Found, Input, Listed, Placement};
use crate::topology::{Hidden, HiddenReason, NodeId, NodeState, Topology};

use super::super::refusals::Refused;
use super::Source;
use super::fold::Member;
use super::suspicion::Suspect;

impl Source {
    /// Concludes, and tells. An error when nobody takes it.
    pub(super) async fn settle(&mut self) -> Result<(), mpsc::error::SendError<Input>> {
        let topology = Arc::clone(&self.topology.borrow());
        let state = |id: &NodeId| topology.node_by_id(id).map(|node| node.state);
        self.fold.see_api(self.api_away);
        self.fold.settle(self.clock.now(), |id, at| topology.is_up_at(id, at));
        if self.fold.asks_again(&topology) {
            info!("a list lacks nodes that answer, or shows them elsewhere; asking again before that is believed");
            self.relist.notify_one();
        }
        let by_name = self.config.dial == Dial::Name;
        let names = &self.names;
        let host = |member: &Member| if by_name { names.host(member) } else { None };
        let allowed = |at: SocketAddr| self.allow.check(at, &topology.paths).is_ok();
        let silent = self.fold.elsewhere().filter(|(_, _, at)| allowed(*at));
        let silent = silent.map(|(id, member, at)| ((id.clone(), at), host(member)));
        self.elsewhere.follow(silent);
        self.unnamed.follow(self.fold.unnamed().filter(|at| allowed(*at)));
        if by_name {
            // The pod of one that is away may come back unheard: then nothing but its name tells.
            let followed = self.fold.members().filter(|(_, member)| member.is_present() || self.api_away);
            self.names.follow(followed, |id| state(id) == Some(NodeState::Up));
            if self.api_away {
                let dead = |(id, _): &(&NodeId, &Member)| state(id) == Some(NodeState::Down);
                self.fold.members().filter(dead).for_each(|(id, member)| self.names.lead(id, member.address.ip()));
            } else {
                self.names.trust_watch();
            }
        }
        let suspects = self.suspects(&topology);
        if self.suspicion.look(self.clock.now(), suspects) {
            debug!("nodes are not up where the API says they live, or their names lead elsewhere; listing again");
            self.relist.notify_one();
            self.relist_pods.notify_one();
        }
        self.oddities.of_fold(&self.fold, by_name);
        if !self.fold.is_listed() && self.fold.members().next().is_none() {
            return Ok(());
        }
        if self.fold.is_listed() {
            self.placements.remember(HashMap::new());
        }
        let members: Vec<(&NodeId, &Member)> = self.fold.members().collect();
        let chosen = self.placements.choose(&members, &topology);
        if let Some(known) = self.placements.known() {
            self.oddities.of_pins(&known.borrow());
        }
        let found =
            members.iter().zip(chosen).map(|((id, member), (placement, why))| self.found(id, member, placement, why));
        let mut found: Vec<Found> = found.collect();
        let mut refused = self.allow.refuse(&mut found, &topology.paths);
        refused.extend(self.fold.disowned().map(|of| Refused {
            id: Some(of.id.clone()),
            host_id: None,
            address: Some(of.address),
            reason: HiddenReason::NotOwned,
            why: of.why.clone(),
        }));
        self.login.vouch(self.fold.owned());
        if let Some(snapshot) = self.snapshot.as_mut().filter(|_| self.fold.is_listed()) {
            // Whoever waits for a port is nobody to start with.
            let placed: Vec<_> = self
                .fold
                .members()
                .zip(&found)
                .filter_map(|((id, member), found)| match found.placement {
                    Placement::Chosen(port) => Some((id.clone(), member.clone(), port)),
                    _ => None,
                })
                .collect();
            snapshot.save(placed, &topology.paths).await;
        }
        if found.is_empty() && !self.told {
            self.why.note(&self.nobody());
        } else {
            self.inputs.send(Input::Nodes(found)).await?;
            self.told = true;
            self.why.end();
        }
        for hidden in self.refused.take_over(refused) {
            self.inputs.send(Input::Hidden(hidden)).await?;
        }
        for stranger in self.fold.strangers() {
            let address = Some((stranger.address, 0).into());
            self.inputs
                .send(Input::Hidden(Hidden { id: None, host_id: None, address, reason: HiddenReason::NoPort }))
                .await?;
        }
        Ok(())
    }

    /// Members against whose address something speaks; none while the API is not heard, for then it is listed anyway.
    fn suspects(&self, topology: &Topology) -> HashMap<NodeId, Suspect> {
        if self.api_away || !self.fold.is_listed() {
            return HashMap::new();
        }
        let suspect = |(id, member): (&NodeId, &Member)| {
            let elsewhere = self.names.disagrees(id);
            let dead = topology.node_by_id(id).is_some_and(|node| node.state != NodeState::Up);
            (dead || elsewhere).then(|| (id.clone(), Suspect { address: member.address.ip(), elsewhere }))
        };
        self.fold.members().filter_map(suspect).collect()
    }

    /// Why there is no node at all: a gateway that has never had one is not ready.
    fn nobody(&self) -> String {
        let asked = self.fold.unnamed().count();
        if let Some(of) = self.fold.disowned().next() {
            return format!("no node: {}: {}", of.address, of.why);
        }
        match self.fold.strangers().next() {
            Some(stranger) => format!("no node: {}: {}", stranger.address, stranger.why),
            None if asked > 0 => format!("no node: {asked} addresses are being asked who they are"),
            None => {
                format!("no node: Service {} in namespace {} has no endpoints", self.config.service, self.namespace)
            }
        }
    }

    fn found(&self, id: &NodeId, member: &Member, placement: Placement, port_why: Option<Arc<str>>) -> Found {
        let named = self.config.dial == Dial::Name;
        let led = self.names.led(id).map(|ip| SocketAddr::new(ip, member.address.port()));
        Found {
            id: id.clone(),
            address: led.unwrap_or(member.address),
            host: if named { self.names.host(member) } else { None },
            listed: if led.is_some() { Listed::Here } else { member.listed },
            // The list, and the name.
            confirmed: member.confirmed || led.is_some() || self.names.agrees(id, member),
            leaving: member.leaving,
            placement,
            port_why,
            host_id: member.host_id(id),
            data_center: None,
            rack: None,
        }
    }
}
