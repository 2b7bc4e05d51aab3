"""What a cache does, said as plainly as possible: a list of entries, searched from end to end."""

from dataclasses import dataclass


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
