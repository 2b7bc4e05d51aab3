"""How many times faster than functools.lru_cache, call by call.

Both decorators run in this process, in turn, so that a change of the machine's speed meets both alike. A figure is
functools' time over ours for the whole loop, as a program would see it: above 1 is faster. Each row's answers are
checked before it is timed.

    python benches/compare.py [--quick] [--json FILE] [--only TEXT]
"""

from __future__ import annotations

import argparse
import datetime
import decimal
import functools
import itertools
import json
import platform
import random
import statistics
import sys
import sysconfig
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import warp_cache


@dataclass
class Row:
    """One kind of call, as a body for `for _ in repeat(None, n)` or a loop over prepared keys."""

    name: str
    call: str
    theirs: dict[str, Any]
    ours: dict[str, Any]
    rounds: int = 200_000
    loop: str = "for _ in repeat(None, n):"
    ratios: list[float] = field(default_factory=list)
    ours_ns: list[float] = field(default_factory=list)
    theirs_ns: list[float] = field(default_factory=list)


def compiled(row: Row, names: dict[str, Any]) -> Callable[[int], float]:
    """The timed loop, with everything it uses in local variables."""
    parameters = ", ".join(f"{name}={name}" for name in names)
    source = (
        f"def timed(n, repeat=repeat, now=now, {parameters}):\n"
        f"    start = now()\n"
        f"    {row.loop}\n"
        f"        {row.call}\n"
        f"    return now() - start\n"
    )
    scope = {"repeat": itertools.repeat, "now": time.perf_counter, **names}
    exec(source, scope)
    return scope["timed"]


def pair(
    call: str,
    function: Callable[..., Any],
    *,
    ours: dict[str, Any] | None = None,
    decorator: Callable[..., Any] = warp_cache.cache,
    **names: Any,
) -> dict[str, Any]:
    """The same function under both decorators, warmed with one call and checked against the function."""
    theirs = functools.lru_cache(maxsize=128)(function)
    mine = decorator(**(ours or {}))(function)
    for cached in (theirs, mine):
        scope = {"f": cached, **names}
        expected = eval(call, {"f": function, **names})
        for _ in range(2):
            assert eval(call, scope) == expected, call
        assert cached.cache_info()[:2] == (1, 1), (call, cached.cache_info())
    return {"theirs": {"f": theirs, **names}, "ours": {"f": mine, **names}}


@dataclass(frozen=True)
class Point:
    x: int
    y: int


class Pair(NamedTuple):
    x: int
    y: int


# Keys that only their own `__eq__` can compare.
KEYS: dict[str, Callable[[], Any]] = {
    "date": lambda: datetime.date(2026, 1, 2),
    "datetime": lambda: datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.timezone.utc),
    "Decimal": lambda: decimal.Decimal("12.5"),
    "UUID": lambda: uuid.UUID(int=2**100 + 1),
    "frozen dataclass": lambda: Point(1, 2),
    "frozenset": lambda: frozenset((1, 2, 3)),
    "NamedTuple": lambda: Pair(1, 2),
}


