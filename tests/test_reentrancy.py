"""Foreign code that runs in the middle of a call: `__eq__`, `__hash__`, `__del__` and the function itself come back."""

import gc
import subprocess
import sys

import pytest
from kinds import both_kinds, cache, lru_cache, plain_only

pytestmark = both_kinds


def decorators():
    for strategy in ("lru", "mru", "fifo", "lfu"):
        for max_size in (1, 2, 8, None):
            yield pytest.param(cache(strategy, max_size), id=f"cache-{strategy}-{max_size}")
    yield pytest.param(cache(max_size=8, ttl=1000), id="cache-ttl")
    yield pytest.param(cache(max_size=None, ttl=1000), id="cache-unbounded-ttl")
    for maxsize in (1, 2, 8, None):
        yield pytest.param(lru_cache(maxsize), id=f"lru_cache-{maxsize}")


every = pytest.mark.parametrize("decorator", list(decorators()))


class Key:
    """A key whose hash is that of all others, and whose comparison does something else first."""

    meanwhile = None
    depth = 0

    def __init__(self, number, hash_=1):
        self.number = number
        self.hash = hash_

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        if not isinstance(other, Key):
            return NotImplemented
        if Key.meanwhile is not None and Key.depth < 1:
            Key.depth += 1
            try:
                Key.meanwhile()
            finally:
                Key.depth -= 1
        return self.number == other.number


@pytest.fixture(autouse=True)
def quiet_keys():
    Key.meanwhile, Key.depth = None, 0
    yield
    Key.meanwhile, Key.depth = None, 0


def double(key):
    return key.number * 2


def check(cached, rounds=6, keys=5):
    """Every value is right, every call is counted, and the size is in bounds, now and once all is quiet."""
    for _ in range(rounds):
        for number in range(keys):
            assert cached(Key(number)) == 2 * number
            info = cached.cache_info()
            assert info.max_size is None or info.current_size <= info.max_size
    Key.meanwhile = None
    cached.cache_clear()
    assert cached.cache_info()[:2] == (0, 0)
    assert cached.cache_info().current_size == 0
    for number in range(keys):
        assert cached(Key(number)) == 2 * number
        assert cached(Key(number)) == 2 * number
    assert cached.cache_info()[:2] == (keys, keys)


@every
def test_keys_of_one_hash_have_their_own_values(decorator):
    check(decorator(double))


@every
def test_eq_may_call_the_function(decorator):
    cached = decorator(double)
    Key.meanwhile = lambda: [cached(Key(number)) for number in (0, 1, 99)]
    check(cached)


@every
def test_eq_may_clear(decorator):
    cached = decorator(double)
    Key.meanwhile = cached.cache_clear
    check(cached)


@every
def test_eq_may_invalidate(decorator):
    cached = decorator(double)
    Key.meanwhile = lambda: [cached.cache_invalidate(Key(number)) for number in range(3)]
    check(cached)


@every
def test_eq_may_look_and_count(decorator):
    cached = decorator(double)
    Key.meanwhile = lambda: (cached.cache_info(), cached.cache_contains(Key(1)), cached.cache_parameters())
    check(cached)


@every
def test_eq_may_insert_many_keys(decorator):
    cached = decorator(double)
    Key.meanwhile = lambda: [cached(Key(number, hash_=number)) for number in range(100, 150)]
    check(cached)


@every
def test_eq_may_change_everything_each_time(decorator):
    # No search that begins anew after every change would come to an end here.
    cached = decorator(double)
    fresh = iter(range(1000, 10**9))

    def meanwhile():
        cached.cache_clear()
        for number in range(5):
            cached(Key(number))
        cached(Key(next(fresh)))

    Key.meanwhile = meanwhile
    check(cached, rounds=3)


@every
def test_eq_may_collect_garbage(decorator):
    cached = decorator(double)
    Key.meanwhile = gc.collect
    check(cached, rounds=2, keys=3)


@every
def test_a_replaced_entry_is_not_returned_for_another_key(decorator):
    cached = decorator(double)
    cached(Key(0))

    def meanwhile():
        cached.cache_clear()
        cached(Key(43, hash_=2))

    Key.meanwhile = meanwhile
    assert cached(Key(0)) == 0


class Raising(Exception):
    pass


