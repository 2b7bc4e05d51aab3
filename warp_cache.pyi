"""A caching decorator written in Rust: exact LRU, MRU, FIFO and LFU eviction, time to live, safe from any thread.

`cache` has every choice; `lru_cache` takes the place of `functools.lru_cache`. Both take coroutine functions, too, and
with backend="shared" the cache is one for all processes.

>>> from warp_cache import cache
>>> @cache(max_size=1000, ttl=60)
... def square(n: int) -> int:
...     return n * n
>>> square(12), square(12)
(144, 144)
>>> square.cache_info()
CacheInfo(hits=1, misses=1, max_size=1000, current_size=1)
"""

import sys
from collections.abc import Callable
from datetime import timedelta
from enum import IntEnum
from typing import (
    Any,
    Generic,
    Literal,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    final,
    overload,
    type_check_only,
)

from typing_extensions import Never, Self
from typing_extensions import TypeVar as _TypeVar

if sys.version_info >= (3, 12):
    from typing import TypeVarTuple

__all__ = [
    "Backend",
    "CacheDecorator",
    "CacheInfo",
    "CachedFunction",
    "SharedCacheInfo",
    "SharedCacheWarning",
    "SharedRegion",
    "SharedStats",
    "Strategy",
    "__version__",
    "cache",
    "lru_cache",
    "shared_regions",
]

_P = ParamSpec("_P")
_Q = ParamSpec("_Q")
_R = TypeVar("_R")
_R_co = TypeVar("_R_co", covariant=True)
_S = TypeVar("_S")
_S_co = TypeVar("_S_co", covariant=True)
_S_contra = TypeVar("_S_contra", contravariant=True)

# At runtime a name is taken in any case.
_StrategyName: TypeAlias = Literal["lru", "LRU", "mru", "MRU", "fifo", "FIFO", "lfu", "LFU"]
_BackendName: TypeAlias = Literal["memory", "MEMORY", "shared", "SHARED"]
_Shared: TypeAlias = Literal[Backend.SHARED, "shared", "SHARED"]

__version__: str
"""The version of the package.

>>> import warp_cache
>>> warp_cache.__version__.count(".")
2
"""

class Strategy(IntEnum):
    """Which entry a full cache evicts to make room for a new one.

    Every strategy is exact at every size and costs O(1) per call. LFU takes its constant time from "An O(1) algorithm
    for implementing the LFU cache eviction scheme" (Shah, Mitra, Matani, 2010).

    >>> from warp_cache import Strategy, cache
    >>> @cache(strategy=Strategy.MRU, max_size=2)
    ... def double(n: int) -> int:
    ...     return 2 * n
    >>> [double(n) for n in (1, 2, 3)]
    [2, 4, 6]
    >>> [double.cache_contains(n) for n in (1, 2, 3)]
    [True, False, True]
    """

    LRU = 0
    """The least recently used: the entry whose last store or hit is oldest. The default."""
    MRU = 1
    """The most recently used: the entry whose last store or hit is newest. Never the newcomer."""
    FIFO = 2
    """First in, first out: the entry that was stored first. Hits do not matter."""
    LFU = 3
    """The least frequently used: the entry with fewest hits since it was stored; among equals, the one used longest
    ago."""

class Backend(IntEnum):
    """Where the entries live.

    >>> from warp_cache import Backend, cache
    >>> @cache(backend=Backend.MEMORY)
    ... def double(n: int) -> int:
    ...     return 2 * n
    >>> double.cache_parameters()["backend"] is Backend.MEMORY
    True
    """

    MEMORY = 0
    """The heap of this process. The default."""
    SHARED = 1
    """A memory-mapped file, one for all processes of a user. Linux and macOS."""

