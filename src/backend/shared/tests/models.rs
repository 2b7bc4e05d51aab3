//! Models of a shard: few processes and tiny shards, run by loom in every order of their steps, and with every value that a
//! load may return, for processors that order as little as Rust's memory model allows. The code is that of [`Shard`], with
//! three differences: the checksum is always right, so that the sequence numbers alone must do, a reader tries once, and the
//! clock is a model's.
//!
//! Each model is run as the code is, and again with one ordering weakened at a time, which it must find. `make loom` runs
//! them all, and shows what each has found.
//!
//! A kill stops a process between two stores. Whoever asks the census then sees what the dead one did before, as who finds
//! a kernel's lock free does.

use super::super::atomic::Ordering;
use super::super::shard::geometry::Geometry;
use super::super::shard::{Census, Draft, Event, GaveUp, Kept, Local, Room, Shard};
use super::super::system::liveness::Owner;
use super::weakened::{Mutant, Role, STEP, is_mutant, mutate};
use super::words::{AtomicU64, Fate, is_stopped, meet};
use crate::options::Strategy;
use loom::sync::Arc;
use loom::sync::atomic as real;
use loom::thread;
use std::cell::Cell;
use std::io::Write as _;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

/// All keys collide.
const HASH: u64 = 3 << 32 | 1;
const ONE: u64 = 1;
const TWO: u64 = 2;
const THREE: u64 = 3;
/// A store in the middle of an update, among those of the value.
const MIDDLE: usize = 10;
/// How many stores an update makes between taking the lock and giving it back.
const STORES: usize = 16;
/// How often loom takes a thread off in one run, at most, where it need not.
const PREEMPTIONS: usize = 2;
/// The name of threads whose model is to fail.
const WEAKENED: &str = "weakened";
/// How long a process waits for the lock: it looks at it so many times.
const LOOKS: u32 = 3;

/// What all processes share.
struct World {
    control: Vec<AtomicU64>,
    words: Vec<AtomicU64>,
    geometry: Geometry,
    strategy: Strategy,
    /// The process that the census knows to be dead.
    dead: real::AtomicU64,
}

impl Room for World {
    fn extend(&self, _: Range<usize>) -> bool {
        true
    }
}

/// A process: the number of its own.
struct Process<'a>(&'a World, u64);

impl Census for Process<'_> {
    fn me(&self) -> Owner {
        Owner::from_word(self.1)
    }

    fn is_alive(&self, owner: Owner) -> bool {
        let ordering = if is_mutant(Mutant::Census) { Ordering::Relaxed } else { Ordering::Acquire };
        self.0.dead.load(ordering) != owner.word()
    }
}

/// A value of two words, which say the same, with a time that says it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Read {
    expires: u64,
    words: [u64; 2],
}

#[allow(clippy::unnecessary_wraps, reason = "as it is found")]
fn whole(version: u64) -> Option<Read> {
    Some(Read { expires: version, words: [version; 2] })
}

impl World {
    fn new(strategy: Strategy, slots: usize) -> Arc<Self> {
        let geometry = Geometry::new(slots, Geometry::INLINE).expect("small");
        let role = |word: usize| match word.checked_sub(geometry.slots_start()) {
            None if word < geometry.index_places() => Role::Index,
            Some(word) if word % Geometry::SLOT == 0 => Role::Seq,
            _ => Role::Plain,
        };
        let control = (0..Geometry::CONTROL).map(|word| match word {
            0 => Role::Lock,
            1 => Role::Dirty,
            _ => Role::Plain,
        });
        let world = Self {
            control: control.map(AtomicU64::new).collect(),
            words: (0..geometry.words()).map(|word| AtomicU64::new(role(word))).collect(),
            geometry,
            strategy,
            dead: real::AtomicU64::new(0),
        };
        let local = Mutex::new(());
        world.shard(&local).begin();
        Arc::new(world)
    }

    fn shard<'a>(&'a self, local: &'a Mutex<()>) -> Shard<'a> {
        let shard = Shard::new(&self.control, &self.words, self.geometry, self.strategy, None, Local::One(local));
        shard.expect("as many words as it takes")
    }

