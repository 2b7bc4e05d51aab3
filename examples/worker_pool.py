"""What does a cache that all worker processes share do for a server?

A small pre-fork HTTP server, in the way of gunicorn: one listening socket, and worker processes that take turns at it,
each an interpreter of its own. They serve the standard library's documentation, worked out of its source text. Clients
ask for the modules as readers do, a few of them very often (Zipf's law): first with no cache, then with a cache in each
worker's memory, and then with one in shared memory. At the end a worker is killed with SIGKILL: the others go on, and
the process that takes its place finds every page that was made before it began.

    python examples/worker_pool.py [--quick] [--requests N] [--workers N] [--clients N]

Linux and macOS. Server and clients share one machine, so the times include what the clients cost.
"""

from __future__ import annotations

import argparse
import ast
import collections
import hashlib
import html
import http.client
import http.server
import itertools
import multiprocessing
import os
import random
import re
import signal
import socket
import statistics
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

from warp_cache import cache

if sys.platform == "win32":
    sys.exit("This example needs Linux or macOS: there is no shared backend on Windows")

LIBRARY = Path(sysconfig.get_path("stdlib"))
# Each worker is a new interpreter that shares nothing with its parent, as if started from a shell.
SPAWN = multiprocessing.get_context("spawn")


class Renders:
    """How many pages this process has made."""

    made = 0


def render(module: str) -> str:
    """The slow function: reads a module of the standard library, and makes a page of what it documents."""
    Renders.made += 1
    tree = ast.parse((LIBRARY / module).read_text(encoding="utf-8", errors="replace"))
    entries = list(documented(tree, ""))
    names = {name for name, _, _ in entries}
    contents = "".join(f'<li><a href="#{name}">{name}</a>' for name in sorted(names))
    body = "".join(
        f'<h2 id="{name}">{html.escape(heading)}</h2>{markup(docstring, names)}' for name, heading, docstring in entries
    )
    return (
        f"<!doctype html><title>{module}</title><h1>{module}</h1>"
        f"{markup(ast.get_docstring(tree) or '', names)}<ul>{contents}</ul>{body}"
    )