@every
def test_a_raising_eq_reaches_the_caller_and_leaves_the_cache(decorator):
    ran = []
    cached = decorator(ran.append)
    key = Key(0)
    cached(key)
    before = cached.cache_info()

    def meanwhile():
        raise Raising("eq")

    Key.meanwhile = meanwhile
    for call in (cached, cached.cache_contains, cached.cache_invalidate):
        with pytest.raises(Raising, match="eq"):
            call(Key(0))
    Key.meanwhile = None
    assert ran == [key]
    assert cached.cache_info().current_size == before.current_size
    assert cached.cache_contains(Key(0))


@every
def test_an_eq_that_raises_on_the_way_to_storing_reaches_the_caller(decorator):
    def run(key):
        Key.meanwhile = meanwhile if key.number == 1 else None
        return double(key)

    def meanwhile():
        raise Raising("eq")

    cached = decorator(run)
    cached(Key(0))
    try:
        assert cached(Key(1)) == 2
    except Raising:
        pass
    Key.meanwhile = None
    assert cached(Key(0)) == 0
    assert cached.cache_info()[1] >= 2


@every
def test_a_raising_hash_reaches_the_caller_and_leaves_the_cache(decorator):
    class NoHash:
        def __hash__(self):
            raise Raising("hash")

    ran = []
    cached = decorator(ran.append)
    cached(1)
    for call in (cached, cached.cache_contains, cached.cache_invalidate):
        with pytest.raises(Raising, match="hash"):
            call(NoHash())
    assert ran == [1]
    assert cached.cache_contains(1)
    assert cached.cache_info().current_size == 1


@every
def test_a_raising_bool_of_a_comparison_reaches_the_caller(decorator):
    class NoBool:
        def __bool__(self):
            raise Raising("bool")

    class Vague:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            return NoBool()

    cached = decorator(lambda key: 1)
    cached(Vague())
    with pytest.raises(Raising, match="bool"):
        cached(Vague())


@every
@pytest.mark.parametrize("what", ["call", "clear", "invalidate", "info", "collect"])
def test_hash_may_come_back(decorator, what):
    class Busy(Key):
        def __hash__(self):
            {
                "call": lambda: cached(Key(7)),
                "clear": cached.cache_clear,
                "invalidate": lambda: cached.cache_invalidate(Key(0)),
                "info": cached.cache_info,
                "collect": gc.collect,
            }[what]()
            return 1

    cached = decorator(double)
    for number in [0, 1, 2, 0, 1, 2]:
        assert cached(Busy(number)) == 2 * number
    info = cached.cache_info()
    assert info.max_size is None or info.current_size <= info.max_size


