//! One client's connection to a simulated node, from accept to close.
//!
//! Requests are answered in order. What a fault asks for happens here, so that a test sees it on the socket.

mod respond;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::fault::Fault;
use super::node::{Arrival, Seen};
use super::shared::{Pushed, Shared};
use super::wire::Wire;
use crate::cql::compression::Compression;
use crate::cql::frame::{Flags, HEADER_LEN, Header, Opcode, Version};
use crate::cql::message::{Error, error_code};
use crate::cql::primitives::{DecodeError, Reader};
use crate::proxy::stream::Stream;

/// How long a connection that was closed with FIN discards what the client still writes.
const LINGER: Duration = Duration::from_secs(2);

/// Why a connection ends.
enum End {
    /// The client closed, or its socket failed.
    Client,
    /// With FIN, behind what was written.
    Close,
    /// With RST, whatever is still on its way.
    Reset,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Client
    }
}

impl From<DecodeError> for End {
    fn from(_: DecodeError) -> Self {
        Self::Reset
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Startup,
    Authentication,
    Ready,
}

struct Connection {
    node: Arc<Shared>,
    number: u64,
    stream: Stream,
    wire: Wire,
    stage: Stage,
    keyspace: Option<String>,
    registered: Vec<String>,
    /// What an accepted STARTUP asked for, until its answer is written.
    settled: Option<(Version, Option<Compression>)>,
    /// True when the connection ends behind the answer just made.
    refused: bool,
}

/// Serves `tcp` until either side ends it; `stop` resets it.
pub(super) async fn serve(node: Arc<Shared>, tcp: TcpStream, stop: CancellationToken) {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let _ = tcp.set_nodelay(true);
    let accepted = tokio::select! {
        () = stop.cancelled() => return,
        accepted = accept(&node, tcp) => accepted,
    };
    // A failed handshake is that one connection's.
    let Ok(stream) = accepted else { return };
    let mut connection = Connection {
        number: NUMBER.fetch_add(1, Ordering::Relaxed),
        node,
        stream,
        wire: Wire::default(),
        stage: Stage::Startup,
        keyspace: None,
        registered: Vec::new(),
        settled: None,
        refused: false,
    };
    let end = tokio::select! {
        biased;
        () = stop.cancelled() => End::Reset,
        Err(end) = connection.serve() => end,
    };
    match end {
        End::Client => {}
        End::Close => {
            let _ = connection.stream.shutdown().await;
            // Closing with unread input would be a reset, which takes what is still on its way.
            let mut nowhere = tokio::io::sink();
            let rest = tokio::io::copy(&mut connection.stream, &mut nowhere);
            let _ = tokio::time::timeout(LINGER, rest).await;
        }
        End::Reset => connection.stream.reset_on_close(),
    }
    if connection.stage == Stage::Ready {
        connection.tell(Seen::Closed);
    }
}

/// The TLS handshake where there is one; a silent node does not answer that either.
async fn accept(node: &Shared, tcp: TcpStream) -> io::Result<Stream> {
    let Some(acceptor) = &node.tls else { return Ok(Stream::Plain(tcp)) };
    let _ = node.silent.subscribe().wait_for(|silent| !silent).await;
    Ok(Stream::Tls(Box::new(acceptor.accept(tcp, &Arc::new(Semaphore::new(1))).await?.into())))
}

impl Connection {
    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        let mut pushed = self.node.pushed.subscribe();
        let mut silent = self.node.silent.subscribe();
        let mut disabled = self.node.disabled.subscribe();
        loop {
            if silent.wait_for(|silent| !silent).await.is_err() {
                return Err(End::Reset);
            }
            tokio::select! {
                biased;
                changed = silent.changed() => changed.map_err(|_| End::Reset)?,
                () = async { _ = disabled.wait_for(|disabled| *disabled).await }, if self.stage != Stage::Startup => {
                    return Err(End::Close);
                }
                event = pushed.recv() => match event {
                    Ok(event) => self.push(&event).await?,
                    // A client that reads so slowly has lost events; a real node closes it too.
                    Err(_) => return Err(End::Close),
                },
                read = self.stream.read_buf(&mut self.wire.input) => {
                    if read? == 0 {
                        return Err(End::Client);
                    }
                    self.answer_all().await?;
                }
            }
        }
    }