class CacheInfo(NamedTuple):
    """Statistics of a cache, as cache_info() found them: a named tuple, never updated afterwards.

    Equal to a plain tuple of its four values. `maxsize` and `currsize` are the names that functools gives the last two.

    >>> from warp_cache import cache
    >>> @cache(max_size=2)
    ... def double(n: int) -> int:
    ...     return 2 * n
    >>> [double(n) for n in (1, 2, 1, 3)]
    [2, 4, 2, 6]
    >>> info = double.cache_info()
    >>> info
    CacheInfo(hits=1, misses=3, max_size=2, current_size=2)
    >>> hits, misses, max_size, current_size = info
    >>> info.hits / (info.hits + info.misses)
    0.25
    """

    hits: int
    """Calls answered from the cache."""
    misses: int
    """Calls that ran the function, counted before it runs; hits + misses is the number of calls. A call of a coroutine
    function that misses is counted when it is awaited."""
    max_size: int | None
    """The most entries kept; None without a bound."""
    current_size: int
    """Entries held, those whose time is over not among them."""
    @property
    def maxsize(self) -> int | None:
        """The same as max_size."""
    @property
    def currsize(self) -> int:
        """The same as current_size."""

class SharedCacheInfo(NamedTuple):
    """Statistics of a cache in shared memory, of all processes together: those of CacheInfo, and oversize_skips.

    >>> from warp_cache import SharedCacheInfo
    >>> SharedCacheInfo(hits=5, misses=3, max_size=128, current_size=2, oversize_skips=1).oversize_skips
    1
    """

    hits: int
    """Calls answered from the cache."""
    misses: int
    """Calls that ran the function, counted before it runs; hits + misses is the number of calls."""
    max_size: int
    """The most entries kept. A shared cache always has a bound."""
    current_size: int
    """Entries held, those whose time is over not among them."""
    oversize_skips: int
    """Calls whose value was not stored, since the key or the value exceeded max_key_size or max_value_size, or cannot be
    pickled. `shared_stats().unstorable` tells the latter."""
    @property
    def maxsize(self) -> int:
        """The same as max_size."""
    @property
    def currsize(self) -> int:
        """The same as current_size."""

class SharedStats(NamedTuple):
    """The state of a cache in shared memory, of all processes together: what `f.shared_stats()` returns.

    steals, repairs, give_ups and checksum_failures count what the cache has survived, since its file was made. They stay
    zero where no process is killed in the middle of a store, or stopped there.

    >>> from warp_cache import SharedStats, cache
    >>> @cache(backend="shared", name="SharedStats")
    ... def double(n: int) -> int:
    ...     return 2 * n
    >>> double(4)
    8
    >>> stats = double.shared_stats()
    >>> isinstance(stats, SharedStats), stats.repairs, stats.path.endswith(".wc")
    (True, 0, True)
    >>> double.cache_unlink()
    True
    """

    path: str | None
    """The file; None where the values are in the memory of this process and its forks only."""
    bytes: int
    """How many bytes of the file have room on the file system."""
    steals: int
    """Locks that were taken from processes that had died with them."""
    repairs: int
    """Shards that were rebuilt, since a process had died or failed while it changed them."""
    give_ups: int
    """Stores, removals and clearings that could not have a lock in time. A value was not stored then; an entry that was to
    go has gone, with all others."""
    checksum_failures: int
    """Entries that were not as they had been written. None of them was returned."""
    unstorable: int
    """Those of `cache_info().oversize_skips` that had another reason than size: calls whose key or value cannot be pickled,
    or of a key that no other process could tell from others. Set to 0 by cache_clear."""
    unstorable_reason: str | None
    """Why the last of them in this process was not stored, such as the exception that pickling raised; None if there was
    none, or since cache_clear."""

class SharedRegion(NamedTuple):
    """A cache in shared memory on this machine, as `shared_regions()` found it.

    >>> from warp_cache import SharedRegion, cache, shared_regions
    >>> @cache(backend="shared", name="SharedRegion")
    ... def double(n: int) -> int:
    ...     return 2 * n
    >>> double(4), double(4)
    (8, 8)
    >>> [region] = [region for region in shared_regions() if region.name == "SharedRegion"]
    >>> isinstance(region, SharedRegion), region.entries, region.hits, region.misses, region.processes
    (True, 1, 1, 1, 1)
    >>> double.cache_unlink()
    True
    """

    name: str
    """Module and qualified name of the function, or what was given as `name`."""
    path: str
    """The file."""
    bytes: int
    """How many bytes of the file have room on the file system."""
    entries: int
    """Entries held, those whose time is over among them."""
    max_size: int
    """The most entries kept."""
    hits: int
    """Calls answered from the cache, by any process."""
    misses: int
    """Calls that ran the function, in any process."""
    processes: int
    """Living processes that have stored something in it or opened it; at most 512 are known."""

