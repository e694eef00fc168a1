//! Who has which port, as text: the one form in which claims outlive a process, be it in a file or in a ConfigMap.
//!
//! ```json
//! {"version": 1, "nodes": {"<identity>": {"port": 9042, "left": "<RFC 3339, absent while the node is there>"}}}
//! ```
//!
//! Whoever reads limits the length; a text that is not understood to the last key is an error, never half of the claims.

use std::collections::BTreeMap;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::topology::NodeId;
use crate::topology::ports::{Claim, Claims};

const VERSION: u32 = 1;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    /// By identity: host_id or the pod's name.
    nodes: BTreeMap<String, Entry>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    port: u16,
    /// When the node left the cluster (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<String>,
}

/// The error says what is wrong and where.
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

/// Indented, one claim a few lines, ending with a newline: people read it too.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn claims_come_back_from_their_text() {
        let left = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        let claims = Claims::from([
            (NodeId::new("cassandra-0"), Claim { port: 9042, left: None }),
            (NodeId::new("cassandra-1"), Claim { port: 9043, left: Some(left) }),
        ]);
        assert_eq!(parse(&encode(&claims).unwrap()), Ok(claims));
    }
}
