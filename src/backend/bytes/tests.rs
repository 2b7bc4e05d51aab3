//! What each method of a backend promises, said once and tried on two: a region that processes share, and a plain map.

use super::*;
use crate::backend::shared::handle::Handle;
use crate::backend::shared::region::{LAYOUT, Parameters, Purpose};
use crate::backend::shared::tests::actors::place;
use crate::options::Strategy;
use std::collections::HashMap;
use std::sync::Mutex;

/// How long an entry lives.
const TTL: u64 = 1000;
/// When it is stored.
const NOW: u64 = 5000;

/// Nobody has to wait for this one.
struct Alone;

impl Caller for Alone {
    fn token(&self) -> Token<'_> {
        Token::default()
    }

    fn wait<R: Send>(&self, body: impl FnOnce() -> R) -> R {
        body()
    }
}

/// As a backend would be that is as simple as can be: a map that opens when it is told to.
#[derive(Default)]
struct Plain {
    open: Mutex<Option<Contents>>,
    apart: Tallies,
}

#[derive(Default)]
struct Contents {
    /// Values, and when their time is over.
    entries: HashMap<Vec<u8>, (Vec<u8>, u64)>,
    tallies: Tallies,
    generation: u64,
}

impl Contents {
    fn live(&self, key: &[u8], now: u64) -> Option<&[u8]> {
        self.entries.get(key).filter(|(_, expires)| now < *expires).map(|(value, _)| &value[..])
    }
}

impl Plain {
    fn with<R>(&self, act: impl FnOnce(&mut Contents) -> R) -> Result<R, NotNow> {
        self.open.lock().expect("no panic").as_mut().map(act).ok_or(NotNow)
    }
}

impl ByteBackend for Plain {
    type Notice = &'static str;

    fn open(&self, _: &impl Caller) -> Option<&'static str> {
        self.open.lock().expect("no panic").get_or_insert_default();
        None
    }

    fn refresh(&self, caller: &impl Caller) -> Option<&'static str> {
        self.open(caller)
    }

    fn get(
        &self,
        _: Token<'_>,
        key: &[u8],
        now: u64,
        tally: Tally,
        entry: &mut Vec<u8>,
    ) -> Result<Lookup<Stored>, NotNow> {
        self.with(|contents| {
            let generation = contents.generation;
            if let Some(value) = contents.live(key, now) {
                entry.clear();
                entry.extend_from_slice(value);
                contents.tallies.count(Count::Hit);
                return Lookup::Hit(Stored { start: 0, generation });
            }
            if tally == Tally::All {
                contents.tallies.count(Count::Miss);
            }
            Lookup::Miss { generation }
        })
    }

    fn retract(&self, _: Token<'_>, tally: Tally) {
        let _ = self.with(|contents| {
            let Counts { hits, misses, .. } = contents.tallies.counts();
            contents.tallies.clear();
            (1..hits).for_each(|_| contents.tallies.count(Count::Hit));
            (0..misses + u64::from(tally == Tally::All)).for_each(|_| contents.tallies.count(Count::Miss));
        });
    }

    fn contains(&self, _: &impl Caller, key: &[u8], now: u64) -> Result<bool, NotNow> {
        self.with(|contents| contents.live(key, now).is_some())
    }

    fn put(
        &self,
        _: &impl Caller,
        fresh: &Fresh<'_>,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Option<&'static str>, NotNow> {
        self.with(|contents| {
            if fresh.since.is_none_or(|since| since == contents.generation) && is_wanted() {
                contents.entries.insert(fresh.key.to_vec(), (fresh.value.to_vec(), fresh.now + TTL));
            }
            None
        })
    }

    fn remove(&self, _: &impl Caller, key: &[u8], now: u64) -> Result<bool, NotNow> {
        self.with(|contents| contents.entries.remove(key).is_some_and(|(_, expires)| now < expires))
    }

    fn clear(&self, _: &impl Caller) -> Result<(), NotNow> {
        self.apart.clear();
        self.with(|contents| *contents = Contents { generation: contents.generation + 1, ..Contents::default() })
    }

    fn count(&self, _: Token<'_>, count: Count) -> Result<(), NotNow> {
        self.with(|contents| contents.tallies.count(count))
    }

    fn count_apart(&self, count: Count) {
        self.apart.count(count);
    }

    fn info(&self, _: &impl Caller, now: u64) -> (Counts, usize) {
        self.with(|contents| {
            let live = contents.entries.values().filter(|(_, expires)| now < *expires).count();
            (contents.tallies.counts(), live)
        })
        .unwrap_or_else(|NotNow| (self.apart.counts(), 0))
    }
}

fn purpose() -> Purpose {
    let parameters = Parameters {
        max_size: 16,
        max_key_size: 64,
        max_value_size: 2000,
        ttl_ns: Some(TTL),
        strategy: Strategy::Lru as u8,
        typed: false,
        pickle_protocol: 5,
        python: (3, 13),
        layout: LAYOUT,
    };
    Purpose { label: "module.function".into(), digest: 7, parameters }
}

