//! cqlgate: the front door for Apache Cassandra.
//!
//! One external address in front of a cluster; each node is a port of that address. Unmodified drivers
//! discover every node, keep token-aware routing, and never see an address they cannot dial.
//!
//! # One picture
//!
//! ```text
//!       a YAML list          contact points          EndpointSlices, Pods (and DNS)
//!             └───────────── discovery (one of them) ─────────┘
//!                                        │  mpsc<Input>                what was seen: identity, address, alive?
//!                                        ▼
//!                     topology::state, owned by discovery::writer: nodes + ports + host ids
//!                                        │  watch<Arc<Topology>>       what clients may be told
//!             ┌──────────────────────────┼───────────────────────────┐
//!             ▼                          ▼                           ▼
//!       proxy::listener            proxy::relay                 admin
//!       accepted port → node       rows and events rewritten    /metrics /livez /readyz /topology
//!                                  through a View
//!
//! client ══TCP/TLS══▶ listener :9042+n ══▶ handshake ══▶ ┌ requests  ─▶ ┐ ══TCP/TLS══▶ node:9042
//!                                                        └ ◀─ responses ┘
//! ```
//!
//! # A pod moves, as the news travel
//!
//! ```text
//! watch event ─▶ discovery::kubernetes::fold (the later of two witnesses counts; 100 ms to settle) ─▶ placement: the same port
//!   ─▶ Input::Nodes ─▶ topology::state: another life of the node; its connections are closed, a probe asks who lives there
//!   ─▶ next Topology ─▶ rewrite::events on each control connection: DOWN, and UP when a dial would succeed
//! ```
//!
//! # Floors: who may import whom (`tests/floors.rs` reads the `use` lines and keeps it)
//!
//! ```text
//!  4  main, cli, gateway, demo               start-up; gateway.rs is the only module that knows everyone
//!  3  discovery   proxy   admin              the outside world: tokio, kube, rustls, hyper
//!  2  rewrite                                meaning: cql × topology; bytes in, decision out; no I/O
//!  1  cql        topology                    words of the protocol │ facts about the cluster
//!  0  config   metrics   readiness   telemetry   shutdown
//! ```
//!
//! `cql`, `topology` and `rewrite` have no async, no socket, no clock. Each piece of state has one writer;
//! everyone else holds an immutable snapshot received through a `watch`.

pub mod admin;
pub mod cli;
pub mod config;
pub mod cql;
pub mod demo;
pub mod discovery;
pub mod gateway;
pub mod metrics;
pub mod proxy;
pub mod readiness;
pub mod rewrite;
pub mod shutdown;
pub mod telemetry;
pub mod topology;
