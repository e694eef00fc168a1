//! A client's connection from accept to close.

pub mod tls;
