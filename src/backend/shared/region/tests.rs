use super::layout::EXACT;
use super::*;
use crate::backend::bytes::{Count, Counts};
use crate::backend::shared::shard::BUDGET;
use crate::backend::shared::tests::actors::place;
use crate::backend::shared::tests::words::die_before;
// Not the trait of that name.
use crate::options::Strategy;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::FileExt;

fn purpose(max_size: u64, strategy: Strategy) -> Purpose {
    let parameters = Parameters {
        max_size,
        max_key_size: 64,
        max_value_size: 2000,
        ttl_ns: None,
        strategy: strategy as u8,
        typed: false,
        pickle_protocol: 5,
        python: (3, 13),
        layout: LAYOUT,
    };
    Purpose { label: "module.function".into(), digest: 7, parameters }
}

fn keep(region: &Region, key: u64, value: &[u8]) -> Kept {
    region.keep(&key.to_le_bytes(), value, 0, || true, BUDGET).expect("nobody else is there")
}

fn get(region: &Region, key: u64) -> Option<Vec<u8>> {
    let mut buffer = Vec::new();
    let found = region.look_up(&key.to_le_bytes(), 0, &mut buffer)?;
    Some(buffer.split_off(found.value_start))
}

#[test]
fn what_one_has_stored_another_finds_and_both_count() {
    let (_place, location) = place();
    let purpose = purpose(128, Strategy::Lru);
    let (one, other) = (Region::open(&location, &purpose), Region::open(&location, &purpose));
    let (one, other) = (one.expect("a region"), other.expect("the same"));
    assert_eq!(one.path(), other.path());
    keep(&one, 1, b"one");
    assert_eq!(get(&other, 1).as_deref(), Some(&b"one"[..]));
    other.count(Count::Hit);
    one.count(Count::Miss);
    one.count(Count::Miss);
    assert_eq!(other.counts(), Counts { hits: 1, misses: 2, skips: 0, unstorable: 0 });
    other.clear(BUDGET).expect("nobody else is there");
    assert_eq!((get(&one, 1), one.len(0), one.counts()), (None, 0, Counts::default()));
}

#[test]
fn regions_for_other_purposes_are_other_files() {
    let base = purpose(128, Strategy::Lru);
    let mut others = vec![base.clone(), Purpose { digest: 8, ..base.clone() }, purpose(128, Strategy::Mru)];
    for change in [
        |it: &mut Parameters| it.max_size = 129,
        |it: &mut Parameters| it.max_key_size = 65,
        |it: &mut Parameters| it.max_value_size = 2001,
        |it: &mut Parameters| it.ttl_ns = Some(1),
        |it: &mut Parameters| it.typed = true,
        |it: &mut Parameters| it.python = (3, 14),
        |it: &mut Parameters| it.layout = LAYOUT + 1,
    ] {
        let mut other = base.clone();
        change(&mut other.parameters);
        others.push(other);
    }
    let mut names: Vec<_> = others.iter().map(Purpose::file_name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), others.len());
    let odd = Purpose { label: "../tmp-é/../\0".repeat(30), ..base };
    let name = odd.file_name();
    assert!(name.len() < 100 && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'), "{name}");
    let (_place, location) = place();
    let region = Region::open(&location, &odd).expect("a region of any label");
    drop(region);
    Region::open(&location, &odd).expect("and again");
}

#[test]
fn a_large_region_takes_no_room_before_it_has_entries_and_little_for_small_ones() {
    let (_place, location) = place();
    let region = Region::open(&location, &purpose(100_000, Strategy::Lru)).expect("a region");
    assert!(region.bytes() < 64 << 10, "{}", region.bytes());
    for key in 0..100_000 {
        keep(&region, key, b"value");
    }
    assert_eq!(region.len(0), 100_000);
    let each = region.bytes() / 100_000;
    assert!(each < 300, "{each}");
    region.validate();
}

