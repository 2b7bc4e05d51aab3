"""What a decorated function passes for, and the libraries that go by it: pydantic, Django, beartype, unittest.mock."""

# No `from __future__ import annotations`: what is tested reads annotations at run time.

import asyncio
import copy
import doctest
import functools
import inspect
import pickle
import sys
import types
import typing
import weakref
from unittest import mock

import pytest

import warp_cache
from warp_cache import CachedFunction, cache, lru_cache

LRU_CACHE = functools._lru_cache_wrapper
FUNCTION = types.FunctionType


def plain(x: int, y: int = 2) -> int:
    """Add.

    >>> plain(1)
    3
    """
    return x + y


async def coroutine(x: int, y: int = 2) -> int:
    return x + y


@lru_cache
def by_lru_cache(x: int, y: int = 2) -> int:
    """Add.

    >>> by_lru_cache(1)
    3
    """
    return x + y


@lru_cache(ttl=60)
def by_lru_cache_with_ttl(x: int, y: int = 2) -> int:
    return x + y


@cache
def by_cache(x: int, y: int = 2) -> int:
    """Add.

    >>> by_cache(1)
    3
    """
    return x + y


@cache
async def by_cache_awaited(x: int, y: int = 2) -> int:
    return x + y


@lru_cache
async def by_lru_cache_awaited(x: int, y: int = 2) -> int:
    return x + y


PLAIN = [by_lru_cache, by_lru_cache_with_ttl, by_cache]
AWAITED = [by_cache_awaited, by_lru_cache_awaited]
ALL = PLAIN + AWAITED
each = pytest.mark.parametrize("f", ALL, ids=lambda f: f.__name__)
each_awaited = pytest.mark.parametrize("f", AWAITED, ids=lambda f: f.__name__)


@pytest.fixture(autouse=True)
def _empty() -> None:
    for f in ALL:
        f.cache_clear()


class Adder:
    def add(self, x: int) -> int:
        return x

    async def __call__(self, x: int) -> int:
        return x


# What it passes for


@pytest.mark.parametrize(
    ("decorator", "function", "kind"),
    [
        # functools could take the place of these.
        (lru_cache, plain, LRU_CACHE),
        (lru_cache(maxsize=None, typed=True), plain, LRU_CACHE),
        (lru_cache(maxsize=0), plain, LRU_CACHE),
        (lru_cache, len, LRU_CACHE),
        (lru_cache, Adder().add, LRU_CACHE),
        # And not of these, without breaking a promise.
        (lru_cache(ttl=60), plain, FUNCTION),
        (lru_cache, coroutine, FUNCTION),
        (cache, plain, FUNCTION),
        (cache(max_size=0), plain, FUNCTION),
        (cache, coroutine, FUNCTION),
        (cache, lambda x: x, FUNCTION),
        # Nor are these made of a function.
        (cache, len, CachedFunction),
        (cache, Adder().add, CachedFunction),
        (cache, functools.partial(plain), CachedFunction),
        (lru_cache, functools.partial(coroutine), CachedFunction),
        (cache, Adder(), CachedFunction),
    ],
)
def test_what_a_decorated_function_passes_for(decorator, function, kind):
    f = decorator(function)
    assert f.__class__ is kind
    assert isinstance(f, kind)
    assert type(f) is CachedFunction
    assert isinstance(f, CachedFunction)
    assert inspect.isfunction(f) == (kind is FUNCTION)
    assert isinstance(f, LRU_CACHE) == (kind is LRU_CACHE)


@pytest.mark.skipif(sys.platform == "win32", reason="shared memory is for Unix")
def test_functools_could_not_take_the_place_of_a_shared_cache():
    assert lru_cache(backend="shared")(plain).__class__ is FUNCTION
    assert cache(backend="shared")(plain).__class__ is FUNCTION


def test_the_type_itself_passes_for_a_type():
    assert CachedFunction.__class__ is type


@each
def test_what_it_passes_for_cannot_be_changed(f):
    kind = f.__class__
    with pytest.raises((AttributeError, TypeError)):
        f.__class__ = Adder
    with pytest.raises((AttributeError, TypeError)):
        del f.__class__
    assert f.__class__ is kind


@each
def test_what_passes_for_a_function_has_what_a_function_has(f):
    names = ["__code__", "__globals__", "__closure__", "__defaults__", "__kwdefaults__", "__builtins__"]
    if f.__class__ is FUNCTION:
        for name in names:
            assert getattr(f, name) is getattr(f.__wrapped__, name)
    else:
        assert [name for name in names if hasattr(f, name)] == []


