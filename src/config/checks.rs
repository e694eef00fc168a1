//! Whether the numbers of a [`File`] make sense, alone and together.

use std::time::Duration;

use super::MemoryLimit;
use super::file::File;
use super::resolve::Findings;
use super::text::{Size, Time};

/// 256 MiB: the longest body that the protocol allows (native_protocol_v4.spec §2.5).
const LONGEST_FRAME: u64 = 256 * 1024 * 1024;

/// Drivers give a request up after 10 or 12 seconds, unless they are told otherwise.
const LONGEST_AGREEMENT: Duration = Duration::from_secs(60);

impl File {
    pub(super) fn check_views(&self, found: &mut Findings) {
        self.views.check(self.listen, |key, what| found.problem(key, what));
        if self.views.schema_agreement > LONGEST_AGREEMENT {
            let (wait, longest) = (Time(self.views.schema_agreement), Time(LONGEST_AGREEMENT));
            found.problem(
                "views.schema_agreement",
                format!("{wait} is longer than {longest}: drivers do not wait so long"),
            );
        }
    }

    pub(super) fn check_entry(&self, found: &mut Findings) {
        self.access.check(self.listen, |key, what| found.problem(key, what));
        self.proxy_protocol.check(|key, what| found.problem(key, what));
    }

    pub(super) fn check_limits(&self, found: &mut Findings) {
        let limits = &self.limits;
        let own = |key: &str, places, share: Option<usize>| (key.to_owned(), places, share);
        let mut rooms = vec![
            own("limits.connections", limits.connections, None),
            own("limits.connections_per_node", limits.connections_per_node, None),
        ];
        for (name, stage) in limits.stages.named() {
            rooms.push((format!("limits.stages.{name}.places"), stage.places, None));
            if stage.per_source.is_some() {
                rooms.push((format!("limits.stages.{name}.per_source"), stage.places, stage.per_source));
            }
        }
        if limits.connections_per_source.is_some() {
            rooms.push(own("limits.connections_per_source", limits.connections, limits.connections_per_source));
        }
        for (key, places, share) in rooms {
            let count = share.unwrap_or(places);
            if count == 0 {
                found.problem(key, "0 lets nobody in");
            } else if count > places {
                found.problem(key, format!("{count} is more than the {places} places that there are"));
            }
        }
        let [frame, held, total] = [limits.frame, limits.held_frame, limits.held_total].map(Size);
        if !(1..=LONGEST_FRAME).contains(&frame.0) {
            found.problem("limits.frame", format!("{frame} is not within 1B and {}", Size(LONGEST_FRAME)));
        }
        if held.0 < 64 * 1024 {
            found.problem(
                "limits.held_frame",
                format!("{held} is less than 64KiB: rows of a large cluster would not fit"),
            );
        }
        if total.0 < held.0 {
            found.problem("limits.held_total", format!("{total} is less than limits.held_frame, {held}"));
        }
        if let MemoryLimit::Bytes(bytes) = limits.memory
            && bytes < 64 * 1024 * 1024
        {
            found.problem("limits.memory", format!("{} is less than 64MiB", Size(bytes)));
        }
    }

    pub(super) fn check_timeouts(&self, found: &mut Findings) {
        for (key, time) in self.timeouts.named() {
            if time == Duration::ZERO {
                found.problem(format!("timeouts.{key}"), "0s leaves no time");
            }
        }
        let (dial, setup) = (Time(self.timeouts.dial), Time(self.timeouts.setup));
        if dial.0 > setup.0 {
            found.problem("timeouts.dial", format!("{dial} is longer than timeouts.setup, {setup}, which includes it"));
        }
        if let Some(keep_out) = &self.logins.keep_out {
            if keep_out.after == 0 {
                found.problem("logins.keep_out.after", "0 lets nobody in");
            }
            if keep_out.lasts == Duration::ZERO {
                found.problem("logins.keep_out.lasts", "0s keeps nobody out");
            }
            found.warnings.push(
                "logins.keep_out: where a load balancer hides the clients' addresses, wrong passwords of one keep all out"
                    .to_owned(),
            );
        }
        let (spread, deadline) = (Time(self.drain.spread), Time(self.drain.deadline));
        if spread.0 > deadline.0 {
            found.problem("drain.deadline", format!("{deadline} is shorter than drain.spread, {spread}"));
        } else if self.drain.linger > deadline.0 - spread.0 {
            let linger = Time(self.drain.linger);
            found.warnings.push(format!(
                "drain.deadline: {deadline} is shorter than drain.spread and drain.linger, {spread} and {linger}: whoever is closed last may miss the last answer"
            ));
        }
    }

    pub(super) fn check_log(&self, found: &mut Findings) {
        if let Err(error) = crate::telemetry::parse_filter(&self.log.level) {
            found.problem("log.level", error.to_string());
        }
    }

    pub(super) fn check_admin(&self, found: &mut Findings) {
        let Self { admin, listen, .. } = self;
        let same = listen.address == admin.ip() || listen.address.is_unspecified() || admin.ip().is_unspecified();
        if same && (listen.first..=listen.last).contains(&admin.port()) {
            found.problem("admin", format!("port {} is within listen {listen}", admin.port()));
        }
    }
}
