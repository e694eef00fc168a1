//! v5: frames travel inside checksummed segments (native_protocol_v5.spec §2.3).
//!
//! A self-contained segment holds whole frames; the others hold a part of exactly one. A segment passes as it came, its own
//! checksums with it, unless a frame inside must change; then only that segment (or run of segments) is built anew, after
//! its checksum was verified: a corrupt payload is never signed again.

use super::{Clear, Judge, Rewrite, Verdict, wait};
use crate::cql::frame::{HEADER_LEN, Header};
use crate::cql::primitives::DecodeError;
use crate::cql::segment::{self, Layout, SegmentHeader};
use crate::rewrite::{Step, Then, Why};

/// Where one direction of a v5 connection stands.
#[derive(Debug)]
pub struct SegmentWalk {
    layout: Layout,
    /// Raw bytes of the current segment that pass without another look.
    raw: usize,
    /// Payload bytes, in segments to come, of a frame that passes.
    skip: u64,
    /// A byte among them, counted from the next payload byte, of which bits are cleared.
    clear: Option<(u64, u8)>,
    /// The decoded start of a frame that spans segments and is not decided, or is held.
    held: Vec<u8>,
    /// The held frame is needed whole.
    holding: bool,
}

/// What ends the walk for now.
type Ended<T> = Result<T, Then>;

impl SegmentWalk {
    pub fn new(layout: Layout) -> Self {
        Self { layout, raw: 0, skip: 0, clear: None, held: Vec::new(), holding: false }
    }

    /// True between two frames and two segments.
    pub fn at_boundary(&self) -> bool {
        self.raw == 0 && self.skip == 0 && self.held.is_empty()
    }

    /// Bytes that are, or will be, held here for a frame that spans segments.
    pub fn held_bytes(&self) -> usize {
        match Header::peek(&self.held) {
            Some(header) if self.holding => usize::try_from(header.frame_len()).unwrap_or(usize::MAX),
            _ => self.held.len(),
        }
    }

    /// What shall happen to `bytes`, the undecided rest of the stream. `scratch` is room for one decoded payload.
    pub fn step<J: Judge>(&mut self, judge: &mut J, bytes: &[u8], scratch: &mut [u8]) -> Step {
        let mut at = 0;
        loop {
            let pass = self.raw.min(bytes.len() - at);
            self.raw -= pass;
            at += pass;
            if self.raw > 0 {
                return wait(at, 1);
            }
            match self.segment(judge, bytes.get(at..).unwrap_or_default(), scratch) {
                Ok(()) => {}
                Err(then) => return Step { pass: at, then },
            }
        }
    }

    /// Decides about the segment at the start of `rest`: `Ok` when it passes (`raw` is set), else the step that it asks for.
    fn segment<J: Judge>(&mut self, judge: &mut J, rest: &[u8], scratch: &mut [u8]) -> Ended<()> {
        let Some(header) = SegmentHeader::peek(self.layout, rest).map_err(|_| fail(Why::HeaderChecksum))? else {
            return Err(Then::Wait { need: self.layout.header_len() });
        };
        if header.content_len() == 0 {
            return Err(fail(Why::Malformed));
        }
        if self.skip > 0 {
            return self.part_of_passing_frame(header, rest, scratch);
        }
        let payload = match self.decode(header, rest, scratch)? {
            Some(payload) => payload,
            None if judge.passes_corrupt_payload() && header.self_contained && self.held.is_empty() => {
                self.raw = header.segment_len();
                return Ok(());
            }
            None => return Err(fail(Why::PayloadChecksum)),
        };
        match (header.self_contained, self.held.is_empty()) {
            (true, true) => self.whole_frames(judge, header, payload),
            (false, _) => self.part_of_undecided_frame(judge, header, payload),
            (true, false) => Err(fail(Why::Malformed)),
        }
    }

    /// The payload of a segment that is there whole; `None` when its checksum is wrong.
    fn decode<'a>(&self, header: SegmentHeader, rest: &'a [u8], scratch: &'a mut [u8]) -> Ended<Option<&'a [u8]>> {
        let need = header.segment_len();
        let Some(whole) = rest.get(..need) else { return Err(Then::Wait { need }) };
        let payload = match header.payload(whole) {
            Ok(payload) => payload,
            Err(DecodeError::Checksum { .. }) => return Ok(None),
            Err(_) => return Err(fail(Why::Malformed)),
        };
        if !header.is_compressed() {
            return Ok(Some(payload));
        }
        let len = header.decompress(payload, scratch).map_err(|_| fail(Why::Compression))?;
        Ok(Some(scratch.get(..len).unwrap_or_default()))
    }

