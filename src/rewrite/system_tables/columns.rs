//! What each column of an answer is to a client: something it dials, the internode identity, or something else.
//!
//! A name counts only with the type that the tables give it: a text called `rpc_address` is somebody's alias.

use std::net::IpAddr;
use std::sync::Arc;

use super::LocalRow;
use crate::cql::primitives::{DecodeError, Value, inet_cell};
use crate::cql::rows::{Column, NativeType, type_id};
use crate::topology::HostId;

/// What a host_id or a schema version may be.
const UUID: [u16; 2] = [type_id::UUID, type_id::TIMEUUID];

/// What a column is to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An address that a client dials.
    Address,
    /// A port that a client dials.
    Port,
    /// A second choice of address (gocql `host_source.go`), which must lead nowhere.
    Preferred,
    /// Passed as it is: internode identity, and scalars in which no address can be.
    Identity,
    /// A text under its own name (`rack`, `data_center` …); a client may have given this name to anything.
    Text,
    OtherInet,
    OtherInt,
    /// Of another type or under another name: looked into.
    Other,
}

/// The roles of an answer's columns, and where the telling ones are.
#[derive(Debug, Default)]
pub struct Roles {
    roles: Vec<Role>,
    host_id: Option<usize>,
    address: Option<usize>,
    port: Option<usize>,
    peer: Option<usize>,
    data_center: Option<usize>,
    rack: Option<usize>,
    cluster_name: Option<usize>,
}

impl Roles {
    pub fn of(columns: &[Column<'_>]) -> Result<Self, DecodeError> {
        let mut roles = Self::default();
        for (index, column) in columns.iter().enumerate() {
            let native = column.column_type.native()?;
            roles.roles.push(role(column, native)?);
            let at = match (column.name, native) {
                ("host_id", NativeType::Other(id)) if UUID.contains(&id) => &mut roles.host_id,
                ("native_address", NativeType::Inet) => {
                    roles.address = Some(index);
                    continue;
                }
                ("rpc_address", NativeType::Inet) if roles.address.is_none() => &mut roles.address,
                ("native_port" | "rpc_port", NativeType::Int) => &mut roles.port,
                ("peer", NativeType::Inet) => &mut roles.peer,
                ("data_center", NativeType::Text) => &mut roles.data_center,
                ("rack", NativeType::Text) => &mut roles.rack,
                ("cluster_name", NativeType::Text) => &mut roles.cluster_name,
                _ => continue,
            };
            *at = Some(index);
        }
        Ok(roles)
    }

    pub fn iter(&self) -> impl Iterator<Item = Role> + '_ {
        self.roles.iter().copied()
    }

    /// True when an answer carries something that a client dials, or may under another name.
    pub fn has_endpoint(&self) -> bool {
        self.iter().any(|role| matches!(role, Role::Address | Role::Port))
    }

    pub fn has_address(&self) -> bool {
        self.iter().any(|role| role == Role::Address)
    }

    pub fn host_id(&self, row: &[Value<'_>]) -> Option<HostId> {
        let bytes = cell(row, self.host_id)?;
        uuid::Uuid::from_slice(bytes).ok().map(HostId)
    }

    /// The address that the row gives to clients, and its port where the row has one. 0.0.0.0 and :: are nobody's.
    pub fn native(&self, row: &[Value<'_>]) -> Option<(IpAddr, Option<u16>)> {
        let address = cell(row, self.address).and_then(inet_cell).filter(|address| !address.is_unspecified())?;
        let port = cell(row, self.port)
            .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
            .and_then(|bytes| u16::try_from(i32::from_be_bytes(bytes)).ok());
        Some((address, port))
    }

    pub fn peer(&self, row: &[Value<'_>]) -> Option<IpAddr> {
        cell(row, self.peer).and_then(inet_cell)
    }

    pub fn local_row(&self, row: &[Value<'_>]) -> LocalRow {
        let text = |at| cell(row, at).and_then(|bytes| std::str::from_utf8(bytes).ok()).map(Arc::from);
        LocalRow {
            host_id: self.host_id(row),
            native: self.native(row),
            data_center: text(self.data_center),
            rack: text(self.rack),
            cluster_name: text(self.cluster_name),
        }
    }
}

fn cell<'a>(row: &[Value<'a>], at: Option<usize>) -> Option<&'a [u8]> {
    at.and_then(|at| row.get(at)).and_then(|value| value.bytes())
}

fn role(column: &Column<'_>, native: NativeType<'_>) -> Result<Role, DecodeError> {
    Ok(match (column.name, native) {
        ("rpc_address" | "native_address" | "native_transport_address", NativeType::Inet) => Role::Address,
        ("rpc_port" | "native_port" | "native_transport_port" | "native_transport_port_ssl", NativeType::Int) => {
            Role::Port
        }
        ("preferred_ip", NativeType::Inet) | ("preferred_port", NativeType::Int) => Role::Preferred,
        ("peer" | "broadcast_address" | "listen_address", NativeType::Inet) => Role::Identity,
        ("peer_port" | "broadcast_port" | "listen_port" | "gossip_generation", NativeType::Int) => Role::Identity,
        ("host_id" | "schema_version", NativeType::Other(id)) if UUID.contains(&id) => Role::Identity,
        (
            "key"
            | "bootstrapped"
            | "cluster_name"
            | "cql_version"
            | "data_center"
            | "native_protocol_version"
            | "partitioner"
            | "rack"
            | "release_version",
            NativeType::Text,
        ) => Role::Text,
        ("tokens", NativeType::Elements(of)) if of.native()? == NativeType::Text => Role::Text,
        (_, NativeType::Inet) => Role::OtherInet,
        (_, NativeType::Int) => Role::OtherInt,
        _ => Role::Other,
    })
}
