//! A client that sees one node.

use super::*;
use crate::rewrite::view::SingleNode;
use crate::topology::NodeState;

/// The topology of all these tests with the client's own node in another state.
fn own_node(state: NodeState, incarnation: u64) -> Topology {
    let own = Node { state, incarnation, ..Node::example("10.77.0.11:9042", 9042, "10.77.0.11:9042") };
    Topology::new(2, Arc::clone(&topology().paths), [own, Node::example("10.77.0.12:9042", 9043, "10.77.0.12:9042")])
}

#[test]
fn hears_of_schemas_and_of_no_node_not_even_its_own() {
    for session in ALL {
        let mut talk = Talk::seeing(&SingleNode, session, &surroundings());
        let types = ["TOPOLOGY_CHANGE", "STATUS_CHANGE", "SCHEMA_CHANGE"];
        passes(&mut talk, false, 0, Opcode::REGISTER, 1, &encode_register(&types));
        passes(&mut talk, true, 0, Opcode::READY, 1, &[]);
        for address in ["10.77.0.11:9042", "10.77.0.12:9042", "10.77.0.13:9042"] {
            for change in [NodeChange::Up, NodeChange::Down, NodeChange::NewNode, NodeChange::RemovedNode] {
                let event = Event::Node { change, address: address.parse().unwrap() };
                assert_eq!(talk.response(Opcode::EVENT, -1, &event.encode()), Ok(Vec::new()), "{event:?}");
            }
        }
        for (state, incarnation) in [(NodeState::Down, 2), (NodeState::Up, 2), (NodeState::Gone, 3)] {
            assert!(talk.conversation.announce(&own_node(state, incarnation)).is_empty(), "{state:?}");
        }
        let mut schema = Vec::new();
        Writer::new(&mut schema).string("SCHEMA_CHANGE").string("CREATED").string("KEYSPACE").string("demo");
        passes(&mut talk, true, 0, Opcode::EVENT, -1, &schema);
    }
}
