//! Whether a request has all that it claims to have.
//!
//! Nodes read a whole message before they ask whether it may be said, and nodes of Cassandra 4.1 allocate what a `[bytes]` or
//! `[value]` claims before they look for it (apache/cassandra `transport/CBUtil.java`, `readRawBytes`). In v5 they read on
//! behind a body that ends early, in the next frame of the segment. What they read in which order is in
//! `transport/Message.java`, `transport/messages/` and `cql3/QueryOptions.java`.

use super::super::frame::{Flags, Opcode};
use super::super::primitives::{DecodeError, Reader};
use super::request::flag;

/// False when a request's whole, uncompressed body ends before the request does.
///
/// `version` is the header's. Of an unknown opcode the custom payload alone is looked at, of versions other than 3 to 6 nothing.
pub fn fit(version: u8, opcode: Opcode, flags: Flags, body: &[u8]) -> bool {
    let mut walk = Walk { reader: Reader::new(body), is_v5: version >= 5 };
    !(3..=6).contains(&version) || walk.request(opcode, flags).is_ok()
}

struct Walk<'a> {
    reader: Reader<'a>,
    is_v5: bool,
}

/// Errors are `Truncated`, all of them.
impl Walk<'_> {
    fn request(&mut self, opcode: Opcode, flags: Flags) -> Result<(), DecodeError> {
        if flags.has(Flags::CUSTOM_PAYLOAD) {
            self.repeated(Self::named)?;
        }
        match opcode {
            Opcode::STARTUP => self.repeated(|walk| walk.short().and_then(|()| walk.short())),
            Opcode::REGISTER => self.repeated(Self::short),
            Opcode::AUTH_RESPONSE => self.long(),
            Opcode::PREPARE => {
                self.long()?;
                // v5's only flag says that a keyspace follows.
                if self.is_v5 && self.reader.i32("flags")? & 1 != 0 {
                    self.short()?;
                }
                Ok(())
            }
            Opcode::QUERY => {
                self.long()?;
                self.parameters()
            }
            Opcode::EXECUTE => {
                self.short()?;
                if self.is_v5 {
                    self.short()?;
                }
                self.parameters()
            }
            Opcode::BATCH => {
                self.reader.u8("type")?;
                for _ in 0..self.reader.u16("statements")? {
                    match self.reader.u8("kind")? {
                        0 => self.long()?,
                        1 => self.short()?,
                        // Nodes read no further.
                        _ => return Ok(()),
                    }
                    self.repeated(Self::long)?;
                }
                self.parameters()
            }
            _ => Ok(()),
        }
    }

    /// What follows the text, the ids or the statements. Nodes read it alike for all three.
    fn parameters(&mut self) -> Result<(), DecodeError> {
        self.reader.u16("consistency")?;
        let [high, flags] = match self.is_v5 {
            true => self.reader.u32("flags").map(|flags| [(flags >> 8) as u8, flags as u8])?,
            false => [0, self.reader.u8("flags")?],
        };
        match (flags & flag::VALUES != 0, flags & flag::NAMES != 0) {
            (true, true) => self.repeated(Self::named)?,
            (true, false) => self.repeated(Self::long)?,
            (false, _) => {}
        }
        if flags & flag::PAGE_SIZE != 0 {
            self.reader.i32("page size")?;
        }
        if flags & flag::PAGING_STATE != 0 {
            self.long()?;
        }
        if flags & flag::SERIAL_CONSISTENCY != 0 {
            self.reader.u16("serial consistency")?;
        }
        if flags & flag::TIMESTAMP != 0 {
            self.reader.i64("timestamp")?;
        }
        if flags & flag::KEYSPACE != 0 {
            self.short()?;
        }
        if high & NOW_IN_SECONDS != 0 {
            self.reader.i32("now in seconds")?;
        }
        Ok(())
    }

    /// A `[short]`, and so many of these.
    fn repeated(&mut self, each: impl Fn(&mut Self) -> Result<(), DecodeError>) -> Result<(), DecodeError> {
        for _ in 0..self.reader.u16("count")? {
            each(self)?;
        }
        Ok(())
    }

    fn named(&mut self) -> Result<(), DecodeError> {
        self.short()?;
        self.long()
    }

    /// A `[bytes]`, `[value]` or `[long string]`. Null and not set have no bytes; that other negative lengths are refused is the
    /// node's business.
    fn long(&mut self) -> Result<(), DecodeError> {
        self.reader.bytes("what is claimed").map(drop)
    }

    /// A `[string]` or `[short bytes]`.
    fn short(&mut self) -> Result<(), DecodeError> {
        self.reader.short_bytes("what is claimed").map(drop)
    }
}

