"""What a cache lets go of: cycles are collected, counts return to where they were, and memory stays flat."""

import gc
import os
import random
import sys
import weakref

import pytest
from kinds import bare, both_kinds, cache, lru_cache
from warp_cache.warp_cache import _ManualClock

pytestmark = both_kinds


def decorators():
    for strategy in ("lru", "mru", "fifo", "lfu"):
        for max_size in (0, 1, 5, None):
            yield pytest.param(cache(strategy, max_size), id=f"cache-{strategy}-{max_size}")
    yield pytest.param(cache(max_size=5, ttl=1000), id="cache-ttl")
    yield pytest.param(cache(max_size=5, typed=True), id="cache-typed")
    for maxsize in (0, 1, 5, None):
        yield pytest.param(lru_cache(maxsize), id=f"lru_cache-{maxsize}")
    yield pytest.param(lru_cache(5, typed=True), id="lru_cache-typed")


every = pytest.mark.parametrize("decorator", list(decorators()))


class Thing:
    """Something that can be weakly referenced, as a key, a value or a part of a cycle."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def through_value(decorator):
    thing = Thing()
    thing.cached = decorator(lambda key: thing)
    thing.cached(1)
    return thing


def through_key(decorator):
    thing = Thing()
    thing.cached = decorator(lambda key: 1)
    thing.cached(thing)
    return thing


def through_keyword(decorator):
    thing = Thing()
    thing.cached = decorator(lambda **keywords: 1)
    thing.cached(key=thing)
    return thing


def through_tuple_key(decorator):
    thing = Thing()
    thing.cached = decorator(lambda *keys: 1)
    thing.cached(1, (thing, 2), "three")
    return thing


def through_closure(decorator):
    thing = Thing()
    thing.cached = decorator(lambda key: thing and 1)
    return thing


def through_default(decorator):
    thing = Thing()
    thing.cached = decorator(lambda key, other=thing: 1)
    thing.cached(1)
    return thing


def through_keyword_default(decorator):
    thing = Thing()
    thing.cached = decorator(lambda key, *, other=thing: 1)
    thing.cached(1)
    return thing


def through_attribute(decorator):
    thing = Thing()
    thing.cached = decorator(lambda key: 1)
    thing.cached.thing = thing
    return thing


def through_itself(decorator):
    thing = Thing()
    cached = decorator(lambda key: cached)
    cached.itself, cached.thing = cached, thing
    cached(cached)
    return thing


def through_method(decorator):
    class Class:
        @decorator
        def method(self, key):
            return [self]

    thing = Class()
    thing.method(1)
    return thing


def through_two_caches(decorator):
    thing = Thing()
    inner = decorator(lambda key: [outer, thing])
    outer = decorator(lambda key: [inner(key), inner])
    outer(1)
    return thing


def through_dict_value(decorator):
    thing = Thing()
    thing.cached = decorator(lambda key: {"thing": [thing]})
    for number in range(20):
        thing.cached(number)
    return thing


CYCLES = [value for name, value in list(globals().items()) if name.startswith("through_")]


@every
@pytest.mark.parametrize("cycle", CYCLES, ids=lambda cycle: cycle.__name__)
def test_a_cycle_is_collected(decorator, cycle):
    thing = weakref.ref(cycle(decorator))
    gc.collect()
    assert thing() is None


@every
def test_a_living_cache_loses_nothing_to_a_collection(decorator):
    cached = decorator(lambda key: Thing(key=key))
    values = [cached(number) for number in range(5)]
    size = cached.cache_info().current_size
    gc.collect()
    assert cached.cache_info().current_size == size
    assert [cached(number).key for number in range(5)] == [value.key for value in values]


@every
def test_the_collector_sees_function_keys_and_values(decorator):
    key, value = Thing(), Thing()

    def run(key):
        return value

    cached = decorator(run)
    cached(key)
    if cached.cache_info().current_size:
        seen = gc.get_referents(bare(cached))
        inner = [each for one in seen for each in gc.get_referents(one)]
        assert any(one is cached.__wrapped__ for one in seen)
        assert any(one is value for one in seen + inner)
        assert any(one is key for one in seen + inner)
    assert gc.is_tracked(bare(cached))


@every
def test_a_function_dies_with_its_last_reference(decorator):
    cached = decorator(lambda key: Thing())
    cached(1)
    value = weakref.ref(cached(1))
    gone = weakref.ref(cached)
    gc.disable()
    try:
        del cached
        assert gone() is None
        assert value() is None
    finally:
        gc.enable()


class Counted:
    """Hashable, mortal, and so with a reference count that tells."""

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return hash(self.number) % 4

    def __eq__(self, other):
        if self.number == 8 and other.number == 8 and self is not other:
            raise ValueError("eq")
        return self.number == other.number


def counts(objects):
    return [sys.getrefcount(one) for one in objects]


@every
def test_a_nested_function_dies_with_its_last_reference_and_any_other_at_the_next_collection(decorator):
    inner, names = decorator(lambda x: x), {"decorator": decorator}
    exec("@decorator\ndef outer(x): return x", names)
    outer = names.pop("outer")
    inner(1), outer(1)
    of_inner, of_outer = weakref.ref(inner), weakref.ref(outer)
    del inner
    assert of_inner() is None
    del outer
    gc.collect()
    assert of_outer() is None


@every
def test_reference_counts_return_to_where_they_were(decorator):
    keys = [Counted(number) for number in range(10)]
    twins = [Counted(number) for number in range(10)]
    values = [object() for _ in range(10)]
    names = [str(b"keyword", "ascii")]  # a string of its own, that is not kept for ever

    def run(key, *rest, keyword=None):
        if key.number == 9:
            raise KeyError(key)
        return values[key.number]

    cached = decorator(run)
    everything = [*keys, *twins, *values, run, *names]

    def play():
        rng = random.Random(3)
        for _ in range(2000):
            key = rng.choice(keys + twins)
            try:
                rng.choice(calls)(key)
            except (ValueError, KeyError, TypeError):
                pass

    calls = [
        cached,
        cached,
        cached,
        lambda key: cached(key, keyword=key),
        lambda key: cached(**{"key": key, names[0]: keys[0]}),
        lambda key: cached(key, keys[1], keys[2]),
        lambda key: cached(key, []),
        lambda key: cached(key, keyword={}),
        lambda key: cached(key, unknown=key),
        lambda key: cached(),
        lambda key: cached(key, (key, values[1])),
        cached.cache_contains,
        cached.cache_invalidate,
        lambda key: cached.cache_invalidate(key, keyword=key),
        lambda key: cached.cache_contains(key, []),
        lambda key: rng_clear() if key.number == 7 else cached(key),
    ]
    rng_clear = cached.cache_clear
    play()
    cached.cache_clear()
    gc.collect()
    before = counts(everything)
    for _ in range(3):
        play()
    cached.cache_clear()
    gc.collect()
    assert counts(everything) == before


def test_an_evicted_entry_is_released_at_once():
    cached = cache(max_size=2)(lambda key: Thing())
    key = Thing()
    references = [weakref.ref(key), weakref.ref(cached(key))]
    gc.disable()
    try:
        del key
        cached(1)
        assert all(reference() is not None for reference in references)
        cached(2)
        assert [reference() for reference in references] == [None, None]
    finally:
        gc.enable()


@every
@pytest.mark.parametrize("how", ["clear", "invalidate"])
def test_a_removed_entry_is_released_at_once(decorator, how):
    cached = decorator(lambda key: Thing())
    key = Thing()
    references = [weakref.ref(key), weakref.ref(cached(key))]
    gc.disable()
    try:
        if how == "clear":
            cached.cache_clear()
        else:
            cached.cache_invalidate(key)
        del key
        assert [reference() for reference in references] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("max_size", [5, None])
def test_an_expired_entry_is_released_by_the_next_store(max_size):
    with _ManualClock() as clock:
        cached = cache(max_size=max_size, ttl=10)(lambda key: Thing())
    value = weakref.ref(cached(1))
    clock.advance(10)
    assert value() is not None
    cached(2)
    assert value() is None


@every
def test_an_exception_is_not_kept(decorator):
    class Failed(Exception):
        pass

    @decorator
    def run(key):
        raise Failed(key)

    thing = Thing()
    gone = weakref.ref(thing)
    with pytest.raises(Failed) as raised:
        run(thing)
    del thing, raised
    gc.collect()
    assert gone() is None


def test_objects_in_turn_at_one_address_share_no_results():
    @cache(max_size=None)
    def run(thing):
        return thing.number

    class Short:
        def __init__(self, number):
            self.number = number

    for number in range(1000):
        assert run(Short(number)) == number
        if number % 7 == 0:
            run.cache_clear()


def resident():
    """Bytes of memory in use."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pytest.skip("the memory in use is not known here")


