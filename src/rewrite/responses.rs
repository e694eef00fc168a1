//! What happens to a node's responses. Every RESULT is asked which table it names; those of the three tables that carry
//! addresses are held and rewritten, and every EVENT is. All others pass as they arrive.
//!
//! A system table's raw bytes never pass: what cannot be rewritten ends the connection.

use std::net::{IpAddr, SocketAddr};

use super::conversation::{Fact, Surroundings};
use super::events::{Announcer, Outcome};
use super::requests::{is_compressed, missing};
use super::streams::{Note, Streams};
use super::system_tables::{self, Perspective, Rewritten};
use super::view::View;
use super::view::drivers::Injection;
use super::walk::{Judge, Rewrite, Verdict};
use super::{Failure, Why};
use crate::cql::compression::{Compression, Prefix};
use crate::cql::frame::{Flags, HEADER_LEN, Header, Opcode, encode_frame};
use crate::cql::message::{self, Event, error_code};
use crate::cql::primitives::DecodeError;
use crate::cql::rows::{self, Prepared, ResultKind, TableOf};
use crate::cql::session::Session;
use crate::topology::{Node, Topology};

/// Decoded bytes of a compressed RESULT that tell its table, in all but strange cases.
const PREFIX: usize = 256;
/// A PREPARED answer longer than this teaches nothing.
const MAX_PREPARED: u32 = 64 * 1024;
/// An EVENT or SUPPORTED is short; a longer one is not one.
const MAX_SMALL: u32 = 64 * 1024;

/// The judge of one step in the direction node → client.
pub struct Responses<'a> {
    pub session: Session,
    pub around: &'a Surroundings,
    pub view: &'a dyn View,
    /// The port, and so the node, that this connection is attached to.
    pub attached: u16,
    /// The local address that the client connected to: its family chooses the advertised one.
    pub family: IpAddr,
    /// The columns that the driver profits from.
    pub injection: Injection,
    pub streams: &'a mut Streams,
    pub announcer: Option<&'a mut Announcer>,
    pub facts: &'a mut Vec<Fact>,
    pub answered: &'a mut u64,
}

/// What the start of a RESULT's body says.
enum Says {
    Ordinary,
    /// Rows without metadata.
    Nameless,
    System,
    Prepared,
}

