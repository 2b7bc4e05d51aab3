"""backend="shared": what a caller may rely on, in one process and in several."""

import asyncio
import copy
import datetime
import decimal
import gc
import inspect
import itertools
import math
import os
import pathlib
import pickle
import random
import signal
import stat
import subprocess
import sys
import threading
import time
import uuid
import warnings
import weakref

import pytest
import shared_workers as workers
from hypothesis import given, settings
from hypothesis import strategies as st
from model import TTL, Pair, steps
from shared_workers import in_child, outside, printed, recorded, script
from steps import drive, settle
from warp_cache.warp_cache import _ManualClock

import warp_cache
from warp_cache import Backend, SharedCacheInfo, Strategy, lru_cache

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no shared memory on Windows"),
    pytest.mark.usefixtures("shared_directory"),
]
STRATEGIES = ["lru", "mru", "fifo", "lfu"]
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


def shared(*arguments, decorator=None, **options):
    """A decorator of the shared backend. The functions of a test have closures: name and version stand for them."""
    return (decorator or warp_cache.cache)(*arguments, **{"backend": "shared", "name": "test", "version": 0, **options})


def counts(f):
    return tuple(f.cache_info()[:2])


def add(a, b=2):
    return a + b


class Runs:
    """A function that answers with what it was called with, and counts its runs."""

    def __init__(self):
        self.count = 0

    def __call__(self, x):
        self.count += 1
        return x


def echo_cached(**options):
    """A cached function of one argument, and the count of its runs."""
    runs = Runs()

    def echo(x):
        return runs(x)

    return shared(**options)(echo), runs


# The decorator and its region


@pytest.mark.parametrize("backend", [Backend.SHARED, 1, "shared", "SHARED", "Shared"])
@pytest.mark.parametrize("decorator", [warp_cache.cache, lru_cache])
def test_the_backend_may_be_given_as_member_number_or_name(decorator, backend):
    f = shared(decorator=decorator, backend=backend)(add)
    assert [f(1), f(1)] == [3, 3]
    assert f.cache_info() == (1, 1, 128, 1, 0)


@pytest.mark.parametrize(
    "form",
    [
        lambda f: warp_cache.cache(f, backend="shared", name="test", version=0),
        lambda f: warp_cache.cache(backend="shared", name="test", version=0)(f),
        lambda f: warp_cache.cache(Strategy.LRU, 128, None, "shared", 512, 4096, name="test", version=0)(f),
        lambda f: warp_cache.cache(backend="shared", name="test", version=0, typed=False)(f),
    ],
)
def test_every_form_gives_the_same_region(form):
    shared()(add)(1)
    f = form(add)
    assert f(1) == 3
    assert f.cache_info() == (1, 1, 128, 1, 0)


def test_cache_parameters_hold_every_parameter_in_force():
    f = shared("lfu", 50, 60, max_key_size=100, max_value_size=200, typed=True, version=3)(add)
    assert (
        f.cache_parameters().items()
        >= {
            "strategy": Strategy.LFU,
            "max_size": 50,
            "ttl": 60,
            "backend": Backend.SHARED,
            "max_key_size": 100,
            "max_value_size": 200,
            "typed": True,
            "name": "test",
            "version": 3,
        }.items()
    )
    assert f.cache_parameters()["backend"] is Backend.SHARED


def test_name_and_version_are_accepted_in_memory_without_effect():
    f = warp_cache.cache(name="anything", version=1)(add)
    g = warp_cache.cache(name="anything", version=1)(add)
    f(1), g(1)
    assert f.cache_info() == g.cache_info() == (0, 1, 128, 1)
    assert lru_cache(name="x", version="y")(add).cache_parameters() == {"maxsize": 128, "typed": False}


@pytest.mark.parametrize("backend", ["memory", "shared"])
@pytest.mark.parametrize("decorator", [warp_cache.cache, lru_cache])
@pytest.mark.parametrize("name", [1, b"name", ["name"], object(), 1.5])
def test_a_name_that_is_no_string_is_a_type_error(decorator, name, backend):
    with pytest.raises(TypeError, match="name"):
        decorator(backend=backend, name=name)(add)


@pytest.mark.parametrize("backend", ["memory", "shared"])
@pytest.mark.parametrize("decorator", [warp_cache.cache, lru_cache])
@pytest.mark.parametrize("version", [1.5, b"1", [1], object()])
def test_a_version_that_is_no_string_and_no_int_is_a_type_error(decorator, version, backend):
    with pytest.raises(TypeError, match="version"):
        decorator(backend=backend, name="test", version=version)(add)


NAMES = ["a", "a/b", "../../etc/passwd", "..", ".", "/", "nul\0byte", "ünï", "\U0001f600" * 60, "x" * 5000, "a b", "%s"]


@pytest.mark.parametrize("name", NAMES)
def test_any_text_is_a_name_and_its_file_stays_in_the_folder(name, shared_directory):
    f = shared(name=name)(add)
    assert [f(1), f(1)] == [3, 3]
    path = pathlib.Path(f.shared_stats().path)
    assert path.parent == shared_directory
    assert path.exists()
    assert list(shared_directory.parent.glob("etc*")) == []


@pytest.mark.parametrize("name", ["", "\ud800"])
def test_a_strange_name_works_or_is_a_value_error(name):
    try:
        f = shared(name=name)(add)
    except ValueError:
        return
    assert [f(1), f(1)] == [3, 3]


def test_names_that_look_alike_are_different():
    for name in NAMES:
        f = shared(name=name)(lambda: name)  # noqa: B023
        assert f() == name
        assert f() == name


@pytest.mark.parametrize("version", [2**63, -(10**100), "\ud800"])
def test_a_version_that_is_too_large_or_no_text_is_a_value_error(version):
    with pytest.raises(ValueError, match="version"):
        shared(version=version)


@pytest.mark.parametrize("version", [0, 1, -1, 2**63 - 1, -(2**63), "", "1.2", "x" * 5000, "nul\0"])
def test_any_other_string_or_int_is_a_version(version):
    f = shared(version=version)(add)
    assert [f(1), f(1)] == [3, 3]
    assert counts(f) == (1, 1)


def test_each_version_begins_afresh():
    versions = [None, 1, 2, -1, "a", "b", 2**63 - 1, 2**62]
    made = [shared(version=version)(lambda version=version: str(version)) for version in versions]
    assert [f() for f in made] == [str(version) for version in versions]
    assert [f() for f in made] == [str(version) for version in versions]
    assert [counts(f) for f in made] == [(1, 1)] * len(versions)


@pytest.mark.parametrize("decorator", [warp_cache.cache, lru_cache])
def test_no_bound_is_a_value_error(decorator):
    with pytest.raises(ValueError, match="max_size|maxsize"):
        decorator(max_size=None, backend="shared")(add)


def test_no_bound_as_the_size_of_lru_cache_is_a_value_error():
    with pytest.raises(ValueError, match="max_size|maxsize"):
        lru_cache(None, backend="shared")(add)


@pytest.mark.parametrize("max_size", [-1, -(2**64), 2**64])
def test_a_size_out_of_range_is_a_value_error(max_size):
    with pytest.raises(ValueError, match="max_size"):
        shared(max_size=max_size)


def test_no_file_is_made_before_the_first_use(shared_directory):
    f = shared()(add)
    assert list(shared_directory.iterdir()) == []
    f(1)
    assert [each.suffix for each in shared_directory.iterdir() if each.name.endswith(".wc")] == [".wc"]


def test_the_file_and_its_folder_are_the_users_alone(shared_directory, monkeypatch):
    folder = shared_directory / "made"
    monkeypatch.setenv("WARP_CACHE_DIR", str(folder))
    old = os.umask(0)
    try:
        f = shared()(add)
        f(1)
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert workers.modes(folder) == [0o600]
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o700 for each in folder.rglob("*") if each.is_dir())


def test_the_file_has_a_readable_name(shared_directory):
    f = shared(name="prices")(add)
    f(1)
    path = pathlib.Path(f.shared_stats().path)
    assert path.parent == shared_directory
    prefix, _, digits = path.stem.rpartition("-")
    assert "prices" in prefix
    assert len(digits) == 32 and int(digits, 16) >= 0
    assert path.suffix == ".wc"


def test_the_folder_is_the_one_of_the_time_of_decoration(shared_directory, monkeypatch):
    f = shared()(add)
    other = shared_directory / "other"
    monkeypatch.setenv("WARP_CACHE_DIR", str(other))
    g = shared()(add)
    f(1), g(1)
    assert pathlib.Path(f.shared_stats().path).parent == shared_directory
    assert pathlib.Path(g.shared_stats().path).parent == other
    assert counts(f) == counts(g) == (0, 1)


def test_shared_stats_are_a_named_tuple():
    f = shared()(add)
    f(1)
    stats = f.shared_stats()
    counted = ("steals", "repairs", "give_ups", "checksum_failures", "unstorable")
    assert stats._fields == ("path", "bytes", *counted, "unstorable_reason")
    assert stats[2:] == (0, 0, 0, 0, 0, None)
    assert 0 < stats.bytes <= pathlib.Path(stats.path).stat().st_size
    assert type(stats).__name__ == "SharedStats"


class Unpicklable:
    def __reduce_ex__(self, protocol):
        raise ValueError("a secret")


class Wordless(Exception):
    def __str__(self):
        raise KeyError


class Silent:
    def __reduce_ex__(self, protocol):
        raise Wordless


def nested(depth):
    return (nested(depth - 1),) if depth else frozenset({1})


