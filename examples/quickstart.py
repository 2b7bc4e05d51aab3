"""Which Python keyword is each word of the standard library closest to?

Every word of the library's own source text goes through one costly function, the nearest keyword by edit distance in
plain Python: first a sample of it uncached, then all of it through functools.lru_cache and through warp_cache with
each of its strategies, all of the same size. Words come back often, so most calls need not be computed again.

    python examples/quickstart.py [--quick]
"""

from __future__ import annotations

import argparse
import functools
import itertools
import keyword
import re
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import warp_cache


def edit_distance(a: str, b: str) -> int:
    """How many letters to insert, delete or replace to turn one word into the other (Levenshtein, 1965)."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        above, row = row, [i]
        for j, other in enumerate(b, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (letter != other)))
    return row[-1]


def nearest_keyword(word: str) -> str:
    return min(keyword.kwlist, key=lambda candidate: edit_distance(word, candidate))


def library_words() -> Iterator[str]:
    """The words of the standard library's source, file by file."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if not {"site-packages", "dist-packages"} & set(path.parts):
            yield from re.findall(r"[^\W\d]\w*", path.read_text(encoding="utf-8", errors="replace"))


class Progress:
    """One line that is kept up to date on a terminal; elsewhere a line every few seconds."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.shown_at = time.monotonic()

    def show(self, text: str) -> None:
        now = time.monotonic()
        if now - self.shown_at >= (0.1 if self.live else 5):
            self.shown_at = now
            print(f"\r\033[K{text}" if self.live else text, end="" if self.live else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


@dataclass
class Run:
    """One cached function on its way through the words."""

    name: str
    cached: Any
    seconds: float = 0.0
    answers: list[str] = field(default_factory=list)

    def step(self, words: list[str]) -> None:
        before = time.perf_counter()
        self.answers.extend(map(self.cached, words))
        self.seconds += time.perf_counter() - before


def hit_ns(cached: Any) -> float:
    """What a call costs when its answer is there: the best of several runs over a few words."""
    words = list(keyword.kwlist) * 300
    cached.cache_clear()
    for word in keyword.kwlist:
        cached(word)
    best = float("inf")
    for _ in range(7):
        before = time.perf_counter()
        for word in words:
            cached(word)
        best = min(best, time.perf_counter() - before)
    assert cached.cache_info().misses == len(keyword.kwlist)
    return best / len(words) * 1e9


def compare(words: list[str], max_size: int) -> None:
    progress = Progress()

    step = max(1, len(words) // 1000)
    sample = words[::step]
    before = time.perf_counter()
    sample_answers = [nearest_keyword(word) for word in sample]
    uncached = (time.perf_counter() - before) / len(sample)

    runs = [Run("functools.lru_cache", functools.lru_cache(maxsize=max_size)(nearest_keyword))]
    for strategy in warp_cache.Strategy:
        runs.append(Run(f"warp_cache {strategy.name}", warp_cache.cache(strategy, max_size)(nearest_keyword)))
    # They take turns at short pieces, so that a change of the machine's speed meets all alike.
    for start in range(0, len(words), 250):
        for run in runs:
            run.step(words[start : start + 250])
            progress.show(f"{len(run.answers):,} of {len(words):,} words through each cache ({run.name})")
    progress.end()

    for run in runs:
        if run.answers != runs[0].answers or run.answers[::step] != sample_answers:
            sys.exit(f"{run.name} gave other answers")

    # Taken before the caches are put to other use, to time their hits.
    infos = [run.cached.cache_info() for run in runs]
    print(f"{'':<20}{'seconds':>9}{'ns per call':>13}{'ns per hit':>12}  hit ratio")
    scaled = f"(scaled up from {len(sample):,} calls)"
    print(f"{'uncached':<20}{uncached * len(words):>9.2f}{uncached * 1e9:>13,.0f}{'':>12}  {scaled}")
    for run, info in zip(runs, infos, strict=True):
        ratio = info.hits / len(words)
        bar = "#" * round(ratio * 30)
        per_call = run.seconds / len(words) * 1e9
        print(f"{run.name:<20}{run.seconds:>9.2f}{per_call:>13,.0f}{hit_ns(run.cached):>12.1f}  {ratio:>6.1%} {bar}")
    print()
    for run, info in zip(runs, infos, strict=True):
        print(f"{run.name:<20} {info}")
    print("\nAll gave the same answers. ns per call is over hits and misses: nearly all of it is the function's own")
    print("work in misses, so the hit ratio decides. ns per hit is the loop and a hit: the decorator's own cost.")


class Speller:
    """A method is cached as a function is, and here each answer for a tenth of a second only."""

    def __init__(self, known: list[str]) -> None:
        self.known = known
        self.computed = 0

    @warp_cache.cache(max_size=1000, ttl=0.1)
    def correct(self, word: str) -> str:
        self.computed += 1
        return min(self.known, key=lambda candidate: edit_distance(word, candidate))


def methods_and_ttl() -> None:
    speller = Speller(["import", "return", "yield"])
    print("\nA cached method whose answers are valid for 0.1 s:")
    for pause in (0.0, 0.0, 0.15):
        time.sleep(pause)
        answer = speller.correct("retrun")
        print(f"  after {pause:.2f} s: correct('retrun') = {answer!r}, computed {speller.computed} time(s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer words: a few seconds instead of a minute")
    options = parser.parse_args()
    count, max_size = (5_000, 200) if options.quick else (80_000, 1000)

    words = list(itertools.islice(library_words(), count))
    if not words:
        sys.exit("this Python has no source text of its standard library")
    different = f"{len(set(words)):,} different"
    print(
        f"{len(words):,} words of the standard library, {different}, cached at most {max_size:,} at a time\n",
        flush=True,
    )
    compare(words, max_size)
    methods_and_ttl()


if __name__ == "__main__":
    main()