@each
def test_it_is_still_listed_inspected_copied_and_pickled_as_what_it_is(f, monkeypatch):
    f.own = 1
    try:
        methods = {"cache_info", "cache_clear", "cache_parameters", "cache_invalidate", "cache_contains"}
        assert {*methods, "own", "__wrapped__", "__call__", "__class__"} <= set(dir(f))
        assert dict(inspect.getmembers(f))["own"] == 1
    finally:
        del f.own
    assert repr(f).startswith(f"<warp_cache.CachedFunction {__name__}.{f.__name__} at 0x")
    assert str(inspect.signature(f)) == "(x: int, y: int = 2) -> int"
    assert inspect.unwrap(f) is f.__wrapped__
    assert inspect.getsource(f) == inspect.getsource(f.__wrapped__)
    assert inspect.isroutine(f)
    assert inspect.iscoroutinefunction(f) == (f in AWAITED)
    assert typing.get_type_hints(f) == {"x": int, "y": int, "return": int}
    assert copy.copy(f) is f
    assert copy.deepcopy([f])[0] is f
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(f, protocol)) is f
        assert pickle.loads(pickle._dumps(f, protocol)) is f
    assert weakref.proxy(f).cache_info().hits == 0
    assert weakref.ref(f)() is f
    assert inspect.signature(functools.wraps(f)(lambda *args: f(*args))) == inspect.signature(f)


@each
def test_it_dispatches_and_binds_as_a_function_does(f):
    dispatching = functools.singledispatch(lambda value: "other")
    dispatching.register(int, f)
    assert dispatching.dispatch(int) is f

    class Page:
        method = f

    page = Page()
    assert type(page.method) is types.MethodType
    assert page.method.__func__ is f
    assert Page.method is f


def test_doctests_of_decorated_functions_are_found():
    found = {test.name: len(test.examples) for test in doctest.DocTestFinder().find(sys.modules[__name__])}
    for name in ("plain", "by_lru_cache", "by_cache"):
        assert found[f"{__name__}.{name}"] == 1
    finder = doctest.DocTestFinder(exclude_empty=False)
    assert all(test.lineno is not None for test in finder.find(by_cache, globs={}))


# unittest.mock


@each
def test_a_mock_with_a_decorated_function_as_its_specification_has_the_methods_of_the_cache(f):
    stand_in = mock.Mock(spec=f)
    assert isinstance(stand_in, CachedFunction)
    stand_in.cache_clear()
    stand_in.cache_invalidate(1)
    with pytest.raises(AttributeError):
        stand_in.no_such_method()


@each_awaited
@pytest.mark.parametrize("spec_set", [False, True])
def test_an_autospec_of_a_cached_coroutine_function_is_a_coroutine_function(f, spec_set):
    stand_in = mock.create_autospec(f, spec_set=spec_set, return_value=7)
    of_function = mock.create_autospec(coroutine, spec_set=spec_set)
    assert type(stand_in) is type(of_function) is types.FunctionType
    # Up to 3.11 only asyncio knows it for one.
    assert inspect.iscoroutinefunction(stand_in) == inspect.iscoroutinefunction(of_function)
    assert sys.version_info >= (3, 12) or asyncio.iscoroutinefunction(stand_in)

    async def use():
        return await stand_in(1, y=3)

    assert asyncio.run(use()) == 7
    stand_in.assert_awaited_once_with(1, y=3)
    with pytest.raises(TypeError):
        asyncio.run(stand_in(1, 2, 3))


@pytest.mark.parametrize("function", [functools.partial(coroutine), Adder(), types.MethodType(coroutine, 1)])
def test_an_autospec_of_a_cached_coroutine_function_of_another_kind_can_be_awaited(function):
    stand_in = mock.create_autospec(cache(function), return_value=7)

    async def use():
        return await stand_in(1)

    assert asyncio.run(use()) == 7
    stand_in.cache_clear()


def test_a_patched_method_that_is_cached_can_be_awaited():
    class Client:
        @cache
        async def fetch(self, x: int) -> int:
            return x

    async def use():
        return await Client().fetch(1)

    with mock.patch.object(Client, "fetch", autospec=True, return_value=7) as stand_in:
        assert asyncio.run(use()) == 7
    stand_in.assert_awaited_once_with(mock.ANY, 1)
    assert asyncio.run(use()) == 1


def test_an_autospec_of_an_lru_cache_is_what_that_of_functools_is():
    ours, theirs = mock.create_autospec(by_lru_cache), mock.create_autospec(functools.lru_cache(plain))
    assert type(ours).__mro__[1:] == type(theirs).__mro__[1:]
    ours.cache_clear()
    theirs.cache_clear()


# pydantic


@pytest.mark.parametrize("decorator", [lru_cache, lru_cache(ttl=60), lru_cache(maxsize=None), cache, cache(ttl=60)])
def test_a_cached_method_in_the_body_of_a_pydantic_model_is_a_method(decorator):
    pydantic = pytest.importorskip("pydantic")
    runs = []

    class Circle(pydantic.BaseModel, frozen=True):
        radius: int
        scale: int = 10

        @decorator
        def area(self, factor: int = 3) -> int:
            runs.append(self.radius)
            return factor * self.radius**2

        @decorator
        async def fetched(self, factor: int = 3) -> int:
            runs.append(self.radius)
            return factor * self.radius**2

        @staticmethod
        @decorator
        def double(x: int) -> int:
            return 2 * x

        shared = decorator(plain)

    assert list(Circle.model_fields) == ["radius", "scale"]
    assert [Circle(radius=2).area(), Circle(radius=2).area(), Circle(radius=3).area()] == [12, 12, 27]
    assert runs == [2, 3]
    assert [asyncio.run(Circle(radius=2).fetched()) for _ in range(2)] == [12, 12]
    assert runs == [2, 3, 2]
    assert Circle.double(4) == 8
    assert Circle.area.cache_info()[:2] == (1, 2)
    assert Circle(radius=2).model_dump() == {"radius": 2, "scale": 10}
    assert type(Circle.shared) is CachedFunction