@pytest.mark.parametrize(
    ("argument", "value", "reason"),
    [
        (1, Unpicklable(), "ValueError: a secret"),
        (Unpicklable(), 1, "ValueError: a secret"),
        (1, Silent(), "Wordless"),
        (object(), 1, "an instance of object is known by its identity alone"),
        (nested(40), 1, "it is nested too deep"),
        (1, threading.Lock(), "TypeError: cannot pickle '_thread.lock' object"),
    ],
)
def test_what_is_not_stored_for_another_reason_than_size_is_counted_apart(argument, value, reason):
    f = shared()(lambda x: value)
    f(argument), f(argument)
    assert f.cache_info()[:2] == (0, 2)
    assert f.cache_info().oversize_skips == f.shared_stats().unstorable == 2
    assert f.shared_stats().unstorable_reason == reason
    f.cache_clear()
    assert f.cache_info().oversize_skips == f.shared_stats().unstorable == 0
    assert f.shared_stats().unstorable_reason is None


def test_what_is_too_large_is_not_counted_as_unstorable():
    f = shared(max_value_size=10, max_key_size=100)(lambda x: "x" * 20)
    f(1), f("x" * 200)
    assert f.cache_info().oversize_skips == 2
    assert f.shared_stats()[-2:] == (0, None)


def test_what_ends_more_than_a_pickle_is_no_reason():
    class Stop:
        def __reduce_ex__(self, protocol):
            raise KeyboardInterrupt

    f = shared()(lambda x: Stop())
    with pytest.raises(KeyboardInterrupt):
        f(1)
    assert f.shared_stats()[-2:] == (0, None)


def test_an_entry_of_two_ints_takes_little_room():
    f = shared(max_size=1000)(add)
    for number in range(1000):
        f(number)
    assert pathlib.Path(f.shared_stats().path).stat().st_blocks * 512 < 400_000


@pytest.mark.parametrize("method", ["cache_unlink", "shared_stats"])
@pytest.mark.parametrize("decorator", [warp_cache.cache, lru_cache])
def test_what_only_a_shared_function_has_is_a_type_error_in_memory(decorator, method):
    with pytest.raises(TypeError):
        getattr(decorator(add), method)()


# Hits, and what is counted


def test_a_function_decorated_twice_has_one_cache():
    f, runs = echo_cached()
    g, more_runs = echo_cached()
    assert [f(1), g(1), g(2), f(2)] == [1, 1, 2, 2]
    assert (runs.count, more_runs.count) == (1, 1)
    assert f.cache_info() == g.cache_info() == (2, 2, 128, 2, 0)


def test_what_one_process_stores_another_hits():
    f = shared(name="worker")(workers.value)
    assert in_child(lambda: workers.cached()(7)[0]) == 7
    assert f(7) == workers.value(7)
    assert counts(f) == (1, 1)
    assert outside("use_twice", functions=1)["runs"] == len(workers.KEYS) - 1
    assert f.cache_info().current_size == len(workers.KEYS)


def test_the_statistics_are_those_of_all_processes():
    f = shared()(add)
    f(1), f(1)
    for _ in range(3):
        assert in_child(lambda: list(shared()(add).cache_info()) and [shared()(add)(1), f(2)]) == [3, 4]
    assert f.cache_info() == (1 + 3 + 2, 1 + 1, 128, 2, 0)
    assert in_child(lambda: list(f.cache_info())) == [6, 2, 128, 2, 0]


def test_info_is_a_named_tuple():
    f = shared(max_size=5)(add)
    f(1), f(1)
    info = f.cache_info()
    assert type(info) is SharedCacheInfo
    assert info == (1, 1, 5, 1, 0)
    assert SharedCacheInfo._fields == ("hits", "misses", "max_size", "current_size", "oversize_skips")
    assert (info.hits, info.misses, info.max_size, info.current_size, info.oversize_skips) == (1, 1, 5, 1, 0)
    assert (info.maxsize, info.currsize) == (5, 1)
    assert repr(info) == "SharedCacheInfo(hits=1, misses=1, max_size=5, current_size=1, oversize_skips=0)"
    assert info._asdict()["oversize_skips"] == 0


def test_a_miss_is_counted_before_the_function_runs():
    seen = []

    @shared()
    def f(x):
        seen.append(counts(f))

    f(1), f(1), f(2)
    assert seen == [(0, 1), (1, 2)]


def test_contains_counts_nothing_and_touches_nothing():
    f, _ = echo_cached(max_size=2)
    f("a"), f("b")
    assert [f.cache_contains("a"), f.cache_contains("c")] == [True, False]
    assert counts(f) == (0, 2)
    f("c")
    assert [f.cache_contains(key) for key in "abc"] == [False, True, True]


def test_invalidate_drops_one_entry_for_every_process():
    f, runs = echo_cached()
    f(1), f(2)
    assert in_child(lambda: [echo_cached()[0].cache_invalidate(1) for _ in range(2)]) == [True, False]
    assert [f.cache_contains(1), f.cache_contains(2)] == [False, True]
    assert f.cache_info() == (0, 2, 128, 1, 0)
    f(1)
    assert runs.count == 3


def test_clear_clears_for_every_process():
    f, runs = echo_cached()
    f(1), f(1), f("x" * 600)
    assert in_child(lambda: echo_cached()[0].cache_clear()) is None
    assert f.cache_info() == (0, 0, 128, 0, 0)
    assert f.cache_contains(1) is False
    f(1)
    assert (runs.count, counts(f)) == (3, (0, 1))


def test_a_process_sees_at_once_what_another_one_cleared():
    f, _ = echo_cached()
    for number in range(20):
        f(number)
        assert in_child(
            lambda number=number: [f.cache_contains(number), f.cache_clear(), f.cache_contains(number)]
        ) == [
            True,
            None,
            False,
        ]
        assert f.cache_contains(number) is False
        assert f.cache_info().current_size == 0


def test_a_process_may_look_and_drop_before_it_calls(tmp_path):
    f = shared(name="worker")(workers.value)
    f(1), f(1), f(2)
    source = "import shared_workers\nf = shared_workers.cached()\nprint("
    path = tmp_path / "cold.py"
    assert printed(path, source=source + "*f.cache_info())") == "1 2 128 2 0"
    assert printed(path, source=source + "f.cache_contains(1), f.cache_contains(3))") == "True False"
    assert printed(path, source=source + "f.cache_invalidate(1), f.cache_invalidate(3))") == "True False"
    assert [f.cache_contains(1), f.cache_contains(2)] == [False, True]
    assert printed(path, source=source + "f.shared_stats().path)") == f.shared_stats().path
    assert printed(path, source=source + "f.cache_clear())") == "None"
    assert f.cache_info() == (0, 0, 128, 0, 0)


def test_statistics_can_be_pickled():
    f = shared()(add)
    f(1)
    for each in (f.cache_info(), f.shared_stats(), warp_cache.shared_regions()[0]):
        back = pickle.loads(pickle.dumps(each))
        assert (back, type(back)) == (each, type(each))


# Unlinking, and listing


def test_unlink_removes_the_file_and_the_next_call_begins_a_new_one(shared_directory):
    f, runs = echo_cached()
    f(1)
    path = pathlib.Path(f.shared_stats().path)
    assert f.cache_unlink() is True
    assert not path.exists()
    assert list(shared_directory.glob("*.wc")) == []
    assert [f(1), f(1)] == [1, 1]
    assert runs.count == 2
    assert f.cache_info() == (1, 1, 128, 1, 0)
    assert pathlib.Path(f.shared_stats().path).exists()


def test_unlink_says_when_there_is_no_file(shared_directory):
    f, _ = echo_cached()
    assert f.cache_unlink() is False
    f(1)
    assert [f.cache_unlink(), f.cache_unlink()] == [True, False]
    assert list(shared_directory.glob("*.wc")) == []


def test_unlink_removes_what_an_earlier_process_left(shared_directory):
    in_child(lambda: echo_cached()[0](1))
    f, runs = echo_cached()
    assert f.cache_unlink() is True
    assert list(shared_directory.glob("*.wc")) == []
    f(1)
    assert runs.count == 1


def test_the_others_go_on_after_an_unlink_and_meet_again_in_a_new_file(shared_directory):
    f, _ = echo_cached()
    g, _ = echo_cached()
    h, _ = echo_cached()
    for each in (f, g, h):
        assert each(1) == 1
    assert in_child(lambda: echo_cached()[0].cache_unlink()) is True
    for number in range(50):
        assert [each(number) for each in (f, g, h)] == [number] * 3
    assert len(list(shared_directory.glob("*.wc"))) == 1
    f("news")
    assert g.cache_contains("news")
    assert f.shared_stats().path == g.shared_stats().path == h.shared_stats().path


def test_the_listing_tells_what_is_in_the_folder(shared_directory):
    assert warp_cache.shared_regions() == []
    f, _ = echo_cached(name="first", max_size=10)
    g, _ = echo_cached(name="second", max_size=20)
    f(1), f(1), f(2), g(1)
    first, second = sorted(warp_cache.shared_regions(), key=lambda region: region.max_size)
    assert first._fields == ("name", "path", "bytes", "entries", "max_size", "hits", "misses", "processes")
    assert type(first).__name__ == "SharedRegion"
    assert [first.name, second.name] == ["first", "second"]
    assert [first.path, second.path] == [f.shared_stats().path, g.shared_stats().path]
    assert first.bytes == f.shared_stats().bytes
    assert [first[3:7], second[3:7]] == [(2, 10, 1, 2), (1, 20, 0, 1)]
    assert first.processes == second.processes == 1