class SharedCacheWarning(RuntimeWarning):
    """A function's values are not shared, or fewer of them are kept than asked for. The text says why.

    Given once for a function, which works all the same: its values are cached in this process alone or, where that is
    not possible either, not at all.

    >>> import warnings
    >>> from warp_cache import SharedCacheWarning, cache
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     double = cache(backend="shared")((2).__mul__)
    >>> [warning.category is SharedCacheWarning for warning in caught]
    [True]
    >>> double(4)
    8
    """

def shared_regions(*, remove_unused: bool = False) -> list[SharedRegion]:
    """List the caches in shared memory that belong to this user.

    They are those in the folder that the environment variable WARP_CACHE_DIR names, else in this user's own one in memory.

    Args:
        remove_unused: Whether to remove, before that, those that no living process has open.

    Returns:
        Each cache whose file is sound and was made by this version of the library, by file name. Empty where there is no
        folder, and on systems without the shared backend. O(n) in the number of files.

    Raises:
        OSError: The folder is not this user's alone, or cannot be read.

    >>> import warp_cache
    >>> isinstance(warp_cache.shared_regions(), list)
    True
    """

_Info = _TypeVar("_Info", default=CacheInfo)
_Info_co = _TypeVar("_Info_co", covariant=True, default=CacheInfo)

@type_check_only
class _Method(Protocol[_S_contra, _Q, _R_co]):
    """A callable whose first argument can be an instance, or a class, that it is looked up on."""

    def __call__(self, instance: _S_contra, /, *args: _Q.args, **kwargs: _Q.kwargs) -> _R_co: ...

@type_check_only
@final
class _BoundMethod(Generic[_S_co, _Q, _R_co, _Info_co]):
    """What `instance.method` is: a types.MethodType, which hands on the attributes of the CachedFunction that it binds.

    Only the call fills in the instance: cache_invalidate and cache_contains are the function's own and take it first.
    """

    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., _R_co]
    @property
    def __self__(self) -> _S_co: ...
    @property
    def __func__(self) -> CachedFunction[..., _R_co, _Info_co]: ...
    def __call__(self, /, *args: _Q.args, **kwargs: _Q.kwargs) -> _R_co: ...
    def cache_info(self) -> _Info_co: ...
    def cache_clear(self) -> None: ...
    def cache_unlink(self) -> bool: ...
    def shared_stats(self) -> SharedStats: ...
    def cache_parameters(self) -> dict[str, Any]: ...
    def cache_invalidate(self, instance: object, /, *args: _Q.args, **kwargs: _Q.kwargs) -> bool: ...
    def cache_contains(self, instance: object, /, *args: _Q.args, **kwargs: _Q.kwargs) -> bool: ...

@type_check_only
@final
class _LookedUpOnClass(Generic[_Q, _R_co, _Info_co]):
    """What `Class.function` is when the first parameter takes a class: a bound class method, or else a static method.

    Type checkers see through @classmethod and @staticmethod only where these decorate a plain function, so that the two
    cannot be told apart here. The call takes either form; cache_invalidate and cache_contains are the same for both.
    """

    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., _R_co]
    @overload
    def __call__(self, /, *args: _Q.args, **kwargs: _Q.kwargs) -> _R_co: ...
    @overload
    def __call__(self, kind: type[Any], /, *args: _Q.args, **kwargs: _Q.kwargs) -> _R_co: ...
    def cache_info(self) -> _Info_co: ...
    def cache_clear(self) -> None: ...
    def cache_unlink(self) -> bool: ...
    def shared_stats(self) -> SharedStats: ...
    def cache_parameters(self) -> dict[str, Any]: ...
    def cache_invalidate(self, kind: type[Any], /, *args: _Q.args, **kwargs: _Q.kwargs) -> bool: ...
    def cache_contains(self, kind: type[Any], /, *args: _Q.args, **kwargs: _Q.kwargs) -> bool: ...

