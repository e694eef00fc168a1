//! v5: frames inside segments (native_protocol_v5.spec §2.2, §2.3).
//!
//! A self-contained segment holds whole frames and is looked at when it is there whole; it passes as it is unless one of its
//! frames changes. A frame that spans segments is judged by its decoded start; once it passes, the segments of its rest pass
//! unopened. Each segment's header is verified; a payload's checksum where the payload is looked at.

use super::kept::{Ended, Kept, Opened, Spanning, cleared, copied, decode, fail, head_of, replace};
use super::rebuilt::{Rebuilt, append_parts};
use super::{Clear, Judge, Verdict, decide, wait};
use crate::cql::cost;
use crate::cql::frame::{HEADER_LEN, Header};
use crate::cql::segment::{Layout, SegmentHeader};
use crate::rewrite::{Step, Then, Why, Work};

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
    /// What is kept of segments that are not decided.
    kept: Option<Box<Kept>>,
}

impl SegmentWalk {
    pub fn new(layout: Layout) -> Self {
        Self { layout, raw: 0, skip: 0, clear: None, kept: None }
    }

    /// True between two frames and two segments.
    pub fn at_boundary(&self) -> bool {
        self.raw == 0 && self.skip == 0 && self.kept.is_none()
    }

    /// Bytes that are held here.
    pub fn held_bytes(&self) -> usize {
        match self.kept.as_deref() {
            None => 0,
            Some(Kept::Spanning(spanning)) => spanning.start.len(),
            Some(Kept::Opened(opened)) => {
                opened.decoded.as_ref().map_or(0, Vec::len) + opened.rebuilt.as_ref().map_or(0, Rebuilt::held_bytes)
            }
        }
    }

    /// What shall happen to `bytes`, the undecided rest of the stream.
    pub fn step<J: Judge>(&mut self, judge: &mut J, bytes: &[u8], work: &mut Work<'_>) -> Step {
        let mut at = 0;
        loop {
            let pass = self.raw.min(bytes.len() - at);
            self.raw -= pass;
            at += pass;
            if self.raw > 0 {
                return wait(at, 1);
            }
            match self.segment(judge, bytes.get(at..).unwrap_or_default(), work) {
                Ok(()) => {}
                Err(then) => return Step { pass: at, then },
            }
        }
    }

    /// Decides about the segment at the start of `rest`: `Ok` when it passes (`raw` is set), else what it asks for.
    fn segment<J: Judge>(&mut self, judge: &mut J, rest: &[u8], work: &mut Work<'_>) -> Ended<()> {
        let Some(segment) = SegmentHeader::peek(self.layout, rest).map_err(|_| fail(Why::HeaderChecksum))? else {
            return Err(Then::Wait { need: self.layout.header_len() });
        };
        if segment.content_len() == 0 {
            return Err(fail(Why::Malformed));
        }
        if work.is_used_up() || work.begins_nothing() && self.at_boundary() {
            return Err(Then::Yield);
        }
        if self.skip > 0 {
            return self.part_of_passing_frame(segment, rest, work);
        }
        match self.kept.take().map(|kept| *kept) {
            Some(Kept::Opened(opened)) => self.reopened(judge, segment, rest, opened, work),
            Some(Kept::Spanning(spanning)) if spanning.has_next => self.spanning(judge, segment, spanning, work),
            kept => self.new_segment(judge, segment, rest, kept, work),
        }
    }

    fn new_segment<J: Judge>(
        &mut self,
        judge: &mut J,
        segment: SegmentHeader,
        rest: &[u8],
        kept: Option<Kept>,
        work: &mut Work<'_>,
    ) -> Ended<()> {
        if rest.len() < segment.segment_len() {
            self.kept = kept.map(Box::new);
            return Err(Then::Wait { need: segment.segment_len() });
        }
        // The judges get the work, the payload the room in it.
        let scratch = std::mem::take(&mut work.scratch);
        let ended = match (decode(segment, rest, scratch, work), kept) {
            (Err(then), _) => Err(then),
            (Ok(None), None) if judge.passes_corrupt_payload() && segment.self_contained => {
                judge.corrupt_payload_passes();
                self.raw = segment.segment_len();
                Ok(())
            }
            (Ok(None), _) => Err(fail(Why::PayloadChecksum)),
            (Ok(Some(payload)), None) if segment.self_contained => {
                let opened = Opened { at: 0, decoded: None, rebuilt: None };
                self.whole_frames(judge, segment, payload, opened, work)
            }
            (Ok(Some(part)), None) => self.first_part(judge, segment, part, work),
            (Ok(Some(part)), Some(Kept::Spanning(mut spanning))) if !segment.self_contained => {
                cost::steps(part.len());
                spanning.start.extend_from_slice(part);
                spanning.has_next = true;
                spanning.compressed |= segment.is_compressed();
                self.spanning(judge, segment, spanning, work)
            }
            _ => Err(fail(Why::Malformed)),
        };
        work.scratch = scratch;
        ended
    }

