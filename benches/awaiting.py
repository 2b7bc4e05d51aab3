"""What awaiting a cached coroutine function costs, beside a plain `async def` and async_lru.

Everything runs in one process and one event loop, in turn, so that a change of the machine's speed meets all alike.
Times are above those of the empty loop. async_lru is compared where it is installed: `pip install async_lru`.

    python benches/awaiting.py [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from compare import interpreter

import warp_cache

try:
    import async_lru
except ImportError:
    async_lru = None

Timed = Callable[[int], Coroutine[Any, Any, float]]


def compiled(body: str, **names: Any) -> Timed:
    """A coroutine function that times `body` so many times, with everything it uses in local variables."""
    parameters = ", ".join(f"{name}={name}" for name in names)
    source = (
        f"async def timed(n, repeat=repeat, now=now, {parameters}):\n"
        f"    start = now()\n"
        f"    for i in range(n):\n"
        f"        {body}\n"
        f"    return now() - start\n"
    )
    scope = {"repeat": itertools.repeat, "now": time.perf_counter, **names}
    exec(source, scope)
    return scope["timed"]


async def plain(x: int) -> int:
    return 1


async def switching(x: int) -> int:
    await asyncio.sleep(0)
    return 1


class Owner:
    async def plain(self, x: int) -> int:
        return 1

    cached = warp_cache.cache(plain)


async def checked(cached: Callable[..., Awaitable[int]], *args: int, **kwargs: int) -> Callable[..., Awaitable[int]]:
    """The cached function, after a miss and a hit that returned what they should."""
    assert await cached(*args, **kwargs) == await cached(*args, **kwargs) == 1
    assert cached.cache_info()[:2] == (1, 1), cached.cache_info()
    return cached


async def hits() -> dict[str, Timed]:
    cached = await checked(warp_cache.cache(plain), 12345)
    timed = {
        "plain async def": compiled("await f(x)", f=plain, x=12345),
        "hit f(int)": compiled("await f(x)", f=cached, x=12345),
        "hit f(x=int)": compiled("await f(x=x)", f=cached, x=12345),
        "hit f(int), ttl=60": compiled("await f(x)", f=await checked(warp_cache.cache(ttl=60)(plain), 12345), x=12345),
        "hit f(int), lru_cache": compiled("await f(x)", f=await checked(warp_cache.lru_cache(plain), 12345), x=12345),
    }
    owner = Owner()
    assert await owner.cached(3) == await owner.cached(3) == 1
    timed["plain obj.m(int)"] = compiled("await f.plain(x)", f=owner, x=3)
    timed["hit obj.m(int)"] = compiled("await f.cached(x)", f=owner, x=3)
    if async_lru:
        timed["async_lru's hit f(int)"] = compiled(
            "await f(x)", f=await checked(async_lru.alru_cache(plain), 12345), x=12345
        )
    return timed


def misses() -> dict[str, Timed]:
    timed = {}
    for name, function in (("", plain), (", one suspension", switching)):
        # Each call has a key of its own, and finds the cache full.
        keys = itertools.count(10_000)
        timed[f"the function itself{name}"] = compiled("await f(next(keys))", f=function, keys=keys)
        timed[f"miss and evict{name}"] = compiled("await f(next(keys))", f=warp_cache.cache(function), keys=keys)
        if async_lru:
            theirs = async_lru.alru_cache(maxsize=128)(function)
            timed[f"async_lru's miss and evict{name}"] = compiled("await f(next(keys))", f=theirs, keys=keys)
    return timed


async def measure(timed: dict[str, Timed], rounds: int, repeats: int) -> dict[str, list[float]]:
    """Nanoseconds a round, of every repeat."""
    empty = compiled("pass")
    times: dict[str, list[float]] = {name: [] for name in timed}
    names = list(timed)
    for function in timed.values():
        await function(rounds)
    for repeat in range(repeats):
        base = await empty(rounds)
        for name in names if repeat % 2 else reversed(names):
            times[name].append((await timed[name](rounds) - base) / rounds * 1e9)
    return times


async def crowd(size: int) -> tuple[float, int]:
    """How long it takes that many tasks to get one missing value, and how often the function ran."""
    runs = 0

    @warp_cache.cache
    async def once(x: int) -> int:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)
        return x

    tasks = [asyncio.create_task(once(1)) for _ in range(size)]
    start = time.perf_counter()
    values = await asyncio.gather(*tasks)
    took = time.perf_counter() - start
    assert values == [1] * size
    return took, runs


async def run(quick: bool) -> list[dict[str, Any]]:
    rounds, repeats = (500, 3) if quick else (50_000, 21)
    results = []

    def show(name: str, times: list[float], against: list[float]) -> None:
        ratios = [one / other for one, other in zip(times, against, strict=True)]
        row = {"call": name, "ns": statistics.median(times), "ratio": statistics.median(ratios)}
        row["added_ns"] = statistics.median(one - other for one, other in zip(times, against, strict=True))
        results.append(row)
        print(f"{name:<44}{row['ns']:>9.1f} ns{row['ratio']:>8.2f}{row['added_ns']:>+10.1f} ns", flush=True)

    print(f"{'await':<44}{'time':>12}{'ratio':>8}{'added':>13}")
    times = await measure(await hits(), rounds, repeats)
    for name in times:
        base = "plain obj.m(int)" if "obj" in name else "plain async def"
        show(name, times[name], times[base])
    if async_lru:
        ratios = [one / other for one, other in zip(times["async_lru's hit f(int)"], times["hit f(int)"], strict=True)]
        results.append({"call": "async_lru's hit / ours", "ratio": statistics.median(ratios)})
        print(f"{'async_lru’s hit / ours':<44}{'':>12}{statistics.median(ratios):>8.2f}")
    times = await measure(misses(), max(1, rounds // 5), repeats)
    for name in times:
        _, comma, kind = name.partition(", ")
        show(name, times[name], times[f"the function itself{comma}{kind}"])
    size = 100 if quick else 10_000
    crowds = [await crowd(size) for _ in range(3 if quick else 7)]
    took = statistics.median(took for took, _ in crowds)
    runs = {runs for _, runs in crowds}
    print(f"{size:,} tasks on one missing key: {took * 1e3:.1f} ms, function runs: {', '.join(map(str, runs))}")
    results.append({"call": f"{size} tasks on one missing key", "ms": took * 1e3, "runs": sorted(runs)})
    print("ratio, added: to awaiting the function itself; medians of paired repeats")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repeats, to see that it runs")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args()
    print(interpreter())
    if not async_lru:
        print("async_lru is not installed, and so not compared", file=sys.stderr)
    results = asyncio.run(run(options.quick))
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"interpreter": interpreter(), "rows": results}, file, indent=2)


if __name__ == "__main__":
    main()