/// v5, in the second byte of the flags.
const NOW_IN_SECONDS: u8 = 0x01;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cql::message::{encode_plain_auth_response, encode_register, encode_startup};
    use crate::cql::primitives::{Value, Writer};

    const ALL_PARAMETERS: u8 = 0xff;
    const TEXT: &str = "INSERT INTO t (k, v) VALUES (?, ?)";

    /// A body, and where in it the lengths are: the offset of each, and of how many bytes it is.
    #[derive(Default)]
    struct Built {
        body: Vec<u8>,
        lengths: Vec<(usize, usize)>,
    }

    impl Built {
        fn raw(mut self, write: impl FnOnce(&mut Writer<'_>)) -> Self {
            write(&mut Writer::new(&mut self.body));
            self
        }

        fn long(mut self, bytes: &[u8]) -> Self {
            self.lengths.push((self.body.len(), 4));
            self.raw(|writer| _ = writer.value(Value::Bytes(bytes)))
        }

        fn short(mut self, bytes: &[u8]) -> Self {
            self.lengths.push((self.body.len(), 2));
            self.raw(|writer| _ = writer.short_bytes(bytes))
        }

        /// Null, not set, nothing, and something.
        fn values(self) -> Self {
            self.raw(|writer| _ = writer.u16(4).i32(-1).i32(-2)).long(b"").long(b"value")
        }

        fn parameters(self, version: u8, flags: u8) -> Self {
            let with = |bit| flags & bit != 0;
            let mut built = self.raw(|writer| match version {
                5 => _ = writer.u16(1).i32(0x100 | i32::from(flags)),
                _ => _ = writer.u16(1).u8(flags),
            });
            if with(flag::VALUES) && with(flag::NAMES) {
                built = built.raw(|writer| _ = writer.u16(2)).short(b"k").long(b"1").short(b"v");
                built = built.raw(|writer| _ = writer.i32(-1));
            } else if with(flag::VALUES) {
                built = built.values();
            }
            if with(flag::PAGE_SIZE) {
                built = built.raw(|writer| _ = writer.i32(i32::MAX));
            }
            if with(flag::PAGING_STATE) {
                built = built.long(b"state");
            }
            if with(flag::SERIAL_CONSISTENCY) {
                built = built.raw(|writer| _ = writer.u16(8));
            }
            if with(flag::TIMESTAMP) {
                built = built.raw(|writer| _ = writer.i64(i64::MAX));
            }
            if with(flag::KEYSPACE) {
                built = built.short(b"ks");
            }
            if version == 5 {
                built = built.raw(|writer| _ = writer.i32(1));
            }
            built
        }
    }

    /// Every request that has a length in it, behind a custom payload where there is one.
    fn requests(version: u8) -> Vec<(Opcode, Flags, Built)> {
        let payload =
            || Built::default().raw(|writer| _ = writer.u16(2)).short(b"a").long(b"entry").short(b"b").long(b"");
        let mut found = Vec::new();
        for (flags, start) in [(Flags(0), Built::default as fn() -> Built), (Flags(Flags::CUSTOM_PAYLOAD), payload)] {
            let mut add = |opcode, built| found.push((opcode, flags, built));
            add(Opcode::OPTIONS, start());
            add(Opcode(0x42), start());
            add(Opcode::STARTUP, start().raw(|writer| _ = writer.u16(1)).short(b"CQL_VERSION").short(b"3.0.0"));
            add(Opcode::REGISTER, start().raw(|writer| _ = writer.u16(2)).short(b"STATUS_CHANGE").short(b"X"));
            add(Opcode::AUTH_RESPONSE, start().long(b"\0user\0password"));
            let prepare = start().long(TEXT.as_bytes());
            add(
                Opcode::PREPARE,
                if version == 5 { prepare.raw(|writer| _ = writer.i32(1)).short(b"ks") } else { prepare },
            );
            for bits in 0..=ALL_PARAMETERS {
                add(Opcode::QUERY, start().long(TEXT.as_bytes()).parameters(version, bits));
                let execute = start().short(&[7; 16]);
                let execute = if version == 5 { execute.short(&[8; 16]) } else { execute };
                add(Opcode::EXECUTE, execute.parameters(version, bits));
                let batch = start().raw(|writer| _ = writer.u8(0).u16(2).u8(0)).long(TEXT.as_bytes()).values();
                let batch = batch.raw(|writer| _ = writer.u8(1)).short(&[7; 16]).values();
                add(Opcode::BATCH, batch.parameters(version, bits));
            }
        }
        found
    }

    #[test]
    fn a_length_that_is_longer_than_the_body_is_a_claim_wherever_it_is() {
        for version in [3, 4, 5, 6] {
            for (opcode, flags, Built { body, lengths }) in requests(version.min(5)) {
                assert!(fit(version, opcode, flags, &body), "v{version} {opcode:?} {body:x?}");
                for (at, size) in lengths {
                    let left = body.len() - at - size;
                    for claim in [left + 1, 0x7fff, 0x7fff_ffff >> (8 * (4 - size))] {
                        let mut body = body.clone();
                        let claim = &(claim as u32).to_be_bytes()[4 - size..];
                        body[at..at + size].copy_from_slice(claim);
                        assert!(!fit(version, opcode, flags, &body), "v{version} {opcode:?} {at}: {body:x?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_body_that_is_cut_claims_what_was_cut_off() {
        for version in [3, 4, 5] {
            for (opcode, flags, Built { body, .. }) in requests(version) {
                for have in 0..body.len() {
                    assert!(!fit(version, opcode, flags, &body[..have]), "v{version} {opcode:?} {have}: {body:x?}");
                }
            }
        }
    }

    #[test]
    fn negative_lengths_do_not_end_the_walk() {
        // Null in v3 whatever it is; in a text nodes refuse it.
        let named =
            [&(-7i32).to_be_bytes()[..], &[0, 1, 0x41, 0, 2, 0, 0, 0xff, 0xff, 0xff, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]];
        assert!(!fit(3, Opcode::QUERY, Flags(0), &named.concat()));
    }

    #[test]
    fn what_drivers_send_before_they_are_let_in_fits() {
        let startup = encode_startup(&[("CQL_VERSION", "3.0.0"), ("COMPRESSION", "lz4"), ("DRIVER_NAME", "é")]);
        for version in [3, 4, 5] {
            assert!(fit(version, Opcode::STARTUP, Flags(0), &startup));
            assert!(fit(version, Opcode::AUTH_RESPONSE, Flags(0), &encode_plain_auth_response("u", "pw")));
            assert!(fit(version, Opcode::AUTH_RESPONSE, Flags(0), &[0xff; 4]), "a null token");
            assert!(fit(version, Opcode::REGISTER, Flags(0), &encode_register(&["STATUS_CHANGE"])));
        }
    }

    #[test]
    fn what_nobody_knows_is_not_looked_at() {
        for (version, is_known) in [(1, false), (2, false), (3, true), (6, true), (7, false), (0x42, false)] {
            assert_eq!(fit(version, Opcode::QUERY, Flags(0), &[0x7f; 8]), !is_known, "{version}");
        }
        assert!(fit(4, Opcode(0x42), Flags(0), &[0x7f; 8]));
        // A statement of a BATCH that is neither text nor id.
        assert!(fit(4, Opcode::BATCH, Flags(0), &[0, 0, 1, 2, 0x7f, 0xff, 0xff, 0xff]));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            version: u8, opcode in 0u8..0x12, flags: u8, body in prop::collection::vec(0u8..3, 0..80),
        ) {
            fit(version, Opcode(opcode), Flags(flags), &body);
        }
    }
}