    /// Stores a version of a key as a process with this number. `inside` runs under the lock.
    fn keep_inside(&self, me: u64, key: u64, version: u64, inside: impl Fn()) -> Result<Kept, GaveUp> {
        let key = key.to_le_bytes();
        let value = [version.to_le_bytes(); 2].concat();
        let draft = Draft { hash: HASH, key: &key, value: &value, expires: version, now: 0 };
        let local = Mutex::new(());
        let inside = || {
            inside();
            true
        };
        let kept = self.shard(&local).keep(&draft, &Process(self, me), self, inside, STEP * LOOKS);
        if is_stopped() {
            self.dead.store(me, Ordering::Release);
        }
        kept
    }

    fn keep(&self, me: u64, key: u64, version: u64) -> Result<Kept, GaveUp> {
        self.keep_inside(me, key, version, || ())
    }

    fn remove(&self, me: u64, key: u64) {
        let local = Mutex::new(());
        let shard = self.shard(&local);
        let _ = shard.remove(HASH, &key.to_le_bytes(), &Process(self, me), STEP * LOOKS);
    }

    fn get(&self, key: u64) -> Option<Read> {
        let (local, mut buffer) = (Mutex::new(()), Vec::new());
        let shard = self.shard(&local);
        let found = shard.read(HASH, &key.to_le_bytes(), &mut buffer)?;
        shard.touch(&found);
        let (words, rest) = buffer[found.value_start..].as_chunks();
        assert!(rest.is_empty() && words.len() == 2, "{} bytes", buffer.len());
        Some(Read { expires: found.expires, words: [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])] })
    }

    /// Whether there is a word in the index that says where the entry is. Nothing that was done before is known to be seen.
    fn is_published(&self) -> bool {
        self.words[1].load(Ordering::Relaxed) != 0
    }

    fn events(&self, event: Event) -> u64 {
        self.shard(&Mutex::new(())).events(event)
    }

    /// When all is over: what is derived agrees with the slots, and nothing was ever found to be wrong.
    fn validate(&self) {
        let local = Mutex::new(());
        self.shard(&local).validate();
        assert_eq!(self.control[0].load(Ordering::Relaxed), 0, "the lock is free");
        assert_eq!(self.events(Event::Damage), 0, "damage");
    }
}

fn start<R: 'static>(world: &Arc<World>, act: impl FnOnce(&World) -> R + 'static) -> thread::JoinHandle<R> {
    let world = Arc::clone(world);
    thread::spawn(move || act(&world))
}

/// Two writers are never under the lock at the same time, and each sees all that the other has done.
fn lock() {
    let world = World::new(Strategy::Lru, 2);
    let inside = Arc::new(real::AtomicBool::new(false));
    let enter = |inside: &real::AtomicBool| {
        assert!(!inside.swap(true, Ordering::Relaxed), "somebody else is under the lock");
        inside.store(false, Ordering::Relaxed);
    };
    let other = Arc::clone(&inside);
    let writer = start(&world, move |world| world.keep_inside(1, ONE, 1, || enter(&other)));
    let kept = world.keep_inside(2, TWO, 2, || enter(&inside));
    for (key, version, kept) in [(ONE, 1, writer.join().expect("no panic")), (TWO, 2, kept)] {
        assert_eq!(world.get(key), kept.map_or(None, |_| whole(version)));
    }
    assert_eq!((world.events(Event::Steal), world.events(Event::Repair)), (0, 0));
    world.validate();
}

/// A process stops before one of the stores of an update, while another waits for the lock. That one, or the next, finds all
/// that was done until then, and repairs once what was not done to its end.
fn stop(fate: Fate) {
    let world = World::new(Strategy::Lru, 2);
    world.keep(1, ONE, 1).expect("nobody else is there");
    let writer = start(&world, move |world| {
        meet(fate);
        let _ = world.keep(2, ONE, 2);
        is_stopped()
    });
    let seen = Cell::new(None);
    let kept = world.keep_inside(3, TWO, 3, || seen.set(world.get(ONE)));
    let is_stopped = writer.join().expect("no panic");
    let now = world.get(ONE);
    assert!([None, whole(1), whole(2)].contains(&now), "{now:?}");
    if world.events(Event::Repair) == 1 {
        assert_eq!((kept, seen.get()), (Ok(Kept::Stored), now));
    }
    assert_eq!(world.keep(4, TWO, 4), Ok(Kept::Stored));
    let (steals, repairs) = match fate {
        Fate::Dies(_) => (1, 1),
        // The mark is made by the first store and taken away by the last.
        Fate::Panics(before) => (0, u64::from((1..STORES).contains(&before))),
        Fate::Lives => (0, 0),
    };
    let expected = if is_stopped { (steals, repairs) } else { (0, 0) };
    assert_eq!((world.events(Event::Steal), world.events(Event::Repair)), expected);
    assert_eq!(world.get(TWO), whole(4));
    world.validate();
}

