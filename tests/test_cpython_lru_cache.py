"""CPython's own tests of functools.lru_cache and functools.cache, run against ours."""

import types
import unittest

import pytest

import warp_cache

_cpython = pytest.importorskip("test.test_functools", reason="this Python comes without its test suite")


class _Functools(types.ModuleType):
    """functools with our caches in it; passes for the C version, whose branches are the strict ones."""

    def __init__(self, original, **replacements):
        super().__init__("functools")
        self.__dict__.update(vars(original) | replacements)
        self.original = original

    def __eq__(self, other):
        return other is self or other is self.original

    __hash__ = types.ModuleType.__hash__


_functools = _Functools(
    _cpython.c_functools,
    lru_cache=warp_cache.lru_cache,
    cache=warp_cache.lru_cache(maxsize=None),
)


@warp_cache.lru_cache()
def cached_function(x, y):
    return 3 * x + y


class TestLRUCache(_cpython.TestLRU, unittest.TestCase):
    module = _functools
    cached_func = (cached_function,)

    @warp_cache.lru_cache()
    def cached_meth(self, x, y):
        return 3 * x + y

    @staticmethod
    @warp_cache.lru_cache()
    def cached_staticmeth(x, y):
        return 3 * x + y


class TestUnboundedLRUCache(_cpython.TestCache, unittest.TestCase):
    module = _functools


def test_the_strict_branches_run():
    assert TestLRUCache.module == _cpython.c_functools
    assert TestLRUCache.module is not _cpython.c_functools
    assert TestLRUCache.module.lru_cache is warp_cache.lru_cache
