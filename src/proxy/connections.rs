//! Every connection from accept to close, by node port: so that each hears an order in whatever stage it is, those of a dead node
//! are closed at once, and all of them drained.

mod handle;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::stages::{Full, Source, Stage, Stages};
use crate::config::Limits;

pub use handle::{Handle, Order};

/// A connection's place in one of the rooms; given up when dropped.
#[derive(Debug)]
pub struct Place {
    handle: Arc<Handle>,
    key: u64,
    stage: Stage,
}

impl Place {
    pub fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Gives the place up for one in another room.
    ///
    /// # Errors
    /// There is none: the connection stays where it is, and has to end.
    pub fn move_to(&mut self, stage: Stage) -> Result<(), Full> {
        let Some(all) = self.handle.all.upgrade() else { return Ok(()) };
        let mut rooms = all.rooms();
        if stage == Stage::Established {
            let established = rooms.ports.entry(self.handle.port).or_default().established;
            if established >= rooms.limit_per_node {
                return Err(Full::Node);
            }
        }
        let source = self.handle.source();
        rooms.stages.enter(stage, source, self.key, &self.handle, Instant::now())?;
        rooms.stages.leave(self.stage, source, self.key);
        if stage == Stage::Established {
            rooms.ports.entry(self.handle.port).or_default().established += 1;
        }
        self.stage = stage;
        Ok(())
    }

    /// The place is `source`'s: it was said that the client is another one than it seemed.
    ///
    /// # Errors
    /// There is none for it: the connection has to end.
    pub fn give_to(&mut self, source: Source) -> Result<(), Full> {
        let Some(all) = self.handle.all.upgrade() else { return Ok(()) };
        let mut rooms = all.rooms();
        let before = std::mem::replace(&mut *self.handle.source.lock().unwrap_or_else(PoisonError::into_inner), source);
        rooms.stages.leave(self.stage, before, self.key);
        rooms.stages.enter(self.stage, source, self.key, &self.handle, Instant::now())
    }

    /// Whether an established connection would find a place now: asked before a node is dialled in vain.
    pub fn could_be_established(&self) -> Result<(), Full> {
        let Some(all) = self.handle.all.upgrade() else { return Ok(()) };
        let mut rooms = all.rooms();
        if rooms.ports.get(&self.handle.port).is_some_and(|port| port.established >= rooms.limit_per_node) {
            return Err(Full::Node);
        }
        rooms.stages.is_full(Stage::Established, self.handle.source())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(all) = self.handle.all.upgrade() {
            all.leave(self);
        }
    }
}

/// All connections.
#[derive(Debug)]
pub struct Connections {
    rooms: Mutex<Rooms>,
}

#[derive(Debug)]
struct Rooms {
    limit_per_node: usize,
    stages: Stages,
    ports: HashMap<u16, Port>,
    next_key: u64,
}

/// The connections of one node's port.
#[derive(Debug, Default)]
struct Port {
    handles: HashMap<u64, Arc<Handle>>,
    established: usize,
}

impl Connections {
    pub fn new(limits: &Limits) -> Arc<Self> {
        let limit_per_node = limits.connections_per_node;
        let rooms = Rooms { limit_per_node, stages: Stages::new(limits), ports: HashMap::new(), next_key: 0 };
        Arc::new(Self { rooms: Mutex::new(rooms) })
    }

    /// Other numbers for whoever comes from now on; nobody who has a place loses it.
    pub fn set_limits(&self, limits: &Limits) {
        let mut rooms = self.rooms();
        rooms.limit_per_node = limits.connections_per_node;
        rooms.stages.set_limits(limits);
    }

    /// Established connections in all.
    pub fn established(&self) -> usize {
        self.taken(Stage::Established)
    }

    /// Connections in this stage.
    pub fn taken(&self, stage: Stage) -> usize {
        self.rooms().stages.taken(stage)
    }

    /// Established connections of one node port.
    pub fn of_port(&self, port: u16) -> usize {
        self.rooms().ports.get(&port).map_or(0, |port| port.established)
    }

    /// A place in the first room for a new connection of `source` to the node behind `port`, which is in its `incarnation`-th
    /// life.
    pub fn enter(self: &Arc<Self>, port: u16, incarnation: u64, source: Source) -> Result<Place, Full> {
        let mut rooms = self.rooms();
        let key = rooms.next_key;
        let handle = Arc::new(Handle::new(port, incarnation, source, Arc::downgrade(self)));
        rooms.stages.enter(Stage::Accepted, source, key, &handle, Instant::now())?;
        rooms.next_key += 1;
        rooms.ports.entry(port).or_default().handles.insert(key, Arc::clone(&handle));
        Ok(Place { handle, key, stage: Stage::Accepted })
    }