# Django


@pytest.fixture
def writer():
    django_conf = pytest.importorskip("django.conf")
    if not django_conf.settings.configured:
        django_conf.settings.configure(USE_TZ=True)
    return pytest.importorskip("django.db.migrations.writer").MigrationWriter


@each
def test_a_migration_of_django_names_a_decorated_function(writer, f):
    assert writer.serialize(f) == (f"{__name__}.{f.__name__}", {f"import {__name__}"})


@each
def test_a_decorated_function_is_a_default_and_a_validator_in_a_migration_of_django(writer, f):
    from django.db import migrations, models

    operation = migrations.AddField("page", "size", models.IntegerField(default=f, validators=[f]))
    migration = type("Migration", (migrations.Migration,), {"operations": [operation], "dependencies": []})
    namespace = {}
    exec(writer(migration("0001_initial", "pages")).as_string(), namespace)
    [written] = namespace["Migration"].operations
    assert written.field.default is f
    assert written.field._validators == [f]


def test_a_migration_of_django_refuses_what_it_refuses_of_functools(writer):
    for decorator in (functools.lru_cache, lru_cache, cache):
        with pytest.raises(ValueError, match="Cannot serialize function: lambda"):
            writer.serialize(decorator(lambda: 1))


# beartype


@pytest.fixture
def beartype():
    return pytest.importorskip("beartype").beartype


@pytest.mark.parametrize("decorator", [lru_cache, lru_cache(ttl=60), cache, cache(ttl=60)])
def test_beartype_over_a_decorated_function_checks_its_calls_and_hits(beartype, decorator):
    runs = []

    @beartype
    @decorator
    def double(x: int) -> int:
        runs.append(x)
        return "two" if x == 2 else 2 * x

    assert [double(1), double(1), double(x=3)] == [2, 2, 6]
    assert runs == [1, 3]
    for wrong in ("1", 2):
        with pytest.raises(Exception, match="violates type hint"):
            double(wrong)


@pytest.mark.parametrize("decorator", [lru_cache(ttl=60), cache, cache(ttl=60)])
def test_beartype_keeps_a_cache_that_functools_could_not_take_the_place_of(beartype, decorator):
    @decorator
    def double(x: int) -> int:
        return 2 * x

    checked = beartype(double)
    assert [checked(1), checked(1)] == [2, 2]
    assert checked.__wrapped__ is double
    assert double.cache_info()[:2] == (1, 1)


@pytest.mark.parametrize("decorator", [lru_cache, cache, cache(ttl=60)])
def test_beartype_over_a_cached_coroutine_function_checks_what_awaiting_gives(beartype, decorator):
    runs = []

    @decorator
    async def double(x: int) -> int:
        runs.append(x)
        await asyncio.sleep(0)
        return "two" if x == 2 else 2 * x

    checked = beartype(double)
    assert inspect.iscoroutinefunction(checked)

    async def use():
        return [*await asyncio.gather(checked(1), checked(1)), await checked(1)]

    assert asyncio.run(use()) == [2, 2, 2]
    assert runs == [1]
    assert double.cache_info()[:2] == (2, 1)
    for wrong in ("1", 2):
        with pytest.raises(Exception, match="violates type hint"):
            asyncio.run(checked(wrong))


def test_beartype_over_a_class_with_decorated_methods(beartype):
    @beartype
    class Circle:
        @cache
        def area(self, factor: int) -> int:
            return factor

        @cache
        async def fetched(self, factor: int) -> int:
            return factor

        @lru_cache
        def scaled(self, factor: int) -> int:
            return factor

    circle = Circle()
    assert [circle.area(2), circle.scaled(3), asyncio.run(circle.fetched(4))] == [2, 3, 4]
    assert [circle.area(2), circle.scaled(3), asyncio.run(circle.fetched(4))] == [2, 3, 4]
    assert inspect.unwrap(Circle.area, stop=lambda f: type(f) is CachedFunction).cache_info()[:2] == (1, 1)
    with pytest.raises(Exception, match="violates type hint"):
        circle.area("2")


def test_beartype_below_a_decorator_checks_what_the_function_is_given(beartype):
    double = cache(beartype(plain))
    assert [double(1), double(1)] == [3, 3]
    assert double.cache_info()[:2] == (1, 1)
    assert warp_cache.cache(beartype(coroutine)).cache_info()[:2] == (0, 0)