def documented(parent: ast.AST, prefix: str) -> Iterator[tuple[str, str, str]]:
    """The classes and functions that have a docstring: name, heading, docstring."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = prefix + node.name
            if docstring := ast.get_docstring(node):
                signature = "" if isinstance(node, ast.ClassDef) else f"({ast.unparse(node.args)})"
                yield name, name + signature, docstring
            yield from documented(node, name + ".")


def markup(docstring: str, names: set[str]) -> str:
    """Paragraphs, with examples as they are, and what the page documents as links."""

    def link(match: re.Match[str]) -> str:
        word = match[0]
        return f'<a href="#{word}">{word}</a>' if word in names else word

    blocks = []
    for block in re.split(r"\n\s*\n", docstring):
        text = re.sub(r"[A-Za-z_][\w.]*\w", link, html.escape(block))
        text = re.sub(r"``(.+?)``|`(.+?)'", r"<code>\1\2</code>", text)
        tag = "pre" if block.startswith((" ", ">>>")) else "p"
        blocks.append(f"<{tag}>{text}</{tag}>")
    return "".join(blocks)


# A page that is larger would be made anew each time. The time to live is for sources that are edited.
in_shared_memory = cache(max_size=256, ttl=600, backend="shared", max_value_size=2**18)(render)
in_each_worker = cache(max_size=256, ttl=600)(render)
PAGES: dict[str, Callable[[str], str]] = {
    "no cache": render,
    "in each worker": in_each_worker,
    "shared": in_shared_memory,
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request, and tells which worker did, and whether it had to make the page."""

    page: Callable[[str], str]
    worker: int

    def do_GET(self) -> None:
        made = Renders.made
        body = self.page(self.path.removeprefix("/")).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Worker", str(self.worker))
        self.send_header("X-Made", str(Renders.made - made))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(listener: socket.socket, caching: str, number: int, ready: Connection) -> None:
    """A worker process: takes one connection after the other, until it is terminated."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business

    class Mine(Handler):
        page = staticmethod(PAGES[caching])
        worker = number

    server = http.server.HTTPServer(("127.0.0.1", 0), Mine, bind_and_activate=False)
    server.socket.close()
    ready.send_bytes(b"ready")
    ready.close()
    while True:
        connection, address = listener.accept()
        with connection:
            try:
                Mine(connection, address, server)
            except ConnectionError:
                pass  # the client has gone


class Pool:
    """The workers, and a thread that starts a new one for each that dies."""

    def __init__(self, caching: str, size: int) -> None:
        self.caching = caching
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listener.getsockname()[1]
        self.workers: dict[int, BaseProcess] = {}
        self.replaced: dict[int, int] = {}
        self.numbers = itertools.count(1)
        self.closing, self.wakes = SPAWN.Pipe(duplex=False)
        for ready in [self.start(next(self.numbers)) for _ in range(size)]:
            self.await_start(ready)
        self.supervisor = threading.Thread(target=self.supervise)

    def start(self, number: int) -> Connection:
        ready, its_end = SPAWN.Pipe(duplex=False)
        worker = SPAWN.Process(target=serve, args=(self.listener, self.caching, number, its_end), daemon=True)
        worker.start()
        its_end.close()
        self.workers[number] = worker
        return ready

    def await_start(self, ready: Connection) -> None:
        with ready:
            if not ready.poll(60):
                raise TimeoutError("a worker does not start")
            ready.recv_bytes()  # EOFError if it has died instead

    def supervise(self) -> None:
        while True:
            wait([self.closing, *(worker.sentinel for worker in self.workers.values())])
            if self.closing.poll():
                return
            for number, worker in list(self.workers.items()):
                if not worker.is_alive():
                    del self.workers[number]
                    self.replaced[number] = next(self.numbers)
                    self.await_start(self.start(self.replaced[number]))

    def kill(self, number: int) -> None:
        """Ends a worker as the kernel does when memory is short: at once, wherever it stands."""
        pid = self.workers[number].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> Pool:
        self.supervisor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wakes.send_bytes(b"close")
        self.supervisor.join()
        for worker in self.workers.values():
            worker.terminate()
        for worker in self.workers.values():
            worker.join()
        self.listener.close()


@dataclass
class Answer:
    """What a client saw of one request."""

    module: str
    seconds: float
    digest: bytes
    worker: int
    made: int
    retries: int


@dataclass
class Run:
    """What the clients saw, all together."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0

    def made(self) -> int:
        return sum(answer.made for answer in self.answers)

    def pages(self) -> set[tuple[str, bytes]]:
        return {(answer.module, answer.digest) for answer in self.answers}


def get(port: int, module: str) -> Answer:
    """Asks for a page, and asks again if the worker dies meanwhile."""
    before = time.perf_counter()
    for retries in range(10):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", f"/{module}")
            response = connection.getresponse()
            body = response.read()
        except (ConnectionError, http.client.HTTPException):
            continue
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"{module}: {response.status} {response.reason}")
        seconds = time.perf_counter() - before
        worker, made = int(response.headers["X-Worker"]), int(response.headers["X-Made"])
        return Answer(module, seconds, hashlib.sha256(body).digest(), worker, made, retries)
    raise RuntimeError(f"{module}: no answer")


def ask(pool: Pool, modules: Iterable[str], clients: int, run: Run) -> None:
    """Lets clients ask, each for the next page as soon as it has its own."""
    wanted = iter(modules)
    lock = threading.Lock()
    errors: list[BaseException] = []

    def client() -> None:
        try:
            while not errors:
                with lock:
                    module = next(wanted, None)
                if module is None:
                    return
                answer = get(pool.port, module)
                with lock:
                    run.answers.append(answer)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    before = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.seconds = time.perf_counter() - before
    if errors:
        raise errors[0]


def with_a_death(modules: list[str], pool: Pool, run: Run) -> Iterator[str]:
    """The modules, with a worker killed early on; and again, until the one in its place has had its share of them."""
    early = len(modules) // 10
    yield from modules[:early]
    pool.kill(1)
    yield from modules[early:]
    until = time.monotonic() + 30
    for module in itertools.cycle(modules):
        share = sum(answer.worker in pool.replaced.values() for answer in run.answers)
        if share >= early or time.monotonic() > until:
            return
        yield module