/// Each promise, and a test of it for each backend.
macro_rules! promises {
    ($($promise:ident)*) => {
        mod a_shared_region {
            use super::*;

            $(#[test]
            fn $promise() {
                let (_place, location) = place();
                super::$promise(&Handle::new(Some(location), purpose()));
            })*
        }

        mod a_plain_map {
            use super::*;

            $(#[test]
            fn $promise() {
                super::$promise(&Plain::default());
            })*
        }
    };
}

promises! {
    what_is_not_open_answers_nothing_until_it_is_opened
    a_value_that_was_put_is_the_end_of_the_buffer_after_a_hit
    a_key_has_the_last_value_that_was_put
    a_look_up_counts_a_hit_and_a_miss_if_it_is_told_to
    a_hit_can_be_taken_back
    an_entry_s_time_counts_from_when_it_was_put
    an_entry_that_is_not_wanted_is_not_stored
    an_entry_is_stored_in_the_generation_of_its_miss_only
    a_removal_says_whether_there_was_an_entry
    a_look_without_a_look_up_counts_nothing
    a_clear_removes_entries_and_counts
    what_is_counted_apart_is_shown_while_nothing_is_open
}

fn opened(backend: &impl ByteBackend) {
    assert!(backend.open(&Alone).is_none(), "no notice");
}

fn put_at(backend: &impl ByteBackend, key: &[u8], value: &[u8], now: u64) {
    let fresh = Fresh { key, value, now, since: None };
    assert!(backend.put(&Alone, &fresh, || true).expect("it is open").is_none(), "no notice");
}

fn put(backend: &impl ByteBackend, key: &[u8], value: &[u8]) {
    put_at(backend, key, value, NOW);
}

fn get(backend: &impl ByteBackend, key: &[u8]) -> Result<Lookup<Vec<u8>>, NotNow> {
    let mut entry = b"what the last call has left".to_vec();
    let token = Token::default();
    Ok(match backend.get(token, key, NOW, Tally::All, &mut entry)? {
        Lookup::Hit(Stored { start, .. }) => Lookup::Hit(entry.split_off(start)),
        Lookup::Stale(Stored { start, .. }) => Lookup::Stale(entry.split_off(start)),
        Lookup::Miss { generation } => Lookup::Miss { generation },
    })
}

fn generation(backend: &impl ByteBackend) -> u64 {
    match get(backend, b"no such key") {
        Ok(Lookup::Miss { generation }) => generation,
        other => panic!("{other:?}"),
    }
}

fn hits_and_misses(backend: &impl ByteBackend) -> (u64, u64) {
    let (Counts { hits, misses, .. }, _) = backend.info(&Alone, NOW);
    (hits, misses)
}

fn what_is_not_open_answers_nothing_until_it_is_opened(backend: &impl ByteBackend) {
    let fresh = Fresh { key: b"key", value: b"value", now: NOW, since: None };
    assert_eq!(get(backend, b"key"), Err(NotNow));
    assert_eq!(backend.put(&Alone, &fresh, || true).map(drop), Err(NotNow));
    assert_eq!(
        (backend.contains(&Alone, b"key", NOW), backend.remove(&Alone, b"key", NOW)),
        (Err(NotNow), Err(NotNow))
    );
    assert_eq!((backend.count(Token::default(), Count::Hit), backend.clear(&Alone)), (Err(NotNow), Err(NotNow)));
    opened(backend);
    assert_eq!(hits_and_misses(backend), (0, 0));
    assert!(matches!(get(backend, b"key"), Ok(Lookup::Miss { .. })));
    opened(backend);
    assert!(backend.refresh(&Alone).is_none(), "no notice");
    assert_eq!(hits_and_misses(backend), (0, 1));
}

fn a_value_that_was_put_is_the_end_of_the_buffer_after_a_hit(backend: &impl ByteBackend) {
    opened(backend);
    for size in [0, 1, 8, 191, 192, 1999] {
        let value = vec![7; size];
        put(backend, b"key", &value);
        assert_eq!(get(backend, b"key"), Ok(Lookup::Hit(value.clone())), "{size} bytes");
        let mut entry = Vec::new();
        let waiting = backend.get_waiting(&Alone, b"key", NOW, Tally::All, &mut entry);
        assert!(matches!(waiting, Ok(Lookup::Hit(Stored { start, .. })) if entry[start..] == value), "{size} bytes");
    }
}

fn a_key_has_the_last_value_that_was_put(backend: &impl ByteBackend) {
    opened(backend);
    put(backend, b"key", b"old");
    put(backend, b"other", b"other");
    put(backend, b"key", b"new");
    assert_eq!(get(backend, b"key"), Ok(Lookup::Hit(b"new".to_vec())));
    assert_eq!(backend.info(&Alone, NOW).1, 2);
}

