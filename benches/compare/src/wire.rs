//! Frames (the nine-byte header and a body) and what carries them: nothing in v4, checksummed segments in v5
//! (native_protocol_v4.spec §2, native_protocol_v5.spec §2).

/// What follows STARTUP on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    V4,
    V5,
    V5Lz4,
}

impl Protocol {
    pub fn number(self) -> u8 {
        if self == Self::V4 { 4 } else { 5 }
    }

    fn header_len(self) -> usize {
        if self == Self::V5Lz4 { 8 } else { 6 }
    }
}

pub const HEADER: usize = 9;
const MAX_PAYLOAD: usize = 131_071;

pub mod opcode {
    pub const ERROR: u8 = 0x00;
    pub const STARTUP: u8 = 0x01;
    pub const READY: u8 = 0x02;
    pub const OPTIONS: u8 = 0x05;
    pub const SUPPORTED: u8 = 0x06;
    pub const QUERY: u8 = 0x07;
    pub const RESULT: u8 = 0x08;
    pub const PREPARE: u8 = 0x09;
    pub const EXECUTE: u8 = 0x0a;
    pub const REGISTER: u8 = 0x0b;
}

/// One frame that has arrived whole.
pub struct Frame<'a> {
    pub version: u8,
    pub stream: u16,
    pub opcode: u8,
    pub body: &'a [u8],
}

/// Appends a frame. `version` has bit 7 set in responses.
pub fn append_frame(out: &mut Vec<u8>, version: u8, stream: u16, opcode: u8, body: &[u8]) {
    let [s0, s1] = stream.to_be_bytes();
    out.extend_from_slice(&[version, 0, s0, s1, opcode]);
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
}

fn frame_len(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(5..HEADER)?;
    Some(HEADER + u32::from_be_bytes(length.try_into().unwrap()) as usize)
}

/// Appends whole frames as they go on the wire: as they are, or in as few segments as they need.
pub fn append_wire(protocol: Protocol, frames: &[u8], out: &mut Vec<u8>) {
    if protocol == Protocol::V4 {
        return out.extend_from_slice(frames);
    }
    let mut rest = frames;
    while let Some(first) = frame_len(rest) {
        let mut end = first;
        while let Some(next) = frame_len(&rest[end..]).filter(|next| end + next <= MAX_PAYLOAD) {
            end += next;
        }
        for payload in rest[..end].chunks(MAX_PAYLOAD) {
            append_segment(protocol, payload, end <= MAX_PAYLOAD, out);
        }
        rest = &rest[end..];
    }
}

fn append_segment(protocol: Protocol, plain: &[u8], self_contained: bool, out: &mut Vec<u8>) {
    let compressed = match protocol {
        Protocol::V5Lz4 => Some(lz4_flex::block::compress(plain)).filter(|it| it.len() < plain.len()),
        _ => None,
    };
    let uncompressed_len = compressed.as_ref().map_or(0, |_| plain.len()) as u64;
    let payload = compressed.as_deref().unwrap_or(plain);
    let (length, flag) = (payload.len() as u64, u64::from(self_contained));
    let (fields, width) = match protocol {
        Protocol::V5Lz4 => (length | uncompressed_len << 17 | flag << 34, 5),
        _ => (length | flag << 17, 3),
    };
    let header = &fields.to_le_bytes()[..width];
    out.extend_from_slice(header);
    out.extend_from_slice(&crc24(header).to_le_bytes()[..3]);
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32(payload).to_le_bytes());
}

/// Turns what arrives into frames; holds only what is not whole yet.
pub struct Reader {
    protocol: Protocol,
    /// Wire bytes of a frame (v4) or segment (v5) that is not whole.
    wire: Vec<u8>,
    /// v5: parts of a frame that spans segments.
    parts: Vec<u8>,
    plain: Vec<u8>,
}

impl Reader {
    pub fn new(protocol: Protocol) -> Self {
        Self { protocol, wire: Vec::new(), parts: Vec::new(), plain: Vec::new() }
    }

    /// For what follows the answer to STARTUP.
    pub fn switch(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Calls `each` for every frame that `bytes` complete. An error is a defect of the other side, or of the middle.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Frame<'_>)) -> Result<(), String> {
        if self.wire.is_empty() {
            let used = self.walk(bytes, &mut each)?;
            self.wire.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut wire = std::mem::take(&mut self.wire);
        wire.extend_from_slice(bytes);
        let used = self.walk(&wire, &mut each)?;
        wire.drain(..used);
        self.wire = wire;
        Ok(())
    }

    fn walk(&mut self, bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) -> Result<usize, String> {
        if self.protocol == Protocol::V4 {
            return Ok(frames(bytes, each));
        }
        let header_len = self.protocol.header_len();
        let mut used = 0;
        while let Some(header) = bytes.get(used..used + header_len) {
            let (fields, crc) = header.split_at(header_len - 3);
            if crc24(fields).to_le_bytes()[..3] != *crc {
                return Err("segment header: CRC24 differs".into());
            }
            let bits = fields.iter().rev().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
            let (length, lz4) = ((bits & 0x1_ffff) as usize, self.protocol == Protocol::V5Lz4);
            let uncompressed = if lz4 { (bits >> 17 & 0x1_ffff) as usize } else { 0 };
            let self_contained = bits >> (if lz4 { 34 } else { 17 }) & 1 == 1;
            let Some(rest) = bytes.get(used + header_len..used + header_len + length + 4) else { break };
            let (payload, trailer) = rest.split_at(length);
            if crc32(payload).to_le_bytes() != *trailer {
                return Err("segment payload: CRC32 differs".into());
            }
            let payload = if uncompressed > 0 {
                self.plain.resize(uncompressed, 0);
                let written = lz4_flex::block::decompress_into(payload, &mut self.plain).map_err(|e| e.to_string())?;
                &self.plain[..written]
            } else {
                payload
            };
            if self_contained {
                if frames(payload, each) != payload.len() {
                    return Err("a self-contained segment ends inside a frame".into());
                }
            } else {
                self.parts.extend_from_slice(payload);
                let done = frames(&self.parts, each);
                self.parts.drain(..done);
            }
            used += header_len + length + 4;
        }
        Ok(used)
    }
}

fn frames(bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) -> usize {
    let mut used = 0;
    while let Some(length) = frame_len(&bytes[used..]) {
        let Some(frame) = bytes.get(used..used + length) else { break };
        let stream = u16::from_be_bytes([frame[2], frame[3]]);
        each(Frame { version: frame[0], stream, opcode: frame[4], body: &frame[HEADER..] });
        used += length;
    }
    used
}

fn crc24(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x87_5060, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 16, |crc, _| {
            let crc = crc << 1;
            if crc & 0x100_0000 != 0 { crc ^ 0x197_4f0b } else { crc }
        })
    })
}

fn crc32(payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[0xfa, 0x2d, 0x55, 0xca]);
    hasher.update(payload);
    hasher.finalize()
}

/// Appends a `[string]`, a `[string map]`, or one with lists: the notations that the handshake needs.
pub fn append_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The map of a STARTUP body.
pub fn read_string_map(mut body: &[u8]) -> Option<Vec<(String, String)>> {
    let count = u16::from_be_bytes(body.split_off(..2)?.try_into().ok()?);
    let mut string = || {
        let length = u16::from_be_bytes(body.split_off(..2)?.try_into().ok()?);
        String::from_utf8(body.split_off(..usize::from(length))?.to_vec()).ok()
    };
    (0..count).map(|_| Some((string()?, string()?))).collect()
}
