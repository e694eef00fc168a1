//! A View is how the cluster is presented to one client: whose rows are shown, what is told in events. What stands for a node is the
//! path's matter ([`crate::topology::paths`]). Rewriting asks the View; it never asks which View it is.

pub mod drivers;
mod newcomer;
mod node_ports;
mod single_node;

use std::fmt::Debug;

use crate::config::{ViewName, Views};
use crate::topology::Node;
use crate::topology::paths::Shape;

pub use drivers::DriverFamily;
pub use newcomer::Newcomer;
pub use node_ports::NodePorts;
pub use single_node::SingleNode;

/// How the cluster is presented to one client.
pub trait View: Debug + Send + Sync {
    /// Whether `system.peers` and `peers_v2` show anybody at all; rows that tell of nobody pass all the same.
    fn shows_peers(&self) -> bool;

    /// Whether a client on the port `attached` is told of `node` in events.
    fn tells_of(&self, node: &Node, attached: u16) -> bool;

    /// Whether columns that a driver profits from are injected into rows.
    fn injects(&self) -> bool;

    /// Whether one node stands for others that the client does not see: what that one says of the schema is not yet so everywhere.
    fn hides_nodes(&self) -> bool;
}

/// The View for a client, by what it says of itself and where it came in: the user's rules first, then what the driver's family is
/// known to need where nodes look like this, then the default.
pub fn select(newcomer: Newcomer<'_>, views: &Views, shape: Shape) -> &'static dyn View {
    let by_rule = views.rules.iter().find(|rule| newcomer.meets(rule));
    let name = match by_rule {
        Some(rule) => rule.view,
        None if !DriverFamily::of(newcomer.driver_name).can_tell_apart(shape) => ViewName::SingleNode,
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
        check_where(Shape::default(), driver_name, rules, shows_peers);
    }

    fn check_where(shape: Shape, driver_name: Option<&str>, rules: &[(&str, ViewName)], shows_peers: bool) {
        let rule = |&(driver, view): &(&str, _)| ViewRule { driver: Some(driver.to_owned()), ..ViewRule::of(view) };
        let rules = rules.iter().map(rule).collect();
        let newcomer = Newcomer { driver_name, ..Newcomer::default() };
        let view = select(newcomer, &Views { rules, ..Views::default() }, shape);
        assert_eq!(view.shows_peers(), shows_peers, "{driver_name:?} {shape:?}");
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
    fn drivers_that_read_no_ports_see_all_nodes_where_addresses_tell_them_apart() {
        let addresses = Shape { has_distinct_addresses: true, only_port: None };
        let one_port = Shape { only_port: Some(9042), ..addresses };
        let several_at_one = Shape { only_port: Some(9042), has_distinct_addresses: false };
        let gocql = Some("github.com/apache/cassandra-gocql-driver");
        check_where(addresses, gocql, &[], true);
        check_where(one_port, gocql, &[], true);
        check_where(several_at_one, gocql, &[], false);
        for name in ["Apache Cassandra Node.js Driver", "DataStax C/C++ Driver", "ScyllaDB Rust Driver"] {
            check_where(addresses, Some(name), &[], false);
            check_where(one_port, Some(name), &[], true);
            check_where(several_at_one, Some(name), &[], false);
            check_where(one_port, Some(name), &[("node.js", ViewName::SingleNode), ("c", ViewName::SingleNode)], false);
        }
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