fn a_look_up_counts_a_hit_and_a_miss_if_it_is_told_to(backend: &impl ByteBackend) {
    opened(backend);
    put(backend, b"key", b"value");
    let look_up = |key: &[u8], tally| backend.get(Token::default(), key, NOW, tally, &mut Vec::new()).expect("open");
    for (key, tally, counts) in [
        (&b"key"[..], Tally::All, (1, 0)),
        (b"key", Tally::Hits, (2, 0)),
        (b"none", Tally::Hits, (2, 0)),
        (b"none", Tally::All, (2, 1)),
    ] {
        look_up(key, tally);
        assert_eq!(hits_and_misses(backend), counts);
    }
    backend.count(Token::default(), Count::Miss).expect("open");
    backend.count(Token::default(), Count::Skip).expect("open");
    backend.count(Token::default(), Count::Unstorable).expect("open");
    assert_eq!(backend.info(&Alone, NOW).0, Counts { hits: 2, misses: 2, skips: 1, unstorable: 1 });
}

fn a_hit_can_be_taken_back(backend: &impl ByteBackend) {
    opened(backend);
    put(backend, b"key", b"value");
    for (tally, counts) in [(Tally::All, (0, 1)), (Tally::Hits, (0, 1))] {
        assert!(matches!(get(backend, b"key"), Ok(Lookup::Hit(_))));
        backend.retract(Token::default(), tally);
        assert_eq!(hits_and_misses(backend), counts);
    }
}

fn an_entry_s_time_counts_from_when_it_was_put(backend: &impl ByteBackend) {
    opened(backend);
    put(backend, b"key", b"value");
    let is_there = |now| {
        let found = backend.get(Token::default(), b"key", now, Tally::All, &mut Vec::new()).expect("open");
        (
            matches!(found, Lookup::Hit(_)),
            backend.contains(&Alone, b"key", now).expect("open"),
            backend.info(&Alone, now).1,
        )
    };
    assert_eq!((is_there(NOW), is_there(NOW + TTL - 1)), ((true, true, 1), (true, true, 1)));
    assert_eq!(is_there(NOW + TTL), (false, false, 0));
    assert_eq!(backend.remove(&Alone, b"key", NOW + TTL), Ok(false));
    put_at(backend, b"key", b"value", NOW + TTL);
    assert_eq!(is_there(NOW + TTL), (true, true, 1));
}

fn an_entry_that_is_not_wanted_is_not_stored(backend: &impl ByteBackend) {
    opened(backend);
    let fresh = Fresh { key: b"key", value: b"value", now: NOW, since: None };
    assert_eq!(backend.put(&Alone, &fresh, || false).map(drop), Ok(()));
    assert_eq!(backend.contains(&Alone, b"key", NOW), Ok(false));
}

fn an_entry_is_stored_in_the_generation_of_its_miss_only(backend: &impl ByteBackend) {
    opened(backend);
    let before = generation(backend);
    backend.clear(&Alone).expect("open");
    let after = generation(backend);
    assert_ne!(before, after);
    for (since, is_stored) in [(Some(before), false), (Some(after), true), (None, true)] {
        let fresh = Fresh { key: b"key", value: b"value", now: NOW, since };
        assert_eq!(backend.put(&Alone, &fresh, || true).map(drop), Ok(()));
        assert_eq!(backend.remove(&Alone, b"key", NOW), Ok(is_stored), "{since:?}");
    }
}

fn a_removal_says_whether_there_was_an_entry(backend: &impl ByteBackend) {
    opened(backend);
    put(backend, b"key", b"value");
    put(backend, b"other", b"value");
    assert_eq!(backend.remove(&Alone, b"key", NOW), Ok(true));
    assert_eq!(backend.remove(&Alone, b"key", NOW), Ok(false));
    assert!(matches!(get(backend, b"key"), Ok(Lookup::Miss { .. })));
    assert_eq!(backend.info(&Alone, NOW).1, 1);
}

fn a_look_without_a_look_up_counts_nothing(backend: &impl ByteBackend) {
    opened(backend);
    put(backend, b"key", b"value");
    let contains = |key| backend.contains(&Alone, key, NOW);
    assert_eq!((contains(b"key"), contains(b"none")), (Ok(true), Ok(false)));
    assert_eq!(hits_and_misses(backend), (0, 0));
}

fn a_clear_removes_entries_and_counts(backend: &impl ByteBackend) {
    opened(backend);
    put(backend, b"key", b"value");
    assert!(matches!(get(backend, b"key"), Ok(Lookup::Hit(_))));
    backend.clear(&Alone).expect("open");
    assert_eq!(backend.info(&Alone, NOW), (Counts::default(), 0));
    assert!(matches!(get(backend, b"key"), Ok(Lookup::Miss { .. })));
}

fn what_is_counted_apart_is_shown_while_nothing_is_open(backend: &impl ByteBackend) {
    backend.count_apart(Count::Miss);
    backend.count_apart(Count::Skip);
    assert_eq!(backend.info(&Alone, NOW), (Counts { hits: 0, misses: 1, skips: 1, unstorable: 0 }, 0));
    assert_eq!(backend.clear(&Alone), Err(NotNow));
    assert_eq!(hits_and_misses(backend), (0, 0));
    backend.count_apart(Count::Miss);
    opened(backend);
    assert_eq!(hits_and_misses(backend), (0, 0));
}
