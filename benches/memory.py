"""Bytes an entry takes in a full cache of a million, int under int: growth of the process, keys made beforehand.

    python benches/memory.py [--entries N]

Each cache grows in a process of its own, so that nothing freed by one is used by the next. Linux and macOS.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

PROGRAM = """
import functools, sys, warp_cache

def resident():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096
    except FileNotFoundError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

entries = int(sys.argv[1])
cached = eval(sys.argv[2])(lambda key: key)
keys = list(range(10**6, 10**6 + entries))
before = resident()
for key in keys:
    cached(key)
print((resident() - before) / entries)
assert cached.cache_info()[1::2] == (entries, entries)
"""

CACHES = {
    "functools.lru_cache(n)": "functools.lru_cache(maxsize=entries)",
    "functools.lru_cache(None)": "functools.lru_cache(maxsize=None)",
    **{f"warp_cache {name}": f"warp_cache.cache('{name}', entries)" for name in ("LRU", "MRU", "FIFO", "LFU")},
    "warp_cache LRU, ttl": "warp_cache.cache(max_size=entries, ttl=3600)",
    "warp_cache, unbounded": "warp_cache.cache(max_size=None)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    options = parser.parse_args()
    print(f"{'cache':<28}bytes an entry, {options.entries:,} entries")
    for name, cache in CACHES.items():
        command = [sys.executable, "-c", PROGRAM, str(options.entries), cache]
        figure = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{name:<28}{figure:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
