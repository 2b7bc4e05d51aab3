//! The entries of one function in the heap of this process: a store and its counters behind one exclusive section.
//!
//! Equality of keys may be foreign code: it can take any time, raise, switch threads, or call this very cache. So a
//! search never runs it. Where a stored key cannot be compared without it, the search leaves the section with that key
//! held, asks outside, enters again, and goes on only from facts that still hold.

use crate::clock::Clock;
use crate::options::{Options, Ttl};
use crate::policy::{AnyPolicy, Policy, Slot};
use crate::stats::Stats;
pub use crate::store::Lookup;
use crate::store::{Cleared, Entry, Store};
use crate::sync::{Exclusive, Token};

/// The likeness of two keys, as far as it shows without running foreign code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// They are equal.
    Equal,
    /// They are not.
    Different,
    /// Only their own `__eq__` can tell.
    Unsure,
}

/// A key that is looked for.
pub trait Query<K> {
    /// The error that foreign equality raises.
    type Error;

    /// The hash of the key.
    fn hash(&self) -> u64;
    /// Compares without running foreign code. Called inside the section.
    fn compare(&self, token: Token<'_>, stored: &K) -> Match;
    /// Another handle on a stored key. Called inside the section.
    fn hold(&self, token: Token<'_>, stored: &K) -> K;
    /// Whether two handles are of one stored key. Called inside the section.
    fn is_same(&self, one: &K, other: &K) -> bool;
    /// Compares by foreign code. Called outside the section.
    fn ask(&self, token: Token<'_>, stored: &K) -> Result<bool, Self::Error>;
}

/// The end of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// The key is in this slot.
    Found(Slot),
    /// The key is not in the store.
    Absent,
    /// Foreign equality changed the store each time it was asked. Nobody knows.
    Unsettled,
}

/// The number of times that a search starts again because the store changed while foreign equality ran.
const MOST_RESTARTS: usize = 32;

/// The kinds of answers that a look-up counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// A hit or a miss.
    All,
    /// A hit. That a miss is one shows later, and is counted then.
    Hits,
    /// A hit, of a call that has looked before. The policy has learned of the call already.
    Again,
}

/// An entry that may be the one, which only its key's own `__eq__` can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt<K> {
    slot: Slot,
    key: K,
}

#[derive(Debug)]
struct State<K, V, P> {
    store: Store<K, V, P>,
    stats: Stats,
}

/// The value found, and the entry left for the caller to drop.
pub type FoundOrLeft<R, K, V> = (Option<R>, Option<Entry<K, V>>);

/// The entries that have left the store, for the caller to drop.
pub type Left<K, V> = (Option<Entry<K, V>>, Option<Entry<K, V>>);

impl<K, V, P: Policy> State<K, V, P> {
    #[inline(never)]
    fn insert(&mut self, hash: u64, Entry { key, value }: Entry<K, V>, ttl: Option<Ttl>) -> Option<Entry<K, V>> {
        self.store.insert(hash, key, value, ttl)
    }

    /// A hit on the entry in `slot`, which has this hash, or nothing if it is not fresh.
    #[inline(always)]
    fn hit<R>(&mut self, hash: u64, slot: Slot, tally: Tally, read: impl Fn(&V) -> R) -> Option<Lookup<R>> {
        let value = self.store.hit(slot)?;
        self.stats.hits += 1;
        let hit = Lookup::Hit(read(value));
        self.record(hash, tally);
        Some(hit)
    }

    /// The same for an entry that is not fresh; nothing if its time is over.
    fn hit_late<R>(&mut self, hash: u64, slot: Slot, tally: Tally, read: impl Fn(&V) -> R) -> Option<Lookup<R>> {
        let value = self.store.hit_late(slot)?;
        self.stats.hits += 1;
        let hit = Lookup::Stale(read(value));
        self.record(hash, tally);
        Some(hit)
    }

    /// Whether the entry of a doubt is still in its slot. With the key itself in it, all is well, whatever else has changed.
    fn holds<Q: Query<K>>(&self, query: &Q, doubt: &Doubt<K>) -> bool {
        self.store.key(doubt.slot).is_some_and(|stored| query.is_same(stored, &doubt.key))
    }

    #[inline(always)]
    fn miss<R>(&mut self, hash: u64, tally: Tally) -> Lookup<R> {
        if tally == Tally::All {
            self.stats.misses += 1;
        }
        self.record(hash, tally);
        Lookup::Miss { generation: self.store.generation() }
    }

    #[inline(always)]
    fn record(&mut self, hash: u64, tally: Tally) {
        if tally != Tally::Again {
            self.store.record(hash);
        }
    }
}