def test_the_listing_names_a_function_without_a_name(tmp_path):
    source = """
import warp_cache
@warp_cache.cache(backend="shared")
def price(x):
    return x
price(1)
print(*(region.name for region in warp_cache.shared_regions()))
"""
    assert "price" in printed(tmp_path / "shop.py", source=source)


def counted_while(program, *arguments):
    """How many processes the only region of the folder is said to have while a process runs `program`."""
    child = subprocess.Popen(
        [sys.executable, *map(str, arguments), "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout.read(1) == b"."
        return warp_cache.shared_regions()[0].processes
    finally:
        child.communicate(b".")


READER = """
import os, sys, warp_cache
f = warp_cache.cache(lambda x: x, backend="shared", name="test", version=0)
f(1)
print(".", end="", flush=True)
sys.stdin.read(1)
"""


def test_the_listing_counts_living_processes():
    f, _ = echo_cached()
    f(1)
    assert counted_while(READER) == 2
    assert warp_cache.shared_regions()[0].processes == 1


def test_a_process_counts_once_however_many_of_its_functions_share_the_region():
    functions = []

    def use():
        functions.append(echo_cached()[0])
        for f in functions:
            f(len(functions))
        return [region.processes for region in warp_cache.shared_regions()]

    assert [use(), use(), use()] == [[1], [1], [1]]
    assert in_child(use) == [2]
    assert use() == [1]


@pytest.mark.parametrize("key", [1, 2], ids=["that only hits", "that stores"])
def test_the_listing_counts_a_forked_process(key):
    f, _ = echo_cached()
    f(1)

    def use():
        f(key)
        return [region.processes for region in warp_cache.shared_regions()]

    assert in_child(use) == [2]
    assert warp_cache.shared_regions()[0].processes == 1


def test_only_what_nobody_uses_is_removed(shared_directory):
    in_child(lambda: echo_cached(name="left")[0](1))
    f, runs = echo_cached(name="used")
    f(1)
    assert sorted((region.name, region.processes) for region in warp_cache.shared_regions()) == [
        ("left", 0),
        ("used", 1),
    ]
    stranger = shared_directory / "notes.txt"
    stranger.write_text("mine")
    assert [region.name for region in warp_cache.shared_regions(remove_unused=True)] == ["used"]
    assert [region.name for region in warp_cache.shared_regions()] == ["used"]
    assert len(list(shared_directory.glob("*.wc"))) == 1
    assert stranger.read_text() == "mine"
    assert f(1) == 1
    assert (runs.count, counts(f)) == (1, (1, 1))


def test_another_process_removes_nothing_that_this_one_uses():
    f, _ = echo_cached()
    f(1)
    assert outside("remove_unused") == 1
    assert f.cache_contains(1)
    assert os.path.exists(f.shared_stats().path)


def test_the_listing_takes_keywords_only():
    with pytest.raises(TypeError):
        warp_cache.shared_regions(True)


def test_the_listing_of_no_folder_is_empty(shared_directory, monkeypatch):
    monkeypatch.setenv("WARP_CACHE_DIR", str(shared_directory / "nowhere"))
    assert warp_cache.shared_regions() == []
    assert warp_cache.shared_regions(remove_unused=True) == []


# What comes back

NAN = math.nan
VALUES = [
    *[None, True, False, 0, 1, -1, 255, 256, 2**31, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 3**900, -(7**500)],
    *[0.0, -0.0, 1.0, -1.5, 5e-324, sys.float_info.max, math.inf, -math.inf, NAN, 1j, complex(NAN, -0.0)],
    *["", "a", "ü", "\u20ac", "\U0001f600", "nul\0", "\ud800", "a\udfffb", "x" * 1000, b"", b"\0\xff", b"y" * 1000],
    *[(), (1,), (1, 2.0, "3", b"4", None, True), ((),), ((1, (2, (3,))),), (1, [2]), tuple(range(100)), ((1, 2), 3)],
    *[[], [1], [1.0], [1.0, 2, True], [1.5] * 100, [NAN, -0.0, math.inf], [1.0, None], [[1.0]], [True, False]],
    *[
        {},
        {"a": 1, 2: [3]},
        set(),
        {1, 2},
        frozenset({1, "a"}),
        bytearray(b"ab"),
        range(5),
        slice(1, 2),
        ...,
        NotImplemented,
    ],
    *[workers.Color.BLUE, workers.Flag.A | workers.Flag.B, workers.Mood.GOOD, workers.Point(1, "y"), workers.Text("t")],
    *[workers.Number(5), workers.Real(2.5), workers.Octets(b"o"), workers.Row((1, 2)), workers.Listing([1.0, 2.0])],
    *[workers.Mapping(a=1), workers.Order("n", (1, 2), frozenset("ab")), workers.Mutable(1, [2]), workers.Slotted(3)],
    *[[workers.Color.RED, workers.Real(1.0)], (workers.Text("a"), workers.Number(1)), {"k": workers.Point(1.0, None)}],
    *[
        datetime.datetime(2020, 1, 2),
        datetime.timedelta(1),
        decimal.Decimal("1.10"),
        uuid.UUID(int=5),
        pathlib.PurePath("a"),
    ],
    *[int, workers.Order, len, os.path.join, ValueError("returned"), KeyError(1)],
]


def label(value):
    if value is not None and isinstance(value, int) and value > 10**4000:
        return "int-long"
    # A set shows its items in another order in each process.
    shown = sorted(map(repr, value)) if isinstance(value, (set, frozenset)) else value
    return f"{type(value).__name__}-{shown!r:.20}".encode("ascii", "replace").decode()


def description(thing):
    """All that tells two values apart: their types at every level, the sign of zero, and what is no number."""
    if isinstance(thing, BaseException):
        return type(thing), thing.args
    if isinstance(thing, (tuple, list)):
        return type(thing), [description(each) for each in thing]
    if isinstance(thing, dict):
        return type(thing), [(description(key), description(each)) for key, each in thing.items()]
    if isinstance(thing, (set, frozenset)):
        return type(thing), {(type(each), each) for each in thing}
    if isinstance(thing, (float, complex)):
        return type(thing), repr(thing)
    return type(thing), thing


@pytest.mark.parametrize("value", VALUES, ids=label)
def test_a_value_comes_back_as_it_went_in(value):
    runs = []
    f = shared()(lambda: runs.append(1) or value)
    first, *later = f(), f(), f()
    assert first is value
    assert [description(each) for each in later] == [description(value)] * 2
    assert runs == [1]
    assert f.cache_info() == (2, 1, 128, 1, 0)


@pytest.mark.parametrize("value", VALUES, ids=label)
def test_an_argument_of_any_kind_is_a_key(value):
    try:
        hash(value)
    except TypeError:
        pytest.skip("not hashable")
    f = shared(max_key_size=2000)(lambda x, y=0: [x])
    results = [f(value), f(value), f(copy.deepcopy(value)), f(y=0, x=value)]
    assert all(description(each) == description([value]) for each in results)
    assert f.cache_info().oversize_skips == 0
    if value == value and type(value) is not complex and not isinstance(value, (BaseException, workers.Slotted)):
        assert counts(f) == (3, 1)


def test_what_a_caller_does_to_a_value_changes_nobody_elses():
    f = shared()(lambda: [1, [2]])
    f()
    f().append(3)
    f()[1].append(4)
    assert f() == [1, [2]]


def test_one_object_twice_in_a_value_is_one_object_when_it_comes_back():
    part = [1]
    knot = [part, part]
    knot.append(knot)
    f = shared()(lambda: knot)
    f()
    back = f()
    assert back[0] is back[1]
    assert back[2] is back


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.binary(max_size=20)
    | st.sampled_from([workers.Color.RED, workers.Text("t"), workers.Point(1, 2.0), 2**53, 2.0**53, 2**53 + 1]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


def test_any_nested_value_comes_back_as_it_went_in():
    current = None
    f = shared(max_value_size=100_000)(lambda number: current)
    number = itertools.count()

    @settings(max_examples=150, database=None)
    @given(json_like)
    def same(value):
        nonlocal current
        current = value
        key = next(number)
        f(key)
        current = "computed again"
        assert description(f(key)) == description(value)

    same()


hashables = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, -0.0, 1.0, 2.5, 2**53, 2.0**53, 2**53 + 1, 2**64, 2.0**64])
    | st.text("ab", max_size=2)
    | st.binary(max_size=2)
    | st.sampled_from([workers.Color.RED, workers.Text("a"), workers.Point(1, 2)]),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3) | inner.map(workers.Order),
    max_leaves=6,
)


@pytest.mark.parametrize("decorator", [warp_cache.cache, lru_cache])
def test_no_two_different_calls_share_a_key(decorator):
    f = shared(max_size=1000, decorator=decorator)(lambda *args, **kwargs: (args, kwargs))

    @settings(max_examples=200, database=None)
    @given(st.lists(hashables, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "ab"]), hashables, max_size=2))
    def apart(args, kwargs):
        assert f(*args, **kwargs) == (tuple(args), kwargs)

    apart()


