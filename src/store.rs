//! A bounded table of entries: an index by hash, a slab that holds them, a policy that orders them, and their expiry.
//!
//! The store knows neither Python nor equality: a search is given a closure that says whether a stored key is the one.
//! It drops no key and no value itself. What leaves it is returned in a `#[must_use]` value, for the caller to drop when
//! no borrow and no lock is held, because dropping it may run foreign code.
//!
//! ```text
//! hash ─► index ─► nodes[slot] ─► entry
//!                      │
//!                      ├─ policy   its order of the same slot numbers
//!                      └─ expiry   deadline by slot, and the order of the deadlines
//! ```

use crate::clock::Clock;
use crate::expiry::Expiry;
use crate::index::Index;
use crate::options::{Options, Ttl};
use crate::policy::{AnyPolicy, Policy, Slot};

/// A key with its value.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "drop it when no lock is held: dropping may run foreign code"]
pub struct Entry<K, V> {
    /// The key of the value.
    pub key: K,
    /// The answer of a hit.
    pub value: V,
}

/// Everything that was in the store when it was cleared.
#[derive(Debug)]
#[must_use = "drop it when no lock is held: dropping may run foreign code"]
pub struct Cleared<K, V> {
    nodes: Vec<Node<K, V>>,
}

impl<K, V> Cleared<K, V> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.nodes.iter().filter(|node| node.entry.is_some()).count()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every entry, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry<K, V>> {
        self.nodes.iter().filter_map(|node| node.entry.as_ref())
    }
}

/// A place in the slab. The first is the sentinel, which never holds an entry.
#[derive(Debug)]
struct Node<K, V> {
    /// The key's hash; of a vacant node, the number of the next vacant one.
    hash: u64,
    entry: Option<Entry<K, V>>,
}

/// The answer to a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<R> {
    /// The answer read from a fresh value.
    Hit(R),
    /// The answer read from a stale value, in a store with a stale window: for a caller who has the value computed anew.
    Stale(R),
    /// Not there. The store's generation tells later whether that has changed.
    Miss {
        /// The store's generation when the key was not there.
        generation: u64,
    },
}

/// A table of at most so many entries, with a policy and perhaps a time to live.
#[derive(Debug)]
pub struct Store<K, V, P = AnyPolicy> {
    nodes: Vec<Node<K, V>>,
    policy: P,
    expiry: Option<Expiry>,
    index: Index,
    capacity: usize,
    /// For so many slots there is memory everywhere.
    room: usize,
    first_vacant: Slot,
    generation: u64,
}

impl<K, V> Store<K, V> {
    /// An empty store. Takes no memory for entries that have not come, however large the bound.
    pub fn new(options: &Options, clock: Option<Clock>) -> Self {
        let expiry = options.ttl.map(|ttl| {
            let clock = clock.unwrap_or_else(|| Clock::for_ttl(ttl.nanoseconds()));
            Expiry::one_ttl(ttl, clock)
        });
        Self::with(AnyPolicy::new(options), options.max_size, expiry)
    }
}

impl<K, V, P: Policy> Store<K, V, P> {
    /// An empty store of these parts, `policy` having nothing in it.
    pub fn with(policy: P, max_size: Option<usize>, expiry: Option<Expiry>) -> Self {
        Self {
            nodes: vec![Node { hash: 0, entry: None }],
            policy,
            expiry,
            index: Index::default(),
            capacity: max_size.unwrap_or(usize::MAX),
            room: 0,
            first_vacant: Slot::NONE,
            generation: 0,
        }
    }

