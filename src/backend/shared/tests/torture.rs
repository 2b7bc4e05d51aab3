//! Processes that are killed at random while they write: what a shard must survive.

use super::super::shard::geometry::Geometry;
use super::super::shard::{BUDGET, Census, Draft, Event, GaveUp, Local, Room, Shard};
use super::super::system::files::{self, Opened, Size};
use super::super::system::liveness::{Member, Membership, Owner};
use super::actors::{Actor, Dice, command, place, role, say};
use crate::options::Strategy;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SLOTS: usize = 64;
const MOST_BYTES: usize = 4000;
const KEYS: u64 = 100;
/// How many processes write at a time.
const WRITERS: usize = 4;

/// The processes, as the kernel knows them.
struct Kernel {
    member: Arc<Member>,
    all: Membership,
}

impl Census for Kernel {
    fn me(&self) -> Owner {
        self.member.owner()
    }

    fn is_alive(&self, owner: Owner) -> bool {
        self.all.is_alive(owner)
    }
}

/// All of it has been allocated.
struct Allocated;

impl Room for Allocated {
    fn extend(&self, _: Range<usize>) -> bool {
        true
    }
}

struct Scene {
    opened: Opened,
    kernel: Kernel,
    local: Mutex<()>,
    geometry: Geometry,
}

impl Scene {
    fn enter(location: &super::super::system::directory::Location) -> Self {
        let geometry = Geometry::new(SLOTS, MOST_BYTES).expect("small");
        let directory = location.open().expect("a folder");
        let size = Size::whole((Geometry::CONTROL + geometry.words()) * 8);
        let opened = files::open(&directory, "torture.wc", size, |_| true, |_| ()).expect("a region");
        let all = Membership::new(location.clone());
        let member = all.current().expect("a place among the living");
        Self { opened, kernel: Kernel { member, all }, local: Mutex::new(()), geometry }
    }

    fn shard(&self) -> Shard<'_> {
        let words = self.opened.map.words(0, (Geometry::CONTROL + self.geometry.words()) * 8).expect("the whole file");
        let (control, words) = words.split_at(Geometry::CONTROL);
        Shard::new(control, words, self.geometry, Strategy::Lru, None, Local::One(&self.local)).expect("the whole file")
    }
}

/// A value that says of which key it is, and that is wrong wherever it is not whole.
fn value_of(key: u64, version: u64) -> Vec<u8> {
    let length = usize::try_from((key * 37 + version * 101) % 3900).expect("small");
    let mut value = vec![version.to_le_bytes()[0]; length];
    value.extend(key.to_le_bytes());
    value.extend(version.to_le_bytes());
    value
}

fn is_value_of(key: u64, value: &[u8]) -> bool {
    let Some((rest, version)) = value.split_last_chunk() else { return false };
    value_of(key, u64::from_le_bytes(*version)) == value && rest.ends_with(&key.to_le_bytes())
}

fn hash_of(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Reads and writes until somebody kills it.
fn write_for_ever(scene: &Scene) -> ! {
    let mut dice = Dice::new(u64::from(std::process::id()));
    let mut buffer = Vec::new();
    loop {
        let key = dice.roll(KEYS);
        let bytes = key.to_le_bytes();
        let shard = scene.shard();
        let start = Instant::now();
        match dice.roll(10) {
            0..6 => {
                let value = value_of(key, dice.roll(1000));
                let draft = Draft { hash: hash_of(key), key: &bytes, value: &value, expires: 0, now: 0 };
                let _ = shard.keep(&draft, &scene.kernel, &Allocated, || true, BUDGET);
            }
            6 => drop(shard.remove(hash_of(key), &bytes, &scene.kernel, BUDGET)),
            _ => {
                if let Some(found) = shard.read(hash_of(key), &bytes, &mut buffer) {
                    let value = &buffer[found.value_start..];
                    if !is_value_of(key, value) {
                        say(format_args!("wrong value of {key}: {} bytes", value.len()));
                        std::process::exit(3);
                    }
                    shard.touch(&found);
                }
            }
        }
        if start.elapsed() > Duration::from_secs(5) {
            say(format_args!("an operation took {:?}", start.elapsed()));
            std::process::exit(4);
        }
    }
}

#[test]
fn plays_a_role() {
    if let Some((_, location)) = role() {
        let scene = Scene::enter(&location);
        say("ready");
        write_for_ever(&scene);
    }
}

#[test]
fn no_kill_at_any_moment_costs_more_than_the_entry_that_was_written() {
    let kills = std::env::var("WARP_CACHE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(500);
    let (_folder, location) = place();
    let scene = Scene::enter(&location);
    let start = || {
        let mut writer = Actor::start(&mut command(module_path!(), "writer", &location));
        assert_eq!(writer.line(), "ready");
        writer
    };
    let mut writers: Vec<_> = (0..WRITERS).map(|_| start()).collect();
    let mut dice = Dice::new(2026);
    for _ in 0..kills {
        std::thread::sleep(Duration::from_micros(500 + dice.roll(2500)));
        let victim = usize::try_from(dice.roll(WRITERS as u64)).expect("small");
        // One that had ended by itself would have said why.
        writers[victim].kill();
        writers[victim] = start();
    }
    for writer in &mut writers {
        writer.kill();
    }
    let shard = scene.shard();
    let mut buffer = Vec::new();
    for key in 0..KEYS {
        let bytes = key.to_le_bytes();
        if let Some(found) = shard.read(hash_of(key), &bytes, &mut buffer) {
            assert!(is_value_of(key, &buffer[found.value_start..]), "key {key}");
        }
    }
    let draft = Draft { hash: hash_of(0), key: &0_u64.to_le_bytes(), value: &value_of(0, 1), expires: 0, now: 0 };
    assert_ne!(shard.keep(&draft, &scene.kernel, &Allocated, || true, BUDGET), Err(GaveUp));
    shard.validate();
    let steals = shard.events(Event::Steal);
    #[allow(clippy::print_stdout, reason = "what the run was worth, for who asks with --nocapture")]
    {
        println!(
            "{kills} kills: {steals} locks taken from the dead, {} repairs, {} give-ups, {} damaged",
            shard.events(Event::Repair),
            shard.events(Event::GiveUp),
            shard.events(Event::Damage),
        );
    }
    assert!(steals >= kills / 10, "{steals} kills have met a held lock: the test sees too little");
}
