"""What a call of a function cached in shared memory costs, beside warp_cache 0.7.0 of PyPI, and beside diskcache.

Each side has processes of its own, which do what this one tells them over pipes, in turn: so a change of the machine's
speed meets all alike. The others are installed into a virtual environment in the checkout, with the Python that runs
this; where that fails, our figures stand alone. A ratio is our figure over that of 0.7.0, repeat by repeat, whole loop
and function included. The last column is what we aim at.

    python benches/shared.py [--quick] [--json FILE] [--only TEXT]
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

OURS, PEER, DISKCACHE = "ours", "peer", "diskcache"
HEADINGS = {OURS: "warp_cache", PEER: "0.7.0", DISKCACHE: "diskcache"}
PINNED = ["warp_cache==0.7.0", "diskcache==5.6.3"]
MEMORY = Path("/dev/shm")


# What is measured, which workers and their parent agree on.


def same(x: object) -> object:
    return x


def floats(word: str) -> list[float]:
    return [number / 7 for number in range(100)]


def record(word: str) -> dict[str, object]:
    return {"id": 12345, "name": word, "price": 9.75, "tags": ["new", "red"], "stock": {"north": 3, "south": 0}}


def short(key: int) -> bytes:
    return b"0123456789abcdef"


def long(key: int) -> bytes:
    return LONG


LONG = bytes(range(250)) * 16


@dataclass(frozen=True)
class Row:
    """One kind of call, timed as the body of a loop."""

    call: str
    function: Callable[..., object]
    arguments: dict[str, object] = field(default_factory=dict)
    max_size: int = 128
    ttl: float | None = None
    stores: bool = False  # each call has a key that no other has had
    aim: str = ""


HITS = {
    "hit int -> int": Row("f(x)", same, {"x": 12345}, aim="ratio ≤ 1.0"),
    "hit str -> str": Row("f(x)", same, {"x": "a word"}, aim="ratio ≤ 1.0"),
    "hit f(x=int) -> int": Row("f(x=x)", same, {"x": 12345}, aim="ratio ≤ 0.25"),
    "hit str -> 100 floats": Row("f(x)", floats, {"x": "a word"}, aim="ratio ≤ 0.8"),
    "hit int -> 4,000 bytes": Row("f(x)", long, {"x": 12345}),
    "hit str -> dict": Row("f(x)", record, {"x": "a word"}),
    "hit int -> int, ttl=60": Row("f(x)", same, {"x": 12345}, ttl=60),
}
STORES = {
    "miss, store int, size 128": Row("f(x)", same, stores=True),
    "miss, store int, size 10,000": Row("f(x)", same, max_size=10_000, stores=True),
    "miss, store 4,000 bytes": Row("f(x)", long, max_size=1_000, stores=True),
}
# Kept by readers and writers together. The readers' keys fit many times over.
CROWDED = {"16 bytes": Row("f(x)", short, max_size=10_000), "4,000 bytes": Row("f(x)", long, max_size=10_000)}
# The same in a cache of their own, where a writer costs the readers what any busy process does.
ELSEWHERE = {f"{name} elsewhere": row for name, row in CROWDED.items()}
ROWS = HITS | STORES | CROWDED | ELSEWHERE
WRITERS = (1, 2, 8)


# The worker: one side's process.


class Ours:
    def __init__(self) -> None:
        import warp_cache

        self.cache: Any = warp_cache.cache

    def decorate(self, function: Callable[..., object], max_size: int, ttl: float | None) -> Any:
        return self.cache(backend="shared", max_size=max_size, ttl=ttl)(function)

    def files(self, cached: Any, name: str) -> list[str]:
        return [cached.shared_stats().path]

    def counts(self, cached: Any) -> tuple[int, int] | None:
        info = cached.cache_info()
        return info.hits, info.misses

    def remove(self, cached: Any, name: str) -> None:
        cached.cache_unlink()


class Peer(Ours):
    def files(self, cached: Any, name: str) -> list[str]:
        return peers_files(name)

    def remove(self, cached: Any, name: str) -> None:
        for file in peers_files(name):
            os.unlink(file)


class Diskcache(Ours):
    def __init__(self) -> None:
        import diskcache

        self.Cache = diskcache.Cache

    def decorate(self, function: Callable[..., object], max_size: int, ttl: float | None) -> Any:
        # It bounds bytes, not entries.
        store = self.Cache(os.path.join(os.environ["WARP_CACHE_DIR"], f"diskcache-{function.__qualname__}"))
        cached = store.memoize(expire=ttl)(function)
        cached.store = store
        return cached

    def files(self, cached: Any, name: str) -> list[str]:
        return [str(path) for path in Path(cached.store.directory).rglob("*") if path.is_file()]

    def counts(self, cached: Any) -> None:
        return None

    def remove(self, cached: Any, name: str) -> None:
        cached.store.close()
        shutil.rmtree(cached.store.directory)


def peers_files(name: str) -> list[str]:
    folders = [MEMORY, Path(tempfile.gettempdir()) / "warp_cache"]
    return [file for folder in folders for file in glob.glob(str(folder / f"warp_cache_*{glob.escape(name)}*"))]


def named(function: Callable[..., object], name: str) -> Callable[..., object]:
    """The function under a name, and so in shared memory, of its own."""
    function = cast(types.FunctionType, function)
    name = "".join(character if character.isalnum() else "_" for character in name)
    copy = types.FunctionType(function.__code__, function.__globals__, name)
    copy.__qualname__ = f"{name}_{os.environ['BENCH_TOKEN']}"
    return copy


def compiled(row: Row, cached: Any, keys: Iterator[int]) -> Callable[[int], float]:
    """The timed loop, with everything it uses in local variables."""
    names = {"f": cached, **row.arguments}
    parameters = ", ".join(f"{name}={name}" for name in names)
    loop = "for x in islice(keys, n):" if row.stores else "for _ in repeat(None, n):"
    source = (
        f"def timed(n, repeat=repeat, islice=islice, keys=keys, now=now, {parameters}):\n"
        f"    start = now()\n"
        f"    {loop}\n"
        f"        {row.call}\n"
        f"    return now() - start\n"
    )
    scope = {"repeat": itertools.repeat, "islice": itertools.islice, "keys": keys, "now": time.perf_counter, **names}
    exec(source, scope)
    return scope["timed"]


class Worker:
    """Does what the parent says: each public method is a command."""

    def __init__(self, side: str, number: int) -> None:
        self.side = {OURS: Ours, PEER: Peer, DISKCACHE: Diskcache}[side]()
        self.cached: dict[str, Any] = {}
        self.timed: dict[str, Callable[[int], float]] = {}
        # No two workers of a side ever make the same key, nor one that a reader uses.
        self.keys = itertools.count((number + 1) * 10**12)
        self.decorated = itertools.count()

    def prepare(self, row: str) -> None:
        what = ROWS[row]
        cached = self.side.decorate(named(what.function, row), what.max_size, what.ttl)
        self.cached[row], self.timed[row] = cached, compiled(what, cached, self.keys)
        if row in HITS:
            scope = {"f": cached, **what.arguments}
            expected = eval(what.call, {"f": what.function, **what.arguments})
            for _ in range(2):
                value = eval(what.call, scope)
                assert value == expected and type(value) is type(expected), (row, value)
            assert self.side.counts(cached) in (None, (1, 1)), (row, self.side.counts(cached))
        elif row in STORES and not isinstance(self.side, Diskcache):
            self.timed[row](what.max_size)

    def time(self, row: str, rounds: int) -> float:
        before = self.side.counts(self.cached[row])
        took = self.timed[row](rounds)
        after = self.side.counts(self.cached[row])
        if before and after:
            hits, misses = after[0] - before[0], after[1] - before[1]
            assert (hits, misses) == ((0, rounds) if ROWS[row].stores else (rounds, 0)), (row, hits, misses)
        return took

    def read(self, row: str, start: float, seconds: float) -> float:
        """Calls a second for a hundred keys in turn, from `start` on."""
        cached, keys, now = self.cached[row], list(range(100)) * 10, time.monotonic
        for key in keys:
            cached(key)
        time.sleep(max(0, start - now()))
        begun, calls = now(), 0
        while (passed := now() - begun) < seconds:
            for key in keys:
                cached(key)
            calls += len(keys)
        return calls / passed

    def write(self, row: str, start: float, seconds: float) -> tuple[float, float]:
        """Stores a second, from `start` on, and the longest of them, in seconds."""
        cached, keys, now = self.cached[row], self.keys, time.monotonic
        time.sleep(max(0, start - now()))
        begun = before = now()
        longest, calls, end = 0.0, 0, begun + seconds
        while before < end:
            cached(next(keys))
            after = now()
            if after - before > longest:
                longest = after - before
            before = after
            calls += 1
        return calls / (before - begun), longest

    def clear(self, row: str) -> None:
        cached = self.cached[row]
        if not isinstance(self.side, Diskcache):
            cached.cache_clear()

    def begin(self, max_size: int, entries: int) -> tuple[float, int, int]:
        """Seconds that decorating and a first call take, bytes in use after that, and after so many entries."""
        function = named(same, f"space {max_size} {os.getpid()} {next(self.decorated)}")
        before = time.perf_counter()
        cached = self.side.decorate(function, max_size, None)
        cached(10**6)
        took = time.perf_counter() - before

        def used() -> int:
            return sum(os.stat(file).st_blocks * 512 for file in self.side.files(cached, function.__name__))

        at_first = used()
        for key in range(10**6, 10**6 + entries):
            cached(key)
        at_last = used()
        self.side.remove(cached, function.__name__)
        return took, at_first, at_last


def work(side: str, number: int) -> None:
    warnings.simplefilter("error")
    worker = Worker(side, number)
    print(json.dumps({"answer": "ready"}), flush=True)
    for line in sys.stdin:
        command, arguments = json.loads(line)
        try:
            answer = {"answer": getattr(worker, command)(*arguments)}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


# The parent: it starts the workers, and lets them take turns.


class Process:
    """A worker, seen from the parent."""

    def __init__(self, side: str, python: str, number: int) -> None:
        self.side = side
        command = [python, __file__, "--worker", side, "--number", str(number)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, command: str, *arguments: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps([command, arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.side}: its worker has ended, status {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            sys.exit(f"{self.side}: {answer['error']}")
        return answer["answer"]

    def ask(self, command: str, *arguments: object) -> Any:
        self.send(command, *arguments)
        return self.answer()

    def end(self) -> None:
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def environment() -> str | None:
    """The Python of an environment that has the others, made at the first run."""
    folder = Path(__file__).resolve().parent.parent / f".venv-peers-{sys.implementation.cache_tag}"
    python = folder / "bin" / "python"
    marker = folder / "installed"
    if marker.exists() and marker.read_text() == " ".join(PINNED):
        return str(python)
    print(f"installing {' and '.join(PINNED)} into {folder}", file=sys.stderr)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
        + PINNED,
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
            print(f"the others can't be installed, and so not compared: {' '.join(reason)}", file=sys.stderr)
            return None
    marker.write_text(" ".join(PINNED))
    return str(python)


@dataclass
class Figures:
    """A line of the table: what each side gave, repeat by repeat."""

    name: str
    unit: str
    of: dict[str, list[float]]
    aim: str = ""
    paired: bool = True  # whether a ratio means something
    worst: bool = False  # the highest counts, not the median

    def figure(self, side: str) -> float:
        return max(self.of[side]) if self.worst else statistics.median(self.of[side])

    def ratios(self) -> list[float]:
        if PEER not in self.of or not self.paired:
            return []
        pairs = zip(self.of[OURS], self.of[PEER], strict=True)
        return [ours / peer for ours, peer in pairs]

    def line(self) -> str:
        cells = [shown(self.figure(side), self.unit) if side in self.of else "" for side in HEADINGS]
        ratios = self.ratios()
        ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
        quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else []
        spread = f"{quartiles[0]:.2f}–{quartiles[2]:.2f}" if quartiles else ""
        return f"{self.name:<38}" + "".join(f"{cell:>12}" for cell in cells) + f"{ratio:>7}{spread:>12}  {self.aim}"

    def result(self) -> dict[str, Any]:
        ratios = self.ratios()
        quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else []
        return {
            "row": self.name,
            "unit": self.unit,
            **{HEADINGS[side]: self.figure(side) for side in self.of},
            "ratio": statistics.median(ratios) if ratios else None,
            "quartiles": [quartiles[0], quartiles[2]] if quartiles else None,
            "aim": self.aim,
        }


def shown(number: float, unit: str) -> str:
    if unit == "share":
        return f"{number:.2f}"
    if unit == "/s":
        return f"{number / 1000:,.1f} k/s"
    if unit == "bytes" and number >= 10**6:
        return f"{number / 10**6:,.2f} MB"
    if unit == "bytes" and number >= 10**4:
        return f"{number / 10**3:,.1f} kB"
    if unit == "ns" and number >= 10**4:
        number, unit = number / 1000, "µs"
    digits = 1 if unit in ("ns", "µs") or (unit == "ms" and number < 1000) else 0
    return f"{number:,.{digits}f} {unit}"


class Bench:
    def __init__(self, workers: dict[str, list[Process]], quick: bool, only: str) -> None:
        self.workers = workers
        self.quick, self.only = quick, only
        self.repeats = 3 if quick else 21
        self.seconds = 0.05 if quick else 0.3
        self.results: list[dict[str, Any]] = []

    def sides(self, repeat: int) -> list[str]:
        """Who goes first alternates, too."""
        return list(self.workers) if repeat % 2 else list(reversed(self.workers))

    def show(self, figures: Figures) -> None:
        print(figures.line(), flush=True)
        self.results.append(figures.result())

    def calls(self) -> None:
        """Each kind of call by itself, and what a time to live adds."""
        base = "hit int -> int"
        for row, what in (HITS | STORES).items():
            if self.only not in row:
                continue
            rounds = {side: self.rounds(side, what) for side in self.workers}
            ns: dict[str, list[float]] = {side: [] for side in self.workers}
            added: dict[str, list[float]] = {side: [] for side in self.workers}
            for side, (worker, *_) in self.workers.items():
                worker.ask("prepare", row)
                if what.ttl and self.only not in base:
                    worker.ask("prepare", base)
                worker.ask("time", row, rounds[side])
            for repeat in range(self.repeats):
                for side in self.sides(repeat):
                    worker = self.workers[side][0]
                    times = {}
                    # The same call without a time to live goes first or last, in turn.
                    for name in ([row, base] if repeat % 4 < 2 else [base, row]) if what.ttl else [row]:
                        times[name] = worker.ask("time", name, rounds[side]) / rounds[side] * 1e9
                    ns[side].append(times[row])
                    if what.ttl:
                        added[side].append(times[row] - times[base])
            self.show(Figures(row, "ns", ns, what.aim))
            if what.ttl:
                self.show(Figures("  of which the ttl", "ns", added, "≤ 30 ns", paired=False))

    def rounds(self, side: str, row: Row) -> int:
        rounds = 2_000 if self.quick else 200_000
        if row.stores:
            rounds //= 4
        return rounds // 100 if side == DISKCACHE else rounds

    def reading(self, row: str, reader: Process, writer: Process, writes: str | None) -> float:
        """A reader's calls a second, beside a writer of the row `writes`, if any."""
        start, margin = time.monotonic() + 0.1, 0.05
        if writes:
            writer.send("write", writes, start - margin, self.seconds + 2 * margin)
        rate = reader.ask("read", row, start, self.seconds)
        if writes:
            writer.answer()
        return rate

    def writing(self, row: str, writers: list[Process]) -> tuple[float, float]:
        """The stores a second of writers that run at the same time, all together, and the longest, in milliseconds."""
        start = time.monotonic() + 0.05
        for writer in writers:
            writer.send("write", row, start, self.seconds)
        answers = [writer.answer() for writer in writers]
        return sum(rate for rate, _ in answers), max(longest for _, longest in answers) * 1e3

    def crowds(self) -> None:
        """Readers beside a writer, and writers beside each other."""
        for row in CROWDED:
            if self.only not in f"hits a second, stores a second, {row}":
                continue
            elsewhere = f"{row} elsewhere"
            for workers in self.workers.values():
                workers[1].ask("prepare", elsewhere)
                for worker in workers:
                    worker.ask("prepare", row)
            alone: dict[str, list[float]] = {side: [] for side in self.workers}
            apart: dict[str, list[float]] = {side: [] for side in self.workers}
            kept: dict[str, list[float]] = {side: [] for side in self.workers}
            rates: dict[int, dict[str, list[float]]] = {n: {side: [] for side in self.workers} for n in WRITERS}
            longest: dict[int, dict[str, list[float]]] = {n: {side: [] for side in self.workers} for n in WRITERS}
            for repeat in range(self.repeats):
                for side in self.sides(repeat):
                    reader, writer, *_ = workers = self.workers[side]
                    found = {}
                    order = [None, elsewhere, row]
                    for writes in order if repeat % 4 < 2 else reversed(order):
                        found[writes] = self.reading(row, reader, writer, writes)
                    alone[side].append(found[None])
                    apart[side].append(found[elsewhere] / found[None])
                    kept[side].append(found[row] / found[None])
                    for count in WRITERS:
                        rate, milliseconds = self.writing(row, workers[:count])
                        rates[count][side].append(rate)
                        longest[count][side].append(milliseconds)
                    reader.ask("clear", row)
            self.show(Figures(f"hits a second, {row}", "/s", alone))
            self.show(Figures("  share of that beside a writer", "share", kept, "≥ 0.85"))
            self.show(Figures("  ... if that writes elsewhere", "share", apart))
            one, *more = WRITERS
            self.show(Figures(f"stores a second, {row}", "/s", rates[one]))
            for count in more:
                shares = {
                    side: [total / alone for total, alone in zip(rates[count][side], rates[one][side], strict=True)]
                    for side in self.workers
                }
                aim = "≥ 0.9" if count == more[-1] else ""
                self.show(Figures(f"  share of that by {count} writers", "share", shares, aim))
            name = f"  longest of {more[-1]} writers' calls"
            self.show(Figures(name, "ms", longest[more[-1]], "< 100 ms", paired=False, worst=True))

    def space(self) -> None:
        """What a region takes, and how long it takes to begin one."""
        sizes = (1_000, 10_000) if self.quick else (10_000, 100_000)
        if self.only in "bytes an entry, int -> int":
            for size in sizes:
                of = {side: [workers[0].ask("begin", size, size)[2] / size] for side, workers in self.workers.items()}
                self.show(Figures(f"bytes an entry, int -> int, {size:,}", "bytes", of, "≤ 300 bytes"))
        largest = sizes[-1]
        if self.only in "decorate and call once":
            ms: dict[str, list[float]] = {side: [] for side in self.workers}
            used: dict[str, list[float]] = {side: [] for side in self.workers}
            for repeat in range(self.repeats):
                for side in self.sides(repeat):
                    took, first, _ = self.workers[side][0].ask("begin", largest, 0)
                    ms[side].append(took * 1e3)
                    used[side].append(first)
            self.show(Figures(f"decorate and call once, {largest:,}", "ms", ms, "≤ 5 ms"))
            self.show(Figures("  bytes in use then", "bytes", used, "< 1 MB"))


