"""Memory that runs out: whatever allocation fails, a call raises MemoryError or is answered, and the cache goes on.

Each operation is tried with each of its first allocations failing, alone and with all that follow, in a process of its
own.
"""

import functools
import sys

import pytest
import survival

ALLOCATIONS = 60
posix = pytest.mark.skipif(sys.platform == "win32", reason="no shared memory on Windows")

BEGIN = """
import copy, gc, inspect, pickle, sys, warnings
import _testcapi
import warp_cache
from warp_cache import cache, lru_cache

warnings.simplefilter("ignore")
sys.unraisablehook = lambda unraisable: None  # of exceptions in destructors, for which there is no memory either
backend, allocations = sys.argv[1], int(sys.argv[2])
shared = {"backend": "shared", "name": "f", "version": 1} if backend == "shared" else {}
gc.disable()

class Key:
    # A key that only its own methods can compare, and that a shared cache has to take apart.
    def __init__(self, number):
        self.number = number
    def __hash__(self):
        return 7
    def __eq__(self, other):
        return self.number == other.number
    def __reduce__(self):
        return Key, (self.number,)

def body(*args, **kwargs):
    return ("value", args[0] if args else None)

def fixed(a, b=2, *, c=3):
    return ("value", a)

async def awaited(*args, **kwargs):
    return ("value", args[0] if args else None)

class Suspended:
    def __await__(self):
        yield "suspended"

async def suspends(*args, **kwargs):
    await Suspended()
    return ("value", args[0] if args else None)

def drive(call):
    try:
        while True:
            call.send(None)
    except StopIteration as stop:
        return stop.value

def expect(made, *wanted):
    assert made in wanted, made

fresh = iter(range(10**9))
"""