/// The memory backend of one function.
#[derive(Debug)]
pub struct Memory<K, V, P = AnyPolicy> {
    state: Exclusive<State<K, V, P>>,
    is_bounded: bool,
}

impl<K, V> Memory<K, V> {
    /// An empty cache.
    pub fn new(options: &Options, clock: Option<Clock>) -> Self {
        Self::with(Store::new(options, clock), options.max_size.is_some())
    }
}

impl<K, V, P: Policy> Memory<K, V, P> {
    /// A cache of these entries, which have a bound or none.
    pub fn with(store: Store<K, V, P>, is_bounded: bool) -> Self {
        Self { state: Exclusive::new(State { store, stats: Stats::default() }), is_bounded }
    }

    /// Looks the key up, counts the answer as `tally` says, and on a hit returns `read` of the value. Asks foreign equality where
    /// nothing else can tell, and raises what it raises. A stale entry answers, and one whose time is over goes.
    #[inline(always)]
    pub fn get<Q: Query<K>, R>(
        &self,
        token: Token<'_>,
        query: &Q,
        tally: Tally,
        read: impl Fn(&V) -> R + Copy,
    ) -> Result<Lookup<R>, Q::Error> {
        let mut doubt = None;
        match self.look_up(token, query, tally, &mut doubt, read) {
            Some(lookup) => Ok(lookup),
            None => self.look_up_asking(token, query, tally, doubt, read),
        }
    }

    /// The part of [`Memory::get`] that runs no foreign code:
    /// where it cannot tell without, or finds an entry that is not fresh, it counts nothing and returns nothing, and
    /// [`Memory::look_up_asking`] will, which takes `doubt`.
    #[inline(always)]
    fn look_up<Q: Query<K>, R>(
        &self,
        token: Token<'_>,
        query: &Q,
        tally: Tally,
        doubt: &mut Option<Doubt<K>>,
        read: impl Fn(&V) -> R,
    ) -> Option<Lookup<R>> {
        // Not a closure: this must be inlined wherever it is called from.
        let state = &mut *self.state.lend(token);
        let hash = query.hash();
        let (first, stored) = state.store.first(hash);
        match stored.map(|stored| (stored, query.compare(token, stored))) {
            Some((_, Match::Equal)) => return state.hit(hash, first, tally, &read),
            Some((stored, Match::Unsure)) => {
                *doubt = Some(Doubt { slot: first, key: query.hold(token, stored) });
                return None;
            }
            Some((_, Match::Different)) | None => {}
        }
        let mut unsure = false;
        let found = state.store.find_after(first, hash, |stored| {
            let answer = query.compare(token, stored);
            unsure |= answer == Match::Unsure;
            answer != Match::Different
        });
        match found {
            Some(slot) if unsure => {
                *doubt = state.store.key(slot).map(|stored| Doubt { slot, key: query.hold(token, stored) });
                None
            }
            Some(slot) => state.hit(hash, slot, tally, &read),
            None => Some(state.miss(hash, tally)),
        }
    }

    /// The rest: foreign equality is asked, of `doubt` first.
    #[inline(never)]
    fn look_up_asking<Q: Query<K>, R>(
        &self,
        token: Token<'_>,
        query: &Q,
        tally: Tally,
        doubt: Option<Doubt<K>>,
        read: impl Fn(&V) -> R,
    ) -> Result<Lookup<R>, Q::Error> {
        let hash = query.hash();
        let mut unequal = None;
        if let Some(doubt) = doubt {
            if query.ask(token, &doubt.key)? {
                let hit = self.state.with(token, |state| {
                    if state.holds(query, &doubt) { state.hit(hash, doubt.slot, tally, &read) } else { None }
                });
                if let Some(hit) = hit {
                    return Ok(hit);
                }
            } else {
                unequal = Some(doubt.key);
            }
        }
        self.search(token, query, tally, unequal.as_ref(), read)
    }

    /// The same for a key that is none of which foreign equality has said so.
    #[cold]
    #[inline(never)]
    fn search<Q: Query<K>, R>(
        &self,
        token: Token<'_>,
        query: &Q,
        tally: Tally,
        unequal: Option<&K>,
        read: impl Fn(&V) -> R,
    ) -> Result<Lookup<R>, Q::Error> {
        let hash = query.hash();
        let (lookup, expired) = self.locate_beside(token, query, unequal, |state, search| {
            let mut expired = None;
            if let Search::Found(slot) = search {
                let hit = state.hit(hash, slot, tally, &read);
                if let Some(hit) = hit.or_else(|| state.hit_late(hash, slot, tally, &read)) {
                    return (hit, None);
                }
                expired = Some(state.store.remove(slot));
            }
            (state.miss(hash, tally), expired)
        })?;
        drop(expired);
        Ok(lookup)
    }