#[test]
fn a_header_that_is_damaged_or_retired_is_replaced() {
    let (_place, location) = place();
    let purpose = purpose(16, Strategy::Lru);
    let region = Region::open(&location, &purpose).expect("a region");
    keep(&region, 1, b"one");
    let path = region.path().expect("a file");
    for place in [0, 8, 12, 16, 33, 41, 57, 130, 505, RETIRED] {
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).expect("our file");
        let mut byte = [0];
        file.read_exact_at(&mut byte, place as u64).expect("a byte");
        file.write_all_at(&[byte[0] ^ 1], place as u64).expect("room");
        let fresh = Region::open(&location, &purpose).expect("another");
        assert!(fresh.is_in_place() && fresh.is_empty(0) && !region.is_in_place(), "byte {place}");
    }
    // Who had it, has it.
    assert_eq!(get(&region, 1).as_deref(), Some(&b"one"[..]));
}

#[test]
fn a_retired_region_is_left_by_all() {
    let (_place, location) = place();
    let purpose = purpose(16, Strategy::Lru);
    let (one, other) = (Region::open(&location, &purpose), Region::open(&location, &purpose));
    let (one, other) = (one.expect("a region"), other.expect("the same"));
    assert_eq!((one.retire(), other.retire()), (Ok(true), Ok(false)));
    assert!(!one.is_current() && !other.is_current() && !one.path().expect("a path").exists());
    assert!(Region::open(&location, &purpose).expect("another").is_current());
}

#[test]
fn a_list_shows_every_region_and_removes_those_that_nobody_has_open() {
    let (_place, location) = place();
    assert_eq!(list(&location, true), Ok(Vec::new()));
    assert!(!location.exists());
    let (small, large) = (purpose(16, Strategy::Lru), purpose(5000, Strategy::Fifo));
    let (one, other) = (Region::open(&location, &small), Region::open(&location, &large));
    let (one, other) = (one.expect("a region"), other.expect("a region"));
    for key in 0..3 {
        keep(&one, key, b"value");
        keep(&other, key, b"value");
    }
    one.count(Count::Hit);
    let seen = list(&location, true).expect("a folder");
    assert_eq!(seen.len(), 2);
    let of = |purpose: &Purpose| seen.iter().find(|seen| seen.purpose == *purpose).expect("listed").clone();
    assert_eq!((of(&small).entries, of(&large).entries), (3, 3));
    assert_eq!((of(&small).counts.hits, of(&small).processes, of(&small).bytes), (1, 1, one.bytes()));
    drop(one);
    fs::write(location.path().join("foreign.wc"), b"not ours").expect("room");
    let seen = list(&location, false).expect("a folder");
    assert_eq!(seen.iter().map(|seen| seen.processes).sum::<usize>(), 1);
    let seen = list(&location, true).expect("a folder");
    assert_eq!(seen.iter().map(|seen| &seen.purpose).collect::<Vec<_>>(), [&large]);
    assert!(other.is_current());
}

#[test]
fn the_time_of_an_entry_counts_from_when_it_was_stored_and_no_entry_lives_for_ever() {
    let mut timed = purpose(16, Strategy::Lru);
    timed.parameters.ttl_ns = Some(1000);
    let region = Region::private(None, &timed).expect("memory");
    let store = |now: u64| region.keep(b"key", b"value", now, || true, BUDGET).expect("nobody else is there");
    let finds = |now: u64| (region.contains(b"key", now), region.len(now));
    store(5000);
    assert_eq!((finds(5000), finds(5999), finds(6000)), ((true, 1), (true, 1), (false, 0)));
    store(6500);
    assert_eq!((finds(7499), finds(7500)), ((true, 1), (false, 0)));
    // A clock that has gone back by more than a second.
    store(10 * SLACK);
    assert_eq!(finds(8 * SLACK), (false, 0));
    assert_eq!(finds(10 * SLACK - 5), (true, 1));
}

#[test]
fn what_is_no_longer_wanted_is_not_stored() {
    let region = Region::private(None, &purpose(16, Strategy::Lru)).expect("memory");
    assert_eq!(region.keep(b"key", b"value", 0, || false, BUDGET), Ok(Kept::Unwanted));
    assert!(!region.contains(b"key", 0));
}

#[test]
fn a_region_of_no_entries_counts_only() {
    let region = Region::private(None, &purpose(0, Strategy::Lru)).expect("memory");
    assert_eq!(keep(&region, 1, b"one"), Kept::NoRoom);
    region.count(Count::Miss);
    assert_eq!((get(&region, 1), region.len(0), region.counts().misses), (None, 0, 1));
}

