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
mod tests;