    /// Counts a call that was answered by the value that another one computed.
    pub fn count_hit(&self, token: Token<'_>) {
        self.state.with(token, |state| state.stats.hits += 1);
    }

    /// Counts a miss that no lookup has counted.
    pub fn count_miss(&self, token: Token<'_>) {
        self.state.with(token, |state| state.stats.misses += 1);
    }

    /// Stores `entry`, which was computed after a miss at `generation`. What had to leave is there afterwards. False if the store
    /// has changed since: then the entry stays where it is, for [`Memory::keep_late`]. Runs no foreign code.
    ///
    /// `ttl` is the entry's own time to live, in a store of one each. `is_wanted` is asked when nobody else can change the
    /// store: where it says no, the newcomer itself leaves.
    #[inline(always)]
    pub fn keep(
        &self,
        token: Token<'_>,
        hash: u64,
        generation: u64,
        entry: &mut Option<Entry<K, V>>,
        ttl: Option<Ttl>,
        is_wanted: impl Fn() -> bool,
    ) -> bool {
        let state = &mut *self.state.lend(token);
        if !is_wanted() {
            return true;
        }
        if state.store.generation() != generation {
            return false;
        }
        state.store.exchange(hash, entry, ttl);
        true
    }

    /// The same when the store has changed since the miss, or when the look-up answered with a stale value. An entry that is
    /// not fresh makes way for the newcomer. If the key has been stored meanwhile, a bounded cache keeps the first value and
    /// an unbounded one the last, as `functools.lru_cache` does.
    #[cold]
    #[inline(never)]
    pub fn keep_late<Q: Query<K>>(
        &self,
        token: Token<'_>,
        query: &Q,
        newcomer: Entry<K, V>,
        ttl: Option<Ttl>,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Left<K, V>, Q::Error> {
        let hash = query.hash();
        let mut newcomer = Some(newcomer);
        let mut replaced = None;
        let evicted = self.locate(token, query, |state, search| match search {
            _ if !is_wanted() => None,
            Search::Absent => newcomer.take().and_then(|entry| state.insert(hash, entry, ttl)),
            Search::Found(slot) if !state.store.is_fresh(slot) => {
                replaced = Some(state.store.remove(slot));
                newcomer.take().and_then(|entry| state.insert(hash, entry, ttl))
            }
            Search::Found(slot) if !self.is_bounded => {
                replaced = newcomer.take().map(|Entry { key, value }| {
                    let value = state.store.replace(slot, value, ttl);
                    Entry { key, value }
                });
                None
            }
            Search::Found(_) | Search::Unsettled => None,
        })?;
        Ok((evicted.or(newcomer), replaced))
    }

    /// Stores an entry without looking whether its key is there already. Runs no foreign code.
    pub fn add(&self, token: Token<'_>, hash: u64, key: K, value: V) -> Option<Entry<K, V>> {
        self.state.with(token, |state| state.store.insert(hash, key, value, None))
    }

    /// Finds the key and returns `read` of its value, or stores the newcomer, in one section. Returns the entry that is left, for
    /// the caller to drop. Counts nothing.
    pub fn find_or_add<Q: Query<K>, R>(
        &self,
        token: Token<'_>,
        query: &Q,
        newcomer: Entry<K, V>,
        read: impl Fn(&V) -> R,
    ) -> Result<FoundOrLeft<R, K, V>, Q::Error> {
        let hash = query.hash();
        let mut newcomer = Some(newcomer);
        let (found, evicted) = self.locate(token, query, |state, search| match search {
            Search::Found(slot) => (Some(read(state.store.value(slot))), None),
            Search::Absent => (None, newcomer.take().and_then(|entry| state.insert(hash, entry, None))),
            Search::Unsettled => (None, None),
        })?;
        Ok((found, evicted.or(newcomer)))
    }

    /// Removes one entry whose time is over, and returns it.
    pub fn expire(&self, token: Token<'_>) -> Option<Entry<K, V>> {
        self.state.with(token, |state| state.store.expire())
    }

    /// Removes the key's entry and returns it, if there is one whose time is not over.
    pub fn take<Q: Query<K>>(&self, token: Token<'_>, query: &Q) -> Result<Option<Entry<K, V>>, Q::Error> {
        let removed = self.locate(token, query, |state, search| match search {
            Search::Found(slot) => Some((!state.store.is_expired(slot), state.store.remove(slot))),
            Search::Absent | Search::Unsettled => None,
        })?;
        Ok(removed.and_then(|(is_live, entry)| is_live.then_some(entry)))
    }

    /// Whether a lookup would hit, without counting or touching.
    pub fn contains<Q: Query<K>>(&self, token: Token<'_>, query: &Q) -> Result<bool, Q::Error> {
        self.locate(token, query, |state, search| match search {
            Search::Found(slot) => !state.store.is_expired(slot),
            Search::Absent | Search::Unsettled => false,
        })
    }

    /// Removes all entries and resets the counters.
    pub fn clear(&self, token: Token<'_>) -> Cleared<K, V> {
        self.state.with(token, |state| {
            state.stats = Stats::default();
            state.store.clear()
        })
    }

    /// The counters, and the number of entries whose time is not over.
    pub fn info(&self, token: Token<'_>) -> (Stats, usize) {
        loop {
            let (expired, info) = self.state.with(token, |state| {
                let expired = state.store.expire();
                (expired, (state.stats, state.store.len()))
            });
            if expired.is_none() {
                return info;
            }
        }
    }

    /// Lends every entry to a garbage collection.
    #[cfg(feature = "python")]
    pub fn visit<E>(
        &self,
        collection: &pyo3::PyVisit<'_>,
        mut visit: impl FnMut(&Entry<K, V>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.state.peek(collection, |state| state.store.entries().try_for_each(&mut visit)).unwrap_or(Ok(()))
    }

    /// Finds the key, asking foreign equality where it must, and runs `act` in the very section in which the result
    /// was established.
    fn locate<Q: Query<K>, R>(
        &self,
        token: Token<'_>,
        query: &Q,
        act: impl FnOnce(&mut State<K, V, P>, Search) -> R,
    ) -> Result<R, Q::Error> {
        self.locate_beside(token, query, None, act)
    }

    /// The same where foreign equality has said already of one stored key that it is not the one.
    fn locate_beside<Q: Query<K>, R>(
        &self,
        token: Token<'_>,
        query: &Q,
        unequal: Option<&K>,
        act: impl FnOnce(&mut State<K, V, P>, Search) -> R,
    ) -> Result<R, Q::Error> {
        let mut act = Some(act);
        let mut restarts = 0;
        // Facts from outside: that many doubtful keys of this generation, in search order, are not the one; this one is.
        let mut rejected = 0;
        let mut generation = None;
        let mut confirmed: Option<Doubt<K>> = None;
        loop {
            let step = self.state.with(token, |state| {
                let mut settle = |state: &mut State<K, V, P>, search| match act.take() {
                    Some(act) => Step::Done(act(state, search)),
                    None => unreachable!("a settled search ends"),
                };
                if let Some(doubt) = &confirmed
                    && state.holds(query, doubt)
                {
                    return settle(state, Search::Found(doubt.slot));
                }
                let now = state.store.generation();
                if generation.replace(now).is_some_and(|before| before != now) {
                    rejected = 0;
                    restarts += 1;
                    if restarts > MOST_RESTARTS {
                        return settle(state, Search::Unsettled);
                    }
                }
                let mut skip = rejected;
                let mut doubtful = None;
                let found = state.store.find(query.hash(), |stored| match query.compare(token, stored) {
                    Match::Equal => true,
                    Match::Different => false,
                    Match::Unsure if unequal.is_some_and(|key| query.is_same(stored, key)) => false,
                    Match::Unsure if skip > 0 => {
                        skip -= 1;
                        false
                    }
                    Match::Unsure => {
                        doubtful = Some(query.hold(token, stored));
                        true
                    }
                });
                match (found, doubtful) {
                    (Some(slot), Some(key)) => Step::Ask(Doubt { slot, key }),
                    (Some(slot), None) => settle(state, Search::Found(slot)),
                    (None, _) => settle(state, Search::Absent),
                }
            });
            // A candidate that was confirmed but did not hold. Its handle is dropped here, outside.
            confirmed = None;
            match step {
                Step::Done(result) => return Ok(result),
                Step::Ask(doubt) => {
                    if query.ask(token, &doubt.key)? {
                        confirmed = Some(doubt);
                    } else {
                        rejected += 1;
                    }
                }
            }
        }
    }
}

/// The end of one section of a search.
enum Step<K, R> {
    Done(R),
    Ask(Doubt<K>),
}

#[cfg(all(test, not(feature = "python")))]
mod tests;
