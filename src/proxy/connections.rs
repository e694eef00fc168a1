//! Every open connection, by node port: so that those of a dead node can be closed at once, and all of them drained.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use atomic_waker::AtomicWaker;

/// What a connection is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Order {
    Continue = 0,
    /// Close at the next frame boundary with nothing in flight.
    Drain = 1,
    /// The advertised address changed: as `Drain`, so that the driver reads the rows again.
    Readdress = 2,
    /// The node is dead or is another one: close now.
    NodeGone = 3,
    /// The drain's deadline has passed: close now.
    Deadline = 4,
}

impl Order {
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Continue,
            1 => Self::Drain,
            2 => Self::Readdress,
            3 => Self::NodeGone,
            _ => Self::Deadline,
        }
    }
}

/// One connection, as those who may order it to close see it.
#[derive(Debug)]
pub struct Handle {
    order: AtomicU8,
    waker: AtomicWaker,
    /// The node's incarnation when the connection was set up.
    incarnation: u64,
    control: AtomicU8,
    port: u16,
    all: Weak<Connections>,
}

impl Handle {
    /// The node's incarnation when the connection was set up.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub fn order(&self) -> Order {
        Order::from_number(self.order.load(Ordering::Acquire))
    }

    /// The task that polls the connection wants to hear of orders.
    pub fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// The client registered for events.
    pub fn is_control(&self) -> bool {
        self.control.load(Ordering::Relaxed) == 1
    }

    pub fn set_control(&self) {
        self.control.store(1, Ordering::Relaxed);
    }

    /// A stronger order replaces a weaker one, never the other way round.
    pub fn give(&self, order: Order) {
        if self.order.fetch_max(order as u8, Ordering::AcqRel) < order as u8 {
            self.waker.wake();
        }
    }
}

/// A place among the open connections; given up when dropped.
#[derive(Debug)]
pub struct Place {
    handle: Arc<Handle>,
    key: u64,
}

impl Place {
    pub fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(all) = self.handle.all.upgrade() {
            all.leave(self.handle.port, self.key);
        }
    }
}

/// Why a new connection gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Full {
    /// `limits.connections`.
    InAll,
    /// `limits.connections_per_node`.
    ForNode,
}

impl Full {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InAll => "limit_connections",
            Self::ForNode => "limit_connections_per_node",
        }
    }
}

/// All open connections.
#[derive(Debug)]
pub struct Connections {
    limit: usize,
    limit_per_node: usize,
    open: AtomicUsize,
    ports: Mutex<HashMap<u16, HashMap<u64, Arc<Handle>>>>,
    next_key: std::sync::atomic::AtomicU64,
}

impl Connections {
    pub fn new(limit: usize, limit_per_node: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            limit_per_node,
            open: AtomicUsize::new(0),
            ports: Mutex::default(),
            next_key: std::sync::atomic::AtomicU64::new(0),
        })
    }

    /// Open connections in all.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Open connections of one node port.
    pub fn of_port(&self, port: u16) -> usize {
        self.ports().get(&port).map_or(0, HashMap::len)
    }

    /// A place for a new connection to the node behind `port`, which is in its `incarnation`-th life.
    pub fn enter(self: &Arc<Self>, port: u16, incarnation: u64) -> Result<Place, Full> {
        let mut ports = self.ports();
        if self.open() >= self.limit {
            return Err(Full::InAll);
        }
        let of_port = ports.entry(port).or_default();
        if of_port.len() >= self.limit_per_node {
            return Err(Full::ForNode);
        }
        let handle = Arc::new(Handle {
            order: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            incarnation,
            control: AtomicU8::new(0),
            port,
            all: Arc::downgrade(self),
        });
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        of_port.insert(key, Arc::clone(&handle));
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Place { handle, key })
    }

    /// Closes the connections to a node's earlier lives.
    pub fn close_before(&self, port: u16, incarnation: u64) {
        let ports = self.ports();
        let stale = ports.get(&port).into_iter().flat_map(HashMap::values);
        for handle in stale.filter(|handle| handle.incarnation < incarnation) {
            handle.give(Order::NodeGone);
        }
    }

    /// Every open connection, the newest last.
    pub fn all(&self) -> Vec<Arc<Handle>> {
        let ports = self.ports();
        let mut all: Vec<_> = ports.values().flatten().map(|(key, handle)| (*key, Arc::clone(handle))).collect();
        all.sort_unstable_by_key(|&(key, _)| key);
        all.into_iter().map(|(_, handle)| handle).collect()
    }

    fn leave(&self, port: u16, key: u64) {
        let mut ports = self.ports();
        if let Some(of_port) = ports.get_mut(&port)
            && of_port.remove(&key).is_some()
        {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn ports(&self) -> std::sync::MutexGuard<'_, HashMap<u16, HashMap<u64, Arc<Handle>>>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_and_places_come_back() {
        let connections = Connections::new(3, 2);
        let first = connections.enter(9042, 1).unwrap();
        let _second = connections.enter(9042, 1).unwrap();
        assert_eq!(connections.enter(9042, 1).unwrap_err(), Full::ForNode);
        let _third = connections.enter(9043, 1).unwrap();
        assert_eq!(connections.enter(9043, 1).unwrap_err(), Full::InAll);
        drop(first);
        assert_eq!(connections.of_port(9042), 1);
        assert!(connections.enter(9043, 1).is_ok());
    }

    #[test]
    fn only_connections_to_an_earlier_life_are_closed() {
        let connections = Connections::new(10, 10);
        let old = connections.enter(9042, 1).unwrap();
        let new = connections.enter(9042, 2).unwrap();
        let other = connections.enter(9043, 1).unwrap();
        connections.close_before(9042, 2);
        assert_eq!(old.handle().order(), Order::NodeGone);
        assert_eq!(new.handle().order(), Order::Continue);
        assert_eq!(other.handle().order(), Order::Continue);
    }

    #[test]
    fn a_weaker_order_never_replaces_a_stronger_one() {
        let connections = Connections::new(1, 1);
        let place = connections.enter(9042, 1).unwrap();
        place.handle().give(Order::NodeGone);
        place.handle().give(Order::Drain);
        assert_eq!(place.handle().order(), Order::NodeGone);
    }
}
