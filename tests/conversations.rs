//! The recorded conversations through the gateway, cut in every way: what comes out does not depend on how it came in.

#![allow(clippy::unwrap_used)]

#[path = "golden/gate.rs"]
mod gate;
#[path = "golden/golden.rs"]
mod golden;

use gate::{Gate, playable};
use golden::{Conversation, Side, all, named};
use proptest::prelude::*;

/// What the node and the client received, and why it ended.
type Outcome = (Vec<u8>, Vec<u8>, Option<String>);

fn play(conversation: &Conversation, rewriting: bool, sizes: &[usize]) -> Outcome {
    let mut gate = Gate::new(conversation, rewriting);
    let mut sizes = sizes.iter().cycle();
    for exchange in playable(conversation) {
        for piece in exchange.bytes.chunks(1 << 20) {
            gate.play(exchange.from, piece, *sizes.next().unwrap());
        }
    }
    assert!(gate.ended.is_some() || gate.undecided() == 0, "{}: bytes left undecided", conversation.name);
    (gate.to_node, gate.to_client, gate.ended)
}

#[test]
fn whatever_the_pieces_the_outcome_is_the_same() {
    for conversation in all() {
        let whole = play(&conversation, true, &[usize::MAX]);
        for size in [1, 2, 3, 7, 8, 9, 10, 17, 64, 255, 1000, 5000] {
            assert!(play(&conversation, true, &[size]) == whole, "{} in pieces of {size}", conversation.name);
        }
    }
}

#[test]
fn whatever_has_arrived_nothing_is_said_that_must_be_taken_back() {
    for conversation in all() {
        let (to_node, to_client, _) = play(&conversation, true, &[usize::MAX]);
        let mut gate = Gate::new(&conversation, true);
        for exchange in playable(&conversation) {
            for byte in &exchange.bytes {
                gate.play(exchange.from, &[*byte], 1);
                assert!(
                    to_node.starts_with(&gate.to_node) && to_client.starts_with(&gate.to_client),
                    "{}",
                    conversation.name
                );
            }
        }
    }
}

#[test]
fn no_recorded_conversation_ends_early() {
    for conversation in all() {
        let (_, _, ended) = play(&conversation, true, &[usize::MAX]);
        assert_eq!(ended, None, "{}", conversation.name);
    }
}

#[test]
fn what_needs_no_change_passes_byte_for_byte() {
    let reads_system_tables = |c: &Conversation| c.exchanges.iter().any(|e| e.comment.contains(" system."));
    let ordinary: Vec<_> = all().into_iter().filter(|c| !reads_system_tables(c)).collect();
    assert!(ordinary.len() >= 14, "{} conversations", ordinary.len());
    for conversation in &ordinary {
        let (to_node, to_client, _) = play(conversation, true, &[usize::MAX]);
        assert!(to_node == conversation.stream(Side::Client), "{}: requests", conversation.name);
        assert!(to_client == conversation.stream(Side::Node), "{}: responses", conversation.name);
    }
}

#[test]
fn an_answer_without_metadata_to_a_system_statement_ends_the_connection() {
    // As from a node that did not get the cleared flag: its rows would go out as they are.
    for cell in ["v3-none", "v3-lz4", "v3-snappy", "v4-none", "v4-lz4", "v4-snappy", "v5-none", "v5-lz4"] {
        let conversation = named(&format!("5.0/system-{cell}"));
        let mut gate = Gate::new(&conversation, true);
        let mut told = 0;
        for exchange in &conversation.exchanges {
            if exchange.comment.starts_with("QUERY") && exchange.comment.ends_with("with skip_metadata") {
                continue;
            }
            told = gate.to_client.len();
            gate.play(exchange.from, &exchange.bytes, usize::MAX);
            if gate.ended.is_some() {
                assert!(exchange.comment.contains("no-metadata"), "{cell}: {}", exchange.comment);
                break;
            }
        }
        assert_eq!(gate.ended.as_deref(), Some("MetadataMissing"), "{cell}");
        assert_eq!(gate.to_client.len(), told, "{cell}: nothing of the answer went out");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn without_rewriting_every_stream_comes_out_as_it_went_in(
        which in any::<prop::sample::Index>(),
        sizes in prop::collection::vec(1_usize..3000, 1..8),
    ) {
        let all = all();
        let conversation = which.get(&all);
        let expected = |side| playable(conversation).iter().filter(|e| e.from == side).flat_map(|e| e.bytes.clone()).collect::<Vec<u8>>();
        let (to_node, to_client, ended) = play(conversation, false, &sizes);
        prop_assert_eq!(ended, None);
        prop_assert!(to_node == expected(Side::Client), "{}", conversation.name);
        prop_assert!(to_client == expected(Side::Node), "{}", conversation.name);
    }
}