def test_calls_that_look_alike_are_different():
    f = shared()(lambda *args, **kwargs: repr((args, kwargs)))
    calls = [
        *[
            ((), {}),
            ((None,), {}),
            (((),), {}),
            ((1, 2), {}),
            (((1, 2),), {}),
            (("1", 2), {}),
            ((b"1", 2), {}),
            (("", "a"), {}),
        ],
        *[
            (("a", ""), {}),
            ((1,), {"a": 2}),
            (((1,), (("a", 2),)), {}),
            ((1, "a", 2), {}),
            ((("a", 2), 1), {}),
            ((), {"a": 1}),
        ],
        *[
            ((), {"b": 1}),
            (("a", 1), {}),
            ((("a", 1),), {}),
            (("ab", "c"), {}),
            (("a", "bc"), {}),
            (("None",), {}),
            ((-1,), {}),
        ],
        *[
            ((-2,), {}),
            ((2**61 - 1 - 2,), {}),
            ((2**64 - 2,), {}),
            ((2.5,), {}),
            (("2.5",), {}),
            ((frozenset(),), {}),
            (([1.0] and "[1.0]",), {}),
        ],
    ]
    for _ in range(2):
        for args, kwargs in calls:
            assert f(*args, **kwargs) == repr((args, kwargs))
    assert counts(f) == (len(calls), len(calls))


@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: (x,), lambda x: ("a", (x, None))], ids=["alone", "tuple", "nested"]
)
@pytest.mark.parametrize(
    "equal", [(1, 1.0, True), (0, 0.0, False, -0.0), (2**53, 2.0**53), (-5, -5.0), (2**63, 2.0**63), (2**70, 2.0**70)]
)
def test_equal_numbers_are_one_key(equal, wrap):
    f, runs = echo_cached()
    first = f(wrap(equal[0]))
    assert [description(f(wrap(each))) for each in equal] == [description(first)] * len(equal)
    assert runs.count == 1


@pytest.mark.parametrize("equal", [(1, 1.0, True), (0, 0.0, False), (2**70, 2.0**70), ("a", workers.Text("a"))])
@pytest.mark.parametrize("decorator", [warp_cache.cache, lru_cache])
def test_typed_keeps_equal_numbers_apart(decorator, equal):
    f, runs = echo_cached(typed=True, decorator=decorator)
    for _ in range(2):
        assert [description(f(each)) for each in equal] == [description(each) for each in equal]
    assert runs.count == len(equal)


def test_a_number_that_is_not_equal_is_another_key():
    f, _ = echo_cached()
    for number in (
        2**53 + 1,
        2.0**53,
        2**64 + 1,
        2.0**64,
        2**1023 + 1,
        2.0**1023,
        0.1,
        0.5,
        10**400,
        math.inf,
        -math.inf,
    ):
        assert f(number) == number
    assert counts(f)[0] == 0


@pytest.mark.parametrize(
    ("key", "twin"),
    [
        (lambda: ("".join(["a", "b"]),) * 2, lambda: ("".join(["a", "b"]), "".join(["a", "b"]))),
        (
            lambda: workers.Order("ab", ("x" * 9,) * 2),
            lambda: workers.Order("".join("ab"), ("x" * 9, "".join("x" * 9))),
        ),
        (lambda: frozenset(["ab", "cd"]), lambda: frozenset(["".join("cd"), "".join("ab")])),
        (lambda: workers.Order("n", (), frozenset("abcdef")), lambda: workers.Order("n", (), frozenset("fedcba"))),
        (lambda: (2**70,) * 2, lambda: (2**70 + 0, int("1180591620717411303424"))),
    ],
    ids=["tuple", "dataclass", "frozenset", "frozenset in a dataclass", "big ints"],
)
def test_what_is_equal_hits_whether_or_not_its_parts_are_the_same_objects(key, twin):
    f, runs = echo_cached()
    assert f(key()) == f(twin()) == key()
    assert runs.count == 1


HASHED = """
import sys
from shared_workers import Color, Order, Point, cached
f = cached(lambda *args: len(args), name="hashed")
keys = [
    "text", ("a", "b", ("c",)), frozenset({"one", "two", "three", "four"}), b"bytes", 1.5, None, 10**30,
    Order("name", ("x", "y"), frozenset({"p", "q", "r", "s"})), (frozenset({("a", 1), ("b", 2)}), "z"), Color.RED,
    frozenset({frozenset({"a", "b"}), frozenset({"c", "d", "e"})}), Point("a", "b"),
    Order("outer", (Order("inner", (), frozenset("uvwxyz")),)),
]
for key in keys:
    f(key), f(key, key)
print(len(keys) * 2, *f.cache_info()[:2])
"""


def test_equal_keys_hit_whatever_the_hash_seed(tmp_path):
    path = tmp_path / "hashed.py"
    path.write_text(HASHED)
    runs = 4
    for seed in range(runs):
        total, hits, misses = map(int, printed(path, env={"PYTHONHASHSEED": str(seed)}).split())
        assert (hits, misses) == (seed * total, total)


# How the call is spelled


def test_arguments_are_matched_to_the_signature():
    f = shared()(add)
    assert {f(1), f(1, 2), f(a=1), f(b=2, a=1), f(1, b=2)} == {3}
    assert counts(f) == (4, 1)
    assert [f.cache_contains(a=1), f.cache_invalidate(b=2, a=1), f.cache_contains(1)] == [True, True, False]


def test_lru_cache_keeps_each_spelling_apart():
    f = shared(decorator=lru_cache)(add)
    assert {f(1), f(1, 2), f(a=1), f(a=1, b=2), f(b=2, a=1)} == {3}
    assert counts(f) == (0, 5)
    assert {f(1), f(1, 2), f(a=1), f(a=1, b=2), f(b=2, a=1)} == {3}
    assert counts(f) == (5, 5)


@pytest.mark.parametrize(
    "made",
    [
        lambda: lru_cache(7, backend="shared", name="test"),
        lambda: lru_cache(maxsize=7, backend="shared", name="test"),
        lambda: lru_cache(max_size=7, backend="shared", name="test"),
    ],
)
def test_lru_cache_takes_its_size_in_every_spelling(made):
    f = made()(add)
    assert f.cache_parameters() == {"maxsize": 7, "typed": False}
    assert [f(1), f(1)] == [3, 3]
    assert f.cache_info() == (1, 1, 7, 1, 0)


def test_lru_cache_takes_a_negative_size_as_zero():
    f = lru_cache(-5, backend="shared", name="test")(add)
    assert [f(1), f(1)] == [3, 3]
    assert f.cache_info() == (0, 2, 0, 0, 0)


def test_keyword_only_arguments_and_defaults_work():
    @shared()
    def f(a, /, b=1, *c, d, e=frozenset({1}), g=[]):  # noqa: B006
        return a, b, c, d, e, g

    assert f(1, d=2) == f(1, 1, d=2) == f(1, b=1, e=frozenset({1}), d=2) == (1, 1, (), 2, frozenset({1}), [])
    assert counts(f) == (2, 1)
    assert f(1, 1, 5, d=2) == (1, 1, (5,), 2, frozenset({1}), [])


@pytest.mark.parametrize("argument", [[], {}, set(), ([],), {"a": 1}])
@pytest.mark.parametrize("decorator", [warp_cache.cache, lru_cache])
def test_an_unhashable_argument_is_a_type_error(decorator, argument):
    f = shared(decorator=decorator)(add)
    for attempt in (f, f.cache_contains, f.cache_invalidate):
        with pytest.raises(TypeError, match="unhashable"):
            attempt(argument)
        with pytest.raises(TypeError, match="unhashable"):
            attempt(1, b=argument)
    assert f.cache_info() == (0, 0, 128, 0, 0)


def test_wrong_arguments_are_the_functions_own_error():
    f = shared()(add)
    with pytest.raises(TypeError):
        f()
    with pytest.raises(TypeError):
        f(1, 2, 3)
    assert f.cache_info().current_size == 0


class Moody:
    error = None

    def __hash__(self):
        raise Moody.error


def test_an_error_of_hash_reaches_the_caller(monkeypatch):
    f = shared()(add)
    monkeypatch.setattr(Moody, "error", LookupError("not today"))
    for attempt in (f, f.cache_contains, f.cache_invalidate):
        with pytest.raises(LookupError) as caught:
            attempt(Moody())
        assert caught.value is Moody.error
    assert f.cache_info() == (0, 0, 128, 0, 0)


def test_generators_and_what_cannot_be_called_are_refused():
    def generate():
        yield 1

    async def generate_slowly():
        yield 1

    for thing in (generate, generate_slowly, 3, None):
        with pytest.raises(TypeError):
            shared()(thing)


# What cannot be stored


class Unpicklable:
    def __reduce__(self):
        raise LookupError("not for storing")


class Exiting:
    def __reduce__(self):
        raise RecursionError


def deep(levels):
    made = []
    for _ in range(levels):
        made = [made]
    return made


@pytest.mark.parametrize(
    "made",
    [
        lambda: lambda: 1,
        Unpicklable,
        Exiting,
        threading.Lock,
        lambda: (i for i in "a"),
        lambda: (1, Unpicklable()),
        lambda: deep(100_000),
        lambda: [1.0, lambda: 1],
    ],
    ids=["lambda", "raising", "recursion", "lock", "generator", "nested", "deep", "in a list"],
)
def test_a_result_that_cannot_be_pickled_is_returned_and_counted(made):
    results = []
    f = shared()(lambda: results.append(made()) or results[-1])
    assert f() is results[0]
    assert f() is results[1]
    assert f.cache_info() == (0, 2, 128, 0, 2)
    assert f.cache_contains() is False
    while results and isinstance(results[-1], list):
        taken = results.pop()
        while taken and isinstance(taken[0], list):
            taken = taken[0]


def test_an_argument_that_cannot_be_pickled_is_passed_on_and_counted():
    f, runs = echo_cached()
    for key in (lambda: 1, Unpicklable(), (1, Unpicklable())):
        assert f(key) is key
        assert f(key) is key
        assert [f.cache_contains(key), f.cache_invalidate(key)] == [False, False]
    assert runs.count == 6
    assert f.cache_info() == (0, 6, 128, 0, 6)