    /// A self-contained segment: one or more whole frames.
    fn whole_frames<J: Judge>(&mut self, judge: &mut J, segment: SegmentHeader, payload: &[u8]) -> Ended<()> {
        let mut rebuilt: Option<Rebuilt> = None;
        let mut at = 0;
        while at < payload.len() {
            let rest = payload.get(at..).unwrap_or_default();
            let header = Header::peek(rest).ok_or_else(|| fail(Why::Malformed))?;
            if let Some(failure) = judge.refuse(header) {
                return Err(Then::Fail(failure));
            }
            let len = usize::try_from(header.frame_len()).unwrap_or(usize::MAX);
            let frame = rest.get(..len).ok_or_else(|| fail(Why::Malformed))?;
            let body = frame.get(HEADER_LEN..).unwrap_or_default();
            let mut replaced = None;
            match judge.judge(header, body) {
                Verdict::Pass => {}
                Verdict::Clear(clear) => replaced = cleared(frame, clear),
                Verdict::More(_) => return Err(fail(Why::Malformed)),
                Verdict::Fail(failure) => return Err(Then::Fail(failure)),
                Verdict::Hold if len > judge.held_limit() => return Err(Then::Fail(judge.too_long_to_hold(header))),
                Verdict::Hold => match judge.rewrite(header, frame) {
                    Rewrite::Keep => {}
                    Rewrite::Frame(frame) => replaced = Some(frame),
                    Rewrite::Drop => replaced = Some(Vec::new()),
                    Rewrite::Fail(failure) => return Err(Then::Fail(failure)),
                },
            }
            match (&mut rebuilt, &replaced) {
                (None, None) => {}
                (Some(rebuilt), replaced) => rebuilt.push(replaced.as_deref().unwrap_or(frame)),
                (none, Some(replaced)) => {
                    let rebuilt = none.insert(Rebuilt::new(self.layout));
                    rebuilt.push(payload.get(..at).unwrap_or_default());
                    rebuilt.push(replaced);
                }
            }
            at += len;
        }
        match rebuilt {
            None => {
                self.raw = segment.segment_len();
                Ok(())
            }
            Some(rebuilt) => Err(replace(segment.segment_len(), rebuilt.finish())),
        }
    }

    /// A segment of a frame that spans segments and may yet have to change.
    fn part_of_undecided_frame<J: Judge>(&mut self, judge: &mut J, segment: SegmentHeader, part: &[u8]) -> Ended<()> {
        let first = self.held.is_empty();
        if !first {
            self.held.extend_from_slice(part);
        }
        let start: &[u8] = if first { part } else { &self.held };
        let header = Header::peek(start).ok_or_else(|| fail(Why::Malformed))?;
        let len = usize::try_from(header.frame_len()).unwrap_or(usize::MAX);
        if start.len() > len {
            return Err(fail(Why::Malformed));
        }
        if first && let Some(failure) = judge.refuse(header) {
            return Err(Then::Fail(failure));
        }
        let body = start.get(HEADER_LEN..).unwrap_or_default();
        let verdict = if self.holding { Verdict::Hold } else { judge.judge(header, body) };
        let clear = match verdict {
            Verdict::Pass => None,
            Verdict::Clear(clear) => Some(clear),
            Verdict::Fail(failure) => return Err(Then::Fail(failure)),
            Verdict::More(_) if start.len() == len => return Err(fail(Why::Malformed)),
            Verdict::More(need) if HEADER_LEN + need > judge.held_limit() => {
                return Err(Then::Fail(judge.too_long_to_hold(header)));
            }
            Verdict::Hold if len > judge.held_limit() => return Err(Then::Fail(judge.too_long_to_hold(header))),
            Verdict::Hold if start.len() == len => {
                let frame = if first { part.to_vec() } else { std::mem::take(&mut self.held) };
                self.holding = false;
                let written = match judge.rewrite(header, &frame) {
                    Rewrite::Keep => frame,
                    Rewrite::Frame(frame) => frame,
                    Rewrite::Drop => Vec::new(),
                    Rewrite::Fail(failure) => return Err(Then::Fail(failure)),
                };
                let mut rebuilt = Rebuilt::new(self.layout);
                rebuilt.push(&written);
                return Err(replace(segment.segment_len(), rebuilt.finish()));
            }
            undecided => {
                self.holding = undecided == Verdict::Hold;
                if first {
                    self.held = part.to_vec();
                }
                return Err(replace(segment.segment_len(), Vec::new()));
            }
        };
        let decoded = start.len();
        self.skip = (len - decoded) as u64;
        let changed = clear.and_then(|clear| {
            let position = HEADER_LEN as u64 + u64::from(clear.offset);
            if position >= decoded as u64 {
                self.clear = Some((position - decoded as u64, clear.bits));
                return None;
            }
            cleared(start, clear)
        });
        match (changed, first) {
            (None, true) => {
                self.raw = segment.segment_len();
                Ok(())
            }
            (changed, _) => {
                let start = changed.unwrap_or_else(|| std::mem::take(&mut self.held));
                self.held = Vec::new();
                let mut out = Vec::with_capacity(start.len() + 64);
                append_parts(&mut out, self.layout, &start);
                Err(replace(segment.segment_len(), out))
            }
        }
    }

