//! Which streams have a request in flight, and what their answers mean where an answer cannot tell.
//!
//! An answer is known to belong to a request only while that request is the only one in flight on its stream: Cassandra answers
//! each request, in any order. A stream that is used twice at once is void until nothing is in flight on it.

use std::collections::BTreeMap;

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

/// What is noted of a stream in flight, in one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mark {
    /// Nothing is in flight on it.
    #[default]
    Free,
    Plain,
    Query,
    PlainSelection,
    /// Its statement is among the details.
    Described,
    Skipping,
    /// More than one request was in flight on it at once; how many are is among the details.
    Shared,
}

/// Streams that are looked through one by one; there is a table for those beyond.
const FEW: usize = 16;
/// EXECUTEs in flight whose answers teach; those beyond are answered alike, and teach nothing.
const MOST_DESCRIBED: usize = 128;
/// Streams of one page of the table.
const PAGE: usize = 64;

/// The streams of one connection that have requests in flight. A byte and a name for each of few, for each page of many their
/// bytes: 40 KiB when all 32,768 are. When nothing is in flight nothing is on the heap.
#[derive(Debug, Default)]
pub struct Streams {
    few: Few,
    many: Option<Box<Pages>>,
    details: Option<Box<Details>>,
    in_flight: u64,
    trusts_nothing: bool,
}

#[derive(Debug, Default)]
struct Few {
    len: u8,
    streams: [i16; FEW],
    marks: [Mark; FEW],
}

/// By the stream's number, from the lowest: drivers use low ones first.
#[derive(Debug, Default)]
struct Pages(Vec<Option<Box<Page>>>);

#[derive(Debug)]
struct Page {
    taken: usize,
    marks: [Mark; PAGE],
}

/// What a byte does not hold.
#[derive(Debug, Default)]
struct Details {
    statements: BTreeMap<i16, StatementId>,
    /// Requests in flight on streams that are shared.
    counts: BTreeMap<i16, u64>,
}

impl Streams {
    /// A request goes out on `stream`. What is noted of a stream with a request in flight is void.
    pub fn ask(&mut self, stream: i16, note: Note) {
        if stream < 0 {
            return;
        }
        self.in_flight += 1;
        if let Some(mark) = self.mark_at(self.few.position(stream), stream) {
            *mark = Mark::Shared;
            let details = self.details.get_or_insert_default();
            details.statements.remove(&stream);
            *details.counts.entry(stream).or_insert(1) += 1;
            return;
        }
        let mark = match note {
            Note::Plain => Mark::Plain,
            Note::Query => Mark::Query,
            Note::PlainSelection => Mark::PlainSelection,
            Note::Skipping => Mark::Skipping,
            Note::Described(statement) => {
                let statements = &mut self.details.get_or_insert_default().statements;
                if statements.len() < MOST_DESCRIBED {
                    statements.insert(stream, statement);
                    Mark::Described
                } else {
                    Mark::Plain
                }
            }
        };
        if !self.few.push(stream, mark) {
            self.many.get_or_insert_default().put(stream, mark);
        }
    }

    /// An answer comes on `stream`.
    pub fn answer(&mut self, stream: i16) -> Answer {
        let place = self.few.position(stream);
        let mark = self.mark_at(place, stream).copied().unwrap_or_default();
        let note = match mark {
            Mark::Free => return Answer::Unclear,
            Mark::Plain => Some(Note::Plain),
            Mark::Query => Some(Note::Query),
            Mark::PlainSelection => Some(Note::PlainSelection),
            Mark::Skipping => Some(Note::Skipping),
            Mark::Described => self.details.as_mut().and_then(|it| it.statements.remove(&stream)).map(Note::Described),
            Mark::Shared => None,
        };
        self.in_flight -= 1;
        if mark == Mark::Shared && self.details.as_mut().is_some_and(|details| details.others_remain(stream)) {
            return Answer::Unclear;
        }
        match (place, &mut self.many) {
            (Some(place), _) => self.few.remove(place),
            (None, Some(many)) => many.take(stream),
            (None, None) => {}
        }
        if self.in_flight == 0 {
            (self.many, self.details) = (None, None);
        }
        note.filter(|_| !self.trusts_nothing).map_or(Answer::Unclear, Answer::Of)
    }

    /// From now on no answer is known to belong to a request: one may come that nobody asked for.
    pub fn trust_nothing(&mut self) {
        self.trusts_nothing = true;
    }

    /// Requests that are not answered, those on negative streams aside: nodes do not answer these.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// What is noted of a stream in flight, to be changed; `place`: its place among the few.
    fn mark_at(&mut self, place: Option<usize>, stream: i16) -> Option<&mut Mark> {
        match (place, &mut self.many) {
            (Some(place), _) => self.few.marks.get_mut(place),
            (None, Some(many)) => many.get_mut(stream).filter(|mark| **mark != Mark::Free),
            (None, None) => None,
        }
    }
}

