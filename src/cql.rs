//! The words of the CQL native protocol: bytes in, values out. No I/O, no knowledge of a cluster.
//!
//! # Glossary
//!
//! - **Frame**: the unit with the nine-byte header (version, flags, stream, opcode, length). The v5 specification
//!   calls it an *envelope*; this crate says frame in every version.
//! - **Segment**: v5's checksummed outer unit (the v5 specification calls it a *frame*). It carries one or more whole
//!   frames (*self-contained*) or a part of exactly one.
//! - **Message**: what a frame's body says.
//! - **client**, **node**: the two sides; **request** and **response**: the two directions.

pub mod compression;
pub mod cost;
pub mod frame;
pub mod message;
pub mod primitives;
pub mod rows;
pub mod segment;
pub mod session;
