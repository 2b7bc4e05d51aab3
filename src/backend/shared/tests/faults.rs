//! What a region must survive besides kills: damage, stopped processes, a crowd. How much of it is tried is for the environment
//! to say.

use super::super::handle::Handle;
use super::super::region::Parameters;
use super::super::region::{self, Purpose, Region};
use super::super::shard::{BUDGET, GaveUp, Kept};
use super::super::system::directory::Location;
use super::actors::{Actor, Dice, command, listen, place, role, say};
use crate::backend::bytes::{Count, Counts};
use crate::options::Strategy;
use crate::sync::Token;
use rustix::process::Signal;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn purpose(max_size: u64, strategy: Strategy, ttl_ns: Option<u64>) -> Purpose {
    let parameters = Parameters {
        max_size,
        max_key_size: 64,
        max_value_size: 4000,
        ttl_ns,
        strategy: strategy as u8,
        typed: false,
        pickle_protocol: 5,
        python: (3, 13),
        layout: region::LAYOUT,
    };
    Purpose { label: "faults".into(), digest: 1, parameters }
}

fn times(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|times| times.parse().ok()).unwrap_or(usual)
}

fn now() -> u64 {
    crate::clock::Clock::Machine.now()
}

/// A value that says of which key it is, and that is wrong wherever it is not whole.
fn value_of(key: u64, version: u64) -> Vec<u8> {
    let length = usize::try_from((key * 37 + version * 101) % 1500).expect("small");
    let mut value = vec![version.to_le_bytes()[0]; length];
    value.extend(key.to_le_bytes());
    value.extend(version.to_le_bytes());
    value
}

fn is_value_of(key: u64, value: &[u8]) -> bool {
    let Some((_, version)) = value.split_last_chunk() else { return false };
    value_of(key, u64::from_le_bytes(*version)) == value
}

fn store(region: &Region, key: u64, version: u64) -> Result<Kept, GaveUp> {
    region.keep(&key.to_le_bytes(), &value_of(key, version), now(), || true, BUDGET)
}

/// Looks a key up. Panics if the value is not one of the key.
fn find(region: &Region, key: u64, buffer: &mut Vec<u8>) -> bool {
    let found = region.look_up(&key.to_le_bytes(), now(), buffer);
    if let Some(found) = &found {
        assert!(is_value_of(key, &buffer[found.value_start..]), "a wrong value of {key}");
    }
    found.is_some()
}

#[test]
fn plays_a_role() {
    let Some((role, location)) = role() else { return };
    let (role, number) =
        role.split_once(' ').map_or((&role[..], 0), |(role, number)| (role, number.parse().expect("")));
    match role {
        "stopped" => {
            let region = Region::open(&location, &purpose(16, Strategy::Lru, None)).expect("a region");
            // Asked for when the lock is held.
            let stop = || {
                say("held");
                rustix::process::kill_process(rustix::process::getpid(), Signal::STOP).expect("this process");
                // Another thread may be the first to be stopped.
                std::thread::sleep(Duration::from_millis(50));
                true
            };
            say(format_args!("{:?}", region.keep(b"key of the stopped", b"value", 0, stop, BUDGET)));
            listen();
        }
        "crowd" => crowd_member(&location, number),
        other => panic!("{other}"),
    }
}

#[test]
fn a_stopped_owner_of_a_lock_keeps_nobody_waiting_for_long_and_does_no_harm_when_it_goes_on() {
    let (_place, location) = place();
    let purpose = purpose(16, Strategy::Lru, None);
    let handle = Handle::new(Some(location.clone()), purpose.clone());
    let (region, notice) = handle.renew();
    let region = handle.settle(Token::default(), region.expect("a region"));
    assert_eq!((notice, store(&region, 1, 1)), (None, Ok(Kept::Stored)));
    let mut other = Actor::play(module_path!(), "stopped", &location);
    assert_eq!(other.line(), "held");
    let mut buffer = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let kept = store(&region, 2, 1);
        assert_eq!(kept, Err(GaveUp));
        assert!(start.elapsed() < BUDGET + Duration::from_millis(150), "{:?}", start.elapsed());
        // Readers do not notice.
        assert!(region.is_current() && find(&region, 1, &mut buffer));
        handle.note(&region, false);
    }
    assert!(!region.is_current() && handle.region(Token::default()).is_none());
    let (fresh, notice) = handle.renew();
    let fresh = fresh.expect("another region");
    assert_eq!((notice, store(&fresh, 2, 1), fresh.path()), (None, Ok(Kept::Stored), region.path()));
    other.signal(Signal::CONT);
    // It has not noticed anything, and writes where nobody looks any more.
    assert_eq!(other.line(), "Ok(Stored)");
    assert!(fresh.is_in_place() && find(&fresh, 2, &mut buffer) && !fresh.contains(b"key of the stopped", 0));
    fresh.validate();
    assert_eq!(region.events().give_ups, 3);
}