/// Of two who find the lock of a dead process, one takes it and repairs the shard.
fn thieves() {
    let world = World::new(Strategy::Lru, 3);
    world.keep(1, ONE, 1).expect("nobody else is there");
    stopped(&world, Fate::Dies(MIDDLE));
    let thief = start(&world, |world| world.keep(3, TWO, 3));
    let kept = world.keep(4, THREE, 4);
    for (key, version, kept) in [(TWO, 3, thief.join().expect("no panic")), (THREE, 4, kept)] {
        assert_eq!(world.get(key), kept.map_or(None, |_| whole(version)));
    }
    assert_eq!(world.get(ONE), None);
    assert_eq!((world.events(Event::Steal), world.events(Event::Repair)), (1, 1));
    world.validate();
}

/// Runs a process to its end in the middle of an entry, which it updates.
fn stopped(world: &Arc<World>, fate: Fate) {
    let writer = start(world, move |world| {
        meet(fate);
        let _ = world.keep(2, ONE, 2);
        assert!(is_stopped());
    });
    writer.join().expect("no panic");
}

/// Whoever reads an entry that is updated finds one value or the other, or nothing.
fn update() {
    let world = World::new(Strategy::Lru, 1);
    world.keep(1, ONE, 1).expect("nobody else is there");
    let writer = start(&world, |world| world.keep(2, ONE, 2));
    let found = world.get(ONE);
    assert!([None, whole(1), whole(2)].contains(&found), "{found:?}");
    assert_eq!(writer.join().expect("no panic"), Ok(Kept::Stored));
    assert_eq!(world.get(ONE), whole(2));
    world.validate();
}

/// Whoever reads an entry that is removed finds its value or nothing.
fn remove() {
    let world = World::new(Strategy::Lru, 1);
    world.keep(1, ONE, 1).expect("nobody else is there");
    let writer = start(&world, |world| world.remove(2, ONE));
    let found = world.get(ONE);
    assert!([None, whole(1)].contains(&found), "{found:?}");
    writer.join().expect("no panic");
    assert_eq!(world.get(ONE), None);
    world.validate();
}

/// Whoever reads an entry that a dead process has left half written, and another writes anew, finds what that one writes,
/// or nothing.
fn repair() {
    let world = World::new(Strategy::Lru, 1);
    world.keep(1, ONE, 1).expect("nobody else is there");
    stopped(&world, Fate::Dies(MIDDLE));
    let thief = start(&world, |world| world.keep(3, ONE, 3));
    let found = world.get(ONE);
    assert!([None, whole(3)].contains(&found), "{found:?}");
    assert_eq!(thief.join().expect("no panic"), Ok(Kept::Stored));
    assert_eq!(world.get(ONE), whole(3));
    world.validate();
}

/// Whoever finds a slot in the index finds the entry that was written there, and all of it.
fn publish() {
    let world = World::new(Strategy::Lru, 1);
    let writer = start(&world, |world| world.keep(1, ONE, 1));
    let is_published = world.is_published();
    let found = world.get(ONE);
    assert!(found == whole(1) || (found.is_none() && !is_published), "{found:?}");
    assert_eq!(writer.join().expect("no panic"), Ok(Kept::Stored));
    assert_eq!(world.get(ONE), whole(1));
    world.validate();
}

