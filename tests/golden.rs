#![allow(clippy::expect_used, reason = "a test says what it expected")]
//! The recorded conversations are there, in every cell, and are whole.

#[path = "golden/golden.rs"]
mod golden;

use golden::{Side, all, named};

#[test]
fn every_version_and_compression_is_recorded() {
    for cell in ["v3-none", "v3-lz4", "v3-snappy", "v4-none", "v4-lz4", "v4-snappy", "v5-none", "v5-lz4"] {
        // While events were recorded a fourth node joined and left.
        for (what, nodes) in [("system", 3), ("user", 3), ("events", 4)] {
            let conversation = named(&format!("5.0/{what}-{cell}"));
            assert_eq!(format!("v{}-{}", conversation.version, conversation.compression), cell);
            assert_eq!(conversation.nodes.len(), nodes);
        }
    }
}

#[test]
fn a_client_without_compression_before_v5_wrote_whole_frames() {
    for conversation in all().iter().filter(|c| c.compression == "none" && c.version < 5) {
        for exchange in &conversation.exchanges {
            let length = exchange.bytes.get(5..9).map(|l| u32::from_be_bytes([l[0], l[1], l[2], l[3]]));
            assert_eq!(
                length,
                u32::try_from(exchange.bytes.len() - 9).ok(),
                "{}: {}",
                conversation.name,
                exchange.comment
            );
        }
    }
}

#[test]
fn the_recorded_answers_hold_the_nodes_own_addresses() {
    // Without this the tests that look for a leak would look at nothing.
    let conversation = named("5.0/system-v4-none");
    let answers = conversation.stream(Side::Node);
    for node in &conversation.nodes {
        let std::net::SocketAddr::V4(address) = node.address else { panic!("IPv4 was recorded") };
        let octets = address.ip().octets();
        assert!(answers.windows(4).any(|w| w == octets), "{address}");
    }
    assert_eq!(conversation.connected_node().number, 1);
}