#[test]
fn no_damage_of_a_file_that_is_in_use_makes_a_wrong_value_or_a_hang() {
    let mut dice = Dice::new(41);
    let mut buffer = Vec::new();
    for round in 0..times("WARP_CACHE_DAMAGES", 1000) {
        let strategy =
            [Strategy::Lru, Strategy::Mru, Strategy::Fifo, Strategy::Lfu][usize::try_from(round % 4).expect("small")];
        let ttl = (round % 3 == 0).then_some(1_000_000_000_000);
        let region =
            Region::private(None, &purpose(if round % 10 == 0 { 1100 } else { 24 }, strategy, ttl)).expect("memory");
        for key in 0..30 {
            store(&region, key, dice.roll(50)).expect("nobody else is there");
        }
        for _ in 0..=dice.roll(40) {
            // Whole words, single bits, and bytes; the parts that are small as often as those that are large.
            let words = region.committed_words_for_tests();
            let from = dice.pick(&[0, 64, 512, 1024, 1536, 1536, 2048, 2048]).min(words.len() - 1);
            let place = from + usize::try_from(dice.roll((words.len() - from) as u64)).expect("small");
            let random = dice.roll(u64::MAX);
            match dice.roll(4) {
                0 => words[place].store(random, Ordering::Relaxed),
                1 => words[place].store(dice.pick(&[0, 1, u64::MAX, u64::MAX - 1]), Ordering::Relaxed),
                2 => _ = words[place].fetch_xor(1 << dice.roll(64), Ordering::Relaxed),
                _ => _ = words[place].fetch_xor(0xff << (8 * dice.roll(8)), Ordering::Relaxed),
            }
        }
        let start = Instant::now();
        let mut give_ups = 0;
        for _ in 0..60 {
            let key = dice.roll(40);
            match dice.roll(8) {
                0..4 => give_ups += u32::from(store(&region, key, dice.roll(50)).is_err()),
                4 => _ = region.remove(&key.to_le_bytes(), now(), BUDGET),
                5 if dice.roll(10) == 0 => _ = region.clear(BUDGET),
                _ => _ = find(&region, key, &mut buffer),
            }
            let _ = (region.len(now()), region.counts(), region.events(), region.bytes(), region.is_current());
        }
        assert!(start.elapsed() < Duration::from_secs(5) + give_ups * BUDGET, "round {round}");
    }
}

#[test]
fn a_file_of_any_length_or_content_is_replaced_or_read_and_never_trusted() {
    let (_place, location) = place();
    let purpose = purpose(16, Strategy::Lru, None);
    let path = {
        let region = Region::open(&location, &purpose).expect("a region");
        (0..16).for_each(|key| _ = store(&region, key, 1));
        region.path().expect("a file")
    };
    let whole = std::fs::read(&path).expect("our file");
    let mut buffer = Vec::new();
    let mut check = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("room");
        let region = Region::open(&location, &purpose).expect("a region");
        let found = (0..16).filter(|&key| find(&region, key, &mut buffer)).count();
        assert_ne!(store(&region, 99, 1), Err(GaveUp));
        assert!(find(&region, 99, &mut buffer));
        assert!(region.len(0) <= 16);
        found
    };
    let step = usize::try_from(times("WARP_CACHE_LENGTH_STEP", 7)).expect("small");
    for length in (0..8192).step_by(step).chain([whole.len() - 1]) {
        assert_eq!(check(&whole[..length]), 0, "{length} bytes");
    }
    assert_eq!(check(&[&whole[..], &[0]].concat()), 0);
    assert_eq!(check(&vec![0; whole.len()]), 0);
    assert_eq!(check(&vec![0xff; whole.len()]), 0);
    let mut dice = Dice::new(7);
    for _ in 0..times("WARP_CACHE_FILE_DAMAGES", 200) {
        let mut bytes = whole.clone();
        for _ in 0..=dice.roll(40) {
            let most = dice.pick(&[20_000, 60_000]);
            let place = usize::try_from(dice.roll(most)).expect("small");
            bytes[place.min(whole.len() - 1)] = dice.roll(256).to_le_bytes()[0];
        }
        check(&bytes);
    }
    assert_eq!(check(&whole), 16);
}

#[test]
fn a_file_that_is_deleted_or_replaced_while_it_is_in_use_stays_in_use() {
    let (_place, location) = place();
    let purpose = purpose(16, Strategy::Lru, None);
    let region = Region::open(&location, &purpose).expect("a region");
    store(&region, 1, 1).expect("nobody else is there");
    let path = region.path().expect("a file");
    std::fs::remove_file(&path).expect("our file");
    let mut buffer = Vec::new();
    assert!(find(&region, 1, &mut buffer) && region.is_current());
    // As soon as it needs more room, which it can't have, it is left.
    for key in 0..100 {
        assert_ne!(store(&region, key, 1), Err(GaveUp));
    }
    assert!(!region.is_current());
    let other = Region::open(&location, &purpose).expect("another");
    assert!(!region.is_in_place() && other.is_in_place() && other.is_empty(0));
    let file = OpenOptions::new().write(true).open(&path).expect("our file");
    file.write_all_at(&[0; 512], 0).expect("room");
    store(&other, 1, 1).expect("nobody else is there");
    assert!(find(&other, 1, &mut buffer));
    assert!(Region::open(&location, &purpose).expect("a third").is_empty(0));
}

