//! Any stream of frames, in any segments, in any chunks: what comes out is what the judge said of each frame.

use proptest::prelude::*;

use super::frames::FrameWalk;
use super::segments::SegmentWalk;
use super::*;
use crate::cql::frame::{Flags, HEADER_LEN, Opcode, encode_frame};
use crate::cql::segment::{self, Layout, MAX_PAYLOAD, SegmentHeader};
use crate::rewrite::Why;

const PASS: Opcode = Opcode(0x40);
/// Decided only when four bytes of the body are there.
const LATE: Opcode = Opcode(0x41);
/// Its body's byte 7 loses bit 0x02.
const CLEAR: Opcode = Opcode(0x42);
/// Its body is doubled.
const DOUBLE: Opcode = Opcode(0x43);
const DROP: Opcode = Opcode(0x44);
/// Held, then passed.
const KEEP: Opcode = Opcode(0x45);
/// Asks for more than the frame claims to have, until it is there whole: a malformed length inside.
const GREEDY: Opcode = Opcode(0x46);

/// Its body is doubled, at the third turn.
const TURNS: Opcode = Opcode(0x47);

struct TestJudge {
    turns: usize,
    max_body: u32,
    held_limit: usize,
}

impl Judge for TestJudge {
    fn judge(&mut self, header: Header, body: &[u8], _work: &mut Work<'_>) -> Verdict {
        let is_whole = body.len() == header.length as usize;
        match header.opcode {
            LATE if body.len() < header.length.min(4) as usize => Verdict::Need(header.length.min(4) as usize),
            GREEDY if !is_whole => Verdict::Need(body.len() + 5000),
            CLEAR if header.length > 7 => Verdict::Clear(Clear { offset: 7, bits: 0x02 }),
            DOUBLE | DROP | KEEP | TURNS if !is_whole => Verdict::Need(header.length as usize),
            TURNS if self.turns < 2 => {
                self.turns += 1;
                Verdict::Later
            }
            DOUBLE | TURNS => {
                self.turns = 0;
                Verdict::Replace(encode_frame(header, &[body, body].concat()))
            }
            DROP => Verdict::Replace(Vec::new()),
            _ => Verdict::Pass,
        }
    }

    fn refuse(&self, header: Header) -> Option<Failure> {
        (header.length > self.max_body).then(|| Why::FrameTooLong.into())
    }

    fn held_limit(&self) -> usize {
        self.held_limit
    }

    fn passes_corrupt_payload(&self) -> bool {
        true
    }
}

fn judge() -> TestJudge {
    TestJudge { turns: 0, max_body: 1 << 20, held_limit: 1 << 20 }
}

/// What the judge makes of a frame; empty when it drops it.
fn expected_frame(frame: &[u8]) -> Vec<u8> {
    let header = Header::peek(frame).unwrap();
    let body = &frame[HEADER_LEN..];
    match header.opcode {
        DROP => Vec::new(),
        DOUBLE | TURNS => encode_frame(header, &[body, body].concat()),
        CLEAR if body.len() > 7 => {
            let mut frame = frame.to_vec();
            frame[HEADER_LEN + 7] &= !0x02;
            frame
        }
        _ => frame.to_vec(),
    }
}

fn frame(opcode: Opcode, body: &[u8]) -> Vec<u8> {
    encode_frame(Header { version: 4, flags: Flags(0), stream: 5, opcode, length: 0 }, body)
}

/// Feeds `input` in chunks, as the relay does: undecided bytes are kept, and asked about when enough are there.
fn drive(input: &[u8], chunks: &[usize], mut ask: impl FnMut(&[u8]) -> Step) -> Result<Vec<u8>, Failure> {
    let (mut out, mut held, mut need, mut at) = (Vec::new(), Vec::new(), 0, 0);
    let mut chunks = chunks.iter().cycle();
    while at < input.len() {
        let len = (*chunks.next().unwrap()).min(input.len() - at);
        held.extend_from_slice(&input[at..at + len]);
        at += len;
        while held.len() >= need && !held.is_empty() {
            need = 0;
            let Step { pass, then } = ask(&held);
            out.extend(held.drain(..pass));
            match then {
                Then::Wait { need: more } => {
                    assert!(more > held.len(), "waits for what is there");
                    need = more;
                }
                Then::Replace { consumed, made } => {
                    held.drain(..consumed);
                    out.extend(made);
                }
                Then::Fail(failure) => return Err(failure),
                Then::Yield | Then::Login(_) => {}
            }
        }
    }
    assert!(held.is_empty(), "{} bytes left undecided", held.len());
    Ok(out)
}

