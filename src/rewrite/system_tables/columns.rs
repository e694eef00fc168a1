//! What each column of an answer is to a client: something it dials, the internode identity, or something else.
//!
//! A name counts only with the type that the tables give it: a text called `rpc_address` is somebody's alias.

use std::net::IpAddr;
use std::sync::Arc;

use super::{LocalRow, json};
use crate::cql::primitives::{Value, inet_cell};
use crate::cql::rows::{Column, TypeKind, Types};
use crate::topology::HostId;

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
    /// A text that has columns in it ([`json::form`]).
    Json,
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
    /// `roots` says where each column's type is.
    pub fn of(columns: &[Column<'_>], types: &Types, roots: &[usize]) -> Self {
        let mut roles = Self::default();
        for (index, (column, &root)) in columns.iter().zip(roots).enumerate() {
            let kind = types.kind(root).unwrap_or(TypeKind::Custom);
            let of_elements = types.children(root).next().and_then(|child| types.kind(child));
            roles.roles.push(role(column.name, kind, of_elements));
            let at = match (column.name, kind) {
                ("host_id", TypeKind::Uuid) => &mut roles.host_id,
                ("native_address", TypeKind::Inet) => {
                    roles.address = Some(index);
                    continue;
                }
                ("rpc_address", TypeKind::Inet) if roles.address.is_none() => &mut roles.address,
                ("native_port" | "rpc_port", TypeKind::Int) => &mut roles.port,
                ("peer", TypeKind::Inet) => &mut roles.peer,
                ("data_center", TypeKind::Text) => &mut roles.data_center,
                ("rack", TypeKind::Text) => &mut roles.rack,
                ("cluster_name", TypeKind::Text) => &mut roles.cluster_name,
                _ => continue,
            };
            *at = Some(index);
        }
        roles
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

    /// True when an answer's columns neither say whose a row is nor are dialled, be it under another name: such a row is the cluster's,
    /// as a count of its nodes is.
    pub fn are_nobodys(&self) -> bool {
        let tells = |role| matches!(role, Role::Address | Role::Port | Role::OtherInet);
        self.host_id.is_none() && self.peer.is_none() && !self.iter().any(tells)
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

    /// The data center that the row's node is in, as the row says.
    pub fn data_center<'r>(&self, row: &[Value<'r>]) -> Option<&'r str> {
        cell(row, self.data_center).and_then(|bytes| std::str::from_utf8(bytes).ok())
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

pub(super) fn role(name: &str, kind: TypeKind, of_elements: Option<TypeKind>) -> Role {
    match (name, kind) {
        ("rpc_address" | "native_address" | "native_transport_address", TypeKind::Inet) => Role::Address,
        ("rpc_port" | "native_port" | "native_transport_port" | "native_transport_port_ssl", TypeKind::Int) => {
            Role::Port
        }
        ("preferred_ip", TypeKind::Inet) | ("preferred_port", TypeKind::Int) => Role::Preferred,
        ("peer" | "broadcast_address" | "listen_address", TypeKind::Inet) => Role::Identity,
        ("peer_port" | "broadcast_port" | "listen_port" | "gossip_generation", TypeKind::Int) => Role::Identity,
        ("host_id" | "schema_version", TypeKind::Uuid) => Role::Identity,
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
            TypeKind::Text,
        ) => Role::Text,
        ("tokens", TypeKind::Elements) if of_elements == Some(TypeKind::Text) => Role::Text,
        (_, TypeKind::Inet) => Role::OtherInet,
        (_, TypeKind::Int) => Role::OtherInt,
        (_, TypeKind::Text) if json::form(name).is_some() => Role::Json,
        _ => Role::Other,
    }
}
