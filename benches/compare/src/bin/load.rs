//! A load generator: C connections with K requests in flight each, or a fixed rate; every answer's stream, opcode and
//! length is checked.
//!
//! One thread. It refills a connection with one write for each read, as drivers do, in as few v5 segments as they need.
//! Latency counts from the moment when a request was due.
//!
//! usage: load ADDRESS:PORT [--connections 8] [--in-flight 8] [--seconds 4] [--warm-up 1] [--rate REQUESTS_PER_SECOND]
//!        [--protocol v4|v5|v5-lz4] [--answer 200] [--skip-metadata] [--cpu-of PID]…
//!
//! It prints one line of JSON. `--cpu-of` adds the CPU time that these processes spent in the measured time.

use std::error::Error;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cqlgate_compare::connection::Connection;
use cqlgate_compare::wire::{Frame, Protocol, Reader, append_frame, append_string, append_wire, opcode};
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

/// Length in bytes of an EXECUTE's body.
const REQUEST: usize = 100;
/// Histogram buckets for each power of two.
const STEPS: usize = 32;
/// With a fixed rate, requests are due in ticks.
const TICK: Duration = Duration::from_millis(1);

type Failure = Box<dyn Error>;

struct Options {
    address: SocketAddr,
    protocol: Protocol,
    connections: usize,
    in_flight: usize,
    seconds: f64,
    warm_up: f64,
    rate: f64,
    answer: usize,
    skip_metadata: bool,
    cpu_of: Vec<u32>,
}

impl Options {
    fn parse() -> Result<Self, Failure> {
        let mut words = std::env::args().skip(1);
        let address = words.next().ok_or("usage: load ADDRESS:PORT [--connections …]")?.parse()?;
        let mut options = Self {
            address,
            protocol: Protocol::V4,
            connections: 8,
            in_flight: 8,
            seconds: 4.0,
            warm_up: 1.0,
            rate: 0.0,
            answer: 200,
            skip_metadata: false,
            cpu_of: Vec::new(),
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--connections" => options.connections = value()?.parse()?,
                "--in-flight" => options.in_flight = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--warm-up" => options.warm_up = value()?.parse()?,
                "--rate" => options.rate = value()?.parse()?,
                "--answer" => options.answer = value()?.parse()?,
                "--cpu-of" => options.cpu_of.push(value()?.parse()?),
                "--skip-metadata" => options.skip_metadata = true,
                "--protocol" => {
                    options.protocol = match value()?.as_str() {
                        "v4" => Protocol::V4,
                        "v5" => Protocol::V5,
                        "v5-lz4" => Protocol::V5Lz4,
                        other => return Err(format!("unknown protocol {other}").into()),
                    }
                }
                other => return Err(format!("unknown option {other}").into()),
            }
        }
        Ok(options)
    }
}

fn main() -> Result<(), Failure> {
    let options = Options::parse()?;
    let clients = (0..options.connections).map(|_| Client::connect(&options)).collect::<Result<Vec<_>, _>>()?;
    let mut load = Load { clients, histogram: vec![0; 64 * STEPS], answers: 0, out: Vec::new() };
    println!("{}", load.run(&options)?);
    Ok(())
}

/// One connection with its handshake done and its statement prepared.
struct Client {
    connection: Connection,
    reader: Reader,
    /// The body of every EXECUTE.
    execute: Vec<u8>,
    /// By stream id: since when the request is due; `None` when nothing is in flight.
    due: Vec<Option<Instant>>,
    free: Vec<u16>,
}

