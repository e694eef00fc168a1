//! A RESULT: which table it is of, and what follows from that.

use std::sync::Arc;

use super::{ResponseJudge, Verdict};
use crate::cql::compression::{Compression, Decoded, Decoder};
use crate::cql::frame::{Flags, HEADER_LEN, Header, Opcode, encode_frame};
use crate::cql::message::{self, MessageStart, error_code};
use crate::cql::primitives::DecodeError;
use crate::cql::rows::{self, Prepared, ResultKind, TableOf, Usual};
use crate::rewrite::fact::Fact;
use crate::rewrite::streams::{Answer, Note};
use crate::rewrite::system_tables::{self, Made, Perspective, RowsRewrite};
use crate::rewrite::{Failure, Why, Work};

/// Decoded bytes of a compressed RESULT that tell its table, in all but strange cases.
const START: usize = 256;
/// A PREPARED answer longer than this teaches nothing.
const MAX_PREPARED: usize = 32 * 1024;
/// A RESULT so far.
#[derive(Debug)]
pub(super) struct Looked {
    start: MessageStart,
    /// Of a compressed body.
    decoder: Option<Decoder>,
    /// What its start says, once it does.
    says: Option<Says>,
    /// The rewriting of a system table's rows, once it has begun, and whose answer they are.
    rewrite: Option<RowsRewrite>,
    answer: Answer,
    /// A change of the schema: it is to be told late.
    late: bool,
}

/// What the start of a RESULT's body says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Ordinary,
    /// Rows without metadata.
    Nameless,
    /// Only the whole of it says.
    PerColumn,
    System,
    Prepared,
    SchemaChange,
}

impl Looked {
    /// Bytes that are held here.
    pub(super) fn held_bytes(&self) -> usize {
        self.decoder.as_ref().map_or(0, |decoder| decoder.decoded().len())
            + self.rewrite.as_ref().map_or(0, RowsRewrite::held_bytes)
    }
}

impl Default for Looked {
    fn default() -> Self {
        Self {
            start: MessageStart::of_response(),
            decoder: None,
            says: None,
            rewrite: None,
            answer: Answer::Unclear,
            late: false,
        }
    }
}

