"""Each kind of call beside functools.lru_cache, for pytest-benchmark: one group a question.

    pytest benches/ --benchmark-group-by=group

Figures of one run wander with the machine; `compare.py` measures both in turn and gives ratios.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

import warp_cache

CALLS = 1000

BOUNDED = {
    "functools": lambda size: functools.lru_cache(maxsize=size),
    "warp_cache": lambda size: warp_cache.cache(max_size=size),
}


def many(call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    if kwargs:
        for _ in itertools.repeat(None, CALLS):
            call(*args, **kwargs)
    elif len(args) == 2:
        one, two = args
        for _ in itertools.repeat(None, CALLS):
            call(one, two)
    else:
        (one,) = args
        for _ in itertools.repeat(None, CALLS):
            call(one)


def each(call: Callable[[Any], Any], keys: list[Any]) -> None:
    for key in keys:
        call(key)


def square(x: int) -> int:
    return x * x


def add(x: int, y: int) -> int:
    return x + y


@pytest.fixture(params=BOUNDED)
def decorate(request: pytest.FixtureRequest) -> Callable[[int], Any]:
    return BOUNDED[request.param]


@pytest.mark.benchmark(group="hit, one int")
def test_hit_one_int(benchmark, decorate):
    cached = decorate(128)(square)
    assert cached(12) == cached(12) == 144 and cached.cache_info()[:2] == (1, 1)
    benchmark(many, cached, 12)


@pytest.mark.benchmark(group="hit, two ints")
def test_hit_two_ints(benchmark, decorate):
    cached = decorate(128)(add)
    assert cached(12, 3) == cached(12, 3) == 15 and cached.cache_info()[:2] == (1, 1)
    benchmark(many, cached, 12, 3)


@pytest.mark.benchmark(group="hit, keywords")
def test_hit_keywords(benchmark, decorate):
    cached = decorate(128)(add)

    def calls() -> None:
        for _ in itertools.repeat(None, CALLS):
            cached(x=12, y=3)

    assert cached(x=12, y=3) == cached(x=12, y=3) == 15 and cached.cache_info()[:2] == (1, 1)
    benchmark(calls)


@pytest.mark.benchmark(group="hit, method")
def test_hit_method(benchmark, decorate):
    class Squares:
        @decorate(128)
        def square(self, x: int) -> int:
            return x * x

    squares = Squares()

    def calls() -> None:
        for _ in itertools.repeat(None, CALLS):
            squares.square(12)

    assert squares.square(12) == squares.square(12) == 144
    benchmark(calls)


@pytest.mark.benchmark(group="hit, one int, with a ttl (functools: without)")
@pytest.mark.parametrize("name", BOUNDED)
def test_hit_ttl(benchmark, name):
    decorate = functools.lru_cache(maxsize=128) if name == "functools" else warp_cache.cache(ttl=3600)
    cached = decorate(square)
    assert cached(12) == cached(12) == 144 and cached.cache_info()[:2] == (1, 1)
    benchmark(many, cached, 12)


@pytest.mark.benchmark(group="miss, unbounded")
@pytest.mark.parametrize("name", BOUNDED)
def test_miss(benchmark, name):
    cached = (functools if name == "functools" else warp_cache).lru_cache(None)(square)
    keys = list(range(1000, 1000 + CALLS))
    each(cached, keys)
    assert cached.cache_info() == (0, CALLS, None, CALLS)
    benchmark.pedantic(each, (cached, keys), setup=cached.cache_clear, rounds=200)


@pytest.mark.benchmark(group="miss and evict, size 128")
def test_evict(benchmark, decorate):
    cached = decorate(128)(square)
    keys = list(range(1000, 1000 + CALLS))
    each(cached, keys)
    assert cached.cache_info() == (0, CALLS, 128, 128)
    benchmark(each, cached, keys)


@pytest.mark.parametrize("size", [128, 10_000, 1_000_000])
def test_hit_zipf(benchmark, decorate, size):
    benchmark.group = f"hit, Zipf over {size:,} entries"
    weights = list(itertools.accumulate(1 / rank for rank in range(1, size + 1)))
    keys = random.Random(2026).choices(range(1000, 1000 + size), cum_weights=weights, k=100_000)
    cached = decorate(size)(lambda x: x)
    each(cached, list(range(1000, 1000 + size)))
    assert [cached(key) for key in keys[:100]] == keys[:100] and cached.cache_info()[:2] == (100, size)
    benchmark(each, cached, keys)