@pytest.mark.parametrize(
    "key", ["x" * 600, b"x" * 600, ("x" * 300, "y" * 300), tuple(range(1000)), 2**5000, workers.Order("x" * 600)]
)
def test_a_key_over_the_limit_is_passed_on_and_counted(key):
    f, runs = echo_cached()
    assert [f(key), f(key)] == [key, key]
    assert runs.count == 2
    assert f.cache_info() == (0, 2, 128, 0, 2)
    assert f.cache_contains(key) is False


@pytest.mark.parametrize(
    "value",
    ["x" * 5000, b"x" * 5000, [1.0] * 600, tuple(range(3000)), 2**50_000, {"a": "x" * 5000}],
    ids=lambda value: type(value).__name__,
)
def test_a_value_over_the_limit_is_returned_and_counted(value):
    f = shared()(lambda: value)
    assert f() is value
    assert f() is value
    assert f.cache_info() == (0, 2, 128, 0, 2)


def test_the_limits_are_the_callers():
    f, _ = echo_cached(max_key_size=5000, max_value_size=20_000)
    text = "x" * 4000
    assert [f(text), f(text)] == [text, text]
    assert f.cache_info() == (1, 1, 128, 1, 0)
    g = shared(max_value_size=50)(lambda x: "y" * x)
    assert [len(g(size)) for size in (10, 10, 100, 100)] == [10, 10, 100, 100]
    assert g.cache_info() == (1, 3, 128, 1, 2)


@pytest.mark.parametrize(
    "size", [1, 7, 63, 64, 65, 191, 192, 193, 503, 504, 505, 1009, 4097, 65_535, 65_536, 65_537, 1_000_001]
)
def test_every_size_of_a_value_is_stored_below_the_limit(size):
    f = shared(max_value_size=2 * size + 100)(lambda key: bytes([key]) * size)
    for _ in range(2):
        for key in range(5):
            assert f(key) == bytes([key]) * size
    assert f.cache_info() == (5, 5, 128, 5, 0)


@pytest.mark.parametrize(
    "value", [tuple(range(70_000)), [0.5] * 70_000, 1 << 20_000, "\u20ac" * 70_000, {"a": b"x" * 70_000}], ids=label
)
def test_a_large_value_is_stored_below_a_large_limit(value):
    f = shared(max_value_size=10**6)(lambda: value)
    assert f() == f() == value
    assert counts(f) == (1, 1)


@pytest.mark.parametrize("key", [tuple(range(5000)), 1 << 20_000, "\u20ac" * 20_000, frozenset(range(3000))], ids=label)
def test_a_large_key_is_stored_below_a_large_limit(key):
    f, runs = echo_cached(max_key_size=100_000, max_value_size=100_000)
    assert f(key) == f(key) == key
    assert runs.count == 1


@pytest.mark.parametrize("depth", [10, 50, 100, 1000, 10_000])
def test_a_deeply_nested_tuple_is_stored_or_returned_all_the_same(depth):
    made = ()
    for _ in range(depth):
        made = (made,)
    f = shared(max_value_size=10**6)(lambda: made)
    for _ in range(2):
        back = f()
        for _ in range(depth):
            (back,) = back
        assert back == ()
    assert sum(f.cache_info()[:2]) == 2
    assert depth > 100 or counts(f) == (1, 1)


@pytest.mark.parametrize("depth", [10, 30, 100, 500])
def test_a_deeply_nested_key_needs_no_deep_stack(depth):
    key, results = "bottom", []
    for _ in range(depth):
        key = (key,)
    f, _ = echo_cached(max_key_size=10**5, max_value_size=10**5)
    old = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=lambda: results.extend([f(key) is key, f(key) is not None]))
        thread.start()
    finally:
        threading.stack_size(old)
    thread.join(30)
    assert results == [True, True]


@pytest.mark.parametrize("max_size", [1, 3])
def test_values_of_all_sizes_may_take_each_others_place(max_size):
    f = shared(max_size=max_size, max_value_size=5000)(lambda key: b"%d" % key * (key % 7) ** 4)
    for key in [*range(300), *range(300)]:
        assert f(key) == b"%d" % key * (key % 7) ** 4
    assert f.cache_info().current_size == max_size
    assert f.cache_info().oversize_skips == 0


@pytest.mark.parametrize("limits", [(1, 1), (2**31 - 1, 2**31 - 1), (4097, 4097), (13, 7)])
@pytest.mark.parametrize("max_size", [1, 128, 5000])
def test_limits_of_any_magnitude_make_a_working_cache(limits, max_size):
    with recorded() as messages:
        try:
            f = shared(max_size=max_size, max_key_size=limits[0], max_value_size=limits[1])(str.upper)
        except ValueError:
            assert max_size * sum(limits) > 2**42
            return
        assert [f("a"), f("a"), f("b" * 3000), f("b" * 3000)] == ["A", "A", "B" * 3000, "B" * 3000]
    assert len(messages) <= 1
    assert sum(f.cache_info()[:2]) == 4


# What cannot be read again

GONE = """
import sys
import warp_cache
sys.modules["shapes"] = type(sys)("shapes")
import shapes
if sys.argv[1] == "there":
    class Shape:
        def __init__(self):
            self.a = 1
    Shape.__module__ = "shapes"
    shapes.Shape = Shape
elif sys.argv[1] == "raising":
    class Shape:
        def __setstate__(self, state):
            raise ZeroDivisionError
    Shape.__module__ = "shapes"
    shapes.Shape = Shape
elif sys.argv[1] == "no module":
    del sys.modules["shapes"]
def build(x):
    return getattr(shapes, "Shape", str)()
f = warp_cache.cache(build, backend="shared", name="gone")
print(type(f(1)).__name__, *f.cache_info())
"""


@pytest.mark.parametrize(("change", "answer"), [("removed", "str"), ("no module", "str"), ("raising", "Shape")])
def test_an_entry_that_cannot_be_unpickled_is_a_miss(change, answer, tmp_path):
    assert printed(tmp_path / "gone.py", "there", source=GONE) == "Shape 0 1 128 1 0"
    assert printed(tmp_path / "gone.py", "there") == "Shape 1 1 128 1 0"
    assert printed(tmp_path / "gone.py", change) == f"{answer} 1 2 128 1 0"
    assert printed(tmp_path / "gone.py", change).startswith(answer)


class Reentrant:
    """Calls a cached function whenever it is pickled or unpickled."""

    act = staticmethod(lambda: None)

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return 7

    def __eq__(self, other):
        return type(other) is Reentrant and self.number == other.number

    def __getstate__(self):
        Reentrant.act()
        return self.__dict__.copy()

    def __setstate__(self, state):
        Reentrant.act()
        self.__dict__.update(state)


@pytest.mark.parametrize("act", ["call", "call the same", "clear", "invalidate", "contains", "info", "unlink", "list"])
def test_pickling_may_use_the_same_cache(act, monkeypatch):
    f = shared(max_size=3)(lambda key: [key, Reentrant(getattr(key, "number", key))])
    busy = False
    numbers = itertools.count(100)

    def once():
        nonlocal busy
        if not busy:
            busy = True
            actions[act]()
            busy = False

    actions = {
        "call": lambda: [f(next(numbers)) for _ in range(5)],
        "call the same": lambda: f(Reentrant(1)),
        "clear": f.cache_clear,
        "invalidate": lambda: f.cache_invalidate(Reentrant(1)),
        "contains": lambda: f.cache_contains(Reentrant(1)),
        "info": f.cache_info,
        "unlink": f.cache_unlink,
        "list": warp_cache.shared_regions,
    }
    monkeypatch.setattr(Reentrant, "act", staticmethod(once))
    for number in (0, 1, 2, 1, 3, 0, 4, 1, 2):
        key, made = f(Reentrant(number))
        assert (key, made.number) == (Reentrant(number), number)
        assert f.cache_info().current_size <= 3


# Exceptions


