use super::*;
use std::cell::Cell;

/// A key that only "foreign" equality can compare, with something to do each time it is asked.
struct Doubtful<'a> {
    number: u32,
    asked: Cell<usize>,
    meanwhile: &'a dyn Fn(),
}

impl Query<u32> for Doubtful<'_> {
    type Error = &'static str;

    fn hash(&self) -> u64 {
        1
    }

    fn compare(&self, _: Token<'_>, _: &u32) -> Match {
        Match::Unsure
    }

    fn hold(&self, _: Token<'_>, stored: &u32) -> u32 {
        *stored
    }

    fn is_same(&self, one: &u32, other: &u32) -> bool {
        one == other
    }

    fn ask(&self, _: Token<'_>, stored: &u32) -> Result<bool, Self::Error> {
        self.asked.set(self.asked.get() + 1);
        (self.meanwhile)();
        if self.number == u32::MAX { Err("raised") } else { Ok(*stored == self.number) }
    }
}

fn query(number: u32, meanwhile: &dyn Fn()) -> Doubtful<'_> {
    Doubtful { number, asked: Cell::new(0), meanwhile }
}

fn memory(max_size: Option<usize>, entries: u32) -> Memory<u32, u32> {
    let memory = Memory::new(&Options { max_size, ..Options::default() }, None);
    for number in 0..entries {
        keep(&memory, &query(number, &|| ()), number * 10);
    }
    memory
}

fn keep(memory: &Memory<u32, u32>, query: &Doubtful<'_>, value: u32) {
    let mut entry = Some(Entry { key: query.number, value });
    assert!(!memory.keep(Token::default(), query.hash(), u64::MAX, &mut entry, None, || true), "no such generation");
    let late = entry.expect("it stays");
    let _ = memory.keep_late(Token::default(), query, late, None, || true).expect("no key raises here");
}

fn get(memory: &Memory<u32, u32>, query: &Doubtful<'_>) -> Result<Option<u32>, &'static str> {
    Ok(match memory.get(Token::default(), query, Tally::All, |value| *value)? {
        Lookup::Hit(value) => Some(value),
        Lookup::Stale(_) | Lookup::Miss { .. } => None,
    })
}

#[test]
fn every_doubtful_key_is_asked_once() {
    let memory = memory(None, 10);
    for number in 0..10 {
        let query = query(number, &|| ());
        assert_eq!(get(&memory, &query), Ok(Some(number * 10)));
        assert!(query.asked.get() <= 10);
    }
    let absent = query(99, &|| ());
    assert_eq!((get(&memory, &absent), absent.asked.get()), (Ok(None), 10));
}

#[test]
fn an_equality_that_raises_leaves_the_cache_as_it_was() {
    let memory = memory(None, 3);
    assert_eq!(get(&memory, &query(u32::MAX, &|| ())), Err("raised"));
    let (stats, size) = memory.info(Token::default());
    assert_eq!((stats, size), (Stats::default(), 3));
}

#[test]
fn an_equality_that_clears_the_cache_ends_in_a_miss() {
    let memory = memory(None, 3);
    let clear = || drop(memory.clear(Token::default()));
    assert_eq!(get(&memory, &query(2, &clear)), Ok(None));
    assert_eq!(memory.info(Token::default()).1, 0);
}

#[test]
fn a_confirmed_entry_whose_slot_was_reused_is_not_returned() {
    let memory = memory(Some(1), 1);
    let evict = || {
        keep(&memory, &query(7, &|| ()), 70);
    };
    // Asked about 0, which is equal; but by then 7 has evicted it from the only slot.
    assert_eq!(get(&memory, &query(0, &evict)), Ok(None));
    assert_eq!(get(&memory, &query(7, &|| ())), Ok(Some(70)));
}

#[test]
fn an_equality_that_changes_the_cache_for_ever_ends_in_a_miss_that_is_not_stored() {
    let memory = memory(Some(1), 1);
    let next = Cell::new(100);
    let churn = || {
        next.set(next.get() + 1);
        keep(&memory, &query(next.get(), &|| ()), 0);
    };
    let hostile = query(5, &churn);
    assert_eq!(get(&memory, &hostile), Ok(None));
    keep(&memory, &hostile, 50);
    assert!(hostile.asked.get() <= 4 * MOST_RESTARTS);
    assert_eq!(get(&memory, &query(5, &|| ())), Ok(None));
    assert_eq!(memory.info(Token::default()).1, 1);
}

#[test]
fn a_late_duplicate_keeps_the_first_value_when_bounded_and_the_last_when_not() {
    for (max_size, kept) in [(Some(4), 0), (None, 99)] {
        let memory = memory(max_size, 1);
        keep(&memory, &query(0, &|| ()), 99);
        assert_eq!(get(&memory, &query(0, &|| ())), Ok(Some(kept)));
    }
}

#[test]
fn taking_and_looking_count_nothing() {
    let memory = memory(None, 2);
    assert_eq!(memory.contains(Token::default(), &query(1, &|| ())), Ok(true));
    assert_eq!(memory.take(Token::default(), &query(1, &|| ())).map(|entry| entry.is_some()), Ok(true));
    assert_eq!(memory.take(Token::default(), &query(1, &|| ())).map(|entry| entry.is_some()), Ok(false));
    assert_eq!(memory.contains(Token::default(), &query(1, &|| ())), Ok(false));
    assert_eq!(memory.info(Token::default()), (Stats::default(), 1));
}
