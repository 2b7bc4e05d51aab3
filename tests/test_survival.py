"""Nothing that a program does may kill it: recursion, interpreters beside the main one, threads that are gone, and the
exception class of panics."""

from __future__ import annotations

import sys

import pytest
import survival


def run(source: str, *arguments: object) -> tuple[int | str, str, str]:
    """Runs a script in a process of its own: its status, and what it wrote."""
    ended = survival.run(source, *arguments)
    return ended.status, ended.out, ended.err


DEPTH = """
import functools, sys, threading, warnings
import warp_cache

warnings.simplefilter("ignore")
decorator, shape, limit, stack = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if decorator == "functools":
    decorate = functools.lru_cache(None)
elif decorator == "shared":
    decorate = warp_cache.cache(backend="shared")
elif decorator == "awaitable":
    class Awaitable:
        def __init__(self, coroutine):
            self.coroutine = coroutine
        def __await__(self):
            return self.coroutine.__await__()
    decorate = lambda function: lambda *args: Awaitable(function(*args))
else:
    decorate = getattr(warp_cache, decorator)(max_size=None)
deepest = 0
if shape == "one":
    @decorate
    def f(n):
        global deepest
        deepest = n
        return f(n + 1)
    begin = lambda: f(0)
elif shape == "several":
    @decorate
    def f(n, a, b):
        global deepest
        deepest = n
        return f(n + 1, a, b)
    begin = lambda: f(0, 1, 2)
elif shape == "keywords":
    @decorate
    def f(n, a=1):
        global deepest
        deepest = n
        return f(a=2, n=n + 1)
    begin = lambda: f(a=2, n=0)
elif shape == "kwargs":
    @decorate
    def f(n, **kwargs):
        global deepest
        deepest = n
        return f(n + 1, x=1)
    begin = lambda: f(0, x=1)
elif shape == "coroutine":
    @decorate
    async def f(n):
        global deepest
        deepest = n
        return await f(n + 1)
    async def main():
        return await f(0)
    begin = lambda: main().send(None)

def try_it():
    sys.setrecursionlimit(limit)
    try:
        begin()
    except RecursionError:
        sys.setrecursionlimit(1000)
        print(deepest)

if stack:
    threading.stack_size(stack << 10)
    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
else:
    try_it()
"""


def depth(decorator: str, shape: str, limit: int, stack: int = 0) -> int | None:
    """How deep a function that calls itself gets until RecursionError is raised; None if the process dies."""
    status, out, _ = run(DEPTH, decorator, shape, limit, stack)
    return int(out) if status == 0 and out else None


def enough(expected: int) -> int:
    """How deep is deep enough. From 3.14 on the size of the stack decides, of which a free-threaded build uses more."""
    return expected * 3 // 4 if sys.version_info >= (3, 14) else expected - 5 - expected // 50


@pytest.mark.parametrize("limit", [1_000, 8_000, 100_000])
@pytest.mark.parametrize("shape", ["one", "several", "keywords", "kwargs"])
@pytest.mark.parametrize("decorator", ["cache", "lru_cache"])
def test_a_function_that_calls_itself_gets_as_deep_as_with_functools(decorator, shape, limit):
    reached, expected = depth(decorator, shape, limit), depth("functools", shape, limit)
    assert reached is not None
    assert expected is None or reached >= enough(expected)


@pytest.mark.parametrize("shape", ["one", "several", "keywords", "kwargs"])
@pytest.mark.parametrize("decorator", ["cache", "lru_cache"])
def test_a_thread_with_a_small_stack_gets_as_deep_as_with_functools(decorator, shape):
    for limit in (1_000, 20_000):
        reached, expected = depth(decorator, shape, limit, 512), depth("functools", shape, limit, 512)
        assert reached is not None
        assert expected is None or reached >= enough(expected)


@pytest.mark.skipif(sys.platform == "win32", reason="no shared backend")
@pytest.mark.parametrize("stack", [0, 512])
def test_a_shared_function_that_calls_itself_raises_recursion_error(stack):
    for limit in (1_000, 20_000):
        assert depth("shared", "one", limit, stack) is not None


@pytest.mark.parametrize("limit", [1_000, 8_000, 100_000])
def test_a_coroutine_function_that_awaits_itself_gets_as_deep_as_with_an_awaitable_of_python(limit):
    reached, expected = depth("cache", "coroutine", limit), depth("awaitable", "coroutine", limit)
    assert reached is not None
    # From 3.12 on the interpreter runs the coroutine of a Python awaitable without its own stack.
    assert expected is None or sys.version_info >= (3, 12) or abs(reached - expected) <= 5 + expected // 50


