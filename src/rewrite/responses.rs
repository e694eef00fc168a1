//! What happens to a node's responses. Every RESULT is asked which table it names; those of the three tables that carry
//! addresses are rewritten when they are there whole, and every EVENT is. All others pass as they arrive.
//!
//! A system table's raw bytes never pass: what cannot be rewritten ends the connection. An answer that names no table passes only
//! where the one request in flight on its stream was an EXECUTE of a statement that is known to be ordinary.

mod results;

use std::sync::Arc;

use super::events::Outcome;
use super::exchange::Exchange;
use super::fact::Fact;
use super::graceful_disconnect;
use super::streams::Answer;
use super::walk::{Judge, Verdict};
use super::{Failure, Why, Work};
use crate::cql::compression::Compression;
use crate::cql::frame::{Flags, Header, Opcode, encode_frame};
use crate::cql::message::{self, Event, MessageStart};
use crate::cql::primitives::Reader;
use results::Looked;

/// An EVENT or SUPPORTED is short; a longer one is not one.
const MAX_SMALL: u32 = 64 * 1024;

/// The judge's own state in the direction node → client.
#[derive(Debug, Default)]
pub struct Responses {
    /// What was found out about a RESULT that is not decided.
    looked: Option<Box<Looked>>,
}

impl Responses {
    /// Bytes that are held here.
    pub fn held_bytes(&self) -> usize {
        self.looked.as_ref().map_or(0, |looked| looked.held_bytes())
    }
}

/// The judge of one step.
pub struct ResponseJudge<'a> {
    pub responses: &'a mut Responses,
    pub exchange: &'a mut Exchange,
}

impl ResponseJudge<'_> {
    fn pass(&mut self, header: Header) -> Verdict {
        self.exchange.answer(header);
        Verdict::Pass
    }

    fn compression(&self, header: Header) -> Result<Option<Compression>, Failure> {
        let session = self.exchange.client.session;
        match (session.is_compressed(header), session.compression) {
            (false, _) => Ok(None),
            (true, None) => Err(Why::Compression.into()),
            (true, compression) => Ok(compression),
        }
    }

    /// The whole body of a short response, decompressed if it must be.
    fn short(&self, header: Header, body: &[u8], work: &mut Work<'_>) -> Result<Vec<u8>, Verdict> {
        if body.len() < header.length as usize {
            return Err(Verdict::Need(header.length as usize));
        }
        match self.compression(header).map_err(Verdict::Fail)? {
            None => Ok(body.to_vec()),
            Some(compression) => work
                .decompress(compression, body, MAX_SMALL as usize)
                .map_err(|_| Verdict::Fail(Why::Compression.into())),
        }
    }

    fn event(&mut self, header: Header, body: &[u8], work: &mut Work<'_>) -> Verdict {
        let as_it_came = body;
        let body = match self.short(header, body, work) {
            Ok(body) => body,
            Err(verdict) => return verdict,
        };
        let Ok(event) = Event::parse(&body) else { return Verdict::Fail(Why::Malformed.into()) };
        if matches!(event, Event::Schema { .. }) && self.exchange.tells_late(header) {
            self.exchange.keep_schema_change(header, as_it_came);
            return Verdict::Replace(Vec::new());
        }
        if matches!(event, Event::Schema { .. } | Event::GracefulDisconnect | Event::Unknown { .. }) {
            self.exchange.facts.push(Fact::passed(&event));
            return Verdict::Pass;
        }
        let topology: Arc<_> = (self.exchange.around.topology)();
        let client = &self.exchange.client;
        let Some(control) = self.exchange.control.as_deref_mut() else { return Verdict::Replace(Vec::new()) };
        let outcome = control.announcer.on_event(&event, control.registration.asked(), &topology, client);
        self.exchange.facts.push(Fact::event(&event, &outcome));
        let told = match outcome {
            Outcome::Tell(told) => told,
            Outcome::Doubted { port, incarnation } => {
                self.exchange.facts.push(Fact::Doubted { port, incarnation });
                Vec::new()
            }
            Outcome::Held | Outcome::Swallowed => Vec::new(),
        };
        let header = Header { flags: header.flags.without(Flags::COMPRESSION), ..header };
        let frames =
            told.iter().flat_map(|&(change, address)| encode_frame(header, &Event::Node { change, address }.encode()));
        Verdict::Replace(frames.collect())
    }

    fn supported(&mut self, header: Header, body: &[u8], work: &mut Work<'_>) -> Verdict {
        let without = match self.short(header, body, work) {
            Ok(body) => supported_as_told(&body, self.exchange.offer.is_made()),
            Err(verdict) => return verdict,
        };
        self.exchange.answer(header);
        let Some(body) = without else { return Verdict::Pass };
        let flags = header.flags.without(Flags::COMPRESSION);
        let frame = encode_frame(Header { flags, ..header }, &body);
        match self.compression(header) {
            Ok(Some(compression)) => self.recompressed(compression, frame),
            _ => Verdict::Replace(frame),
        }
    }

    fn ready(&mut self, header: Header) -> Verdict {
        let exchange = &mut *self.exchange;
        exchange.answer(header);
        if let Some(control) = &mut exchange.control
            && control.registration.ready(header.stream)
        {
            exchange.facts.push(Fact::Registered(control.registration.in_force()));
        }
        Verdict::Pass
    }

    fn error(&mut self, header: Header, body: &[u8], work: &mut Work<'_>) -> Verdict {
        if !self.exchange.client.logged_in {
            let body = match self.short(header, body, work) {
                Ok(body) => body,
                Err(verdict) => return verdict,
            };
            let start = MessageStart::of_response().find(header.flags, &body).unwrap_or(usize::MAX);
            if let Ok(code) = Reader::new(body.get(start..).unwrap_or_default()).i32("ERROR code") {
                self.exchange.facts.push(Fact::LoginRefused { code });
            }
        }
        if let (Answer::Of(_), Some(control)) = (self.exchange.answer(header), &mut self.exchange.control) {
            control.registration.refused(header.stream);
        }
        Verdict::Pass
    }

    fn let_in(&mut self, header: Header) -> Verdict {
        if !std::mem::replace(&mut self.exchange.client.logged_in, true) {
            self.exchange.facts.push(Fact::LoggedIn);
        }
        self.pass(header)
    }
}

