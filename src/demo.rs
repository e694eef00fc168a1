//! `cqlgate demo`: three simulated nodes and the gateway in one process, to look at with cqlsh and any driver.

pub mod node;

mod answer;
mod cluster;
mod connection;
mod fault;
mod request;
mod run;
mod statement;
mod table;
mod wire;
