//! Endpoints that name no pods: nodes are who they say that they are.

use super::*;

impl World {
    /// `10.1.0.1 10.1.0.2`: the addresses that are asked who they are.
    fn asked(&self) -> String {
        self.fold.unnamed().map(|at| at.ip().to_string()).collect::<Vec<_>>().join(" ")
    }

    /// The node at an address says that it is this one, or cannot be asked.
    fn say(&mut self, address: &str, said: Result<u128, &str>) {
        let said = said.map(|id| HostId(Uuid::from_u128(id))).map_err(str::to_owned);
        self.fold.see_identity(SocketAddr::new(address.parse().unwrap(), 9042), said);
        self.settle();
    }
}

fn id(n: u128) -> NodeId {
    NodeId::new(&Uuid::from_u128(n).to_string())
}

#[test]
fn an_address_is_a_node_once_it_has_said_who_it_is() {
    let mut world = World::listed(&[("hand/a", &["=10.1.0.1", "=10.1.0.2"])]);
    world.check("");
    assert_eq!(world.asked(), "10.1.0.1 10.1.0.2");
    world.say("10.1.0.1", Ok(1));
    world.say("10.1.0.2", Err("refused"));
    world.check(&format!("{} 10.1.0.1:9042", id(1)));
    assert_eq!(world.asked(), "10.1.0.2");
    let member = world.fold.members().next().unwrap().1;
    assert_eq!((member.host_id(&id(1)), &*member.stateful_set), (Some(HostId(Uuid::from_u128(1))), ""));
    world.say("10.1.0.2", Ok(2));
    // Written anew, in another slice, and with the nodes at other addresses.
    world.apply("hand/b", &["=10.1.0.2", "=10.1.0.1"]);
    world.delete("hand/a");
    world.check(&format!("{} 10.1.0.1:9042, {} 10.1.0.2:9042", id(1), id(2)));
    world.apply("hand/b", &["=10.1.0.2", "=10.1.0.7"]);
    world.check(&format!("{} away, {} 10.1.0.2:9042", id(1), id(2)));
    world.say("10.1.0.7", Ok(1));
    world.check(&format!("{} 10.1.0.7:9042, {} 10.1.0.2:9042", id(1), id(2)));
}

#[test]
fn a_silent_address_is_asked_again_and_may_be_another_node() {
    let mut world = World::listed(&[("hand/a", &["=10.1.0.1"])]);
    world.say("10.1.0.1", Ok(1));
    world.answering = true;
    world.settle();
    world.pass(3600);
    assert_eq!(world.asked(), "");
    world.answering = false;
    world.settle();
    world.pass(3);
    assert_eq!(world.asked(), "10.1.0.1");
    world.say("10.1.0.1", Err("refused"));
    world.check(&format!("{} 10.1.0.1:9042", id(1)));
    world.say("10.1.0.1", Ok(2));
    world.check(&format!("{} away, {} 10.1.0.1:9042", id(1), id(2)));
}

#[test]
fn what_is_named_elsewhere_is_not_asked() {
    let mut world =
        World::listed(&[("a", A), ("hand/b", &["=10.1.0.1", "=10.1.0.2", "=10.1.0.3"]), ("west/c", &["=10.9.0.1"])]);
    assert_eq!(world.asked(), "10.1.0.3");
    world.list_pods(&[("cassandra-2", "u0", &["10.1.0.3"])]);
    assert_eq!(world.asked(), "");
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 10.1.0.2:9042");
    let said: Vec<_> = world.fold.strangers().map(|of| format!("{} {}", of.address, of.why)).collect();
    assert_eq!(said, ["10.9.0.1 the endpoint is one of cluster west and names no pod"]);
}
