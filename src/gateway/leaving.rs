//! Nodes that are being ended: the clients of one that asked to be told are told, once, when that begins. Nobody is closed for it; a
//! client that comes while the node still answers is welcome.

use std::collections::BTreeSet;

use crate::proxy::connections::{Connections, Order};
use crate::topology::Topology;

/// The ports and lives of nodes of which it was told.
#[derive(Debug, Default)]
pub struct Leaving(BTreeSet<(u16, u64)>);

impl Leaving {
    pub fn tell(&mut self, topology: &Topology, connections: &Connections) {
        let now: BTreeSet<(u16, u64)> = topology.leaving().collect();
        for &(port, life) in now.difference(&self.0) {
            connections.give_to_port(port, life, Order::Tell);
        }
        self.0 = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::proxy::stages::Source;
    use crate::topology::{Advertised, Node};

    #[test]
    fn the_clients_of_a_node_that_begins_to_go_are_told_and_no_others() {
        let connections = Connections::new(&Limits::default());
        let enter = |port, life| connections.enter(port, life, Source::V4(1)).unwrap();
        let (of_it, of_its_former_life, of_another) = (enter(9042, 1), enter(9042, 0), enter(9043, 1));
        let topology = |leaving| {
            let nodes = [(9042, leaving), (9043, false)];
            let nodes = nodes.map(|(port, leaving)| Node { leaving, ..Node::example("n", port, "10.0.0.1:9042") });
            Topology::new(1, Advertised::default(), nodes)
        };
        let mut leaving = Leaving::default();
        leaving.tell(&topology(false), &connections);
        assert_eq!(of_it.handle().order(), Order::Continue);
        leaving.tell(&topology(true), &connections);
        let orders = [&of_it, &of_its_former_life, &of_another].map(|place| place.handle().order());
        assert_eq!(orders, [Order::Tell, Order::Continue, Order::Continue]);
        let late = enter(9042, 1);
        leaving.tell(&topology(true), &connections);
        assert_eq!(late.handle().order(), Order::Continue, "it came when the node was going already");
    }
}
