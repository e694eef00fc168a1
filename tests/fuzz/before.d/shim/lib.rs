//! 0.1.0 (09c1040) as today's fuzz targets `conversation` and `leak` ask it: the same questions, answered by the code of then.
//!
//! It had no turns: what one read brought was judged until bytes were missing, so that is one question here.

pub use was::topology;

pub mod cql {
    pub use was::cql::{compression, cost, frame, message, primitives, segment, session};
}

pub mod rewrite {
    use std::net::IpAddr;
    use std::sync::Arc;

    use was::cql::decompressed;
    use was::cql::session::Session;
    use was::rewrite::Step as Was;
    use was::rewrite::view::View;
    use was::rewrite::view::drivers::Injection;

    pub use was::rewrite::{Failure, Surroundings, statements, view};

    pub mod conversation {
        pub use super::Client;
    }

    pub mod handshake {
        use was::cql::session::Session;
        use was::rewrite::handshake as then;

        #[derive(Default)]
        pub struct Handshake(then::Handshake);

        pub enum Next {
            Wait { need: usize },
            Forward(usize),
            Replace(usize, Vec<u8>),
            Established(usize, Settled),
            Refuse { why: then::Refusal, reply: Vec<u8> },
        }

        pub struct Settled {
            pub session: Session,
            /// Logins were not seen.
            pub authenticates: bool,
        }

        impl Handshake {
            pub fn reads_client(&self) -> bool {
                self.0.reads_client()
            }

            pub fn client(&mut self, bytes: &[u8]) -> Next {
                self.0.client(bytes).into()
            }

            pub fn node(&mut self, bytes: &[u8]) -> Next {
                self.0.node(bytes).into()
            }
        }

        impl From<then::Next> for Next {
            fn from(next: then::Next) -> Self {
                match next {
                    then::Next::Wait { need } => Next::Wait { need },
                    then::Next::Forward(len) => Next::Forward(len),
                    then::Next::Replace(len, made) => Next::Replace(len, made),
                    then::Next::Established(len, settled) => {
                        Next::Established(len, Settled { session: settled.session, authenticates: false })
                    }
                    then::Next::Refuse { why, reply } => Next::Refuse { why, reply },
                }
            }
        }
    }

    pub struct Client {
        pub session: Session,
        pub view: &'static dyn View,
        pub attached: u16,
        pub family: IpAddr,
        pub injection: Injection,
        /// Logins were not seen.
        pub logged_in: bool,
    }

    pub struct Work<'a> {
        scratch: &'a mut [u8],
        decompressed: usize,
    }

    impl<'a> Work<'a> {
        pub fn new(scratch: &'a mut [u8]) -> Self {
            Self { scratch, decompressed: 0 }
        }

        pub fn decompressed(&self) -> usize {
            self.decompressed
        }
    }

    pub struct Step {
        pub pass: usize,
        pub then: Then,
    }

    pub enum Then {
        Wait { need: usize },
        Yield,
        Replace { consumed: usize, made: Vec<u8> },
        Login(()),
        Fail(Failure),
    }

    pub struct Conversation(was::rewrite::Conversation);

    impl Conversation {
        pub fn new(client: Client, around: Arc<Surroundings>) -> Self {
            let Client { session, view, attached, family, injection, logged_in: _ } = client;
            let client = was::rewrite::conversation::Client { session, view, attached, family, injection };
            Self(was::rewrite::Conversation::new(client, around))
        }

        pub fn request(&mut self, bytes: &[u8], work: &mut Work<'_>) -> Step {
            all(bytes, work, |bytes, scratch| self.0.request(bytes, scratch))
        }

        pub fn response(&mut self, bytes: &[u8], work: &mut Work<'_>) -> Step {
            all(bytes, work, |bytes, scratch| self.0.response(bytes, scratch))
        }

        pub fn let_in(&mut self) {}

        pub fn is_control(&self) -> bool {
            self.0.is_control()
        }

        pub fn in_flight(&self) -> u64 {
            self.0.in_flight()
        }

        pub fn requests_at_boundary(&self) -> bool {
            self.0.requests_at_boundary()
        }

        pub fn requests_held(&self) -> usize {
            self.0.requests_held()
        }

        pub fn responses_held(&self) -> usize {
            self.0.responses_held()
        }

        pub fn take_facts(&mut self) -> Vec<was::rewrite::conversation::Fact> {
            self.0.take_facts()
        }
    }

    /// Asks until something else than passing is said, or nothing is left.
    fn all(bytes: &[u8], work: &mut Work<'_>, mut ask: impl FnMut(&[u8], &mut [u8]) -> Was) -> Step {
        decompressed::take();
        let mut pass = 0;
        let then = loop {
            if pass == bytes.len() {
                break Then::Wait { need: 1 };
            }
            match ask(&bytes[pass..], work.scratch) {
                Was::Pass(more) => pass += more,
                Was::Wait { need } => break Then::Wait { need },
                Was::Replace(consumed, made) => break Then::Replace { consumed, made },
                Was::Fail(failure) => break Then::Fail(failure),
            }
        };
        work.decompressed += decompressed::take();
        Step { pass, then }
    }
}
