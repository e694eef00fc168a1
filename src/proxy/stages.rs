//! The rooms that a connection goes through until it is established, each with places of its own: strangers take none from users.
//!
//! ```text
//! accepted ─▶ tls ─▶ setup ─▶ login ─▶ established
//! ```
//!
//! A room has places in all and a share of them for one source. Where one of the rooms before the last is full, whoever has been
//! in it longest makes room, if that is longer than an honest client needs: a newcomer gets in while thousands sit there in
//! silence, and only who comes faster than places become old is turned away. An established connection never makes room.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connections::{Handle, Order};
use crate::config::Limits;
use crate::label::label_set;

label_set! {
    /// How far a connection is.
    pub enum Stage {
        /// Nothing was said yet.
        Accepted = "accepted",
        /// The TLS handshake goes on.
        Tls = "tls",
        /// From the first byte of CQL to READY or AUTHENTICATE.
        Setup = "setup",
        /// From AUTHENTICATE to AUTH_SUCCESS.
        Login = "login",
        Established = "established",
    }
}

/// Who a client is to limits: an IPv4 address, or the /64 of an IPv6 one, which one host has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    V4(u32),
    V6(u64),
}

impl Source {
    /// IPv4-mapped IPv6 counts as IPv4.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

/// How long a connection is safe in a room: an honest client is through it by then, most times.
fn grace(stage: Stage) -> Option<Duration> {
    match stage {
        Stage::Accepted => Some(Duration::from_secs(1)),
        Stage::Tls => Some(Duration::from_secs(2)),
        Stage::Setup | Stage::Login => Some(Duration::from_secs(5)),
        Stage::Established => None,
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Full {
    /// All places of this room are taken.
    Room(Stage),
    /// The source has its share of them.
    Source(Stage),
    /// `limits.connections_per_node`.
    Node,
}

/// All rooms.
#[derive(Debug)]
pub struct Stages {
    rooms: [Room; 5],
}

#[derive(Debug)]
struct Room {
    stage: Stage,
    places: usize,
    share: usize,
    taken: usize,
    sources: HashMap<Source, usize>,
    /// Those who may have to make room, by age; empty in the last room.
    since: BTreeMap<u64, Guest>,
    of_source: BTreeSet<(Source, u64)>,
}

#[derive(Debug)]
struct Guest {
    source: Source,
    since: Instant,
    handle: Arc<Handle>,
}

/// The places of each room, and one source's share of them.
fn sizes(limits: &Limits) -> [(Stage, usize, usize); 5] {
    let stages = &limits.stages;
    let of = |stage, limit: crate::config::Stage| (stage, limit.places, limit.share());
    [
        of(Stage::Accepted, stages.accepted),
        of(Stage::Tls, stages.tls),
        of(Stage::Setup, stages.setup),
        of(Stage::Login, stages.login),
        (Stage::Established, limits.connections, limits.per_source()),
    ]
}

impl Stages {
    pub fn new(limits: &Limits) -> Self {
        let room = |(stage, places, share)| Room {
            stage,
            places,
            share,
            taken: 0,
            sources: HashMap::new(),
            since: BTreeMap::new(),
            of_source: BTreeSet::new(),
        };
        Self { rooms: sizes(limits).map(room) }
    }

    /// Makes the rooms larger or smaller; whoever is inside stays.
    pub fn set_limits(&mut self, limits: &Limits) {
        for (room, (_, places, share)) in self.rooms.iter_mut().zip(sizes(limits)) {
            (room.places, room.share) = (places, share);
        }
    }

    /// Takes a place in the room of `stage` for the `key`-th connection. Who has to make room for it is told so.
    pub fn enter(
        &mut self,
        stage: Stage,
        source: Source,
        key: u64,
        handle: &Arc<Handle>,
        now: Instant,
    ) -> Result<(), Full> {
        self.room(stage).enter(source, key, handle, now)
    }

    /// Gives it back.
    pub fn leave(&mut self, stage: Stage, source: Source, key: u64) {
        self.room(stage).leave(source, key);
    }

    /// Whether a newcomer of `source` would find no place.
    pub fn is_full(&mut self, stage: Stage, source: Source) -> Result<(), Full> {
        let room = self.room(stage);
        match room.full(source) {
            Some(full) => Err(full),
            None => Ok(()),
        }
    }

    /// Whoever has been in the room of `stage` longest is told to leave it.
    pub fn make_room(&mut self, stage: Stage) {
        let room = self.room(stage);
        if let Some((&key, guest)) = room.since.first_key_value() {
            guest.handle.give(Order::MakeRoom);
            let source = guest.source;
            room.leave(source, key);
        }
    }

    /// Places that are taken.
    pub fn taken(&self, stage: Stage) -> usize {
        self.rooms.iter().find(|room| room.stage == stage).map_or(0, |room| room.taken)
    }

    fn room(&mut self, stage: Stage) -> &mut Room {
        let [accepted, tls, setup, login, established] = &mut self.rooms;
        match stage {
            Stage::Accepted => accepted,
            Stage::Tls => tls,
            Stage::Setup => setup,
            Stage::Login => login,
            Stage::Established => established,
        }
    }
}

impl Room {
    fn full(&self, source: Source) -> Option<Full> {
        if self.share < self.places && self.sources.get(&source).is_some_and(|&taken| taken >= self.share) {
            return Some(Full::Source(self.stage));
        }
        (self.taken >= self.places).then_some(Full::Room(self.stage))
    }

    fn enter(&mut self, source: Source, key: u64, handle: &Arc<Handle>, now: Instant) -> Result<(), Full> {
        if let Some(full) = self.full(source) {
            let oldest = match full {
                Full::Source(_) => self.oldest_of(source),
                _ => self.since.first_key_value().map(|(&key, _)| key),
            };
            let grace = grace(self.stage).unwrap_or_default();
            let leaves = oldest.and_then(|key| self.since.get(&key).map(|guest| (key, guest)));
            let Some((leaves, guest)) = leaves.filter(|(_, guest)| now.duration_since(guest.since) >= grace) else {
                return Err(full);
            };
            guest.handle.give(Order::MakeRoom);
            self.leave(guest.source, leaves);
        }
        self.taken += 1;
        *self.sources.entry(source).or_default() += 1;
        if grace(self.stage).is_some() {
            self.since.insert(key, Guest { source, since: now, handle: Arc::clone(handle) });
            self.of_source.insert((source, key));
        }
        Ok(())
    }

    fn oldest_of(&self, source: Source) -> Option<u64> {
        self.of_source.range((source, 0)..=(source, u64::MAX)).next().map(|&(_, key)| key)
    }

    /// Nothing happens where the place was given to another already.
    fn leave(&mut self, source: Source, key: u64) {
        if grace(self.stage).is_some() {
            if self.since.remove(&key).is_none() {
                return;
            }
            self.of_source.remove(&(source, key));
        }
        self.taken -= 1;
        if let Some(taken) = self.sources.get_mut(&source) {
            *taken -= 1;
            if *taken == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Limits};

    const A: Source = Source::V4(1);
    const B: Source = Source::V4(2);
    const C: Source = Source::V6(3);

    /// Rooms of four places before the last, which has two; two of each for one source.
    struct House {
        stages: Stages,
        now: Instant,
        handles: Vec<Arc<Handle>>,
    }

    impl House {
        fn new() -> Self {
            let mut limits = Limits { connections: 2, connections_per_source: Some(1), ..Limits::default() };
            let stage = config::Stage { places: 4, per_source: None };
            limits.stages = config::Stages { accepted: stage, tls: stage, setup: stage, login: stage };
            Self { stages: Stages::new(&limits), now: Instant::now(), handles: Vec::new() }
        }

        fn enter(&mut self, stage: Stage, source: Source) -> Result<(), Full> {
            let handle = Arc::new(Handle::detached(source));
            let key = self.handles.len() as u64;
            self.handles.push(Arc::clone(&handle));
            self.stages.enter(stage, source, key, &handle, self.now)
        }

        /// Who was told to make room.
        fn told(&self) -> Vec<usize> {
            (0..self.handles.len()).filter(|&key| self.handles[key].order() == Order::MakeRoom).collect()
        }
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_a_network_of_64_bits() {
        let source = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(source("10.0.0.1"), source("::ffff:10.0.0.1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
    }

    #[test]
    fn whoever_sits_longest_makes_room_for_a_newcomer() {
        let mut house = House::new();
        for source in [A, B, A, B] {
            house.enter(Stage::Accepted, source).unwrap();
            house.now += Duration::from_millis(100);
        }
        assert_eq!(house.enter(Stage::Accepted, C), Err(Full::Room(Stage::Accepted)), "nobody has been there for long");
        house.now += Duration::from_millis(700);
        assert_eq!(house.enter(Stage::Accepted, C), Ok(()));
        assert_eq!(house.told(), [0]);
        assert_eq!(house.stages.taken(Stage::Accepted), 4);
        // The one that was told gives back a place that it has not any more.
        house.stages.leave(Stage::Accepted, A, 0);
        assert_eq!(house.stages.taken(Stage::Accepted), 4);
    }

    #[test]
    fn a_source_that_has_its_share_makes_room_for_itself_alone() {
        let mut house = House::new();
        house.enter(Stage::Setup, B).unwrap();
        house.enter(Stage::Setup, A).unwrap();
        house.enter(Stage::Setup, A).unwrap();
        assert_eq!(house.enter(Stage::Setup, A), Err(Full::Source(Stage::Setup)));
        house.now += Duration::from_secs(6);
        assert_eq!(house.enter(Stage::Setup, A), Ok(()));
        assert_eq!(house.told(), [1], "not the oldest of all, who is another's");
        assert_eq!(house.enter(Stage::Setup, B), Ok(()), "there is a place that the source could not have");
    }

    #[test]
    fn whoever_is_established_never_makes_room() {
        let mut house = House::new();
        house.enter(Stage::Established, A).unwrap();
        house.now += Duration::from_secs(3600);
        assert_eq!(house.enter(Stage::Established, A), Err(Full::Source(Stage::Established)));
        house.enter(Stage::Established, B).unwrap();
        assert_eq!(house.enter(Stage::Established, C), Err(Full::Room(Stage::Established)));
        assert!(house.told().is_empty());
        house.stages.leave(Stage::Established, A, 0);
        assert_eq!(house.enter(Stage::Established, C), Ok(()));
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let mut house = House::new();
        for n in 0..1000 {
            house.enter(Stage::Login, Source::V4(n)).unwrap();
            house.stages.leave(Stage::Login, Source::V4(n), u64::from(n));
        }
        let room = house.stages.room(Stage::Login);
        assert!(room.sources.is_empty() && room.since.is_empty() && room.of_source.is_empty());
        assert_eq!(room.taken, 0);
    }
}
