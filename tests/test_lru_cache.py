"""lru_cache does what functools.lru_cache does: every call goes to both, and both must agree."""

import builtins
import copy
import functools
import gc
import inspect
import itertools
import math
import pickle
import sys
import threading
import weakref

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kinds import bare, both_kinds, lru_cache, once, plain_only
from warp_cache.warp_cache import _ManualClock

pytestmark = both_kinds

NAN = math.nan


def outcome(function, *args, **kwargs):
    """What a call came to, in a form that tells 1 from 1.0 and from True."""
    try:
        return "returned", repr(function(*args, **kwargs))
    except Exception as error:
        return "raised", type(error), str(error)


class Twins:
    """One function under both caches; `runs` are the calls that reached it."""

    def __init__(self, function, *args, **kwargs):
        self.runs, self.their_runs = [], []
        self.ours = lru_cache(*args, **kwargs)(self.recording(function, self.runs))
        self.theirs = functools.lru_cache(*args, **kwargs)(self.recording(function, self.their_runs))

    @staticmethod
    def recording(function, runs):
        @functools.wraps(function)
        def recorded(*args, **kwargs):
            runs.append(repr((args, kwargs)))
            return function(*args, **kwargs)

        return recorded

    def __call__(self, *args, **kwargs):
        result = outcome(self.ours, *args, **kwargs)
        assert result == outcome(self.theirs, *args, **kwargs)
        self.check()
        return result

    def check(self):
        assert self.runs == self.their_runs
        assert self.info == self.theirs.cache_info()

    def clear(self):
        assert self.ours.cache_clear() is None
        self.theirs.cache_clear()
        self.check()

    @property
    def info(self):
        return tuple(self.ours.cache_info())


def echo(*args, **kwargs):
    return args, list(kwargs.items())


# Forms


@pytest.mark.parametrize(
    ("form", "parameters"),
    [
        (lambda f, lru_cache: lru_cache(f), {"maxsize": 128, "typed": False}),
        (lambda f, lru_cache: lru_cache()(f), {"maxsize": 128, "typed": False}),
        (lambda f, lru_cache: lru_cache(20)(f), {"maxsize": 20, "typed": False}),
        (lambda f, lru_cache: lru_cache(maxsize=20)(f), {"maxsize": 20, "typed": False}),
        (lambda f, lru_cache: lru_cache(20, True)(f), {"maxsize": 20, "typed": True}),
        (lambda f, lru_cache: lru_cache(20, typed=True)(f), {"maxsize": 20, "typed": True}),
        (lambda f, lru_cache: lru_cache(typed=True)(f), {"maxsize": 128, "typed": True}),
        (lambda f, lru_cache: lru_cache(typed=True, maxsize=3)(f), {"maxsize": 3, "typed": True}),
        (lambda f, lru_cache: lru_cache(f, typed=True), {"maxsize": 128, "typed": True}),
        (lambda f, lru_cache: lru_cache(f, True), {"maxsize": 128, "typed": True}),
        (lambda f, lru_cache: lru_cache(None)(f), {"maxsize": None, "typed": False}),
        (lambda f, lru_cache: lru_cache(maxsize=None)(f), {"maxsize": None, "typed": False}),
        (lambda f, lru_cache: lru_cache(0)(f), {"maxsize": 0, "typed": False}),
        (lambda f, lru_cache: lru_cache(-10)(f), {"maxsize": 0, "typed": False}),
        (lambda f, lru_cache: lru_cache(True)(f), {"maxsize": 1, "typed": False}),
    ],
)
def test_every_form_reports_the_parameters_of_functools(form, parameters):
    ours, theirs = form(len, lru_cache), form(len, functools.lru_cache)
    assert ours.cache_parameters() == theirs.cache_parameters() == parameters
    assert ours.cache_info() == theirs.cache_info() == (0, 0, parameters["maxsize"], 0)
    assert ours((1, 2)) == theirs((1, 2)) == 2


@pytest.mark.parametrize("maxsize", [20, 0, None])
def test_max_size_is_another_name_for_maxsize(maxsize):
    assert lru_cache(max_size=maxsize)(len).cache_parameters() == {"maxsize": maxsize, "typed": False}


