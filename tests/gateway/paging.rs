//! A client that pages the table of peers: each page is rewritten alone, and where the next one begins is between client and
//! node. The simulated node takes only a paging state that is its own to the last byte.

use std::net::IpAddr;

use cqlgate::cql::frame::Opcode;
use cqlgate::cql::message::error_code;
use cqlgate::cql::primitives::inet_cell;
use cqlgate::cql::rows::Rows;
use cqlgate::demo::node::Options;

use crate::client::{Client, DIALECTS, Dialect, error, rows};
use crate::endpoint;
use crate::gate::Gate;

const ALL: &str = "SELECT * FROM system.peers_v2";
const DIALLED: &str = "SELECT host_id, native_address, native_port FROM system.peers_v2";

/// The pages of `text`, one row of the node's each.
async fn pages(client: &mut Client, text: &str) -> Vec<Vec<u8>> {
    let mut pages = Vec::new();
    let mut state: Option<Vec<u8>> = None;
    while pages.is_empty() || state.is_some() {
        let (opcode, body) = client.page(text, 1, state.as_deref()).await.unwrap();
        assert_eq!(opcode, Opcode::RESULT, "{text}: {}", String::from_utf8_lossy(&body));
        state = Rows::parse(&body).unwrap().paging_state.map(<[u8]>::to_vec);
        pages.push(body);
    }
    pages
}

/// Where the pages say that the next one begins.
fn states(pages: &[Vec<u8>]) -> Vec<Option<&[u8]>> {
    pages.iter().map(|page| Rows::parse(page).unwrap().paging_state).collect()
}

/// The pages of `text` through the first port and from the node itself; their paging states are the same, and no page through
/// the port has a node's address but as `peer`, the name that nodes have for each other.
async fn both(gate: &Gate, dialect: Dialect, text: &str) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let through = pages(&mut Client::connect(gate.port(0), dialect).await, text).await;
    let direct = pages(&mut Client::connect(gate.cluster.node(0).address(), dialect).await, text).await;
    assert_eq!(states(&through), states(&direct), "{dialect:?} {text}");
    let internal: Vec<IpAddr> = gate.cluster.nodes().iter().map(|node| node.address().ip()).collect();
    let is_internal = |cell: &[u8]| inet_cell(cell).is_some_and(|address| internal.contains(&address));
    for (name, cell) in through.iter().flat_map(|page| rows(page)).flatten() {
        assert!(name == "peer" || !is_internal(&cell), "{dialect:?} {text}: {name}");
    }
    if text == DIALLED {
        for page in &through {
            assert!(!page.windows(4).any(is_internal), "{dialect:?}: {page:02x?}");
        }
    }
    (through, direct)
}

#[tokio::test]
async fn each_page_is_rewritten_and_its_paging_state_passes() {
    let gate = Gate::start().await;
    for dialect in DIALECTS {
        for text in [ALL, DIALLED] {
            let (through, direct) = both(&gate, dialect, text).await;
            assert_eq!(through.len(), 2, "{dialect:?}");
            for (index, (page, original)) in through.iter().zip(&direct).enumerate() {
                let (page, original) = (rows(page), rows(original));
                assert_eq!(page.len(), 1);
                assert_eq!(endpoint(&page[0], "native_address", "native_port"), gate.port(index + 1), "{dialect:?}");
                assert_eq!(page[0]["host_id"], original[0]["host_id"]);
            }
        }
    }
}

#[tokio::test]
async fn a_page_whose_only_row_is_hidden_is_empty_and_not_the_last() {
    let gate = Gate::start_without(1, Options::loopback(3, 0), "").await;
    for dialect in DIALECTS {
        for text in [ALL, DIALLED] {
            let (through, _) = both(&gate, dialect, text).await;
            let shown: Vec<_> = through.iter().map(|page| rows(page)).collect();
            assert_eq!((shown.len(), shown[0].len(), shown[1].len()), (2, 0, 1), "{dialect:?}");
            assert_eq!(endpoint(&shown[1][0], "native_address", "native_port"), gate.port(2), "{dialect:?}");
        }
    }
}

#[tokio::test]
async fn a_paging_state_of_nobodys_is_refused_by_the_node() {
    let gate = Gate::start().await;
    for dialect in DIALECTS {
        let mut client = Client::connect(gate.port(0), dialect).await;
        let (_, first) = client.page(ALL, 1, None).await.unwrap();
        let mut state = Rows::parse(&first).unwrap().paging_state.unwrap().to_vec();
        *state.last_mut().unwrap() ^= 1;
        let (opcode, body) = client.page(ALL, 1, Some(&state)).await.unwrap();
        let expected = (error_code::PROTOCOL_ERROR, "Invalid value for the paging state".to_owned());
        assert_eq!((opcode, error(&body)), (Opcode::ERROR, expected), "{dialect:?}");
    }
}