@pytest.mark.parametrize("error", [ValueError("v"), KeyError(1), StopIteration(3), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("decorator", [warp_cache.cache, lru_cache])
def test_an_exception_passes_through_as_the_same_object_and_is_not_stored(decorator, error):
    @shared(decorator=decorator)
    def f():
        raise error

    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            f()
        assert caught.value is error
        assert caught.value.__context__ is None
    assert f.cache_info() == (0, 2, 128, 0, 0)


def test_an_exception_evicts_nothing():
    f = shared(max_size=2)("abc".__getitem__)
    f(0), f(1)
    with pytest.raises(IndexError):
        f(9)
    assert [f.cache_contains(0), f.cache_contains(1)] == [True, True]


# Methods


class Rectangle:
    def __init__(self, width):
        self.width = width

    def __hash__(self):
        return hash(self.width)

    def __eq__(self, other):
        return self.width == other.width

    def area(self, height=1):
        return self.width * height

    @staticmethod
    def twice(x):
        return x * 2

    @classmethod
    def named(cls, x):
        return cls.__name__, x


class Square(Rectangle):
    pass


@pytest.mark.parametrize("decorator", [warp_cache.cache, lru_cache])
def test_a_method_has_its_instance_in_the_key(decorator, monkeypatch):
    area = shared(decorator=decorator)(Rectangle.area)
    monkeypatch.setattr(Rectangle, "area", area)
    assert Rectangle.area is area
    assert [Rectangle(2).area(3), Rectangle(2).area(3), Rectangle(5).area(3)] == [6, 6, 15]
    assert counts(area) == (1, 2)
    assert area.cache_contains(Rectangle(5), 3) is True
    assert Rectangle.area.cache_invalidate(Rectangle(5), 3) is True


def test_static_methods_and_class_methods_work(monkeypatch):
    monkeypatch.setattr(Rectangle, "twice", staticmethod(shared(name="static")(Rectangle.__dict__["twice"].__func__)))
    named = shared(name="class")(Rectangle.__dict__["named"].__func__)
    monkeypatch.setattr(Rectangle, "named", classmethod(named))
    assert [Rectangle.twice(1), Rectangle(1).twice(1)] == [2, 2]
    assert counts(Rectangle.twice) == (1, 1)
    assert [Rectangle.named(1), Rectangle(3).named(1)] == [("Rectangle", 1)] * 2
    assert [Square.named(1), Square.named(1)] == [("Square", 1)] * 2
    assert counts(named) == (2, 2)


def test_the_cached_function_carries_the_functions_names():
    def f(a: int, *, b: str = "") -> bool:
        """Does nothing."""

    f.tag = "mine"
    g = shared()(f)
    assert g.__wrapped__ is f
    assert (g.__name__, g.__qualname__, g.__module__, g.__doc__, g.tag) == (
        "f",
        f.__qualname__,
        __name__,
        "Does nothing.",
        "mine",
    )
    assert inspect.signature(g) == inspect.signature(f)
    assert copy.copy(g) is copy.deepcopy(g) is g
    assert weakref.ref(g)() is g
    assert "f" in repr(g)
    g.more = 1
    assert g.more == 1


def test_a_cycle_through_the_function_is_collected():
    class Token:
        pass

    def build():
        token = Token()

        @shared()
        def f(x):
            return len([token, f])

        f(1)
        token.f = f
        return weakref.ref(token)

    reference = build()
    gc.collect()
    assert reference() is None


# How many


@every_strategy
def test_size_zero_never_stores(strategy):
    f, runs = echo_cached(strategy=strategy, max_size=0)
    assert [f(1), f(1), in_child(lambda: f(1))] == [1, 1, 1]
    assert runs.count == 2
    assert f.cache_info() == (0, 3, 0, 0, 0)
    assert [f.cache_contains(1), f.cache_invalidate(1)] == [False, False]
    f.cache_clear()
    assert f.cache_info() == (0, 0, 0, 0, 0)


@every_strategy
@pytest.mark.parametrize("max_size", [1, 2, 3, 7, 63, 64, 65, 128, 1000, 1023, 1024])
def test_the_capacity_is_exact(strategy, max_size):
    f, _ = echo_cached(strategy=strategy, max_size=max_size)
    for number in range(max_size + 20):
        f(number)
    assert f.cache_info() == (0, max_size + 20, max_size, max_size, 0)
    assert sum(f.cache_contains(number) for number in range(max_size + 20)) == max_size


@every_strategy
@pytest.mark.parametrize("max_size", [1025, 1500, 2048, 5000])
def test_the_capacity_of_many_shards_is_exact(strategy, max_size):
    f, _ = echo_cached(strategy=strategy, max_size=max_size)
    for number in range(max_size):
        f(number)
        if number % 97 == 0:
            assert f.cache_info().current_size == number + 1
    assert f.cache_info() == (0, max_size, max_size, max_size, 0)
    for number in range(max_size, 2 * max_size):
        f(number)
        if number % 97 == 0:
            assert f.cache_info().current_size == max_size
    assert f.cache_info().current_size == max_size
    assert sum(f.cache_contains(number) for number in range(2 * max_size)) == max_size


def test_a_big_cache_keeps_all_that_it_has_room_for():
    f, runs = echo_cached(max_size=20_000)
    for number in range(20_000):
        f(number)
    for number in range(20_000):
        f(number)
    assert (runs.count, f.cache_info()) == (20_000, (20_000, 20_000, 20_000, 20_000, 0))


def test_many_shards_keep_mostly_what_was_used_last():
    f, _ = echo_cached(max_size=4096)
    for number in range(20_000):
        f(number)
    assert sum(f.cache_contains(number) for number in range(20_000 - 2048, 20_000)) > 2000


# Which one goes


class SharedPair(Pair):
    def __init__(self, strategy, max_size, ttl):
        super().__init__(shared, strategy, max_size, ttl)

    def check_info(self, _key=None):
        super().check_info()
        assert self.cached.cache_info()[4:] == (0,)

    def finish(self, keys):
        self.check_info()
        self.check_members(keys)
        self.cached.cache_unlink()


SOME_KEYS = [-1, -2, 0, 1, 2, 2**70, "", "a", "\ud800", "long" * 50, ("a", 1), b"x"]


@pytest.mark.parametrize("ttl", [None, TTL])
@pytest.mark.parametrize("max_size", [0, 1, 2, 3, 5, 8])
@every_strategy
def test_the_cache_agrees_with_the_model(strategy, max_size, ttl):
    @settings(max_examples=10, deadline=None, database=None)
    @given(steps(SOME_KEYS))
    def agree(sequence):
        pair = SharedPair(strategy, max_size, ttl)
        for name, argument in sequence:
            getattr(pair, name)(argument)
        pair.finish(SOME_KEYS)

    agree()


@pytest.mark.parametrize("ttl", [None, TTL])
@pytest.mark.parametrize("max_size", [1, 7, 64, 300, 1024])
@every_strategy
def test_a_long_random_trace_agrees_with_the_model(strategy, max_size, ttl):
    rng = random.Random(f"{strategy} {max_size} {ttl}")
    pair = SharedPair(strategy, max_size, ttl)
    for key in range(max_size):
        pair.call(key)
    for _ in range(1000 if max_size > 64 else 2000):
        pair.call(int(rng.paretovariate(0.3)) % (2 * max_size))
        if rng.random() < 0.02:
            pair.advance(rng.randrange(3))
        if rng.random() < 0.02:
            pair.invalidate(rng.randrange(2 * max_size))
    pair.finish(range(2 * max_size))


@every_strategy
def test_two_users_of_one_cache_agree_with_one_model(strategy):
    rng = random.Random(strategy)
    one, other = SharedPair(strategy, 16, None), SharedPair(strategy, 16, None)
    other.model = one.model
    for _ in range(2000):
        rng.choice([one, other]).call(rng.randrange(40))
    one.check_info(), other.check_info()
    other.finish(range(40))


def test_the_strategy_holds_across_processes():
    f, _ = echo_cached(max_size=3)
    f("a"), f("b"), f("c")
    in_child(lambda: f("a"))
    f("d")
    assert [f.cache_contains(key) for key in "abcd"] == [True, False, True, True]


# Time


def test_an_entry_is_gone_from_the_moment_its_time_is_over():
    with _ManualClock() as clock:
        f, runs = echo_cached(ttl=5)
    f("a")
    clock.advance(4.999)
    assert f.cache_contains("a")
    clock.advance(0.001)
    assert not f.cache_contains("a")
    f("a")
    assert runs.count == 2
    assert f.cache_info() == (0, 2, 128, 1, 0)


def test_a_hit_does_not_prolong_an_entry():
    with _ManualClock() as clock:
        f, _ = echo_cached(ttl=3)
    for _ in range(3):
        f("a")
        clock.advance(1)
    assert not f.cache_contains("a")


def test_time_counts_from_when_the_value_was_stored():
    with _ManualClock() as clock:

        @shared(ttl=3)
        def slow(key):
            clock.advance(10)
            return key

    slow("a")
    assert slow.cache_contains("a")
    clock.advance(3)
    assert not slow.cache_contains("a")


@every_strategy
def test_expired_entries_go_before_live_ones(strategy):
    with _ManualClock() as clock:
        f, _ = echo_cached(strategy=strategy, max_size=2, ttl=5)
    f("old")
    clock.advance(3)
    f("live")
    f("old"), f("old")
    clock.advance(2)
    f("new")
    assert [f.cache_contains(key) for key in ("old", "live", "new")] == [False, True, True]


@every_strategy
@pytest.mark.parametrize("max_size", [1, 128])
def test_refreshing_an_expired_key_keeps_one_entry(strategy, max_size):
    with _ManualClock() as clock:
        f, _ = echo_cached(strategy=strategy, max_size=max_size, ttl=1)
    f("a")
    size = f.shared_stats().bytes
    for _ in range(1000):
        clock.advance(1)
        f("a")
    assert f.cache_info() == (0, 1001, max_size, 1, 0)
    assert f.shared_stats().bytes == size


@pytest.mark.parametrize(
    "ttl", [1e-9, 1e9, 1e18, 1e300, 10**400, sys.float_info.max, datetime.timedelta.max, 5e-324, math.inf]
)
def test_a_ttl_of_any_magnitude_makes_a_working_cache(ttl):
    f = shared(ttl=ttl)(add)
    assert [f(1), f(1)] == [3, 3]
    assert sum(f.cache_info()[:2]) == 2
    if isinstance(ttl, (float, int)) and ttl > 1:
        assert counts(f) == (1, 1)


def test_real_time_passes_in_every_process():
    f, runs = echo_cached(ttl=0.3)
    began = time.monotonic()
    f(1)
    hit = in_child(lambda: [echo_cached(ttl=0.3)[0].cache_contains(1), time.monotonic()])
    assert hit[0] or hit[1] - began > 0.3
    time.sleep(max(0, began + 0.31 - time.monotonic()))
    time.sleep(0.02)
    assert in_child(lambda: echo_cached(ttl=0.3)[0].cache_contains(1)) is False
    f(1)
    assert runs.count == 2


# Recursion, threads, signals


def test_a_function_may_call_itself():
    @shared(max_size=500)
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(200) == 280571172992510140037611932413038677189525
    assert fibonacci.cache_info() == (198, 201, 500, 201, 0)
    assert fibonacci(200) == 280571172992510140037611932413038677189525


def test_a_function_of_a_module_may_call_itself(tmp_path):
    source = """
import warp_cache
@warp_cache.cache(backend="shared")
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
print(fibonacci(90), *fibonacci.cache_info())
"""
    assert printed(tmp_path / "fib.py", source=source) == "2880067194370816120 88 91 128 91 0"
    assert printed(tmp_path / "fib.py") == "2880067194370816120 89 91 128 91 0"


@every_strategy
@pytest.mark.parametrize("max_size", [1, 3])
def test_recursion_on_the_same_key_leaves_one_entry(strategy, max_size):
    depth = itertools.count()

    @shared(strategy, max_size)
    def f(x):
        return f(x) if next(depth) < 5 else x

    assert f(3) == 3
    assert f.cache_info() == (0, 6, max_size, 1, 0)
    assert f(3) == 3


def test_endless_recursion_ends_in_a_recursion_error():
    @shared()
    def endless(n):
        return endless(n + 1)

    with pytest.raises(RecursionError):
        endless(0)
    assert endless.cache_info().current_size == 0


def test_the_function_may_clear_unlink_and_list_its_own_cache():
    @shared(max_size=2)
    def f(x):
        f.cache_clear(), f.cache_unlink(), warp_cache.shared_regions()
        return x

    assert [f(1), f(2), f(2)] == [1, 2, 2]
    assert f.cache_info().current_size <= 2


@every_strategy
@pytest.mark.parametrize("max_size", [1, 50])
def test_threads_get_right_values_and_exact_counts(strategy, max_size):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    f = shared(strategy, max_size)(workers.value)
    barrier = threading.Barrier(6)
    wrong, calls = [], 150

    def body(seed):
        barrier.wait(30)
        for number in range(calls):
            key = (number * seed) % 80
            if f(key) != workers.value(key) or f.cache_info().current_size > max_size:
                wrong.append(key)

    threads = [threading.Thread(target=body, args=(seed,)) for seed in (1, 3, 7, 11, 13, 17)]
    try:
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
    info = f.cache_info()
    assert info.hits + info.misses == 6 * calls


def test_threads_that_begin_together_have_one_region(shared_directory):
    for number in range(15):
        f = shared(name=f"first{number}")(workers.value)
        barrier = threading.Barrier(8)

        def body(f=f, barrier=barrier):
            barrier.wait(30)
            for key in range(5):
                f(key)

        threads = [threading.Thread(target=body) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(30)
        info = f.cache_info()
        assert (info.hits + info.misses, info.current_size) == (40, 5)
    assert len(list(shared_directory.glob("*.wc"))) == 15


def test_threads_may_clear_invalidate_and_unlink_meanwhile():
    f = shared(max_size=20)(workers.value)
    stop, wrong = threading.Event(), []

    def disturb():
        while not stop.is_set():
            f.cache_clear(), f.cache_invalidate(3), f.cache_unlink(), f.shared_stats(), warp_cache.shared_regions()

    def body():
        for number in range(1500):
            if f(number % 30) != workers.value(number % 30):
                wrong.append(number)

    threads = [threading.Thread(target=body) for _ in range(3)]
    disturbing = threading.Thread(target=disturb)
    for each in (disturbing, *threads):
        each.start()
    for each in threads:
        each.join(60)
    stop.set()
    disturbing.join(30)
    assert wrong == []


def test_a_signal_handler_may_call_the_function_that_it_interrupts():
    f = shared(max_size=20)(workers.value)
    handled = []

    def handle(*_):
        key = len(handled) % 30
        handled.append(f(key) == workers.value(key))

    old = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            for key in range(30):
                assert f(key) == workers.value(key)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert all(handled) and handled


# Coroutine functions


def test_a_coroutine_function_hits_without_waiting():
    runs = []

    @shared()
    async def f(x):
        runs.append(x)
        await asyncio.sleep(0)
        return [x]

    assert inspect.iscoroutinefunction(f)
    assert asyncio.run(f(1)) == [1]
    assert drive(f(1)) == [1]
    assert asyncio.run(f(1)) == [1]
    assert runs == [1]
    assert f.cache_info() == (2, 1, 128, 1, 0)


def test_a_coroutine_function_hits_what_another_process_stored():
    def make():
        @shared()
        async def f(x):
            await asyncio.sleep(0)
            return os.getpid(), x

        return f

    child = in_child(lambda: asyncio.run(make()(1)))
    assert child[0] != os.getpid()
    f = make()
    assert drive(f(1)) == tuple(child)
    assert f.cache_info() == (1, 1, 128, 1, 0)


def test_one_computation_a_key_in_a_loop():
    runs = []

    @shared()
    async def f(x):
        runs.append(x)
        await asyncio.sleep(0.01)
        return x * 2

    async def main():
        return await asyncio.gather(*(f(x % 2) for x in range(10)))

    assert asyncio.run(main()) == [0, 2] * 5
    assert sorted(runs) == [0, 1]
    assert f.cache_info() == (8, 2, 128, 2, 0)


def test_waiters_get_the_leaders_exception_and_it_is_not_stored():
    runs = []

    @shared()
    async def f():
        runs.append(1)
        await asyncio.sleep(0)
        raise LookupError("none")

    async def main():
        return await asyncio.gather(*(f() for _ in range(3)), return_exceptions=True)

    results = asyncio.run(main())
    assert len({id(each) for each in results}) == 1 and type(results[0]) is LookupError
    assert len(runs) == 1
    assert f.cache_info() == (0, 3, 128, 0, 0)
    with pytest.raises(LookupError):
        asyncio.run(f())
    assert len(runs) == 2


def test_a_waiter_takes_over_when_the_leader_is_cancelled():
    runs = []

    @shared()
    async def f():
        runs.append(1)
        await asyncio.sleep(0.01)
        return "value"

    async def main():
        first, second, third = (asyncio.ensure_future(f()) for _ in range(3))
        await settle()
        first.cancel()
        return await asyncio.gather(first, second, third, return_exceptions=True)

    results = asyncio.run(main())
    assert type(results[0]) is asyncio.CancelledError
    assert results[1:] == ["value", "value"]
    assert len(runs) == 2


@pytest.mark.parametrize("drop", ["cache_clear", "cache_invalidate", "cache_unlink"])
def test_a_computation_that_runs_while_its_entry_is_dropped_stores_nothing(drop):
    @shared()
    async def f():
        await asyncio.sleep(0.01)
        return "value"

    async def main():
        f.cache_info()
        task = asyncio.ensure_future(f())
        await settle()
        getattr(f, drop)()
        return await task

    assert asyncio.run(main()) == "value"
    if drop != "cache_unlink":
        assert f.cache_contains() is False


def test_a_coroutine_function_returns_what_cannot_be_stored():
    lock = threading.Lock()

    @shared()
    async def f(x):
        await asyncio.sleep(0)
        return lock if x else "x" * 5000

    async def main():
        return await asyncio.gather(f(0), f(1), f(1), f(lambda: 1))

    assert asyncio.run(main()) == ["x" * 5000, lock, lock, lock]
    assert f.cache_info().current_size == 0
    assert f.cache_info().oversize_skips >= 3


def test_a_coroutine_that_is_never_awaited_warns_on_a_miss_only():
    @shared()
    async def f():
        return 1

    with pytest.warns(RuntimeWarning, match="never awaited"):
        f()  # noqa: PT031
    assert drive(f()) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f()
        gc.collect()


def test_loops_in_threads_do_not_disturb_each_other():
    @shared(max_size=10)
    async def f(x):
        await asyncio.sleep(0)
        return workers.value(x)

    wrong = []

    async def main():
        for number in range(20):
            got = await asyncio.gather(*(f((number + step) % 15) for step in range(8)))
            if got != [workers.value((number + step) % 15) for step in range(8)]:
                wrong.append(number)

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert wrong == []
    assert sum(f.cache_info()[:2]) == 3 * 20 * 8


# Parameters and names


def variants():
    return [
        {},
        {"max_size": 64},
        {"max_size": 5000},
        {"max_size": 0},
        {"ttl": 30},
        {"ttl": 60.5},
        {"strategy": "mru"},
        {"strategy": "fifo"},
        {"strategy": "lfu"},
        {"max_key_size": 100},
        {"max_value_size": 100},
        {"typed": True},
        {"version": 1},
        {"version": "2"},
    ]


def test_functions_of_different_parameters_live_side_by_side(shared_directory):
    made = [shared(**each)(lambda key, number=number: (number, key)) for number, each in enumerate(variants())]
    for key in (1, 2, 1):
        assert [f(key) for f in made] == [(number, key) for number in range(len(made))]
    assert in_child(lambda: [f(1)[0] for f in made]) == list(range(len(made)))
    assert len({f.shared_stats().path for f in made}) == len(made)
    assert [f.cache_info().max_size for f in made[:4]] == [128, 64, 5000, 0]


def test_processes_of_different_parameters_live_side_by_side():
    children = []
    for _ in range(2):
        for number, each in enumerate(variants()):

            def use(number=number, each=each):
                f = shared(**each)(lambda key: (number, key))
                return [key for key in list(range(60)) * 3 if f(key) != (number, key)]

            children.append(workers.begin(use))
    assert [workers.end(*child) for child in children] == [[]] * len(children)


PRICE = """
import sys
import warp_cache
TAX = 2
{before}
@warp_cache.cache(backend="shared")
def price(x{default}):
    {body}
print(price(10), *price.cache_info()[:2])
"""


def priced(path, body, before="", default="", **options):
    return printed(path, source=PRICE.format(body=body, before=before, default=default), **options)


def test_two_scripts_never_share_a_function_of_the_same_name(tmp_path):
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    for _ in range(2):
        outcome = [priced(tmp_path / name / "main.py", "return x * TAX") for name in ("one", "two")]
    assert outcome == ["20 1 1", "20 1 1"]


def test_an_edited_function_starts_afresh(tmp_path):
    path = tmp_path / "shop.py"
    assert priced(path, "return x * 2") == "20 0 1"
    assert priced(path, "return x * 2") == "20 1 1"
    assert priced(path, "return x * 3") == "30 0 1"
    assert priced(path, "return x + 3") == "13 0 1"
    assert priced(path, "return (lambda y: y * 5)(x)") == "50 0 1"
    assert priced(path, "return (lambda y: y * 6)(x)") == "60 0 1"
    assert priced(path, "return x * y", default=", y=4") == "40 0 1"
    assert priced(path, "return x * y", default=", y=5") == "50 0 1"
    assert priced(path, "return x * y", default=", *, y=6") == "60 0 1"
    assert priced(path, "return x * y", default=", *, y=7") == "70 0 1"
    assert priced(path, "return abs(x)") == "10 0 1"
    assert priced(path, "return str(x)") == "10 0 1"
    assert priced(path, "return x * 2") == "20 2 1"


def test_a_function_that_only_moved_keeps_its_entries(tmp_path):
    path = tmp_path / "shop.py"
    assert priced(path, "return sorted(y * x for y in (1, 2))") == "[10, 20] 0 1"
    assert priced(path, "return sorted(y * x for y in (1, 2))", before="# a comment\n\nOTHER = 3\n") == "[10, 20] 1 1"


def test_a_function_is_the_same_whatever_the_hash_seed(tmp_path):
    path, body = tmp_path / "shop.py", 'return x in {"one", "two", "three", "four", "five"}'
    for seed in range(4):
        assert priced(path, body, env={"PYTHONHASHSEED": str(seed)}) == f"False {seed} 1"


CLOSURES = """
import warp_cache
def make(factor, other=None):
    @warp_cache.cache(backend="shared")
    def times(x):
        return x * factor if other is None else (x, factor, other)
    return times
factors = [2, 3, 2.5, "a", b"b", True, None, 2**70, "2", -1]
made = [make(factor, 0 if factor is None else None) for factor in factors]
for _ in range(2):
    for f, factor in zip(made, factors):
        expected = (10, None, 0) if factor is None else 10 * factor
        assert f(10) == expected and type(f(10)) is type(expected), (factor, f(10))
again = make(3)
assert again(10) == 30
print(*again.cache_info()[:2])
"""


def test_closures_over_different_values_never_share(tmp_path):
    assert printed(tmp_path / "closures.py", source=CLOSURES) == "4 1"
    assert printed(tmp_path / "closures.py") == "9 1"


ANYTHING = """
import warnings
import warp_cache
warnings.simplefilter("ignore", warp_cache.SharedCacheWarning)
class Tax:
    def __init__(self, rate):
        self.rate = rate
    def __call__(self, x):
        return x * self.rate
    def of(self, x):
        return x * self.rate
def over_object(rate):
    tax = Tax(rate)
    return lambda x: x * tax.rate
def over_list(rate):
    rates = [rate]
    return lambda x: x * rates[0]
def over_tuple(rate):
    rates = (rate, ("x",))
    return lambda x: x * rates[0]
def over_function(rate):
    def inner(x):
        return x * rate
    return lambda x: inner(x)
def over_default(rate):
    tax = Tax(rate)
    def inner(x, tax=tax):
        return x * tax.rate
    return inner
def over_default_list(rate):
    def inner(x, *, rates=[rate]):
        return x * rates[0]
    return inner
def over_default_function(rate):
    def inner(x, by=lambda x: x * rate):
        return by(x)
    return inner
def over_cell(rate):
    def inner(x):
        return x * later
    later = rate
    return inner
def over_class(rate):
    class Local:
        factor = rate
    return lambda x: x * Local.factor
def partial(rate):
    import functools, operator
    return functools.partial(operator.mul, rate)
makers = [over_object, over_list, over_tuple, over_function, over_default, over_default_list, over_default_function,
          over_cell, over_class, partial, Tax, lambda rate: Tax(rate).of, lambda rate: (lambda: lambda x: x * rate)()]
for number, make in enumerate(makers):
    for rate in (2, 3, 4):
        f = warp_cache.cache(backend="shared")(make(rate))
        assert f(10) == 10 * rate, (number, rate, f(10))
        assert f(10) == 10 * rate, (number, rate, f(10))
"""


def test_nothing_that_a_function_depends_on_makes_two_share(tmp_path):
    printed(tmp_path / "anything.py", source=ANYTHING)
    printed(tmp_path / "anything.py")


def test_functions_of_different_modules_never_share(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(
            'import warp_cache\n@warp_cache.cache(backend="shared")\ndef f(x):\n    return __name__, x\n'
        )
    source = "import one, two\nprint(one.f(1), two.f(1), *one.f.cache_info()[:2])"
    expected = "('one', 1) ('two', 1)"
    assert printed(tmp_path / "main.py", source=source) == f"{expected} 0 1"
    assert printed(tmp_path / "main.py") == f"{expected} 1 1"


@pytest.mark.parametrize(("naming", "second"), [('name="price"', "30 0 1"), ('name="price", version=1', "20 1 1")])
def test_a_name_takes_the_place_of_the_file_and_with_a_version_of_the_code(tmp_path, naming, second):
    for number, (body, expected) in enumerate([("return x * 2", "20 0 1"), ("return x * 3", second)]):
        source = PRICE.format(body=body, before="", default="").replace('"shared"', f'"shared", {naming}')
        assert printed(tmp_path / f"{number}.py", source=source) == expected


# Functions without an identity of their own

UNNAMED = """
import functools, threading, warnings
import warp_cache
class Callable:
    def __call__(self, x):
        return x
    def method(self, x):
        return x
def over(thing):
    return lambda x: (thing, x)[1]
kinds = {
    "object": Callable(), "bound method": Callable().method, "partial": functools.partial(max, 1),
    "closure": over(threading.Lock()), "main": lambda x: x,
}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    f = warp_cache.cache(backend="shared", **OPTIONS)(kinds[KIND])
    print(f(5), f(5), *f.cache_info(), f.shared_stats().path is None)
    f.cache_clear(), f.cache_invalidate(5), f.cache_unlink()
    print(f(5), f(5))
    child = __import__("os").fork()
    if not child:
        f(6)
        __import__("os")._exit(0)
    __import__("os").waitpid(child, 0)
    print(f.cache_contains(6), len(warp_cache.shared_regions()))
print(len(caught), all(issubclass(each.category, warp_cache.SharedCacheWarning) for each in caught))
print(*(str(each.message) for each in caught))
"""


@pytest.mark.parametrize("kind", ["object", "bound method", "partial", "closure", "main"])
def test_a_function_without_an_identity_has_a_private_region_and_one_warning(kind, tmp_path, shared_directory):
    source = f"OPTIONS = {{}}\nKIND = {kind!r}\n" + UNNAMED
    out = (
        script(None, source=None, interpreter=["-c", source])[0]
        if kind == "main"
        else script(tmp_path / "unnamed.py", source=source)[0]
    )
    *lines, message = out.splitlines()
    assert lines == ["5 5 1 1 128 1 0 True", "5 5", "True 0", "1 True"]
    assert "name=" in message
    assert list(shared_directory.glob("*.wc")) == []


@pytest.mark.parametrize("kind", ["object", "bound method", "partial", "closure", "main"])
def test_name_and_version_give_it_an_identity(kind, tmp_path):
    source = f"OPTIONS = dict(name='known', version=1)\nKIND = {kind!r}\n" + UNNAMED
    out = (
        script(None, source=None, interpreter=["-c", source])[0]
        if kind == "main"
        else script(tmp_path / "unnamed.py", source=source)[0]
    )
    assert out.splitlines()[:4] == ["5 5 1 1 128 1 0 False", "5 5", "True 1", "0 True"]


def test_the_warning_can_be_an_error_and_the_function_still_works():
    source = """
import warnings, warp_cache
warnings.simplefilter("error")
def f(x):
    return x
results = []
for attempt in range(3):
    try:
        cached = warp_cache.cache(f, backend="shared")
        results.append([cached(1), cached(1)])
    except warp_cache.SharedCacheWarning:
        results.append("warned")
print("warned" in results)
"""
    assert script(None, interpreter=["-c", source])[0] == "True"


def test_the_warning_is_a_runtime_warning():
    assert issubclass(warp_cache.SharedCacheWarning, RuntimeWarning)


def test_everything_public_is_exported():
    for name in ("SharedCacheInfo", "SharedCacheWarning", "SharedRegion", "SharedStats", "shared_regions"):
        assert hasattr(warp_cache, name), name
        assert name in warp_cache.__all__, name


def test_a_cached_function_is_pickled_by_its_name(tmp_path):
    source = """
import pickle, warp_cache
@warp_cache.cache(backend="shared")
def f(x):
    return x
print(pickle.loads(pickle.dumps(f)) is f)
"""
    assert printed(tmp_path / "pickled.py", source=source) == "True"
