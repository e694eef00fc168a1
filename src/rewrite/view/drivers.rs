//! What is known of the families of drivers, by the DRIVER_NAME of their STARTUP.
//!
//! Three facts decide: does a driver read a port for each node (`peers_v2`), by what does it tell nodes apart, and which
//! columns does it read by name if they are there. Names change from version to version; a family is matched by a part of
//! its name, ASCII case ignored.

use crate::label::label_set;
use crate::topology::paths::Shape;

label_set! {
    /// A family of drivers that behave alike towards rows.
    pub enum DriverFamily {
        /// apache/cassandra-java-driver 4.x.
        Java4 = "java-4",
        /// The 3.x branch: takes the cluster's port for the control host's, unless the local row has native_port
        /// (`ControlConnection.java`, updateLocationInfo).
        Java3 = "java-3",
        ScyllaJava = "scylla-java",
        Python = "python",
        /// scylladb/python-driver: takes the cluster's port for the local row's (`metadata.py`, `connection.py`).
        ScyllaPython = "scylla-python",
        /// scylladb/gocql: reads native_port on any row (`host_source.go`).
        ScyllaGocql = "scylla-gocql",
        Csharp = "csharp",
        CdrsTokio = "cdrs-tokio",
        /// Knows a node by its address alone (`host_source.go`, HostInfo.Equal). Its name is empty where it was built without the
        /// module's information (`version.go`), as in its own tests; no other sends such a one.
        Gocql = "gocql",
        /// One port for all nodes (`lib/control-connection.js`).
        NodeJs = "nodejs",
        /// One port for all nodes (`src/address_factory.cpp`); PHP's driver wraps it.
        Cpp = "cpp",
        /// One port for all nodes (`scylla/src/cluster/metadata/fetching.rs`), and so are the drivers that wrap it.
        ScyllaRust = "scylla-rust",
        Other = "other",
        /// STARTUP has no DRIVER_NAME.
        Nameless = "none",
    }
}

/// Parts of names, all of which a DRIVER_NAME must have; the first match wins.
const FAMILIES: &[(&[&str], DriverFamily)] = &[
    (&["scylla", "gocql"], DriverFamily::ScyllaGocql),
    (&["scylla", "python"], DriverFamily::ScyllaPython),
    (&["scylla", "java"], DriverFamily::ScyllaJava),
    (&["scylla", "rust"], DriverFamily::ScyllaRust),
    (&["scylla", "-rs"], DriverFamily::ScyllaRust),
    (&["scylla", " rs"], DriverFamily::ScyllaRust),
    (&["scylla", "node"], DriverFamily::ScyllaRust),
    (&["scylla", "cpp"], DriverFamily::ScyllaRust),
    (&["gocql"], DriverFamily::Gocql),
    (&["node.js"], DriverFamily::NodeJs),
    (&["c/c++"], DriverFamily::Cpp),
    (&["c++"], DriverFamily::Cpp),
    (&["php"], DriverFamily::Cpp),
    (&["c#"], DriverFamily::Csharp),
    (&["cdrs"], DriverFamily::CdrsTokio),
    (&["python"], DriverFamily::Python),
    (&["java driver for"], DriverFamily::Java4),
    (&["apache cassandra java"], DriverFamily::Java4),
    (&["java driver"], DriverFamily::Java3),
];

/// Into which tables' answers `native_address` and `native_port` are injected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injection {
    pub local: bool,
    /// `system.peers`, for nodes that have no `peers_v2`.
    pub peers: bool,
}

impl Injection {
    pub fn any(self) -> bool {
        self.local || self.peers
    }
}

impl DriverFamily {
    /// The family of a DRIVER_NAME, of any content.
    pub fn of(driver_name: Option<&str>) -> Self {
        let Some(name) = driver_name.map(str::to_ascii_lowercase) else { return Self::Nameless };
        if name.is_empty() {
            return Self::Gocql;
        }
        FAMILIES
            .iter()
            .find(|(parts, _)| parts.iter().all(|part| name.contains(part)))
            .map_or(Self::Other, |&(_, family)| family)
    }

    /// True when the driver can tell nodes apart that look like this, or is not known not to.
    pub fn can_tell_apart(self, shape: Shape) -> bool {
        match self {
            Self::Gocql => shape.has_distinct_addresses,
            Self::NodeJs | Self::Cpp | Self::ScyllaRust => shape.has_distinct_addresses && shape.only_port.is_some(),
            _ => true,
        }
    }

    /// What the driver profits from, on answers to QUERY. Never for drivers that check a row's columns (ScyllaDB Rust), and
    /// never for those that are not known.
    pub fn injection(self) -> Injection {
        match self {
            Self::Java3 | Self::ScyllaGocql | Self::ScyllaPython => Injection { local: true, peers: true },
            Self::Java4 | Self::ScyllaJava | Self::Python | Self::CdrsTokio => Injection { local: false, peers: true },
            Self::Csharp | Self::Gocql | Self::NodeJs | Self::Cpp | Self::ScyllaRust | Self::Other | Self::Nameless => {
                Injection::default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_today_and_of_yesterday() {
        for (name, family) in [
            ("Apache Cassandra Java Driver", DriverFamily::Java4),
            ("DataStax Java driver for Apache Cassandra(R)", DriverFamily::Java4),
            ("Java Driver", DriverFamily::Java3),
            ("Apache Cassandra Python Driver", DriverFamily::Python),
            ("DataStax Python Driver", DriverFamily::Python),
            ("ScyllaDB Python Driver", DriverFamily::ScyllaPython),
            ("DataStax Node.js Driver for Apache Cassandra", DriverFamily::NodeJs),
            ("Apache Cassandra Node.js Driver", DriverFamily::NodeJs),
            ("DataStax C# Driver for Apache Cassandra", DriverFamily::Csharp),
            ("DataStax C/C++ Driver for Apache Cassandra and DataStax Products", DriverFamily::Cpp),
            ("github.com/gocql/gocql", DriverFamily::Gocql),
            ("github.com/apache/cassandra-gocql-driver/v2", DriverFamily::Gocql),
            ("", DriverFamily::Gocql),
            ("ScyllaDB GoCQL Driver", DriverFamily::ScyllaGocql),
            ("ScyllaDB Rust Driver", DriverFamily::ScyllaRust),
            ("ScyllaDB Cpp-RS Driver", DriverFamily::ScyllaRust),
            ("cdrs-tokio", DriverFamily::CdrsTokio),
            ("my own", DriverFamily::Other),
        ] {
            assert_eq!(DriverFamily::of(Some(name)), family, "{name}");
        }
        assert_eq!(DriverFamily::of(None), DriverFamily::Nameless);
    }
}
