//! What must be remembered about requests in flight, for the few cases in which an answer cannot tell.
//!
//! Ordinary requests leave nothing here: an idle connection costs two empty fields, a request one test for emptiness.

use super::statements::StatementId;

/// Requests remembered per connection because their answers teach; beyond it nothing is learned from them.
const MAX_NOTES: usize = 128;
const BITMAP_WORDS: usize = (i16::MAX as usize + 1) / 64;

/// A connection's notes about streams in flight.
#[derive(Debug, Default)]
pub struct Streams {
    queries: StreamSet,
    /// At most one of a stream: a request is in flight on each of these.
    notes: Vec<(i16, Note)>,
}

/// What the answer on a stream teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The tables of a statement that is not known to be ordinary; the answer must describe itself.
    Execute(StatementId),
    /// Facts about nodes: the columns of a QUERY's answer are what they are called.
    PlainSelection,
}

impl Streams {
    /// A request goes out on `stream`: whatever was remembered of it is void.
    pub fn reuse(&mut self, stream: i16) {
        if !self.is_empty() {
            self.answered(stream);
        }
    }

    /// `stream` carries a QUERY whose answer may get columns injected.
    pub fn note_query(&mut self, stream: i16) {
        self.queries.insert(stream);
    }

    /// `stream` carries an EXECUTE of a statement that is not known to be ordinary; its answer will describe itself.
    pub fn note_execute(&mut self, stream: i16, id: StatementId) {
        self.note(stream, Note::Execute(id));
    }

    /// `stream` carries a plain selection, and `others` requests are in flight besides. It is remembered only where each of
    /// those is known to be on another stream: the answer to one on the same stream would be taken for this one's.
    pub fn note_plain_selection(&mut self, stream: i16, others: u64) {
        if self.notes.len() as u64 == others {
            self.note(stream, Note::PlainSelection);
        }
    }

    fn note(&mut self, stream: i16, note: Note) {
        if stream >= 0 && self.notes.len() < MAX_NOTES {
            self.notes.push((stream, note));
        }
    }

    /// Takes what was remembered of `stream`: was it a QUERY, and what does its answer teach.
    pub fn answered(&mut self, stream: i16) -> (bool, Option<Note>) {
        if self.is_empty() {
            return (false, None);
        }
        let query = self.queries.remove(stream);
        let noted = self.notes.iter().position(|&(noted, _)| noted == stream);
        let note = noted.map(|position| self.notes.swap_remove(position).1);
        if self.notes.is_empty() {
            self.notes = Vec::new();
        }
        (query, note)
    }

    pub fn is_empty(&self) -> bool {
        self.queries.len == 0 && self.notes.is_empty()
    }
}

/// A set of stream ids (0..=32767): a few inline, a 4 KiB bitmap while there are more.
#[derive(Debug, Default)]
struct StreamSet {
    inline: [i16; 6],
    bitmap: Option<Box<[u64; BITMAP_WORDS]>>,
    len: u16,
}

impl StreamSet {
    fn insert(&mut self, stream: i16) {
        if stream < 0 || self.contains(stream) {
            return;
        }
        let len = usize::from(self.len);
        match &mut self.bitmap {
            Some(bitmap) => set_bit(bitmap, stream, true),
            None if len < self.inline.len() => self.inline[len] = stream,
            None => {
                let mut bitmap = Box::new([0; BITMAP_WORDS]);
                for &known in &self.inline {
                    set_bit(&mut bitmap, known, true);
                }
                set_bit(&mut bitmap, stream, true);
                self.bitmap = Some(bitmap);
            }
        }
        self.len += 1;
    }

    fn contains(&self, stream: i16) -> bool {
        match &self.bitmap {
            Some(bitmap) => bitmap[word(stream)] & bit(stream) != 0,
            None => self.inline[..usize::from(self.len)].contains(&stream),
        }
    }

    fn remove(&mut self, stream: i16) -> bool {
        if stream < 0 || self.len == 0 || !self.contains(stream) {
            return false;
        }
        self.len -= 1;
        let len = usize::from(self.len);
        match &mut self.bitmap {
            Some(bitmap) => set_bit(bitmap, stream, false),
            None => {
                if let Some(position) = self.inline.iter().position(|&known| known == stream) {
                    self.inline[position] = self.inline[len];
                }
            }
        }
        if self.len == 0 {
            self.bitmap = None;
        }
        true
    }
}

fn word(stream: i16) -> usize {
    (stream as u16 as usize / 64) % BITMAP_WORDS
}

fn bit(stream: i16) -> u64 {
    1 << (stream as u16 % 64)
}

fn set_bit(bitmap: &mut [u64; BITMAP_WORDS], stream: i16, on: bool) {
    if on {
        bitmap[word(stream)] |= bit(stream);
    } else {
        bitmap[word(stream)] &= !bit(stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn behaves_as_a_set(operations in proptest::collection::vec((any::<bool>(), 0_i16..40), 0..200)) {
            let mut streams = StreamSet::default();
            let mut expected = HashSet::new();
            for (insert, stream) in operations {
                let stream = stream * 800;
                if insert {
                    streams.insert(stream);
                    expected.insert(stream);
                } else {
                    prop_assert_eq!(streams.remove(stream), expected.remove(&stream));
                }
                prop_assert_eq!(usize::from(streams.len), expected.len());
            }
        }
    }

    #[test]
    fn a_stream_is_forgotten_when_answered() {
        let mut streams = Streams::default();
        streams.note_query(3);
        streams.note_execute(4, [9; 16]);
        assert_eq!(streams.answered(3), (true, None));
        assert_eq!(streams.answered(4), (false, Some(Note::Execute([9; 16]))));
        assert_eq!(streams.answered(4), (false, None));
        assert!(streams.is_empty());
    }

    #[test]
    fn a_plain_selection_is_noted_only_when_no_other_answer_can_come_on_its_stream() {
        let mut streams = Streams::default();
        streams.note_plain_selection(1, 1);
        assert!(streams.is_empty(), "what else is in flight may be on stream 1");
        streams.note_plain_selection(1, 0);
        streams.note_plain_selection(2, 1);
        streams.reuse(1);
        streams.note_plain_selection(1, 2);
        assert_eq!(streams.answered(1), (false, None), "two requests on one stream");
        assert_eq!(streams.answered(2), (false, Some(Note::PlainSelection)));
    }

    #[test]
    fn negative_streams_leave_no_trace() {
        let mut streams = Streams::default();
        streams.note_query(-1);
        streams.note_execute(-1, [9; 16]);
        assert!(streams.is_empty());
    }
}
