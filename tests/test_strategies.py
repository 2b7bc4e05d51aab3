"""Which entry goes: every strategy against the model, at every kind of size, with and without a time to live."""

import math
import random
from collections import OrderedDict
from datetime import timedelta

import pytest
from hypothesis import given, settings
from kinds import both_kinds, cache, lru_cache
from model import TTL, Pair, steps
from warp_cache.warp_cache import _ManualClock

from warp_cache import Strategy

pytestmark = both_kinds

STRATEGIES = ["lru", "mru", "fifo", "lfu"]


class Colliding:
    """A key whose hash is everybody's."""

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return 7

    def __eq__(self, other):
        return isinstance(other, Colliding) and self.number == other.number

    def __repr__(self):
        return f"Colliding({self.number})"


KEYS = {
    "int": [-1, -2, 0, 1, 2, 3, 5, 2**70],
    "str": ["", "a", "b", "c", "\ud800", "long" * 50],
    "colliding": [Colliding(number) for number in range(6)],
}


@pytest.mark.parametrize("watch", ["every step", "the end"])
@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("ttl", [None, TTL])
@pytest.mark.parametrize("max_size", [0, 1, 2, 3, 5, None])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_cache_agrees_with_the_model(strategy, max_size, ttl, kind, watch):
    # Reading the statistics drops what has expired, so a run that reads them only at its end takes other paths.
    @settings(max_examples=15, deadline=None, database=None)
    @given(steps(KEYS[kind]))
    def agree(sequence):
        pair = Pair(cache, strategy, max_size, ttl)
        for name, argument in sequence:
            getattr(pair, name)(argument)
            if watch == "every step":
                pair.check_info()
        pair.check_info()
        pair.check_members(KEYS[kind])

    agree()


@pytest.mark.parametrize("ttl", [None, TTL])
@pytest.mark.parametrize("max_size", [1, 2, 10, 64])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_long_random_trace_agrees_with_the_model(strategy, max_size, ttl):
    rng = random.Random(f"{strategy} {max_size} {ttl}")
    pair = Pair(cache, strategy, max_size, ttl)
    for _ in range(5000):
        pair.call(int(rng.paretovariate(0.7)) % (3 * max_size))
        if rng.random() < 0.02:
            pair.advance(rng.randrange(3))
        if rng.random() < 0.01:
            pair.invalidate(rng.randrange(3 * max_size))
    pair.check_info()
    pair.check_members(range(3 * max_size))


def kept(strategy, max_size, trace):
    """The keys that are left after calls with each letter of `trace`."""

    @cache(strategy=strategy, max_size=max_size)
    def run(key):
        return key

    for key in trace:
        run(key)
    return "".join(key for key in sorted(set(trace)) if run.cache_contains(key))


@pytest.mark.parametrize(
    ("strategy", "trace", "left"),
    [
        ("lru", "abcd", "bcd"),
        ("lru", "abcad", "acd"),
        ("lru", "abcabd", "abd"),
        ("mru", "abcd", "abd"),
        ("mru", "abcad", "bcd"),
        ("mru", "abcde", "abe"),
        ("fifo", "abcd", "bcd"),
        ("fifo", "abcaaad", "bcd"),
        ("fifo", "abcdae", "ade"),
        ("lfu", "aabbcd", "abd"),
        ("lfu", "abcd", "bcd"),
        ("lfu", "abcbacd", "acd"),
        ("lfu", "aabbccd", "bcd"),
        ("lfu", "aaabbccd", "acd"),
        ("lfu", "aabbccdef", "bcf"),
    ],
)
def test_strategy_keeps(strategy, trace, left):
    assert kept(strategy, 3, trace) == left


def test_lfu_counts_hits_since_the_entry_was_stored():
    @cache(strategy=Strategy.LFU, max_size=2)
    def run(key):
        return key

    for key in "aaaab":
        run(key)
    run.cache_invalidate("a")
    for key in "abb":
        run(key)
    run("c")
    assert [run.cache_contains(key) for key in "abc"] == [False, True, True]


def test_contains_does_not_touch_the_order():
    @cache(max_size=2)
    def run(key):
        return key

    run("a"), run("b")
    assert run.cache_contains("a")
    run("c")
    assert [run.cache_contains(key) for key in "abc"] == [False, True, True]


def test_a_raising_call_evicts_nobody():
    @cache(max_size=1)
    def run(key):
        if key == "bad":
            raise ValueError(key)
        return key

    run("a")
    with pytest.raises(ValueError, match="bad"):
        run("bad")
    assert run.cache_contains("a")
    assert run.cache_info() == (0, 2, 1, 1)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_capacity_is_exact(strategy):
    for max_size in range(1, 301):

        @cache(strategy=strategy, max_size=max_size)
        def run(key):
            return key

        for key in range(max_size):
            run(key)
        assert run.cache_info() == (0, max_size, max_size, max_size)
        for key in range(max_size):
            run(key)
        assert run.cache_info() == (max_size, max_size, max_size, max_size)
        for key in range(max_size, 2 * max_size + 3):
            run(key)
        assert run.cache_info().current_size == max_size