@final
class CachedFunction(Generic[_P, _R_co, _Info_co]):
    """A function with a cache of its own in front of it: what cache() and lru_cache() make.

    It takes the function's arguments, returns what the function returns, and carries its name, documentation,
    annotations, signature and attributes. Only the two decorators make one: calling the class raises TypeError. It is
    pickled by name, and copied as itself.

    A call takes O(1) on top of what the function, and hashing and comparing the arguments, take. Any thread may call it
    at any time; threads that miss the same key at the same time each run the function. What the function raises is not
    stored, and reaches the caller unchanged.

    In front of a coroutine function it is a coroutine function, for `inspect` and for frameworks, and what awaiting the
    function gives is cached. The key is looked up when it is called, and looked up again when a miss is first awaited.
    Awaiting a hit never suspends the task. A miss runs in the task of the caller. Calls that miss the same key in one
    event loop at the same time run the function once: the others wait, get its value and count as hits, or get its
    exception, the same object, and count as misses. If the caller that runs it is cancelled, or ends by another
    exception that is no Exception, one that waits runs it again. A call that is part of the computation that it would
    wait for, as in a recursion on one key, runs the function itself; it is known by its context, which the tasks that
    the function starts inherit. asyncio with any event loop, trio and anyio are
    known; under trio, calls wait for a trio.Event. Where nothing of these runs, nobody waits: each runs the function.

    On a class it is a method: `instance.method(1)` passes the instance, which becomes part of the key and is held by
    the cache for as long as the entry is. @staticmethod and @classmethod go above the decorator.

    Its `__class__`, and so isinstance, says functools._lru_cache_wrapper where lru_cache made it of a plain function, in
    memory and without ttl, and types.FunctionType where it is made of any other `def` or `async def`: libraries that go
    by a list of types, such as pydantic and Django's migrations, take it for what it stands for. type() is this class
    always, and isinstance of this class is true.

    >>> from warp_cache import CachedFunction, cache
    >>> @cache
    ... def double(n: int) -> int:
    ...     return 2 * n
    >>> isinstance(double, CachedFunction)
    True
    >>> double(4), double(n=4)
    (8, 8)
    >>> double.cache_info().hits
    1
    >>> double.__wrapped__(4)
    8
    >>> import asyncio
    >>> @cache
    ... async def slowly(n: int) -> int:
    ...     await asyncio.sleep(0.001)
    ...     return 2 * n
    >>> async def five_at_once() -> list[int]:
    ...     return await asyncio.gather(*(slowly(4) for _ in range(5)))
    >>> asyncio.run(five_at_once())
    [8, 8, 8, 8, 8]
    >>> slowly.cache_info()
    CacheInfo(hits=4, misses=1, max_size=128, current_size=1)
    """

    __name__: str
    __qualname__: str
    __wrapped__: Callable[_P, _R_co]
    """The function itself, without the cache."""
    if sys.version_info >= (3, 12):
        __type_params__: tuple[TypeVar | ParamSpec | TypeVarTuple, ...]
    # Takes nothing that anybody has: only the decorators make one.
    def __new__(cls, nothing: Never, /) -> Self: ...
    def __call__(self, /, *args: _P.args, **kwargs: _P.kwargs) -> _R_co:
        """Return the stored value of these arguments or, on a miss, run the function and store what it returns.

        Returns:
            For a coroutine function an object that passes for a coroutine: it has `send`, `throw`, `close` and
            `__await__`, can be awaited once, by a task of its own, too, and is a collections.abc.Coroutine.

        Raises:
            TypeError: An argument cannot be hashed.
        """
    # A class method that is looked up on its class, or a static method that takes a class.
    @overload
    def __get__(
        self: _Method[type[_S], _Q, _R], instance: None, owner: type[_S], /
    ) -> _LookedUpOnClass[_Q, _R, _Info_co]: ...
    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None, /) -> Self: ...
    # A method.
    @overload
    def __get__(
        self: _Method[_S, _Q, _R], instance: _S, owner: type[Any] | None = None, /
    ) -> _BoundMethod[_S, _Q, _R, _Info_co]: ...
    # A class method that is looked up on an instance.
    @overload
    def __get__(
        self: _Method[type[_S], _Q, _R], instance: _S, owner: type[Any] | None = None, /
    ) -> _BoundMethod[type[_S], _Q, _R, _Info_co]: ...
    # A static method.
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None, /) -> Self: ...
    def cache_info(self) -> _Info_co:
        """Return the cache's statistics.

        Entries whose time is over are dropped first. O(1), and O(1) for each entry dropped. In shared memory they are not
        counted, which takes O(n) where there is a ttl.

        Returns:
            The counters since the decoration or the last cache_clear(), and the sizes. A SharedCacheInfo with
            backend="shared": the counters of all processes together.

        >>> from warp_cache import cache
        >>> @cache
        ... def double(n: int) -> int:
        ...     return 2 * n
        >>> double(1), double(1)
        (2, 2)
        >>> double.cache_info()
        CacheInfo(hits=1, misses=1, max_size=128, current_size=1)
        """
    def cache_clear(self) -> None:
        """Remove all entries and reset the statistics.

        The value of a call that runs meanwhile is stored when it comes, but not that of a coroutine function: its
        callers get it, and nobody else. O(n) in the number of entries. With backend="shared", for all processes.

        >>> from warp_cache import cache
        >>> @cache
        ... def double(n: int) -> int:
        ...     return 2 * n
        >>> double(1)
        2
        >>> double.cache_clear()
        >>> double.cache_info()
        CacheInfo(hits=0, misses=0, max_size=128, current_size=0)
        """
    def cache_unlink(self) -> bool:
        """Remove the file of the shared backend, and all entries with it, for all processes.

        Whoever calls the function next, in any process, begins a new file.

        Returns:
            Whether there was a file.

        Raises:
            TypeError: The backend is "memory".
            OSError: The file cannot be removed.
        """
    def shared_stats(self) -> SharedStats:
        """Return the state of the shared backend: where its file is, how large, and what it has survived.

        Raises:
            TypeError: The backend is "memory".
        """
    def cache_parameters(self) -> dict[str, Any]:
        """Return the parameters in force.

        Returns:
            A new dict. For cache(), each of its parameters, `ttl` in seconds. For lru_cache(), `maxsize` and `typed`,
            as functools has them.

        >>> from warp_cache import cache, lru_cache
        >>> cache(ttl=60)(len).cache_parameters()["ttl"]
        60.0
        >>> lru_cache(20)(len).cache_parameters()
        {'maxsize': 20, 'typed': False}
        """
    def cache_invalidate(self, /, *args: _P.args, **kwargs: _P.kwargs) -> bool:
        """Drop the entry of one call, so that the next such call runs the function.

        Args:
            *args, **kwargs: What the call was given; for a method the instance first, for a class method the class.

        Returns:
            Whether there was such an entry and its time was not over. The statistics do not change. O(1). The value of
            such a call of a coroutine function that runs meanwhile is not stored when it comes.

        Raises:
            TypeError: An argument cannot be hashed or, for cache(), the arguments do not fit the function's signature.

        >>> from warp_cache import cache
        >>> class Circle:
        ...     @cache
        ...     def scaled(self, factor: int) -> int:
        ...         return factor * 10
        >>> circle = Circle()
        >>> circle.scaled(2)
        20
        >>> Circle.scaled.cache_invalidate(circle, 2), Circle.scaled.cache_invalidate(circle, 2)
        (True, False)
        """
    def cache_contains(self, /, *args: _P.args, **kwargs: _P.kwargs) -> bool:
        """Return whether a call would hit, without counting it and without touching the entry.

        Args:
            *args, **kwargs: What the call would be given; for a method the instance first, for a class method the
                class.

        Returns:
            Whether there is such an entry and its time is not over. O(1).

        Raises:
            TypeError: An argument cannot be hashed or, for cache(), the arguments do not fit the function's signature.

        >>> from warp_cache import cache
        >>> @cache
        ... def double(n: int) -> int:
        ...     return 2 * n
        >>> double(1)
        2
        >>> double.cache_contains(1), double.cache_contains(2)
        (True, False)
        """
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: object, /) -> Self: ...
    def __reduce__(self) -> str: ...