def growth(work, times):
    """How many bytes a second run of the same work adds."""
    work(times)
    gc.collect()
    before = resident()
    work(times)
    gc.collect()
    return resident() - before


FLAT = 600_000


@every
def test_mixed_calls_leave_memory_flat(decorator):
    def run(key, other=None, **keywords):
        if key == 3:
            raise KeyError(key)
        return [key]

    cached = decorator(run)

    def work(times):
        for number in range(times):
            key = number % 17
            try:
                cached(key)
                cached(str(key), other=key)
                cached(key, key=key) if key == 5 else cached((key, number % 3), name=key)
                if key == 8:
                    cached.cache_invalidate(key)
                    cached.cache_contains(key, [])
                if number % 1001 == 0:
                    cached.cache_clear()
            except (KeyError, TypeError):
                pass

    assert growth(work, 5_000) < FLAT


def test_misses_leave_memory_flat():
    cached = lru_cache(1000)(lambda key: [key])
    numbers = iter(range(10**9))

    def work(times):
        for _ in range(times):
            cached(next(numbers))

    assert growth(work, 100_000) < FLAT
    assert cached.cache_info() == (0, 200_000, 1000, 1000)


@pytest.mark.parametrize("max_size", [1, 128, None])
@pytest.mark.parametrize("strategy", ["lru", "mru", "fifo", "lfu"])
def test_refreshing_one_expired_key_leaves_memory_flat(strategy, max_size):
    with _ManualClock() as clock:
        cached = cache(strategy, max_size, ttl=1)(lambda key: key)

    def refresh(times):
        for _ in range(times):
            clock.advance(1)
            cached("a")

    assert growth(refresh, 40_000) < FLAT
    assert cached.cache_info() == (0, 80_000, max_size, 1)


