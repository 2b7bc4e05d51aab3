//! The memory backend with what no decorator asks for yet, a policy that refuses newcomers, a time to live for each entry
//! and a stale window, against a model that is too simple to be wrong: a `Vec` in order of storing.

#![cfg(not(feature = "python"))]
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use std::collections::{BTreeMap, TryReserveError, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use warp_cache::backend::memory::{Lookup, Match, Memory, Query, Tally};
use warp_cache::clock::{Clock, ManualClock};
use warp_cache::expiry::Expiry;
use warp_cache::options::Ttl;
use warp_cache::policy::{Policy, Slot};
use warp_cache::stats::Stats;
use warp_cache::store::{Entry, Store};
use warp_cache::sync::Token;

/// How often each hash was asked for.
type Sights = Arc<Mutex<BTreeMap<u64, u32>>>;

/// First in, first out, and nobody comes in whose hash was not asked for before.
#[derive(Debug, Default)]
struct Doorkeeper {
    by_age: VecDeque<Slot>,
    hashes: BTreeMap<Slot, u64>,
    sights: Sights,
}

impl Policy for Doorkeeper {
    fn try_grow(&mut self, _: Slot) -> Result<(), TryReserveError> {
        Ok(())
    }

    fn record(&mut self, hash: u64) {
        *self.sights.lock().unwrap().entry(hash).or_default() += 1;
    }

    fn admit(&mut self, hash: u64, victim: Slot) -> bool {
        assert!(self.hashes.contains_key(&victim));
        self.sights.lock().unwrap().get(&hash).is_some_and(|&sights| sights > 1)
    }

    fn insert(&mut self, slot: Slot, hash: u64) {
        assert_eq!(self.hashes.insert(slot, hash), None);
        self.by_age.push_back(slot);
    }

    fn hit(&mut self, slot: Slot) {
        assert!(self.hashes.contains_key(&slot));
    }

    fn remove(&mut self, slot: Slot) {
        assert!(self.hashes.remove(&slot).is_some());
        self.by_age.retain(|&held| held != slot);
    }

    fn victim(&self) -> Option<Slot> {
        self.by_age.front().copied()
    }

    fn clear(&mut self) {
        self.by_age.clear();
        self.hashes.clear();
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// Look up, and on a miss keep. With a stale value, keep another.
    Call(u32, Option<u64>),
    /// Look up, look up again, and on a miss keep.
    CallTwice(u32, Option<u64>),
    /// Keep what was computed while the store changed.
    KeepLate(u32, Option<u64>),
    Take(u32),
    Contains(u32),
    Expire,
    Info,
    Clear,
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let own = || prop::option::weighted(0.8, 1..50_u64);
    let key = || 0..12_u32;
    prop_oneof![
        10 => (key(), own()).prop_map(|(key, ttl)| Op::Call(key, ttl)),
        3 => (key(), own()).prop_map(|(key, ttl)| Op::CallTwice(key, ttl)),
        2 => (key(), own()).prop_map(|(key, ttl)| Op::KeepLate(key, ttl)),
        1 => key().prop_map(Op::Take),
        1 => key().prop_map(Op::Contains),
        1 => Just(Op::Expire),
        1 => (0..10_u32).prop_map(|dice| if dice == 0 { Op::Clear } else { Op::Info }),
        4 => (0..20_u64).prop_map(Op::Advance),
    ]
}

#[allow(clippy::cast_precision_loss)]
fn ttl(nanoseconds: u64) -> Ttl {
    Ttl::from_seconds(nanoseconds as f64 * 1e-9).unwrap().unwrap()
}

struct Number {
    key: u32,
    hash: u64,
}

impl Query<u32> for Number {
    type Error = Infallible;

    fn hash(&self) -> u64 {
        self.hash
    }

    fn compare(&self, _: Token<'_>, stored: &u32) -> Match {
        if *stored == self.key { Match::Equal } else { Match::Different }
    }

    fn hold(&self, _: Token<'_>, stored: &u32) -> u32 {
        *stored
    }

    fn is_same(&self, one: &u32, other: &u32) -> bool {
        one == other
    }

    fn ask(&self, _: Token<'_>, _: &u32) -> Result<bool, Infallible> {
        unreachable!("numbers are never in doubt")
    }
}

#[derive(Clone, Copy, Debug)]
struct Held {
    key: u32,
    value: u32,
    deadline: u64,
}

/// The backend and its model, which take every step together.
struct Pair {
    memory: Memory<u32, u32, Doorkeeper>,
    sights: Sights,
    clock: ManualClock,
    max_size: Option<usize>,
    /// What all entries live for; otherwise each has its own.
    one: Option<u64>,
    window: u64,
    hashes: u32,
    held: Vec<Held>,
    expected_sights: BTreeMap<u64, u32>,
    stats: Stats,
    next: u32,
}

impl Pair {
    fn new(max_size: Option<usize>, one: Option<u64>, window: Option<u64>, hashes: u32) -> Self {
        let clock = ManualClock::default();
        let policy = Doorkeeper::default();
        let sights = policy.sights.clone();
        let mut expiry = match one {
            Some(one) => Expiry::one_ttl(ttl(one), Clock::Manual(clock.clone())),
            None => Expiry::ttl_each(Clock::Manual(clock.clone())),
        };
        if let Some(window) = window {
            expiry = expiry.with_stale_window(ttl(window));
        }
        let memory = Memory::with(Store::with(policy, max_size, Some(expiry)), max_size.is_some());
        let window = window.unwrap_or(0);
        Self {
            memory,
            sights,
            clock,
            max_size,
            one,
            window,
            hashes,
            held: Vec::new(),
            expected_sights: BTreeMap::new(),
            stats: Stats::default(),
            next: 0,
        }
    }

    fn query(&self, key: u32) -> Number {
        Number { key, hash: u64::from(key % self.hashes) }
    }

    fn find(&self, key: u32) -> Option<usize> {
        self.held.iter().position(|held| held.key == key)
    }

    fn is_fresh(&self, held: Held) -> bool {
        self.clock.now() < held.deadline
    }

    fn is_over(&self, held: Held) -> bool {
        self.clock.now() >= held.deadline.saturating_add(self.window)
    }

    fn deadline(&self, own: Option<u64>) -> u64 {
        self.one.or(own).map_or(u64::MAX, |ttl| self.clock.now() + ttl)
    }

    fn look_up(&mut self, key: u32, tally: Tally) -> Lookup<u32> {
        let query = self.query(key);
        let Ok(lookup) = self.memory.get(Token::default(), &query, tally, |&value| value);
        if tally != Tally::Again {
            *self.expected_sights.entry(query.hash).or_default() += 1;
        }
        let place = self.find(key);
        match (lookup, place.map(|place| self.held[place])) {
            (Lookup::Hit(value), Some(held)) => assert!(self.is_fresh(held) && value == held.value),
            (Lookup::Stale(value), Some(held)) => {
                assert!(!self.is_fresh(held) && !self.is_over(held) && value == held.value);
            }
            (Lookup::Miss { .. }, Some(held)) => {
                assert!(self.is_over(held));
                self.held.retain(|held| held.key != key);
            }
            (Lookup::Miss { .. }, None) => {}
            _ => panic!("{lookup:?} where the model has {place:?}"),
        }
        match lookup {
            Lookup::Hit(_) | Lookup::Stale(_) => self.stats.hits += 1,
            Lookup::Miss { .. } => self.stats.misses += u64::from(tally == Tally::All),
        }
        lookup
    }

    /// What happens in the model when an entry is stored whose key is not there, and `left` had to leave.
    fn insert(&mut self, newcomer: Held, left: Option<&Entry<u32, u32>>) {
        let left = left.map(|entry| (entry.key, entry.value));
        if self.max_size.is_none_or(|size| self.held.len() < size) {
            assert_eq!(left, None);
            return self.held.push(newcomer);
        }
        let over = self.held.iter().filter(|&&held| self.is_over(held)).min_by_key(|held| held.deadline);
        let is_known = self.expected_sights.get(&self.query(newcomer.key).hash).is_some_and(|&sights| sights > 1);
        let goes = match over {
            // Of entries that expire at the same time, any may go.
            Some(over) => {
                let goes = self.held.iter().find(|held| left == Some((held.key, held.value)));
                assert_eq!(goes.map(|held| held.deadline), Some(over.deadline));
                goes
            }
            None => self.held.first().filter(|_| is_known),
        };
        let Some(&goes) = goes else {
            assert_eq!(left, Some((newcomer.key, newcomer.value)), "the newcomer is refused");
            return;
        };
        assert_eq!(left, Some((goes.key, goes.value)));
        self.held.retain(|held| held.key != goes.key);
        self.held.push(newcomer);
    }

    fn newcomer(&mut self, key: u32, own: Option<u64>) -> Held {
        self.next += 1;
        Held { key, value: self.next, deadline: self.deadline(own) }
    }

    fn keep(&mut self, key: u32, own: Option<u64>, generation: u64) {
        let newcomer = self.newcomer(key, own);
        let mut place = Some(Entry { key, value: newcomer.value });
        let hash = self.query(key).hash;
        assert!(self.memory.keep(Token::default(), hash, generation, &mut place, own.map(ttl), || true));
        self.insert(newcomer, place.as_ref());
    }

    fn keep_late(&mut self, key: u32, own: Option<u64>) {
        let newcomer = self.newcomer(key, own);
        let entry = Entry { key, value: newcomer.value };
        let kept = self.memory.keep_late(Token::default(), &self.query(key), entry, own.map(ttl), || true);
        let Ok((left, replaced)) = kept;
        let replaced = replaced.map(|entry| entry.value);
        match self.find(key) {
            None => {
                assert_eq!(replaced, None);
                self.insert(newcomer, left.as_ref());
            }
            Some(place) if !self.is_fresh(self.held[place]) => {
                assert_eq!(replaced, Some(self.held.remove(place).value));
                self.insert(newcomer, left.as_ref());
            }
            Some(_) if self.max_size.is_some() => {
                assert_eq!(left.map(|entry| entry.value), Some(newcomer.value), "the first value stays");
            }
            Some(place) => {
                assert_eq!((replaced, left), (Some(self.held[place].value), None), "the last value stays");
                self.held[place].value = newcomer.value;
                if self.one.is_none() {
                    self.held[place].deadline = newcomer.deadline;
                }
            }
        }
    }

    fn step(&mut self, op: &Op) {
        let token = Token::default();
        match *op {
            Op::Call(key, own) => match self.look_up(key, Tally::All) {
                Lookup::Hit(_) => {}
                Lookup::Stale(_) => self.keep_late(key, own),
                Lookup::Miss { generation } => self.keep(key, own, generation),
            },
            Op::CallTwice(key, own) => {
                if let Lookup::Miss { .. } = self.look_up(key, Tally::Hits)
                    && let Lookup::Miss { generation } = self.look_up(key, Tally::Again)
                {
                    self.memory.count_miss(token);
                    self.stats.misses += 1;
                    self.keep(key, own, generation);
                }
            }
            Op::KeepLate(key, own) => self.keep_late(key, own),
            Op::Take(key) => {
                let Ok(taken) = self.memory.take(token, &self.query(key));
                let held = self.find(key).map(|place| self.held.remove(place));
                let expected = held.filter(|&held| !self.is_over(held)).map(|held| held.value);
                assert_eq!(taken.map(|entry| entry.value), expected);
            }
            Op::Contains(key) => {
                let Ok(contained) = self.memory.contains(token, &self.query(key));
                assert_eq!(contained, self.find(key).is_some_and(|place| !self.is_over(self.held[place])));
            }
            Op::Expire => {
                let expired = self.memory.expire(token).map(|entry| entry.key);
                let over = self.held.iter().filter(|&&held| self.is_over(held)).map(|held| held.deadline).min();
                let place = expired.and_then(|key| self.find(key));
                assert_eq!(place.map(|place| self.held.remove(place).deadline), over);
            }
            Op::Info => {
                let now = self.clock.now();
                self.held.retain(|held| now < held.deadline.saturating_add(self.window));
                assert_eq!(self.memory.info(token), (self.stats, self.held.len()));
            }
            Op::Clear => {
                assert_eq!(self.memory.clear(token).len(), self.held.len());
                self.held.clear();
                self.stats = Stats::default();
            }
            Op::Advance(nanoseconds) => self.clock.advance(nanoseconds),
        }
        assert_eq!(*self.sights.lock().unwrap(), self.expected_sights, "the policy learns of each call once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_backend_agrees_with_the_model(
        max_size in prop::sample::select(vec![Some(1), Some(2), Some(3), Some(7), None]),
        one in prop::option::weighted(0.3, 1..50_u64),
        window in prop::option::of(1..30_u64),
        hashes in prop::sample::select(vec![1_u32, 3, 1000]),
        ops in prop::collection::vec(op(), 0..150),
    ) {
        let mut pair = Pair::new(max_size, one, window, hashes);
        for op in &ops {
            pair.step(op);
        }
        pair.step(&Op::Info);
    }
}

#[test]
fn a_newcomer_is_admitted_at_the_second_sight() {
    let mut pair = Pair::new(Some(1), None, None, 1000);
    pair.step(&Op::Call(1, None));
    for (key, contains) in [(2, false), (3, false), (2, true), (3, true), (4, false)] {
        pair.step(&Op::Call(key, None));
        assert_eq!(pair.find(key).is_some(), contains, "{key}");
    }
}

#[test]
fn an_entry_is_fresh_then_stale_then_gone() {
    let mut pair = Pair::new(Some(2), None, Some(5), 1000);
    pair.step(&Op::Call(1, Some(10)));
    for (now, answer) in [(9, Lookup::Hit(1)), (10, Lookup::Stale(1)), (14, Lookup::Stale(1))] {
        pair.clock.advance(now - pair.clock.now());
        assert_eq!(pair.look_up(1, Tally::All), answer, "at {now}");
    }
    pair.clock.advance(1);
    assert!(matches!(pair.look_up(1, Tally::All), Lookup::Miss { .. }));
}

#[test]
fn a_stale_entry_makes_way_for_its_successor() {
    let mut pair = Pair::new(Some(2), None, Some(5), 1000);
    pair.step(&Op::Call(1, Some(10)));
    pair.clock.advance(12);
    pair.step(&Op::Call(1, Some(10)));
    assert_eq!(pair.look_up(1, Tally::All), Lookup::Hit(2));
}
