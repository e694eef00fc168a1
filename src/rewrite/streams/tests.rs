use std::collections::HashMap;

use super::*;
use proptest::prelude::*;

#[test]
fn an_answer_to_the_only_request_of_its_stream_is_known() {
    let mut streams = Streams::default();
    streams.ask(1, Note::Query);
    streams.describe(2, [7; 16]);
    assert_eq!(streams.in_flight(), 2);
    assert_eq!(streams.statement(2), Some([7; 16]));
    assert_eq!(streams.answer(2), Answer::Of(Note::Described));
    assert_eq!(streams.statement(2), None);
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
    (0..1000).for_each(|stream| streams.describe(stream, [1; 16]));
    let teaches = |stream: &i16| {
        let statement = streams.statement(*stream);
        streams.answer(*stream) == Answer::Of(Note::Described) && statement == Some([1; 16])
    };
    let taught = (0..1000).filter(teaches).count();
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
                    _ => Note::Described,
                };
                notes.push(note);
                *shared |= notes.len() > 1;
                match note {
                    Note::Described => streams.describe(stream, [stream as u8; 16]),
                    note => streams.ask(stream, note),
                }
            } else {
                let expected = match notes.pop() {
                    Some(note) if !*shared => Answer::Of(note),
                    _ => Answer::Unclear,
                };
                *shared &= !notes.is_empty();
                let statement = (expected == Answer::Of(Note::Described)).then_some([stream as u8; 16]);
                prop_assert_eq!(streams.statement(stream), statement);
                prop_assert_eq!(streams.answer(stream), expected);
            }
            let in_flight: usize = model.values().map(|(notes, _)| notes.len()).sum();
            prop_assert_eq!(streams.in_flight(), in_flight as u64);
        }
    }
}
