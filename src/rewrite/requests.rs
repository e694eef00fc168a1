//! What happens to a client's requests: nearly all pass.
//!
//! Four things are looked at. An answer that is asked to skip its metadata names no table, so the flag is cleared unless the
//! statement is known to be ordinary. REGISTER may make the connection a control connection. The beginning of a QUERY says
//! whether its answer can be learned from. And who logs in may have to wait.
//!
//! What gateway and node might read differently is refused: nodes ignore the COMPRESSION flag in v5, and where no compression
//! was agreed on. So is a body that does not decompress, whatever the request: processes of nodes end of them. They end of
//! bodies that claim more than they hold, too; those are looked for until the node let the client in, and no longer, as every
//! byte of every request would have to be looked at.

use super::exchange::Exchange;
use super::fact::Fact;
use super::graceful_disconnect::{self, Offer};
use super::handshake::ENDS_EARLY;
use super::plain_selection;
use super::registration::{MAX_REGISTER, RegisteredTypes};
use super::statement::{self, Head, Looked, Skip};
use super::streams::Note;
use super::walk::{Clear, Judge, Verdict};
use super::{Failure, Login, Why, Work};
use crate::cql::compression::{Compression, Decoded, Decoder};
use crate::cql::frame::{Header, Opcode, Version, encode_frame};
use crate::cql::message::request::flag::SKIP_METADATA;
use crate::cql::message::{MessageStart, Register, claims, request};
use crate::cql::primitives::DecodeError;

/// The longest body before the node let the client in: Kerberos tickets reach some ten KiB.
const MAX_BEFORE_LOGIN: u32 = 64 * 1024;

/// The judge's own state in the direction client → node.
#[derive(Debug, Default)]
pub struct Requests {
    /// What was found out about a QUERY or EXECUTE that is not decided.
    looked: Option<Box<Looked>>,
}

impl Requests {
    /// Bytes that are held here.
    pub fn held_bytes(&self) -> usize {
        self.looked.as_ref().map_or(0, |looked| looked.held_bytes())
    }
}

/// The judge of one step.
pub struct RequestJudge<'a> {
    pub requests: &'a mut Requests,
    pub exchange: &'a mut Exchange,
}