@final
class CacheDecorator(Generic[_Info_co]):
    """A decorator with its options settled: what cache() and lru_cache() return when they are given no function.

    It can decorate any number of functions; each gets a cache of its own. Only the two decorators make one: calling the
    class raises TypeError.

    >>> from warp_cache import CacheDecorator, cache
    >>> small = cache(max_size=4)
    >>> isinstance(small, CacheDecorator)
    True
    >>> length, total = small(len), small(sum)
    >>> length("four"), total((1, 2, 3))
    (4, 6)
    >>> length.cache_info()
    CacheInfo(hits=0, misses=1, max_size=4, current_size=1)
    """

    # Takes nothing that anybody has: only the decorators make one.
    def __new__(cls, nothing: Never, /) -> Self: ...
    def __call__(self, function: Callable[_P, _R], /) -> CachedFunction[_P, _R, _Info_co]:
        """Put a cache of its own in front of a function.

        Raises:
            TypeError: `function` is not callable or, for cache(), is a generator or async generator function.
            NotImplementedError: single_flight is True, and `function` is no coroutine function.
        """

@overload
def cache(  # type: ignore[overload-overlap]
    strategy: Callable[_P, _R],
    max_size: int = 128,
    ttl: float | timedelta | None = None,
    *,
    backend: _Shared,
    max_key_size: int = 512,
    max_value_size: int = 4096,
    typed: bool = False,
    single_flight: bool | None = None,
    name: str | None = None,
    version: str | int | None = None,
) -> CachedFunction[_P, _R, SharedCacheInfo]:
    """Cache a function's results for all processes: `cache(function, backend="shared")`."""

