"""The decorators for tests whose promise holds for plain and for coroutine functions alike.

A test that uses the fixture `function_kind` runs twice. The first time these decorators are those of warp_cache. The
second time they make a coroutine function of what they are given, and drive each call of the cached one to its end, so
that the test notices nothing.
"""

import functools
import inspect
import types

import pytest

import warp_cache

both_kinds = pytest.mark.usefixtures("function_kind")
# A promise that is another one for coroutine functions; and a test in which no kind of function plays a part.
plain_only = once = pytest.mark.parametrize("function_kind", ["plain"], indirect=True, ids=[pytest.HIDDEN_PARAM])

current = "plain"


class Asynchronous:
    """A callable without a signature of its own, as a coroutine function."""

    def __init__(self, function):
        self.function = function

    async def __call__(self, /, *args, **kwargs):
        return self.function(*args, **kwargs)


def as_coroutine_function(function):
    """A coroutine function with the signature and the attributes of `function` that does what it does."""
    if isinstance(function, types.MethodType):
        return types.MethodType(as_coroutine_function(function.__func__), function.__self__)
    if not isinstance(function, types.FunctionType):
        return Asynchronous(function)
    namespace = {"_function_": function}
    exec(definition(function.__code__), namespace)
    twin = namespace.pop("make")()
    attributes = [*functools.WRAPPER_ASSIGNMENTS, "__defaults__", "__kwdefaults__"]
    functools.update_wrapper(twin, function, attributes, updated=())
    twin.__dict__ = dict(function.__dict__)
    return twin


@functools.cache
def definition(code):
    """The code of a function `make`, which makes a coroutine function that calls the function of `code`.

    It is nested so that it dies with its last reference on free-threaded builds, too."""
    cells = tuple(types.CellType() for _ in code.co_freevars)
    signature = inspect.signature(types.FunctionType(code, {}, closure=cells))
    parameters = signature.parameters.values()
    passed = ", ".join(f"{each}={each}" if each.kind is each.KEYWORD_ONLY else str(each) for each in parameters)
    source = f"def make():\n  async def twin{signature}: return _function_({passed})\n  return twin"
    return compile(source, __file__, "exec")


class Driven:
    # A cached coroutine function whose calls are driven to their ends. All else is handed on to it.

    __slots__ = ("_cached", "__weakref__")
    __doc__ = property(lambda self: self._cached.__doc__)
    __module__ = property(lambda self: self._cached.__module__)

    def __init__(self, cached):
        object.__setattr__(self, "_cached", cached)

    def __call__(self, /, *args, **kwargs):
        try:
            self._cached(*args, **kwargs).send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("a call was suspended that awaits nothing")

    def __get__(self, instance, owner=None):
        bound = self._cached.__get__(instance, owner)
        return self if bound is self._cached else Driven(bound)

    def __getattr__(self, name):
        return getattr(self._cached, name)

    def __setattr__(self, name, value):
        setattr(self._cached, name, value)

    def __delattr__(self, name):
        delattr(self._cached, name)


def bare(cached):
    """The object that the decorator of warp_cache returned."""
    return cached._cached if type(cached) is Driven else cached


class Decorator:
    """A decorator of warp_cache, or what one returns that decorates in its turn."""

    def __init__(self, decorator):
        self.decorator = decorator

    def __getattr__(self, name):
        return getattr(self.decorator, name)

    def __call__(self, *args, **kwargs):
        if current == "coroutine" and args and callable(args[0]):
            args = as_coroutine_function(args[0]), *args[1:]
        made = self.decorator(*args, **kwargs)
        if inspect.iscoroutinefunction(made):
            return Driven(made)
        return made if hasattr(made, "cache_info") else Decorator(made)


cache, lru_cache = Decorator(warp_cache.cache), Decorator(warp_cache.lru_cache)