def show_row(name: str, run: Run) -> None:
    requests, made = len(run.answers), run.made()
    percentiles = statistics.quantiles((answer.seconds for answer in run.answers), n=100)
    times = "".join(f"{percentiles[percent - 1] * 1000:>8.1f}" for percent in (50, 99))
    per_second = requests / run.seconds
    print(f"{name:<22}{requests:>9,}{made:>12,}{requests - made:>13,}{times}{per_second:>12,.0f}", flush=True)


def show_workers(run: Run, replaced: dict[int, int]) -> None:
    requests: collections.Counter[int] = collections.Counter()
    made: collections.Counter[int] = collections.Counter()
    for answer in run.answers:
        requests[answer.worker] += 1
        made[answer.worker] += answer.made
    notes = dict.fromkeys(replaced, "killed") | {new: f"in place of {old}" for old, new in replaced.items()}
    print(f"{'worker':<22}{'requests':>9}{'pages made':>12}{'hits':>8}{'hit ratio':>11}")
    for worker in sorted(requests):
        hits = requests[worker] - made[worker]
        name = f"{worker}, {notes[worker]}" if worker in notes else f"{worker}"
        counts = f"{name:<22}{requests[worker]:>9,}{made[worker]:>12,}{hits:>8,}"
        print(f"{counts}{hits / requests[worker]:>11.1%}")


def compare(modules: list[str], workers: int, clients: int) -> None:
    first, second = modules[: len(modules) // 2], modules[len(modules) // 2 :]
    # Shared memory still has what an earlier run of this program may have left.
    in_shared_memory.cache_clear()
    print(f"{'cache':<22}{'requests':>9}{'pages made':>12}{'calls saved':>13}{'median':>8}{'p99':>8}{'requests/s':>12}")
    runs = [Run() for _ in range(4)]
    for caching, run in zip(PAGES, runs, strict=False):
        with Pool(caching, workers) as pool:
            ask(pool, first, clients, run)
            show_row(caching, run)
            if caching == "shared":
                ask(pool, with_a_death(second, pool, runs[-1]), clients, runs[-1])
                show_row("shared, worker killed", runs[-1])

    pages = dict(runs[0].pages())
    if any(pages.setdefault(module, digest) != digest for run in runs for module, digest in run.pages()):
        sys.exit("they gave different pages")
    print("\nAll gave the same pages. Median and p99 are of the time from request to page, in ms.\n")

    show_workers(runs[-1], pool.replaced)
    retries = sum(answer.retries for answer in runs[-1].answers)
    print(f"\nrequests sent again, because the worker that had them was killed: {retries}")
    print(in_shared_memory.cache_info())
    in_shared_memory.cache_unlink()
    if not any(answer.worker in pool.replaced.values() for answer in runs[-1].answers):
        sys.exit("no worker took its place")


def whole_number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"a whole number from {low:,} to {high:,} is needed, not {text!r}")
        return number

    return parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer requests: a few seconds instead of twenty")
    parser.add_argument(
        "--requests",
        type=whole_number(100, 1_000_000),
        metavar="N",
        help="how many (default: 3,000; 500 with --quick)",
    )
    parser.add_argument("--workers", type=whole_number(2, 64), default=4, metavar="N", help="processes (default: 4)")
    parser.add_argument("--clients", type=whole_number(1, 100), default=8, metavar="N", help="at a time (default: 8)")
    options = parser.parse_args()
    requests = options.requests or (500 if options.quick else 3_000)

    documents = sorted(path.name for path in LIBRARY.glob("*.py"))
    generator = random.Random(2_026)
    generator.shuffle(documents)
    popularity = [1 / rank for rank in range(1, len(documents) + 1)]
    modules = generator.choices(documents, popularity, k=2 * requests)
    different = f"{len(set(modules[:requests])):,} of {len(documents):,} modules"
    print(f"{requests:,} requests for {different}; {options.workers} workers, {options.clients} clients\n", flush=True)
    compare(modules, options.workers, options.clients)


if __name__ == "__main__":
    main()
