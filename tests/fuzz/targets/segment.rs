//! Any bytes as segments: nothing that is damaged is given out, and what is written is read back as it was.
#![no_main]

use cqlgate::cql::segment::{Layout, MAX_PAYLOAD, SegmentHeader, append_frame, append_lz4_segment};
use cqlgate_fuzz::within;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for layout in [Layout::Plain, Layout::Lz4] {
        // Reading allocates nothing but the caller's own buffer.
        let mut out = vec![0; MAX_PAYLOAD];
        within(0, || walk(layout, bytes, &mut out));
        lie(layout, bytes, &mut out);
        round_trip(layout, bytes, &mut out);
    }
});

/// The bytes as they came.
fn walk(layout: Layout, mut bytes: &[u8], out: &mut [u8]) {
    while let Ok(Some(header)) = SegmentHeader::peek(layout, bytes) {
        assert!(header.payload_len <= MAX_PAYLOAD && header.content_len() <= MAX_PAYLOAD);
        let Ok(payload) = header.payload(bytes) else { return };
        if let Ok(length) = header.decompress(payload, out) {
            assert_eq!(length, header.content_len());
        }
        bytes = &bytes[header.segment_len()..];
    }
}

/// The bytes as the payload of a header that claims something else: a fuzzer does not guess checksums.
fn lie(layout: Layout, bytes: &[u8], out: &mut [u8]) {
    let Some((&[a, b], payload)) = bytes.split_first_chunk() else { return };
    let uncompressed_len = usize::from(u16::from_be_bytes([a, b])) * 2;
    let payload_len = payload.len().min(MAX_PAYLOAD);
    let header = SegmentHeader { layout, payload_len, uncompressed_len, self_contained: a & 1 == 1 };
    if let Ok(length) = within(0, || header.decompress(&payload[..payload_len], out)) {
        assert_eq!(length, header.content_len());
    }
}

fn round_trip(layout: Layout, frame: &[u8], out: &mut [u8]) {
    let mut wire = Vec::new();
    append_frame(&mut wire, layout, frame);
    if layout == Layout::Lz4 && frame.len() <= MAX_PAYLOAD {
        append_lz4_segment(&mut wire, true, frame);
    }
    let (mut rest, mut joined) = (&wire[..], Vec::new());
    while let Some(header) = SegmentHeader::peek(layout, rest).expect("own header") {
        let payload = header.payload(rest).expect("own payload");
        let length = header.decompress(payload, out).expect("own content");
        joined.extend_from_slice(&out[..length]);
        rest = &rest[header.segment_len()..];
    }
    assert!(rest.is_empty());
    let times = if layout == Layout::Lz4 && frame.len() <= MAX_PAYLOAD { 2 } else { 1 };
    assert_eq!(joined, frame.repeat(times));
}
