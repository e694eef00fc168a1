//! What relays see in passing: counted here, and told to the topology where it did not know. Only answers to plain selections
//! tell it anything: the names in others are the client's own.

use std::net::SocketAddr;
use std::time::Instant;

use super::agreement::Told;
use super::shared::Shared;
use crate::rewrite::conversation::Fact;
use crate::rewrite::system_tables::{KeptRow, LeftOut, LocalRow, RefusedRequest, Report, Rewritten};
use crate::topology::Hidden;
use crate::topology::input::{Identity, Input, Observation};

impl Shared {
    /// Counts a fact from a connection of the node behind `port`. The topology hears of it if it has time.
    pub fn report(&self, port: u16, incarnation: u64, fact: Fact) {
        match fact {
            Fact::Rewrote { report, plain } => self.rewrote(port, incarnation, *report, plain),
            Fact::Unrewritable(reason) => {
                tracing::warn!(port, %reason, "a system table's answer cannot be rewritten; the connection is closed");
            }
            // When there is no room it was asked of the topology already.
            Fact::Doubted { port, incarnation } => {
                _ = self.observations.try_send(Input::Doubted { port, incarnation });
            }
            Fact::ToldAtOnce => self.metrics.schema_change_told(Told::NoRoom),
            Fact::Redescribed => self.metrics.statements_redescribed.inc(),
            Fact::Registered(_) | Fact::LoggedIn | Fact::LoginRefused { .. } => {}
            Fact::Event { kind, action } => self.metrics.event(kind, action),
        }
    }

    fn rewrote(&self, port: u16, incarnation: u64, report: Report, plain: bool) {
        match report.rewritten {
            Rewritten::Unchanged => {}
            Rewritten::Frame => self.metrics.rewritten(report.table),
            Rewritten::Refused => self.metrics.request_refused(RefusedRequest::InternalAddress),
        }
        for (reason, count) in report.hidden_besides {
            self.metrics.rows_hidden(reason, count);
        }
        for row in report.hidden {
            self.metrics.rows_hidden(row.reason, 1);
            if let (LeftOut::Hidden(reason), true) = (row.reason, plain) {
                let hidden = Hidden { id: None, host_id: row.host_id, address: row.address, reason };
                self.sightings.see(hidden, Instant::now());
            }
        }
        for (node, count) in report.kept_besides {
            self.metrics.rows_kept(node, count);
        }
        for KeptRow { host_id, address, node } in report.kept {
            self.metrics.rows_kept(node, 1);
            self.kept.see(Hidden { id: None, host_id, address, reason: node.into() }, Instant::now());
        }
        if let Some(local) = report.local.filter(|_| plain) {
            self.observe(port, incarnation, local);
        }
    }

    /// Tells the topology who the node behind `port` says it is, when that is news.
    fn observe(&self, port: u16, incarnation: u64, local: LocalRow) {
        let Some(node) = self.topology.borrow().node_at_port(port).cloned() else { return };
        if local.host_id.is_none() || node.host_id == local.host_id {
            return;
        }
        let native = |(address, port): (_, Option<u16>)| SocketAddr::new(address, port.unwrap_or(node.address.port()));
        let identity = Identity {
            cluster_name: local.cluster_name,
            host_id: local.host_id,
            native: local.native.map(native),
            data_center: local.data_center,
            rack: local.rack,
        };
        if identity.too_long().is_some() {
            return;
        }
        let _ = self.observations.try_send(Input::Observed(Observation { port, incarnation, identity }));
    }
}
