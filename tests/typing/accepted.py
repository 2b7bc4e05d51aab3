"""What type checkers must accept, and the types that they must find. Checked, never run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from typing_extensions import assert_type

import warp_cache
from warp_cache import (
    Backend,
    CacheDecorator,
    CachedFunction,
    CacheInfo,
    SharedCacheInfo,
    SharedRegion,
    SharedStats,
    Strategy,
    cache,
    lru_cache,
    shared_regions,
)

T = TypeVar("T")


def repeat(text: str, times: int = 2, *, separator: str = "") -> list[str]:
    return [separator.join([text] * times)]


# The signature survives the decorator, in every form of it.


@cache
def bare(text: str, times: int = 2, *, separator: str = "") -> list[str]:
    return repeat(text, times, separator=separator)


@cache()
def called(text: str, times: int = 2, *, separator: str = "") -> list[str]:
    return repeat(text, times, separator=separator)


@cache(max_size=100, ttl=1.5, typed=True)
def configured(text: str, times: int = 2, *, separator: str = "") -> list[str]:
    return repeat(text, times, separator=separator)


@lru_cache
def lru_bare(text: str, times: int = 2, *, separator: str = "") -> list[str]:
    return repeat(text, times, separator=separator)


@lru_cache()
def lru_called(text: str, times: int = 2, *, separator: str = "") -> list[str]:
    return repeat(text, times, separator=separator)


@lru_cache(20, True)
def lru_configured(text: str, times: int = 2, *, separator: str = "") -> list[str]:
    return repeat(text, times, separator=separator)


assert_type(bare("a"), list[str])
assert_type(bare("a", 2), list[str])
assert_type(bare(text="a", separator="-"), list[str])
assert_type(called("a", times=3), list[str])
assert_type(configured("a", 3, separator="-"), list[str])
assert_type(lru_bare("a"), list[str])
assert_type(lru_called("a", times=3), list[str])
assert_type(lru_configured("a", 3, separator="-"), list[str])

# Decorators as functions, and their arguments.
assert_type(cache(len)([1]), int)
assert_type(cache(repeat, max_size=3)("a"), list[str])
assert_type(cache(repeat, 3, 60, "memory")("a"), list[str])
assert_type(cache(lambda: 1)(), int)
assert_type(cache(), CacheDecorator)
assert_type(cache()(repeat)("a"), list[str])
assert_type(cache(Strategy.LFU, 1000), CacheDecorator)
assert_type(cache(Strategy.LFU, 1000, 60, Backend.MEMORY, 512, 4096), CacheDecorator)
assert_type(cache("lfu"), CacheDecorator)
assert_type(cache(3), CacheDecorator)
assert_type(cache(strategy="FIFO", backend="MEMORY"), CacheDecorator)
assert_type(cache(max_size=None, ttl=None), CacheDecorator)
assert_type(cache(ttl=timedelta(minutes=5)), CacheDecorator)
assert_type(cache(ttl=5, backend=0, max_key_size=64, max_value_size=64), CacheDecorator)
assert_type(cache(typed=True, single_flight=False), CacheDecorator)
assert_type(cache(single_flight=None), CacheDecorator)
assert_type(lru_cache(len)([1]), int)
assert_type(lru_cache(repeat, True)("a"), list[str])
assert_type(lru_cache(repeat, max_size=3)("a"), list[str])
assert_type(lru_cache(), CacheDecorator)
assert_type(lru_cache(20), CacheDecorator)
assert_type(lru_cache(None), CacheDecorator)
assert_type(lru_cache(maxsize=20), CacheDecorator)
assert_type(lru_cache(maxsize=None, typed=False), CacheDecorator)
assert_type(lru_cache(max_size=20), CacheDecorator)
assert_type(lru_cache(max_size=None, typed=True, ttl=60), CacheDecorator)
assert_type(lru_cache(ttl=timedelta(hours=1), backend="memory", single_flight=False), CacheDecorator)

# A cache for all processes has other statistics.
shared = cache(max_size=1000, backend="shared", name="repeat", version=2)(repeat)
assert_type(shared("a", times=3), list[str])
assert_type(shared.cache_info(), SharedCacheInfo)
assert_type(shared.cache_info().oversize_skips, int)
assert_type(shared.shared_stats(), SharedStats)
assert_type(shared.shared_stats().path, str | None)
assert_type(shared.cache_unlink(), bool)
assert_type(cache(repeat, backend=Backend.SHARED).cache_info(), SharedCacheInfo)
assert_type(cache("lfu", 20, 60, backend="SHARED"), CacheDecorator[SharedCacheInfo])
assert_type(lru_cache(20, backend="shared"), CacheDecorator[SharedCacheInfo])
assert_type(lru_cache(max_size=20, backend="shared", version="a"), CacheDecorator[SharedCacheInfo])
assert_type(lru_cache(repeat, backend="shared").cache_info(), SharedCacheInfo)
assert_type(shared_regions(), list[SharedRegion])
assert_type(shared_regions(remove_unused=True)[0].name, str)

# What a decorated function has besides.
assert_type(bare.cache_info(), CacheInfo)
bare.cache_clear()
assert_type(bare.cache_parameters(), dict[str, Any])
assert_type(bare.cache_invalidate("a", times=2), bool)
assert_type(bare.cache_contains("a"), bool)
assert_type(bare.__wrapped__("a", 2), list[str])
assert_type(bare.__name__, str)
assert_type(bare.__qualname__, str)

# It passes for the function, and for itself with a wider result.
plain: Callable[[str, int], list[str]] = bare
wider: CachedFunction[[list[int]], object] = cache(sum)
any_function: CachedFunction[..., object] = bare


@cache
def fibonacci(n: int) -> int:
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


assert_type(fibonacci(10), int)


@cache
def wrapped(item: T) -> list[T]:
    return [item]


assert_type(wrapped(1), list[int])
assert_type(wrapped("a"), list[str])


class Circle:
    @cache
    def area(self, digits: int = 2) -> float:
        return round(3.14159, digits)

    @cache(max_size=16)
    def grown(self, by: float, *, twice: bool = False) -> Circle:
        return self

    @lru_cache
    def drawn(self, *points: int, **style: str) -> str:
        return ""

    @staticmethod
    @cache
    def unit(name: str) -> int:
        return len(name)

    @staticmethod
    @cache
    def pi() -> float:
        return 3.14159

    @staticmethod
    @lru_cache(maxsize=4)
    def maker(kind: type[Any], sides: int) -> str:
        return kind.__name__ * sides

    @classmethod
    @cache
    def of(cls, radius: int) -> Circle:
        return cls()

    @classmethod
    @lru_cache(maxsize=4)
    def named(cls, name: str = "") -> str:
        return name

    @property
    @cache
    def size(self) -> int:
        return 1


class Disc(Circle):
    @cache
    def area(self, digits: int = 2) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 0.0


circle = Circle()

# Methods: the instance is filled in.
assert_type(circle.area(), float)
assert_type(circle.area(digits=3), float)
assert_type(Disc().area(3), float)
assert_type(circle.grown(1.5, twice=True), Circle)
assert_type(Disc().grown(1.5), Circle)
assert_type(circle.drawn(1, 2, colour="red"), str)
assert_type(Circle.area(circle, 3), float)
assert_type(circle.size, int)
bound: Callable[[int], float] = circle.area

# A bound method has the function's attributes, and these take the instance.
assert_type(circle.area.cache_info(), CacheInfo)
circle.area.cache_clear()
assert_type(circle.area.cache_parameters(), dict[str, Any])
assert_type(circle.area.cache_invalidate(circle, 3), bool)
assert_type(circle.area.cache_contains(circle, digits=3), bool)
assert_type(circle.area.__self__, Circle)
assert_type(circle.area.__wrapped__(circle, 3), float)
assert_type(Circle.area.cache_invalidate(circle, 3), bool)
assert_type(Circle.area.cache_info(), CacheInfo)

# Static methods, on the class and on an instance.
assert_type(Circle.unit("cm"), int)
assert_type(circle.unit(name="cm"), int)
assert_type(Circle.unit.cache_contains("cm"), bool)
assert_type(circle.unit.cache_info(), CacheInfo)
assert_type(Circle.pi(), float)
assert_type(circle.pi(), float)
assert_type(Circle.maker(int, 3), str)
assert_type(Circle.maker(Circle, sides=3), str)

# Class methods, on the class, on an instance, and on a subclass.
assert_type(Circle.of(2), Circle)
assert_type(circle.of(2), Circle)
assert_type(Disc.of(radius=2), Circle)
assert_type(Disc().of(2), Circle)
assert_type(Circle.named(), str)
assert_type(circle.named(name="a"), str)
assert_type(Circle.of.cache_info(), CacheInfo)
assert_type(circle.of.cache_info(), CacheInfo)
assert_type(Circle.of.cache_invalidate(Circle, 2), bool)
from_radius: Callable[[int], Circle] = Circle.of


class Box(Generic[T]):
    def __init__(self, item: T) -> None:
        self.item = item

    @cache
    def pair(self, other: T) -> tuple[T, T]:
        return self.item, other


assert_type(Box(1).pair(2), tuple[int, int])
assert_type(Box("a").pair("b"), tuple[str, str])


@dataclass(frozen=True)
class Point:
    x: int

    @cache
    def norm(self) -> int:
        return abs(self.x)


assert_type(Point(1).norm(), int)


# Coroutine functions keep what awaiting them gives.


async def fetch(url: str, *, retries: int = 3) -> bytes:
    return url.encode() * retries


cached_fetch = cache(fetch)
timed_fetch = cache(ttl=60)(fetch)
lru_fetch = lru_cache(maxsize=4)(fetch)


class Client:
    @cache
    async def get(self, url: str) -> bytes:
        return await fetch(url)

    @classmethod
    @cache
    async def make(cls, url: str) -> Client:
        return cls()


async def use() -> None:
    assert_type(await cached_fetch("a"), bytes)
    assert_type(await timed_fetch("a", retries=1), bytes)
    assert_type(await lru_fetch(url="a"), bytes)
    assert_type(await Client().get("a"), bytes)
    assert_type(await Client.make("a"), Client)
    assert_type(await asyncio.create_task(cached_fetch("a")), bytes)
    assert_type(await asyncio.gather(cached_fetch("a"), cached_fetch("b")), tuple[bytes, bytes])
    assert_type(await asyncio.wait_for(cached_fetch("a"), 1), bytes)


coroutine: Coroutine[Any, Any, bytes] = cached_fetch("a")

# The infos are named tuples.
info = bare.cache_info()
assert_type(info.hits, int)
assert_type(info.misses, int)
assert_type(info.max_size, int | None)
assert_type(info.current_size, int)
assert_type(info.maxsize, int | None)
assert_type(info.currsize, int)
assert_type(info[0], int)
hits, misses, max_size, current_size = info
assert_type(max_size, int | None)
assert_type(info._asdict(), dict[str, Any])
assert_type(CacheInfo(hits=1, misses=2, max_size=None, current_size=0), CacheInfo)
assert_type(SharedCacheInfo(1, 2, 3, 4, 5).oversize_skips, int)
assert_type(SharedCacheInfo(1, 2, 3, 4, 5).maxsize, int)

# The enums are ints.
assert_type(Strategy["LRU"], Strategy)
assert_type(Backend(1), Backend)
number: int = Strategy.FIFO
assert_type(warp_cache.__version__, str)


def annotated(function: CachedFunction[[int], str], decorator: CacheDecorator) -> str:
    function.cache_clear()
    return decorator(function)(1)