def test_a_negative_max_size_counts_as_zero():
    assert lru_cache(max_size=-1)(len).cache_parameters() == {"maxsize": 0, "typed": False}


@pytest.mark.parametrize("exponent", [31, 62, 63, 64, 200])
def test_a_hugely_negative_maxsize_counts_as_zero(exponent):
    assert lru_cache(maxsize=-(2**exponent))(len).cache_info().maxsize == 0


def test_a_large_maxsize_costs_nothing_until_it_is_used():
    f = lru_cache(maxsize=sys.maxsize)(len)
    assert [f("ab"), f("ab")] == [2, 2]
    assert f.cache_info() == (1, 1, sys.maxsize, 1)


@once
def test_a_maxsize_beyond_any_memory_is_refused():
    with pytest.raises((ValueError, OverflowError)):
        lru_cache(maxsize=2**200)(len)


def test_maxsize_may_be_any_int_subclass():
    class Size(int):
        pass

    f = lru_cache(Size(2))(abs)
    assert [f(1), f(2), f(3)] == [1, 2, 3]
    assert f.cache_info() == (0, 3, 2, 2)


@once
@pytest.mark.parametrize("both", [{"maxsize": 3, "max_size": 3}, {"maxsize": None, "max_size": None}])
def test_both_names_of_the_size_at_once_are_refused(both):
    with pytest.raises(TypeError):
        lru_cache(**both)


@once
def test_a_positional_size_and_max_size_at_once_are_refused():
    with pytest.raises(TypeError):
        lru_cache(3, max_size=3)


@once
@pytest.mark.parametrize("first", ["20", 2.0, [], {}, (), b"", 1j, object()])
def test_a_first_argument_of_a_wrong_kind_is_refused(first):
    message = "Expected first argument to be an integer, a callable, or None"
    with pytest.raises(TypeError, match=message):
        functools.lru_cache(first)
    with pytest.raises(TypeError, match=message):
        lru_cache(first)


@once
@pytest.mark.parametrize("thing", [3, "text", None, [], object()])
def test_what_cannot_be_called_cannot_be_decorated(thing):
    with pytest.raises(TypeError):
        lru_cache()(thing)


@once
def test_unknown_parameters_are_refused():
    with pytest.raises(TypeError):
        lru_cache(size=3)


@once
def test_a_strategy_is_no_parameter():
    with pytest.raises(TypeError):
        lru_cache(strategy="fifo")


def test_one_decorator_gives_each_function_its_own_cache():
    decorator = lru_cache(maxsize=4)
    first, second = decorator(abs), decorator(str)
    assert [first(-1), second(-1)] == [1, "-1"]
    assert first.cache_info() == second.cache_info() == (0, 1, 4, 1)


def test_cache_parameters_are_a_new_dict_each_time():
    f = lru_cache(len)
    f.cache_parameters()["maxsize"] = 7
    assert f.cache_parameters() == {"maxsize": 128, "typed": False}


@plain_only
def test_a_generator_function_is_accepted():
    @lru_cache
    def count():
        yield from range(3)

    assert list(count()) == [0, 1, 2]
    assert list(count()) == []
    assert count.cache_info() == (1, 1, 128, 1)


# Table and statistics


def test_cache_info_equals_that_of_functools():
    f = Twins(abs, 4)
    f(1), f(1), f(2)
    assert f.ours.cache_info() == f.theirs.cache_info() == functools._CacheInfo(1, 2, 4, 2)


def test_cache_info_unpacks_in_the_order_of_functools():
    f = lru_cache(maxsize=3)(abs)
    f(1), f(1), f(2)
    hits, misses, maxsize, currsize = f.cache_info()
    assert (hits, misses, maxsize, currsize) == (1, 2, 3, 2)


def test_cache_info_answers_to_the_names_of_functools():
    f = lru_cache(maxsize=3)(abs)
    f(1), f(1), f(2)
    info = f.cache_info()
    assert (info.hits, info.misses, info.maxsize, info.currsize) == (1, 2, 3, 2)


def test_cache_info_is_a_snapshot():
    f = lru_cache(abs)
    before = f.cache_info()
    f(1)
    assert before == (0, 0, 128, 0)


