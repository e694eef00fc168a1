//! A client with verbs: it says on the wire just what a test tells it to.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use cqlgate::cql::compression::Compression;
use cqlgate::cql::frame::{Flags, HEADER_LEN, Header, Opcode, Version, encode_frame};
use cqlgate::cql::message::request::{self, flag};
use cqlgate::cql::message::{Event, encode_register, encode_startup};
use cqlgate::cql::primitives::{Reader, Value, Writer};
use cqlgate::cql::rows::{Prepared, Rows};
use cqlgate::cql::segment::{self, Layout, SegmentHeader};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing that is waited for takes longer on a machine that also compiles.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A protocol version with a compression.
pub type Dialect = (Version, Option<Compression>);

/// Every dialect that nodes speak.
pub const DIALECTS: [Dialect; 8] = [
    (Version::V3, None),
    (Version::V3, Some(Compression::Lz4)),
    (Version::V3, Some(Compression::Snappy)),
    (Version::V4, None),
    (Version::V4, Some(Compression::Lz4)),
    (Version::V4, Some(Compression::Snappy)),
    (Version::V5, None),
    (Version::V5, Some(Compression::Lz4)),
];

/// One row by its columns' names; nulls are left out.
pub type Row = BTreeMap<String, Vec<u8>>;

pub struct Client<S = TcpStream> {
    pub stream: S,
    dialect: Dialect,
    established: bool,
    input: Vec<u8>,
    frames: Vec<u8>,
    next_stream: i16,
}

