//! The store against a model that is too simple to be wrong: a `Vec` in order of storing, searched from end to end.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use std::collections::BTreeSet;
use warp_cache::clock::{Clock, ManualClock};
use warp_cache::options::{Options, Strategy as Eviction, Ttl};
use warp_cache::store::{Entry, Store};

const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Debug)]
enum Op {
    /// Find and hit, else insert.
    Call(u32),
    /// Find and hit.
    Hit(u32),
    Replace(u32),
    Remove(u32),
    Expire,
    Clear,
    Advance(u64),
}

fn op(keys: u32) -> impl Strategy<Value = Op> {
    let key = 0..keys;
    prop_oneof![
        10 => key.clone().prop_map(Op::Call),
        3 => key.clone().prop_map(Op::Hit),
        1 => key.clone().prop_map(Op::Replace),
        2 => key.prop_map(Op::Remove),
        1 => Just(Op::Expire),
        1 => (0u32..20).prop_map(|dice| if dice == 0 { Op::Clear } else { Op::Expire }),
        2 => (0..3 * SECOND).prop_map(Op::Advance),
        1 => Just(Op::Advance(SECOND)),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Held {
    key: u32,
    value: u32,
    deadline: u64,
    hits: u32,
    used: u32,
}

/// Entries in order of storing. Those whose time is over stay until something removes them, as in the store.
#[derive(Debug, Default)]
struct Model {
    held: Vec<Held>,
    now: u64,
    tick: u32,
}

impl Model {
    fn find(&self, key: u32) -> Option<usize> {
        self.held.iter().position(|held| held.key == key)
    }

    fn is_over(&self, place: usize) -> bool {
        self.held[place].deadline <= self.now
    }

    fn hit(&mut self, place: usize) -> Option<u32> {
        if self.is_over(place) {
            return None;
        }
        self.held[place].hits += 1;
        self.held[place].used = self.tick;
        Some(self.held[place].value)
    }

    fn remove(&mut self, place: usize) -> (u32, u32) {
        let gone = self.held.remove(place);
        (gone.key, gone.value)
    }

    fn expire(&mut self) -> Option<(u32, u32)> {
        let place = (0..self.held.len()).find(|&place| self.is_over(place))?;
        Some(self.remove(place))
    }

    fn victim(&self, strategy: Eviction) -> Option<usize> {
        let places = 0..self.held.len();
        match strategy {
            Eviction::Lru => places.min_by_key(|&place| self.held[place].used),
            Eviction::Mru => places.max_by_key(|&place| self.held[place].used),
            Eviction::Fifo => places.min(),
            Eviction::Lfu => places.min_by_key(|&place| (self.held[place].hits, self.held[place].used)),
        }
    }

    fn insert(&mut self, options: &Options, key: u32, value: u32) -> Option<(u32, u32)> {
        let capacity = options.max_size.unwrap_or(usize::MAX);
        if capacity == 0 {
            return Some((key, value));
        }
        let evicted = if self.held.len() < capacity {
            None
        } else {
            self.expire().or_else(|| {
                let victim = self.victim(options.strategy)?;
                Some(self.remove(victim))
            })
        };
        let deadline = options.ttl.map_or(u64::MAX, |ttl| self.now + ttl.nanoseconds());
        self.held.push(Held { key, value, deadline, hits: 0, used: self.tick });
        evicted
    }
}

/// The store and its model, which take every step together.
struct Pair {
    store: Store<u32, u32>,
    model: Model,
    clock: ManualClock,
    options: Options,
    /// How many hashes there are; keys share them.
    hashes: u32,
}

impl Pair {
    fn new(options: Options, hashes: u32) -> Self {
        let clock = ManualClock::default();
        let store = Store::new(&options, Some(Clock::Manual(clock.clone())));
        Self { store, model: Model::default(), clock, options, hashes }
    }

    fn hash(&self, key: u32) -> u64 {
        u64::from(key % self.hashes)
    }

    /// Finds `key` where the model has it, by both ways of searching, or nowhere in either.
    fn find(&mut self, key: u32) -> Option<(warp_cache::policy::Slot, usize)> {
        let hash = self.hash(key);
        let found = self.store.find(hash, |&held| held == key);
        let place = self.model.find(key);
        assert_eq!(found.is_some(), place.is_some(), "membership of {key}");
        let (slot, place) = found.zip(place)?;
        assert_eq!(self.store.key(slot), Some(&key));
        assert_eq!(self.store.is_expired(slot), self.model.is_over(place), "expiry of {key}");
        Some((slot, place))
    }

    /// Whether both hit.
    fn hit(&mut self, key: u32) -> bool {
        let Some((slot, place)) = self.find(key) else { return false };
        let value = self.store.hit(slot).copied();
        assert_eq!(value, self.model.hit(place), "value of {key}");
        value.is_some()
    }

    fn remove(&mut self, key: u32) {
        if let Some((slot, place)) = self.find(key) {
            assert_eq!(pair(self.store.remove(slot)), self.model.remove(place));
        }
    }

    fn step(&mut self, op: &Op) {
        self.model.tick += 1;
        // Every value is another, so that an outdated one shows.
        let value = self.model.tick;
        let generation = self.store.generation();
        let before = self.model.held.len();
        match *op {
            Op::Call(key) => {
                if !self.hit(key) {
                    // An entry whose time is over makes way for its successor.
                    self.remove(key);
                    let left = self.store.insert(self.hash(key), key, value, None).map(pair);
                    assert_eq!(left, self.model.insert(&self.options, key, value), "what left for {key}");
                    assert!(self.options.max_size == Some(0) || self.store.generation() != generation);
                }
            }
            Op::Hit(key) => {
                self.hit(key);
                assert_eq!(self.store.generation(), generation, "a hit changes no membership");
            }
            Op::Replace(key) => {
                if let Some((slot, place)) = self.find(key) {
                    let old = std::mem::replace(&mut self.model.held[place].value, value);
                    assert_eq!(self.store.replace(slot, value, None), old);
                }
            }
            Op::Remove(key) => self.remove(key),
            Op::Expire => assert_eq!(self.store.expire().map(pair), self.model.expire(), "what expired"),
            Op::Clear => {
                drop(self.store.clear());
                self.model.held.clear();
            }
            Op::Advance(nanoseconds) => {
                self.clock.advance(nanoseconds);
                self.model.now += nanoseconds;
            }
        }
        if before != self.model.held.len() {
            assert_ne!(self.store.generation(), generation, "the generation tells of {op:?}");
        }
    }

    fn check(&self) {
        self.store.validate();
        assert_eq!(self.store.len(), self.model.held.len());
        assert_eq!(self.store.is_empty(), self.model.held.is_empty());
        let entries: BTreeSet<_> = self.store.entries().map(|entry| (entry.key, entry.value)).collect();
        let expected: BTreeSet<_> = self.model.held.iter().map(|held| (held.key, held.value)).collect();
        assert_eq!(entries, expected);
    }

    fn check_search(&mut self, keys: u32) {
        for key in 0..keys {
            self.find(key);
        }
    }
}

fn pair(Entry { key, value }: Entry<u32, u32>) -> (u32, u32) {
    (key, value)
}

fn options() -> impl Strategy<Value = Options> {
    let strategy = prop::sample::select(vec![Eviction::Lru, Eviction::Mru, Eviction::Fifo, Eviction::Lfu]);
    let size = prop::sample::select(vec![Some(0), Some(1), Some(2), Some(3), Some(4), Some(7), Some(16), None]);
    let ttl = prop::option::of(prop::sample::select(vec![1e-9, 1.0, 5.0]));
    (strategy, size, ttl).prop_map(|(strategy, max_size, seconds)| Options {
        strategy,
        max_size,
        ttl: seconds.and_then(|seconds| Ttl::from_seconds(seconds).unwrap()),
        ..Options::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_agrees_with_the_model(
        options in options(),
        hashes in prop::sample::select(vec![1u32, 2, 5, 1000]),
        ops in prop::collection::vec(op(20), 0..200),
    ) {
        let mut pair = Pair::new(options, hashes);
        for op in &ops {
            pair.step(op);
            pair.check();
        }
        pair.check_search(20);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_of_a_thousand_entries_agrees_with_the_model(
        options in options(),
        ops in prop::collection::vec(op(1500), 300..600),
    ) {
        let mut pair = Pair::new(Options { max_size: options.max_size.map(|size| 1015 + size), ..options }, 100_000);
        for key in 0..1000 {
            pair.step(&Op::Call(key));
        }
        for (count, op) in ops.iter().enumerate() {
            pair.step(op);
            if count % 50 == 0 {
                pair.check();
            }
        }
        for key in 400..1500 {
            pair.step(&Op::Call(key));
        }
        pair.check();
        pair.check_search(1500);
    }
}

#[test]
fn every_key_is_found_at_every_size() {
    let mut store: Store<u32, u32> = Store::new(&Options { max_size: None, ..Options::default() }, None);
    let hash = |key: u32| u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let find = |store: &mut Store<u32, u32>, key| {
        let slot = store.find(hash(key), |&held| held == key)?;
        store.hit(slot).copied()
    };
    for key in 0..70_000 {
        assert!(store.insert(hash(key), key, key + 1, None).is_none());
        assert_eq!(find(&mut store, key), Some(key + 1));
        assert_eq!(find(&mut store, key / 2), Some(key / 2 + 1));
    }
    store.validate();
    for key in 0..70_000 {
        assert_eq!(find(&mut store, key), Some(key + 1));
    }
    assert_eq!(store.len(), 70_000);
}