@every
@pytest.mark.parametrize("what", ["call", "clear", "invalidate", "insert many", "collect", "raise"])
def test_del_of_what_left_may_come_back(decorator, what, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    gone = []

    class Value:
        def __init__(self, number):
            self.number = number

        def __del__(self):
            gone.append(self.number)
            if len(gone) > 300:
                return
            if what == "call":
                assert cached(-1).number == -1
            elif what == "clear":
                cached.cache_clear()
            elif what == "invalidate":
                cached.cache_invalidate(0)
            elif what == "insert many":
                for number in range(100, 110):
                    assert cached(number).number == number
            elif what == "collect":
                gc.collect()
            else:
                raise Raising("del")

    cached = decorator(Value)
    for number in [0, 1, 2, 3, 0, 1, 2, 3] * 2:
        assert cached(number).number == number
    info = cached.cache_info()
    assert info.max_size is None or info.current_size <= info.max_size
    cached.cache_invalidate(3)
    cached.cache_clear()
    gone.extend([None] * 300)
    cached.cache_clear()
    assert cached.cache_info() == (0, 0, info.max_size, 0)
    assert cached(5).number == 5


@every
def test_del_of_a_key_may_come_back(decorator):
    class Mortal(Key):
        def __del__(self):
            if Key.depth < 3:
                Key.depth += 1
                cached(Key(7))
                cached.cache_invalidate(Key(1))
                Key.depth -= 1

    cached = decorator(double)
    for number in [0, 1, 2, 3, 4, 1, 0] * 4:
        assert cached(Mortal(number)) == 2 * number
    cached.cache_clear()
    assert cached(Key(3)) == 6


@every
def test_recursion_on_other_keys(decorator):
    @decorator
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(15) == 610
    hits, misses, max_size, size = fib.cache_info()
    assert max_size is None or size <= max_size
    if max_size is None:
        assert (hits, misses, size) == (13, 16, 16)


@every
def test_recursion_on_the_same_key(decorator):
    depth = 0

    @decorator
    def run(key):
        nonlocal depth
        depth += 1
        return run(key) if depth < 10 else "bottom"

    assert run(1) == "bottom"
    assert run.cache_info()[:2] == (0, 10)
    assert run.cache_info().current_size == 1
    assert run(1) == "bottom"
    assert run.cache_info()[:2] == (1, 10)


@every
def test_each_caller_of_the_same_key_gets_the_value_of_its_own_run(decorator):
    depth = 0

    @decorator
    def run(key):
        nonlocal depth
        depth += 1
        mine = depth
        if depth < 3:
            assert run(key) == mine + 1
        return mine

    assert run("a") == 1
    assert run.cache_info().current_size == 1


@every
def test_a_full_cache_stays_exact_through_recursion_on_the_same_key(decorator):
    # A late duplicate must neither evict anyone nor be left over.
    once = True

    @decorator
    def run(key):
        nonlocal once
        if key == 20 and once:
            once = False
            run(20)
        return f"({key})"

    for key in range(12):
        assert run(key) == f"({key})"
    before = run.cache_info()
    assert run(20) == "(20)"
    after = run.cache_info()
    assert after.current_size == (before.current_size if before.max_size else before.current_size + 1)
    assert run(20) == "(20)"


@every
@pytest.mark.parametrize("what", ["clear", "invalidate"])
def test_the_function_may_clear_or_invalidate(function_kind, decorator, what):
    @decorator
    def run(key):
        run.cache_clear() if what == "clear" else run.cache_invalidate(key)
        return key

    assert [run(1), run(2), run(1)] == [1, 2, 1]
    assert (run.cache_info().current_size > 0) is (function_kind == "plain")


@every
def test_deep_recursion_ends_in_a_recursion_error(decorator):
    @decorator
    def down(n):
        return down(n + 1)

    with pytest.raises(RecursionError):
        down(0)
    assert down.cache_info().current_size == 0

    @decorator
    def total(n):
        return n + total(n - 1) if n else 0

    assert total(50) == 1275


DEEP = """
import warp_cache

class Key:
    def __hash__(self): return 1
    def __eq__(self, other): return cached({argument})

cached = warp_cache.{decorator}(lambda key: 1)
cached(Key())
try:
    cached(Key())
except RecursionError:
    print("RecursionError")
class Deep:
    def __hash__(self): return cached(Deep())
try:
    cached(Deep())
except RecursionError:
    print("RecursionError")
"""


@plain_only
@pytest.mark.parametrize("decorator", ["cache", "lru_cache", "cache(max_size=2)", "lru_cache(maxsize=None)"])
def test_endless_recursion_through_eq_and_hash_ends_in_a_recursion_error(decorator):
    program = DEEP.format(decorator=decorator, argument="Key()")
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "RecursionError\nRecursionError\n"), done.stderr


NATIVE = """
import functools, warp_cache
cached = warp_cache.{decorator}(lambda key: cached(key + 1))
try:
    cached(0)
except RecursionError:
    print("RecursionError")
bare = warp_cache.{decorator}(functools.partial(lambda key: bare(key + 1)))
try:
    bare(0)
except RecursionError:
    print("RecursionError")
nested = len
for _ in range(20_000):
    nested = warp_cache.{decorator}(nested)
try:
    print(nested("abc"))
except RecursionError:
    print("RecursionError")
"""


@plain_only
@pytest.mark.parametrize("decorator", ["cache", "lru_cache"])
def test_native_recursion_does_not_overflow_the_stack(decorator):
    # A cached function around a cached function, twenty thousand deep, never enters the interpreter.
    done = subprocess.run(
        [sys.executable, "-c", NATIVE.format(decorator=decorator)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-300:])
    assert done.stdout.startswith("RecursionError\nRecursionError\n")


@every
def test_nan_hits_by_identity(decorator):
    ran = []
    cached = decorator(ran.append)
    nan = float("nan")
    cached(nan), cached(nan)
    assert len(ran) == 1


@every
def test_a_key_that_equals_nothing_hits_by_identity(decorator):
    class Never:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            return False

    cached = decorator(lambda key: 1)
    key = Never()
    cached(key), cached(key), cached(Never())
    assert cached.cache_info()[:2] == (1, 2)


@every
def test_each_argument_is_hashed_once(decorator):
    class Counting:
        hashed = 0

        def __hash__(self):
            Counting.hashed += 1
            return 1

    cached = decorator(lambda key: 1)
    key = Counting()
    cached(key)
    assert Counting.hashed == 1
    cached(key)
    assert Counting.hashed == 2
    for number in range(100):
        cached(number)
    cached.cache_clear()
    assert Counting.hashed == 2
