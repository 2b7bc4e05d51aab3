"""The programs in examples/ run, and print what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
QUICKSTART, WEB_SERVICE = EXAMPLES / "quickstart.py", EXAMPLES / "web_service.py"
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


SERVICE_ROW = re.compile(
    r"^(no cache|@cache) +([\d,]+) +([\d.]+) +([\d,]+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d,]+)$", re.M
)
SAVED = re.compile(
    r"^pages not made, thanks to the cache +([\d,]+)\n"
    r"  the page was stored +([\d,]+)\n"
    r"  it was being made: waited for it +([\d,]+)\n"
    r"CacheInfo\(hits=(\d+), misses=(\d+), max_size=(\d+), current_size=(\d+)\)$",
    re.M,
)


def numbers(texts: Iterable[str]) -> list[float]:
    return [float(text.replace(",", "")) for text in texts]


def test_web_service_saves_what_it_says() -> None:
    pytest.importorskip("aiohttp")
    command = [sys.executable, str(WEB_SERVICE), "--quick"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""

    rows = {name: numbers(texts) for name, *texts in SERVICE_ROW.findall(done.stdout)}
    assert list(rows) == ["no cache", "@cache"]
    for requests, seconds, per_second, median, p95, p99, _ in rows.values():
        assert requests == 1000
        assert per_second == pytest.approx(requests / seconds, rel=0.1)
        assert 0 < median <= p95 <= p99 <= seconds * 1000
    assert rows["no cache"][-1] == 1000

    [texts] = SAVED.findall(done.stdout)
    saved, stored, waited, hits, misses, max_size, current_size = numbers(texts)
    assert misses == rows["@cache"][-1] < 1000
    assert hits == saved == stored + waited == 1000 - misses
    assert stored > 0
    assert waited > 0
    assert 0 < current_size <= min(max_size, misses)


@pytest.mark.parametrize(
    ("option", "number"), [("--requests", "1"), ("--requests", "1e3"), ("--concurrency", "0"), ("--concurrency", "101")]
)
def test_web_service_refuses_impossible_numbers(option: str, number: str) -> None:
    pytest.importorskip("aiohttp")
    command = [sys.executable, str(WEB_SERVICE), f"{option}={number}"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=240)
    assert done.returncode == 2
    assert f"argument {option}: a whole number from" in done.stderr
    assert f"not '{number}'" in done.stderr


def test_web_service_says_what_it_needs() -> None:
    code = f"import runpy, sys; sys.modules['aiohttp'] = None; runpy.run_path({str(WEB_SERVICE)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=240)
    assert done.returncode == 1
    assert done.stderr == "This example needs aiohttp: pip install aiohttp\n"