@pytest.mark.parametrize("maxsize", [None, 0, 1, 128])
def test_a_raising_call_counts_as_a_miss(maxsize):
    f = Twins("abc".__getitem__, maxsize)
    for _ in range(3):
        f(15)
    assert f.info == (0, 3, maxsize, 0)


@pytest.mark.parametrize("maxsize", [None, 0, 1, 128])
def test_a_miss_is_counted_before_the_function_runs(maxsize):
    @lru_cache(maxsize)
    def misses_so_far():
        return misses_so_far.cache_info().misses

    assert misses_so_far() == 1


@pytest.mark.parametrize("maxsize", range(1, 40))
def test_the_capacity_is_exact(maxsize):
    f = Twins(abs, maxsize)
    for number in range(maxsize + 5):
        f(number)
    assert f.info == (0, maxsize + 5, maxsize, maxsize)


def test_size_one_keeps_the_last_call():
    f = Twins(abs, 1)
    for number in (7, 7, 7, 8, 7, 7):
        f(number)
    assert f.info == (3, 3, 1, 1)


def test_size_two_hits_as_often_as_functools():
    f = Twins(abs, 2)
    for number in (7, 9, 7, 9, 7, 9, 8, 8, 8, 9, 9, 9, 8, 8, 8, 7):
        f(number)
    assert f.info == (12, 4, 2, 2)


def test_a_hit_saves_an_entry_from_eviction():
    f = Twins(abs, 3)
    for number in (1, 2, 3, 1, 4):
        f(number)
    assert [f.ours.cache_contains(number) for number in (1, 2, 3, 4)] == [True, False, True, True]


@pytest.mark.parametrize("maxsize", [None, 0, 2])
def test_clearing_empties_the_table_and_zeroes_the_counters(maxsize):
    f = Twins(abs, maxsize)
    f(1), f(1), f(2)
    f.clear()
    assert f.info == (0, 0, maxsize, 0)
    f(1)
    assert len(f.runs) == (4 if maxsize == 0 else 3)


def test_size_zero_never_stores():
    f = Twins(abs, 0)
    f(1), f(1), f(1)
    assert f.info == (0, 3, 0, 0)


@plain_only
@pytest.mark.parametrize("maxsize", [0, -10])
def test_size_zero_accepts_unhashable_arguments(maxsize):
    f = Twins(echo, maxsize)
    assert f([], key={}) == ("returned", "(([],), [('key', {})])")
    assert f.info == (0, 1, 0, 0)


@plain_only
def test_size_zero_never_hashes():
    class Unhashed:
        def __hash__(self):
            raise AssertionError("hashed")

    assert lru_cache(0)(lambda x: 3)(Unhashed()) == 3


# Keys


def test_no_keywords_and_an_empty_mapping_of_them_are_one_entry():
    f = Twins(echo)
    f(0), f(0, **{})
    assert f.info == (1, 1, 128, 1)


def test_keyword_order_separates_entries():
    f = Twins(echo)
    assert f(a=1, b=2) == ("returned", "((), [('a', 1), ('b', 2)])")
    assert f(b=2, a=1) == ("returned", "((), [('b', 2), ('a', 1)])")
    assert f.info == (0, 2, 128, 2)


def test_position_and_keyword_separate_entries():
    @lru_cache
    def square(x):
        return x * x

    assert [square(3), square(x=3), square(3), square(x=3)] == [9, 9, 9, 9]
    assert square.cache_info() == (2, 2, 128, 2)


def test_a_default_left_out_and_written_separate_entries():
    @lru_cache
    def add(a, b=2):
        return a + b

    assert [add(1), add(1, 2), add(1, b=2)] == [3, 3, 3]
    assert add.cache_info() == (0, 3, 128, 3)


@pytest.mark.parametrize("order", list(itertools.permutations([1, 1.0, True])))
@pytest.mark.parametrize("typed", [False, True])
def test_a_lone_number_is_keyed_as_functools_keys_it(order, typed):
    f = Twins(echo, typed=typed)
    for argument in order * 2:
        f(argument)


