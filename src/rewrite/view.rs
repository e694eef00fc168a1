//! A View is how one listener presents the cluster: which address:port stands for a node, whose rows are shown, what is told
//! in events. Rewriting asks the View; it never asks which View it is.

pub mod drivers;
mod newcomer;
mod node_ports;
mod single_node;

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};

use crate::config::{ViewName, Views};
use crate::topology::Node;

pub use drivers::DriverFamily;
pub use newcomer::Newcomer;
pub use node_ports::NodePorts;
pub use single_node::SingleNode;

/// How the cluster is presented to one client.
pub trait View: Debug + Send + Sync {
    /// What a client dials to reach `node`, where `advertised` is the external address for this client.
    fn endpoint(&self, node: &Node, advertised: IpAddr) -> SocketAddr;

    /// Whether `system.peers` and `peers_v2` show anybody at all; rows that tell of nobody pass all the same.
    fn shows_peers(&self) -> bool;

    /// Whether a client on the port `attached` is told of `node` in events.
    fn tells_of(&self, node: &Node, attached: u16) -> bool;

    /// Whether columns that a driver profits from are injected into rows.
    fn injects(&self) -> bool;
}

/// The View for a client, by what it says of itself and where it came in: the user's rules first, then what the driver's family is
/// known to need, then the default.
pub fn select(newcomer: Newcomer<'_>, views: &Views) -> &'static dyn View {
    let by_rule = views.rules.iter().find(|rule| newcomer.meets(rule));
    let name = match by_rule {
        Some(rule) => rule.view,
        None if !DriverFamily::of(newcomer.driver_name).reads_ports() => ViewName::SingleNode,
        None => views.default,
    };
    named(name)
}

fn named(name: ViewName) -> &'static dyn View {
    match name {
        ViewName::NodePorts => &NodePorts,
        ViewName::SingleNode => &SingleNode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ViewRule;

    fn check(driver_name: Option<&str>, rules: &[(&str, ViewName)], shows_peers: bool) {
        let rule = |&(driver, view): &(&str, _)| ViewRule { driver: Some(driver.to_owned()), ..ViewRule::of(view) };
        let rules = rules.iter().map(rule).collect();
        let view =
            select(Newcomer { driver_name, ..Newcomer::default() }, &Views { default: ViewName::NodePorts, rules });
        assert_eq!(view.shows_peers(), shows_peers, "{driver_name:?}");
    }

    #[test]
    fn drivers_that_read_ports_see_all_nodes_and_others_one() {
        check(Some("Apache Cassandra Java Driver"), &[], true);
        check(Some("Apache Cassandra Python Driver"), &[], true);
        check(Some("cdrs-tokio"), &[], true);
        check(Some("Apache Cassandra Node.js Driver"), &[], false);
        check(Some("github.com/apache/cassandra-gocql-driver"), &[], false);
        check(Some("ScyllaDB Rust Driver"), &[], false);
        check(Some("DataStax C/C++ Driver for Apache Cassandra and DataStax Products"), &[], false);
    }

    #[test]
    fn unknown_and_absent_names_get_the_default() {
        check(Some("something new"), &[], true);
        check(None, &[], true);
    }

    #[test]
    fn a_rule_of_the_user_comes_first() {
        check(Some("Apache Cassandra Node.js Driver"), &[("node.js", ViewName::NodePorts)], true);
        check(Some("Apache Cassandra Java Driver"), &[("JAVA", ViewName::SingleNode)], false);
    }

    #[test]
    fn an_empty_name_is_gocqls() {
        check(Some(""), &[], false);
    }
}
