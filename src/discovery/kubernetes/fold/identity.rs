//! By what an endpoint is a node: its pod is of a StatefulSet, and has an ordinal.

use crate::topology::NodeId;

use super::super::objects::Endpoint;

/// By what an endpoint says that it is, and its port.
pub enum Named {
    Pod(NodeId, u16),
    /// Only the node itself can say who it is.
    Nothing(u16),
}

/// The identity of an endpoint and its port, or why it has none.
pub fn named(endpoint: &Endpoint, port: Option<u16>) -> Result<Named, String> {
    let name = endpoint.pod.as_deref().or(endpoint.hostname.as_deref());
    let Some(name) = name else {
        return port.map(Named::Nothing).ok_or_else(|| "the endpoint has no port of the configured name".to_owned());
    };
    if split(name).is_none() {
        return Err(format!("pod {name} has no ordinal: it is not of a StatefulSet"));
    }
    let port = port.ok_or_else(|| format!("the endpoint of pod {name} has no port of the configured name"))?;
    Ok(Named::Pod(NodeId::new(name), port))
}

/// A StatefulSet's pod is its name, a hyphen and the ordinal in decimal (StatefulSet documentation, "Ordinal Index").
pub fn split(pod: &str) -> Option<(&str, u32)> {
    let (set, ordinal) = pod.rsplit_once('-')?;
    let plain = ordinal == "0" || !ordinal.starts_with('0');
    let digits = ordinal.bytes().all(|b| b.is_ascii_digit());
    if set.is_empty() || !plain || !digits {
        return None;
    }
    Some((set, ordinal.parse().ok()?))
}
