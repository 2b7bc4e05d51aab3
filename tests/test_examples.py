"""The programs in examples/ run, and print what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
QUICKSTART, WEB_SERVICE = EXAMPLES / "quickstart.py", EXAMPLES / "web_service.py"
WORKER_POOL = EXAMPLES / "worker_pool.py"
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


POOL_ROW = re.compile(
    r"^(no cache|in each worker|shared|shared, worker killed)"
    r" +([\d,]+) +([\d,]+) +([\d,]+) +([\d.]+) +([\d.]+) +([\d,]+)$",
    re.M,
)
WORKER = re.compile(r"^(\d)(, killed|, in place of 1)? +([\d,]+) +([\d,]+) +([\d,]+) +([\d.]+)%$", re.M)
POOL_INFO = re.compile(
    r"^requests sent again, because the worker that had them was killed: (\d+)\n"
    r"SharedCacheInfo\(hits=(\d+), misses=(\d+), max_size=(\d+), current_size=(\d+), oversize_skips=(\d+)\)$",
    re.M,
)


@pytest.mark.skipif(sys.platform == "win32", reason="no shared backend")
def test_worker_pool_shares_pages_and_outlives_a_killed_worker(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    command = [sys.executable, str(WORKER_POOL), "--quick"]
    environment = {**os.environ, "WARP_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    [different] = numbers(re.findall(r"^500 requests for (\d+) of ", done.stdout))

    rows = {name: numbers(texts) for name, *texts in POOL_ROW.findall(done.stdout)}
    assert list(rows) == ["no cache", "in each worker", "shared", "shared, worker killed"]
    for name, (requests, made, saved, median, p99, _) in rows.items():
        assert requests == 500 or (name == "shared, worker killed" and requests >= 500)
        assert saved == requests - made
        assert 0 < median <= p99
    assert rows["no cache"][1] == 500
    assert different <= rows["shared"][1] < rows["in each worker"][1] < 500

    workers = {number + note: numbers(texts) for number, note, *texts in WORKER.findall(done.stdout)}
    assert set(workers) >= {"2", "3", "4", "5, in place of 1"}
    assert set(workers) <= {"1, killed", "2", "3", "4", "5, in place of 1"}
    for requests, made, hits, ratio in workers.values():
        assert hits == requests - made
        assert ratio == pytest.approx(100 * hits / requests, abs=0.1)
    assert sum(requests for requests, *_ in workers.values()) == rows["shared, worker killed"][0]
    assert workers["5, in place of 1"][2] > 0

    [texts] = POOL_INFO.findall(done.stdout)
    again, hits, misses, max_size, current_size, oversize_skips = numbers(texts)
    made = rows["shared"][1] + rows["shared, worker killed"][1]
    calls = rows["shared"][0] + rows["shared, worker killed"][0]
    # What the killed worker had begun was counted, and is counted again where it was sent again.
    assert calls <= hits + misses <= calls + again
    assert made <= misses <= made + again
    assert different - again <= current_size <= min(max_size, misses)
    assert oversize_skips == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no shared backend")
@pytest.mark.parametrize(("option", "number"), [("--requests", "99"), ("--workers", "1"), ("--clients", "1e3")])
def test_worker_pool_refuses_impossible_numbers(option: str, number: str) -> None:
    command = [sys.executable, str(WORKER_POOL), f"{option}={number}"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=240)
    assert done.returncode == 2
    assert f"argument {option}: a whole number from" in done.stderr
    assert f"not '{number}'" in done.stderr