@pytest.mark.parametrize("order", list(itertools.permutations([0, 0.0, -0.0, False])))
def test_a_lone_zero_is_keyed_as_functools_keys_it(order):
    f = Twins(echo)
    for argument in order * 2:
        f(argument)


@pytest.mark.parametrize("order", list(itertools.permutations([1, 1.0, True])))
@pytest.mark.parametrize("typed", [False, True])
def test_equal_numbers_among_others_are_keyed_as_functools_keys_them(order, typed):
    f = Twins(echo, typed=typed)
    for argument in order * 2:
        f(argument, "other")
        f("other", argument)
        f(name=argument)


def test_a_lone_int_subclass_is_keyed_as_functools_keys_it():
    class Number(int):
        pass

    f = Twins(echo)
    f(1), f(Number(1)), f(1), f(Number(1)), f(1.0)


def test_a_lone_str_subclass_is_keyed_as_functools_keys_it():
    class Text(str):
        pass

    f = Twins(echo)
    f("a"), f(Text("a")), f("a"), f(Text("a"))


@pytest.mark.parametrize("number", [2**30, 2**31, 2**61 - 1, 2**63, 2**64, 10**30, -1, -(2**63)])
def test_a_number_of_any_size_and_its_equal_float_agree_with_functools(number):
    f = Twins(echo)
    f(number), f(float(number)), f(number), f(float(number))


@pytest.mark.parametrize("pair", [(-1, -2), (0, 2**61 - 1), (1, 2**61), (5, 2**61 + 4)])
def test_numbers_of_one_hash_are_separate(pair):
    assert hash(pair[0]) == hash(pair[1])
    f = Twins(echo)
    f(pair[0]), f(pair[1]), f(pair[0]), f(pair[1])
    assert f.info == (2, 2, 128, 2)


def test_nan_is_found_by_identity():
    f = Twins(echo)
    f(NAN), f(NAN), f(float("nan")), f((NAN,)), f((NAN,))
    assert f.info == (2, 3, 128, 3)


def test_typed_separates_by_the_type_of_each_argument():
    f = Twins(echo, typed=True)
    for argument in (3, 3.0, 3, 3.0):
        f(argument), f(x=argument)
    assert f.info == (4, 4, 128, 4)


def test_typed_looks_at_the_top_level_only():
    class Triple(tuple):
        pass

    f = Twins(echo, typed=True)
    f((1,)), f((True,)), f((1.0,)), f(Triple((1,))), f(Triple((True,)))


def test_typed_separates_subclasses():
    class Number(int):
        pass

    f = Twins(echo, typed=True)
    f(1), f(Number(1)), f(1), f(Number(1))
    assert f.info == (2, 2, 128, 2)


@pytest.mark.parametrize("typed", [False, True])
def test_no_positional_call_collides_with_a_keyword_call(typed):
    f = Twins(echo, None, typed)
    calls = [
        ((1, 2), {}),
        (((1, 2),), {}),
        ((1,), {"a": 2}),
        (((1,), (("a", 2),)), {}),
        (((1,), ("a", 2)), {}),
        ((1, "a", 2), {}),
        ((1, ("a", 2)), {}),
        ((1, object, "a", 2), {}),
        ((), {"a": 2}),
        (("a", 2), {}),
        ((("a", 2),), {}),
        ((((), (("a", 2),)),), {}),
        ((), {}),
        (((),), {}),
        ((None,), {}),
        ((1, 2, int, int), {}),
        ((1, int), {}),
        ((1,), {}),
    ]
    for args, kwargs in calls * 2:
        f(*args, **kwargs)
    assert f.info == (len(calls), len(calls), None, len(calls))


@pytest.mark.parametrize("maxsize", [None, 1, 128])
def test_each_argument_is_hashed_once_a_call(maxsize):
    class Counted:
        hashed = 0

        def __hash__(self):
            self.hashed += 1
            return 999

    f = lru_cache(maxsize)(lambda *args, **kwargs: 3)
    alone, first, by_name = Counted(), Counted(), Counted()
    for calls in (1, 2, 3):
        f(alone), f(first, 1), f(1, name=by_name)
        assert (alone.hashed, first.hashed, by_name.hashed) == (calls, calls, calls)


