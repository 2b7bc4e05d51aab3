"""Many threads on one cache: counts add up, values are right, sizes stay in bounds, and nobody waits for ever."""

import faulthandler
import gc
import random
import subprocess
import sys
import threading
from collections import OrderedDict

import pytest
from warp_cache.warp_cache import _ManualClock

from warp_cache import cache, lru_cache

THREADS = 8

CACHES = {
    "lru_cache-3": lru_cache(3),
    "lru_cache-50": lru_cache(50),
    "lru_cache-None": lru_cache(None),
    "lru_cache-0": lru_cache(0),
    **{
        f"{strategy}-{size}": cache(strategy, size) for strategy in ("lru", "mru", "fifo", "lfu") for size in (1, 3, 50)
    },
    "cache-None": cache(max_size=None),
    "cache-ttl": cache(max_size=20, ttl=1000),
    "cache-short-ttl": cache(max_size=20, ttl=0.0001),
    "cache-None-short-ttl": cache(max_size=None, ttl=0.0001),
}
every = pytest.mark.parametrize("decorator", [pytest.param(made, id=name) for name, made in CACHES.items()])


@pytest.fixture(autouse=True)
def watched_and_switching():
    """A thread may be switched out at any moment, and a deadlock ends the run with every stack shown."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    sys.setswitchinterval(interval)


def together(*bodies):
    """Runs each body in a thread of its own, all from one moment, and raises what any of them raised."""
    barrier = threading.Barrier(len(bodies))
    raised = []

    def run(body):
        try:
            barrier.wait(30)
            body()
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    threads = [threading.Thread(target=run, args=(body,), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if raised:
        raise raised[0]


def caller(cached, seed, calls=1500, keys=100):
    def body():
        rng = random.Random(seed)
        for _ in range(calls):
            key = rng.randrange(keys)
            assert cached(key) == ("value of", key)

    return body


def value_of(key):
    return "value of", key


def in_bounds(info):
    return info.current_size >= 0 and (info.max_size is None or info.current_size <= info.max_size)


@every
def test_hits_and_misses_add_up_and_a_miss_is_a_run(decorator):
    ran = []

    def run(key):
        ran.append(key)
        return value_of(key)

    cached = decorator(run)
    together(*(caller(cached, seed) for seed in range(THREADS)))
    hits, misses, max_size, size = cached.cache_info()
    assert hits + misses == THREADS * 1500
    assert misses == len(ran)
    assert max_size is None or size <= max_size


@every
def test_capacity_is_never_exceeded(decorator):
    cached = decorator(value_of)
    busy = THREADS - 1

    def call(seed):
        nonlocal busy
        try:
            caller(cached, seed)()
        finally:
            with lock:
                busy -= 1

    def watch():
        while busy:
            assert in_bounds(cached.cache_info())

    lock = threading.Lock()
    together(watch, *(lambda seed=seed: call(seed) for seed in range(THREADS - 1)))
    assert in_bounds(cached.cache_info())


@every
def test_clearing_and_invalidating_while_others_call(decorator):
    cached = decorator(value_of)

    def clear():
        for _ in range(300):
            cached.cache_clear()

    def invalidate():
        rng = random.Random(1)
        for _ in range(1500):
            assert cached.cache_invalidate(rng.randrange(100)) in (True, False)

    def look():
        rng = random.Random(2)
        for _ in range(1500):
            assert cached.cache_contains(rng.randrange(100)) in (True, False)
            assert in_bounds(cached.cache_info())

    together(clear, invalidate, look, *(caller(cached, seed) for seed in range(4)))
    cached.cache_clear()
    assert cached.cache_info()[:2] == (0, 0)
    assert cached.cache_info().current_size == 0


def test_full_cache_of_settled_keys_only_hits():
    cached = cache(max_size=100)(value_of)
    for key in range(100):
        cached(key)
    together(*(caller(cached, seed) for seed in range(THREADS)))
    assert cached.cache_info() == (THREADS * 1500, 100, 100, 100)


@pytest.mark.parametrize("decorator", [cache(max_size=10), lru_cache(10), lru_cache(None)])
def test_threads_that_miss_one_key_at_once_all_run(decorator):
    inside = threading.Barrier(THREADS)

    @decorator
    def run(key):
        inside.wait(20)
        return object()

    values = []
    together(*[lambda: values.append(run(1))] * THREADS)
    assert len(set(map(id, values))) == THREADS
    assert run.cache_info()[:2] == (0, THREADS)
    assert run.cache_info().current_size == 1
    assert run(1) in values


class Switching:
    """A key whose hash is that of all others, and whose comparison gives way to other threads."""

    give_way = staticmethod(lambda: None)

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return 1

    def __eq__(self, other):
        for _ in range(3):
            pass
        self.give_way()
        return isinstance(other, Switching) and self.number == other.number


@every
@pytest.mark.parametrize("what", ["switch", "collect", "clear", "call"])
def test_eq_that_does_something_else_in_every_thread(decorator, what, monkeypatch):
    cached = decorator(lambda key: ("value of", key.number))
    give_way = {
        "switch": lambda: None,
        "collect": lambda: gc.collect(0),
        "clear": cached.cache_clear,
        "call": lambda: plain(7),
    }
    plain = decorator(value_of)
    steps = 4 if what == "collect" else 60
    monkeypatch.setattr(Switching, "give_way", staticmethod(give_way[what]))

    def body():
        for step in range(steps):
            assert cached(Switching(step % 7)) == ("value of", step % 7)

    together(*[body] * THREADS)
    hits, misses, max_size, size = cached.cache_info()
    assert max_size is None or size <= max_size
    if what != "clear":
        assert hits + misses == THREADS * steps


def test_others_hit_while_one_thread_is_inside_eq():
    arrived, leave = threading.Event(), threading.Event()

    class Slow:
        def __hash__(self):
            return 12345

        def __eq__(self, other):
            arrived.set()
            assert leave.wait(20)
            return False

    cached = cache(max_size=10)(lambda key: key)
    slow = Slow()
    cached(slow)
    for key in range(5):
        cached(key)

    def inside():
        cached(Slow())

    def outside():
        try:
            assert arrived.wait(20)
            for key in range(5):
                cached(key)
            assert cached.cache_info() == (5, 6, 10, 6)
            cached.cache_clear()
            assert cached.cache_info() == (0, 0, 10, 0)
        finally:
            leave.set()

    together(inside, outside)


@every
def test_full_collection_in_eq_and_del_of_every_thread(decorator):
    class Value:
        def __del__(self):
            gc.collect()

    class Collecting(Switching):
        @staticmethod
        def give_way():
            gc.collect()

    cached = decorator(lambda key: (key.number, Value()))
    gc.collect()
    gc.freeze()  # for good: what is thawed would be searched by every collection of the tests to come

    def body():
        for step in range(4):
            assert cached(Collecting(step % 3))[0] == step % 3

    together(*[body] * THREADS)
    cached.cache_clear()
    assert cached.cache_info().current_size == 0


@every
def test_collecting_garbage_while_others_call(decorator):
    cached = decorator(lambda key: ("value of", key))

    def collect():
        for _ in range(10):
            gc.collect()

    together(collect, collect, *(caller(cached, seed, calls=800) for seed in range(4)))
    assert in_bounds(cached.cache_info())


@every
def test_cycles_die_while_threads_make_them(decorator):
    class Node:
        pass

    def body():
        for _ in range(50):
            node = Node()
            node.cached = decorator(lambda key, node=node: node)
            assert node.cached(1) is node
        gc.collect()

    together(*[body] * 4)


@pytest.mark.parametrize("decorator", [cache(max_size=100), lru_cache(100)])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_one_thread_alone_sees_exact_lru(decorator, elsewhere):
    cached = decorator(lambda key: key)
    result = []

    def body():
        rng = random.Random(5)
        order, hits = OrderedDict(), 0
        for _ in range(20_000):
            key = int(rng.paretovariate(0.5)) % 300
            hits += key in order
            order[key] = None
            order.move_to_end(key)
            if len(order) > 100:
                order.popitem(last=False)
            cached(key)
        result.extend([hits, set(order)])

    if elsewhere:
        together(body)
    else:
        body()
    hits, kept = result
    assert cached.cache_info() == (hits, 20_000 - hits, 100, 100)
    assert {key for key in range(300) if cached.cache_contains(key)} == kept


@every
def test_threads_that_come_and_go(decorator):
    cached = decorator(value_of)
    for start in range(20):
        together(*(caller(cached, start * 10 + seed, calls=20) for seed in range(4)))
    hits, misses, *_ = cached.cache_info()
    assert hits + misses == 20 * 4 * 20


def test_exceptions_in_many_threads_are_the_callers_own():
    @cache(max_size=5)
    def run(key):
        raise KeyError(key)

    def body(number):
        for step in range(500):
            with pytest.raises(KeyError) as raised:
                run((number, step % 3))
            assert raised.value.args == ((number, step % 3),)

    together(*(lambda number=number: body(number) for number in range(4)))
    assert run.cache_info() == (0, 2000, 5, 0)


def test_entries_expire_for_all_threads_at_once():
    with _ManualClock() as clock:
        cached = cache(max_size=None, ttl=10)(value_of)
    for _ in range(5):
        together(*(caller(cached, seed, calls=200, keys=20) for seed in range(4)))
        assert cached.cache_info().current_size == 20
        clock.advance(10)
        assert cached.cache_info().current_size == 0


def test_many_functions_are_decorated_at_once():
    def body():
        for number in range(200):
            cached = cache(max_size=3, ttl=5)(lambda key, number=number: key + number)
            assert [cached(1), cached(1), cached(key=1)] == [1 + number] * 3
            assert cached.cache_info() == (2, 1, 3, 1)

    together(*[body] * 4)


@pytest.mark.skipif(not hasattr(sys, "_is_gil_enabled"), reason="no such question before 3.13")
def test_importing_keeps_the_gil_off():
    program = "import sys; a = sys._is_gil_enabled(); import warp_cache; print(a is sys._is_gil_enabled())"
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_import_in_a_thread_that_ends_and_use_in_another():
    program = """
import threading
def bring():
    global f
    import warp_cache
    f = warp_cache.cache(ttl=5)(lambda key: key)
    f(1)
thread = threading.Thread(target=bring); thread.start(); thread.join()
thread = threading.Thread(target=lambda: f(1)); thread.start(); thread.join()
print(f(1), f.cache_info()[:2])
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("1 (2, 1)\n", 0), done.stderr


def test_exit_while_threads_call():
    program = """
import threading, warp_cache
f = warp_cache.lru_cache(10)(lambda key: [key])
def body():
    number = 0
    while True:
        number += 1
        f(number % 20)
for _ in range(4):
    threading.Thread(target=body, daemon=True).start()
for number in range(1000):
    f(number)
"""
    for _ in range(8):
        done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
