//! Frames in and out of one connection: plain in v3 and v4 (bodies compressed when asked for), in segments in v5.

use bytes::{Buf, BytesMut};

use crate::cql::compression::Compression;
use crate::cql::frame::{Flags, HEADER_LEN, Header, Opcode, Version, encode_frame};
use crate::cql::primitives::DecodeError;
use crate::cql::segment::{self, Layout, MAX_PAYLOAD, SegmentHeader};

/// The longest request, `native_transport_max_request_data_in_flight`'s order of magnitude: it is held whole.
const MAX_REQUEST: u32 = 16 * 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Wire {
    /// What the socket gave and nobody has looked at yet.
    pub input: BytesMut,
    /// Frames taken out of segments.
    frames: BytesMut,
    /// What STARTUP settled; `None` before.
    session: Option<(Version, Option<Compression>)>,
}

impl Wire {
    /// From here on both sides speak as STARTUP asked for.
    pub fn establish(&mut self, version: Version, compression: Option<Compression>) {
        self.session = Some((version, compression));
    }

    /// What STARTUP settled.
    pub fn version(&self) -> Option<Version> {
        self.session.map(|(version, _)| version)
    }

    fn layout(&self) -> Option<Layout> {
        self.session.filter(|&(version, _)| version >= Version::V5).map(|(_, compression)| Layout::of(compression))
    }

    /// The next whole request, its body decompressed; `None` until more has arrived.
    pub fn next(&mut self) -> Result<Option<(Header, Vec<u8>)>, DecodeError> {
        let segmented = self.layout();
        if let Some(layout) = segmented {
            self.open_segments(layout)?;
        }
        let buffer = if segmented.is_some() { &mut self.frames } else { &mut self.input };
        let Some(header) = Header::peek(buffer) else { return Ok(None) };
        if header.length > MAX_REQUEST {
            let (length, limit) = (u64::from(header.length), u64::from(MAX_REQUEST));
            return Err(DecodeError::TooLong { what: "request", length, limit });
        }
        let body_len = header.length as usize;
        if buffer.len() < HEADER_LEN + body_len {
            return Ok(None);
        }
        buffer.advance(HEADER_LEN);
        let body = buffer.split_to(body_len);
        // In v5 nodes ignore the flag: one driver sets it although segments, not bodies, are compressed.
        match self.session {
            Some((version, Some(compression))) if version < Version::V5 && header.flags.has(Flags::COMPRESSION) => {
                Ok(Some((header, compression.decompress(&body, MAX_REQUEST as usize)?)))
            }
            _ => Ok(Some((header, body.to_vec()))),
        }
    }

    fn open_segments(&mut self, layout: Layout) -> Result<(), DecodeError> {
        while let Some(header) = SegmentHeader::peek(layout, &self.input)? {
            if self.input.len() < header.segment_len() {
                break;
            }
            let segment = self.input.split_to(header.segment_len());
            let payload = header.payload(&segment)?;
            let mut content = vec![0; header.content_len()];
            header.decompress(payload, &mut content)?;
            self.frames.extend_from_slice(&content);
        }
        Ok(())
    }

    /// One response frame, not yet in a segment.
    pub fn frame(&self, version: u8, stream: i16, flags: u8, opcode: Opcode, body: &[u8]) -> Vec<u8> {
        let header = Header { version: 0x80 | version, flags: Flags(flags), stream, opcode, length: 0 };
        if let Some((Version::V3 | Version::V4, Some(compression))) = self.session
            && let Ok(compressed) = compression.compress(body)
        {
            let flags = Flags(flags | Flags::COMPRESSION);
            return encode_frame(Header { flags, ..header }, &compressed);
        }
        encode_frame(header, body)
    }

    /// What goes to the socket for `frames`: in v5 as many frames in each segment as fit, a longer one in parts.
    pub fn pack(&self, frames: &[Vec<u8>]) -> Vec<u8> {
        let Some(layout) = self.layout() else { return frames.concat() };
        let mut out = Vec::new();
        let mut together = Vec::new();
        for frame in frames {
            if together.len() + frame.len() > MAX_PAYLOAD {
                append(&mut out, layout, true, &together);
                together.clear();
            }
            if frame.len() > MAX_PAYLOAD {
                for part in frame.chunks(MAX_PAYLOAD) {
                    append(&mut out, layout, false, part);
                }
            } else {
                together.extend_from_slice(frame);
            }
        }
        append(&mut out, layout, true, &together);
        out
    }
}

fn append(out: &mut Vec<u8>, layout: Layout, self_contained: bool, payload: &[u8]) {
    match (payload.is_empty(), layout) {
        (true, _) => {}
        (false, Layout::Plain) => segment::append_segment(out, layout, self_contained, payload),
        (false, Layout::Lz4) => segment::append_lz4_segment(out, self_contained, payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one `Wire` packs, another reads: `bodies` in, the same out, in pieces of `piece` bytes.
    fn check(version: Version, compression: Option<Compression>, bodies: &[Vec<u8>], piece: usize) {
        let (mut sender, mut receiver) = (Wire::default(), Wire::default());
        sender.establish(version, compression);
        receiver.establish(version, compression);
        let frames: Vec<_> =
            bodies.iter().map(|body| sender.frame(version.number(), 7, 0, Opcode::RESULT, body)).collect();
        let mut found = Vec::new();
        for bytes in sender.pack(&frames).chunks(piece) {
            receiver.input.extend_from_slice(bytes);
            while let Some((header, body)) = receiver.next().unwrap() {
                assert_eq!((header.stream, header.opcode), (7, Opcode::RESULT));
                found.push(body);
            }
        }
        assert!(found == bodies, "{version:?} {compression:?}");
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let bodies = [vec![1; 10], vec![2; 300_000], vec![], vec![3; 130_000], vec![4; 5_000]];
        for version in [Version::V3, Version::V4, Version::V5] {
            for compression in [None, Some(Compression::Lz4), Some(Compression::Snappy)] {
                for piece in [7, 1000, usize::MAX] {
                    check(version, compression, &bodies, piece);
                }
            }
        }
    }

    #[test]
    fn a_request_over_the_limit_is_refused_before_it_is_held() {
        let mut wire = Wire::default();
        wire.input.extend_from_slice(&[4, 0, 0, 0, 7, 0x7f, 0xff, 0xff, 0xff]);
        assert!(matches!(wire.next(), Err(DecodeError::TooLong { .. })));
    }
}
