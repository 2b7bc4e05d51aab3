"""A process that changes its root or its user after decorating: what its functions need is there already, and a shared
cache that it no longer reaches goes on, for it and for all others."""

import os
import sys

import pytest
import survival

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="changes its root and its user"),
    pytest.mark.usefixtures("shared_directory"),
]

BEGIN = """
import datetime, sys, tempfile, os, warnings
import warp_cache
from warp_cache import cache, lru_cache

# Nothing may be imported for us by something else.
def away():
    how = sys.argv[1]
    empty = tempfile.mkdtemp()
    sys.path_importer_cache.clear()
    if how == "root":
        os.makedirs(empty + "/dev/shm")  # as in a root that more than one program is meant for
        os.chroot(empty)
        os.chdir("/")
    else:
        os.chmod(empty, 0o777)
        os.setgid(65534)
        os.setuid(65534)
        sys.path[:] = [empty]
"""
WAYS = ("root", "user")


def lives(source, how, out):
    survival.lives(BEGIN + source, how, out=out)


@pytest.mark.parametrize("how", WAYS)
def test_functions_go_on_and_can_still_be_decorated(how):
    source = """
class Key:
    pass

@cache
def f(x):
    return [x]
@cache(ttl=60)
async def g(x):
    return [x]

def value(call):
    try:
        call.send(None)
    except StopIteration as stop:
        return stop.value

def use(f, g):
    key = Key()
    assert f(1) is f(1) and f(key) is f(key) and f(x=2) == [2]
    assert value(g(1)) is value(g(1))
    f.cache_info(), g.cache_info(), f.cache_parameters(), f.cache_contains(1), f.cache_invalidate(1), repr(f)
    hasattr(f, "nothing"), hasattr(g, "nothing"), hasattr(g, "_is_coroutine_marker"), f.__class__
    f.cache_clear()

away()
use(f, g)
use(cache(f.__wrapped__), lru_cache(g.__wrapped__))
use(cache(ttl=1.5)(f.__wrapped__), cache(ttl=datetime.timedelta(1))(g.__wrapped__))
try:
    cache(ttl="x")
except TypeError as error:
    print(str(error)[:3])
"""
    lives(source, how, "ttl\n")


@pytest.mark.parametrize("how", WAYS)
def test_a_shared_cache_stores_what_is_to_be_pickled(how):
    source = """
warnings.simplefilter("error")

class Point:
    def __init__(self, x):
        self.x = x
    def __reduce__(self):
        return Point, (self.x,)
    def __eq__(self, other):
        return self.x == other.x
    def __hash__(self):
        return 1

@cache(backend="shared", name="points", version=1)
def f(point):
    return Point(point.x + 1)

f(Point(0))
away()
assert [f(Point(0)).x, f(Point(1)).x, f(Point(1)).x] == [1, 2, 2]
print(f.cache_info())
print(f.shared_stats()[2:])
"""
    info = "SharedCacheInfo(hits=2, misses=2, max_size=128, current_size=2, oversize_skips=0)"
    lives(source, how, f"{info}\n(0, 0, 0, 0, 0, None)\n")


@pytest.mark.parametrize("how", WAYS)
def test_whoever_no_longer_reaches_the_file_leaves_it_to_the_others(how, shared_directory):
    source = """
@cache(backend="shared", name="seen by two", version=1)
def f(x):
    return [x]

f(1)
path = f.shared_stats().path
child = os.fork()
if child == 0:
    assert f(1) == [1]
    away()
    for _ in range(3):
        assert f.cache_info().current_size == 1 and f(1) == [1] and f.cache_contains(1)
        f.shared_stats()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert os.path.exists(path)
print(f.cache_info())
"""
    lives(source, how, "SharedCacheInfo(hits=4, misses=1, max_size=128, current_size=1, oversize_skips=0)\n")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("has_stored", [False, True])
def test_whoever_can_no_longer_store_has_a_cache_of_its_own(how, has_stored, shared_directory):
    source = """
@cache(max_size=1000, backend="shared", name="large", version=1)
def f(x):
    return str(x) * 100

f(1)
path, child = f.shared_stats().path, os.fork()
if child == 0:
    f(2 if sys.argv[2] == "True" else 1)
    away()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            for x in range(1000):
                assert f(x) == str(x) * 100
    assert f.cache_info().current_size > 990 and f.cache_info().hits > 900, f.cache_info()
    [text] = [str(warning.message) for warning in caught]
    print(text.replace(os.environ["WARP_CACHE_DIR"], "DIR"), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert os.path.exists(path) and f.shared_stats().path == path and f.shared_stats().give_ups == 0
size = f.cache_info().current_size
assert size < 40, size  # what the child has stored before it looked whether others still see it
f("new"), f("new")
assert f.cache_info().current_size == size + 1
"""
    told = {
        "root": "DIR is refused: the process has changed its root since it was chosen",
        "user": "DIR is refused: it belongs to user 0, not to user 65534",
    }
    out = f"large: its values are cached in this process only: {told[how]}\n"
    survival.lives(BEGIN + source, how, has_stored, out=out)