impl Responses<'_> {
    fn pass(&mut self, header: Header) -> Verdict {
        self.answer(header);
        Verdict::Pass
    }

    /// Counts the answer and takes what was noted of its stream.
    fn answer(&mut self, header: Header) -> (bool, Option<Note>) {
        if header.stream < 0 {
            return (false, None);
        }
        *self.answered += 1;
        self.streams.answered(header.stream)
    }

    fn result(&mut self, header: Header, body: &[u8]) -> Verdict {
        let whole = body.len() == header.length as usize;
        let says = if is_compressed(header, self.session.version) {
            match self.compressed_says(header, body, whole) {
                Ok(says) => says,
                Err(verdict) => return verdict,
            }
        } else {
            match says(header.flags, body) {
                Ok(says) => says,
                Err(error) if !whole && error.is_truncated() => return Verdict::More(body.len() + missing(error)),
                Err(_) => return Verdict::Fail(Why::Malformed.into()),
            }
        };
        match says {
            Says::System => Verdict::Hold,
            Says::Prepared if header.length <= MAX_PREPARED => Verdict::Hold,
            Says::Prepared => self.pass(header),
            Says::Nameless => match self.answer(header) {
                (_, Some(Note::Execute(_))) => Verdict::Fail(Why::MetadataMissing.into()),
                _ => Verdict::Pass,
            },
            Says::Ordinary => {
                if let (_, Some(Note::Execute(statement))) = self.answer(header) {
                    self.around.statements.learn(&statement);
                }
                Verdict::Pass
            }
        }
    }

    fn compressed_says(&mut self, header: Header, body: &[u8], whole: bool) -> Result<Says, Verdict> {
        let Some(compression) = self.session.compression else {
            return Err(Verdict::Fail(Why::Compression.into()));
        };
        if body.is_empty() && !whole {
            return Err(Verdict::More(1));
        }
        let mut start = [0; PREFIX];
        match self.start_says(compression, header, body, whole, &mut start)? {
            Some(says) => Ok(says),
            None => self.long_start_says(compression, header, body, whole),
        }
    }

    /// What the decoded start of a body says; `None` when `start` is too short to tell.
    fn start_says(
        &self,
        compression: Compression,
        header: Header,
        body: &[u8],
        whole: bool,
        start: &mut [u8],
    ) -> Result<Option<Says>, Verdict> {
        let prefix = compression.decompress_prefix(body, start).map_err(|_| Verdict::Fail(Why::Compression.into()))?;
        match (says(header.flags, start.get(..prefix.written()).unwrap_or_default()), prefix) {
            (Ok(says), _) => Ok(Some(says)),
            (Err(DecodeError::Truncated { .. }), Prefix::Full { .. }) => Ok(None),
            (Err(DecodeError::Truncated { .. }), Prefix::NeedInput { .. }) if !whole => {
                Err(Verdict::More(body.len() + 1))
            }
            (Err(_), _) => Err(Verdict::Fail(Why::Malformed.into())),
        }
    }

    /// Warnings or a custom payload come first and are long: decode further and further.
    fn long_start_says(
        &self,
        compression: Compression,
        header: Header,
        body: &[u8],
        whole: bool,
    ) -> Result<Says, Verdict> {
        let mut len = 16 * PREFIX;
        while len <= self.around.held_frame {
            if let Some(says) = self.start_says(compression, header, body, whole, &mut vec![0; len])? {
                return Ok(says);
            }
            len *= 4;
        }
        Err(Verdict::Fail(Why::HeldFrameTooLong.into()))
    }

    /// The frame with its body decompressed, and the header that says so.
    fn decompressed(&self, header: Header, frame: &[u8]) -> Result<(Header, Option<Vec<u8>>), Failure> {
        if !is_compressed(header, self.session.version) {
            return Ok((header, None));
        }
        let compression = self.session.compression.ok_or(Why::Compression)?;
        let body = frame.get(HEADER_LEN..).unwrap_or_default();
        let body = compression.decompress(body, self.around.held_frame).map_err(|_| Why::Compression)?;
        let header = Header { flags: header.flags.without(Flags::COMPRESSION), ..header };
        let frame = encode_frame(header, &body);
        Ok((Header::peek(&frame).unwrap_or(header), Some(frame)))
    }

    /// A rewritten frame, compressed again where the node's was.
    fn recompressed(&self, original: Header, frame: Vec<u8>) -> Rewrite {
        if !is_compressed(original, self.session.version) {
            return Rewrite::Frame(frame);
        }
        let (Some(compression), Some(header)) = (self.session.compression, Header::peek(&frame)) else {
            return Rewrite::Frame(frame);
        };
        let Ok(body) = compression.compress(frame.get(HEADER_LEN..).unwrap_or_default()) else {
            return Rewrite::Frame(frame);
        };
        let flags = Flags(header.flags.0 | Flags::COMPRESSION);
        Rewrite::Frame(encode_frame(Header { flags, ..header }, &body))
    }

    fn rewrite_result(&mut self, original: Header, frame: &[u8]) -> Result<Rewrite, Failure> {
        let (header, decompressed) = self.decompressed(original, frame)?;
        let frame = decompressed.as_deref().unwrap_or(frame);
        let body = frame.get(HEADER_LEN..).unwrap_or_default();
        match says(header.flags, body).map_err(|_| Why::Malformed)? {
            Says::Prepared => {
                self.answer(header);
                self.learn_prepared(header, body);
                return Ok(Rewrite::Keep);
            }
            Says::Ordinary | Says::Nameless => return Ok(Rewrite::Keep),
            Says::System => {}
        }
        let (query, note) = self.answer(header);
        let injection = if query { self.injection } else { Injection::default() };
        let topology = (self.around.topology)();
        let perspective = self.perspective(&topology, injection)?;
        let report = system_tables::rewrite_rows(frame, &perspective).map_err(|reason| {
            self.facts.push(Fact::Unrewritable(reason));
            Why::Unrewritable
        })?;
        let rewritten = match report.rewritten {
            Rewritten::Unchanged => Rewrite::Keep,
            Rewritten::Frame(ref frame) => self.recompressed(original, frame.clone()),
            Rewritten::Refused(ref text) => {
                let body = message::Error { code: error_code::INVALID, message: text }.encode();
                let header = Header { opcode: Opcode::ERROR, flags: Flags::default(), ..header };
                Rewrite::Frame(encode_frame(header, &body))
            }
        };
        self.facts.push(Fact::Rewrote { report: Box::new(report), plain: note == Some(Note::PlainSelection) });
        Ok(rewritten)
    }

    fn perspective<'t>(&'t self, topology: &'t Topology, injection: Injection) -> Result<Perspective<'t>, Failure> {
        let advertised = topology.advertised.for_family(self.family).ok_or(Why::Unrewritable)?;
        Ok(Perspective { view: self.view, topology, attached: self.attached, advertised, injection })
    }

    /// A statement whose result columns are of an ordinary table, or that has none, is ordinary.
    fn learn_prepared(&mut self, header: Header, body: &[u8]) {
        let Ok(offset) = rows::message_offset(header.flags, body) else { return };
        let message = body.get(offset..).unwrap_or_default();
        let Ok(prepared) = Prepared::parse(self.session.version, message) else { return };
        let ordinary = match prepared.result_table {
            TableOf::Table { keyspace, table } => !system_tables::is_rewritten(keyspace, table),
            TableOf::NoColumns => true,
            TableOf::NoMetadata | TableOf::Several | TableOf::NotRows(_) => false,
        };
        if ordinary {
            self.around.statements.learn(prepared.id);
        }
    }

    fn rewrite_event(&mut self, original: Header, frame: &[u8]) -> Result<Rewrite, Failure> {
        let (_, decompressed) = self.decompressed(original, frame)?;
        let frame = decompressed.as_deref().unwrap_or(frame);
        let body = frame.get(HEADER_LEN..).unwrap_or_default();
        let event = Event::parse(body).map_err(|_| Why::Malformed)?;
        if matches!(event, Event::Schema { .. } | Event::Unknown { .. }) {
            self.facts.push(Fact::passed(&event));
            return Ok(Rewrite::Keep);
        }
        let topology = (self.around.topology)();
        let (Some(announcer), Some(advertised)) =
            (self.announcer.as_deref_mut(), topology.advertised.for_family(self.family))
        else {
            return Ok(Rewrite::Drop);
        };
        let outcome = announcer.on_event(&event, &topology, told_as(self.view, self.attached, advertised));
        self.facts.push(Fact::event(&event, &outcome));
        let Outcome::Tell(told) = outcome else { return Ok(Rewrite::Drop) };
        let header = Header { flags: original.flags.without(Flags::COMPRESSION), ..original };
        let frames =
            told.iter().flat_map(|&(change, address)| encode_frame(header, &Event::Node { change, address }.encode()));
        Ok(Rewrite::Frame(frames.collect()))
    }

    fn rewrite_supported(&mut self, original: Header, frame: &[u8]) -> Result<Rewrite, Failure> {
        self.answer(original);
        let (header, decompressed) = self.decompressed(original, frame)?;
        let frame = decompressed.as_deref().unwrap_or(frame);
        Ok(match without_shard_aware_ports(frame.get(HEADER_LEN..).unwrap_or_default()) {
            None => Rewrite::Keep,
            Some(body) => self.recompressed(original, encode_frame(header, &body)),
        })
    }
}