def test_expired_entries_leave_an_unbounded_cache_by_themselves():
    with _ManualClock() as clock:
        cached = cache(max_size=None, ttl=10)(lambda key: bytes(1000))
    numbers = iter(range(10**9))

    def work(times):
        for _ in range(times):
            clock.advance(1)
            cached(next(numbers))

    assert growth(work, 20_000) < FLAT
    assert cached.cache_info().current_size == 10


def test_invalidating_gives_its_place_to_the_next():
    cached = cache(max_size=None)(lambda key: [key])
    numbers = iter(range(10**9))

    def work(times):
        for _ in range(times):
            key = next(numbers)
            cached(key)
            assert cached.cache_invalidate(key)

    assert growth(work, 40_000) < FLAT


def test_clearing_gives_the_memory_back():
    cached = cache(max_size=None)(lambda key: None)
    before = resident()
    for _ in range(5):
        for number in range(100_000):
            cached(number)
        cached.cache_clear()
    assert resident() - before < 20_000_000


@every
def test_functions_come_and_go(decorator):
    def work(times):
        for number in range(times):
            cached = decorator(lambda key: [key])
            cached(number), cached(key=number), cached.cache_info(), cached.cache_parameters()
            cached.note = number

    assert growth(work, 1_000) < FLAT


@pytest.mark.parametrize("decorator", [cache, lru_cache])
def test_a_collection_may_come_while_functions_are_decorated(decorator):
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(500):
            assert decorator(lambda key, number=number: number)(1) == number
    finally:
        gc.set_threshold(*thresholds)
    assert gc.isenabled()