def test_a_thread_with_a_small_stack_that_awaits_deeply_raises_recursion_error():
    assert depth("cache", "coroutine", 100_000, 512) is not None


SUBINTERPRETER = """
import sys
import _testcapi

if sys.argv[1] == "first":
    import warp_cache
script = '''
try:
    import warp_cache
except ImportError as error:
    print("subinterpreter" in str(error))
'''
assert _testcapi.run_in_subinterp(script) == 0
import warp_cache
assert warp_cache.cache(lambda x: x)(1) == 1
print("main", flush=True)
"""


@pytest.mark.parametrize("order", ["first", "last"])
def test_an_import_in_a_subinterpreter_is_refused_and_the_main_one_goes_on(order):
    pytest.importorskip("_testcapi")
    assert run(SUBINTERPRETER, order)[:2] == (0, "True\nmain\n")


ENDED_THREADS = """
import threading, warnings
import warp_cache

warnings.simplefilter("ignore")  # of misses that nobody awaits

@warp_cache.cache
async def f(x):
    return [x]

def value(awaitable):
    try:
        awaitable.send(None)
    except StopIteration as stop:
        return stop.value

def ended(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()

def make():
    for x in range(5):
        box.append((x, f(x)))
        assert value(f(x)) == [x]

def drive():
    while box:
        x, awaitable = box.pop()
        if len(box) % 2:
            try:
                next(awaitable.__await__())
            except StopIteration as stop:
                assert stop.value == [x]
        del awaitable

box = []
for _ in range(300):
    ended(make)
    ended(drive)
print(f.cache_info().current_size)
"""


def test_an_awaitable_outlives_the_thread_that_made_it():
    assert run(ENDED_THREADS) == (0, "5\n", "")


PANIC = """
import asyncio, sys, warnings
import warp_cache

warnings.simplefilter("ignore")  # of shared caches that have no file

def below(kind):
    for derived in type.__subclasses__(kind):
        yield derived
        yield from below(derived)

Panic = next(kind for kind in below(BaseException) if kind.__name__ == "PanicException")
cache = warp_cache.cache if sys.argv[1] == "memory" else warp_cache.cache(backend="shared")

@cache
def plain(x):
    raise Panic("function")

@cache
async def coroutine(suspends):
    if suspends:
        await asyncio.sleep(0)
    raise Panic("coroutine")

class Key:
    def __init__(self, where=None):
        self.where = where
    def __hash__(self):
        if self.where == "hash":
            raise Panic("hash")
        return 1
    def __eq__(self, other):
        if "eq" in (self.where, other.where):
            raise Panic("eq")
        return self is other
    def __reduce__(self):
        raise Panic("reduce")

@cache
def identity(x):
    return 1

def raised(function, *args):
    try:
        function(*args)
    except Panic as panic:
        return str(panic)

async def wait(suspends):
    both = await asyncio.gather(coroutine(suspends), coroutine(suspends), return_exceptions=True)
    return [str(one) for one in both]

async def throw():
    call = coroutine(True)
    call.send(None)
    return raised(call.throw, Panic("thrown"))

if sys.argv[1] == "memory":
    identity(Key())
    print(raised(identity, Key("hash")), raised(identity, Key("eq")), raised(identity.cache_contains, Key("hash")))
else:
    print(raised(identity, Key("hash")), raised(identity, Key()), raised(identity.cache_contains, Key()))
print(raised(plain, 1), raised(plain, 1), plain.cache_info()[:2], plain.cache_info().current_size)
print(asyncio.run(wait(False)), asyncio.run(wait(True)), asyncio.run(throw()), coroutine.cache_info().current_size)
"""


@pytest.mark.parametrize(
    ("backend", "first"),
    [
        ("memory", "hash eq hash"),
        pytest.param(
            "shared",
            "hash reduce reduce",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="no shared backend"),
        ),
    ],
)
def test_the_exception_class_of_panics_is_raised_like_any_other(backend, first):
    both = ["coroutine", "coroutine"]
    expected = f"{first}\nfunction function (0, 2) 0\n{both} {both} thrown 0\n"
    assert run(PANIC, backend) == (0, expected, "")