@pytest.mark.parametrize("maxsize", [None, 10, 2000])
def test_nothing_is_hashed_when_the_table_grows_or_evicts(maxsize):
    class Counted:
        hashed = 0

        def __hash__(self):
            Counted.hashed += 1
            return id(self) >> 4

    f = lru_cache(maxsize)(id)
    arguments = [Counted() for _ in range(1000)]
    for argument in arguments:
        f(argument)
    assert Counted.hashed == 1000


@pytest.mark.parametrize("maxsize", [None, 10])
def test_an_unhashable_argument_is_refused_and_nothing_counted(maxsize):
    f = Twins(echo, maxsize)
    for args, kwargs in [(([],), {}), ((1, {}), {}), ((), {"a": []}), (((1, []),), {})]:
        assert f(*args, **kwargs)[:2] == ("raised", TypeError)
    assert f.info == (0, 0, maxsize, 0)
    assert f.runs == []


@pytest.mark.parametrize("maxsize", [None, 10])
def test_an_unhashable_argument_does_not_leak(maxsize):
    class Unhashable:
        __hash__ = None

    f = lru_cache(maxsize)(echo)
    argument = Unhashable()
    reference = weakref.ref(argument)
    with pytest.raises(TypeError):
        f(argument, argument, name=argument)
    del argument
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("maxsize", [None, 10])
def test_a_raising_hash_reaches_the_caller(maxsize):
    class Raising:
        def __hash__(self):
            raise LookupError("no hash today")

    f = Twins(echo, maxsize)
    assert f(Raising()) == ("raised", LookupError, "no hash today")
    assert f(1, name=Raising()) == ("raised", LookupError, "no hash today")
    assert f.info == (0, 0, maxsize, 0)


class Fragile:
    """Hashes like all of its kind, and raises when compared while `armed`."""

    armed = True

    def __hash__(self):
        return 7

    def __eq__(self, other):
        if Fragile.armed:
            raise LookupError("no comparison today")
        return self is other

    def __repr__(self):
        return "Fragile()"


@pytest.mark.parametrize("maxsize", [None, 1, 10])
def test_a_raising_eq_reaches_the_caller(maxsize):
    f = Twins(echo, maxsize)
    stored = Fragile()
    f(stored)
    assert f(Fragile()) == ("raised", LookupError, "no comparison today")
    f(stored)
    assert f.info == (1, 1, maxsize, 1)


@pytest.mark.parametrize("maxsize", [None, 10])
@pytest.mark.parametrize("decorator", [functools.lru_cache, lru_cache])
def test_an_eq_that_raises_when_the_value_is_stored_reaches_the_caller(decorator, maxsize, monkeypatch):
    monkeypatch.setattr(Fragile, "armed", False)
    outer, inner = Fragile(), Fragile()

    @decorator(maxsize)
    def f(x):
        if x is outer:
            f(inner)
            Fragile.armed = True

    with pytest.raises(LookupError, match="no comparison today"):
        f(outer)
    assert f.cache_info() == (0, 2, maxsize, 1)


# Calls


@pytest.mark.parametrize("maxsize", [None, 0, 128])
def test_an_exception_has_no_context_of_ours(maxsize):
    f = lru_cache(maxsize)("abc".__getitem__)
    with pytest.raises(IndexError) as caught:
        f(15)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("maxsize", [None, 128])
def test_an_exception_is_not_stored(maxsize):
    f = Twins("abc".__getitem__, maxsize)
    f(0), f(15), f(15), f(0)
    assert f.runs == ["((0,), {})", "((15,), {})", "((15,), {})"]


def test_arguments_that_do_not_fit_raise_the_error_of_the_function():
    def f(a, /, b, *, c=1):
        return a, b, c

    twins = Twins(f)
    for args, kwargs in [((), {}), ((1,), {}), ((1, 2, 3), {}), ((1,), {"b": 2, "d": 3}), ((), {"a": 1, "b": 2})]:
        assert twins(*args, **kwargs)[:2] == ("raised", TypeError)


