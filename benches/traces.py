"""Hit counts and times on real access traces: functools.lru_cache beside every strategy.

A trace is a text file, gzipped or not, with one integer key a line. Without one, keys are drawn by Zipf's law.

    python benches/traces.py [--json FILE] [TRACE ...]

`Strategy.LRU` must have the very hits of functools.lru_cache; the script fails where it has not.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import itertools
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import warp_cache


def read(path: Path) -> list[int]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as lines:
        return [int(line) for line in lines]


def drawn() -> list[int]:
    generator = random.Random(2026)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, 20_001)))
    return generator.choices(range(20_000), cum_weights=weights, k=200_000)


def replay(decorator: Any, keys: list[int]) -> tuple[int, float]:
    """The number of hits, and nanoseconds a call."""
    cached = decorator(lambda key: key)
    start = time.perf_counter()
    for key in keys:
        cached(key)
    elapsed = time.perf_counter() - start
    hits, misses = cached.cache_info()[:2]
    assert hits + misses == len(keys)
    return hits, elapsed / len(keys) * 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*", type=Path, metavar="TRACE")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args()
    traces = [(path.name.split(".")[0], read(path)) for path in options.traces] or [("zipf", drawn())]

    names = ["functools", *(strategy.name for strategy in warp_cache.Strategy)]
    print(f"{'trace':<12}{'max_size':>10}" + "".join(f"{name:>18}" for name in names))
    results, differing = [], 0
    for name, keys in traces:
        unique = len(set(keys))
        for percent in (1, 5, 10):
            size = max(1, unique * percent // 100)
            decorators = {"functools": functools.lru_cache(maxsize=size)}
            decorators |= {strategy.name: warp_cache.cache(strategy, size) for strategy in warp_cache.Strategy}
            row = {decorator: replay(decorators[decorator], keys) for decorator in names}
            differing += row["LRU"][0] != row["functools"][0]
            cells = "".join(f"{hits / len(keys):>9.4f}{ns:>6.0f} ns" for hits, ns in row.values())
            print(f"{name:<12}{size:>10,}{cells}", flush=True)
            results.append({"trace": name, "max_size": size, "accesses": len(keys), "hits_and_ns": row})
    print(
        "hit ratio and nanoseconds a call; LRU's hits "
        + ("DIFFER from" if differing else "are those of")
        + " functools'"
    )
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2))
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