fn through_frames(input: &[u8], chunks: &[usize]) -> Result<Vec<u8>, Failure> {
    let mut walk = FrameWalk::default();
    let (mut judge, mut scratch) = (judge(), Vec::new());
    let out = drive(input, chunks, |bytes| walk.step(&mut judge, bytes, &mut Work::new(&mut scratch)))?;
    assert!(walk.at_boundary());
    Ok(out)
}

fn through_segments(layout: Layout, input: &[u8], chunks: &[usize]) -> Result<Vec<u8>, Failure> {
    let mut walk = SegmentWalk::new(layout);
    let mut scratch = vec![0; MAX_PAYLOAD];
    let mut judge = judge();
    let out = drive(input, chunks, |bytes| walk.step(&mut judge, bytes, &mut Work::new(&mut scratch)))?;
    assert!(walk.at_boundary());
    Ok(out)
}

/// The frames in a stream of segments, each segment's checksums and rules checked.
fn unwrap_segments(layout: Layout, mut bytes: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut spanning = 0;
    while !bytes.is_empty() {
        let header = SegmentHeader::peek(layout, bytes).unwrap().unwrap();
        let (segment, rest) = bytes.split_at(header.segment_len());
        let mut content = vec![0; header.content_len()];
        header.decompress(header.payload(segment).unwrap(), &mut content).unwrap();
        assert!(!content.is_empty());
        if header.self_contained {
            assert_eq!(spanning, 0, "a self-contained segment inside a frame that spans segments");
            let mut at = 0;
            while at < content.len() {
                at += usize::try_from(Header::peek(&content[at..]).unwrap().frame_len()).unwrap();
            }
            assert_eq!(at, content.len(), "a self-contained segment holds whole frames");
        } else {
            if spanning == 0 {
                spanning = usize::try_from(Header::peek(&content).unwrap().frame_len()).unwrap();
            }
            spanning -= content.len();
        }
        frames.extend(content);
        bytes = rest;
    }
    assert_eq!(spanning, 0);
    frames
}

