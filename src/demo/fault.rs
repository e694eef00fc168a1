//! What a simulated node does wrong when a test asks it to. Faults wait for the next statement on `demo.kv`, each for one.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::cql::frame::Opcode;

/// One wrong answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Reads `after` bytes of requests, answers the first with ERROR 0x0000 and `text`, then resets the connection, as with
    /// SO_LINGER 0, or only closes it, over whatever it has not read.
    ErrorThenEnd { after: usize, text: String, reset: bool },
    /// Writes the first `after` bytes of the response, then closes with FIN.
    CutResponse { after: usize },
    /// Answers with this message, whatever was asked; `flags` and the body's prefixes must agree.
    Answer { opcode: Opcode, flags: u8, body: Vec<u8> },
    /// Answers with a RESULT header that declares so many bytes of body, and nothing behind it.
    DeclareLength(u32),
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    planned: Mutex<(Option<Duration>, VecDeque<Fault>)>,
}

impl Faults {
    pub fn add(&self, fault: Fault) {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).1.push_back(fault);
    }

    pub fn next(&self) -> Option<Fault> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).1.pop_front()
    }

    pub fn set_delay(&self, delay: Option<Duration>) {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).0 = delay;
    }

    pub fn delay(&self) -> Option<Duration> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}