def late_duplicate(decorator, maxsize):
    """Calls a key that is stored by a deeper call of the same key before it comes to be stored itself."""
    numbers = itertools.count(1)

    @decorator(maxsize)
    def f(x):
        number = next(numbers)
        if number == 1:
            assert f(x) == 2
        return number

    return [f(0), f(0)], tuple(f.cache_info())


@pytest.mark.parametrize("maxsize", [1, 2, 128])
def test_a_bounded_table_keeps_the_first_of_two_late_values(maxsize):
    assert late_duplicate(functools.lru_cache, maxsize) == ([1, 2], (1, 2, maxsize, 1))
    assert late_duplicate(lru_cache, maxsize) == ([1, 2], (1, 2, maxsize, 1))


def test_an_unbounded_table_keeps_the_last_of_two_late_values():
    assert late_duplicate(functools.lru_cache, None) == ([1, 1], (1, 2, None, 1))
    assert late_duplicate(lru_cache, None) == ([1, 1], (1, 2, None, 1))


def test_a_late_duplicate_in_a_full_table_evicts_nothing_more():
    results = []
    for decorator in (functools.lru_cache, lru_cache):
        pending = [True]

        @decorator(maxsize=3)
        def f(x):
            if x == 20 and pending:  # noqa: B023
                pending.clear()  # noqa: B023
                f(x)
            return x

        for x in (1, 2, 3, 20, 2, 3, 20, 1):
            assert f(x) == x
        results.append(tuple(f.cache_info()))
    assert results[0] == results[1]
    assert results[1][3] == 3


def test_recursion_on_other_keys_is_cached():
    results = []
    for decorator in (functools.lru_cache, lru_cache):

        @decorator(maxsize=None)
        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)

        results.append((fib(90), tuple(fib.cache_info())))
    assert results[0] == results[1] == (2880067194370816120, (88, 91, None, 91))


@pytest.mark.parametrize("maxsize", [1, 2, 5])
def test_recursion_through_a_small_table_agrees_with_functools(maxsize):
    results = []
    for decorator in (functools.lru_cache, lru_cache):

        @decorator(maxsize=maxsize)
        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)

        results.append((fib(15), tuple(fib.cache_info())))
    assert results[0] == results[1]


@pytest.mark.parametrize("maxsize", [None, 128])
def test_endless_recursion_ends_in_a_recursion_error(maxsize):
    @lru_cache(maxsize)
    def endless(n):
        return endless(n + 1)

    with pytest.raises(RecursionError):
        endless(0)
    assert endless.cache_info().currsize == 0


@plain_only
@pytest.mark.parametrize("maxsize", [None, 1, 128])
def test_the_function_may_clear_its_own_cache(maxsize):
    results = []
    for decorator in (functools.lru_cache, lru_cache):

        @decorator(maxsize)
        def f(x):
            f.cache_clear()
            return x

        results.append(([f(1), f(2), f(2)], tuple(f.cache_info())))
    assert results[0] == results[1]


@pytest.mark.parametrize("maxsize", [None, 2, 10])
def test_eq_may_call_the_cached_function(maxsize):
    class Reentrant:
        def __init__(self, number):
            self.number = number

        def __hash__(self):
            return 7

        def __eq__(self, other):
            if self.number == 2:
                f(Reentrant(1))
            return self.number == other.number

    @lru_cache(maxsize)
    def f(x):
        return x.number

    assert [f(Reentrant(number)) for number in (1, 2, 2, 3, 1)] == [1, 2, 2, 3, 1]


@pytest.mark.parametrize("maxsize", [None, 1, 10])
def test_eq_may_clear_the_cache(maxsize):
    class Clearing:
        def __hash__(self):
            return 7

        def __eq__(self, other):
            f.cache_clear()
            return True

    f = lru_cache(maxsize)(lambda x: 3)
    assert [f(Clearing()) for _ in range(5)] == [3] * 5


@pytest.mark.parametrize("maxsize", [1, 10])
def test_del_of_a_dropped_value_may_call_the_cached_function(maxsize):
    class Value:
        def __del__(self):
            f(-1)

    @lru_cache(maxsize)
    def f(x):
        return Value() if x >= 0 else None

    for x in range(20):
        f(x)
    f.cache_clear()
    assert f.cache_info().currsize <= maxsize