impl ResponseJudge<'_> {
    #[inline]
    pub(super) fn result(&mut self, header: Header, body: &[u8], work: &mut Work<'_>) -> Verdict {
        if self.responses.looked.is_none() && header.flags == Flags::default() {
            match usual(header.flags, body) {
                Some(Says::Ordinary) => return self.ordinary(header),
                Some(Says::Nameless) => return self.nameless(header),
                _ => {}
            }
        }
        self.unusual(header, body, work)
    }

    #[inline(never)]
    fn unusual(&mut self, header: Header, body: &[u8], work: &mut Work<'_>) -> Verdict {
        let compression = match self.compression(header) {
            Ok(compression) => compression,
            Err(failure) => return Verdict::Fail(failure),
        };
        let mut looked = self.responses.looked.take().map_or_else(Looked::default, |looked| *looked);
        let verdict = match compression {
            _ if looked.late => Verdict::Pass,
            None => {
                let is_whole = body.len() == header.length as usize;
                self.decoded(&mut looked, header, (body, is_whole, header.length as usize), work)
            }
            Some(compression) => {
                let mut decoder = looked.decoder.take().unwrap_or_else(|| Decoder::new(compression));
                let verdict = self.compressed(&mut looked, &mut decoder, header, body, work);
                looked.decoder = Some(decoder);
                verdict
            }
        };
        let verdict = if looked.late { self.tell_late(header, body) } else { verdict };
        if matches!(verdict, Verdict::Need(_) | Verdict::Later) {
            self.responses.looked = Some(Box::new(looked));
        }
        verdict
    }

    /// A change of the schema, whole when its last byte is there: it is kept as it came.
    fn tell_late(&mut self, header: Header, body: &[u8]) -> Verdict {
        if body.len() < header.length as usize {
            return Verdict::Need(header.length as usize);
        }
        self.exchange.keep_schema_change(header, body);
        Verdict::Replace(Vec::new())
    }

    /// A compressed RESULT is decoded no further than what it says is known; whole when that must be rewritten.
    fn compressed(
        &mut self,
        looked: &mut Looked,
        decoder: &mut Decoder,
        header: Header,
        body: &[u8],
        work: &mut Work<'_>,
    ) -> Verdict {
        let is_whole = body.len() == header.length as usize;
        let mut wanted = START;
        loop {
            if decoder.decoded().len() < wanted.min(decoder.declared().unwrap_or(wanted)) {
                if wanted > self.exchange.around.held_frame {
                    return Verdict::Fail(Why::HeldFrameTooLong.into());
                }
                match work.decode(decoder, body, is_whole, wanted) {
                    Ok(Decoded::NeedInput) if !is_whole => {}
                    Ok(Decoded::NeedInput) | Err(_) => return Verdict::Fail(Why::Compression.into()),
                    Ok(_) => {}
                }
            }
            let length = decoder.declared().unwrap_or(usize::MAX);
            let decoded = decoder.decoded();
            let verdict = self.decoded(looked, header, (decoded, decoded.len() == length, length), work);
            let Verdict::Need(more) = verdict else {
                return match verdict {
                    Verdict::Replace(frame) => self.recompressed(decoder.compression(), frame),
                    verdict => verdict,
                };
            };
            if looked.says.is_some() && !is_whole {
                return Verdict::Need(header.length as usize);
            }
            if decoder.decoded().len() < wanted.min(length) {
                // Either the input ended, or the work of this turn.
                return if work.is_used_up() { Verdict::Later } else { Verdict::Need(body.len() + 1) };
            }
            wanted = more;
        }
    }

    /// A RESULT of which `bytes` are there, decompressed, out of `length`; `Need` counts these.
    fn decoded(
        &mut self,
        looked: &mut Looked,
        header: Header,
        (bytes, is_whole, length): (&[u8], bool, usize),
        work: &mut Work<'_>,
    ) -> Verdict {
        let says = match looked.says {
            Some(says) => says,
            None => match says(&mut looked.start, header.flags, bytes) {
                Ok(says) => says,
                Err(error) if !is_whole && error.is_truncated() => return Verdict::Need(bytes.len() + error.missing()),
                Err(_) => return Verdict::Fail(Why::Malformed.into()),
            },
        };
        let wants_whole = match says {
            Says::System | Says::PerColumn => true,
            Says::Prepared => length <= MAX_PREPARED,
            Says::Ordinary | Says::Nameless | Says::SchemaChange => false,
        };
        if wants_whole && !is_whole {
            looked.says = Some(says);
            return if length > self.exchange.around.held_frame {
                Verdict::Fail(Why::HeldFrameTooLong.into())
            } else {
                Verdict::Need(length)
            };
        }
        match says {
            Says::System => {
                looked.says = Some(says);
                self.system(looked, header, bytes, work)
            }
            Says::PerColumn => self.per_column(looked, header, bytes),
            Says::Prepared => {
                if wants_whole {
                    self.learn_prepared(looked, header, bytes);
                }
                self.pass(header)
            }
            Says::Nameless => self.nameless(header),
            Says::SchemaChange if self.exchange.tells_late(header) => {
                looked.late = true;
                Verdict::Pass
            }
            Says::Ordinary | Says::SchemaChange => self.ordinary(header),
        }
    }

    #[inline]
    fn nameless(&mut self, header: Header) -> Verdict {
        match self.exchange.answer(header) {
            Answer::Of(Note::Skipping) => Verdict::Pass,
            _ => Verdict::Fail(Why::MetadataMissing.into()),
        }
    }

    #[inline]
    fn ordinary(&mut self, header: Header) -> Verdict {
        let statement = self.exchange.streams.statement(header.stream);
        if let (Answer::Of(Note::Described), Some(statement)) = (self.exchange.answer(header), statement) {
            self.exchange.around.statements.learn(&statement);
        }
        Verdict::Pass
    }

    /// Of a result of which not all is known to be ordinary nothing is let through.
    fn per_column(&mut self, looked: &mut Looked, header: Header, body: &[u8]) -> Verdict {
        let message = looked.start.find(header.flags, body).ok().and_then(|offset| body.get(offset..));
        match message.map(rows::table_of_whole) {
            Some(Ok(TableOf::Table { keyspace, table })) if !system_tables::is_rewritten(keyspace, table) => {
                self.ordinary(header)
            }
            Some(Ok(TableOf::NoColumns)) => self.ordinary(header),
            _ => Verdict::Fail(Why::Malformed.into()),
        }
    }

    /// Rows of a system table, there whole.
    fn system(&mut self, looked: &mut Looked, header: Header, body: &[u8], work: &mut Work<'_>) -> Verdict {
        let mut rewrite = match looked.rewrite.take() {
            Some(rewrite) => rewrite,
            None => {
                looked.answer = self.exchange.answer(header);
                match self.begin(looked.answer, header, body, work) {
                    Ok(rewrite) => rewrite,
                    Err(failure) => return Verdict::Fail(failure),
                }
            }
        };
        let made = match rewrite.go_on(body, work) {
            Ok(Some(made)) => made,
            Ok(None) => {
                looked.rewrite = Some(rewrite);
                return Verdict::Later;
            }
            Err(reason) => {
                self.exchange.facts.push(Fact::Unrewritable(reason));
                return Verdict::Fail(Why::Unrewritable.into());
            }
        };
        let plain = looked.answer.is_plain();
        let report = rewrite.into_report(&made);
        if let Some(control) = self.exchange.control.as_deref_mut() {
            control.announcer.kept(report.kept.iter().filter_map(|row| row.address));
        }
        self.exchange.facts.push(Fact::Rewrote { report: Box::new(report), plain });
        match made {
            Made::Unchanged => Verdict::Pass,
            Made::Frame(frame) => Verdict::Replace(frame),
            Made::Refused(text) => {
                let body = message::Error { code: error_code::INVALID, message: &text }.encode();
                let header = Header { opcode: Opcode::ERROR, flags: Flags::default(), ..header };
                Verdict::Replace(encode_frame(header, &body))
            }
        }
    }

    fn begin(
        &mut self,
        answer: Answer,
        header: Header,
        body: &[u8],
        work: &mut Work<'_>,
    ) -> Result<RowsRewrite, Failure> {
        let topology = (self.exchange.around.topology)();
        let client = &self.exchange.client;
        let path = topology.paths.named(&client.path).ok_or(Why::Unrewritable)?;
        let path = Arc::clone(path);
        let injection = if answer.is_to_query() { client.injection } else { Default::default() };
        let perspective = Perspective {
            view: client.view,
            topology,
            attached: client.attached,
            path,
            family: client.family,
            injection,
            is_plain: answer.is_plain(),
            unserved: self.exchange.around.unserved,
        };
        RowsRewrite::begin(header, body, perspective, work).map_err(|reason| {
            self.exchange.facts.push(Fact::Unrewritable(reason));
            Why::Unrewritable.into()
        })
    }

    /// A rewritten frame, compressed again as the node's was.
    pub(super) fn recompressed(&self, compression: Compression, frame: Vec<u8>) -> Verdict {
        let Some(header) = Header::peek(&frame).filter(|header| header.opcode != Opcode::ERROR) else {
            return Verdict::Replace(frame);
        };
        match compression.compress(frame.get(HEADER_LEN..).unwrap_or_default()) {
            Ok(body) => {
                let flags = Flags(header.flags.0 | Flags::COMPRESSION);
                Verdict::Replace(encode_frame(Header { flags, ..header }, &body))
            }
            Err(_) => Verdict::Replace(frame),
        }
    }

    /// A statement whose result columns are of an ordinary table, or that has none, is ordinary: the frame names the statement
    /// and the table, whoever asked.
    fn learn_prepared(&self, looked: &mut Looked, header: Header, body: &[u8]) {
        let Ok(offset) = looked.start.find(header.flags, body) else { return };
        let message = body.get(offset..).unwrap_or_default();
        let Ok(prepared) = Prepared::parse(self.exchange.client.session.version, message) else { return };
        let ordinary = match prepared.result_table {
            TableOf::Table { keyspace, table } => !system_tables::is_rewritten(keyspace, table),
            TableOf::NoColumns => true,
            TableOf::NoMetadata | TableOf::PerColumn | TableOf::Several | TableOf::NotRows(_) => false,
        };
        if ordinary {
            self.exchange.around.statements.learn(prepared.id);
        }
    }
}