@overload
def cache(  # type: ignore[overload-overlap]
    strategy: Strategy | int | _StrategyName = Strategy.LRU,
    max_size: int = 128,
    ttl: float | timedelta | None = None,
    *,
    backend: _Shared,
    max_key_size: int = 512,
    max_value_size: int = 4096,
    typed: bool = False,
    single_flight: bool | None = None,
    name: str | None = None,
    version: str | int | None = None,
) -> CacheDecorator[SharedCacheInfo]:
    """A decorator that caches a function's results for all processes: `@cache(backend="shared")`."""

@overload
def cache(
    strategy: Callable[_P, _R],
    max_size: int | None = 128,
    ttl: float | timedelta | None = None,
    backend: Backend | int | _BackendName = "memory",
    max_key_size: int = 512,
    max_value_size: int = 4096,
    *,
    typed: bool = False,
    single_flight: bool | None = None,
    name: str | None = None,
    version: str | int | None = None,
) -> CachedFunction[_P, _R]:
    """Cache a function's results: `@cache`, or `cache(function, max_size=1000)`, with LRU as the strategy.

    The function takes the place of `strategy`. The other form of cache() describes everything else.
    """

@overload
def cache(
    strategy: Strategy | int | _StrategyName = Strategy.LRU,
    max_size: int | None = 128,
    ttl: float | timedelta | None = None,
    backend: Backend | int | _BackendName = "memory",
    max_key_size: int = 512,
    max_value_size: int = 4096,
    *,
    typed: bool = False,
    single_flight: bool | None = None,
    name: str | None = None,
    version: str | int | None = None,
) -> CacheDecorator:
    """A decorator that caches a function's results: calls with equal arguments run the function once.

    Use it bare, `@cache`, or with arguments, `@cache(max_size=1000, ttl=60)`. All arguments of the decorated function
    must be hashable. They are matched to its signature: for `def f(a, b=2)` the calls f(1), f(1, 2), f(a=1) and f(b=2,
    a=1) are one entry. A function with `**kwargs`, or a callable that is no Python function, keeps what it was called
    with.

    Args:
        strategy: Which entry a full cache evicts: a Strategy, its number from 0 to 3, or its name in any case. Default:
            Strategy.LRU.
        max_size: The most entries kept, 0 to 9223372036854775807. None: no bound. 0: nothing is stored, calls are only
            counted. Default: 128.
        ttl: Seconds for which an entry stays valid, more than 0, or a timedelta. Measured from the moment the value was
            stored; hits do not prolong it. None or inf: for ever. Default: None.
        backend: Where the entries live: a Backend, its number, or its name in any case. Default: "memory".
        max_key_size: The most bytes of a key in shared memory, 1 to 2147483647. Without effect on the memory backend.
            Default: 512.
        max_value_size: The most bytes of a value in shared memory, 1 to 2147483647. Without effect on the memory backend.
            Default: 4096.
        typed: Whether equal arguments of different types, as 1, 1.0 and True, are different entries. Default: False.
        single_flight: Whether calls that miss one key at the same time wait for one computation, in each event loop one.
            None: for coroutine functions only. False: each runs the function. Default: None.
        name: What names the cache in shared memory, in place of the function's module and qualified name: all functions
            of this name with the same code and equal parameters share one. Without effect on the memory backend.
            Default: None.
        version: Tells caches of one name apart: a str, or an int of 64 bits. To be changed when the function's values
            change and its code does not. With `name` as well, the two stand for the code, too, so that it is to be
            changed with the code. Without effect on the memory backend. Default: None.

    Returns:
        A decorator, which can be used for any number of functions; each gets a cache of its own.

    Raises:
        TypeError: max_size, max_key_size or max_value_size is no int, or is a bool; ttl is no number and no timedelta,
            or is a bool; typed is no bool; single_flight is no bool and not None; name is no str; version is neither a
            str nor an int. When decorating: the object is not callable, or is a generator or async generator function.
        ValueError: strategy or backend is none of the values above; max_size, max_key_size or max_value_size is out of
            its range; ttl is zero, negative or NaN; name is empty; version is an int beyond 64 bits. With
            backend="shared": max_size is None or, when decorating, so many entries of that size can't be addressed.
        RuntimeError: backend is Backend.SHARED on a system that has neither Linux's nor macOS's shared memory.
        NotImplementedError: When decorating: single_flight is True, and the object is no coroutine function.

    Notes:
        With backend="shared" the entries are in a file that belongs to the user, in memory on Linux, and so survive the
        processes. Its name is made of the function's module, qualified name, bytecode, constants, defaults and closure,
        and the parameters: an edited function begins anew, and no two functions meet. Functions that it calls do not
        count: see `version`. A function that no other process could find has its entries in the memory of this process
        and its forks, with a SharedCacheWarning: one of a REPL or a notebook, unless it has a `name`; one whose code does
        not tell all, such as one that closes over an open file, unless it has a `name` and a `version`. None, bools, ints, floats, strs, bytes, tuples of them and lists of floats are stored as such, all else
        is pickled: each hit returns a new object. Keys are compared by what they are pickled to, but numbers by value.
        Never returned: a value that was not wholly written, whoever is killed at whatever moment. A value that cannot be
        stored is returned all the same.

        O(1) per call with every strategy, on top of hashing and comparing the arguments; LFU after Shah, Mitra and
        Matani, "An O(1) algorithm for implementing the LFU cache eviction scheme", 2010. Any thread may call at any
        time, without locks of the user's, with the GIL or without. No lock is held while the function, `__hash__` or
        `__eq__` runs. Threads that miss the same key at the same time each run the function. CachedFunction says what a
        coroutine function does.

    >>> from datetime import timedelta
    >>> from warp_cache import Strategy, cache
    >>> @cache(Strategy.LFU, 1000, ttl=timedelta(minutes=5))
    ... def area(width: int, height: int = 1) -> int:
    ...     return width * height
    >>> area(3), area(3, 1), area(height=1, width=3)
    (3, 3, 3)
    >>> area.cache_info()
    CacheInfo(hits=2, misses=1, max_size=1000, current_size=1)
    >>> cache(max_size=-1)
    Traceback (most recent call last):
        ...
    ValueError: max_size must be from 0 to 9223372036854775807, or None for no bound, got -1
    """

