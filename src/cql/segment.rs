//! v5's outer unit (native_protocol_v5.spec §2.3): a header with its CRC24, up to 131,071 bytes of payload, a CRC32.
//!
//! The header's CRC24 is always verified: the lengths come from it, and after a wrong one nothing that follows can be
//! trusted. The payload's CRC32 is verified before the payload is decoded or changed and never written over bytes that
//! were not verified. There is no resynchronising after an error.

use super::compression::Compression;
use super::cost;
use super::primitives::DecodeError;

/// The longest payload, compressed or not: 2^17 - 1 bytes.
pub const MAX_PAYLOAD: usize = 131_071;

/// Length of the CRC32 that follows the payload.
pub const TRAILER_LEN: usize = 4;

/// `src/java/org/apache/cassandra/net/Crc.java` in apache/cassandra: CRC24_INIT and CRC24_POLY.
const CRC24_INIT: u32 = 0x87_5060;
const CRC24_POLY: u32 = 0x197_4f0b;

/// The bytes that go into every CRC32 before the payload.
const CRC32_INITIAL_BYTES: [u8; 4] = [0xfa, 0x2d, 0x55, 0xca];

/// The CRC32 of [`CRC32_INITIAL_BYTES`], from where a payload's goes on.
const CRC32_INITIAL: u32 = crc32_const(&CRC32_INITIAL_BYTES);

/// Whether a connection's segments have the short header or the one with two lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Six bytes: payload length, flag, CRC24.
    Plain,
    /// Eight bytes: compressed and uncompressed length, flag, CRC24.
    Lz4,
}

impl Layout {
    /// By what STARTUP asked for. Snappy cannot be: nodes refuse it in v5.
    pub fn of(compression: Option<Compression>) -> Self {
        match compression {
            None | Some(Compression::Snappy) => Self::Plain,
            Some(Compression::Lz4) => Self::Lz4,
        }
    }

    /// Header length in bytes, CRC24 included.
    pub const fn header_len(self) -> usize {
        match self {
            Self::Plain => 6,
            Self::Lz4 => 8,
        }
    }
}

/// One segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub layout: Layout,
    /// Bytes of payload on the wire.
    pub payload_len: usize,
    /// What the payload becomes when decompressed; 0 when it is not compressed (always, in [`Layout::Plain`]).
    pub uncompressed_len: usize,
    /// True: one or more whole frames. False: a part of exactly one.
    pub self_contained: bool,
}

impl SegmentHeader {
    /// The header at the start of `bytes`; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`DecodeError::Checksum`] when the CRC24 differs: close both sides.
    pub fn peek(layout: Layout, bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let (fields, computed, found) = match layout {
            Layout::Plain => {
                let Some(&[a, b, c, x, y, z]) = bytes.first_chunk::<6>() else { return Ok(None) };
                (u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0]), crc24(&[a, b, c]), u32::from_le_bytes([x, y, z, 0]))
            }
            Layout::Lz4 => {
                let Some(&[a, b, c, d, e, x, y, z]) = bytes.first_chunk::<8>() else { return Ok(None) };
                (
                    u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]),
                    crc24(&[a, b, c, d, e]),
                    u32::from_le_bytes([x, y, z, 0]),
                )
            }
        };
        if computed != found {
            return Err(DecodeError::Checksum { what: "segment header", computed, found });
        }
        let length = |bits: u64| (bits & MAX_PAYLOAD as u64) as usize;
        Ok(Some(match layout {
            Layout::Plain => {
                Self { layout, payload_len: length(fields), uncompressed_len: 0, self_contained: fields >> 17 & 1 == 1 }
            }
            Layout::Lz4 => Self {
                layout,
                payload_len: length(fields),
                uncompressed_len: length(fields >> 17),
                self_contained: fields >> 34 & 1 == 1,
            },
        }))
    }

    /// Appends the header with its CRC24. Lengths over [`MAX_PAYLOAD`] are the caller's defect and lose their high bits.
    pub fn append(self, out: &mut Vec<u8>) {
        let payload = (self.payload_len & MAX_PAYLOAD) as u64;
        let uncompressed = (self.uncompressed_len & MAX_PAYLOAD) as u64;
        let flag = u64::from(self.self_contained);
        let [a, b, c, d, e, ..] = match self.layout {
            Layout::Plain => payload | flag << 17,
            Layout::Lz4 => payload | uncompressed << 17 | flag << 34,
        }
        .to_le_bytes();
        let fields = match self.layout {
            Layout::Plain => &[a, b, c][..],
            Layout::Lz4 => &[a, b, c, d, e][..],
        };
        out.extend_from_slice(fields);
        let [x, y, z, _] = crc24(fields).to_le_bytes();
        out.extend_from_slice(&[x, y, z]);
    }

    /// Header, payload and trailer together, in bytes.
    pub fn segment_len(self) -> usize {
        self.layout.header_len() + self.payload_len + TRAILER_LEN
    }

    /// How many bytes of frames the segment carries, known without decompressing.
    pub fn content_len(self) -> usize {
        if self.uncompressed_len == 0 { self.payload_len } else { self.uncompressed_len }
    }

    pub fn is_compressed(self) -> bool {
        self.uncompressed_len != 0
    }

    /// The payload of a whole segment (this header's bytes included), its CRC32 verified.
    ///
    /// # Errors
    /// `Truncated` when the segment is not whole, `Checksum` when the CRC32 differs.
    pub fn payload(self, segment: &[u8]) -> Result<&[u8], DecodeError> {
        let truncated = DecodeError::Truncated { what: "segment", need: self.segment_len(), have: segment.len() };
        let rest = segment.get(self.layout.header_len()..).ok_or(truncated)?;
        let (payload, trailer) = rest.split_at_checked(self.payload_len).ok_or(truncated)?;
        let found = u32::from_le_bytes(*trailer.first_chunk().ok_or(truncated)?);
        let computed = payload_crc(payload);
        if computed != found {
            return Err(DecodeError::Checksum { what: "segment payload", computed, found });
        }
        Ok(payload)
    }

    /// Decompresses `payload` into the start of `out` and returns how many bytes it made: [`Self::content_len`].
    /// A payload that is not compressed is copied.
    ///
    /// # Errors
    /// `TooLong` when `out` is shorter than the declared length; `Malformed` when the block does not give just that.
    pub fn decompress(self, payload: &[u8], out: &mut [u8]) -> Result<usize, DecodeError> {
        let what = "segment payload";
        let (length, limit) = (self.content_len(), out.len());
        let out =
            out.get_mut(..length).ok_or(DecodeError::TooLong { what, length: length as u64, limit: limit as u64 })?;
        cost::steps(length);
        if self.is_compressed() {
            match lz4_flex::block::decompress_into(payload, out) {
                Ok(written) if written == length => Ok(length),
                _ => Err(DecodeError::Malformed { what }),
            }
        } else if payload.len() == length {
            out.copy_from_slice(payload);
            Ok(length)
        } else {
            Err(DecodeError::Truncated { what, need: length, have: payload.len() })
        }
    }
}

