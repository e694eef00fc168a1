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
    /// An EXECUTE of a statement that is not known to be ordinary: the answer describes itself, and so the statement. Its id is
    /// kept where there is room for it ([`Streams::describe`]).
    Described,
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
    /// The answer's columns are what they are called.
    pub fn is_plain(self) -> bool {
        self == Self::Of(Note::PlainSelection)
    }

    /// The answer may get columns injected.
    pub fn is_to_query(self) -> bool {
        matches!(self, Self::Of(Note::Query | Note::PlainSelection))
    }
}

/// What is known of a stream, in one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mark {
    /// Nothing is in flight on it.
    #[default]
    Free,
    Noted(Note),
    /// More than one request was in flight on it at once; how many are is among the details.
    Shared,
}

/// The lowest streams, which most drivers take first: one look at a table.
const LOW: usize = 32;
/// Others that are looked through one by one; there are pages for those beyond.
const FEW: usize = 8;
/// EXECUTEs in flight whose answers teach; those beyond are answered alike, and teach nothing.
const MOST_DESCRIBED: usize = 128;
/// Streams of one page.
const PAGE: usize = 64;

/// The streams of one connection that have requests in flight. A byte for each of the lowest, a byte and a name for each of few
/// others, for each page of many their bytes: 40 KiB when all 32,768 are. When nothing is in flight nothing is on the heap.
#[derive(Debug, Default)]
pub struct Streams {
    low: [Mark; LOW],
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
    #[inline]
    pub fn ask(&mut self, stream: i16, note: Note) {
        match self.low.get_mut(usize::from(stream.cast_unsigned())) {
            Some(free @ Mark::Free) => {
                *free = Mark::Noted(note);
                self.in_flight += 1;
            }
            _ => self.ask_elsewhere(stream, note),
        }
    }

    #[inline(never)]
    fn ask_elsewhere(&mut self, stream: i16, note: Note) {
        if stream < 0 {
            return;
        }
        self.in_flight += 1;
        if let Some(mark) = self.mark_at(stream) {
            *mark = Mark::Shared;
            let details = self.details.get_or_insert_default();
            details.statements.remove(&stream);
            *details.counts.entry(stream).or_insert(1) += 1;
            return;
        }
        let mark = Mark::Noted(note);
        if !self.few.push(stream, mark) {
            self.many.get_or_insert_default().put(stream, mark);
        }
    }

    /// The same for an EXECUTE of `statement`, whose answer shall describe it.
    #[cold]
    pub fn describe(&mut self, stream: i16, statement: StatementId) {
        let has_room = self.details.as_ref().is_none_or(|details| details.statements.len() < MOST_DESCRIBED);
        let is_alone = stream >= 0 && self.mark_at(stream).is_none();
        if !has_room || !is_alone {
            return self.ask(stream, Note::Plain);
        }
        self.ask(stream, Note::Described);
        self.details.get_or_insert_default().statements.insert(stream, statement);
    }

    /// The statement that the answer on `stream` will describe; to be asked before [`Streams::answer`].
    #[inline]
    pub fn statement(&self, stream: i16) -> Option<StatementId> {
        self.details.as_ref()?.statements.get(&stream).copied()
    }

    /// An answer comes on `stream`.
    #[inline]
    pub fn answer(&mut self, stream: i16) -> Answer {
        if let Some(mark) = self.low.get_mut(usize::from(stream.cast_unsigned()))
            && self.details.is_none()
            && self.many.is_none()
        {
            let mark = std::mem::take(mark);
            self.in_flight -= u64::from(mark != Mark::Free);
            return self.answer_of(mark);
        }
        self.answer_elsewhere(stream)
    }

    #[inline(never)]
    fn answer_elsewhere(&mut self, stream: i16) -> Answer {
        let Some(mark) = self.mark_at(stream).copied() else { return Answer::Unclear };
        self.in_flight -= 1;
        if let Some(details) = &mut self.details {
            if mark == Mark::Shared && details.others_remain(stream) {
                return Answer::Unclear;
            }
            details.statements.remove(&stream);
        }
        match (self.low.get_mut(usize::from(stream.cast_unsigned())), self.few.position(stream), &mut self.many) {
            (Some(low), ..) => *low = Mark::Free,
            (None, Some(place), _) => self.few.remove(place),
            (None, None, Some(many)) => many.take(stream),
            (None, None, None) => {}
        }
        if self.in_flight == 0 {
            (self.many, self.details) = (None, None);
        }
        self.answer_of(mark)
    }

    #[inline]
    fn answer_of(&self, mark: Mark) -> Answer {
        match mark {
            Mark::Noted(note) if !self.trusts_nothing => Answer::Of(note),
            _ => Answer::Unclear,
        }
    }

    /// From now on no answer is known to belong to a request: one may come that nobody asked for.
    pub fn trust_nothing(&mut self) {
        self.trusts_nothing = true;
    }

    /// Requests that are not answered, those on negative streams aside: nodes do not answer these.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// What is noted of a stream in flight, to be changed.
    fn mark_at(&mut self, stream: i16) -> Option<&mut Mark> {
        let low = usize::from(stream.cast_unsigned());
        let mark = match (low < LOW, self.few.position(stream), &mut self.many) {
            (true, ..) => self.low.get_mut(low)?,
            (false, Some(place), _) => self.few.marks.get_mut(place)?,
            (false, None, Some(many)) => many.get_mut(stream)?,
            (false, None, None) => return None,
        };
        (*mark != Mark::Free).then_some(mark)
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
mod tests;
