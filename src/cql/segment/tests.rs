use super::*;
use proptest::prelude::*;

/// `Crc.crc24` of apache/cassandra, bit by bit.
fn crc24_reference(bytes: &[u8]) -> u32 {
    let mut crc = CRC24_INIT;
    for &byte in bytes {
        crc ^= u32::from(byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x100_0000 != 0 {
                crc ^= CRC24_POLY;
            }
        }
    }
    crc
}

#[test]
fn header_fields_are_little_endian() {
    let mut bytes = Vec::new();
    let header =
        SegmentHeader { layout: Layout::Plain, payload_len: 0x1_0203, uncompressed_len: 0, self_contained: true };
    header.append(&mut bytes);
    assert_eq!(bytes[..3], [0x03, 0x02, 0x03]);
    assert_eq!(SegmentHeader::peek(Layout::Plain, &bytes), Ok(Some(header)));
    assert_eq!(header.content_len(), 0x1_0203);
    assert_eq!(header.segment_len(), 6 + 0x1_0203 + 4);
}

#[test]
fn payload_crc_starts_with_the_four_bytes_of_the_specification() {
    for payload in [&b""[..], b"a", &[0; 1000]] {
        let mut whole = CRC32_INITIAL_BYTES.to_vec();
        whole.extend_from_slice(payload);
        assert_eq!(payload_crc(payload), crc32fast::hash(&whole));
    }
}

#[test]
fn a_damaged_header_is_never_read() {
    let mut bytes = Vec::new();
    append_segment(&mut bytes, Layout::Lz4, true, b"payload");
    for bit in 0..64 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(SegmentHeader::peek(Layout::Lz4, &damaged), Err(DecodeError::Checksum { .. })));
    }
}

#[test]
fn a_damaged_payload_is_not_given_out() {
    let mut bytes = Vec::new();
    append_segment(&mut bytes, Layout::Plain, true, b"payload");
    let header = SegmentHeader::peek(Layout::Plain, &bytes).unwrap().unwrap();
    assert_eq!(header.payload(&bytes), Ok(&b"payload"[..]));
    for have in 0..bytes.len() {
        assert!(header.payload(&bytes[..have]).unwrap_err().is_truncated());
    }
    bytes[8] ^= 1;
    assert!(matches!(header.payload(&bytes), Err(DecodeError::Checksum { .. })));
}

#[test]
fn a_frame_longer_than_a_payload_becomes_parts() {
    for (length, parts) in [(0, 0), (1, 1), (MAX_PAYLOAD, 1), (MAX_PAYLOAD + 1, 2), (3 * MAX_PAYLOAD, 3)] {
        let frame: Vec<u8> = (0..length).map(|i| i as u8).collect();
        let mut out = Vec::new();
        append_frame(&mut out, Layout::Plain, &frame);
        let (mut rest, mut joined, mut count) = (&out[..], Vec::new(), 0);
        while let Some(header) = SegmentHeader::peek(Layout::Plain, rest).unwrap() {
            assert_eq!(header.self_contained, parts == 1);
            joined.extend_from_slice(header.payload(rest).unwrap());
            rest = &rest[header.segment_len()..];
            count += 1;
        }
        assert_eq!((count, rest.len()), (parts, 0));
        assert_eq!(joined, frame);
    }
}

#[test]
fn a_lie_about_the_uncompressed_length_is_malformed() {
    let payload = vec![7; 5000];
    let mut bytes = Vec::new();
    append_lz4_segment(&mut bytes, true, &payload);
    let header = SegmentHeader::peek(Layout::Lz4, &bytes).unwrap().unwrap();
    assert!(header.is_compressed() && header.payload_len < 100);
    let compressed = header.payload(&bytes).unwrap();
    let mut out = vec![0; MAX_PAYLOAD];
    assert_eq!(header.decompress(compressed, &mut out), Ok(5000));
    assert_eq!(out[..5000], payload);
    for lie in [1, 4999, 5001, MAX_PAYLOAD] {
        let header = SegmentHeader { uncompressed_len: lie, ..header };
        assert_eq!(
            header.decompress(compressed, &mut out),
            Err(DecodeError::Malformed { what: "segment payload" }),
            "{lie}"
        );
    }
    assert!(matches!(header.decompress(compressed, &mut out[..4999]), Err(DecodeError::TooLong { .. })));
}

proptest! {
    #[test]
    fn crc24_is_that_of_cassandra(bytes in prop::collection::vec(any::<u8>(), 0..8)) {
        prop_assert_eq!(crc24(&bytes), crc24_reference(&bytes));
    }

    #[test]
    fn headers_round_trip(lz4: bool, payload_len in 0..=MAX_PAYLOAD, uncompressed in 0..=MAX_PAYLOAD, self_contained: bool) {
        let layout = if lz4 { Layout::Lz4 } else { Layout::Plain };
        let uncompressed_len = if lz4 { uncompressed } else { 0 };
        let header = SegmentHeader { layout, payload_len, uncompressed_len, self_contained };
        let mut bytes = Vec::new();
        header.append(&mut bytes);
        prop_assert_eq!(bytes.len(), layout.header_len());
        prop_assert_eq!(SegmentHeader::peek(layout, &bytes), Ok(Some(header)));
        for have in 0..bytes.len() {
            prop_assert_eq!(SegmentHeader::peek(layout, &bytes[..have]), Ok(None));
        }
    }

    #[test]
    fn payloads_round_trip_through_lz4(payload in prop::collection::vec(0u8..4, 0..2000)) {
        let mut bytes = Vec::new();
        append_lz4_segment(&mut bytes, false, &payload);
        let header = SegmentHeader::peek(Layout::Lz4, &bytes).unwrap().unwrap();
        let mut out = vec![0; MAX_PAYLOAD];
        let length = header.decompress(header.payload(&bytes).unwrap(), &mut out).unwrap();
        prop_assert_eq!(&out[..length], &payload[..]);
    }

    #[test]
    fn arbitrary_payloads_never_panic(payload in prop::collection::vec(any::<u8>(), 0..200), uncompressed_len in 0..2000usize) {
        let header = SegmentHeader { layout: Layout::Lz4, payload_len: payload.len(), uncompressed_len, self_contained: true };
        let _ = header.decompress(&payload, &mut [0; 2000]);
    }
}