/// Whoever reads an entry whose slot gets another key's finds its own value, or nothing. So does who reads the other key.
fn reuse(key: u64) {
    let world = World::new(Strategy::Lru, 1);
    world.keep(1, ONE, ONE).expect("nobody else is there");
    let writer = start(&world, |world| world.keep(2, TWO, TWO));
    let found = world.get(key);
    assert!([None, whole(key)].contains(&found), "{found:?}");
    assert_eq!(writer.join().expect("no panic"), Ok(Kept::Evicted(1)));
    assert_eq!((world.get(ONE), world.get(TWO)), (None, whole(TWO)));
    world.validate();
}

/// A model, run for each case, and what it must find.
struct Model {
    name: &'static str,
    run: fn(usize),
    cases: usize,
    finds: &'static [Mutant],
}

const MODELS: [Model; 10] = [
    Model { name: "lock", run: |_| lock(), cases: 1, finds: &[Mutant::Take, Mutant::Give, Mutant::Steps] },
    Model { name: "thieves", run: |_| thieves(), cases: 1, finds: &[Mutant::Take, Mutant::Give, Mutant::Steps] },
    Model { name: "death", run: |before| stop(Fate::Dies(before)), cases: STORES + 1, finds: &[Mutant::Census] },
    Model { name: "panic", run: |before| stop(Fate::Panics(before)), cases: STORES + 1, finds: &[Mutant::Give] },
    Model { name: "update", run: |_| update(), cases: 1, finds: SEQUENCE },
    Model { name: "remove", run: |_| remove(), cases: 1, finds: SEQUENCE },
    Model { name: "repair", run: |_| repair(), cases: 1, finds: SEQUENCE },
    Model {
        name: "publish",
        run: |_| publish(),
        cases: 1,
        finds: &[Mutant::Load(Role::Index), Mutant::Store(Role::Index)],
    },
    Model { name: "reuse, old key", run: |_| reuse(ONE), cases: 1, finds: SEQUENCE },
    Model { name: "reuse, new key", run: |_| reuse(TWO), cases: 1, finds: SEQUENCE },
];

/// All that the sequence numbers rest on.
const SEQUENCE: &[Mutant] =
    &[Mutant::ReleaseFence(Role::Seq), Mutant::AcquireFence, Mutant::Load(Role::Seq), Mutant::Store(Role::Seq)];

/// How often a model was run, to the end of all orders or to the first that fails, and whether one has failed.
fn explore(model: &Model, mutant: Option<Mutant>) -> (usize, bool) {
    let runs = std::sync::Arc::new(AtomicUsize::new(0));
    let explore = |case: usize| {
        let (counted, run) = (std::sync::Arc::clone(&runs), model.run);
        let explorer = std::thread::Builder::new().name(if mutant.is_some() { WEAKENED } else { model.name }.into());
        let explorer = explorer.spawn(move || {
            mutate(mutant);
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = Some(PREEMPTIONS);
            builder.max_branches = 10_000;
            builder.check(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                run(case);
            });
        });
        explorer.expect("a thread").join().is_err()
    };
    // One in the middle is enough to find a mutant.
    let middle = model.cases / 2;
    let has_failed = if mutant.is_some() { explore(middle) } else { (0..model.cases).any(explore) };
    (runs.load(Ordering::Relaxed), has_failed)
}

#[test]
fn every_model_holds_and_finds_each_ordering_that_is_weakened() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // That these fail is no news.
        if std::thread::current().name() != Some(WEAKENED) {
            print(info);
        }
    }));
    let mut wrong = Vec::new();
    let mut table = std::io::stderr();
    writeln!(table, "\n{:15}{:25}{:>9}{:>9}  outcome", "model", "weakened", "runs", "ms").expect("a place to write to");
    for model in &MODELS {
        for mutant in [None].into_iter().chain(model.finds.iter().copied().map(Some)) {
            let start = std::time::Instant::now();
            let (runs, has_failed) = explore(model, mutant);
            let weakened = mutant.map_or("nothing".into(), |mutant| format!("{mutant:?}"));
            let outcome = match (has_failed, mutant) {
                (true, Some(_)) => "found",
                (false, None) => "holds",
                (true, None) => "FAILS",
                (false, Some(_)) => "NOT FOUND",
            };
            let line = format!("{:15}{weakened:25}{runs:>9}{:>9}  {outcome}", model.name, start.elapsed().as_millis());
            writeln!(table, "{line}").expect("a place to write to");
            if has_failed != mutant.is_some() {
                wrong.push(line);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