    /// Whoever has been in this stage longest leaves it.
    pub fn make_room(&self, stage: Stage) {
        self.rooms().stages.make_room(stage);
    }

    /// Gives an order to all connections to the node behind a port, in its present life.
    pub fn give_to_port(&self, port: u16, incarnation: u64, order: Order) {
        let rooms = self.rooms();
        let handles = rooms.ports.get(&port).into_iter().flat_map(|port| port.handles.values());
        handles.filter(|handle| handle.incarnation == incarnation).for_each(|handle| handle.give(order));
    }

    /// Closes the connections to a node's earlier lives.
    pub fn close_before(&self, port: u16, incarnation: u64) {
        let rooms = self.rooms();
        let stale = rooms.ports.get(&port).into_iter().flat_map(|port| port.handles.values());
        for handle in stale.filter(|handle| handle.incarnation < incarnation) {
            handle.give(Order::NodeGone);
        }
    }

    /// Has those end that are older than `max_age`, or than a part of it: the half at least, and another for each of those that came
    /// one after the other.
    pub fn end_older(&self, max_age: Duration, now: Instant) {
        let rooms = self.rooms();
        for (key, handle) in rooms.ports.values().flat_map(|port| &port.handles) {
            if now.duration_since(handle.accepted) >= max_age.mul_f64(f64::midpoint(1.0, fraction(*key))) {
                handle.give(Order::Age);
            }
        }
    }

    /// Those that were sent something since the last time that this was asked.
    pub fn take_sent_to(&self) -> Vec<(u64, Arc<Handle>)> {
        let rooms = self.rooms();
        let handles = rooms.ports.values().flat_map(|port| &port.handles);
        let sent_to = handles.filter(|(_, handle)| handle.sent_to_client.swap(false, Ordering::Relaxed));
        sent_to.map(|(key, handle)| (*key, Arc::clone(handle))).collect()
    }

    /// Every connection, the newest last.
    pub fn all(&self) -> Vec<Arc<Handle>> {
        let rooms = self.rooms();
        let handles = rooms.ports.values().flat_map(|port| &port.handles);
        let mut all: Vec<_> = handles.map(|(key, handle)| (*key, Arc::clone(handle))).collect();
        all.sort_unstable_by_key(|&(key, _)| key);
        all.into_iter().map(|(_, handle)| handle).collect()
    }

