//! A socket of an edge-triggered poll: read until it is drained, write until it is full, keep the rest.

use std::io::{self, Read, Write};

use mio::event::Event;
use mio::net::TcpStream;

pub struct Connection {
    pub socket: TcpStream,
    unsent: Vec<u8>,
}

impl Connection {
    pub fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self { socket, unsent: Vec::new() })
    }

    /// Calls `each` with what has arrived. `Ok(false)`: the other side has closed.
    pub fn read(&mut self, event: &Event, scratch: &mut [u8], mut each: impl FnMut(&[u8])) -> io::Result<bool> {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => return Ok(false),
                // A short read has drained the socket: no second read to be told so, unless an end is to be read as well.
                Ok(n) => {
                    each(&scratch[..n]);
                    if n < scratch.len() && !event.is_read_closed() {
                        return Ok(true);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) => return Err(e),
            }
        }
    }

    /// Writes `bytes` after what is still unsent.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.unsent.is_empty() {
            let mut rest = bytes;
            while !rest.is_empty() {
                match self.socket.write(rest) {
                    Ok(n) => rest = &rest[n..],
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e),
                }
            }
            self.unsent.extend_from_slice(rest);
        } else {
            self.unsent.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// The socket can be written again.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let unsent = std::mem::take(&mut self.unsent);
        self.write(&unsent)
    }
}
