use super::*;
use crate::clock::ManualClock;
use crate::options::Strategy;

type Numbers = Store<u64, &'static str>;

fn store(max_size: Option<usize>, ttl: Option<f64>) -> (Numbers, ManualClock) {
    let clock = ManualClock::default();
    let ttl = ttl.and_then(|seconds| Ttl::from_seconds(seconds).expect("a time to live"));
    let options = Options { max_size, ttl, ..Options::default() };
    (Store::new(&options, Some(Clock::Manual(clock.clone()))), clock)
}

fn put(store: &mut Numbers, key: u64, value: &'static str) -> Vec<u64> {
    let expired = store.expire();
    let evicted = store.insert(key, key, value, None);
    let evicted = expired.into_iter().chain(evicted).map(|entry| entry.key).collect();
    store.validate();
    evicted
}

fn get(store: &mut Numbers, key: u64) -> Option<&'static str> {
    let slot = store.find(key, |&held| held == key)?;
    store.hit(slot).copied()
}

#[test]
fn a_full_store_evicts_before_it_inserts() {
    let (mut store, _) = store(Some(2), None);
    assert_eq!(put(&mut store, 1, "one"), []);
    assert_eq!(put(&mut store, 2, "two"), []);
    assert_eq!(get(&mut store, 1), Some("one"));
    assert_eq!(put(&mut store, 3, "three"), [2]);
    assert_eq!((get(&mut store, 2), store.len()), (None, 2));
}

#[test]
fn a_store_of_no_entries_returns_the_newcomer() {
    let (mut store, _) = store(Some(0), None);
    assert_eq!(put(&mut store, 1, "one"), [1]);
    assert!(store.is_empty());
}

#[test]
fn keys_of_one_hash_are_told_apart() {
    let (mut store, _) = store(None, None);
    for key in 0..20 {
        let _ = store.insert(7, key, "same hash", None);
    }
    store.validate();
    for key in 0..20 {
        let slot = store.find(7, |&held| held == key).expect("each key is there");
        assert_eq!(store.key(slot), Some(&key));
        assert_eq!(store.remove(slot).key, key);
        store.validate();
    }
}

#[test]
fn keys_of_one_hash_are_searched_in_the_order_in_which_they_came() {
    let (mut store, _) = store(Some(100), None);
    for key in 0..50 {
        let _ = store.insert(7 + key % 2, key, "value", None);
        let mut seen = Vec::new();
        assert_eq!(
            store.find(7, |&held| {
                seen.push(held);
                false
            }),
            None
        );
        assert_eq!(seen, (0..=key).filter(|key| key % 2 == 0).collect::<Vec<_>>());
    }
}

#[test]
fn an_entry_whose_time_is_over_is_not_returned_and_the_next_insertion_removes_it() {
    let (mut store, clock) = store(None, Some(1.0));
    assert_eq!(put(&mut store, 1, "one"), []);
    clock.advance(999_999_999);
    assert_eq!(get(&mut store, 1), Some("one"));
    clock.advance(1);
    assert_eq!((get(&mut store, 1), store.len()), (None, 1));
    assert_eq!(put(&mut store, 2, "two"), [1]);
}

#[test]
fn expired_entries_go_before_the_victim() {
    let (mut store, clock) = store(Some(3), Some(1.0));
    for key in 1..=3 {
        assert_eq!(put(&mut store, key, "old"), []);
    }
    clock.advance(2_000_000_000);
    assert_eq!(put(&mut store, 4, "new"), [1]);
    assert_eq!(put(&mut store, 5, "new"), [2]);
    assert_eq!(put(&mut store, 6, "new"), [3]);
    assert_eq!(put(&mut store, 7, "new"), [4]);
}

#[test]
fn refreshing_one_key_reuses_one_slot() {
    let (mut store, clock) = store(Some(8), Some(1.0));
    for _ in 0..10_000 {
        let _ = put(&mut store, 1, "value");
        clock.advance(1_000_000_000);
        assert_eq!(get(&mut store, 1), None);
    }
    assert_eq!(store.nodes.len(), 2);
}

#[test]
fn an_unbounded_store_gives_up_what_has_expired() {
    let (mut store, clock) = store(None, Some(1.0));
    for key in 0..1000 {
        let _ = put(&mut store, key, "value");
        clock.advance(100_000_000);
    }
    assert_eq!((store.len(), store.nodes.len()), (10, 11));
}

#[test]
fn clearing_gives_back_the_entries_and_the_order_starts_anew() {
    let (mut store, _) = store(Some(3), None);
    for key in 1..=3 {
        let _ = put(&mut store, key, "value");
    }
    let before = store.generation();
    let cleared = store.clear();
    assert_eq!(cleared.len(), 3);
    store.validate();
    assert!(store.is_empty() && store.generation() > before);
    for key in 11..=13 {
        assert_eq!(put(&mut store, key, "value"), []);
    }
    assert_eq!(put(&mut store, 14, "value"), [11]);
}

#[test]
fn every_strategy_keeps_the_bound() {
    for strategy in [Strategy::Lru, Strategy::Mru, Strategy::Fifo, Strategy::Lfu] {
        for bound in [1, 2, 3, 100, 128] {
            let options = Options { strategy, max_size: Some(bound), ..Options::default() };
            let mut store = Store::<u64, ()>::new(&options, None);
            for key in 0..1000 {
                let _ = store.insert(key, key, (), None);
            }
            store.validate();
            assert_eq!(store.len(), bound, "{strategy:?}");
        }
    }
}