    /// A self-contained segment that was not decided in an earlier turn; its checksum was verified then.
    fn reopened<J: Judge>(
        &mut self,
        judge: &mut J,
        segment: SegmentHeader,
        rest: &[u8],
        mut opened: Opened,
        work: &mut Work<'_>,
    ) -> Ended<()> {
        match opened.decoded.take() {
            Some(decoded) => {
                // Empty for now, so that nobody copies it again.
                opened.decoded = Some(Vec::new());
                let ended = self.whole_frames(judge, segment, &decoded, opened, work);
                if let Some(Kept::Opened(opened)) = self.kept.as_deref_mut() {
                    opened.decoded = Some(decoded);
                }
                ended
            }
            None => {
                let from = self.layout.header_len();
                let payload = rest.get(from..from + segment.payload_len).ok_or_else(|| fail(Why::Malformed))?;
                self.whole_frames(judge, segment, payload, opened, work)
            }
        }
    }

    /// A self-contained segment: one or more whole frames.
    fn whole_frames<J: Judge>(
        &mut self,
        judge: &mut J,
        segment: SegmentHeader,
        payload: &[u8],
        mut opened: Opened,
        work: &mut Work<'_>,
    ) -> Ended<()> {
        while opened.at < payload.len() {
            if work.is_used_up() {
                return Err(self.keep(segment, payload, opened, Then::Yield));
            }
            let rest = payload.get(opened.at..).unwrap_or_default();
            let header = Header::peek(rest).ok_or_else(|| fail(Why::Malformed))?;
            let len = usize::try_from(header.frame_len()).unwrap_or(usize::MAX);
            let Some(frame) = rest.get(..len) else {
                // Its header may say why it cannot be right.
                return Err(judge.refuse(header).map_or_else(|| fail(Why::Malformed), Then::Fail));
            };
            let replaced = match decide(judge, header, frame, work) {
                Verdict::Pass => None,
                Verdict::Clear(clear) => cleared(frame, clear),
                Verdict::Replace(made) => Some(made),
                Verdict::Need(_) => return Err(fail(Why::Malformed)),
                Verdict::Later => return Err(self.keep(segment, payload, opened, Then::Yield)),
                Verdict::Ask(login) => return Err(self.keep(segment, payload, opened, Then::Login(login))),
                Verdict::Fail(failure) => return Err(Then::Fail(failure)),
            };
            match (&mut opened.rebuilt, &replaced) {
                (None, None) => {}
                (Some(rebuilt), replaced) => rebuilt.push(replaced.as_deref().unwrap_or(frame)),
                (none, Some(replaced)) => {
                    let rebuilt = none.insert(Rebuilt::new(self.layout, segment.is_compressed()));
                    rebuilt.push(payload.get(..opened.at).unwrap_or_default());
                    rebuilt.push(replaced);
                }
            }
            opened.at += len;
        }
        match opened.rebuilt {
            None => {
                self.raw = segment.segment_len();
                Ok(())
            }
            Some(rebuilt) => Err(replace(segment, rebuilt.finish())),
        }
    }

    /// Keeps what was found out about a self-contained segment until it is asked about again.
    fn keep(&mut self, segment: SegmentHeader, payload: &[u8], mut opened: Opened, then: Then) -> Then {
        if segment.is_compressed() && opened.decoded.is_none() {
            opened.decoded = Some(copied(payload));
        }
        self.kept = Some(Box::new(Kept::Opened(opened)));
        then
    }