def run(quick: bool, only: str) -> list[dict[str, Any]]:
    pythons = {OURS: sys.executable}
    if python := environment():
        pythons |= {PEER: python, DISKCACHE: python}
    folder = tempfile.mkdtemp(prefix="warp_cache-bench-", dir=MEMORY if MEMORY.is_dir() else None)
    os.environ["WARP_CACHE_DIR"] = folder
    os.environ["BENCH_TOKEN"] = token = f"bench{os.getpid()}"
    workers: dict[str, list[Process]] = {}
    try:
        for side, python in pythons.items():
            workers[side] = [Process(side, python, number) for number in range(max(WRITERS))]
        for worker in itertools.chain.from_iterable(workers.values()):
            worker.answer()
        bench = Bench(workers, quick, only)
        columns = "".join(f"{heading if side in workers else '':>12}" for side, heading in HEADINGS.items())
        print(f"{'':<38}{columns}{'ratio':>7}{'spread':>12}  aim")
        bench.calls()
        bench.crowds()
        bench.space()
    finally:
        for worker in itertools.chain.from_iterable(workers.values()):
            worker.end()
        for file in peers_files(token):
            os.unlink(file)
        shutil.rmtree(folder, ignore_errors=True)
    print("medians; ratio: our figure over that of 0.7.0, by repeats; spread: its quartiles; longest: of all repeats")
    return bench.results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repeats, to see that it runs")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--only", metavar="TEXT", default="", help="only rows whose name has TEXT")
    parser.add_argument("--worker", choices=[OURS, PEER, DISKCACHE], help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.worker, options.number)

    from compare import interpreter

    machine = f"{interpreter()}, {os.cpu_count()} cores"
    print(machine)
    results = run(options.quick, options.only)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"interpreter": machine, "rows": results}, file, indent=2)


if __name__ == "__main__":
    main()