def test_lru_cache_keeps_exactly_as_many_as_it_was_given():
    for max_size in range(1, 301):

        @lru_cache(maxsize=max_size)
        def run(key):
            return key

        for key in range(max_size + 5):
            run(key)
        assert [run.cache_contains(key) for key in range(max_size + 5)] == [False] * 5 + [True] * max_size


def lru_trace(cached, ran, max_size, keys):
    """Returns the steps of a trace at which an ordered dict says otherwise, and what the dict holds at the end."""
    order, wrong = OrderedDict(), []
    for step, key in enumerate(keys):
        before = len(ran)
        cached(key)
        expected = key not in order
        order[key] = None
        order.move_to_end(key)
        if len(order) > max_size:
            order.popitem(last=False)
        if (len(ran) > before) != expected:
            wrong.append(step)
    return wrong, order


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("max_size", [1023, 1024, 1025, 3000, 65535, 65536, 65537, 100_000])
def test_lru_is_exact_at_large_sizes(decorator, max_size):
    ran = []
    cached = decorator(max_size=max_size)(ran.append)
    rng = random.Random(max_size)
    sweep = range(max_size + max_size // 10)
    jumps = [rng.randrange(max_size * 5 // 4) for _ in range(50_000)]
    wrong, order = lru_trace(cached, ran, max_size, [*sweep, *jumps])
    assert wrong == []
    assert all(cached.cache_contains(key) for key in order)
    assert cached.cache_info().current_size == len(order)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_unbounded_evicts_nobody(strategy):
    @cache(strategy=strategy, max_size=None)
    def run(key):
        return key

    for key in range(100_000):
        run(key)
    assert run.cache_info() == (0, 100_000, None, 100_000)
    assert all(run.cache_contains(key) for key in range(100_000))


def test_size_zero_stores_nothing():
    @cache(max_size=0)
    def run(key):
        return key

    assert [run(1), run(1), run(2)] == [1, 1, 2]
    assert run.cache_info() == (0, 3, 0, 0)
    assert not run.cache_contains(1)
    assert not run.cache_invalidate(1)


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("ttl", [5, 5.0, timedelta(seconds=5), timedelta(milliseconds=5000)])
def test_an_entry_is_gone_from_the_moment_its_time_is_over(decorator, ttl):
    with _ManualClock() as clock:
        cached = decorator(ttl=ttl)(lambda key: key)
    cached("a")
    clock.advance(4.999)
    assert cached.cache_contains("a")
    clock.advance(0.001)
    assert not cached.cache_contains("a")
    cached("a")
    assert cached.cache_info() == (0, 2, 128, 1)


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("ttl", [None, math.inf, 1e300, 2**2000])
def test_an_endless_time_to_live_never_ends(decorator, ttl):
    with _ManualClock() as clock:
        cached = decorator(ttl=ttl)(lambda key: key)
    cached("a")
    clock.advance(10**9)
    cached("a")
    assert cached.cache_info() == (1, 1, 128, 1)


def test_an_infinite_ttl_is_none():
    assert cache(ttl=math.inf)(len).cache_parameters()["ttl"] is None


def test_a_hit_does_not_prolong_an_entry():
    with _ManualClock() as clock:
        cached = cache(ttl=3)(lambda key: key)
    for _ in range(3):
        cached("a")
        clock.advance(1)
    assert not cached.cache_contains("a")


def test_time_counts_from_when_the_value_was_stored():
    with _ManualClock() as clock:

        @cache(ttl=3)
        def slow(key):
            clock.advance(10)
            return key

    slow("a")
    assert slow.cache_contains("a")
    clock.advance(3)
    assert not slow.cache_contains("a")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_expired_entries_go_before_live_ones(strategy):
    with _ManualClock() as clock:
        cached = cache(strategy=strategy, max_size=2, ttl=5)(lambda key: key)
    cached("old")
    clock.advance(3)
    cached("live")
    cached("old"), cached("old")
    clock.advance(2)
    cached("new")
    assert [cached.cache_contains(key) for key in ("old", "live", "new")] == [False, True, True]


@pytest.mark.parametrize("max_size", [1, 128, None])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_refreshing_an_expired_key_keeps_one_entry(strategy, max_size):
    with _ManualClock() as clock:
        cached = cache(strategy=strategy, max_size=max_size, ttl=1)(lambda key: key)
    for _ in range(1000):
        clock.advance(1)
        cached("a")
    assert cached.cache_info() == (0, 1000, max_size, 1)