    fn leave(&self, place: &Place) {
        let mut rooms = self.rooms();
        rooms.stages.leave(place.stage, place.handle.source(), place.key);
        if let Some(port) = rooms.ports.get_mut(&place.handle.port) {
            port.handles.remove(&place.key);
            port.established -= usize::from(place.stage == Stage::Established);
        }
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From 0 to 1. By steps of the golden section, which of all steps leave the least together (Knuth, The Art of Computer
/// Programming, 6.4): those of one pool, be they one after the other or with as many of others between them, are spread.
fn fraction(key: u64) -> f64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    (key.wrapping_mul(GOLDEN) >> 11) as f64 / 2f64.powi(53)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Source = Source::V4(1);

    fn connections(connections: usize, connections_per_node: usize) -> Arc<Connections> {
        let connections_per_source = Some(connections);
        Connections::new(&Limits { connections, connections_per_node, connections_per_source, ..Limits::default() })
    }

    fn established(connections: &Arc<Connections>, port: u16) -> Result<Place, Full> {
        let mut place = connections.enter(port, 1, HERE).unwrap();
        place.move_to(Stage::Established).map(|()| place)
    }

    #[test]
    fn limits_hold_for_the_established_and_places_come_back() {
        let connections = connections(3, 2);
        let first = established(&connections, 9042).unwrap();
        let _second = established(&connections, 9042).unwrap();
        assert_eq!(established(&connections, 9042).unwrap_err(), Full::Node);
        let _third = established(&connections, 9043).unwrap();
        assert_eq!(established(&connections, 9043).unwrap_err(), Full::Room(Stage::Established));
        drop(first);
        assert_eq!((connections.of_port(9042), connections.established()), (1, 2));
        assert!(established(&connections, 9043).is_ok());
    }

    #[test]
    fn other_limits_count_for_whoever_comes_and_take_nobodys_place() {
        let connections = connections(3, 3);
        let _inside: Vec<_> = (0..3).map(|_| established(&connections, 9042).unwrap()).collect();
        let limits = |connections, connections_per_node| Limits {
            connections,
            connections_per_node,
            connections_per_source: Some(connections),
            ..Limits::default()
        };
        connections.set_limits(&limits(2, 2));
        assert_eq!((connections.of_port(9042), connections.established()), (3, 3));
        assert_eq!(established(&connections, 9043).unwrap_err(), Full::Room(Stage::Established));
        connections.set_limits(&limits(9, 3));
        assert_eq!(established(&connections, 9042).unwrap_err(), Full::Node);
        assert!(established(&connections, 9043).is_ok());
    }

    #[test]
    fn connections_that_are_not_established_take_no_places_of_those_that_are() {
        let connections = connections(1, 1);
        let silent: Vec<_> = (0..100).map(|_| connections.enter(9042, 1, HERE).unwrap()).collect();
        assert_eq!((connections.established(), connections.taken(Stage::Accepted)), (0, 100));
        let user = established(&connections, 9042).unwrap();
        assert_eq!(silent[0].could_be_established(), Err(Full::Node));
        drop(user);
        assert_eq!(silent[0].could_be_established(), Ok(()));
        drop(silent);
        assert_eq!(connections.taken(Stage::Accepted), 0);
        assert!(connections.all().is_empty());
    }

    #[test]
    fn only_connections_to_an_earlier_life_are_closed_in_whatever_stage() {
        let connections = connections(10, 10);
        let old = connections.enter(9042, 1, HERE).unwrap();
        let mut older = connections.enter(9042, 1, HERE).unwrap();
        older.move_to(Stage::Setup).unwrap();
        let new = connections.enter(9042, 2, HERE).unwrap();
        let other = connections.enter(9043, 1, HERE).unwrap();
        connections.close_before(9042, 2);
        assert_eq!(old.handle().order(), Order::NodeGone);
        assert_eq!(older.handle().order(), Order::NodeGone);
        assert_eq!(new.handle().order(), Order::Continue);
        assert_eq!(other.handle().order(), Order::Continue);
    }

    #[test]
    fn a_weaker_order_never_replaces_a_stronger_one() {
        let place = connections(1, 1).enter(9042, 1, HERE).unwrap();
        place.handle().give(Order::NodeGone);
        place.handle().give(Order::Drain);
        assert_eq!(place.handle().order(), Order::NodeGone);
    }

    #[test]
    fn a_place_that_was_a_load_balancers_is_its_clients() {
        let connections = connections(10, 10);
        let client = Source::V4(2);
        let mut place = connections.enter(9042, 1, HERE).unwrap();
        place.give_to(client).unwrap();
        assert_eq!((place.handle().source(), connections.taken(Stage::Accepted)), (client, 1));
        place.move_to(Stage::Established).unwrap();
        drop(place);
        let taken = [Stage::Accepted, Stage::Established].map(|stage| connections.taken(stage));
        assert_eq!((taken, connections.all().len()), ([0, 0], 0));
    }

    /// When each of these ends, in parts of the longest life.
    fn ends(keys: impl Iterator<Item = usize>) -> Vec<f64> {
        let connections = connections(1000, 1000);
        let places: Vec<_> = (0..1000).map(|_| connections.enter(9042, 1, HERE).unwrap()).collect();
        let (began, max_age) = (places[0].handle().accepted, Duration::from_secs(1000));
        let mut ends = vec![None; places.len()];
        for second in 0..=1001 {
            connections.end_older(max_age, began + Duration::from_secs(second));
            for (place, end) in places.iter().zip(&mut ends) {
                if place.handle().order() == Order::Age {
                    end.get_or_insert(second as f64 / 1000.0);
                }
            }
        }
        keys.map(|key| ends[key].unwrap()).collect()
    }

    #[test]
    fn none_outlives_its_age_and_a_pool_does_not_end_together() {
        for apart in [1, 2, 3, 8, 96] {
            let pool = ends((0..8).map(|of| of * apart));
            assert!(pool.iter().all(|end| (0.5..=1.001).contains(end)), "{pool:?}");
            let mut sorted = pool.clone();
            sorted.sort_by(f64::total_cmp);
            assert!(sorted[7] - sorted[0] > 0.25, "{apart} apart: {pool:?}");
            assert!(
                sorted.windows(5).all(|five| five[4] - five[0] > 0.1),
                "half of it together, {apart} apart: {pool:?}"
            );
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_an_order_hears_it() {
        let connections = connections(1, 1);
        let place = connections.enter(9042, 1, HERE).unwrap();
        let handle = Arc::clone(place.handle());
        let waits = tokio::spawn(async move { handle.ordered(Order::is_now).await });
        place.handle().give(Order::Drain);
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        place.handle().give(Order::MakeRoom);
        assert_eq!(waits.await.unwrap(), Order::MakeRoom);
    }
}