    /// A segment of a frame that passes: its payload is looked at only when a byte in it may have to change.
    fn part_of_passing_frame(&mut self, segment: SegmentHeader, rest: &[u8], scratch: &mut [u8]) -> Ended<()> {
        let len = segment.content_len() as u64;
        if segment.self_contained || len > self.skip {
            return Err(fail(Why::Malformed));
        }
        if let Some((offset, bits)) = self.clear {
            if offset >= len {
                self.clear = Some((offset - len, bits));
            } else {
                let payload = self.decode(segment, rest, scratch)?.ok_or_else(|| fail(Why::PayloadChecksum))?;
                let mut payload = payload.to_vec();
                self.clear = None;
                if let Some(byte) = payload.get_mut(offset as usize).filter(|byte| **byte & bits != 0) {
                    *byte &= !bits;
                    self.skip -= len;
                    let mut out = Vec::with_capacity(payload.len() + 64);
                    append_parts(&mut out, self.layout, &payload);
                    return Err(replace(segment.segment_len(), out));
                }
            }
        }
        self.skip -= len;
        self.raw = segment.segment_len();
        Ok(())
    }
}

/// A part of a frame that spans segments, in as many as it needs.
fn append_parts(out: &mut Vec<u8>, layout: Layout, part: &[u8]) {
    for payload in part.chunks(segment::MAX_PAYLOAD) {
        segment::append_segment(out, layout, false, payload);
    }
}

/// A frame with bits of one byte of its body cleared; `None` when they are clear already.
fn cleared(frame: &[u8], clear: Clear) -> Option<Vec<u8>> {
    let position = HEADER_LEN + clear.offset as usize;
    frame.get(position).filter(|byte| **byte & clear.bits != 0)?;
    let mut frame = frame.to_vec();
    if let Some(byte) = frame.get_mut(position) {
        *byte &= !clear.bits;
    }
    Some(frame)
}

/// Segments around frames: as few self-contained ones as hold them, a run of others for a frame that is too long for one.
struct Rebuilt {
    layout: Layout,
    out: Vec<u8>,
    frames: Vec<u8>,
}

impl Rebuilt {
    fn new(layout: Layout) -> Self {
        Self { layout, out: Vec::new(), frames: Vec::new() }
    }

    /// Adds whole frames.
    fn push(&mut self, frames: &[u8]) {
        if self.frames.len() + frames.len() > segment::MAX_PAYLOAD {
            self.flush();
        }
        if frames.len() > segment::MAX_PAYLOAD {
            segment::append_frame(&mut self.out, self.layout, frames);
        } else {
            self.frames.extend_from_slice(frames);
        }
    }

    fn flush(&mut self) {
        if !self.frames.is_empty() {
            segment::append_segment(&mut self.out, self.layout, true, &self.frames);
            self.frames.clear();
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.flush();
        self.out
    }
}

/// Whole frames made here, ready for a v5 wire.
pub fn in_segments(frames: &[u8], layout: Layout) -> Vec<u8> {
    let mut rebuilt = Rebuilt::new(layout);
    rebuilt.push(frames);
    rebuilt.finish()
}

fn replace(consumed: usize, made: Vec<u8>) -> Then {
    Then::Replace { consumed, made }
}

fn fail(why: Why) -> Then {
    Then::Fail(why.into())
}