/// Appends one whole frame: one self-contained segment, or a run of parts when it is longer than [`MAX_PAYLOAD`].
/// Payloads are not compressed; in [`Layout::Lz4`] that is said by an uncompressed length of 0.
pub fn append_frame(out: &mut Vec<u8>, layout: Layout, frame: &[u8]) {
    let self_contained = frame.len() <= MAX_PAYLOAD;
    for payload in frame.chunks(MAX_PAYLOAD) {
        append_segment(out, layout, self_contained, payload);
    }
}

/// Appends one segment with `payload` (at most [`MAX_PAYLOAD`] bytes, cut otherwise) as it is.
pub fn append_segment(out: &mut Vec<u8>, layout: Layout, self_contained: bool, payload: &[u8]) {
    let payload = payload.get(..MAX_PAYLOAD).unwrap_or(payload);
    SegmentHeader { layout, payload_len: payload.len(), uncompressed_len: 0, self_contained }.append(out);
    cost::steps(payload.len());
    out.extend_from_slice(payload);
    out.extend_from_slice(&payload_crc(payload).to_le_bytes());
}

/// Appends one [`Layout::Lz4`] segment with `payload` compressed, or as it is when that is not longer.
pub fn append_lz4_segment(out: &mut Vec<u8>, self_contained: bool, payload: &[u8]) {
    let payload = payload.get(..MAX_PAYLOAD).unwrap_or(payload);
    cost::steps(payload.len());
    let compressed = lz4_flex::block::compress(payload);
    if compressed.len() >= payload.len() {
        return append_segment(out, Layout::Lz4, self_contained, payload);
    }
    let (payload_len, uncompressed_len) = (compressed.len(), payload.len());
    SegmentHeader { layout: Layout::Lz4, payload_len, uncompressed_len, self_contained }.append(out);
    out.extend_from_slice(&compressed);
    out.extend_from_slice(&payload_crc(&compressed).to_le_bytes());
}

/// The CRC32 of a payload as it is on the wire.
pub fn payload_crc(payload: &[u8]) -> u32 {
    cost::steps(payload.len());
    let mut hasher = crc32fast::Hasher::new_with_initial(CRC32_INITIAL);
    hasher.update(payload);
    hasher.finalize()
}

fn crc24(bytes: &[u8]) -> u32 {
    bytes.iter().fold(CRC24_INIT, |crc, &byte| {
        let index = (crc >> 16) as u8 ^ byte;
        // `index` is a byte and the table has an entry for each.
        (crc << 8) & 0xff_ffff ^ CRC24_TABLE.get(usize::from(index)).copied().unwrap_or_default()
    })
}

static CRC24_TABLE: [u32; 256] = crc24_table();

const fn crc24_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u32) << 16;
        let mut bit = 0;
        while bit < 8 {
            crc <<= 1;
            if crc & 0x100_0000 != 0 {
                crc ^= CRC24_POLY;
            }
            bit += 1;
        }
        table[index] = crc & 0xff_ffff;
        index += 1;
    }
    table
}

const fn crc32_const(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    let mut index = 0;
    while index < bytes.len() {
        crc ^= bytes[index] as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        index += 1;
    }
    !crc
}

#[cfg(test)]
mod tests {
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
}