    fn tell(&self, seen: Seen) {
        // Nobody may be listening.
        let _ = self.node.arrivals.send(Arrival { node: self.node.index, connection: self.number, seen });
    }

    async fn push(&mut self, event: &Pushed) -> Result<(), End> {
        if !self.registered.contains(&event.event_type) {
            return Ok(());
        }
        let Some(version) = self.wire.version() else { return Ok(()) };
        let frame = self.wire.frame(version.number(), -1, 0, Opcode::EVENT, &event.body);
        self.write(&[frame]).await
    }

    async fn write(&mut self, frames: &[Vec<u8>]) -> Result<(), End> {
        let bytes = self.wire.pack(frames);
        self.send(&bytes).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    async fn answer_all(&mut self) -> Result<(), End> {
        let mut frames = Vec::new();
        while let Some((header, body)) = self.wire.next()? {
            if let Some(time) = self.node.faults.delay() {
                tokio::time::sleep(time).await;
            }
            let fault = if self.is_about_kv(header, &body) { self.node.faults.next() } else { None };
            match fault {
                None => frames.push(self.answer(header, &body)?),
                Some(Fault::Answer { opcode, flags, body }) => {
                    frames.push(self.wire.frame(header.version & 0x7f, header.stream, flags, opcode, &body));
                }
                Some(Fault::DeclareLength(length)) => {
                    let (version, flags) = (0x80 | header.version, Flags(0));
                    let lie = Header { version, flags, stream: header.stream, opcode: Opcode::RESULT, length };
                    frames.push(lie.encode().to_vec());
                }
                Some(Fault::CutResponse { after }) => {
                    frames.push(self.answer(header, &body)?);
                    let bytes = self.wire.pack(&frames);
                    self.send(bytes.get(..after).unwrap_or(&bytes)).await?;
                    return Err(End::Close);
                }
                Some(Fault::ErrorThenEnd { after, text, reset }) => {
                    let have = HEADER_LEN + body.len() + self.wire.input.len();
                    self.last_error(header, have, after, &text).await?;
                    // Closing over unread input is a reset too, the kernel's.
                    return Err(if reset { End::Reset } else { End::Client });
                }
            }
            if let Some((version, compression)) = self.settled.take() {
                // The answer to STARTUP goes out as the request came in: segments begin behind it.
                self.send(&std::mem::take(&mut frames).concat()).await?;
                self.wire.establish(version, compression);
            }
            if self.refused {
                self.write(&frames).await?;
                return Err(End::Reset);
            }
        }
        self.write(&frames).await
    }

    /// Reads `after` bytes of requests and answers the first of them with an ERROR. The client may be writing still.
    async fn last_error(&mut self, header: Header, have: usize, after: usize, text: &str) -> Result<(), End> {
        let mut read = have;
        while read < after {
            self.wire.input.clear();
            match self.stream.read_buf(&mut self.wire.input).await? {
                0 => return Err(End::Client),
                more => read += more,
            }
        }
        let body = Error { code: error_code::SERVER_ERROR, message: text }.encode();
        let frame = self.wire.frame(header.version & 0x7f, header.stream, 0, Opcode::ERROR, &body);
        self.write(&[frame]).await
    }

    /// Whether a request is a statement on `demo.kv`: what faults wait for, so that probes pass.
    fn is_about_kv(&self, header: Header, body: &[u8]) -> bool {
        if self.stage != Stage::Ready {
            return false;
        }
        let mut reader = Reader::new(body);
        match header.opcode {
            Opcode::QUERY | Opcode::PREPARE => {
                let text = reader.long_string("text").unwrap_or_default();
                String::from_utf8_lossy(text).to_ascii_lowercase().contains("kv")
            }
            Opcode::EXECUTE => {
                let id = reader.short_bytes("id").unwrap_or_default();
                self.node.prepared(id).is_some_and(|prepared| prepared.text.to_ascii_lowercase().contains("kv"))
            }
            _ => false,
        }
    }
}
