//! What nodes say of themselves and of each other: the rows of `system.local`, `peers_v2` and `peers`.

use std::net::SocketAddr;
use std::sync::Arc;

use uuid::Uuid;

use crate::cql::message::error_code;
use crate::cql::primitives::{DecodeError, Value, inet_cell};
use crate::cql::rows::Rows;
use crate::topology::HostId;
use crate::topology::input::{Identity, LONGEST_NAME};

use super::client::{Answer, Client, ClientError};

const LOCAL: &str = "SELECT * FROM system.local WHERE key='local'";
const PEERS_V2: &str = "SELECT * FROM system.peers_v2";
const PEERS: &str = "SELECT * FROM system.peers";

/// Asks a node who it is. The connection is started. `dialled` gives the port where the node has no `rpc_port` column
/// (before 4.0).
pub async fn read_local(client: &mut Client, dialled: SocketAddr) -> Result<Identity, ClientError> {
    let answer = client.query(LOCAL).await?;
    let mut rows = parse_rows(LOCAL, &answer, dialled.port())?;
    if rows.is_empty() {
        let error = DecodeError::Malformed { what: "system.local without a row" };
        return Err(ClientError::Malformed { doing: LOCAL, error });
    }
    let row = rows.swap_remove(0);
    if let Some((what, length)) = row.too_long() {
        let error = DecodeError::TooLong { what, length: length as u64, limit: LONGEST_NAME as u64 };
        return Err(ClientError::Malformed { doing: LOCAL, error });
    }
    Ok(row)
}

/// Asks a node whom it knows, itself left out. Where there is no `peers_v2` (before 4.0) every node is taken to have the
/// port that was dialled. A row may have names of any length.
pub async fn read_peers(client: &mut Client, dialled: SocketAddr) -> Result<Vec<Identity>, ClientError> {
    match client.query(PEERS_V2).await {
        Ok(answer) => parse_rows(PEERS_V2, &answer, dialled.port()),
        Err(ClientError::Refused { code: error_code::INVALID, .. }) => {
            let answer = client.query(PEERS).await?;
            parse_rows(PEERS, &answer, dialled.port())
        }
        Err(error) => Err(error),
    }
}

fn parse_rows(doing: &'static str, answer: &Answer, port: u16) -> Result<Vec<Identity>, ClientError> {
    let rows = Rows::parse(answer.message()).map_err(|error| ClientError::Malformed { doing, error })?;
    Ok(rows.rows().map(|cells| parse_row(&rows, cells, port)).collect())
}

/// One row of any of the three tables. DSE's `native_transport_address` is what its drivers dial; then 4.0's
/// `native_address`, then `rpc_address`.
fn parse_row(rows: &Rows<'_>, cells: &[Value<'_>], port: u16) -> Identity {
    let cell = |name: &str| rows.position(name).and_then(|at| cells.get(at)).and_then(|value| value.bytes());
    let text = |name: &str| cell(name).and_then(|bytes| std::str::from_utf8(bytes).ok()).map(Arc::<str>::from);
    let number = |name: &str| cell(name).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes);
    let names = [
        ("native_transport_address", "native_transport_port"),
        ("native_address", "native_port"),
        ("rpc_address", "rpc_port"),
    ];
    let native = names.into_iter().find_map(|(address, port_name)| {
        let ip = cell(address).and_then(inet_cell).filter(|ip| !ip.is_unspecified())?;
        let port =
            number(port_name).and_then(|port| u16::try_from(port).ok()).filter(|&port| port != 0).unwrap_or(port);
        Some(SocketAddr::new(ip, port))
    });
    Identity {
        cluster_name: text("cluster_name"),
        host_id: cell("host_id").and_then(|bytes| Uuid::from_slice(bytes).ok()).map(HostId),
        native,
        data_center: text("data_center"),
        rack: text("rack"),
    }
}
