"""What type checkers must refuse. Checked, never run.

Each wrong line names the error that each checker must find in it. Where it finds none, the comment itself is an error.
"""

from typing_extensions import assert_type

from warp_cache import CacheDecorator, CachedFunction, CacheInfo, SharedCacheInfo, Strategy, cache, lru_cache


@cache
def bare(text: str, times: int = 2, *, separator: str = "") -> str:
    return separator.join([text] * times)


@cache(max_size=3)
def configured(text: str) -> str:
    return text


@lru_cache(maxsize=3)
def lru(text: str) -> str:
    return text


class Circle:
    @cache
    def area(self, digits: int) -> float:
        return round(3.14159, digits)

    @staticmethod
    @cache
    def unit(name: str) -> int:
        return len(name)

    @classmethod
    @cache
    def of(cls, radius: int) -> "Circle":
        return cls()


circle = Circle()

# Calls that the function refuses.
bare()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
bare(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bare("a", "b")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bare("a", 2, "-")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
bare("a", colour="red")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
configured("a", "b")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
lru(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bare.cache_invalidate(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bare.cache_contains()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
bare.__wrapped__(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(bare("a"), int)  # type: ignore[assert-type]  # pyright: ignore[reportAssertTypeFailure]

# Methods.
circle.area()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
circle.area("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
circle.area(circle, 2)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
Circle.area(2)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
circle.area.cache_invalidate(2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
circle.unit(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Circle.unit(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Circle.unit.cache_contains(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
circle.of("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Circle.of("a")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
Circle.of.cache_invalidate(1)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]

# Arguments of the decorators.
cache("lifo")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
cache(1.5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
cache(None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
cache(max_size="a")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(max_size=1.5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(ttl="a")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(backend="disk")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
cache(max_size=None, backend="shared", name=1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
cache(version=1.5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(max_key_size=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(typed=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(single_flight="yes")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(maxsize=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
cache(Strategy.LRU, 128, None, "memory", 512, 4096, True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
lru_cache("a")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
lru_cache(1.5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
lru_cache(20, 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
lru_cache(maxsize=20, max_size=20)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
lru_cache(strategy="lfu")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
lru_cache(20, True, 60)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
cache()(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache()()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

# Names that are not there.
bare.cache_size()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
circle.area.cache_size()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
print(bare.cache_info().size)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
print(configured.cache_info().oversize_skips)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
cache(Strategy.ARC)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]

# Only the decorators make these, and nothing derives from them.
CachedFunction()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
CachedFunction(len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CacheDecorator()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
CacheInfo(1, 2, 3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
SharedCacheInfo(1, 2, 3, 4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


class Derived(CachedFunction[[int], str]):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    pass


class DerivedDecorator(CacheDecorator):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    pass


# An info does not change.
bare.cache_info().hits = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
bare.cache_info().maxsize = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