impl Client<TcpStream> {
    /// Connects without a word.
    pub async fn dial(address: SocketAddr, dialect: Dialect) -> io::Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream, dialect))
    }

    /// Connects and gets READY.
    pub async fn connect(address: SocketAddr, dialect: Dialect) -> Self {
        Self::connect_as(address, dialect, &[]).await
    }

    /// The same with more options in STARTUP.
    pub async fn connect_as(address: SocketAddr, dialect: Dialect, options: &[(&str, &str)]) -> Self {
        let mut client = Self::dial(address, dialect).await.unwrap();
        let (opcode, body) = client.startup(options).await.unwrap();
        assert_eq!(opcode, Opcode::READY, "{}", String::from_utf8_lossy(&body));
        client
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Over a connection that is there, without a word.
    pub fn over(stream: S, dialect: Dialect) -> Self {
        let (input, frames) = (Vec::new(), Vec::new());
        Self { stream, dialect, established: false, input, frames, next_stream: 0 }
    }

    /// STARTUP; what follows is in segments where the version has them.
    pub async fn startup(&mut self, options: &[(&str, &str)]) -> io::Result<(Opcode, Vec<u8>)> {
        let mut all = vec![("CQL_VERSION", "3.0.0")];
        all.extend(self.dialect.1.map(|compression| ("COMPRESSION", compression.name())));
        all.extend(options);
        let answer = self.ask(Opcode::STARTUP, &encode_startup(&all)).await?;
        self.established = true;
        Ok(answer)
    }

    /// The bytes of one request.
    pub fn encode(&self, stream: i16, opcode: Opcode, body: &[u8]) -> Vec<u8> {
        let (version, compression) = self.dialect;
        let mut header = Header { version: version.number(), flags: Flags(0), stream, opcode, length: 0 };
        if !self.established {
            return encode_frame(header, body);
        }
        if version == Version::V5 {
            let mut out = Vec::new();
            segment::append_frame(&mut out, Layout::of(compression), &encode_frame(header, body));
            return out;
        }
        let Some(compression) = compression else { return encode_frame(header, body) };
        header.flags = Flags(Flags::COMPRESSION);
        encode_frame(header, &compression.compress(body).unwrap())
    }

    pub async fn send(&mut self, opcode: Opcode, body: &[u8]) -> io::Result<i16> {
        self.next_stream += 1;
        let bytes = self.encode(self.next_stream, opcode, body);
        timeout(PATIENCE, async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        })
        .await??;
        Ok(self.next_stream)
    }

    /// One request and its answer. An event that comes in between is a test's mistake.
    pub async fn ask(&mut self, opcode: Opcode, body: &[u8]) -> io::Result<(Opcode, Vec<u8>)> {
        let stream = self.send(opcode, body).await?;
        let (header, body) = self.receive().await?;
        assert_eq!(header.stream, stream);
        Ok((header.opcode, body))
    }

    /// The next frame, its body decompressed. EOF is `UnexpectedEof`; a reset stays what it is.
    pub async fn receive(&mut self) -> io::Result<(Header, Vec<u8>)> {
        timeout(PATIENCE, self.receive_without_end()).await?
    }

    async fn receive_without_end(&mut self) -> io::Result<(Header, Vec<u8>)> {
        loop {
            if let Some(frame) = self.take_frame() {
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn take_frame(&mut self) -> Option<(Header, Vec<u8>)> {
        let (version, compression) = self.dialect;
        let segmented = self.established && version == Version::V5;
        if segmented {
            let layout = Layout::of(compression);
            while let Some(header) = SegmentHeader::peek(layout, &self.input).unwrap() {
                if self.input.len() < header.segment_len() {
                    break;
                }
                let segment: Vec<u8> = self.input.drain(..header.segment_len()).collect();
                let mut content = vec![0; header.content_len()];
                header.decompress(header.payload(&segment).unwrap(), &mut content).unwrap();
                self.frames.extend(content);
            }
        }
        let buffer = if segmented { &mut self.frames } else { &mut self.input };
        let header = Header::peek(buffer)?;
        let length = HEADER_LEN + header.length as usize;
        if buffer.len() < length {
            return None;
        }
        let frame: Vec<u8> = buffer.drain(..length).collect();
        let body = frame[HEADER_LEN..].to_vec();
        match compression {
            Some(compression) if !segmented && header.flags.has(Flags::COMPRESSION) => {
                Some((header, compression.decompress(&body, usize::MAX).unwrap()))
            }
            _ => Some((header, body)),
        }
    }

    pub async fn query(&mut self, text: &str) -> io::Result<(Opcode, Vec<u8>)> {
        self.ask(Opcode::QUERY, &request::encode_query(self.dialect.0, text)).await
    }

    /// One page of a query's rows (native_protocol_v5.spec §4.1.4): `state` is what the page before said.
    pub async fn page(&mut self, text: &str, size: i32, state: Option<&[u8]>) -> io::Result<(Opcode, Vec<u8>)> {
        let mut message = Vec::new();
        let mut writer = Writer::new(&mut message);
        writer.long_string(text).u16(1);
        let flags = flag::PAGE_SIZE | if state.is_some() { flag::PAGING_STATE } else { 0 };
        match self.dialect.0 {
            Version::V5 => writer.i32(flags.into()),
            _ => writer.u8(flags),
        };
        writer.i32(size);
        if let Some(state) = state {
            writer.value(Value::Bytes(state));
        }
        self.ask(Opcode::QUERY, &message).await
    }

    /// A query's rows.
    pub async fn rows(&mut self, text: &str) -> Vec<Row> {
        let (opcode, body) = self.query(text).await.unwrap();
        assert_eq!(opcode, Opcode::RESULT, "{text}: {}", String::from_utf8_lossy(&body));
        rows(&body)
    }

    /// The id and (v5) the id of the result's metadata.
    pub async fn prepare(&mut self, text: &str) -> (Vec<u8>, Option<Vec<u8>>) {
        let version = self.dialect.0;
        let mut message = Vec::new();
        Writer::new(&mut message).long_string(text);
        if version == Version::V5 {
            Writer::new(&mut message).i32(0);
        }
        let (opcode, body) = self.ask(Opcode::PREPARE, &message).await.unwrap();
        assert_eq!(opcode, Opcode::RESULT, "{text}: {}", String::from_utf8_lossy(&body));
        let prepared = Prepared::parse(version, &body).unwrap();
        (prepared.id.to_vec(), prepared.result_metadata_id.map(<[u8]>::to_vec))
    }

    pub async fn execute(
        &mut self,
        (id, metadata_id): &(Vec<u8>, Option<Vec<u8>>),
        values: &[&str],
        skip_metadata: bool,
    ) -> io::Result<(Opcode, Vec<u8>)> {
        let mut message = Vec::new();
        let mut writer = Writer::new(&mut message);
        writer.short_bytes(id);
        if let Some(metadata_id) = metadata_id {
            writer.short_bytes(metadata_id);
        }
        let set = |wanted: bool, flag: u8| if wanted { flag } else { 0 };
        let flags = set(!values.is_empty(), flag::VALUES) | set(skip_metadata, flag::SKIP_METADATA);
        writer.u16(1);
        match self.dialect.0 {
            Version::V5 => writer.i32(flags.into()),
            _ => writer.u8(flags),
        };
        if !values.is_empty() {
            writer.u16(u16::try_from(values.len()).unwrap());
            values.iter().for_each(|value| _ = writer.value(Value::Bytes(value.as_bytes())));
        }
        self.ask(Opcode::EXECUTE, &message).await
    }

    pub async fn register(&mut self) {
        let types = ["STATUS_CHANGE", "TOPOLOGY_CHANGE", "SCHEMA_CHANGE"];
        let (opcode, _) = self.ask(Opcode::REGISTER, &encode_register(&types)).await.unwrap();
        assert_eq!(opcode, Opcode::READY);
    }

    /// The next event as `UP 127.0.0.1:9042`.
    pub async fn event(&mut self) -> String {
        let (header, body) = self.receive().await.unwrap();
        assert_eq!((header.stream, header.opcode), (-1, Opcode::EVENT));
        match Event::parse(&body).unwrap() {
            Event::Node { change, address } => format!("{} {address}", change.word()),
            other => format!("{other:?}"),
        }
    }

    /// What has come and is no whole frame.
    pub fn received(&self) -> &[u8] {
        if self.frames.is_empty() { &self.input } else { &self.frames }
    }

    /// How the connection ends, after whatever comes before.
    pub async fn end(&mut self) -> io::ErrorKind {
        loop {
            if let Err(error) = self.receive().await {
                return error.kind();
            }
        }
    }
}

/// The rows of a RESULT.
pub fn rows(message: &[u8]) -> Vec<Row> {
    let rows = Rows::parse(message).unwrap();
    let row = |cells: &[Value<'_>]| {
        let named = rows.columns.iter().zip(cells);
        named.filter_map(|(column, cell)| Some((column.name.to_owned(), cell.bytes()?.to_vec()))).collect()
    };
    rows.rows().map(row).collect()
}

/// ERROR's code and text.
pub fn error(message: &[u8]) -> (i32, String) {
    let mut reader = Reader::new(message);
    (reader.i32("code").unwrap(), reader.string("text").unwrap().to_owned())
}
