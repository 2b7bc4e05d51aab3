"""The programs in examples/ run, and print what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

QUICKSTART = Path(__file__).parent.parent / "examples" / "quickstart.py"
INFO = re.compile(
    r"^(\S+(?: [A-Z]+)?) +CacheInfo\(hits=(\d+), misses=(\d+), max_?size=(\d+), curr(?:ent_)?size=(\d+)\)$", re.M
)
ROW = re.compile(r"^(\S+(?: [A-Z]+)?) +([\d.]+) +([\d,]+) +([\d.]+) +([\d.]+)% (#*)$", re.M)
CACHED = ["functools.lru_cache", "warp_cache LRU", "warp_cache MRU", "warp_cache FIFO", "warp_cache LFU"]


def test_quickstart_compares_every_strategy_with_functools() -> None:
    command = [sys.executable, str(QUICKSTART), "--quick"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=240)
    assert done.returncode == 0, done.stderr
    words = int(done.stdout.split(" words", 1)[0].replace(",", ""))

    counts = {name: tuple(map(int, numbers)) for name, *numbers in INFO.findall(done.stdout)}
    assert list(counts) == CACHED
    assert counts["warp_cache LRU"] == counts["functools.lru_cache"]
    for hits, misses, max_size, current_size in counts.values():
        assert hits + misses == words
        assert current_size == max_size

    rows = {name: numbers for name, *numbers in ROW.findall(done.stdout)}
    assert list(rows) == CACHED
    for name, (_, _, _, ratio, bar) in rows.items():
        hit_ratio = counts[name][0] / words
        assert f"{ratio}%" == f"{hit_ratio:.1%}"
        assert len(bar) == round(hit_ratio * 30)
    assert re.search(r"^uncached .*scaled up", done.stdout, re.M)
    assert "All gave the same answers." in done.stdout