impl Client {
    fn connect(options: &Options) -> Result<Self, Failure> {
        let protocol = options.protocol;
        let mut socket = std::net::TcpStream::connect(options.address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut reader = Reader::new(Protocol::V4);
        let mut startup = vec![0, if protocol == Protocol::V5Lz4 { 2 } else { 1 }];
        ["CQL_VERSION", "3.4.5"].iter().for_each(|text| append_string(&mut startup, text));
        if protocol == Protocol::V5Lz4 {
            ["COMPRESSION", "lz4"].iter().for_each(|text| append_string(&mut startup, text));
        }
        ask(&mut socket, &mut reader, protocol, Protocol::V4, opcode::STARTUP, &startup, opcode::READY)?;
        reader.switch(protocol);

        let statement = b"SELECT k, v FROM bench.kv WHERE k = ?";
        let mut prepare = [&(statement.len() as u32).to_be_bytes()[..], statement].concat();
        if protocol != Protocol::V4 {
            prepare.extend_from_slice(&[0; 4]);
        }
        let prepared = ask(&mut socket, &mut reader, protocol, protocol, opcode::PREPARE, &prepare, opcode::RESULT)?;
        let ids = if protocol == Protocol::V4 { 2 + 16 } else { 2 * (2 + 16) };
        let mut execute = prepared.get(4..4 + ids).ok_or("PREPARED is too short")?.to_vec();
        // Consistency ONE; flags: values, and whether the answer may leave out its metadata; one bigint.
        let flags = 0x01 | if options.skip_metadata { 0x02 } else { 0 };
        execute.extend_from_slice(&[0, 1]);
        execute.extend_from_slice(if protocol == Protocol::V4 { &[] } else { &[0, 0, 0] });
        execute.extend_from_slice(&[flags, 0, 1]);
        let value = REQUEST - execute.len() - 4;
        execute.extend_from_slice(&(value as u32).to_be_bytes());
        execute.resize(REQUEST, 7);

        socket.set_nonblocking(true)?;
        let connection = Connection::new(mio::net::TcpStream::from_std(socket))?;
        let free = (0..options.in_flight as u16).rev().collect();
        Ok(Self { connection, reader, execute, due: vec![None; options.in_flight], free })
    }

    /// Appends one request to `frames`; false when all streams are taken.
    fn append_request(&mut self, protocol: Protocol, due: Instant, frames: &mut Vec<u8>) -> bool {
        let Some(stream) = self.free.pop() else { return false };
        self.due[usize::from(stream)] = Some(due);
        append_frame(frames, protocol.number(), stream, opcode::EXECUTE, &self.execute);
        true
    }
}

/// One request and its answer's body, before the load begins.
fn ask(
    socket: &mut std::net::TcpStream,
    reader: &mut Reader,
    version: Protocol,
    carried_by: Protocol,
    request: u8,
    body: &[u8],
    expected: u8,
) -> Result<Vec<u8>, Failure> {
    let (mut frame, mut out, mut answer, mut scratch) = (Vec::new(), Vec::new(), None, [0; 4096]);
    append_frame(&mut frame, version.number(), 0, request, body);
    append_wire(carried_by, &frame, &mut out);
    socket.write_all(&out)?;
    while answer.is_none() {
        let n = socket.read(&mut scratch)?;
        if n == 0 {
            return Err(format!("closed before the answer to opcode {request:#04x}").into());
        }
        reader.feed(&scratch[..n], |frame| answer = Some((frame.opcode, frame.body.to_vec())))?;
    }
    match answer {
        Some((found, body)) if found == expected => Ok(body),
        other => Err(format!("opcode {request:#04x} was answered with {other:02x?}").into()),
    }
}

struct Load {
    clients: Vec<Client>,
    /// Answers by latency: [`STEPS`] buckets for each power of two of nanoseconds.
    histogram: Vec<u64>,
    answers: u64,
    out: Vec<u8>,
}

impl Load {
    fn run(&mut self, options: &Options) -> Result<String, Failure> {
        let mut poll = Poll::new()?;
        for (index, client) in self.clients.iter_mut().enumerate() {
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut client.connection.socket, Token(index), both)?;
        }
        let (mut events, mut scratch) = (Events::with_capacity(1024), vec![0; 256 * 1024]);
        let mut turn = 0;
        let mut tick = Instant::now();
        let begin = tick + Duration::from_secs_f64(options.warm_up);
        let end = begin + Duration::from_secs_f64(options.seconds);
        let (mut measuring_since, mut cpu_before, mut late) = (None, Vec::new(), 0u64);
        if options.rate == 0.0 {
            for index in 0..self.clients.len() {
                self.refill(index, options.protocol, tick, usize::MAX)?;
            }
        }
        loop {
            let now = Instant::now();
            if measuring_since.is_none() && now >= begin {
                (measuring_since, cpu_before, late, self.answers) = (Some(now), cpu(&options.cpu_of)?, 0, 0);
                self.histogram.fill(0);
            }
            if now >= end {
                break;
            }
            while options.rate > 0.0 && tick <= now {
                for _ in 0..(options.rate * TICK.as_secs_f64()).round() as usize {
                    turn = (turn + 1) % self.clients.len();
                    late += u64::from(self.refill(turn, options.protocol, tick, 1)? == 0);
                }
                tick += TICK;
            }
            let until = if options.rate > 0.0 { tick - now.min(tick) } else { Duration::from_millis(100) };
            match poll.poll(&mut events, Some(until)) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                let Token(index) = event.token();
                if event.is_writable() {
                    self.clients[index].connection.flush()?;
                }
                if event.is_readable() {
                    self.receive(index, options, event, &mut scratch)?;
                }
            }
        }
        let seconds = measuring_since.ok_or("no measured time")?.elapsed().as_secs_f64();
        let spent: Vec<_> =
            cpu(&options.cpu_of)?.iter().zip(&cpu_before).map(|(after, before)| after - before).collect();
        Ok(format!(
            "{{\"requests\": {}, \"seconds\": {seconds:.3}, \"p50_us\": {:.0}, \"p99_us\": {:.0}, \"not_sent\": {late}, \"cpu_s\": {spent:?}}}",
            self.answers,
            self.percentile(0.50),
            self.percentile(0.99),
        ))
    }

    fn refill(&mut self, index: usize, protocol: Protocol, due: Instant, most: usize) -> Result<usize, Failure> {
        let client = &mut self.clients[index];
        let (mut frames, mut count) = (Vec::new(), 0);
        while count < most && client.append_request(protocol, due, &mut frames) {
            count += 1;
        }
        self.out.clear();
        append_wire(protocol, &frames, &mut self.out);
        client.connection.write(&self.out)?;
        Ok(count)
    }

    fn receive(&mut self, index: usize, options: &Options, event: &Event, scratch: &mut [u8]) -> Result<(), Failure> {
        let client = &mut self.clients[index];
        let (mut outcome, now) = (Ok(()), Instant::now());
        let (reader, due, free) = (&mut client.reader, &mut client.due, &mut client.free);
        let (histogram, answers) = (&mut self.histogram, &mut self.answers);
        let open = client.connection.read(event, scratch, |bytes| {
            let mut checked = Ok(());
            let fed = reader.feed(bytes, |frame| match check(&frame, due, options) {
                Ok(since) => {
                    free.push(frame.stream);
                    histogram[bucket(now.saturating_duration_since(since))] += 1;
                    *answers += 1;
                }
                Err(error) => checked = Err(error),
            });
            if let Err(error) = fed.and(checked) {
                outcome = Err(error);
            }
        })?;
        outcome?;
        if !open {
            return Err("the other side closed a connection".into());
        }
        if options.rate == 0.0 {
            self.refill(index, options.protocol, now, usize::MAX)?;
        }
        Ok(())
    }

    /// Microseconds, the upper end of a bucket.
    fn percentile(&self, part: f64) -> f64 {
        let mut left = (self.answers as f64 * part) as u64;
        for (bucket, &count) in self.histogram.iter().enumerate() {
            if count > left {
                let (power, step) = (bucket / STEPS, bucket % STEPS);
                return (power as f64).exp2() * (1.0 + (step + 1) as f64 / STEPS as f64) / 1000.0;
            }
            left -= count;
        }
        0.0
    }
}

