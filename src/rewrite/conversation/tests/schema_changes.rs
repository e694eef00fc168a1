//! Changes of the schema that are told late.

use super::*;
use crate::cql::frame::EVENT_STREAM;

const NOTHING: [u8; 0] = [];

fn talk(session: Session) -> Talk {
    let Talk { session, conversation } = Talk::with(session, &surroundings());
    Talk { session, conversation: conversation.telling_schema_changes_late() }
}

/// RESULT/Schema_change of a table.
fn created(table: &str) -> Vec<u8> {
    let mut body = Vec::new();
    Writer::new(&mut body).i32(5).string("CREATED").string("TABLE").string("ks").string(table);
    body
}

fn event(table: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let writer = &mut Writer::new(&mut body);
    writer.string("SCHEMA_CHANGE").string("CREATED").string("TABLE").string("ks").string(table);
    body
}

#[test]
fn they_are_kept_alone_and_told_as_they_came() {
    for session in ALL {
        for opcode in [Opcode::QUERY, Opcode::EXECUTE] {
            let mut talk = talk(session);
            let asked = match opcode {
                Opcode::QUERY => query(session.version, "CREATE TABLE ks.t (k int PRIMARY KEY)", 0),
                _ => execute(session.version, &ID, 0),
            };
            talk.request(opcode, 3, &asked);
            talk.request(Opcode::QUERY, 4, &query(session.version, "INSERT", 0));
            assert_eq!(talk.response(Opcode::RESULT, 3, &created("t")).unwrap(), NOTHING, "{session:?}");
            assert_eq!(talk.response(Opcode::EVENT, EVENT_STREAM, &event("t")).unwrap(), NOTHING, "{session:?}");
            assert_eq!(talk.response(Opcode::RESULT, 4, &void()).unwrap(), void(), "others go on");
            assert_eq!(talk.conversation.schema_changes_kept().0, 2);
            assert_eq!((talk.conversation.in_flight(), talk.conversation.counts()), (1, (2, 1)), "it is not answered");
            assert!(talk.conversation.responses_at_boundary());
            let told = talk.conversation.tell_schema_changes(1);
            assert_eq!(told, on_wire(session, 0x80, Opcode::RESULT, 3, &created("t")), "{session:?}");
            assert_eq!((talk.conversation.in_flight(), talk.conversation.counts()), (0, (2, 2)));
            let told = talk.conversation.tell_schema_changes(9);
            assert_eq!(off_wire(session, &told), event("t"), "{session:?}");
            assert_eq!(talk.conversation.schema_changes_kept(), (0, 0));
            assert!(talk.conversation.tell_schema_changes(1).is_empty());
        }
    }
}

#[test]
fn in_one_segment_with_others_and_behind_a_warning_and_a_tracing_id_they_are_found_all_the_same() {
    let header =
        |flags, stream| Header { version: 0x85, flags: Flags(flags), stream, opcode: Opcode::RESULT, length: 0 };
    let mut body = vec![7; 16];
    Writer::new(&mut body).string_list(&["careful"]).raw(&created("t"));
    let change = encode_frame(header(Flags::TRACING | Flags::WARNING, 3), &body);
    let other = |stream| encode_frame(header(0, stream), &rows("ks", "t"));
    let frames = [other(1), change.clone(), other(2)].concat();
    for layout in [Layout::Plain, Layout::Lz4] {
        let compression = (layout == Layout::Lz4).then_some(Compression::Lz4);
        let mut talk = talk(Session { version: Version::V5, compression });
        let conversation = &mut talk.conversation;
        let out = drive(&in_segments(&frames, layout), |bytes, work| conversation.response(bytes, work)).unwrap();
        assert_eq!(off_wire(talk.session, &out), [rows("ks", "t"), rows("ks", "t")].concat());
        assert_eq!(off_wire(talk.session, &talk.conversation.tell_schema_changes(1)), body);
    }
}

#[test]
fn whoever_sees_all_nodes_is_told_at_once() {
    for session in ALL {
        let mut talk = Talk::with(session, &surroundings());
        assert_eq!(talk.response(Opcode::RESULT, 3, &created("t")).unwrap(), created("t"), "{session:?}");
        assert_eq!(talk.response(Opcode::EVENT, EVENT_STREAM, &event("t")).unwrap(), event("t"));
        assert_eq!(talk.conversation.schema_changes_kept(), (0, 0));
    }
}

#[test]
fn what_is_more_than_may_be_kept_passes_and_is_reported() {
    for session in ALL {
        let mut talk = talk(session);
        let mut passed = 0;
        for stream in 0..1000 {
            talk.request(Opcode::QUERY, stream, &query(session.version, "CREATE", 0));
            passed += usize::from(!talk.response(Opcode::RESULT, stream, &created("t")).unwrap().is_empty());
        }
        let (kept, bytes) = talk.conversation.schema_changes_kept();
        assert_eq!((kept, passed), (128, 872), "{session:?}");
        assert!(bytes <= 16 * 1024, "{bytes}");
        let facts = talk.conversation.take_facts();
        assert_eq!(facts.iter().filter(|fact| matches!(fact, Fact::ToldAtOnce)).count(), passed);
        assert_eq!(off_wire(session, &talk.conversation.tell_schema_changes(128)), created("t").repeat(128));
        assert_eq!(talk.conversation.in_flight(), 0);
        // A long one has no place, be there nothing else.
        let long = created(&noise(20_000));
        assert_eq!(talk.response(Opcode::RESULT, 1, &long).unwrap(), long, "{session:?}");
    }
}
