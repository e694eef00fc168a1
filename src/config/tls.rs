//! `tls`: what clients see and show, what is asked of nodes and shown to them.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Verify;
use super::resolve::Findings;

/// Both sides are plain when absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// What clients see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientTls>,
    /// What is asked of nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeTls>,
}

impl Tls {
    /// Whether a node shows who it is before anything is said to it.
    pub fn verifies_nodes(&self) -> bool {
        self.nodes.as_ref().is_some_and(|tls| tls.verify != Verify::Off)
    }

    pub(super) fn resolve(&self, found: &mut Findings, base: &Path) -> Self {
        Self {
            clients: self.clients.as_ref().map(|tls| ClientTls {
                certificate: found.file("tls.clients.certificate", base, &tls.certificate),
                key: found.file("tls.clients.key", base, &tls.key),
            }),
            nodes: self.nodes.as_ref().map(|tls| resolve_node_tls(tls, found, base)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// PEM: the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NodeTls {
    /// PEM: the CAs that sign the nodes' certificates; required unless verify is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// full: chain and name; ca: chain, any name; off: nothing.
    pub verify: Verify,
    /// With verify: full, the name in the nodes' certificates where it is not the dialled host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The gateway's own certificate, for nodes that ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

impl Default for NodeTls {
    fn default() -> Self {
        Self { ca: None, verify: Verify::Full, server_name: None, certificate: None, key: None }
    }
}

fn resolve_node_tls(tls: &NodeTls, found: &mut Findings, base: &Path) -> NodeTls {
    if tls.verify == Verify::Off {
        found.warnings.push("tls.nodes.verify is off: anyone between gateway and nodes can read and change".to_owned());
    } else if tls.ca.is_none() {
        found.problem("tls.nodes", "ca is missing: the CAs that sign the nodes' certificates");
    }
    match (&tls.certificate, &tls.key) {
        (Some(_), None) => found.problem("tls.nodes.certificate", "needs tls.nodes.key"),
        (None, Some(_)) => found.problem("tls.nodes.key", "needs tls.nodes.certificate"),
        _ => {}
    }
    let mut file = |key, path: &Option<PathBuf>| path.as_ref().map(|path| found.file(key, base, path));
    NodeTls {
        ca: file("tls.nodes.ca", &tls.ca),
        verify: tls.verify,
        server_name: tls.server_name.clone(),
        certificate: file("tls.nodes.certificate", &tls.certificate),
        key: file("tls.nodes.key", &tls.key),
    }
}
