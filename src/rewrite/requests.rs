//! What happens to a client's requests: nearly all pass.
//!
//! Three things are looked at. An answer that is asked to skip its metadata names no table, so the flag is cleared unless the
//! statement is known to be ordinary. REGISTER makes the connection a control connection. The beginning of a QUERY says
//! whether its answer can be learned from.

use std::ops::Range;

use super::conversation::{Fact, Surroundings};
use super::events::RegisteredTypes;
use super::plain_selection;
use super::streams::Streams;
use super::walk::{Clear, Judge, Rewrite, Verdict};
use super::{Failure, Why};
use crate::cql::compression::{Compression, Prefix};
use crate::cql::frame::{EVENT_STREAM, Flags, HEADER_LEN, Header, Opcode, Version, encode_frame};
use crate::cql::message::request::{self, flag::SKIP_METADATA};
use crate::cql::message::{Register, error_code};
use crate::cql::primitives::{DecodeError, Reader};
use crate::cql::session::Session;

/// Decoded bytes of a compressed request that tell what it asks, if its text is short.
const PREFIX: usize = 512;

/// The judge of one step in the direction client → node.
pub struct Requests<'a> {
    pub session: Session,
    pub around: &'a Surroundings,
    pub streams: &'a mut Streams,
    pub facts: &'a mut Vec<Fact>,
    pub sent: &'a mut u64,
    pub answered: u64,
    /// Answers to QUERY may get columns injected, so they are remembered.
    pub notes_queries: bool,
}