/// Segments around frames as a peer might make them: several frames in one, or one frame in parts of any size.
fn in_peer_segments(layout: Layout, frames: &[Vec<u8>], together: usize, part: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut append = |self_contained, payload: &[u8]| match layout {
        Layout::Plain => segment::append_segment(&mut out, layout, self_contained, payload),
        Layout::Lz4 => segment::append_lz4_segment(&mut out, self_contained, payload),
    };
    let mut batch = Vec::new();
    for frame in frames {
        if frame.len() > part {
            if !batch.is_empty() {
                append(true, &std::mem::take(&mut batch));
            }
            frame.chunks(part).for_each(|chunk| append(false, chunk));
            continue;
        }
        batch.extend_from_slice(frame);
        if batch.len() >= together {
            append(true, &std::mem::take(&mut batch));
        }
    }
    if !batch.is_empty() {
        append(true, &batch);
    }
    out
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![
        Just(PASS),
        Just(LATE),
        Just(CLEAR),
        Just(DOUBLE),
        Just(DROP),
        Just(KEEP),
        Just(GREEDY),
        Just(TURNS)
    ];
    (opcode, prop_oneof![0_usize..40, 200_usize..2000], any::<u8>()).prop_map(|(opcode, len, seed)| {
        let body: Vec<u8> = (0..len).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        frame(opcode, &body)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn frames_in_any_chunks(
        frames in proptest::collection::vec(any_frame(), 1..12),
        chunks in proptest::collection::vec(1_usize..600, 1..6),
    ) {
        let expected: Vec<u8> = frames.iter().flat_map(|frame| expected_frame(frame)).collect();
        prop_assert_eq!(through_frames(&frames.concat(), &chunks).unwrap(), expected);
    }

    #[test]
    fn segments_in_any_chunks(
        frames in proptest::collection::vec(any_frame(), 1..12),
        chunks in proptest::collection::vec(1_usize..600, 1..6),
        together in 1_usize..3000,
        part in 16_usize..1500,
        lz4 in any::<bool>(),
    ) {
        let layout = if lz4 { Layout::Lz4 } else { Layout::Plain };
        let expected: Vec<u8> = frames.iter().flat_map(|frame| expected_frame(frame)).collect();
        let input = in_peer_segments(layout, &frames, together, part);
        let out = through_segments(layout, &input, &chunks).unwrap();
        prop_assert_eq!(unwrap_segments(layout, &out), expected);
    }
}

#[test]
fn segments_that_need_no_change_pass_byte_for_byte() {
    let frames = [frame(PASS, &[1; 500]), frame(LATE, &[2; 900]), frame(KEEP, &[3; 100]), frame(PASS, &[4; 5000])];
    for layout in [Layout::Plain, Layout::Lz4] {
        let input = in_peer_segments(layout, &frames, 1000, 2000);
        for chunk in [1, 7, 100, 10_000] {
            assert_eq!(through_segments(layout, &input, &[chunk]).unwrap(), input);
        }
    }
}

#[test]
fn a_frame_longer_than_a_segment_that_changes_is_cut_anew() {
    let frames = [frame(PASS, &[1; 9]), frame(DOUBLE, &[2; 100_000]), frame(PASS, &[3; 9])];
    for layout in [Layout::Plain, Layout::Lz4] {
        let input = in_peer_segments(layout, &frames, 1, 50_000);
        let out = through_segments(layout, &input, &[4096]).unwrap();
        let expected: Vec<u8> = frames.iter().flat_map(|frame| expected_frame(frame)).collect();
        assert_eq!(unwrap_segments(layout, &out), expected);
    }
}

#[test]
fn a_large_frame_streams_while_it_arrives() {
    let mut walk = FrameWalk::default();
    let start = Header { version: 4, flags: Flags(0), stream: 0, opcode: PASS, length: 1 << 20 }.encode();
    assert_eq!(walk.step(&mut judge(), &start, &mut Work::new(&mut [])).pass, HEADER_LEN);
    assert_eq!(walk.step(&mut judge(), &[0; 1000], &mut Work::new(&mut [])).pass, 1000);
    assert!(!walk.at_boundary());
}

fn check_failure(layout: Option<Layout>, input: &[u8], why: Why) {
    let failed = match layout {
        None => through_frames(input, &[64]),
        Some(layout) => through_segments(layout, input, &[64]),
    };
    assert_eq!(failed.unwrap_err().why, why);
}

#[test]
fn frames_over_a_limit_end_the_connection_before_they_arrive() {
    for length in [(1 << 20) + 1, 0x8000_0000, u32::MAX] {
        let header = Header { version: 4, flags: Flags(0), stream: 0, opcode: PASS, length }.encode();
        check_failure(None, &header, Why::FrameTooLong);
    }
    let header = Header { version: 4, flags: Flags(0), stream: 0, opcode: DOUBLE, length: 1 << 20 }.encode();
    check_failure(None, &header, Why::HeldFrameTooLong);
}

#[test]
fn a_wrong_header_checksum_ends_the_connection() {
    for layout in [Layout::Plain, Layout::Lz4] {
        let mut input = in_peer_segments(layout, &[frame(PASS, &[1; 50])], 1, 1000);
        input[1] ^= 1;
        check_failure(Some(layout), &input, Why::HeaderChecksum);
    }
}

#[test]
fn a_wrong_payload_checksum_passes_where_the_receiver_is_to_refuse_it() {
    let mut input = in_peer_segments(Layout::Plain, &[frame(DOUBLE, &[1; 50])], 1, 1000);
    let last = input.len() - 10;
    input[last] ^= 1;
    assert_eq!(through_segments(Layout::Plain, &input, &[1000]).unwrap(), input);
}

#[test]
fn a_held_frame_with_a_wrong_payload_checksum_is_never_signed_again() {
    let mut input = in_peer_segments(Layout::Plain, &[frame(DOUBLE, &[1; 500])], 1, 100);
    let last = input.len() - 10;
    input[last] ^= 1;
    check_failure(Some(Layout::Plain), &input, Why::PayloadChecksum);
}

#[test]
fn segments_that_break_the_rules_end_the_connection() {
    let whole = frame(PASS, &[1; 50]);
    let mut truncated = Vec::new();
    segment::append_segment(&mut truncated, Layout::Plain, true, &whole[..30]);
    check_failure(Some(Layout::Plain), &truncated, Why::Malformed);
    let mut trailing = Vec::new();
    segment::append_segment(&mut trailing, Layout::Plain, true, &[&whole[..], &[1, 2]].concat());
    check_failure(Some(Layout::Plain), &trailing, Why::Malformed);
    let mut empty = Vec::new();
    segment::append_segment(&mut empty, Layout::Plain, true, &[]);
    check_failure(Some(Layout::Plain), &empty, Why::Malformed);
    let mut short_first_part = Vec::new();
    segment::append_segment(&mut short_first_part, Layout::Plain, false, &whole[..5]);
    check_failure(Some(Layout::Plain), &short_first_part, Why::Malformed);
    let mut interrupted = Vec::new();
    segment::append_segment(&mut interrupted, Layout::Plain, false, &whole[..20]);
    segment::append_segment(&mut interrupted, Layout::Plain, true, &whole);
    check_failure(Some(Layout::Plain), &interrupted, Why::Malformed);
    let mut too_much = Vec::new();
    segment::append_segment(&mut too_much, Layout::Plain, false, &[&whole[..], &[0]].concat());
    check_failure(Some(Layout::Plain), &too_much, Why::Malformed);
}
