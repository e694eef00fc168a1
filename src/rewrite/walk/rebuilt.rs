//! v5 segments around frames that were made or changed here.

use crate::cql::cost;
use crate::cql::segment::{self, Layout, MAX_PAYLOAD};

/// Segments around frames: as few self-contained ones as hold them, a run of others for a frame that is too long for one.
#[derive(Debug)]
pub struct Rebuilt {
    layout: Layout,
    compress: bool,
    out: Vec<u8>,
    frames: Vec<u8>,
}

impl Rebuilt {
    /// `compress`: what they replace was compressed.
    pub fn new(layout: Layout, compress: bool) -> Self {
        Self { layout, compress, out: Vec::new(), frames: Vec::new() }
    }

    /// Adds whole frames.
    pub fn push(&mut self, frames: &[u8]) {
        if self.frames.len() + frames.len() > MAX_PAYLOAD {
            self.flush();
        }
        if frames.len() > MAX_PAYLOAD {
            append_parts(&mut self.out, self.layout, self.compress, frames);
        } else {
            cost::steps(frames.len());
            self.frames.extend_from_slice(frames);
        }
    }

    fn flush(&mut self) {
        if !self.frames.is_empty() {
            append(&mut self.out, self.layout, self.compress, true, &self.frames);
            self.frames.clear();
        }
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.flush();
        self.out
    }

    /// Bytes that it holds.
    pub fn held_bytes(&self) -> usize {
        self.out.len() + self.frames.len()
    }
}

/// A part of a frame that spans segments, in as many as it needs.
pub fn append_parts(out: &mut Vec<u8>, layout: Layout, compress: bool, part: &[u8]) {
    for payload in part.chunks(MAX_PAYLOAD) {
        append(out, layout, compress, false, payload);
    }
}

fn append(out: &mut Vec<u8>, layout: Layout, compress: bool, self_contained: bool, payload: &[u8]) {
    match layout {
        Layout::Lz4 if compress => segment::append_lz4_segment(out, self_contained, payload),
        _ => segment::append_segment(out, layout, self_contained, payload),
    }
}

/// Whole frames made here, ready for a v5 wire.
pub fn in_segments(frames: &[u8], layout: Layout) -> Vec<u8> {
    let mut rebuilt = Rebuilt::new(layout, false);
    rebuilt.push(frames);
    rebuilt.finish()
}