#[test]
fn what_could_not_be_in_a_file_is_in_one_when_it_can() {
    let (_place, location) = place();
    std::fs::write(location.path(), b"in the way").expect("room");
    let handle = Handle::new(Some(location.clone()), purpose(16, Strategy::Lru, None));
    let (region, notice) = handle.renew();
    let region = handle.settle(Token::default(), region.expect("memory"));
    assert!(notice.is_some() && region.path().is_none() && !handle.is_retry_due() && handle.retry().is_none());
    store(&region, 1, 1).expect("nobody else is there");
    std::fs::remove_file(location.path()).expect("our file");
    let fresh = handle.retry().expect("a file");
    handle.replace(Token::default(), &fresh);
    let region = handle.region(Token::default()).expect("the new one");
    assert!(region.path().is_some() && region.is_empty(0) && !handle.is_retry_due());
}

const CROWD: u64 = 12;
const SIZE: u64 = 200;
const TTL: u64 = 50_000_000;

fn crowd_purposes() -> [Purpose; 5] {
    let of = |size, strategy, ttl| purpose(size, strategy, ttl);
    [
        of(SIZE, Strategy::Lru, Some(TTL)),
        of(SIZE, Strategy::Mru, None),
        of(SIZE, Strategy::Fifo, Some(TTL)),
        of(SIZE, Strategy::Lfu, None),
        of(SIZE * 10, Strategy::Lru, Some(TTL)),
    ]
}

fn crowd_member(location: &Location, number: u64) {
    let regions = crowd_purposes().map(|purpose| Region::open(location, &purpose).expect("a region"));
    let mut dice = Dice::new(number * 7919 + 13);
    let mut buffer = Vec::new();
    let (mut longest, mut give_ups) = (Duration::ZERO, 0_u64);
    say("ready");
    listen();
    let operations = times("WARP_CACHE_OPS", 5_000_000) / CROWD;
    for step in 0..operations {
        let which = usize::try_from(dice.roll(5)).expect("small");
        let region = &regions[which];
        // Three in four follow Zipf, the rest are from twice as many as fit.
        let key = if dice.roll(4) == 0 { dice.roll(SIZE * 2) } else { SIZE * 20 / (dice.roll(SIZE * 20) + 1) };
        let start = Instant::now();
        if find(region, key, &mut buffer) {
            region.count(Count::Hit);
        } else {
            region.count(Count::Miss);
            give_ups += u64::from(store(region, key, dice.roll(50)).is_err());
        }
        longest = longest.max(start.elapsed());
        if step % 64 == 0 {
            let most = usize::try_from(crowd_purposes()[which].parameters.max_size).expect("small");
            let len = region.len(now());
            assert!(len <= most, "{len} entries");
        }
    }
    say(format_args!("{operations} {} {give_ups}", longest.as_micros()));
}

#[test]
fn a_crowd_of_processes_finds_no_wrong_value_and_counts_every_call() {
    let (_place, location) = place();
    let regions = crowd_purposes().map(|purpose| Region::open(&location, &purpose).expect("a region"));
    let start = |number| Actor::start(&mut command(module_path!(), &format!("crowd {number}"), &location));
    let mut crowd: Vec<_> = (0..CROWD).map(start).collect();
    super::actors::go(&mut crowd);
    let (mut calls, mut longest, mut give_ups) = (0, 0, 0);
    for member in &mut crowd {
        let line = member.line();
        let mut numbers = line.split(' ').map(|number| number.parse::<u64>().expect("a number"));
        let mut next = || numbers.next().expect("three numbers");
        calls += next();
        longest = longest.max(next());
        give_ups += next();
    }
    crowd.into_iter().for_each(Actor::finish);
    let mut counts = Counts::default();
    for region in &regions {
        let Counts { hits, misses, .. } = region.counts();
        counts.hits += hits;
        counts.misses += misses;
        region.validate();
        assert_eq!((region.events().steals, region.events().damaged), (0, 0));
    }
    assert_eq!(counts.hits + counts.misses, calls);
    assert!(counts.hits > calls / 10 && counts.misses > calls / 100, "{counts:?}");
    #[allow(clippy::print_stdout, reason = "what the run was worth, for who asks with --nocapture")]
    {
        println!("{calls} calls of {CROWD} processes: {counts:?}, {give_ups} give-ups, the longest took {longest} µs");
    }
}
