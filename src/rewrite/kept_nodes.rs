//! Where one client was told, in rows that passed as they were, that nodes are which this gateway does not serve.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::topology::canonical;

/// Addresses that are remembered for one connection.
const MOST: usize = 256;

/// A bounded set.
#[derive(Debug, Default)]
pub struct KeptNodes(BTreeSet<SocketAddr>);

impl KeptNodes {
    /// Adds what one answer told, port 0 where it named none. What earlier answers told makes room when the set is full; of a longer
    /// answer the first ones are remembered.
    pub fn add(&mut self, addresses: impl Iterator<Item = SocketAddr>) {
        let told: BTreeSet<_> = addresses.take(MOST).map(canonical).collect();
        if self.0.union(&told).count() > MOST {
            self.0.clear();
        }
        self.0.extend(told);
    }

    pub fn has(&self, address: SocketAddr) -> bool {
        let address = canonical(address);
        self.0.contains(&address) || self.0.contains(&SocketAddr::new(address.ip(), 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32, port: u16) -> SocketAddr {
        SocketAddr::from(((0x0a00_0000 + n).to_be_bytes(), port))
    }

    #[test]
    fn an_address_without_a_port_stands_for_each() {
        let mut kept = KeptNodes::default();
        kept.add([address(1, 9042), address(2, 0)].into_iter());
        let asked = [address(1, 9042), address(1, 9043), address(2, 9042), address(3, 9042)];
        assert_eq!(asked.map(|address| kept.has(address)), [true, false, true, false]);
        assert!(kept.has("[::ffff:10.0.0.1]:9042".parse().unwrap()));
    }

    #[test]
    fn the_set_is_bounded_and_the_latest_answer_is_in_it() {
        let mut kept = KeptNodes::default();
        for first in 0..1000 {
            kept.add((first..first + 100).map(|n| address(n, 9042)));
            assert!(kept.0.len() <= MOST && (first..first + 100).all(|n| kept.has(address(n, 9042))), "{first}");
        }
        kept.add((0..5000).map(|n| address(n, 9042)));
        assert_eq!(kept.0.len(), MOST);
    }

    #[test]
    fn what_is_read_again_forgets_nothing() {
        let mut kept = KeptNodes::default();
        kept.add((0..256).map(|n| address(n, 9042)));
        (0..256).for_each(|n| kept.add([address(n, 9042)].into_iter()));
        assert!((0..256).all(|n| kept.has(address(n, 9042))));
    }
}