impl RequestJudge<'_> {
    fn pass(&mut self, header: Header, note: Note) -> Verdict {
        self.exchange.ask(header, note);
        Verdict::Pass
    }

    /// A QUERY or EXECUTE.
    #[inline]
    fn statement(&mut self, header: Header, body: &[u8], work: &mut Work<'_>) -> Verdict {
        let session = self.exchange.client.session;
        match session.compression.filter(|_| session.is_compressed(header)) {
            None => self.plain(header, body),
            Some(compression) => self.compressed(compression, header, body, work),
        }
    }

    #[inline(never)]
    fn compressed(&mut self, compression: Compression, header: Header, body: &[u8], work: &mut Work<'_>) -> Verdict {
        let mut looked = self.requests.looked.take().map_or_else(Looked::default, |looked| *looked);
        let mut decoder = looked.decoder.take().unwrap_or_else(|| Decoder::new(compression));
        let verdict = self.decompressed(&mut looked.start, &mut decoder, header, body, work);
        looked.decoder = Some(decoder);
        if matches!(verdict, Verdict::Need(_) | Verdict::Later) {
            self.requests.looked = Some(Box::new(looked));
        }
        verdict
    }

    #[inline]
    fn plain(&mut self, header: Header, body: &[u8]) -> Verdict {
        let is_whole = body.len() == header.length as usize;
        let mut start = self.requests.looked.take().map_or_else(MessageStart::of_request, |looked| looked.start);
        match self.head(&mut start, header, header.length as usize, body) {
            Ok(head) => self.settle(header, body, &head),
            Err(error) if !is_whole && error.is_truncated() => {
                self.requests.looked = Some(Box::new(Looked { start, decoder: None }));
                Verdict::Need(body.len() + error.missing())
            }
            // In v5 the node reads on in the next frame of the segment: another request than this one.
            Err(_) if is_whole && self.exchange.client.session.version == Version::V5 => {
                self.refused(header, Why::Malformed, ENDS_EARLY)
            }
            // The node will say so.
            Err(_) => self.pass(header, Note::Plain),
        }
    }

    #[inline]
    fn head(&self, start: &mut MessageStart, header: Header, length: usize, body: &[u8]) -> Result<Head, DecodeError> {
        statement::head(start, header, length, self.exchange.client.session.version, body)
    }

    /// The head of a statement is known: it passes, with its flag cleared if need be.
    #[inline]
    fn settle(&mut self, header: Header, body: &[u8], head: &Head) -> Verdict {
        let (note, skip) = self.meaning(body, head);
        self.ask(header, body, head, note);
        match skip {
            Skip::Stays => Verdict::Pass,
            Skip::Cleared => {
                if head.is_execute() {
                    self.exchange.facts.push(Fact::Redescribed);
                }
                match u32::try_from(head.flags()) {
                    Ok(offset) => Verdict::Clear(Clear { offset, bits: SKIP_METADATA }),
                    Err(_) => Verdict::Pass,
                }
            }
        }
    }

    #[inline]
    fn ask(&mut self, header: Header, body: &[u8], head: &Head, note: Note) {
        let id = match head {
            Head::Execute { id, .. } if note == Note::Described => body.get(id.clone()).unwrap_or_default().try_into(),
            _ => return self.exchange.ask(header, note),
        };
        match id {
            Ok(statement) => self.exchange.ask_to_describe(header, statement),
            Err(_) => self.exchange.ask(header, Note::Plain),
        }
    }

    /// What a statement's answer will mean, and whether it may be asked to skip its metadata.
    #[inline]
    fn meaning(&self, body: &[u8], head: &Head) -> (Note, Skip) {
        match head {
            Head::Query { text, flags } => {
                let text = body.get(text.clone()).filter(|text| text.len() <= plain_selection::LOOK);
                let note = if plain_selection::is_plain(text.unwrap_or_default()) {
                    Note::PlainSelection
                } else if self.exchange.client.injection.any() {
                    Note::Query
                } else {
                    Note::Plain
                };
                // The flags of a long one have not arrived: cleared they are in any case.
                let skips = body.get(*flags).is_none_or(|flags| flags & SKIP_METADATA != 0);
                (note, if skips { Skip::Cleared } else { Skip::Stays })
            }
            Head::Execute { skips: false, .. } => (Note::Plain, Skip::Stays),
            Head::Execute { id, .. } => {
                let id = body.get(id.clone()).unwrap_or_default();
                if self.exchange.around.statements.contains(id) {
                    return (Note::Skipping, Skip::Stays);
                }
                (Note::Described, Skip::Cleared)
            }
        }
    }

    /// A statement whose body is compressed: it is decoded as far as its flags; it is needed whole only when they must change.
    fn decompressed(
        &mut self,
        start: &mut MessageStart,
        decoder: &mut Decoder,
        header: Header,
        body: &[u8],
        work: &mut Work<'_>,
    ) -> Verdict {
        let is_whole = body.len() == header.length as usize;
        loop {
            let length = decoder.declared().unwrap_or(usize::MAX);
            let wanted = match self.head(start, header, length, decoder.decoded()) {
                Ok(head) if head.flags() < decoder.decoded().len() => match self.meaning(decoder.decoded(), &head) {
                    (note, Skip::Stays) => return self.pass(header, note),
                    (_, Skip::Cleared) if !is_whole => return Verdict::Need(header.length as usize),
                    (_, Skip::Cleared) if length > self.exchange.around.held_frame => {
                        return Verdict::Fail(self.too_long_to_hold(header));
                    }
                    (_, Skip::Cleared) if decoder.decoded().len() == length => {
                        return self.cleared(decoder, header, &head);
                    }
                    (_, Skip::Cleared) => length,
                },
                Ok(head) => head.flags().saturating_add(1),
                Err(error) if error.is_truncated() && decoder.decoded().len() < length => {
                    decoder.decoded().len().saturating_add(error.missing())
                }
                // The node will say so.
                Err(_) => return self.pass(header, Note::Plain),
            };
            if wanted > self.exchange.around.held_frame {
                return Verdict::Fail(self.too_long_to_hold(header));
            }
            match work.decode(decoder, body, is_whole, wanted) {
                Ok(Decoded::NeedInput) if !is_whole => return Verdict::Need(body.len() + 1),
                Ok(Decoded::NeedInput) | Err(_) => return Verdict::Fail(self.not_decompressed(header)),
                Ok(_) if decoder.decoded().len() < wanted.min(decoder.declared().unwrap_or(wanted)) => {
                    return Verdict::Later;
                }
                Ok(_) => {}
            }
        }
    }

    /// The statement goes on with its flag cleared, compressed as it came.
    fn cleared(&mut self, decoder: &mut Decoder, header: Header, head: &Head) -> Verdict {
        let mut body = std::mem::replace(decoder, Decoder::new(decoder.compression())).into_decoded();
        // The verdict of the head is made anew: what it notes belongs to the request that goes out now.
        let compression = decoder.compression();
        self.settle(header, &body, head);
        if let Some(flags) = body.get_mut(head.flags()) {
            *flags &= !SKIP_METADATA;
        }
        match compression.compress(&body) {
            Ok(body) => Verdict::Replace(encode_frame(header, &body)),
            Err(_) => Verdict::Fail(self.too_long_to_hold(header)),
        }
    }

    /// The whole body of a short request, decompressed if it must be.
    fn short(&self, header: Header, body: &[u8], limit: u32, work: &mut Work<'_>) -> Result<Vec<u8>, Verdict> {
        if body.len() < header.length as usize {
            return Err(Verdict::Need(header.length as usize));
        }
        let session = self.exchange.client.session;
        match session.compression.filter(|_| session.is_compressed(header)) {
            None => Ok(body.to_vec()),
            Some(compression) => work
                .decompress(compression, body, limit as usize)
                .map_err(|_| Verdict::Fail(self.not_decompressed(header))),
        }
    }

    fn register(&mut self, header: Header, body: &[u8], work: &mut Work<'_>) -> Verdict {
        let body = match self.short(header, body, MAX_REGISTER, work) {
            Ok(body) => body,
            Err(verdict) => return verdict,
        };
        let start = MessageStart::of_request().find(header.flags, &body).unwrap_or(usize::MAX);
        let Ok(register) = Register::parse(body.get(start..).unwrap_or_default()) else {
            return self.pass(header, Note::Plain);
        };
        let offer = self.exchange.offer;
        let types = RegisteredTypes::of(&register, offer);
        let topology = (self.exchange.around.topology)();
        let control = self.exchange.control.get_or_insert_default();
        control.announcer.begin(&topology);
        if !control.registration.ask(header.stream, types) {
            return self.refused(
                header,
                Why::Malformed,
                "cqlgate: too many REGISTERs without an answer; one names all types",
            );
        }
        if types.graceful_disconnect && offer == Offer::Gateway {
            self.exchange.ask(header, Note::Plain);
            return Verdict::Replace(graceful_disconnect::left_out(header, &body, start, &register));
        }
        self.pass(header, Note::Plain)
    }

    /// A request of a client that the node has not let in: the verdict, or `None` where it is that of every client's. Nodes read
    /// the whole of it before they ask whether it may be said.
    #[cold]
    fn stranger(&mut self, header: Header, body: &[u8], work: &mut Work<'_>) -> Option<Verdict> {
        let body = match self.short(header, body, MAX_BEFORE_LOGIN, work) {
            Ok(body) => body,
            Err(verdict) => return Some(verdict),
        };
        if !claims::fit(header.version, header.opcode, header.flags, &body) {
            return Some(self.refused(header, Why::Malformed, ENDS_EARLY));
        }
        (header.opcode == Opcode::AUTH_RESPONSE).then(|| self.login(header, &body))
    }

    /// AUTH_RESPONSE waits until the client may log in.
    fn login(&mut self, header: Header, body: &[u8]) -> Verdict {
        if std::mem::take(&mut self.exchange.let_in) {
            return self.pass(header, Note::Plain);
        }
        let start = MessageStart::of_request().find(header.flags, body).unwrap_or(usize::MAX);
        Verdict::Ask(Login { user: request::sasl_plain_user(body.get(start..).unwrap_or_default()) })
    }

    fn refused(&self, header: Header, why: Why, text: &str) -> Verdict {
        Verdict::Fail(self.failure(header, why, text))
    }

    fn failure(&self, header: Header, why: Why, text: &str) -> Failure {
        Failure { why, reply: Some(self.exchange.protocol_error(header, text)) }
    }
}

