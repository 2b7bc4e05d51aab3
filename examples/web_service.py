"""What does a cache in front of its slow function do for a web service?

A small aiohttp shop serves product pages. For each it asks a slow database and works out a chart of past prices, about
20 ms in all. Clients ask for the products as customers do, a few of them very often (Zipf's law), many at a time: first
with no cache, then with `@cache` in front of the page. A page that is being made when others ask for it is made once.

    pip install aiohttp
    python examples/web_service.py [--quick] [--requests N] [--concurrency N]

Service and clients share one process and one event loop, so the times include what the clients cost.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from warp_cache import cache

try:
    from aiohttp import ClientSession, TCPConnector, web
except ModuleNotFoundError:
    sys.exit("This example needs aiohttp: pip install aiohttp")

PRODUCTS = 1_000


@dataclass
class Ledger:
    """Which pages are being made, how many have been, and how many requests came for one that was being made."""

    making: set[int] = field(default_factory=set)
    made: int = 0
    joined: int = 0

    @contextmanager
    def making_of(self, product: int) -> Iterator[None]:
        self.making.add(product)
        try:
            yield
        finally:
            self.making.discard(product)
            self.made += 1


ledger = Ledger()


@cache(max_size=400, ttl=2)
async def product_page(product: int) -> str:
    """The slow function: a question to the database, and a page made of the answer."""
    with ledger.making_of(product):
        await asyncio.sleep(0.02)  # the database thinks
        return render(product)


def render(product: int) -> str:
    """The page: how the product's price went during a year, as a chart with its moving average."""
    rng = random.Random(product)
    prices = [100 + product % 400 + 10 * rng.random() for _ in range(365)]
    averages = [statistics.fmean(prices[max(0, day - 30) : day + 1]) for day in range(len(prices))]
    low, high = min(prices), max(prices)

    def line(values: list[float], colour: str) -> str:
        points = " ".join(f"{x},{100 - 100 * (y - low) / (high - low):.1f}" for x, y in enumerate(values))
        return f'<polyline fill="none" stroke="{colour}" points="{points}"/>'

    chart = line(prices, "silver") + line(averages, "black")
    return (
        f"<!doctype html><title>Product {product}</title><h1>Product {product}: {prices[-1]:.2f}</h1>"
        f'<p>This year {low:.2f} to {high:.2f}</p><svg viewBox="0 0 365 100">{chart}</svg>'
    )


def shop(page: Callable[[int], Awaitable[str]]) -> web.Application:
    async def show(request: web.Request) -> web.Response:
        product = int(request.match_info["product"])
        # Nothing else runs on the event loop from here until page() looks for a stored page, and none is stored while
        # one is being made. So this request either waits for the one being made or, with no cache, has its own made.
        ledger.joined += product in ledger.making
        return web.Response(text=await page(product), content_type="text/html")

    app = web.Application()
    app.router.add_get(r"/products/{product:\d+}", show)
    return app


@dataclass
class Run:
    """What the clients saw of one shop, and what it had to do for them."""

    seconds: float
    latencies: list[float]
    pages: set[tuple[int, str]]
    made: int
    joined: int


async def run(page: Callable[[int], Awaitable[str]], products: list[int], concurrency: int) -> Run:
    """Opens a shop and sends clients, each of which asks for the next product as soon as it has its page."""
    latencies: list[float] = []
    pages: set[tuple[int, str]] = set()
    wanted = iter(products)

    async def client(session: ClientSession) -> None:
        for product in wanted:
            before = time.perf_counter()
            async with session.get(f"/products/{product}") as response:
                text = await response.text()
            latencies.append(time.perf_counter() - before)
            pages.add((product, text))

    runner = web.AppRunner(shop(page), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()  # port 0: any that is free
        host, port = runner.addresses[0]
        made, joined = ledger.made, ledger.joined
        connector = TCPConnector(limit=concurrency)
        async with ClientSession(f"http://{host}:{port}", connector=connector, raise_for_status=True) as session:
            before = time.perf_counter()
            await asyncio.gather(*(client(session) for _ in range(concurrency)))
            seconds = time.perf_counter() - before
    finally:
        await runner.cleanup()
    return Run(seconds, latencies, pages, ledger.made - made, ledger.joined - joined)


def show_row(name: str, run: Run) -> None:
    requests = len(run.latencies)
    percentiles = statistics.quantiles(run.latencies, n=100)
    times = "".join(f"{percentiles[percent - 1] * 1000:>9.1f}" for percent in (50, 95, 99))
    per_second = requests / run.seconds
    print(f"{name:<9}{requests:>9,}{run.seconds:>9.2f}{per_second:>12,.0f}{times}{run.made:>12,}", flush=True)


async def compare(products: list[int], concurrency: int) -> None:
    print(f"{'':<9}{'requests':>9}{'seconds':>9}{'requests/s':>12}{'median':>9}{'p95':>9}{'p99':>9}{'pages made':>12}")
    uncached = await run(product_page.__wrapped__, products, concurrency)
    show_row("no cache", uncached)
    cached = await run(product_page, products, concurrency)
    show_row("@cache", cached)
    if cached.pages != uncached.pages:
        sys.exit("the two gave different pages")
    print("\nBoth gave the same pages. Median, p95 and p99 are of the time from request to page, in ms.\n")

    info = product_page.cache_info()
    saved = len(products) - cached.made
    print(f"pages not made, thanks to the cache{saved:>9,}")
    print(f"  the page was stored              {saved - cached.joined:>9,}")
    print(f"  it was being made: waited for it {cached.joined:>9,}")
    print(info)
    if (info.hits, info.misses) != (saved, cached.made):
        sys.exit("the cache counted otherwise")


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
    parser.add_argument("--quick", action="store_true", help="fewer requests: a few seconds instead of a dozen")
    parser.add_argument(
        "--requests", type=whole_number(2, 1_000_000), metavar="N", help="how many (default: 5,000; 1,000 with --quick)"
    )
    parser.add_argument(
        "--concurrency", type=whole_number(1, 100), default=32, metavar="N", help="how many at a time (default: 32)"
    )
    options = parser.parse_args()
    requests = options.requests or (1_000 if options.quick else 5_000)

    popularity = [1 / rank for rank in range(1, PRODUCTS + 1)]
    products = random.Random(2_024).choices(range(PRODUCTS), popularity, k=requests)
    different = f"{len(set(products)):,} of {PRODUCTS:,} products"
    print(f"{requests:,} requests, {options.concurrency} at a time, for {different}\n", flush=True)
    asyncio.run(compare(products, options.concurrency))


if __name__ == "__main__":
    main()