/// A region of several shards whose total is too high, and which knows that.
fn stale(max_size: u64) -> Region {
    let region = Region::private(None, &purpose(max_size, Strategy::Lru)).expect("memory");
    (0..10).for_each(|key| _ = keep(&region, key, b"value"));
    region.header_word(TOTAL).store(15, Ordering::Relaxed);
    region.header_word(STALE).store(1, Ordering::Relaxed);
    region
}

fn total_and_mark(region: &Region) -> (u64, u64) {
    let word = |at| region.header_word(at).load(Ordering::Relaxed);
    (word(TOTAL), word(STALE))
}

#[test]
fn whatever_store_a_process_dies_before_the_total_is_right_or_marked_as_stale() {
    for stores in 0.. {
        let region = stale(1100);
        let has_died = die_before(stores, || region.recount_if_stale(&region.here(), Wait::begin(BUDGET)));
        let (total, mark) = total_and_mark(&region);
        assert!(total == 10 || mark != 0, "{stores} stores");
        if !has_died {
            assert!((total, mark) == (10, 0) && stores > 4, "{stores} stores");
            break;
        }
    }
}

#[test]
fn a_total_that_is_marked_while_it_is_counted_stays_marked() {
    let region = stale(1100);
    let mark = || region.shard(0).and_then(|shard| shard.total()).expect("several shards").mark();
    region.recount(&region.here(), Wait::begin(BUDGET), mark);
    assert_ne!(total_and_mark(&region).1, 0);
    keep(&region, 1, b"value");
    assert_eq!(total_and_mark(&region), (10, 0));
}

#[test]
fn a_store_waits_for_all_shards_together_no_longer_than_for_one() {
    let region = stale(8 * EXACT as u64);
    let (is_held, holds) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let region = &region;
        scope.spawn(move || {
            let mut all: Vec<_> = region.locals.get().iter().map(|local| local.lock()).collect();
            is_held.send(()).expect("a listener");
            // One shard after the other can be had, each before the budget of who waits for it alone is over.
            for _ in 0..8 {
                std::thread::sleep(BUDGET / 2);
                all.drain(..1);
            }
        });
        holds.recv().expect("a word");
        let start = Instant::now();
        region.recount_if_stale(&region.here(), Wait::begin(BUDGET));
        assert!(start.elapsed() < BUDGET * 2, "{:?}", start.elapsed());
        assert_eq!(total_and_mark(region), (15, 1));
    });
    keep(&region, 1, b"value");
    assert_eq!(total_and_mark(&region), (10, 0));
}

#[test]
fn a_clear_waits_for_all_shards_together_no_longer_than_for_one_and_clears_those_that_it_can_have() {
    let region = Region::private(None, &purpose(32 * EXACT as u64, Strategy::Lru)).expect("memory");
    (0..1000).for_each(|key| _ = keep(&region, key, b"value"));
    let stuck: Vec<_> = region.locals.get().iter().take(31).map(|local| local.lock()).collect();
    let start = Instant::now();
    assert_eq!(region.clear(BUDGET), Err(GaveUp));
    assert!(start.elapsed() < BUDGET * 4, "{:?}", start.elapsed());
    assert_eq!(region.shard(31).map(|shard| shard.len()), Some(0));
    assert_ne!(region.len(0), 0);
    drop(stuck);
    assert_eq!((region.clear(BUDGET), region.len(0)), (Ok(()), 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    /// However the keys fall into the shards, the total is at most the size, and is it as soon as so many keys have come.
    #[test]
    fn several_shards_have_exactly_so_many_entries_together(
        max_size in 1025_u64..5000,
        keys in prop::collection::vec((0_u64..8000, 0_u8..8), 1..9000),
    ) {
        let region = Region::private(None, &purpose(max_size, Strategy::Lru)).expect("memory");
        let mut stored = std::collections::HashSet::new();
        let mut removed = false;
        for (key, act) in keys {
            if act == 0 {
                removed |= region.remove(&key.to_le_bytes(), 0, BUDGET).expect("nobody else is there");
            } else {
                keep(&region, key, &key.to_le_bytes());
                stored.insert(key);
            }
            prop_assert!(region.len(0) as u64 <= max_size);
        }
        if !removed {
            prop_assert_eq!(region.len(0), stored.len().min(usize::try_from(max_size).expect("small")));
        }
        region.validate();
        for key in stored {
            if let Some(value) = get(&region, key) {
                prop_assert_eq!(value, key.to_le_bytes());
            }
        }
    }
}