impl Judge for ResponseJudge<'_> {
    #[inline]
    fn judge(&mut self, header: Header, body: &[u8], work: &mut Work<'_>) -> Verdict {
        if !self.exchange.around.rewriting {
            return self.pass(header);
        }
        match header.opcode {
            Opcode::RESULT => self.result(header, body, work),
            Opcode::EVENT => self.event(header, body, work),
            Opcode::SUPPORTED => self.supported(header, body, work),
            Opcode::READY => self.ready(header),
            Opcode::ERROR => self.error(header, body, work),
            Opcode::AUTH_SUCCESS => self.let_in(header),
            _ => self.pass(header),
        }
    }

    #[inline]
    fn refuse(&self, header: Header) -> Option<Failure> {
        if !header.is_response() {
            return Some(Why::WrongDirection.into());
        }
        if header.length > self.exchange.around.max_body {
            return Some(Why::FrameTooLong.into());
        }
        let is_small = matches!(header.opcode, Opcode::EVENT | Opcode::SUPPORTED)
            || (header.opcode == Opcode::ERROR && !self.exchange.client.logged_in);
        (is_small && header.length > MAX_SMALL).then(|| Why::HeldFrameTooLong.into())
    }

    fn held_limit(&self) -> usize {
        self.exchange.around.held_frame
    }

    fn passes_corrupt_payload(&self) -> bool {
        false
    }
}

/// SUPPORTED without the keys that make ScyllaDB's drivers dial a port of the node (scylla `network/connection.rs`), and with what the
/// gateway offers by itself; `None` when nothing is to change.
pub(super) fn supported_as_told(body: &[u8], offers: bool) -> Option<Vec<u8>> {
    const KEYS: [&str; 2] = ["SCYLLA_SHARD_AWARE_PORT", "SCYLLA_SHARD_AWARE_PORT_SSL"];
    let without = message::supported_without(body, &KEYS).ok().flatten();
    let offered = offers.then(|| graceful_disconnect::offered(without.as_deref().unwrap_or(body))).flatten();
    offered.or(without)
}
