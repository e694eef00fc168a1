//! What a connection's handshake settled. Made once, at READY or AUTHENTICATE; never changes afterwards.

use super::compression::Compression;
use super::frame::{Flags, Header, Version};

/// The constants of one established connection, copied by both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub version: Version,
    /// From STARTUP's COMPRESSION option. In v3 and v4 it compresses bodies, in v5 (LZ4 only) segments.
    pub compression: Option<Compression>,
}

impl Session {
    /// Whether a frame's body is compressed, if it is what it says. In v5 the flag means nothing, and Java driver 4 sets it all
    /// the same.
    #[inline]
    pub fn is_compressed(self, header: Header) -> bool {
        self.version != Version::V5 && header.flags.has(Flags::COMPRESSION)
    }
}