/// What nearly all answers are: a Rows result in a usual shape, of another keyspace or without metadata.
#[inline]
fn usual(flags: Flags, body: &[u8]) -> Option<Says> {
    if flags.without(Flags::COMPRESSION) != Flags::default() {
        return None;
    }
    match rows::usual(body)? {
        Usual::Keyspace(keyspace) => (keyspace != system_tables::KEYSPACE.as_bytes()).then_some(Says::Ordinary),
        Usual::NoMetadata => Some(Says::Nameless),
    }
}

/// What a RESULT is about. `Truncated` while the bytes that tell have not arrived.
fn says(start: &mut MessageStart, flags: Flags, body: &[u8]) -> Result<Says, DecodeError> {
    if let Some(says) = usual(flags, body) {
        return Ok(says);
    }
    let offset = start.find(flags, body)?;
    Ok(match rows::table_of(body.get(offset..).unwrap_or_default())? {
        TableOf::Table { keyspace, table } if system_tables::is_rewritten(keyspace, table) => Says::System,
        TableOf::PerColumn | TableOf::Several => Says::PerColumn,
        TableOf::Table { .. } | TableOf::NoColumns => Says::Ordinary,
        TableOf::NoMetadata => Says::Nameless,
        TableOf::NotRows(ResultKind::Prepared) => Says::Prepared,
        TableOf::NotRows(ResultKind::SchemaChange) => Says::SchemaChange,
        TableOf::NotRows(_) => Says::Ordinary,
    })
}
