//! The head of a QUERY or EXECUTE: its id or text, and the byte that asks to skip metadata. Found while the body arrives.

use std::ops::Range;

use super::plain_selection;
use crate::cql::compression::Decoder;
use crate::cql::frame::{Header, Opcode, Version};
use crate::cql::message::{MessageStart, request};
use crate::cql::primitives::{DecodeError, Reader};

/// What was found out about a statement that is not decided.
#[derive(Debug)]
pub struct Looked {
    pub start: MessageStart,
    /// Of a compressed body.
    pub decoder: Option<Decoder>,
}

impl Default for Looked {
    fn default() -> Self {
        Self { start: MessageStart::of_request(), decoder: None }
    }
}

/// Where the parts of a statement's body are.
#[derive(Debug)]
pub enum Head {
    Query {
        text: Range<usize>,
        /// The flags byte; it may not have arrived.
        flags: usize,
    },
    Execute {
        id: Range<usize>,
        flags: usize,
        skips: bool,
    },
}

/// What happens to Skip_metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    Stays,
    Cleared,
}

impl Head {
    pub fn flags(&self) -> usize {
        match self {
            Self::Query { flags, .. } | Self::Execute { flags, .. } => *flags,
        }
    }

    pub fn is_execute(&self) -> bool {
        matches!(self, Self::Execute { .. })
    }
}

impl Looked {
    /// Bytes that are held here.
    pub fn held_bytes(&self) -> usize {
        self.decoder.as_ref().map_or(0, |decoder| decoder.decoded().len())
    }
}

/// The head of a statement, from as much of its body as is there; it is `length` bytes long in the end.
///
/// # Errors
/// `Truncated` while not enough is there: the whole text of a QUERY only where that is short.
#[inline]
pub fn head(
    start: &mut MessageStart,
    header: Header,
    length: usize,
    version: Version,
    body: &[u8],
) -> Result<Head, DecodeError> {
    let start = start.find(header.flags, body)?;
    let message = body.get(start..).unwrap_or_default();
    if header.opcode == Opcode::EXECUTE {
        let (id, flags) = request::execute_head(version, message)?;
        let (id, skips) = (start + 2..start + 2 + id.len(), flags.skips_metadata());
        return Ok(Head::Execute { id, flags: start + flags.offset, skips });
    }
    let text = Reader::new(message).count("QUERY text")?;
    let text = start + 4..start.saturating_add(4).saturating_add(text);
    let consistency_and_flags = if version >= Version::V5 { 2 + 3 } else { 2 };
    let flags = text.end.saturating_add(consistency_and_flags);
    if flags >= length {
        return Err(DecodeError::Malformed { what: "QUERY" });
    }
    if text.end <= plain_selection::LOOK && text.end > body.len() {
        return Err(DecodeError::Truncated { what: "QUERY text", need: text.end, have: body.len() });
    }
    Ok(Head::Query { text, flags })
}