impl Requests<'_> {
    /// Requests that are counted: every frame with a stream of the client's.
    fn pass(&mut self, header: Header) -> Verdict {
        *self.sent += 1;
        self.streams.reuse(header.stream);
        Verdict::Pass
    }

    fn query(&mut self, header: Header, body: &[u8]) -> Verdict {
        let head = match query_head(header.flags, header.length as usize, self.session.version, body) {
            Ok(head) => head,
            Err(error) if is_partial(header, body) && error.is_truncated() => {
                return Verdict::More(body.len() + missing(error));
            }
            Err(_) => return self.pass_query(header, &[]),
        };
        if head.text.end <= plain_selection::LOOK && head.text.end > body.len() {
            return Verdict::More(head.text.end);
        }
        self.pass_query(header, head.text_in(body));
        clear_skip(body, head.flags)
    }

    /// A QUERY passes, whose text is this if it is short.
    fn pass_query(&mut self, header: Header, text: &[u8]) -> Verdict {
        let passed = self.pass(header);
        if self.notes_queries {
            self.streams.note_query(header.stream);
        }
        if plain_selection::is_plain(text)
            && let Some(others) = self.sent.checked_sub(self.answered + 1)
        {
            self.streams.note_plain_selection(header.stream, others);
        }
        passed
    }

    fn execute(&mut self, header: Header, body: &[u8]) -> Verdict {
        let (id, offset, skips) = match execute_head(header, self.session.version, body) {
            Ok(head) => head,
            Err(error) if is_partial(header, body) && error.is_truncated() => {
                return Verdict::More(body.len() + missing(error));
            }
            Err(_) => return self.pass(header),
        };
        self.pass(header);
        if !skips || self.around.statements.contains(id) {
            return Verdict::Pass;
        }
        if let Ok(id) = id.try_into() {
            self.streams.note_execute(header.stream, id);
        }
        self.facts.push(Fact::Redescribed);
        clear_skip(body, offset)
    }

    /// QUERY or EXECUTE whose body is compressed: its start is decoded, as far as the flags; it is held whole only when they
    /// must change.
    fn compressed(&mut self, header: Header, body: &[u8]) -> Verdict {
        let Some(compression) = self.session.compression else { return self.pass(header) };
        if body.is_empty() && is_partial(header, body) {
            return Verdict::More(1);
        }
        let mut len = PREFIX;
        let mut verdict = self.compressed_start(compression, header, body, &mut [0; PREFIX]);
        while let Err(needed) = verdict {
            if needed > self.around.held_frame {
                return Verdict::Fail(self.too_long_to_hold(header));
            }
            len = needed.max(4 * len).min(self.around.held_frame);
            verdict = self.compressed_start(compression, header, body, &mut vec![0; len]);
        }
        verdict.unwrap_or_else(|_| self.pass(header))
    }

    /// The verdict by the decoded start of a body, or how much longer than `start` it must be.
    fn compressed_start(
        &mut self,
        compression: Compression,
        header: Header,
        body: &[u8],
        start: &mut [u8],
    ) -> Result<Verdict, usize> {
        let Ok(prefix) = compression.decompress_prefix(body, start) else { return Ok(self.pass(header)) };
        let decoded = start.get(..prefix.written()).unwrap_or_default();
        let needed = if header.opcode == Opcode::EXECUTE {
            match execute_head(header, self.session.version, decoded) {
                Ok((id, _, skips)) if skips && !self.around.statements.contains(id) => return Ok(Verdict::Hold),
                Ok(_) => return Ok(self.pass(header)),
                Err(error) => decoded.len().saturating_add(missing(error)),
            }
        } else {
            let length = compression.declared_len(body).unwrap_or(usize::MAX);
            match query_head(header.flags, length, self.session.version, decoded) {
                Ok(head) => match decoded.get(head.flags) {
                    Some(flags) if flags & SKIP_METADATA != 0 => return Ok(Verdict::Hold),
                    Some(_) => return Ok(self.pass_query(header, head.text_in(decoded))),
                    None => head.flags.saturating_add(1),
                },
                Err(error) => decoded.len().saturating_add(missing(error)),
            }
        };
        match prefix {
            // What has arrived is decoded again and again: it grows in proportion, so that this costs no more than once.
            Prefix::NeedInput { .. } if is_partial(header, body) => {
                let most = self.around.held_frame.saturating_sub(HEADER_LEN);
                Ok(Verdict::More((body.len() + body.len() / 4).min(most).max(body.len() + 1)))
            }
            Prefix::Full { .. } if needed > start.len() => Err(needed),
            // Malformed, if it is whole: the node will say so.
            _ => Ok(Verdict::Hold),
        }
    }

    /// A compressed request that may skip metadata, whole: decompressed, judged again, and sent on uncompressed if changed.
    fn rewrite_compressed(&mut self, header: Header, frame: &[u8]) -> Rewrite {
        let Some(compression) = self.session.compression else { return Rewrite::Keep };
        let body = frame.get(HEADER_LEN..).unwrap_or_default();
        let mut body = match compression.decompress(body, self.around.held_frame) {
            Ok(body) => body,
            Err(error) => return Rewrite::Fail(self.not_decompressed(header, error)),
        };
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let header = Header { flags: header.flags.without(Flags::COMPRESSION), length, ..header };
        match self.judge(header, &body) {
            Verdict::Clear(Clear { offset, bits }) => {
                if let Some(byte) = body.get_mut(offset as usize) {
                    *byte &= !bits;
                }
                Rewrite::Frame(encode_frame(header, &body))
            }
            Verdict::Fail(failure) => Rewrite::Fail(failure),
            _ => Rewrite::Keep,
        }
    }

    fn not_decompressed(&self, header: Header, error: DecodeError) -> Failure {
        match error {
            DecodeError::TooLong { .. } => self.too_long_to_hold(header),
            _ => Why::Compression.into(),
        }
    }

    fn register(&mut self, header: Header, frame: &[u8]) -> Rewrite {
        let body = frame.get(HEADER_LEN..).unwrap_or_default();
        let decompressed;
        let body = match self.session.compression.filter(|_| is_compressed(header, self.session.version)) {
            None => body,
            Some(compression) => match compression.decompress(body, self.around.held_frame) {
                Ok(body) => {
                    decompressed = body;
                    &decompressed
                }
                Err(error) => return Rewrite::Fail(self.not_decompressed(header, error)),
            },
        };
        let message = request::message_offset(header.flags, body).ok().and_then(|offset| body.get(offset..));
        if let Some(Ok(register)) = message.map(Register::parse) {
            self.facts.push(Fact::Registered(RegisteredTypes::of(&register)));
        }
        self.pass(header);
        Rewrite::Keep
    }
}

