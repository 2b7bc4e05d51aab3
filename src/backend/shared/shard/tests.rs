use super::*;
// Not the trait of that name.
use crate::backend::shared::tests::actors::Dice;
use crate::backend::shared::tests::words::die_before;
use crate::options::Strategy;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

/// Processes of a test: words, and which of them are dead.
struct Processes {
    me: u64,
    dead: RefCell<HashSet<u64>>,
}

impl Processes {
    fn alone() -> Self {
        Self { me: 7, dead: RefCell::default() }
    }
}

impl Census for Processes {
    fn me(&self) -> Owner {
        Owner::from_word(self.me)
    }

    fn is_alive(&self, owner: Owner) -> bool {
        !self.dead.borrow().contains(&owner.word())
    }
}

/// Room that is always there.
struct Memory;

impl Room for Memory {
    fn extend(&self, _: Range<usize>) -> bool {
        true
    }
}

struct OneShard {
    /// The control words, then all others.
    words: Vec<AtomicU64>,
    geometry: Geometry,
    strategy: Strategy,
    local: Mutex<()>,
    census: Processes,
}

impl OneShard {
    fn new(strategy: Strategy, slots: usize, most_bytes: usize) -> Self {
        let geometry = Geometry::new(slots, most_bytes).expect("small");
        Self {
            words: (0..Geometry::CONTROL + geometry.words()).map(|_| AtomicU64::new(0)).collect(),
            geometry,
            strategy,
            local: Mutex::new(()),
            census: Processes::alone(),
        }
    }

    fn shard(&self) -> Shard<'_> {
        let (control, words) = self.words.split_at(Geometry::CONTROL);
        let shard = Shard::new(control, words, self.geometry, self.strategy, None, Local::One(&self.local));
        shard.expect("as many words as it takes")
    }

    fn keep(&self, key: u64, value: &[u8]) -> Kept {
        let key_bytes = key.to_le_bytes();
        let draft = Draft { hash: spread(key), key: &key_bytes, value, expires: 0, now: 0 };
        self.shard().keep(&draft, &self.census, &Memory, || true, BUDGET).expect("nobody else is there")
    }

    fn get(&self, key: u64) -> Option<Vec<u8>> {
        let mut buffer = Vec::new();
        let shard = self.shard();
        let found = shard.read(spread(key), &key.to_le_bytes(), &mut buffer)?;
        shard.touch(&found);
        Some(buffer.split_off(found.value_start))
    }

    fn remove(&self, key: u64) -> bool {
        let removed = self.shard().remove(spread(key), &key.to_le_bytes(), &self.census, BUDGET);
        removed.expect("nobody else is there").is_some()
    }

    /// Every word, to compare.
    fn image(&self) -> Vec<u64> {
        self.words.iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }
}

fn spread(key: u64) -> u64 {
    // Few upper halves and few places, so that searches meet other keys.
    ((key % 3) << 32) | (key % 5) | (key << 40)
}

fn value_of(key: u64, version: u64) -> Vec<u8> {
    let length = usize::try_from((key * 131 + version * 17) % 900).expect("small");
    (0..length).map(|place| (place as u64 ^ key ^ version).to_le_bytes()[0]).collect()
}

#[test]
fn an_entry_of_any_size_comes_back() {
    let region = OneShard::new(Strategy::Lru, 8, 2000);
    for size in [0, 1, 7, 8, 183, 184, 185, 688, 689, 1991, 1992] {
        let value: Vec<u8> = (0_usize..size).map(|place| place.to_le_bytes()[0]).collect();
        region.keep(1, &value);
        assert_eq!(region.get(1), Some(value), "{size} bytes");
    }
    assert_eq!(region.keep(2, &[0; 1993]), Kept::TooLarge);
    assert_eq!((region.get(2), region.shard().len()), (None, 1));
}

