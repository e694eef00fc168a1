//! Changes of the schema that are told late: where a client sees one node for many ([`View::hides_nodes`]), it takes that node's word for
//! all of them, and uses a new table at once where others may not have it.
//!
//! What says so, a RESULT of kind Schema_change or an EVENT of that type, is taken out of the stream, whole, and kept here while all
//! others go on; whoever knows when all nodes have it has it told between two frames. A RESULT that is kept is not answered yet.
//!
//! [`View::hides_nodes`]: super::view::View::hides_nodes

use std::collections::VecDeque;

use crate::cql::frame::{Header, encode_frame};

/// So many are kept for one connection at most, and so many bytes. What is beyond passes as it comes.
const MOST: usize = 128;
const MOST_BYTES: usize = 16 * 1024;

/// Those of one connection, in the order in which they came.
#[derive(Debug, Default)]
pub struct SchemaChanges {
    kept: VecDeque<(Header, Vec<u8>)>,
    bytes: usize,
}

impl SchemaChanges {
    /// Whether a frame of `length` bytes may be kept, too.
    pub fn has_room(&self, length: usize) -> bool {
        self.kept.len() < MOST && length <= MOST_BYTES - self.bytes
    }

    /// Keeps a frame as it came.
    pub fn keep(&mut self, header: Header, body: &[u8]) {
        let frame = encode_frame(header, body);
        self.bytes += frame.len();
        self.kept.push_back((header, frame));
    }

    /// The oldest one, which is kept no more.
    pub fn take(&mut self) -> Option<(Header, Vec<u8>)> {
        let (header, frame) = self.kept.pop_front()?;
        self.bytes -= frame.len();
        if self.kept.is_empty() {
            self.kept = VecDeque::new();
        }
        Some((header, frame))
    }

    pub fn len(&self) -> usize {
        self.kept.len()
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