# What is tried: a set-up, which defines `act()` and what it may return, and what must hold afterwards.
CALLS = {
    "hit": ("f = cache(max_size=50, **shared)(body); f(1)", "f(1)", "('value', 1)"),
    "hit of several": ("f = cache(max_size=50, **shared)(body); f(1, 'two', 3.0)", "f(1, 'two', 3.0)", "('value', 1)"),
    "hit by name": ("f = cache(max_size=50, **shared)(fixed); f(1, b=5, c=6)", "f(c=6, b=5, a=1)", "('value', 1)"),
    "hit of other keywords": (
        "f = cache(max_size=50, **shared)(body); f(1, y=1, z=2)",
        "f(1, y=1, z=2)",
        "('value', 1)",
    ),
    "hit of a key of a class": ("f = cache(max_size=50, **shared)(body); k = Key(1); f(k)", "f(Key(1))[0]", "'value'"),
    "hit, typed": ("f = cache(max_size=50, typed=True, **shared)(body); f(1, 2)", "f(1, 2)", "('value', 1)"),
    "hit, ttl": ("f = cache(max_size=50, ttl=1000, **shared)(body); f(1)", "f(1)", "('value', 1)"),
    "hit of lru_cache": ("f = lru_cache(maxsize=50, **shared)(body); f(1, x=2)", "f(1, x=2)", "('value', 1)"),
    "miss": ("f = cache(max_size=50, **shared)(body)", "f(next(fresh))[0]", "'value'"),
    "miss that evicts": ("f = cache(max_size=2, **shared)(body); f('a'), f('b')", "f(next(fresh))[0]", "'value'"),
    "miss, unbounded": (
        "f = cache(max_size=10**6 if shared else None, **shared)(body)",
        "f(next(fresh))[0]",
        "'value'",
    ),
    "miss of LFU": ("f = cache('lfu', 4, **shared)(body); f('a')", "f(next(fresh))[0]", "'value'"),
    "miss without arguments": ("f = cache(max_size=50, **shared)(body)", "f()[0]", "'value'"),
    "miss of 25": ("f = cache(max_size=50, **shared)(body)", "f(next(fresh), *range(24))[0]", "'value'"),
    "miss by name": ("f = cache(max_size=50, **shared)(fixed)", "f(c=1, a=next(fresh))[0]", "'value'"),
    "miss of other keywords": ("f = lru_cache(maxsize=50, **shared)(body)", "f(next(fresh), x=1, y=2)[0]", "'value'"),
    "miss of a key of a class": ("f = cache(max_size=50, **shared)(body)", "f(Key(next(fresh)))[0]", "'value'"),
    "miss of a frozenset": ("f = cache(max_size=50, **shared)(body)", "f(frozenset([next(fresh)]))[0]", "'value'"),
    "miss that raises": (
        "f = cache(max_size=50, **shared)(lambda x: x / 0)",
        "type(raised(ZeroDivisionError, f, 1))",
        "ZeroDivisionError",
    ),
    "value of a class": ("f = cache(max_size=50, **shared)(lambda x: Key(x))", "f(next(fresh)).__class__", "Key"),
    "hit of a value of a class": ("f = cache(max_size=50, **shared)(lambda x: Key(x)); f(1)", "f(1).number", "1"),
    "value that has no pickle": ("f = cache(max_size=50, **shared)(lambda x: body)", "f(next(fresh))", "body"),
    "unhashable": ("f = cache(max_size=50, **shared)(body)", "type(raised(TypeError, f, [1]))", "TypeError"),
    "wrong arguments": ("f = cache(max_size=50, **shared)(fixed)", "type(raised(TypeError, f))", "TypeError"),
    "method": ("class A:\n    m = cache(max_size=50)(fixed)\na = A()", "a.m(next(fresh))[0]", "'value'"),
}
METHODS = {
    "cache_info": ("f = cache(max_size=50, **shared)(body); f(1)", "f.cache_info()[:4]", "(0, 1, 50, 1)"),
    "cache_info of lru_cache": (
        "f = lru_cache(maxsize=50, **shared)(body); f(1)",
        "f.cache_info()[:4]",
        "(0, 1, 50, 1)",
    ),
    "cache_clear": ("f = cache(max_size=50, **shared)(body); f(1)", "f.cache_clear()", "None"),
    "cache_parameters": ("f = cache(max_size=50, ttl=3, **shared)(body)", "f.cache_parameters()['max_size']", "50"),
    "cache_parameters of lru_cache": (
        "f = lru_cache(maxsize=50, **shared)(body)",
        "f.cache_parameters()['maxsize']",
        "50",
    ),
    "cache_contains": (
        "f = cache(max_size=50, **shared)(fixed); f(1)",
        "f.cache_contains(c=3, a=1), f.cache_contains(Key(1))",
        "(True, False)",
    ),
    "cache_invalidate": ("f = cache(max_size=50, **shared)(fixed)", "f(1) and f.cache_invalidate(b=2, a=1)", "True"),
    "invalidate a key of a class": (
        "f = cache(max_size=50, **shared)(fixed)",
        "f(Key(1)) and f.cache_invalidate(Key(1))",
        "True",
    ),
    "attribute that is not there": ("f = cache(**shared)(body)", "hasattr(f, 'nothing')", "False"),
    "attributes": (
        "f = cache(**shared)(body)",
        "f.__name__, f.__wrapped__, f.__doc__, f.__module__",
        "('body', body, None, '__main__')",
    ),
    "class": ("f = cache(**shared)(body)", "isinstance(f, type(cache)), f.__class__.__name__ != ''", "(False, True)"),
    "dict": ("f = cache(**shared)(body)", "f.__dict__['__wrapped__']", "body"),
    "setattr": ("f = cache(**shared)(body)", "setattr(f, 'mark', 1)", "None"),
    "repr": ("f = cache(**shared)(body)", "repr(f)[:1]", "'<'"),
    "dir": ("f = cache(**shared)(body)", "'cache_info' in dir(f)", "True"),
    "copy": ("f = cache(**shared)(body)", "copy.copy(f) is f and copy.deepcopy(f) is f", "True"),
    "pickle": ("body = cache(body)", "pickle.dumps(body)[:1]", "b'\\x80'"),
    "subscript": ("f = cache(**shared)(body)", "type(f)[int].__origin__", "type(f)"),
    "bound": ("f = cache(**shared)(body)", "f.__get__(1).__self__", "1"),
    "weakref": ("import weakref; f = cache(**shared)(body)", "weakref.ref(f)() is f", "True"),
    "collection": ("f = cache(**shared)(body); f(1)", "gc.collect() >= 0", "True"),
    "decorating": ("", "cache(max_size=3, **shared)(body)(1)", "('value', 1)"),
    "decorating at once": ("", "cache(fixed)(1)", "('value', 1)"),
    "decorating with everything": ("", "cache('lfu', 3, ttl=2.5, typed=True, **shared)(fixed)(1)", "('value', 1)"),
    "decorating with lru_cache": ("", "lru_cache(maxsize=3, typed=True, **shared)(fixed)(1)", "('value', 1)"),
    "decorating what is wrong": ("", "type(raised(TypeError, cache, ttl='x'))", "TypeError"),
    "decorating what is none": ("", "type(raised(TypeError, cache(max_size=1), 3))", "TypeError"),
    "enums": ("", "warp_cache.Strategy.LRU == 0, warp_cache.Backend(1) == 1", "(True, True)"),
}
COROUTINES = {
    "ready": ("f = cache(max_size=50, **shared)(awaited); drive(f(1))", "drive(f(1))", "('value', 1)"),
    "ready by name": (
        "f = lru_cache(maxsize=50, **shared)(awaited); drive(f(1, x=2))",
        "drive(f(1, x=2))",
        "('value', 1)",
    ),
    "await that misses": ("f = cache(max_size=50, **shared)(awaited)", "drive(f(next(fresh)))[0]", "'value'"),
    "await of 25": ("f = cache(max_size=50, **shared)(awaited)", "drive(f(next(fresh), *range(24)))[0]", "'value'"),
    "await by name": ("f = lru_cache(maxsize=50, **shared)(awaited)", "drive(f(next(fresh), y=1, x=2))[0]", "'value'"),
    "await of a key of a class": (
        "f = cache(max_size=50, **shared)(awaited)",
        "drive(f(Key(next(fresh))))[0]",
        "'value'",
    ),
    "await that suspends": ("f = cache(max_size=50, **shared)(suspends)", "drive(f(next(fresh)))[0]", "'value'"),
    "iteration": ("f = cache(max_size=50, **shared)(suspends)", "next(f(next(fresh)).__await__())", "'suspended'"),
    "never awaited": ("f = cache(max_size=50, **shared)(awaited)", "f(next(fresh)) and None", "None"),
    "close": ("f = cache(max_size=50, **shared)(suspends)", "f(next(fresh)).close()", "None"),
    "close, begun": ("f = cache(max_size=50, **shared)(suspends)", "begun(f(next(fresh))).close()", "None"),
    "throw": (
        "f = cache(max_size=50, **shared)(suspends)",
        "type(raised(KeyError, begun(f(next(fresh))).throw, KeyError(1)))",
        "KeyError",
    ),
    "coroutine's attributes": (
        "f = cache(max_size=50, **shared)(suspends)",
        "begun(f(next(fresh))).cr_running",
        "False",
    ),
    "coroutine's repr": ("f = cache(max_size=50, **shared)(suspends)", "repr(begun(f(next(fresh))))[:1]", "'<'"),
    "decorating a coroutine function": ("", "drive(cache(max_size=3, **shared)(awaited)(1))", "('value', 1)"),
    "mark": ("f = cache(max_size=50, **shared)(awaited)", "inspect.iscoroutinefunction(f)", "True"),
}
SHARED = {
    "shared_stats": ("f = cache(max_size=50, **shared)(body); f(1)", "f.shared_stats().repairs", "0"),
    "shared_regions": ("f = cache(max_size=50, **shared)(body); f(1)", "len(warp_cache.shared_regions()) > 0", "True"),
    "cache_unlink": ("f = cache(max_size=50, **shared)(body)", "f(1) and f.cache_unlink() in (True, False)", "True"),
}