impl Few {
    #[inline]
    fn position(&self, stream: i16) -> Option<usize> {
        self.streams.get(..self.len.into())?.iter().position(|&taken| taken == stream)
    }

    /// False when there is no place.
    #[inline]
    fn push(&mut self, stream: i16, mark: Mark) -> bool {
        let place = usize::from(self.len);
        let (Some(name), Some(noted)) = (self.streams.get_mut(place), self.marks.get_mut(place)) else { return false };
        (*name, *noted) = (stream, mark);
        self.len += 1;
        true
    }

    /// The last one takes its place.
    #[inline]
    fn remove(&mut self, place: usize) {
        self.len -= 1;
        let last = usize::from(self.len);
        self.streams.swap(place, last);
        self.marks.swap(place, last);
    }
}

impl Pages {
    fn get_mut(&mut self, stream: i16) -> Option<&mut Mark> {
        let (page, at) = place(stream);
        self.0.get_mut(page)?.as_mut()?.marks.get_mut(at)
    }

    fn put(&mut self, stream: i16, mark: Mark) {
        let (page, at) = place(stream);
        if self.0.len() <= page {
            self.0.resize_with(page + 1, || None);
        }
        let Some(page) = self.0.get_mut(page) else { return };
        let page = page.get_or_insert_with(|| Box::new(Page { taken: 0, marks: [Mark::Free; PAGE] }));
        if let Some(place) = page.marks.get_mut(at) {
            *place = mark;
            page.taken += 1;
        }
    }

    fn take(&mut self, stream: i16) {
        let (page, at) = place(stream);
        let Some(slot) = self.0.get_mut(page) else { return };
        let Some(page) = slot else { return };
        if let Some(place) = page.marks.get_mut(at) {
            *place = Mark::Free;
            page.taken -= 1;
        }
        if page.taken == 0 {
            *slot = None;
        }
    }
}

/// The page of a stream that is not negative, and its place there.
fn place(stream: i16) -> (usize, usize) {
    let stream = usize::from(stream.cast_unsigned());
    (stream / PAGE, stream % PAGE)
}

impl Details {
    /// One of the requests on a shared stream was answered; false when it was the last.
    fn others_remain(&mut self, stream: i16) -> bool {
        let Some(count) = self.counts.get_mut(&stream) else { return false };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&stream);
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

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
        assert!(streams.few.len == 0 && streams.many.is_none() && streams.details.is_none());
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
    fn where_nothing_is_trusted_no_answer_is_known() {
        let mut streams = Streams::default();
        streams.ask(1, Note::Skipping);
        streams.trust_nothing();
        streams.ask(2, Note::Query);
        assert_eq!((streams.answer(1), streams.answer(2)), (Answer::Unclear, Answer::Unclear));
        assert_eq!(streams.in_flight(), 0);
    }

    #[test]
    fn negative_streams_leave_no_trace() {
        let mut streams = Streams::default();
        streams.ask(-1, Note::Query);
        assert_eq!(streams.in_flight(), 0);
        assert_eq!(streams.answer(-1), Answer::Unclear);
        assert_eq!(streams.few.len, 0);
    }

    #[test]
    fn what_answers_teach_is_remembered_of_so_many_and_no_more() {
        let mut streams = Streams::default();
        (0..1000).for_each(|stream| streams.ask(stream, Note::Described([1; 16])));
        let taught = (0..1000).filter(|&stream| streams.answer(stream) == Answer::Of(Note::Described([1; 16]))).count();
        assert_eq!((taught, streams.in_flight()), (MOST_DESCRIBED, 0));
    }

    #[test]
    fn all_streams_in_flight_cost_pages_of_bytes_and_nothing_afterwards() {
        let mut streams = Streams::default();
        (0..=i16::MAX).for_each(|stream| streams.ask(stream, Note::Skipping));
        let pages = &streams.many.as_ref().unwrap().0;
        assert!(pages.len() * (size_of::<Page>() + size_of::<usize>()) <= 41 * 1024);
        assert!((0..=i16::MAX).rev().all(|stream| streams.answer(stream) == Answer::Of(Note::Skipping)));
        assert!(streams.in_flight() == 0 && streams.many.is_none());
    }

    /// Few streams, often used twice, and ids from the whole range.
    fn stream() -> impl Strategy<Value = i16> {
        prop_oneof![0i16..100, 0i16..=i16::MAX]
    }

    proptest! {
        #[test]
        fn behaves_as_a_list_of_what_is_in_flight(moves in prop::collection::vec((any::<bool>(), stream()), 0..600)) {
            let mut streams = Streams::default();
            // Per stream: the notes in flight, and whether there were ever two since it was empty.
            let mut model: HashMap<i16, (Vec<Note>, bool)> = HashMap::new();
            for (asks, stream) in moves {
                let (notes, shared) = model.entry(stream).or_default();
                if asks {
                    let note = match stream % 5 {
                        0 => Note::Plain,
                        1 => Note::Query,
                        2 => Note::PlainSelection,
                        3 => Note::Skipping,
                        _ => Note::Described([stream as u8; 16]),
                    };
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
