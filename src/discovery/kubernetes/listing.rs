//! All objects of one kind, as lists and watches show them. What a list brings is kept aside from its `Init` to its
//! `InitDone` and then takes the place of everything at once: half a list is never looked at, and while the API is away the
//! last whole one stays.

use std::collections::BTreeMap;

/// One thing that a list or a watch said of a kind of objects, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<T> {
    /// A list begins.
    Init,
    /// One object of the list.
    InitApply(String, T),
    /// The list is complete: what was not in it does not exist.
    InitDone,
    /// An object was made or changed.
    Apply(String, T),
    Delete(String),
}

/// What a reader may look at anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed<T> {
    Nothing,
    /// A watch said so of the object of this name, which was another one before, or none.
    One(String, Option<T>),
    /// A list did: what is missing now may have been deleted, or not have been listed.
    Whole,
}

#[derive(Clone, Debug)]
pub struct Listing<T> {
    current: BTreeMap<String, T>,
    /// The list that is arriving.
    next: Option<BTreeMap<String, T>>,
    lists: u64,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self { current: BTreeMap::new(), next: None, lists: 0 }
    }
}

impl<T: PartialEq> Listing<T> {
    pub fn apply(&mut self, seen: Seen<T>) -> Changed<T> {
        match seen {
            Seen::Init => {
                self.next = Some(BTreeMap::new());
                Changed::Nothing
            }
            Seen::InitApply(name, object) => {
                self.next.get_or_insert_default().insert(name, object);
                Changed::Nothing
            }
            Seen::InitDone => {
                self.current = self.next.take().unwrap_or_default();
                self.lists += 1;
                Changed::Whole
            }
            Seen::Apply(name, object) => {
                if self.current.get(&name) == Some(&object) {
                    return Changed::Nothing;
                }
                let before = self.current.insert(name.clone(), object);
                Changed::One(name, before)
            }
            Seen::Delete(name) => match self.current.remove(&name) {
                Some(before) => Changed::One(name, Some(before)),
                None => Changed::Nothing,
            },
        }
    }

    /// Complete lists so far: before the first nothing is known.
    pub fn lists(&self) -> u64 {
        self.lists
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &T)> {
        self.current.iter()
    }

    pub fn get(&self, name: &str) -> Option<&T> {
        self.current.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(name: &str, value: u8) -> Seen<u8> {
        Seen::Apply(name.to_owned(), value)
    }

    fn check(seen: Vec<Seen<u8>>, expected: &[(&str, u8)]) {
        let mut listing = Listing::default();
        for seen in seen {
            listing.apply(seen);
        }
        let found: Vec<_> = listing.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_list_takes_effect_when_it_is_complete() {
        let listed = |name: &str, value| Seen::InitApply(name.to_owned(), value);
        let first = vec![Seen::Init, listed("a", 1), listed("b", 2), Seen::InitDone];
        check(first.clone(), &[("a", 1), ("b", 2)]);
        let with = |more: Vec<Seen<u8>>| first.iter().cloned().chain(more).collect::<Vec<_>>();
        check(with(vec![Seen::Init]), &[("a", 1), ("b", 2)]);
        check(with(vec![Seen::Init, listed("b", 3)]), &[("a", 1), ("b", 2)]);
        check(with(vec![Seen::Init, listed("b", 3), Seen::InitDone]), &[("b", 3)]);
        // A list that failed in the middle is begun anew; what the broken one brought is void.
        check(with(vec![Seen::Init, listed("x", 9), Seen::Init, listed("b", 3), Seen::InitDone]), &[("b", 3)]);
    }

    #[test]
    fn a_watch_changes_one_object_at_a_time() {
        check(vec![apply("a", 1), apply("b", 2), apply("a", 3), Seen::Delete("b".to_owned())], &[("a", 3)]);
        let mut listing = Listing::default();
        assert_eq!(listing.apply(apply("a", 1)), Changed::One("a".to_owned(), None));
        assert_eq!(listing.apply(apply("a", 2)), Changed::One("a".to_owned(), Some(1)));
        assert_eq!(listing.apply(apply("a", 2)), Changed::Nothing);
        assert_eq!(listing.apply(Seen::Delete("b".to_owned())), Changed::Nothing);
        assert_eq!(listing.apply(Seen::InitDone), Changed::Whole);
    }
}
