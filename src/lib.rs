//! cqlgate: the front door for Apache Cassandra.
//!
//! One gateway in front of a cluster; each node is a port that it listens on, and what clients dial for that port. Unmodified drivers
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
//! # A byte, from a client to its node
//!
//! ```text
//! proxy::listener (proxy::gate: may this address come at all?) ─▶ proxy::connection (whom a load balancer brings: proxy::header;
//!   accepted ▷ TLS ▷ setting up ▷ not logged in: proxy::stages, each with its places)
//!   ─▶ proxy::relay ─▶ proxy::direction (reads, keeps what is undecided, writes) ─▶ rewrite::conversation
//!      ─▶ rewrite::walk::{frames, segments} ─▶ decide ─▶ rewrite::{requests, responses}: Need │ Later │ Ask │ Pass │ Clear │ Replace │ Fail
//!      ◀─ Step { pass n bytes, then Wait │ Yield │ Replace │ Login │ Fail }
//! ```
//!
//! Nothing is looked at twice: who decides keeps what it found out about a frame. One turn of a connection does a bounded amount
//! of work ([`rewrite::Work`]); memory is taken as bytes arrive ([`proxy::hold`]), and [`proxy::memory`] has the worst case of each
//! stage. What an answer teaches is taken from answers that can belong to one request alone ([`rewrite::streams`]).
//!
//! # Threads
//!
//! Relays run on the runtime's workers, which [`gateway::watchdog`] watches; discovery, probes, the writer of the topology and
//! those who look after all this on a thread of their own ([`gateway::control`]); the admin address, the log, the look at memory and
//! the looks at files ([`disk`]) each on one. Tasks that must not end are owned by [`gateway::tasks`]: the end of one ends the gateway.
//!
//! # A pod moves, as the news travel
//!
//! ```text
//! discovery::kubernetes::watch ─▶ slices (what of an EndpointSlice matters) ─▶ the source, 100 ms to settle ─▶ fold (the names of which
//!   it says something else) ─▶ fold::conclude (both witnesses: what is listed, and is it confirmed?) ─▶ placement: the port
//!   ─▶ telling: Input::Nodes ─▶ discovery::writer ─▶ topology::state: another life of the node; its connections are closed, a probe
//!   asks who lives there ─▶ the next Topology ─▶ rewrite::events on each control connection: DOWN, and UP when a dial would succeed
//! ```
//!
//! # What a client dials
//!
//! ```text
//! config::advertise (which address is meant for which ports, on which path) ─▶ Input::Paths ─┐
//! discovery::advertised (names, Services: what they mean now) ─▶ Input::External ────────────┴▶ topology::paths: from ports to endpoints
//! proxy::paths (where the client comes from) ─▶ the path's name, kept for the connection's life
//!   ─▶ each row and event: Path::endpoint(node); `None` hides it, as a node that is not announced
//!   ─▶ rewrite::view::select: which drivers can tell nodes apart that look like this (Shape)
//! ```
//!
//! # A configuration changes
//!
//! ```text
//! cli::reload (the file by its content, SIGHUP) ─▶ config ─▶ gateway::reload: what may fail first, then all of it
//!   ─▶ proxy::settings (who comes from now on takes them, who is there keeps his) │ limits │ discovery::changes: the writer, ports, probes
//!   and sources stay, and go by other terms
//! ```
//!
//! # Floors: who may import whom (`tests/floors.rs` reads the `use` lines and keeps it)
//!
//! ```text
//!  4  main, cli, gateway, demo               start-up; gateway.rs is the only module that knows everyone
//!  3  discovery   proxy   admin              the outside world: tokio, kube, rustls, hyper
//!  2  rewrite                                meaning: cql × topology; bytes in, decision out; no I/O
//!  1  cql        topology                    words of the protocol │ facts about the cluster
//!  0  config   metrics   readiness   telemetry   shutdown   label   disk
//! ```
//!
//! `cql`, `topology` and `rewrite` have no async, no socket, no clock; of floor 0 they know `config` and `label`. A word that
//! metrics and log show belongs to whoever knows what it means, and is counted as a [`label::Label`]. Each piece of state has
//! one writer; everyone else holds an immutable snapshot received through a `watch`.

pub mod admin;
pub mod cli;
pub mod config;
pub mod cql;
pub mod demo;
pub mod discovery;
pub mod disk;
pub mod gateway;
pub mod label;
pub mod metrics;
pub mod proxy;
pub mod readiness;
pub mod rewrite;
pub mod shutdown;
pub mod telemetry;
pub mod topology;
