//! Who may come in: from which addresses, and who says which address a client has.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Listen;
use super::text::{Network, Ports};

/// From where clients may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// The only networks from which clients may connect; everybody may when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<Network>>,
    /// Networks from which nobody may, also where allow has them.
    pub deny: Vec<Network>,
    /// More rules, for a part of the ports each: who comes there has to pass all.
    pub ports: Vec<PortAccess>,
}

/// From where clients may connect to some of the ports.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortAccess {
    /// A part of listen.
    pub ports: Ports,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<Network>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Network>,
}

/// A load balancer that says in front of each connection from where its client has come (PROXY protocol, version 1 or 2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyProtocol {
    /// required: nobody gets in without a header; optional: who comes from elsewhere is who it seems to be.
    pub mode: ProxyMode,
    /// The load balancer's own addresses: whoever else sends a header is closed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Network>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyMode {
    #[default]
    Off,
    Optional,
    Required,
}

impl Access {
    pub(super) fn check(&self, listen: Listen, mut problem: impl FnMut(String, String)) {
        let empty = |allow: &Option<Vec<Network>>| allow.as_ref().is_some_and(Vec::is_empty);
        let nobody = "is empty, and lets nobody in: list networks, or leave it out for everybody";
        if empty(&self.allow) {
            problem("access.allow".to_owned(), nobody.to_owned());
        }
        for (index, part) in self.ports.iter().enumerate() {
            let key = format!("access.ports[{index}]");
            if empty(&part.allow) {
                problem(format!("{key}.allow"), nobody.to_owned());
            }
            if part.allow.is_none() && part.deny.is_empty() {
                problem(key.clone(), "says nothing: allow or deny is missing".to_owned());
            }
            if !listen.has(part.ports) {
                problem(format!("{key}.ports"), format!("{} is outside listen {listen}", part.ports));
            }
        }
    }
}

impl ProxyProtocol {
    pub(super) fn check(&self, mut problem: impl FnMut(&str, &str)) {
        match self.mode {
            ProxyMode::Off if !self.from.is_empty() => {
                problem("proxy_protocol.from", "says nothing without proxy_protocol.mode: required or optional");
            }
            ProxyMode::Optional | ProxyMode::Required if self.from.is_empty() => {
                problem("proxy_protocol.from", "is missing: the load balancer's own addresses");
            }
            _ => {}
        }
    }
}
