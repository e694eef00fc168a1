//! Where a body's message begins, found while the body arrives: what was stepped over is not stepped over again.

use super::super::frame::Flags;
use super::super::primitives::{DecodeError, Reader};

/// What stands before a message, each when its flag is set: the tracing id, the warnings and the custom payload in a
/// response, the custom payload in a request. The specification (§2.2) names the order; apache/cassandra
/// `transport/Envelope.java` and `Message.java` keep it.
#[derive(Clone, Copy, Debug)]
pub struct MessageStart {
    at: usize,
    part: Part,
}

/// What comes next at `at`.
#[derive(Clone, Copy, Debug)]
enum Part {
    Tracing,
    Warnings,
    Warning { left: u16 },
    Payload,
    PayloadEntry { left: u16 },
    Message,
}

impl MessageStart {
    pub fn of_request() -> Self {
        Self { at: 0, part: Part::Payload }
    }

    pub fn of_response() -> Self {
        Self { at: 0, part: Part::Tracing }
    }

    /// The message's offset in `body`, of which more has arrived than at the last call, if that.
    ///
    /// # Errors
    /// `Truncated` while `body` does not reach to the message; it says what is missing of the next piece.
    #[inline]
    pub fn find(&mut self, flags: Flags, body: &[u8]) -> Result<usize, DecodeError> {
        if flags.0 & (Flags::TRACING | Flags::WARNING | Flags::CUSTOM_PAYLOAD) == 0 {
            return Ok(0);
        }
        self.find_behind(flags, body)
    }

    fn find_behind(&mut self, flags: Flags, body: &[u8]) -> Result<usize, DecodeError> {
        loop {
            let mut reader = Reader::new(body.get(self.at..).unwrap_or_default());
            let part = match self.part {
                Part::Tracing => {
                    if flags.has(Flags::TRACING) {
                        reader.uuid("tracing id")?;
                    }
                    Part::Warnings
                }
                Part::Warnings if flags.has(Flags::WARNING) => Part::Warning { left: reader.u16("warnings")? },
                Part::Warnings | Part::Warning { left: 0 } => Part::Payload,
                Part::Warning { left } => {
                    reader.short_bytes("warning")?;
                    Part::Warning { left: left - 1 }
                }
                Part::Payload if flags.has(Flags::CUSTOM_PAYLOAD) => {
                    Part::PayloadEntry { left: reader.u16("custom payload")? }
                }
                Part::Payload | Part::PayloadEntry { left: 0 } => Part::Message,
                Part::PayloadEntry { left } => {
                    reader.short_bytes("custom payload")?;
                    reader.bytes("custom payload")?;
                    Part::PayloadEntry { left: left - 1 }
                }
                Part::Message => return Ok(self.at),
            };
            self.at += reader.position();
            self.part = part;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Flags = Flags(Flags::TRACING | Flags::WARNING | Flags::CUSTOM_PAYLOAD);

    /// Tracing id, two warnings, two entries (one of them null), and a message.
    fn body() -> Vec<u8> {
        let mut body = vec![7; 16];
        body.extend([0, 2, 0, 1, b'a', 0, 0, 0, 2, 0, 1, b'k', 0, 0, 0, 1, b'v', 0, 1, b'n', 0xff, 0xff, 0xff, 0xff]);
        body.extend(b"message");
        body
    }

    #[test]
    fn is_found_once_all_before_it_is_there() {
        let body = body();
        let begins = body.len() - b"message".len();
        let mut start = MessageStart::of_response();
        for have in 0..begins {
            let error = start.find(ALL, &body[..have]).unwrap_err();
            assert!(error.is_truncated() && error.missing() > 0 && have + error.missing() <= begins, "{have}: {error}");
        }
        assert_eq!(start.find(ALL, &body), Ok(begins));
        assert_eq!(MessageStart::of_response().find(ALL, &body), Ok(begins));
    }

    #[test]
    fn requests_have_a_custom_payload_only() {
        let body = &body()[23..];
        assert_eq!(MessageStart::of_request().find(ALL, body), Ok(17));
        assert_eq!(MessageStart::of_request().find(Flags(Flags::TRACING), body), Ok(0));
    }
}