def test_len_may_be_cached_and_put_back_as_len(monkeypatch):
    results = []
    cached = lru_cache(4)(len)
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "len", cached)
        for size in (0, 0, 1, 2, 3, 3, 4, 5, 6, 1, 7, 2, 1):
            results.append(cached("abcdefghijklmn"[:size]))
    assert results == [0, 0, 1, 2, 3, 3, 4, 5, 6, 1, 7, 2, 1]


def test_threads_that_miss_one_key_together_all_run_the_function():
    together = threading.Barrier(4, timeout=30)

    @lru_cache
    def f(x):
        together.wait()
        return x

    threads = [threading.Thread(target=f, args=(3,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert f.cache_info() == (0, 4, 128, 1)


# Object protocol


def documented(a: int, /, b: str, c: bool = True) -> float:
    """What it does."""
    return 1.5


documented.note = "kept"


@pytest.mark.parametrize("attribute", [*functools.WRAPPER_ASSIGNMENTS, "note"])
def test_the_wrapper_carries_the_attributes_of_the_function(attribute):
    assert getattr(lru_cache(documented), attribute) == getattr(documented, attribute)


@plain_only
def test_wrapped_is_the_function_and_leaves_the_statistics_alone():
    f = lru_cache(documented)
    assert f.__wrapped__ is documented
    assert f.__wrapped__(1, "b") == 1.5
    assert f.cache_info() == (0, 0, 128, 0)


def test_attributes_can_be_set_and_deleted():
    f = lru_cache(len)
    f.note = 3
    assert f.note == f.__dict__["note"] == 3
    del f.note
    assert not hasattr(f, "note")


def test_signatures_are_those_of_functools():
    f = bare(lru_cache(documented))
    assert inspect.signature(f) == inspect.signature(documented)
    assert str(inspect.signature(f.cache_info)) == "()"
    assert str(inspect.signature(f.cache_clear)) == "()"


@pytest.mark.parametrize("question", [callable, inspect.isroutine, inspect.isbuiltin])
def test_inspect_sees_what_it_sees_in_functools(question):
    assert question(bare(lru_cache(documented))) is question(functools.lru_cache(documented))


@plain_only
@pytest.mark.parametrize("question", [inspect.ismethoddescriptor, inspect.isfunction])
def test_inspect_takes_it_for_no_function_as_in_functools(question):
    assert question(bare(lru_cache(documented))) is question(functools.lru_cache(documented))


def test_a_method_passes_its_instance_and_shares_one_table():
    class Number(int):
        @lru_cache(2)
        def times_ten(self, x):
            return x * 10 + self

    five, seven = Number(5), Number(7)
    assert [five.times_ten(1), Number(5).times_ten(1), seven.times_ten(1)] == [15, 15, 17]
    assert Number.times_ten.cache_info() == five.times_ten.cache_info() == (1, 2, 2, 2)


def test_the_class_gives_the_object_itself():
    cached = bare(lru_cache(documented))
    holder = type("Holder", (), {"method": cached})
    assert holder.method is cached


def test_under_staticmethod_and_classmethod():
    class X:
        @staticmethod
        @lru_cache
        def static(x):
            return x

        @classmethod
        @lru_cache
        def of_class(cls, x):
            return cls, x

    assert [X.static(1), X().static(1)] == [1, 1]
    assert [X.of_class(1), X().of_class(1)] == [(X, 1), (X, 1)]
    assert X.static.cache_info() == X.of_class.cache_info() == (1, 1, 128, 1)


@lru_cache
def at_module_level(x):
    return x


class Holder:
    @lru_cache
    def method(self, x):
        return x

    @staticmethod
    @lru_cache
    def static(x):
        return x


@plain_only
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("cached", [at_module_level, Holder.method, Holder.static])
def test_pickle_gives_the_same_object(cached, protocol):
    assert pickle.loads(pickle.dumps(cached, protocol)) is cached


@plain_only
@pytest.mark.parametrize("cached", [at_module_level, Holder.method, lru_cache(2)(functools.partial(documented, 2))])
def test_copies_are_the_object_itself(cached):
    assert copy.copy(cached) is cached
    assert copy.deepcopy(cached) is cached


def test_a_weak_reference_dies_with_the_object():
    f = bare(lru_cache(lambda x: x))
    reference = weakref.ref(f)
    assert reference() is f
    del f
    gc.collect()
    assert reference() is None


def test_a_cycle_through_a_cached_value_is_collected():
    class Token:
        pass

    def reference_to_a_cached_token():
        f = lru_cache(lambda token: token)
        token = f(Token())
        token.cache = f
        return weakref.ref(token)

    reference = reference_to_a_cached_token()
    gc.collect()
    assert reference() is None


def test_functools_may_wrap_the_cached_function():
    f = lru_cache(abs)
    g = functools.wraps(f)(lambda x: f(x))
    assert [g(-1), g(-1)] == [1, 1]
    assert g.__wrapped__ is f


# What comes on top


def test_ttl_expires_an_entry():
    with _ManualClock() as clock:
        f = lru_cache(ttl=10)(abs)
        f(1)
        clock.advance(9)
        f(1)
        clock.advance(2)
        f(1)
    assert f.cache_info() == (1, 2, 128, 1)


def test_ttl_goes_with_every_size():
    with _ManualClock() as clock:
        for maxsize in (1, 10, None):
            f = lru_cache(maxsize, ttl=0.5)(abs)
            f(1), f(1)
            clock.advance(0.6)
            f(1)
            assert f.cache_info() == (1, 2, maxsize, 1)


@once
@pytest.mark.parametrize("ttl", [0, -1, NAN, -math.inf])
def test_a_ttl_that_is_no_time_span_is_refused(ttl):
    with pytest.raises(ValueError, match="ttl"):
        lru_cache(ttl=ttl)


@pytest.mark.parametrize("backend", ["memory", "MEMORY", 0])
def test_the_memory_backend_may_be_named(backend):
    f = lru_cache(backend=backend)(abs)
    assert [f(-1), f(-1)] == [1, 1]
    assert f.cache_info() == (1, 1, 128, 1)


def test_one_entry_can_be_looked_for_and_dropped():
    f = lru_cache(abs)
    f(-1), f(-2)
    assert [f.cache_contains(-1), f.cache_invalidate(-1), f.cache_contains(-1), f.cache_invalidate(-1)] == [
        True,
        True,
        False,
        False,
    ]
    assert f.cache_info() == (0, 2, 128, 1)


# Any sequence of calls


class Triple(tuple):
    pass


class Number(int):
    pass


ARGUMENTS = st.sampled_from(
    [0, 1, 1.0, True, False, 0.0, -1, -2, 2**61 - 1, 2**64, float(2**64), "a", "b", "", b"", b"a", None, NAN, 1j]
    + [(), (1,), (1.0,), (True,), ("a", 1), (("a", 1),), Triple((1,)), Number(1), frozenset(), frozenset([1])]
    + [int, object, [], {}]
)
CALLS = st.tuples(
    st.lists(ARGUMENTS, max_size=3),
    st.lists(st.tuples(st.sampled_from("abc"), ARGUMENTS), max_size=3).map(dict),
)


@given(
    maxsize=st.sampled_from([None, -1, 0, 1, 2, 3, 5, 8]),
    typed=st.booleans(),
    calls=st.lists(st.none() | CALLS, max_size=60),
)
def test_any_sequence_of_calls_agrees_with_functools(function_kind, maxsize, typed, calls):
    assume(function_kind == "plain" or maxsize is None or maxsize > 0)
    f = Twins(echo, maxsize, typed)
    for call in calls:
        if call is None:
            f.clear()
        else:
            f(*call[0], **call[1])


@given(maxsize=st.integers(1, 20), numbers=st.lists(st.integers(0, 25), max_size=300))
def test_any_sequence_of_numbers_evicts_as_functools_does(maxsize, numbers):
    f = Twins(abs, maxsize)
    for number in numbers:
        f(number)


@given(maxsize=st.integers(1, 12), texts=st.lists(st.sampled_from("abcdefghijklmnopq"), max_size=200))
def test_any_sequence_of_strings_evicts_as_functools_does(maxsize, texts):
    f = Twins(str.upper, maxsize)
    for text in texts:
        f(text)
