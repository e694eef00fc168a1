//! `tls`: what clients see and show, what is asked of nodes and shown to them.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Verify;
use super::identity::Pattern;
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

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// PEM: the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// allowed: who begins with plain CQL is served, too, on the same ports.
    #[serde(default)]
    pub plain: PlainClients,
    #[serde(default)]
    pub client_auth: ClientAuth,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlainClients {
    #[default]
    Refused,
    Allowed,
}

/// Certificates of clients.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientAuth {
    /// required: nobody gets in without a certificate; optional: one that is shown has to be right.
    pub mode: AuthMode,
    /// PEM: the CAs that sign them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// PEM: the lists of what is revoked, of each CA in the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<PathBuf>,
    /// When such a list is older than it says it may be: refuse whoever it is about, or allow.
    pub crl_expired: CrlExpired,
    /// Whose certificates; everybody's that a CA has signed when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<Pattern>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    #[default]
    Off,
    Optional,
    Required,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CrlExpired {
    Allow,
    #[default]
    Refuse,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NodeTls {
    /// PEM: the CAs that sign the nodes' certificates, or these certificates themselves; required unless verify is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// full: chain and name; ca: chain, any name; off: nothing.
    pub verify: Verify,
    /// With verify: full, the name in the nodes' certificates where it is not the dialled host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The gateway's own certificate, for nodes that ask for one: for all clients, unless identities say whose is which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// What is shown to nodes in whose name; the first that a client's certificate is for. Who is in none is refused, and the gateway's
    /// own certificate is for its own connections alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<Identity>,
}

/// A client, and the certificate that is shown to nodes in its name.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Whose certificate.
    pub client: Pattern,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl ClientTls {
    /// TLS for whoever comes, without certificates of clients.
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key, plain: PlainClients::Refused, client_auth: ClientAuth::default() }
    }

    fn resolve(&self, found: &mut Findings, base: &Path) -> Self {
        let auth = &self.client_auth;
        if auth.mode == AuthMode::Off {
            let others = [("ca", auth.ca.is_some()), ("crl", auth.crl.is_some()), ("allow", auth.allow.is_some())];
            for (key, _) in others.iter().filter(|(_, is_there)| *is_there) {
                found.problem(
                    format!("tls.clients.client_auth.{key}"),
                    "says nothing without tls.clients.client_auth.mode: optional or required",
                );
            }
        } else if auth.ca.is_none() {
            found.problem("tls.clients.client_auth", "ca is missing: the CAs that sign the clients' certificates");
        }
        if auth.mode == AuthMode::Required && self.plain == PlainClients::Allowed {
            let what = "allowed lets clients in without the certificate that tls.clients.client_auth.mode requires";
            found.problem("tls.clients.plain", what);
        }
        if auth.allow.as_ref().is_some_and(Vec::is_empty) {
            let what = "is empty, and lets nobody in: list names, or leave it out for whoever has a certificate";
            found.problem("tls.clients.client_auth.allow", what);
        }
        let mut file = |key: &str, path: &Option<PathBuf>| path.as_ref().map(|path| found.file(key, base, path));
        let client_auth = ClientAuth {
            ca: file("tls.clients.client_auth.ca", &auth.ca),
            crl: file("tls.clients.client_auth.crl", &auth.crl),
            ..auth.clone()
        };
        Self {
            certificate: found.file("tls.clients.certificate", base, &self.certificate),
            key: found.file("tls.clients.key", base, &self.key),
            plain: self.plain,
            client_auth,
        }
    }
}

impl Default for NodeTls {
    fn default() -> Self {
        Self { ca: None, verify: Verify::Full, server_name: None, certificate: None, key: None, identities: Vec::new() }
    }
}

impl NodeTls {
    fn resolve(&self, found: &mut Findings, base: &Path) -> Self {
        if self.verify == Verify::Off {
            let what = "tls.nodes.verify is off: anyone between gateway and nodes can read and change";
            found.warnings.push(what.to_owned());
        } else if self.ca.is_none() {
            found.problem("tls.nodes", "ca is missing: the CAs that sign the nodes' certificates");
        }
        match (&self.certificate, &self.key) {
            (Some(_), None) => found.problem("tls.nodes.certificate", "needs tls.nodes.key"),
            (None, Some(_)) => found.problem("tls.nodes.key", "needs tls.nodes.certificate"),
            (Some(_), Some(_)) if self.identities.is_empty() => found.warnings.push(
                "tls.nodes.certificate is shown to nodes for every client: where they authenticate by certificate \
                 (MutualTlsAuthenticator) each client has that one's role; tls.nodes.identities gives each its own"
                    .to_owned(),
            ),
            (None, None) if !self.identities.is_empty() => found.warnings.push(
                "tls.nodes.certificate is absent beside tls.nodes.identities: the gateway itself shows nodes none, and those that \
                 require one (require_client_auth: true) do not tell it who they are"
                    .to_owned(),
            ),
            _ => {}
        }
        let mut file = |key: &str, path: &Option<PathBuf>| path.as_ref().map(|path| found.file(key, base, path));
        let (ca, certificate, key) = (
            file("tls.nodes.ca", &self.ca),
            file("tls.nodes.certificate", &self.certificate),
            file("tls.nodes.key", &self.key),
        );
        let identity = |(index, identity): (usize, &Identity)| Identity {
            client: identity.client.clone(),
            certificate: found.file(&format!("tls.nodes.identities[{index}].certificate"), base, &identity.certificate),
            key: found.file(&format!("tls.nodes.identities[{index}].key"), base, &identity.key),
        };
        let identities = self.identities.iter().enumerate().map(identity).collect();
        Self { ca, verify: self.verify, server_name: self.server_name.clone(), certificate, key, identities }
    }
}

impl Tls {
    /// Whether a node shows who it is before anything is said to it.
    pub fn verifies_nodes(&self) -> bool {
        self.nodes.as_ref().is_some_and(|tls| tls.verify != Verify::Off)
    }

    pub(super) fn resolve(&self, found: &mut Findings, base: &Path) -> Self {
        let shows = self.clients.as_ref().is_some_and(|tls| tls.client_auth.mode != AuthMode::Off);
        if !shows && self.nodes.as_ref().is_some_and(|tls| !tls.identities.is_empty()) {
            let what = "needs tls.clients.client_auth.mode: no client shows who it is, and all would be refused";
            found.problem("tls.nodes.identities", what);
        }
        Self {
            clients: self.clients.as_ref().map(|tls| tls.resolve(found, base)),
            nodes: self.nodes.as_ref().map(|tls| tls.resolve(found, base)),
        }
    }
}
