//! Which streams have a request in flight, and what their answers mean where an answer cannot tell.
//!
//! An answer is known to belong to a request only while that request is the only one in flight on its stream: Cassandra answers
//! each request, in any order. A stream that is used twice at once is void until nothing is in flight on it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::statements::StatementId;

/// What the answer to a request means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Note {
    /// Nothing but what it says itself.
    #[default]
    Plain,
    /// It may get columns injected: a QUERY.
    Query,
    /// The same, and its columns are what they are called, so that what it says of nodes can be learned.
    PlainSelection,
    /// An EXECUTE of a statement that is not known to be ordinary: the answer describes itself, and so the statement.
    Described(StatementId),
    /// An EXECUTE of an ordinary statement that asked to skip the metadata.
    Skipping,
}

/// Whose answer a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of the only request in flight on its stream.
    Of(Note),
    /// Of one of several, or of none.
    Unclear,
}

impl Answer {
    /// The answer may get columns injected.
    pub fn is_to_query(self) -> bool {
        matches!(self, Self::Of(Note::Query | Note::PlainSelection))
    }
}

/// What is in flight on one stream.
#[derive(Clone, Copy, Debug)]
struct Flight {
    stream: i16,
    /// More than one request was in flight at once.
    is_shared: bool,
    count: u32,
    note: Note,
}

/// Streams that are looked through one by one; beyond them there is a map.
const FEW: usize = 32;

/// The streams of one connection that have requests in flight. One of them costs no memory of its own; when nothing is in flight
/// none does.
#[derive(Debug, Default)]
pub struct Streams {
    one: Option<Flight>,
    others: Option<Box<Others>>,
    in_flight: u64,
}

#[derive(Debug, Default)]
struct Others {
    few: Vec<Flight>,
    many: HashMap<i16, Flight, BuildHasherDefault<Mixed>>,
}

impl Streams {
    /// A request goes out on `stream`. What is noted of a stream with a request in flight is void.
    pub fn ask(&mut self, stream: i16, note: Note) {
        if stream < 0 {
            return;
        }
        self.in_flight += 1;
        if let Some(flight) = self.get_mut(stream) {
            flight.count = flight.count.saturating_add(1);
            (flight.is_shared, flight.note) = (true, Note::Plain);
            return;
        }
        let flight = Flight { stream, is_shared: false, count: 1, note };
        if self.one.is_none() {
            self.one = Some(flight);
            return;
        }
        let others = self.others.get_or_insert_default();
        if others.few.len() < FEW {
            others.few.push(flight);
        } else {
            others.many.insert(stream, flight);
        }
    }

    /// An answer comes on `stream`.
    pub fn answer(&mut self, stream: i16) -> Answer {
        let Some(flight) = self.get_mut(stream) else { return Answer::Unclear };
        flight.count -= 1;
        let Flight { is_shared, count, note, .. } = *flight;
        self.in_flight -= 1;
        if count == 0 {
            self.remove(stream);
        }
        if is_shared { Answer::Unclear } else { Answer::Of(note) }
    }

    /// Requests that are not answered, those on negative streams aside: nodes do not answer these.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    fn get_mut(&mut self, stream: i16) -> Option<&mut Flight> {
        match &mut self.one {
            Some(flight) if flight.stream == stream => return self.one.as_mut(),
            _ => {}
        }
        let others = self.others.as_deref_mut()?;
        match others.few.iter().position(|flight| flight.stream == stream) {
            Some(position) => others.few.get_mut(position),
            None if others.many.is_empty() => None,
            None => others.many.get_mut(&stream),
        }
    }

    fn remove(&mut self, stream: i16) {
        if self.one.is_some_and(|flight| flight.stream == stream) {
            self.one = None;
        } else if let Some(others) = &mut self.others {
            match others.few.iter().position(|flight| flight.stream == stream) {
                Some(position) => _ = others.few.swap_remove(position),
                None => _ = others.many.remove(&stream),
            }
        }
        if self.in_flight == 0 {
            self.others = None;
        }
    }
}

/// A hash for stream ids: there are 32,768 of them, whoever chooses them.
#[derive(Debug, Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn write_i16(&mut self, stream: i16) {
        let mixed = (u64::from(stream.cast_unsigned()) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_to_the_only_request_of_its_stream_is_known() {
        let mut streams = Streams::default();
        streams.ask(1, Note::Query);
        streams.ask(2, Note::Described([7; 16]));
        assert_eq!(streams.in_flight(), 2);
        assert_eq!(streams.answer(2), Answer::Of(Note::Described([7; 16])));
        assert_eq!(streams.answer(1), Answer::Of(Note::Query));
        assert_eq!(streams.answer(1), Answer::Unclear, "nobody asked");
        assert_eq!(streams.in_flight(), 0);
        assert!(streams.one.is_none() && streams.others.is_none());
    }

    #[test]
    fn a_stream_used_twice_at_once_is_void_until_nothing_is_in_flight_on_it() {
        let mut streams = Streams::default();
        for _ in 0..3 {
            streams.ask(1, Note::Skipping);
        }
        assert_eq!(streams.answer(1), Answer::Unclear);
        assert_eq!(streams.answer(1), Answer::Unclear);
        streams.ask(1, Note::Skipping);
        assert_eq!(streams.answer(1), Answer::Unclear, "two were in flight again");
        assert_eq!(streams.answer(1), Answer::Unclear);
        streams.ask(1, Note::Skipping);
        assert_eq!(streams.answer(1), Answer::Of(Note::Skipping));
    }

    #[test]
    fn negative_streams_leave_no_trace() {
        let mut streams = Streams::default();
        streams.ask(-1, Note::Query);
        assert_eq!(streams.in_flight(), 0);
        assert_eq!(streams.answer(-1), Answer::Unclear);
        assert!(streams.one.is_none());
    }

    proptest! {
        #[test]
        fn behaves_as_a_list_of_what_is_in_flight(moves in prop::collection::vec((any::<bool>(), 0i16..100), 0..600)) {
            let mut streams = Streams::default();
            // Per stream: the notes in flight, and whether there were ever two since it was empty.
            let mut model: HashMap<i16, (Vec<Note>, bool)> = HashMap::new();
            for (asks, stream) in moves {
                let (notes, shared) = model.entry(stream).or_default();
                if asks {
                    let note = Note::Described([stream as u8; 16]);
                    notes.push(note);
                    *shared |= notes.len() > 1;
                    streams.ask(stream, note);
                } else {
                    let expected = match notes.pop() {
                        Some(note) if !*shared => Answer::Of(note),
                        _ => Answer::Unclear,
                    };
                    *shared &= !notes.is_empty();
                    prop_assert_eq!(streams.answer(stream), expected);
                }
                let in_flight: usize = model.values().map(|(notes, _)| notes.len()).sum();
                prop_assert_eq!(streams.in_flight(), in_flight as u64);
            }
        }
    }
}