/// Since when the answered request was due.
fn check(frame: &Frame<'_>, due: &mut [Option<Instant>], options: &Options) -> Result<Instant, String> {
    let since = due.get_mut(usize::from(frame.stream)).and_then(Option::take);
    let since = since.ok_or_else(|| format!("an answer on stream {} that nothing waits for", frame.stream))?;
    let version = options.protocol.number() | 0x80;
    if (frame.version, frame.opcode, frame.body.len()) != (version, opcode::RESULT, options.answer) {
        let Frame { version, opcode, body, .. } = frame;
        return Err(format!("an answer of version {version:#04x}, opcode {opcode:#04x}, {} bytes", body.len()));
    }
    Ok(since)
}

fn bucket(latency: Duration) -> usize {
    let nanos = (latency.as_nanos() as u64).max(STEPS as u64);
    let power = nanos.ilog2() as usize;
    power * STEPS + (nanos >> (power - STEPS.ilog2() as usize)) as usize % STEPS
}

/// CPU seconds that each process has spent so far, from the scheduler's nanoseconds of all its threads.
fn cpu(processes: &[u32]) -> Result<Vec<f64>, Failure> {
    let of = |pid: &u32| -> Result<f64, Failure> {
        let mut total = 0.0;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            total += text.split(' ').next().ok_or("schedstat is empty")?.parse::<f64>()? / 1e9;
        }
        Ok(total)
    };
    processes.iter().map(of).collect()
}