impl Judge for RequestJudge<'_> {
    #[inline]
    fn judge(&mut self, header: Header, body: &[u8], work: &mut Work<'_>) -> Verdict {
        if !self.exchange.around.rewriting {
            return self.pass(header, Note::Plain);
        }
        if !self.exchange.client.logged_in
            && let Some(verdict) = self.stranger(header, body, work)
        {
            return verdict;
        }
        match header.opcode {
            Opcode::QUERY | Opcode::EXECUTE => self.statement(header, body, work),
            Opcode::REGISTER => self.register(header, body, work),
            _ => self.pass(header, Note::Plain),
        }
    }

    #[inline]
    fn refuse(&self, header: Header) -> Option<Failure> {
        let session = self.exchange.client.session;
        let most = match header.opcode {
            Opcode::REGISTER => MAX_REGISTER,
            _ if self.exchange.client.logged_in => self.exchange.around.max_body,
            _ => MAX_BEFORE_LOGIN.min(self.exchange.around.max_body),
        };
        let is_right = header.version == session.version.number()
            && header.length <= most
            && (session.compression.is_some() || !session.is_compressed(header));
        (!is_right && self.exchange.around.rewriting).then(|| self.contradiction(header, most))
    }

    fn too_long_to_hold(&self, header: Header) -> Failure {
        let text = format!(
            "cqlgate: a frame body of {} bytes must change before it is sent on, and is longer than the maximum of {} bytes, or \
             will be when it is decompressed (limits.held_frame); without Skip_metadata it passes as it is",
            header.length, self.exchange.around.held_frame
        );
        self.failure(header, Why::HeldFrameTooLong, &text)
    }

    fn held_limit(&self) -> usize {
        self.exchange.around.held_frame
    }

    fn passes_corrupt_payload(&self) -> bool {
        true
    }

    /// Nodes refuse it on stream 0, whatever is in flight there, and close.
    fn corrupt_payload_passes(&mut self) {
        self.exchange.streams.trust_nothing();
    }

    fn checks(&self, header: Header) -> Option<(Compression, u32)> {
        if !self.exchange.around.rewriting {
            return None;
        }
        let session = self.exchange.client.session;
        let compression = session.compression.filter(|_| session.is_compressed(header))?;
        Some((compression, self.exchange.around.max_body))
    }

    fn not_decompressed(&self, header: Header) -> Failure {
        self.failure(header, Why::Compression, "cqlgate: the frame's body does not decompress")
    }
}

impl RequestJudge<'_> {
    /// What a header says that cannot be: in the words of nodes, where they have some
    /// (apache/cassandra `transport/Envelope.java`, `transport/Message.java`).
    #[cold]
    fn contradiction(&self, header: Header, most: u32) -> Failure {
        let version = self.exchange.client.session.version.number();
        if header.is_response() {
            let opcode = header.opcode.0;
            let text = format!("Wrong protocol direction (expected REQUEST, got RESPONSE) for opcode {opcode}");
            return self.failure(header, Why::WrongDirection, &text);
        }
        if header.version != version {
            let text = format!(
                "Invalid message version. Got {} but previous messages on this connection had version {version}",
                header.version
            );
            return self.failure(header, Why::VersionChanged, &text);
        }
        if header.length > most {
            let text = format!("Frame body of {} bytes exceeds the maximum of {most} bytes", header.length);
            return self.failure(header, Why::FrameTooLong, &text);
        }
        let text = "cqlgate: the frame's COMPRESSION flag is set, and no compression was agreed on at STARTUP";
        self.failure(header, Why::Compression, text)
    }
}
