//! v5, where nodes take a segment for something else than its frames one by one.

use super::*;
use crate::cql::message::error_code;

#[test]
fn a_statement_that_ends_before_its_flags_is_refused_where_nodes_read_on_in_the_next_frame() {
    for session in ALL {
        let version = session.version;
        let (query, execute) = (query(version, "SELECT * FROM system.peers_v2", 0), execute(version, &ID, SKIP));
        for (opcode, body) in [(Opcode::QUERY, query), (Opcode::EXECUTE, execute)] {
            for length in 0..body.len() {
                let wire = on_wire(session, 0, opcode, 1, &body[..length]);
                let told = Talk::with(session, &surroundings()).writes(&wire);
                if version == Version::V5 {
                    assert_eq!(told, Err((Why::Malformed, Some(error_code::PROTOCOL_ERROR))), "{opcode:?} {length}");
                } else {
                    assert_eq!(told, Ok(wire), "{session:?} {opcode:?} {length}");
                }
            }
        }
    }
}

/// Nodes refuse it on stream 0, whatever is in flight there (Cassandra 4.1.10, 5.0.9): that is nobody's answer.
#[test]
fn after_a_corrupt_segment_no_answer_passes_without_metadata() {
    for session in [V5, V5_LZ4] {
        let around = surroundings();
        around.statements.learn(&ID);
        let skipping = execute(session.version, &ID, SKIP);
        let mut corrupt = on_wire(session, 0, Opcode::OPTIONS, 3, &[]);
        *corrupt.last_mut().unwrap() ^= 1;
        for is_corrupt in [false, true] {
            let mut talk = Talk::with(session, &around);
            talk.request(Opcode::EXECUTE, 1, &skipping);
            if is_corrupt {
                assert_eq!(talk.writes(&corrupt), Ok(corrupt.clone()), "the node is to refuse it");
            }
            let answered = talk.response(Opcode::RESULT, 1, &rows_without_metadata());
            assert_eq!(answered.is_err(), is_corrupt, "{session:?}");
        }
    }
}