def foreign(name: str, make: Callable[[], Any], rounds: int) -> Row:
    """A key that is equal to the stored one, and another object."""
    functions = [decorator(lambda x: x) for decorator in (functools.lru_cache, warp_cache.cache)]
    stored, other = make(), make()
    assert stored == other and stored is not other
    for f in functions:
        assert f(stored) is stored and f(other) is stored
    sides = [{"f": f, "x": other} for f in functions]
    return Row(f"hit f({name}), an equal one", "f(x)", *sides, rounds=rounds // 2)


def hits(rounds: int) -> list[Row]:
    def one(x: object) -> object:
        return x

    def two(a: int, b: int) -> tuple[int, int]:
        return a, b

    def with_default(a: int, b: int = 2) -> tuple[int, int]:
        return a, b

    def none() -> int:
        return 1

    rows = []

    def add(name: str, call: str, function: Callable[..., Any], **options: Any) -> None:
        rows.append(Row(name, call, rounds=rounds, **pair(call, function, **options)))

    add("hit f(int)", "f(x)", one, x=12345)
    add("hit f(str)", "f(x)", one, x="a word")
    add("hit f(int, int)", "f(x, y)", two, x=12345, y=6)
    add("hit f(a=int)", "f(x=x)", one, x=12345)
    add("hit f(int, b=int)", "f(x, b=y)", two, x=12345, y=6)
    add("hit f(a=int), b by default", "f(a=x)", with_default, x=12345)
    add("hit f(a=int), lru_cache", "f(x=x)", one, x=12345, decorator=warp_cache.lru_cache)
    add("hit f(int, b=int), lru_cache", "f(x, b=y)", two, x=12345, y=6, decorator=warp_cache.lru_cache)
    add("hit f()", "f()", none)
    add("hit f((1, 2))", "f(x)", one, x=(1, 2))
    add("hit f(2.5)", "f(x)", one, x=2.5)

    class Theirs:
        @functools.lru_cache(maxsize=128)
        def method(self, x: int) -> int:
            return x + 1

    class Ours:
        @warp_cache.cache
        def method(self, x: int) -> int:
            return x + 1

    theirs, ours = Theirs(), Ours()
    assert theirs.method(3) == ours.method(3) == theirs.method(3) == ours.method(3) == 4
    rows.append(Row("hit obj.m(int)", "f.method(3)", {"f": theirs}, {"f": ours}, rounds))

    add("hit f(int), ttl=60", "f(x)", one, x=12345, ours={"ttl": 60})
    for strategy in ("MRU", "FIFO", "LFU"):
        add(f"hit f(int), {strategy}", "f(x)", one, x=12345, ours={"strategy": strategy})

    for name, make in KEYS.items():
        rows.append(foreign(name, make, rounds))

    cached = warp_cache.lru_cache(one)
    theirs_one = functools.lru_cache(one)
    assert cached(12345) == cached(12345) == theirs_one(12345) == theirs_one(12345)
    rows.append(Row("hit f(int), lru_cache", "f(x)", {"f": theirs_one, "x": 12345}, {"f": cached, "x": 12345}, rounds))
    for strategy in ("LRU", "MRU", "FIFO", "LFU"):
        keys = list(range(1000, 1008))
        theirs_one, mine = functools.lru_cache(one), warp_cache.cache(strategy)(one)
        assert [theirs_one(key) for key in keys * 2] == [mine(key) for key in keys * 2] == keys * 2
        rows.append(
            Row(
                f"hit 8 keys in turn, {strategy}",
                "for x in keys: f(x)",
                {"f": theirs_one, "keys": keys},
                {"f": mine, "keys": keys},
                rounds // 8,
            )
        )
    return rows


def misses(rounds: int) -> list[Row]:
    rows = []
    for size in (128, 10_000):
        functions = [decorate(maxsize=size)(lambda x: x) for decorate in (functools.lru_cache, warp_cache.lru_cache)]
        for f in functions:
            assert [f(x) for x in range(2 * size)] == list(range(2 * size)) and f.cache_info() == (
                0,
                2 * size,
                size,
                size,
            )
        # A loop over more keys than fit: an LRU cache misses each of them, every time.
        keys = list(range(10_000, 10_000 + 2 * size))
        sides = [{"f": f, "keys": keys} for f in functions]
        rows.append(
            Row(f"miss and evict, size {size:,}", "for x in keys: f(x)", *sides, rounds=max(1, rounds // len(keys)))
        )
    growing = [decorate(lambda x: x) for decorate in (functools.lru_cache(maxsize=None), warp_cache.lru_cache(None))]
    keys = list(range(10_000, 10_000 + 40_000))
    for f in growing:
        assert [f(x) for x in keys] == keys and f.cache_info().currsize == len(keys)
    sides = [{"f": f, "keys": keys} for f in growing]
    rows.append(
        Row(
            "miss, unbounded, to 40,000",
            "f.cache_clear()\n        for x in keys: f(x)",
            *sides,
            rounds=max(1, rounds // len(keys)),
        )
    )
    return rows


def zipf(entries: int, draws: int, rounds: int) -> Row:
    """Keys drawn by Zipf's law with exponent 1 over resident entries, as fresh int objects."""
    generator = random.Random(2026)
    ranks = list(range(entries))
    generator.shuffle(ranks)
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(entries)))
    keys = [ranks[rank] + 1000 for rank in generator.choices(range(entries), cum_weights=weights, k=draws)]
    functions = [decorate(maxsize=entries)(lambda x: x) for decorate in (functools.lru_cache, warp_cache.lru_cache)]
    for f in functions:
        for key in range(1000, 1000 + entries):
            f(key)
        f.cache_info()
        assert [f(key) for key in keys[:1000]] == keys[:1000] and f.cache_info().hits == 1000
    sides = [{"f": f, "keys": keys} for f in functions]
    return Row(f"hit Zipf over {entries:,} entries", "for x in keys: f(x)", *sides, rounds=max(1, rounds // draws))


def measure(rows: list[Row], repeats: int) -> None:
    for number, row in enumerate(rows, 1):
        if sys.stderr.isatty():
            print(f"\r{number}/{len(rows)} {row.name:<40}", end="", file=sys.stderr, flush=True)
        theirs, ours = compiled(row, row.theirs), compiled(row, row.ours)
        calls = row.rounds * (len(row.ours["keys"]) if "keys" in row.ours else 1)
        theirs(row.rounds), ours(row.rounds)
        for repeat in range(repeats):
            # Who goes first alternates, too.
            order = (theirs, ours) if repeat % 2 else (ours, theirs)
            times = {timed: timed(row.rounds) for timed in order}
            row.ratios.append(times[theirs] / times[ours])
            row.theirs_ns.append(times[theirs] / calls * 1e9)
            row.ours_ns.append(times[ours] / calls * 1e9)
    if sys.stderr.isatty():
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr)


def interpreter() -> str:
    args = sysconfig.get_config_var("CONFIG_ARGS") or ""
    optimized = ", --enable-optimizations" if "--enable-optimizations" in args else ""
    threads = "free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else "GIL"
    version = f"CPython {platform.python_version()} ({threads}{optimized}; {sys.executable})"
    return f"{version}, {platform.machine()}, warp_cache {warp_cache.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repeats, to see that it runs")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--only", metavar="TEXT", default="", help="only rows whose name has TEXT")
    options = parser.parse_args()

    rounds, repeats, entries = (2_000, 3, 10_000) if options.quick else (200_000, 21, 1_000_000)
    rows = hits(rounds) + misses(rounds)
    rows = [row for row in rows if options.only in row.name]
    if options.only in "hit Zipf":
        rows.append(zipf(entries, rounds, rounds))
    measure(rows, repeats)

    print(interpreter())
    print(f"{'call':<40}{'functools':>12}{'warp_cache':>12}{'ratio':>8}{'  spread':>14}")
    results = []
    for row in rows:
        quartiles = statistics.quantiles(row.ratios, n=4)
        result = {
            "call": row.name,
            "functools_ns": statistics.median(row.theirs_ns),
            "warp_cache_ns": statistics.median(row.ours_ns),
            "ratio": statistics.median(row.ratios),
            "quartiles": [quartiles[0], quartiles[2]],
        }
        results.append(result)
        print(
            f"{row.name:<40}{result['functools_ns']:>9.1f} ns{result['warp_cache_ns']:>9.1f} ns{result['ratio']:>8.2f}"
            f"{quartiles[0]:>8.2f}–{quartiles[2]:.2f}"
        )
    print("ratio: functools' time over ours, whole loop, median; spread: its quartiles")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"interpreter": interpreter(), "rows": results}, file, indent=2)


if __name__ == "__main__":
    main()