    /// The first segment of a frame that spans several; most pass, and are not copied.
    fn first_part<J: Judge>(
        &mut self,
        judge: &mut J,
        segment: SegmentHeader,
        part: &[u8],
        work: &mut Work<'_>,
    ) -> Ended<()> {
        let spanning =
            |need, has_next| Spanning { start: copied(part), need, has_next, compressed: segment.is_compressed() };
        let (header, len) = head_of(part)?;
        match decide(judge, header, part, work) {
            Verdict::Pass => {
                self.skip = len - part.len() as u64;
                self.raw = segment.segment_len();
                Ok(())
            }
            Verdict::Clear(Clear { offset, bits }) if HEADER_LEN + offset as usize >= part.len() => {
                self.clear = Some(((HEADER_LEN + offset as usize - part.len()) as u64, bits));
                self.skip = len - part.len() as u64;
                self.raw = segment.segment_len();
                Ok(())
            }
            Verdict::Need(need) => {
                self.kept = Some(Box::new(Kept::Spanning(spanning(need, false))));
                Err(replace(segment, Vec::new()))
            }
            Verdict::Later => {
                self.kept = Some(Box::new(Kept::Spanning(spanning(0, true))));
                Err(Then::Yield)
            }
            verdict => Err(self.decided(segment, spanning(0, true), len, verdict)),
        }
    }

    /// A segment of a frame that spans segments and may yet have to change; what it brings is in `spanning`.
    fn spanning<J: Judge>(
        &mut self,
        judge: &mut J,
        segment: SegmentHeader,
        mut spanning: Spanning,
        work: &mut Work<'_>,
    ) -> Ended<()> {
        let (header, len) = head_of(&spanning.start)?;
        let verdict = if spanning.start.len() < spanning.need {
            Verdict::Need(spanning.need)
        } else {
            decide(judge, header, &spanning.start, work)
        };
        match verdict {
            Verdict::Need(need) => {
                (spanning.need, spanning.has_next) = (need, false);
                self.kept = Some(Box::new(Kept::Spanning(spanning)));
                Err(replace(segment, Vec::new()))
            }
            Verdict::Later => {
                self.kept = Some(Box::new(Kept::Spanning(spanning)));
                Err(Then::Yield)
            }
            verdict => Err(self.decided(segment, spanning, len, verdict)),
        }
    }

    /// What goes out of a spanning frame of `len` bytes now that it is decided.
    fn decided(&mut self, segment: SegmentHeader, mut spanning: Spanning, len: u64, verdict: Verdict) -> Then {
        let made = match verdict {
            Verdict::Fail(failure) => return Then::Fail(failure),
            Verdict::Ask(login) => {
                self.kept = Some(Box::new(Kept::Spanning(spanning)));
                return Then::Login(login);
            }
            Verdict::Replace(made) => {
                let mut rebuilt = Rebuilt::new(self.layout, spanning.compressed);
                rebuilt.push(&made);
                return replace(segment, rebuilt.finish());
            }
            Verdict::Clear(Clear { offset, bits }) => {
                let (at, have) = (HEADER_LEN as u64 + u64::from(offset), spanning.start.len() as u64);
                match spanning.start.get_mut(usize::try_from(at).unwrap_or(usize::MAX)) {
                    Some(byte) => *byte &= !bits,
                    None => self.clear = Some((at - have, bits)),
                }
                spanning.start
            }
            _ => spanning.start,
        };
        self.skip = len - made.len() as u64;
        let mut out = Vec::with_capacity(made.len() + 64);
        append_parts(&mut out, self.layout, spanning.compressed, &made);
        replace(segment, out)
    }

    /// A segment of a frame that passes: its payload is looked at only when a byte in it may have to change.
    fn part_of_passing_frame(&mut self, segment: SegmentHeader, rest: &[u8], work: &mut Work<'_>) -> Ended<()> {
        work.frame();
        let len = segment.content_len() as u64;
        if segment.self_contained || len > self.skip {
            return Err(fail(Why::Malformed));
        }
        if let Some((offset, bits)) = self.clear {
            if offset >= len {
                self.clear = Some((offset - len, bits));
            } else {
                if rest.len() < segment.segment_len() {
                    return Err(Then::Wait { need: segment.segment_len() });
                }
                let scratch = std::mem::take(&mut work.scratch);
                let payload = decode(segment, rest, scratch, work).map(|payload| payload.map(copied));
                work.scratch = scratch;
                let mut payload = payload?.ok_or_else(|| fail(Why::PayloadChecksum))?;
                self.clear = None;
                if let Some(byte) = payload.get_mut(offset as usize).filter(|byte| **byte & bits != 0) {
                    *byte &= !bits;
                    self.skip -= len;
                    let mut out = Vec::with_capacity(payload.len() + 64);
                    append_parts(&mut out, self.layout, segment.is_compressed(), &payload);
                    return Err(replace(segment, out));
                }
            }
        }
        self.skip -= len;
        self.raw = segment.segment_len();
        Ok(())
    }
}