    /// The number of entries, expired ones that are still held among them.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.index.len() == 0
    }

    /// A number that changes with every insertion and removal.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The slot to look at first for a key of this hash, with the key in it if that has this hash. Where it is not the one,
    /// [`Store::find_after`] goes on.
    #[inline(always)]
    pub fn first(&self, hash: u64) -> (Slot, Option<&K>) {
        let slot = self.index.first(hash);
        let node = &self.nodes[slot.index()];
        (slot, if node.hash == hash { node.entry.as_ref().map(|entry| &entry.key) } else { None })
    }

    /// The first slot whose entry has this hash and a key that `same` accepts, in an order that changes only when the
    /// generation does.
    #[inline(always)]
    pub fn find(&self, hash: u64, same: impl FnMut(&K) -> bool) -> Option<Slot> {
        self.search(self.index.first(hash), hash, same)
    }

    /// The same of the slots after this one.
    #[inline(always)]
    pub fn find_after(&self, slot: Slot, hash: u64, same: impl FnMut(&K) -> bool) -> Option<Slot> {
        self.search(self.index.next(slot), hash, same)
    }

    #[inline(always)]
    fn search(&self, mut slot: Slot, hash: u64, mut same: impl FnMut(&K) -> bool) -> Option<Slot> {
        while slot != Slot::NONE {
            let node = &self.nodes[slot.index()];
            if node.hash == hash && node.entry.as_ref().is_some_and(|entry| same(&entry.key)) {
                return Some(slot);
            }
            slot = self.index.next(slot);
        }
        None
    }

    /// The key stored in `slot`.
    pub fn key(&self, slot: Slot) -> Option<&K> {
        self.nodes.get(slot.index()).and_then(|node| node.entry.as_ref()).map(|entry| &entry.key)
    }

    /// Tells the policy that a call has asked for a key of this hash.
    #[inline(always)]
    pub fn record(&mut self, hash: u64) {
        self.policy.record(hash);
    }

    /// The value of the entry in `slot`, which a search has just found, with its use noted; `None` if it is not fresh, for
    /// [`Store::hit_late`].
    #[inline(always)]
    pub fn hit(&mut self, slot: Slot) -> Option<&V> {
        if !self.is_fresh(slot) {
            return None;
        }
        // Read before the policy moves anything: the search has checked this very node.
        let Some(entry) = &self.nodes[slot.index()].entry else { vacant() };
        self.policy.hit(slot);
        Some(&entry.value)
    }

    /// The same for an entry that is not fresh; `None` if its time is over.
    pub fn hit_late(&mut self, slot: Slot) -> Option<&V> {
        if self.is_expired(slot) {
            return None;
        }
        self.policy.hit(slot);
        Some(self.value(slot))
    }

    /// The value stored in `slot`, which a search has just found.
    #[inline(always)]
    pub fn value(&self, slot: Slot) -> &V {
        match &self.nodes[slot.index()].entry {
            Some(entry) => &entry.value,
            None => vacant(),
        }
    }

    /// Whether the deadline of the entry in `slot` is yet to come.
    #[inline(always)]
    pub fn is_fresh(&self, slot: Slot) -> bool {
        match &self.expiry {
            None => true,
            Some(expiry) => expiry.is_fresh(slot),
        }
    }

    /// Whether the time of the entry in `slot` is over. Without a stale window, it is when the entry is not fresh.
    #[inline(always)]
    pub fn is_expired(&self, slot: Slot) -> bool {
        match &self.expiry {
            None => false,
            Some(expiry) => expiry.is_over(slot),
        }
    }

    /// Exchanges the value of the entry in `slot`, which a search has just found. Its place in the policy's order stays, and
    /// its deadline where all entries have one time to live.
    pub fn replace(&mut self, slot: Slot, value: V, ttl: Option<Ttl>) -> V {
        if let Some(expiry) = &mut self.expiry {
            expiry.replace(slot, ttl);
        }
        match &mut self.nodes[slot.index()].entry {
            Some(entry) => std::mem::replace(&mut entry.value, value),
            None => vacant(),
        }
    }

    /// Stores an entry whose key is not in the store, and returns the entry that had to leave for it: one whose time is over,
    /// else the policy's victim. If there is no room and no victim, or no memory, or the policy refuses the newcomer, the
    /// newcomer leaves.
    ///
    /// `ttl` is the entry's own time to live. It counts in a store of one each, where `None` is for ever.
    #[inline(always)]
    pub fn insert(&mut self, hash: u64, key: K, value: V, ttl: Option<Ttl>) -> Option<Entry<K, V>> {
        let mut entry = Some(Entry { key, value });
        self.exchange(hash, &mut entry, ttl);
        entry
    }

    /// The same, with the entry that leaves in the place of the newcomer. An entry that was made a moment ago is not moved on
    /// the way, which would have to wait for its parts.
    #[inline(always)]
    pub fn exchange(&mut self, hash: u64, entry: &mut Option<Entry<K, V>>, ttl: Option<Ttl>) {
        if self.len() < self.capacity {
            let Some(slot) = self.vacate() else { return };
            self.policy.insert(slot, hash);
            return self.fill(slot, hash, entry, ttl);
        }
        let Some(slot) = self.make_way(hash) else { return };
        self.unindex(slot);
        self.fill(slot, hash, entry, ttl);
    }

    /// The slot of an expired entry, else of the policy's victim, which the policy knows as that of a newcomer of this hash
    /// from now on. `None` if the policy has no victim or refuses the newcomer.
    #[inline(always)]
    fn make_way(&mut self, hash: u64) -> Option<Slot> {
        match self.first_expired() {
            Some(slot) => {
                self.policy.reuse(slot, hash);
                Some(slot)
            }
            None => self.policy.evict(hash),
        }
    }

    /// Puts the entry into a slot that the policy knows and the index does not, and the one that was left there into its place.
    #[inline(always)]
    fn fill(&mut self, slot: Slot, hash: u64, entry: &mut Option<Entry<K, V>>, ttl: Option<Ttl>) {
        let node = &mut self.nodes[slot.index()];
        node.hash = hash;
        std::mem::swap(&mut node.entry, entry);
        self.index.insert(hash, slot);
        if let Some(expiry) = &mut self.expiry {
            expiry.insert(slot, ttl);
        }
        self.generation += 1;
    }

    /// Takes a slot out of the index and of the order of expiry. Its entry stays in it.
    #[inline]
    fn unindex(&mut self, slot: Slot) {
        if let Some(expiry) = &mut self.expiry {
            expiry.remove(slot);
        }
        self.index.remove(self.nodes[slot.index()].hash, slot);
    }

    /// Removes the entry in `slot`, which a search has just found.
    pub fn remove(&mut self, slot: Slot) -> Entry<K, V> {
        self.policy.remove(slot);
        self.unindex(slot);
        let node = &mut self.nodes[slot.index()];
        node.hash = u64::from(self.first_vacant.0);
        self.first_vacant = slot;
        self.generation += 1;
        match node.entry.take() {
            Some(entry) => entry,
            None => vacant(),
        }
    }

    /// Removes the entry of the earliest deadline if its time is over. None is left when this returns nothing.
    pub fn expire(&mut self) -> Option<Entry<K, V>> {
        self.first_expired().map(|slot| self.remove(slot))
    }

    #[inline(always)]
    fn first_expired(&self) -> Option<Slot> {
        self.expiry.as_ref().and_then(Expiry::first_over)
    }

    /// Removes all entries and gives their memory back.
    pub fn clear(&mut self) -> Cleared<K, V> {
        self.index = Index::default();
        self.room = 0;
        self.policy.clear();
        if let Some(expiry) = &mut self.expiry {
            expiry.clear();
        }
        self.first_vacant = Slot::NONE;
        self.generation += 1;
        Cleared { nodes: std::mem::replace(&mut self.nodes, vec![Node { hash: 0, entry: None }]) }
    }

    /// Every entry, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry<K, V>> {
        self.nodes.iter().filter_map(|node| node.entry.as_ref())
    }

    /// A vacant slot, with everything ready for an insertion there, or `None` without memory.
    #[inline]
    fn vacate(&mut self) -> Option<Slot> {
        let slot = self.first_vacant;
        if slot == Slot::NONE {
            return self.append();
        }
        // The number of a vacant node is one that came from a slot.
        self.first_vacant = Slot(u32::try_from(self.nodes[slot.index()].hash).unwrap_or(0));
        Some(slot)
    }

    /// A new slot at the slab's end.
    #[inline]
    fn append(&mut self) -> Option<Slot> {
        let slots = self.nodes.len();
        if slots > self.room {
            self.grow()?;
        }
        self.nodes.push(Node { hash: 0, entry: None });
        // `grow` has checked the number.
        u32::try_from(slots).ok().map(Slot)
    }

    /// Makes room for as many slots again everywhere, or returns nothing. A slot is then taken, which tells of another order in
    /// the index.
    #[cold]
    #[inline(never)]
    fn grow(&mut self) -> Option<()> {
        let room = (2 * self.room).max(3).min(self.capacity);
        let last = Slot(u32::try_from(room).ok()?);
        self.nodes.try_reserve_exact(room + 1 - self.nodes.len()).ok()?;
        self.policy.try_grow(last).ok()?;
        if let Some(expiry) = &mut self.expiry {
            expiry.try_grow(last).ok()?;
        }
        self.index.try_grow(last).ok()?;
        let held = (1..).zip(&self.nodes[1..]).filter(|(_, node)| node.entry.is_some());
        self.index.spread(room, held.map(|(number, node)| (node.hash, Slot(number))));
        self.room = room;
        Some(())
    }

    /// Checks that index, slab, policy and expiry agree. For tests.
    ///
    /// # Panics
    /// When they do not.
    #[doc(hidden)]
    pub fn validate(&self) {
        let held: Vec<_> = (0..self.nodes.len()).filter(|&index| self.nodes[index].entry.is_some()).collect();
        assert_eq!(held.len(), self.index.len(), "slab and index differ");
        assert!(self.len() <= self.capacity, "{} entries in a store for {}", self.len(), self.capacity);
        for &index in &held {
            let hash = self.nodes[index].hash;
            let mut chain = std::iter::successors(Some(self.index.first(hash)), |&slot| Some(self.index.next(slot)));
            let found = chain.by_ref().take_while(|&slot| slot != Slot::NONE).any(|slot| slot.index() == index);
            assert!(found, "slot {index} is not in the index");
        }
        let mut vacant = 0;
        let mut at = self.first_vacant;
        while at != Slot::NONE {
            assert!(self.nodes[at.index()].entry.is_none(), "{at:?} is called vacant");
            at = Slot(u32::try_from(self.nodes[at.index()].hash).expect("a slot number"));
            vacant += 1;
            assert!(vacant < self.nodes.len(), "the vacant slots form a circle");
        }
        assert_eq!(held.len() + vacant + 1, self.nodes.len(), "a slot is neither held nor vacant");
        let has_victim = self.policy.victim().is_some();
        assert!(self.capacity == usize::MAX || has_victim != held.is_empty(), "the policy knows other slots");
    }
}

/// A slot that a search has just found holds no entry: a bug of the caller.
#[cold]
#[inline(never)]
fn vacant() -> ! {
    panic!("the slot holds no entry")
}

#[cfg(test)]
mod tests;
