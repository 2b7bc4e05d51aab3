"""What a cache does, said as plainly as possible: a list of entries, searched from end to end."""

from dataclasses import dataclass

from hypothesis import strategies as st
from warp_cache.warp_cache import _ManualClock

TTL = 5


@dataclass
class Entry:
    key: object
    stored: float
    first: int
    used: int
    hits: int = 0


VICTIM = {
    "lru": lambda entries: min(entries, key=lambda entry: entry.used),
    "mru": lambda entries: max(entries, key=lambda entry: entry.used),
    "fifo": lambda entries: min(entries, key=lambda entry: entry.first),
    "lfu": lambda entries: min(entries, key=lambda entry: (entry.hits, entry.used)),
}


class Model:
    """A cache of keys. It has no values: what matters is whether a call runs the function."""

    def __init__(self, strategy, max_size, ttl=None):
        self.strategy, self.max_size, self.ttl = strategy, max_size, ttl
        self.now = 0
        self.clear()

    def clear(self):
        self.entries = []
        self.hits = self.misses = self.tick = 0

    def drop_expired(self):
        if self.ttl is not None:
            self.entries = [entry for entry in self.entries if self.now - entry.stored < self.ttl]

    def find(self, key):
        self.drop_expired()
        return next((entry for entry in self.entries if entry.key == key), None)

    def call(self, key):
        """Returns whether the function runs."""
        self.tick += 1
        entry = self.find(key)
        if entry is not None:
            self.hits += 1
            entry.hits += 1
            entry.used = self.tick
            return False
        self.misses += 1
        if self.max_size == 0:
            return True
        if self.max_size is not None and len(self.entries) == self.max_size:
            self.entries.remove(VICTIM[self.strategy](self.entries))
        self.entries.append(Entry(key, self.now, self.tick, self.tick))
        return True

    def contains(self, key):
        return self.find(key) is not None

    def invalidate(self, key):
        entry = self.find(key)
        if entry is not None:
            self.entries.remove(entry)
        return entry is not None

    def advance(self, seconds):
        self.now += seconds

    def info(self):
        self.drop_expired()
        return self.hits, self.misses, self.max_size, len(self.entries)

    def keys(self):
        self.drop_expired()
        return {entry.key for entry in self.entries}


class Pair:
    """A cached function and its model, which do everything together and must agree on all of it."""

    def __init__(self, decorator, strategy, max_size, ttl):
        self.model = Model(strategy, max_size, ttl)
        self.clock = _ManualClock()
        self.ran = False

        def run(key):
            self.ran = True
            return ("value of", key)

        with self.clock:
            self.cached = decorator(strategy, max_size, ttl)(run)

    def call(self, key):
        self.ran = False
        assert self.cached(key) == ("value of", key)
        assert self.ran == self.model.call(key), f"the function ran: {self.ran}"

    def invalidate(self, key):
        assert self.cached.cache_invalidate(key) is self.model.invalidate(key)

    def contains(self, key):
        assert self.cached.cache_contains(key) is self.model.contains(key)

    def clear(self, _key=None):
        self.cached.cache_clear()
        self.model.clear()

    def advance(self, seconds):
        self.clock.advance(seconds)
        self.model.advance(seconds)

    def check_info(self, _key=None):
        # What the shared backend counts beside these is nothing of the model's.
        assert self.cached.cache_info()[:4] == self.model.info()

    def check_members(self, keys):
        assert {key for key in keys if self.cached.cache_contains(key)} == self.model.keys()


def steps(keys):
    key = st.sampled_from(keys)
    return st.lists(
        st.one_of(
            st.tuples(st.just("call"), key),
            st.tuples(st.just("call"), key),
            st.tuples(st.just("call"), key),
            st.tuples(st.just("invalidate"), key),
            st.tuples(st.just("contains"), key),
            st.tuples(st.just("advance"), st.integers(0, TTL + 1)),
            st.tuples(st.just("advance"), st.just(1)),
            st.tuples(st.just("clear"), st.none()),
            st.tuples(st.just("check_info"), st.none()),
        ),
        max_size=80,
    )