impl Judge for Requests<'_> {
    fn judge(&mut self, header: Header, body: &[u8]) -> Verdict {
        if !self.around.rewriting {
            return self.pass(header);
        }
        match header.opcode {
            Opcode::QUERY | Opcode::EXECUTE if is_compressed(header, self.session.version) => {
                self.compressed(header, body)
            }
            Opcode::QUERY => self.query(header, body),
            Opcode::EXECUTE => self.execute(header, body),
            Opcode::REGISTER => Verdict::Hold,
            _ => self.pass(header),
        }
    }

    fn rewrite(&mut self, header: Header, frame: &[u8]) -> Rewrite {
        match header.opcode {
            Opcode::REGISTER => self.register(header, frame),
            _ => self.rewrite_compressed(header, frame),
        }
    }

    fn refuse(&self, header: Header) -> Option<Failure> {
        if header.is_response() {
            return Some(Why::WrongDirection.into());
        }
        (header.length > self.around.max_body).then(|| {
            let text =
                format!("Frame body of {} bytes exceeds the maximum of {} bytes", header.length, self.around.max_body);
            Failure { why: Why::FrameTooLong, reply: Some(protocol_error(header, &text, self.session)) }
        })
    }

    fn too_long_to_hold(&self, header: Header) -> Failure {
        let text = format!(
            "cqlgate: a frame body of {} bytes must change before it is sent on, and is longer than the maximum of {} bytes, or \
             will be when it is decompressed (limits.held_frame)",
            header.length, self.around.held_frame
        );
        Failure { why: Why::HeldFrameTooLong, reply: Some(protocol_error(header, &text, self.session)) }
    }

    fn held_limit(&self) -> usize {
        self.around.held_frame
    }

    fn passes_corrupt_payload(&self) -> bool {
        true
    }
}

/// In v5 the flag means nothing, and Java driver 4 sets it all the same.
pub(super) fn is_compressed(header: Header, version: Version) -> bool {
    version != Version::V5 && header.flags.has(Flags::COMPRESSION)
}

fn is_partial(header: Header, body: &[u8]) -> bool {
    body.len() < header.length as usize
}

/// Where the parts of a QUERY's body are.
struct QueryHead {
    text: Range<usize>,
    /// The flags byte.
    flags: usize,
}

impl QueryHead {
    /// The text, if it is short; empty otherwise.
    fn text_in<'a>(&self, body: &'a [u8]) -> &'a [u8] {
        let short = self.text.end <= plain_selection::LOOK;
        body.get(self.text.clone()).filter(|_| short).unwrap_or_default()
    }
}

/// Known as soon as the text's length is: the text itself may be long.
fn query_head(flags: Flags, length: usize, version: Version, body: &[u8]) -> Result<QueryHead, DecodeError> {
    let start = request::message_offset(flags, body)?;
    let text = Reader::new(body.get(start..).unwrap_or_default()).count("QUERY text")?;
    let start = start.saturating_add(4);
    let end = start.saturating_add(text);
    let consistency_and_flags = if version >= Version::V5 { 2 + 3 } else { 2 };
    let flags = end.saturating_add(consistency_and_flags);
    if flags >= length {
        return Err(DecodeError::Malformed { what: "QUERY" });
    }
    Ok(QueryHead { text: start..end, flags })
}

/// An EXECUTE's prepared id, where in its body the flags byte is, and whether it asks to skip metadata.
fn execute_head(header: Header, version: Version, body: &[u8]) -> Result<(&[u8], usize, bool), DecodeError> {
    let start = request::message_offset(header.flags, body)?;
    let (id, flags) = request::execute_head(version, body.get(start..).unwrap_or_default())?;
    Ok((id, start + flags.offset, flags.skips_metadata()))
}

/// How many bytes more would make a truncated field whole.
pub(super) fn missing(error: DecodeError) -> usize {
    match error {
        DecodeError::Truncated { need, have, .. } => need.saturating_sub(have).max(1),
        _ => 0,
    }
}

/// `Clear` when the flags byte may ask for an answer without metadata, `Pass` when it is there and does not.
fn clear_skip(body: &[u8], offset: usize) -> Verdict {
    match (body.get(offset), u32::try_from(offset)) {
        (Some(flags), _) if flags & SKIP_METADATA == 0 => Verdict::Pass,
        (_, Ok(offset)) => Verdict::Clear(Clear { offset, bits: SKIP_METADATA }),
        (_, Err(_)) => Verdict::Pass,
    }
}

/// The protocol's own error for a frame that is too long, on the client's stream.
fn protocol_error(header: Header, text: &str, session: Session) -> Vec<u8> {
    let stream = if header.stream == EVENT_STREAM { 0 } else { header.stream };
    super::conversation::error_frame(session, stream, error_code::PROTOCOL_ERROR, text)
}