WALK = """
def raised(kind, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except kind as error:
        return error

def begun(call):
    call.send(None)
    return call

def act():
    return {act}

expect(act(), {wanted})
for lasting in (False, True)[: int(sys.argv[3])]:
    for number in range(allocations):
        try:
            _testcapi.set_nomemory(number, 0 if lasting else number + 1)
            try:
                made = act()
            finally:
                _testcapi.remove_mem_hooks()
        except MemoryError:
            continue
        except SystemError as error:
            # Where Python has lost a MemoryError itself: its own words between two of its own frames, or ours, if the
            # error was on its way through one of ours.
            words = ("error return without exception set", "an error was reported, and no exception was set")
            assert str(error) in words, error
            continue
        # An exception inside an operation of Python's own that has none to raise says no, or nothing.
        expect(made, {wanted}, None, False, (False, False))
    expect(act(), {wanted})
print("end")
"""
AWAITING = {act for _, act, _ in COROUTINES.values() if "f(1" not in act}
CASES = {
    **{name: ("memory", *case) for name, case in (CALLS | METHODS | COROUTINES).items()},
    **{f"{name}, shared": ("shared", *case) for name, case in (CALLS | METHODS | COROUTINES | SHARED).items()},
}


# Up to 3.13 Python itself dies of these where no memory at all is left.
CONTEXT = """
import contextvars
variable = contextvars.ContextVar("variable")
def act():
    variable.set(1)
"""
NEVER_AWAITED = """
import warnings
warnings.simplefilter("ignore")
async def function():
    pass
def act():
    function()
"""
EXHAUST = """
import _testcapi
for number in range(30):
    _testcapi.set_nomemory(number)
    try:
        act()
    except MemoryError:
        pass
    finally:
        _testcapi.remove_mem_hooks()
"""