impl Judge for Responses<'_> {
    fn judge(&mut self, header: Header, body: &[u8]) -> Verdict {
        if !self.around.rewriting {
            return self.pass(header);
        }
        match header.opcode {
            Opcode::RESULT => self.result(header, body),
            Opcode::EVENT | Opcode::SUPPORTED if header.length > MAX_SMALL => {
                Verdict::Fail(Why::HeldFrameTooLong.into())
            }
            Opcode::EVENT | Opcode::SUPPORTED => Verdict::Hold,
            _ => self.pass(header),
        }
    }

    fn rewrite(&mut self, header: Header, frame: &[u8]) -> Rewrite {
        let rewrite = match header.opcode {
            Opcode::EVENT => self.rewrite_event(header, frame),
            Opcode::SUPPORTED => self.rewrite_supported(header, frame),
            _ => self.rewrite_result(header, frame),
        };
        rewrite.unwrap_or_else(Rewrite::Fail)
    }

    fn refuse(&self, header: Header) -> Option<Failure> {
        if !header.is_response() {
            return Some(Why::WrongDirection.into());
        }
        (header.length > self.around.max_body).then(|| Why::FrameTooLong.into())
    }

    fn held_limit(&self) -> usize {
        self.around.held_frame
    }

    fn passes_corrupt_payload(&self) -> bool {
        false
    }
}

/// How a View tells of a node in events; `None` when it does not.
pub(super) fn told_as(view: &dyn View, attached: u16, advertised: IpAddr) -> impl Fn(&Node) -> Option<SocketAddr> + '_ {
    move |node| view.tells_of(node, attached).then(|| view.endpoint(node, advertised))
}

/// What a RESULT is about. `Truncated` while the bytes that tell have not arrived.
#[inline]
fn says(flags: Flags, body: &[u8]) -> Result<Says, DecodeError> {
    let begins_with_message = flags.without(Flags::COMPRESSION) == Flags::default();
    if begins_with_message && rows::usual_keyspace(body).is_some_and(|it| it != system_tables::KEYSPACE.as_bytes()) {
        return Ok(Says::Ordinary);
    }
    let offset = rows::message_offset(flags, body)?;
    let message = body.get(offset..).unwrap_or_default();
    Ok(match rows::table_of(message)? {
        TableOf::Table { keyspace, table } if system_tables::is_rewritten(keyspace, table) => Says::System,
        // A result of which not all is known to be ordinary is not let through as such.
        TableOf::Several => return Err(DecodeError::Malformed { what: "columns of several tables" }),
        TableOf::Table { .. } | TableOf::NoColumns => Says::Ordinary,
        TableOf::NoMetadata => Says::Nameless,
        TableOf::NotRows(ResultKind::Prepared) => Says::Prepared,
        TableOf::NotRows(_) => Says::Ordinary,
    })
}

/// SUPPORTED without the keys that make ScyllaDB's drivers dial a port of the node (scylla `network/connection.rs`); `None`
/// when they are not in it.
pub(super) fn without_shard_aware_ports(body: &[u8]) -> Option<Vec<u8>> {
    const KEYS: [&str; 2] = ["SCYLLA_SHARD_AWARE_PORT", "SCYLLA_SHARD_AWARE_PORT_SSL"];
    message::supported_without(body, &KEYS).ok().flatten()
}