@overload
def lru_cache(  # type: ignore[overload-overlap]
    maxsize: Callable[_P, _R],
    typed: bool = False,
    *,
    max_size: int = ...,
    ttl: float | timedelta | None = None,
    backend: _Shared,
    max_key_size: int = 512,
    max_value_size: int = 4096,
    single_flight: bool | None = None,
    name: str | None = None,
    version: str | int | None = None,
) -> CachedFunction[_P, _R, SharedCacheInfo]:
    """Cache a function's results for all processes: `lru_cache(function, backend="shared")`."""

@overload
def lru_cache(  # type: ignore[overload-overlap]
    maxsize: int = 128,
    typed: bool = False,
    *,
    ttl: float | timedelta | None = None,
    backend: _Shared,
    max_key_size: int = 512,
    max_value_size: int = 4096,
    single_flight: bool | None = None,
    name: str | None = None,
    version: str | int | None = None,
) -> CacheDecorator[SharedCacheInfo]:
    """A decorator that caches a function's results for all processes: `@lru_cache(backend="shared")`."""

@overload
def lru_cache(  # type: ignore[overload-overlap]
    *,
    max_size: int,
    typed: bool = False,
    ttl: float | timedelta | None = None,
    backend: _Shared,
    max_key_size: int = 512,
    max_value_size: int = 4096,
    single_flight: bool | None = None,
    name: str | None = None,
    version: str | int | None = None,
) -> CacheDecorator[SharedCacheInfo]:
    """The same, with maxsize under the name that cache() gives it."""

