//! What a row says of whose it is, in its columns and in the JSON of some.

use std::net::IpAddr;

use super::columns::{Role, Roles};
use super::json::{self, Member, Scalar};
use crate::cql::primitives::Value;
use crate::topology::HostId;

/// The columns in a row's JSON, by the row's own columns: `None` for those that are not JSON.
pub type Json = Vec<Option<Vec<Member>>>;

/// Reads the JSON of a row; nothing is allocated where there is none.
pub fn json(roles: &Roles, names: &[String], row: &[Value<'_>]) -> Json {
    if !roles.iter().any(|role| role == Role::Json) {
        return Vec::new();
    }
    let read = |((role, name), value): ((Role, &String), &Value<'_>)| {
        value.bytes().filter(|_| role == Role::Json).and_then(|text| json::read(name, text))
    };
    roles.iter().zip(names).zip(row).map(read).collect()
}

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    pub host_id: Option<HostId>,
    /// The address that the row gives to clients, and its port where the row has one. 0.0.0.0 and :: are nobody's.
    pub native: Option<(IpAddr, Option<u16>)>,
    pub peer: Option<IpAddr>,
    /// There is something that a client dials.
    pub has_endpoint: bool,
    pub has_address: bool,
    /// Nothing says whose the row is, and nothing is dialled, be it under another name: the row is the cluster's, as a count of its
    /// nodes is.
    pub is_nobodys: bool,
}

impl Said {
    /// A column of the row wins over the same one in its JSON.
    pub fn of(roles: &Roles, row: &[Value<'_>], json: &Json) -> Self {
        let mut said = Self {
            host_id: roles.host_id(row),
            native: roles.native(row),
            peer: roles.peer(row),
            has_endpoint: roles.has_endpoint(),
            has_address: roles.has_address(),
            is_nobodys: roles.are_nobodys(),
        };
        let members = || json.iter().flatten().flatten();
        for member in members() {
            said.has_address |= member.role == Role::Address;
            said.has_endpoint |= matches!(member.role, Role::Address | Role::Port);
            said.is_nobodys &= !tells(member);
            match (&*member.name, &member.value) {
                ("host_id", Scalar::Uuid(id)) => said.host_id = said.host_id.or(Some(HostId(*id))),
                ("peer", Scalar::Inet(peer)) => said.peer = said.peer.or(Some(*peer)),
                _ => {}
            }
        }
        said.native = said.native.or_else(|| {
            let of = |name| members().find(|member| member.name == name).map(|member| &member.value);
            let Some(&Scalar::Inet(address)) = of("native_address").or_else(|| of("rpc_address")) else { return None };
            let port = match of("native_port").or_else(|| of("rpc_port")) {
                Some(&Scalar::Int(port)) => u16::try_from(port).ok(),
                _ => None,
            };
            Some((address, port)).filter(|(address, _)| !address.is_unspecified())
        });
        said
    }
}

/// Whether a column says whose the row is, or may be dialled.
fn tells(member: &Member) -> bool {
    let is_dialled = matches!(member.role, Role::Address | Role::Port | Role::OtherInet);
    is_dialled || (member.role == Role::Identity && matches!(&*member.name, "host_id" | "peer"))
}
