//! One connection, as those who may order it to close see it, and what they may order.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::Poll;

use atomic_waker::AtomicWaker;
use tokio::time::Instant;

use super::Connections;
use crate::proxy::stages::Source;

/// What a connection is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Order {
    Continue = 0,
    /// The node is going: a client that asked to be told is told so. Nothing else.
    Tell = 1,
    /// It is as old as it may be: as `Drain`.
    Age = 2,
    /// As `Drain`, but a client that asked to be told is told, and leaves by itself.
    Farewell = 3,
    /// Close at the next frame boundary with nothing in flight.
    Drain = 4,
    /// The advertised address changed: as `Drain`, so that the driver reads the rows again.
    Readdress = 5,
    /// The room it is in is full, and it has been there longest: close now.
    MakeRoom = 6,
    /// The process is short of memory, and this connection is new: close now.
    Shed = 7,
    /// The client takes nothing of what it is owed: close now.
    Unread = 8,
    /// The client acknowledges nothing any more: close now.
    Vanished = 9,
    /// The node is dead or is another one: close now.
    NodeGone = 10,
    /// The drain's deadline has passed: close now.
    Deadline = 11,
}

impl Order {
    const ALL: [Self; 12] = [
        Self::Continue,
        Self::Tell,
        Self::Age,
        Self::Farewell,
        Self::Drain,
        Self::Readdress,
        Self::MakeRoom,
        Self::Shed,
        Self::Unread,
        Self::Vanished,
        Self::NodeGone,
        Self::Deadline,
    ];

    fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Deadline)
    }

    /// It says to close at once, whatever is going on.
    pub fn is_now(self) -> bool {
        self >= Self::MakeRoom
    }
}

/// One connection, as those who may order it to close see it.
#[derive(Debug)]
pub struct Handle {
    order: AtomicU8,
    waker: AtomicWaker,
    /// The node's incarnation when the connection was set up.
    pub(super) incarnation: u64,
    /// Changes where a load balancer says whom it brings.
    pub(super) source: Mutex<Source>,
    /// The path of a client that registered for events.
    control: OnceLock<Arc<str>>,
    pub(super) port: u16,
    pub(super) accepted: Instant,
    /// The socket's own address and the peer's, once it is relayed.
    ends: OnceLock<(SocketAddr, SocketAddr)>,
    /// The client was sent something since it was last looked after.
    pub(super) sent_to_client: AtomicBool,
    pub(super) all: Weak<Connections>,
}

impl Handle {
    /// One that belongs to no list.
    #[cfg(test)]
    pub fn detached(source: Source) -> Self {
        Self::new(0, 0, source, Weak::new())
    }

    pub(super) fn new(port: u16, incarnation: u64, source: Source, all: Weak<Connections>) -> Self {
        Self {
            order: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            incarnation,
            source: Mutex::new(source),
            control: OnceLock::new(),
            port,
            accepted: Instant::now(),
            ends: OnceLock::new(),
            sent_to_client: AtomicBool::new(false),
            all,
        }
    }

    /// The node's incarnation when the connection was set up.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The port of the node that it is for.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn source(&self) -> Source {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn order(&self) -> Order {
        Order::from_number(self.order.load(Ordering::Acquire))
    }

    /// The task that polls the connection wants to hear of orders.
    pub fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// The first order that `matters`; only one task may wait for one.
    pub async fn ordered(&self, matters: impl Fn(Order) -> bool) -> Order {
        poll_fn(|cx| {
            self.register(cx.waker());
            let order = self.order();
            if matters(order) { Poll::Ready(order) } else { Poll::Pending }
        })
        .await
    }

    /// The path of the client, if it registered for events.
    pub fn control(&self) -> Option<&Arc<str>> {
        self.control.get()
    }

    pub fn set_control(&self, path: &Arc<str>) {
        self.control.get_or_init(|| Arc::clone(path));
    }

    /// The client's connection: the socket's own address and the peer's, a load balancer's where there is one.
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.ends.get().copied()
    }

    pub fn set_ends(&self, local: SocketAddr, peer: SocketAddr) {
        let _ = self.ends.set((local, peer));
    }

    /// Bytes were written to the client, which it may not have taken.
    pub fn sent_to_client(&self) {
        if !self.sent_to_client.load(Ordering::Relaxed) {
            self.sent_to_client.store(true, Ordering::Relaxed);
        }
    }

    /// A stronger order replaces a weaker one, never the other way round.
    pub fn give(&self, order: Order) {
        if self.order.fetch_max(order as u8, Ordering::AcqRel) < order as u8 {
            self.waker.wake();
        }
    }
}