#[test]
fn every_bit_that_is_flipped_in_an_entry_costs_that_entry_alone() {
    let region = OneShard::new(Strategy::Lru, 4, 600);
    for key in 0..4 {
        region.keep(key, &value_of(key, 1)[..]);
    }
    let image = region.image();
    let values: Vec<_> = (0..4).map(|key| region.get(key)).collect();
    for place in Geometry::CONTROL..region.words.len() {
        for bit in [0, 31, 63] {
            region.words[place].fetch_xor(1 << bit, Ordering::Relaxed);
            for key in 0..4 {
                let found = region.get(key);
                let expected = values[usize::try_from(key).expect("small")].clone();
                assert!(found.is_none() || found == expected, "word {place}, bit {bit}, key {key}");
            }
            for (word, &before) in region.words.iter().zip(&image) {
                word.store(before, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn a_lock_whose_owner_is_dead_is_taken_and_the_shard_rebuilt() {
    let region = OneShard::new(Strategy::Lru, 4, 600);
    for key in 0..4 {
        region.keep(key, &value_of(key, 1));
    }
    region.words[control::LOCK].store(99, Ordering::Relaxed);
    region.census.dead.borrow_mut().insert(99);
    region.keep(0, b"new");
    assert_eq!(region.get(0).as_deref(), Some(&b"new"[..]));
    assert_eq!((region.shard().events(Event::Steal), region.shard().events(Event::Repair)), (1, 1));
    assert_eq!(region.words[control::LOCK].load(Ordering::Relaxed), 0);
    for key in 1..4 {
        assert_eq!(region.get(key), Some(value_of(key, 1)));
    }
}

#[test]
fn a_lock_whose_owner_lives_is_waited_for_no_longer_than_the_budget() {
    let region = OneShard::new(Strategy::Lru, 4, 600);
    region.keep(1, b"one");
    region.words[control::LOCK].store(99, Ordering::Relaxed);
    let start = Instant::now();
    let draft = Draft { hash: 1, key: b"key", value: b"value", expires: 0, now: 0 };
    assert_eq!(region.shard().keep(&draft, &region.census, &Memory, || true, BUDGET), Err(GaveUp));
    assert!(start.elapsed() >= BUDGET);
    assert_eq!(region.shard().events(Event::GiveUp), 1);
    // Readers do not notice.
    assert_eq!(region.get(1).as_deref(), Some(&b"one"[..]));
    assert_eq!(region.words[control::LOCK].load(Ordering::Relaxed), 99);
}

/// An operation, and which keys may be lost if the process dies in it.
type Act = (&'static str, fn(&OneShard), fn(u64) -> bool);

const ACTS: [Act; 10] = [
    ("insert", |region| assert_eq!(region.keep(50, &value_of(50, 9)), Kept::Stored), |_| false),
    ("insert and evict", |region| _ = region.keep_in_full(50, &value_of(50, 9)), |key| key == 0),
    ("update to a large one", |region| _ = region.keep(1, &vec![1; 990]), |key| key == 1),
    ("update to a small one", |region| _ = region.keep(6, b"small"), |key| key == 6),
    ("update of one of the same size", |region| _ = region.keep(3, &value_of(3, 9)), |key| key == 3),
    ("remove", |region| assert!(region.remove(6)), |key| key == 6),
    ("expire", |region| _ = region.keep_at(50, &value_of(50, 9), 2000), |key| (20..24).contains(&key)),
    ("clear", |region| region.shard().clear(&region.census, BUDGET).expect("nobody else is there"), |_| true),
    ("first store of all", |region| _ = region.keep(50, b"first"), |_| true),
    (
        "repair",
        |region| {
            region.words[control::DIRTY].store(99, Ordering::Relaxed);
            region.remove(99);
        },
        |_| false,
    ),
];

impl OneShard {
    fn keep_at(&self, key: u64, value: &[u8], now: u64) -> Kept {
        let key_bytes = key.to_le_bytes();
        let draft = Draft { hash: spread(key), key: &key_bytes, value, expires: now + 1000, now };
        self.shard().keep(&draft, &self.census, &Memory, || true, BUDGET).expect("nobody else is there")
    }

    fn keep_in_full(&self, key: u64, value: &[u8]) -> Kept {
        while self.shard().len() < self.geometry.slots {
            self.keep(100 + self.shard().len() as u64, b"filler");
        }
        self.keep(key, value)
    }
}

/// What the acts find: entries with and without chunks, some of whose time will be over.
fn scene(act: &str) -> OneShard {
    let region = OneShard::new(Strategy::Lru, if act == "expire" { 12 } else { 24 }, 1000);
    if act != "first store of all" {
        (0..8).for_each(|key| _ = region.keep(key, &value_of(key, 1)));
        (20..24).for_each(|key| _ = region.keep_at(key, &value_of(key, 1), 1));
    }
    if act == "insert and evict" {
        // So that what is told to die evicts and does nothing else.
        (100..112).for_each(|key| _ = region.keep(key, b"filler"));
    }
    region
}

#[test]
fn whatever_store_a_process_dies_before_its_shard_is_repaired_and_one_entry_is_lost_at_most() {
    let mut deaths = 0;
    for (name, act, may_be_lost) in ACTS {
        for stores in 0.. {
            let region = scene(name);
            let before: Vec<u64> = (0..24).filter(|&key| region.get(key).is_some()).collect();
            if !die_before(stores, || act(&region)) {
                assert!(stores > 4, "{name}: {stores} stores");
                break;
            }
            deaths += 1;
            region.census.dead.borrow_mut().insert(region.census.me);
            let heir = OneShard { census: Processes { me: 8, ..region.census }, ..region };
            // Before it is repaired, a reader finds what is there, or nothing.
            let may_be = |key| [None, Some(value_of(key, 1)), Some(value_of(key, 9)), Some(vec![1; 990])];
            for key in (0..24).filter(|&key| key != 6) {
                assert!(may_be(key).contains(&heir.get(key)), "{name}, {stores} stores, key {key}");
            }
            assert!(!heir.remove(77));
            heir.shard().validate();
            for key in before {
                let found = heir.get(key);
                let is_whole = may_be(key).contains(&found) || found.as_deref() == Some(b"small");
                assert!(is_whole, "{name}, {stores} stores, key {key}");
                assert!(found.is_some() || may_be_lost(key), "{name}, {stores} stores: key {key} is lost");
            }
            // All goes on.
            assert_ne!(heir.keep(70, b"next"), Kept::NoRoom);
            assert_eq!(heir.get(70).as_deref(), Some(&b"next"[..]), "{name}, {stores} stores");
            heir.shard().validate();
        }
    }
    assert!(deaths > 500, "{deaths} deaths");
}

/// What the shard is to hold: by key the value, the tick of its last use (or of its storing) and how often it was used.
#[derive(Default)]
struct Model {
    entries: BTreeMap<u64, (Vec<u8>, u64, u64)>,
    tick: u64,
}

impl Model {
    fn keep(&mut self, strategy: Strategy, slots: usize, key: u64, value: Vec<u8>) {
        self.tick += 1;
        if !self.entries.contains_key(&key) && self.entries.len() == slots {
            let order = |entry: &(&u64, &(Vec<u8>, u64, u64))| match strategy {
                Strategy::Lfu => (entry.1.2, entry.1.1),
                _ => (0, entry.1.1),
            };
            let victim = if strategy == Strategy::Mru {
                self.entries.iter().max_by_key(order)
            } else {
                self.entries.iter().min_by_key(order)
            };
            let victim = *victim.expect("full").0;
            self.entries.remove(&victim);
        }
        self.entries.insert(key, (value, self.tick, 1));
    }

    fn get(&mut self, strategy: Strategy, key: u64) -> Option<Vec<u8>> {
        self.tick += 1;
        let (value, tick, uses) = self.entries.get_mut(&key)?;
        if strategy != Strategy::Fifo {
            (*tick, *uses) = (self.tick, *uses + 1);
        }
        Some(value.clone())
    }
}

#[test]
fn a_shard_of_any_size_holds_what_a_plain_model_holds_after_any_number_of_operations() {
    for strategy in [Strategy::Lru, Strategy::Mru, Strategy::Fifo, Strategy::Lfu] {
        for slots in [1, 2, 13, 128, 1024] {
            let region = OneShard::new(strategy, slots, 1000);
            let (mut model, mut dice) = (Model::default(), Dice::new(slots as u64));
            for version in 0..40_000 {
                // Half of them are looked up again and again.
                let spread = dice.pick(&[slots as u64, slots as u64 * 3]);
                let key = dice.roll(spread + 1);
                let found = region.get(key);
                assert_eq!(found, model.get(strategy, key), "{strategy:?}, {slots} slots, step {version}");
                if found.is_none() || dice.roll(20) == 0 {
                    let value = value_of(key, version % 50);
                    region.keep(key, &value);
                    model.keep(strategy, slots, key, value);
                }
            }
            region.shard().validate();
            let kept: Vec<u64> = (0..=slots as u64 * 3).filter(|&key| region.get(key).is_some()).collect();
            assert_eq!(kept, model.entries.keys().copied().collect::<Vec<_>>());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// One process finds in a shard exactly what the strategy says, after every operation.
    #[test]
    fn a_shard_holds_what_a_plain_model_holds(
        strategy in prop::sample::select(vec![Strategy::Lru, Strategy::Mru, Strategy::Fifo, Strategy::Lfu]),
        slots in 1_usize..12,
        acts in prop::collection::vec((0_u8..10, 0_u64..20), 1..150),
    ) {
        let region = OneShard::new(strategy, slots, 1000);
        let mut model = Model::default();
        for (version, (act, key)) in acts.into_iter().enumerate() {
            match act {
                0..4 => {
                    let value = value_of(key, version as u64);
                    region.keep(key, &value);
                    model.keep(strategy, slots, key, value);
                }
                4..8 => prop_assert_eq!(region.get(key), model.get(strategy, key)),
                8 => prop_assert_eq!(region.remove(key), model.entries.remove(&key).is_some()),
                _ if key == 0 => {
                    region.shard().clear(&region.census, BUDGET).expect("nobody else is there");
                    model.entries.clear();
                }
                _ => {}
            }
            region.shard().validate();
            prop_assert_eq!(region.shard().len(), model.entries.len());
        }
        let mut kept: Vec<_> = (0..20).filter(|&key| region.get(key).is_some()).collect();
        kept.sort_unstable();
        prop_assert_eq!(kept, model.entries.keys().copied().collect::<Vec<_>>());
        prop_assert_eq!(region.shard().events(Event::Damage), 0);
    }

    /// Any words whatever: nothing panics, nothing is found that was not stored, and the next writer makes order.
    #[test]
    fn arbitrary_words_are_no_danger(seed in prop::collection::vec(any::<u64>(), 64), slots in 1_usize..6) {
        let region = OneShard::new(Strategy::Lru, slots, 700);
        for (place, word) in region.words.iter().enumerate().skip(1) {
            word.store(seed[place % seed.len()].rotate_left(u32::try_from(place).expect("small")), Ordering::Relaxed);
        }
        for key in 0..20 {
            prop_assert_eq!(region.get(key), None);
        }
        region.keep(3, b"three");
        region.shard().validate();
        let found = region.get(3);
        prop_assert_eq!(found.as_deref(), Some(&b"three"[..]));
    }
}
