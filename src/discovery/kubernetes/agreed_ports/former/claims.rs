//! The text of 0.1.0's claims.

use std::collections::BTreeMap;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::topology::NodeId;
use crate::topology::ports::Claim;

const VERSION: u32 = 1;

pub type Claims = BTreeMap<NodeId, Claim>;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    nodes: BTreeMap<String, Entry>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<String>,
}

pub fn parse(text: &str) -> Result<Claims, String> {
    let contents: Contents = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if contents.version != VERSION {
        return Err(format!("version {}, this gateway knows {VERSION}", contents.version));
    }
    let claim = |(id, entry): (String, Entry)| {
        let left = match &entry.left {
            Some(text) => {
                let at: Timestamp = text.parse().map_err(|error| format!("nodes.{id}.left: {error}"))?;
                Some(SystemTime::from(at))
            }
            None => None,
        };
        Ok((NodeId::new(&id), Claim { port: entry.port, left }))
    };
    contents.nodes.into_iter().map(claim).collect()
}

pub fn encode(claims: &Claims) -> serde_json::Result<String> {
    let entry = |(id, claim): (&NodeId, &Claim)| {
        let left = claim.left.and_then(|left| Timestamp::try_from(left).ok()).map(|left| left.to_string());
        (id.to_string(), Entry { port: claim.port, left })
    };
    let contents = Contents { version: VERSION, nodes: claims.iter().map(entry).collect() };
    let mut text = serde_json::to_string_pretty(&contents)?;
    text.push('\n');
    Ok(text)
}