@overload
def lru_cache(
    maxsize: Callable[_P, _R],
    typed: bool = False,
    *,
    max_size: int | None = ...,
    ttl: float | timedelta | None = None,
    backend: Backend | int | _BackendName = "memory",
    max_key_size: int = 512,
    max_value_size: int = 4096,
    single_flight: bool | None = None,
    name: str | None = None,
    version: str | int | None = None,
) -> CachedFunction[_P, _R]:
    """Cache a function's results as functools.lru_cache does: `@lru_cache`.

    The function takes the place of `maxsize`. The other form of lru_cache() describes everything else.
    """

@overload
def lru_cache(
    maxsize: int | None = 128,
    typed: bool = False,
    *,
    ttl: float | timedelta | None = None,
    backend: Backend | int | _BackendName = "memory",
    max_key_size: int = 512,
    max_value_size: int = 4096,
    single_flight: bool | None = None,
    name: str | None = None,
    version: str | int | None = None,
) -> CacheDecorator:
    """A decorator that caches a function's results exactly as functools.lru_cache does.

    Use it bare, `@lru_cache`, or with arguments, `@lru_cache(maxsize=1000)`, `@lru_cache(None)`. All arguments of the
    decorated function must be hashable. As with functools, the order of keywords, and whether an argument is given by
    position or by name, make different entries.

    Args:
        maxsize: The most entries kept, up to 9223372036854775807; may be spelled max_size. None: no bound. 0 or less:
            nothing is stored, calls are only counted. Default: 128.
        typed: Whether equal arguments of different types, as 1 and 1.0, are different entries. Default: False.
        ttl: Seconds for which an entry stays valid, more than 0, or a timedelta. Measured from the moment the value was
            stored. None or inf: for ever. Default: None.
        backend, max_key_size, max_value_size, single_flight, name, version: As for cache().

    Returns:
        A decorator, which can be used for any number of functions; each gets a cache of its own.

    Raises:
        TypeError: maxsize is no int, no callable and not None; maxsize and max_size are both given as sizes; ttl,
            max_key_size, max_value_size, single_flight, name or version is of a wrong type, as for cache(). When
            decorating: the object is not callable.
        ValueError: maxsize is more than 9223372036854775807; ttl, backend, max_key_size, max_value_size, name or version
            is out of its range, as for cache(); maxsize is None with backend="shared".
        RuntimeError: As for cache().
        NotImplementedError: When decorating: single_flight is True, and the object is no coroutine function.

    Notes:
        O(1) per call, on top of hashing and comparing the arguments. Any thread may call at any time. Threads that miss
        the same key at the same time each run the function. CachedFunction says what a coroutine function does.

    >>> from warp_cache import lru_cache
    >>> @lru_cache(maxsize=None)
    ... def fibonacci(n: int) -> int:
    ...     return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
    >>> fibonacci(90)
    2880067194370816120
    >>> fibonacci.cache_info()
    CacheInfo(hits=88, misses=91, max_size=None, current_size=91)
    >>> fibonacci.cache_parameters()
    {'maxsize': None, 'typed': False}
    """

@overload
def lru_cache(
    *,
    max_size: int | None,
    typed: bool = False,
    ttl: float | timedelta | None = None,
    backend: Backend | int | _BackendName = "memory",
    max_key_size: int = 512,
    max_value_size: int = 4096,
    single_flight: bool | None = None,
    name: str | None = None,
    version: str | int | None = None,
) -> CacheDecorator:
    """The same, with maxsize under the name that cache() gives it."""
