//! What the source makes of all that it has folded: who is there and with which port, told to the writer of the topology.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{debug, info};

use crate::config::kubernetes::Dial;
use crate::topology::input::{Found, Input, Listed, Placement};
use crate::topology::ports::{DEFAULT_QUARANTINE, PortError};
use crate::topology::{Hidden, HiddenReason, NodeId, NodeState, Topology};

use super::super::refusals::Refused;
use super::agreed_ports::{Known, Wanted, publish};
use super::fold::Member;
use super::ledger::agreement::Unplaced;
use super::suspicion::Suspect;
use super::{Source, ledger, placement};

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
        let allowed = |at: SocketAddr| self.allow.check(at, topology.advertised).is_ok();
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
        if let Some((wanted, _)) = &self.agreed {
            publish(wanted, self.wanted(&topology));
        }
        let by_ordinals = self.agreed.as_ref().is_some_and(|(wanted, known)| match &*known.borrow() {
            Known::Ordinals(ledger) => ledger.follows_ordinals(&wanted.borrow().present, &self.range),
            _ => false,
        });
        if let Some((_, known)) = &self.agreed {
            self.oddities.of_pins(&known.borrow());
        }
        let found = |(id, member)| self.found(id, member, &topology, by_ordinals);
        let mut found: Vec<Found> = self.fold.members().map(found).collect();
        let mut refused = self.allow.refuse(&mut found, topology.advertised);
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
            snapshot.save(placed, topology.advertised).await;
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

    /// Who is there, for whoever agrees on ports.
    fn wanted(&self, topology: &Topology) -> Wanted {
        let present = self.fold.members().map(|(id, member)| ledger::Member {
            id: id.clone(),
            stateful_set: Arc::clone(&member.stateful_set),
            ordinal: member.ordinal,
            prefers: match placement::by_ordinal(id, member, &self.config, &self.range) {
                Placement::Chosen(port) => Some(port),
                _ => None,
            },
        });
        let gone = topology.nodes.iter().filter(|node| node.state == NodeState::Gone).map(|node| node.id.clone());
        Wanted { present: present.collect(), gone: gone.collect() }
    }

    /// `by_ordinals`: all members are of one StatefulSet, and no ledger says otherwise.
    fn found(&self, id: &NodeId, member: &Member, topology: &Topology, by_ordinals: bool) -> Found {
        let named = self.config.dial == Dial::Name;
        let led = self.names.led(id).map(|ip| SocketAddr::new(ip, member.address.port()));
        let by_ordinal = placement::by_ordinal(id, member, &self.config, &self.range);
        let placement = self.placement(id, &by_ordinal, topology, by_ordinals);
        Found {
            id: id.clone(),
            address: led.unwrap_or(member.address),
            host: if named { self.names.host(member) } else { None },
            listed: if led.is_some() { Listed::Here } else { member.listed },
            // The list, and the name.
            confirmed: member.confirmed || led.is_some() || self.names.agrees(id, member),
            port_why: self.port_why(id, &by_ordinal, &placement),
            placement,
            host_id: member.host_id(id),
            data_center: None,
            rack: None,
        }
    }

    fn port_why(&self, id: &NodeId, by_ordinal: &Placement, placement: &Placement) -> Option<Arc<str>> {
        let Placement::Chosen(port) = placement else { return None };
        let pinned = self.config.pins.contains_key(&*id.0);
        let known = self.agreed.as_ref().map(|(_, known)| known.borrow());
        let ledger = match known.as_deref() {
            Some(Known::Ordinals(ledger)) => Some(&**ledger),
            Some(Known::Agreed(agreed)) => Some(&agreed.ledger),
            Some(Known::Nothing(_)) | None => None,
        };
        placement::why(*port, by_ordinal, pinned, ledger, DEFAULT_QUARANTINE).map(Arc::from)
    }

    fn placement(&self, id: &NodeId, by_ordinal: &Placement, topology: &Topology, by_ordinals: bool) -> Placement {
        if let Some(port) = self.saved_ports.get(id).filter(|_| !self.fold.is_listed()) {
            let pin = self.config.pins.get(&*id.0).filter(|pin| self.saved_ports.values().all(|saved| saved != *pin));
            return Placement::Chosen(*pin.unwrap_or(port));
        }
        let Some((_, known)) = &self.agreed else { return by_ordinal.clone() };
        let withheld = |why: Arc<str>| {
            // Whoever has a port keeps it while the others wait.
            let has = topology.node_by_id(id).filter(|node| node.state != NodeState::Gone).map(|node| node.port);
            let (key, node) = ("discovery.kubernetes.ledger", id.clone());
            has.map_or(Placement::Withheld(PortError::NotAgreed { key, node, why }), Placement::Chosen)
        };
        match &*known.borrow() {
            Known::Ordinals(_) if by_ordinals => by_ordinal.clone(),
            Known::Ordinals(_) => withheld("the ledger is being asked".into()),
            Known::Nothing(why) => withheld(Arc::clone(why)),
            Known::Agreed(agreed) => match (agreed.ports.get(id), agreed.unplaced.get(id)) {
                (Some(port), _) => Placement::Chosen(*port),
                (None, Some(Unplaced::Port(error))) => Placement::Withheld(error.clone()),
                (None, Some(Unplaced::Store(error))) => withheld(error.to_string().into()),
                (None, None) => withheld("the ledger is being asked".into()),
            },
        }
    }
}