@functools.cache
def python_dies():
    return any(survival.run(source + EXHAUST).status != 0 for source in (CONTEXT, NEVER_AWAITED))


@pytest.mark.parametrize("name", CASES)
def test_each_allocation_may_fail(name, shared_directory):
    pytest.importorskip("_testcapi")
    backend, begin, act, wanted = CASES[name]
    if backend == "shared" and sys.platform == "win32":
        pytest.skip("no shared memory on Windows")
    source = BEGIN + begin + "\n" + WALK.replace("{act}", act).replace("{wanted}", wanted)
    # What is awaited runs in a context of its own, and what could not be awaited warns.
    walks = 1 if act in AWAITING and python_dies() else 2
    survival.lives(source, backend, ALLOCATIONS, walks, out="end\n", WARP_CACHE_DIR=str(shared_directory))


GROW = """
import resource, sys, warnings
from warp_cache import cache, lru_cache

warnings.simplefilter("ignore")
kind, room = sys.argv[1], int(sys.argv[2]) << 16
held = []

def drive(call):
    try:
        while True:
            call.send(None)
    except StopIteration as stop:
        return stop.value

class Wait:
    def __await__(self):
        yield

if kind == "one":
    f = cache(max_size=None)(lambda x: x)
    act = f
elif kind == "bounded":
    f = cache("lfu", 10**7, ttl=1000)(lambda x: x)
    act = f
elif kind == "text":
    f = cache(max_size=None)(lambda x: x * 10)
    act = lambda x: f(str(x))
elif kind == "pending":
    @cache(max_size=None)
    async def f(x, y=0):
        await Wait()
        return x
    def act(x):
        call = f(x)
        call.send(None)
        held.append(call)
elif kind == "decorating":
    f = cache(lambda x, y=0: x)
    def act(x):
        g = cache(max_size=None)(lambda x: x)
        held.append(g)
        g(1)

def grow():
    # A handler of its own: one far down in a module makes an int, and where there is no memory for it Python up to 3.12
    # tries for ever.
    try:
        for x in range(300_000):
            act(x)
    except (MemoryError, SystemError):  # the latter where Python itself has lost the former
        pass

act(-1)
ballast = bytearray(4 << 20)
lifted = resource.RLIM_INFINITY, resource.RLIM_INFINITY
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))
grow()
del ballast
resource.setrlimit(resource.RLIMIT_AS, lifted)
held.clear()
f.cache_info()
f.cache_clear()
again = drive(f(1)) if kind == "pending" else f("a") if kind == "text" else f(1)
assert f.cache_info()[:2] == (0, 1) and f.cache_info().current_size == 1
print("end")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("room", [40, 97, 150])
@pytest.mark.parametrize("kind", ["one", "bounded", "text", "pending", "decorating"])
def test_a_program_that_grows_to_a_real_limit_is_not_killed(kind, room):
    ended = survival.run(GROW, kind, room)
    assert not ended.died, ended
    # Python may fail to handle the MemoryError for want of memory, and then ends the program by it.
    assert (ended.status, ended.out) == (0, "end\n") or (ended.status == 1 and "MemoryError" in ended.err), ended
