"""cache: its forms, its keys, and the object it makes."""

import copy
import functools
import gc
import inspect
import itertools
import math
import pickle
import sys
import weakref
from datetime import timedelta
from enum import IntEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kinds import bare, both_kinds, cache, lru_cache, once, plain_only
from warp_cache.warp_cache import _ManualClock

import warp_cache
from warp_cache import Backend, CacheInfo, SharedCacheInfo, Strategy

pytestmark = both_kinds

both_decorators = pytest.mark.parametrize("decorator", [cache, lru_cache])
every_strategy = pytest.mark.parametrize("strategy", list(Strategy))


def echo(*args, **kwargs):
    return args, list(kwargs.items())


def add(a, b=2):
    return a + b


def counts(f):
    """The hits and misses of a cached function so far."""
    return tuple(f.cache_info()[:2])


# Forms and parameters


@pytest.mark.parametrize(
    "form",
    [
        lambda f: cache(f),
        lambda f: cache()(f),
        lambda f: cache(Strategy.LRU)(f),
        lambda f: cache(Strategy.LRU, 128)(f),
        lambda f: cache(Strategy.LRU, 128, None, "memory", 512, 4096)(f),
        lambda f: cache(max_size=128)(f),
        lambda f: cache(strategy=Strategy.LRU, max_size=128, ttl=None, backend="memory")(f),
        lambda f: cache(max_key_size=512, max_value_size=4096, typed=False)(f),
    ],
)
def test_every_form_gives_the_same_cache(form):
    f = form(add)
    assert f.cache_parameters() == cache(add).cache_parameters()
    assert [f(1), f(1)] == [3, 3]
    assert f.cache_info() == (1, 1, 128, 1)


def test_positional_parameters_come_in_the_documented_order():
    f = cache(Strategy.LFU, 1000, 60, Backend.MEMORY, 100, 200)(add)
    parameters = f.cache_parameters()
    assert parameters["strategy"] is Strategy.LFU
    assert parameters["max_size"] == 1000
    assert parameters["ttl"] == 60
    assert parameters["backend"] is Backend.MEMORY
    assert (parameters["max_key_size"], parameters["max_value_size"]) == (100, 200)


def test_cache_parameters_hold_every_parameter_in_force(function_kind):
    assert (
        cache(add).cache_parameters().items()
        >= {
            "strategy": Strategy.LRU,
            "max_size": 128,
            "ttl": None,
            "backend": Backend.MEMORY,
            "max_key_size": 512,
            "max_value_size": 4096,
            "typed": False,
            "single_flight": function_kind == "coroutine",
            "name": None,
            "version": None,
        }.items()
    )


def test_cache_parameters_are_a_new_dict_each_time():
    f = cache(add)
    f.cache_parameters().clear()
    assert f.cache_parameters()["max_size"] == 128


@pytest.mark.parametrize("max_size", [0, 1, 7, None, 2**31, 2**32, sys.maxsize])
def test_any_size_from_zero_up_is_accepted(max_size):
    f = cache(max_size=max_size)(add)
    assert [f(1), f(2)] == [3, 4]
    assert f.cache_info().max_size == f.cache_parameters()["max_size"] == max_size


@once
@pytest.mark.parametrize("max_size", [-1, -128, -(2**63), -(2**64), 2**64, 2**200])
def test_a_size_out_of_range_is_a_value_error(max_size):
    with pytest.raises(ValueError, match="max_size"):
        cache(max_size=max_size)


@once
@pytest.mark.parametrize("max_size", ["128", 1.0, math.inf, [], (1,), object()])
def test_a_size_that_is_no_int_is_a_type_error(max_size):
    with pytest.raises(TypeError, match="max_size"):
        cache(max_size=max_size)


@every_strategy
def test_size_zero_never_stores(strategy):
    f = cache(strategy, 0)(add)
    assert [f(1), f(1), f(1)] == [3, 3, 3]
    assert f.cache_info() == (0, 3, 0, 0)
    assert f.cache_contains(1) is False


@every_strategy
@pytest.mark.parametrize("max_size", [*range(1, 20), 100, 128, 200, 300])
def test_the_capacity_is_exact(strategy, max_size):
    f = cache(strategy, max_size)(abs)
    for number in range(max_size + 50):
        f(number)
        assert f.cache_info().current_size == min(number + 1, max_size)
    assert sum(f.cache_contains(number) for number in range(max_size + 50)) == max_size


@every_strategy
def test_an_unbounded_cache_keeps_everything(strategy):
    f = cache(strategy, None)(abs)
    for number in range(5000):
        f(number)
    assert f.cache_info() == (0, 5000, None, 5000)
    assert all(f.cache_contains(number) for number in range(5000))


@pytest.mark.parametrize("ttl", [10, 10.0, timedelta(seconds=10)])
def test_ttl_is_seconds_or_a_timedelta(ttl):
    with _ManualClock() as clock:
        f = cache(ttl=ttl)(add)
        f(1)
        clock.advance(9.5)
        assert f.cache_contains(1) is True
        clock.advance(1)
        assert f.cache_contains(1) is False


@pytest.mark.parametrize("ttl", [None, math.inf])
def test_no_ttl_keeps_an_entry_for_ever(ttl):
    with _ManualClock() as clock:
        f = cache(ttl=ttl)(add)
        f(1)
        clock.advance(1e9)
        f(1)
    assert counts(f) == (1, 1)
    assert f.cache_parameters()["ttl"] is None


@pytest.mark.parametrize("ttl", [1e-9, 1e9, 1e18, 1e300, 10**400, sys.float_info.max, timedelta.max, 5e-324])
def test_a_ttl_of_any_magnitude_makes_a_working_cache(ttl):
    f = cache(ttl=ttl)(add)
    assert [f(1), f(1)] == [3, 3]
    assert sum(f.cache_info()[:2]) == 2


@once
@pytest.mark.parametrize(
    "ttl", [0, 0.0, -0.0, -1, -0.5, -math.inf, math.nan, -(10**400), timedelta(0), timedelta(seconds=-1)]
)
@both_decorators
def test_a_ttl_that_is_no_time_span_is_a_value_error(decorator, ttl):
    with pytest.raises(ValueError, match="ttl"):
        decorator(ttl=ttl)


@once
@pytest.mark.parametrize("ttl", ["10", [], object(), 1j])
@both_decorators
def test_a_ttl_of_a_wrong_kind_is_a_type_error(decorator, ttl):
    with pytest.raises(TypeError, match="ttl"):
        decorator(ttl=ttl)


def test_ttl_counts_from_the_moment_the_value_was_stored():
    with _ManualClock() as clock:

        @cache(ttl=10)
        def slow(x):
            clock.advance(100)
            return x

        slow(1)
        clock.advance(9)
        assert slow.cache_contains(1) is True
        slow(1)
        clock.advance(2)
        assert slow.cache_contains(1) is False


def test_an_expired_entry_is_computed_again():
    with _ManualClock() as clock:
        numbers = itertools.count()
        f = cache(ttl=10)(lambda: next(numbers))
        values = [f(), f()]
        clock.advance(11)
        values += [f(), f()]
    assert values == [0, 0, 1, 1]
    assert f.cache_info() == (2, 2, 128, 1)


@pytest.mark.parametrize("max_size", [1, 128, None])
def test_refreshing_one_key_keeps_one_entry(max_size):
    with _ManualClock() as clock:
        f = cache(max_size=max_size, ttl=1)(add)
        for _ in range(1000):
            clock.advance(2)
            f(1)
        assert f.cache_info() == (0, 1000, max_size, 1)


@every_strategy
def test_a_strategy_may_be_given_as_member_number_or_name(strategy):
    spellings = [strategy, int(strategy), strategy.name, strategy.name.lower(), strategy.name.title()]
    for spelling in spellings:
        assert cache(spelling)(add).cache_parameters()["strategy"] is strategy


@pytest.mark.parametrize("backend", [Backend.MEMORY, 0, "memory", "MEMORY", "Memory"])
@both_decorators
def test_a_backend_may_be_given_as_member_number_or_name(decorator, backend):
    f = decorator(backend=backend)(add)
    assert [f(1), f(1)] == [3, 3]
    assert counts(f) == (1, 1)


@once
@pytest.mark.parametrize("strategy", ["arc", "", "LRU ", 4, -1, 2**70, 1.5, None, [], object()])
def test_an_unknown_strategy_is_a_value_error_that_lists_the_known(strategy):
    with pytest.raises(ValueError, match=r"(?is)lru.*mru.*fifo.*lfu"):
        cache(strategy)


@once
@pytest.mark.parametrize("backend", ["disk", "", 2, -1, 2**70, 1.5, None, [], object()])
@both_decorators
def test_an_unknown_backend_is_a_value_error_that_lists_the_known(decorator, backend):
    with pytest.raises(ValueError, match=r"(?is)memory.*shared"):
        decorator(backend=backend)


@once
def test_unknown_parameters_are_refused():
    with pytest.raises(TypeError):
        cache(size=3)


def test_the_byte_limits_have_no_effect_in_memory():
    f = cache(max_key_size=1, max_value_size=1)(str.upper)
    assert [f("a" * 10_000), f("a" * 10_000)] == ["A" * 10_000] * 2
    assert counts(f) == (1, 1)


@once
@pytest.mark.parametrize("thing", [3, "text", None, [], object()])
def test_what_cannot_be_called_cannot_be_decorated(thing):
    with pytest.raises(TypeError):
        cache()(thing)


def generator():
    yield 1


async def async_generator():
    yield 1


@once
@pytest.mark.parametrize("function", [generator, async_generator])
@pytest.mark.parametrize("form", [cache, cache(), cache(max_size=0), cache(Strategy.LFU, None)])
def test_a_generator_function_is_refused_with_advice(form, function):
    with pytest.raises(TypeError, match="generator"):
        form(function)


def test_one_decorator_gives_each_function_its_own_cache():
    decorator = cache(max_size=4)
    first, second = decorator(abs), decorator(str)
    assert [first(-1), second(-1)] == [1, "-1"]
    assert first.cache_info() == second.cache_info() == (0, 1, 4, 1)


# Arguments are matched to the signature


def test_every_spelling_of_a_call_is_one_entry():
    f = cache(add)
    assert [f(1), f(1, 2), f(1, b=2), f(a=1), f(a=1, b=2), f(b=2, a=1)] == [3] * 6
    assert f.cache_info() == (5, 1, 128, 1)


@pytest.mark.parametrize(
    "first",
    [((1,), {}), ((1, 2), {}), ((1,), {"b": 2}), ((), {"a": 1}), ((), {"a": 1, "b": 2}), ((), {"b": 2, "a": 1})],
)
def test_any_spelling_may_come_first(first):
    f = cache(add)
    f(*first[0], **first[1])
    assert [f(1), f(1, 2), f(b=2, a=1)] == [3, 3, 3]
    assert counts(f) == (3, 1)


def test_keyword_only_arguments_match_in_any_order():
    @cache
    def f(a, *, b=2, c=3):
        return a, b, c

    calls = [f(1), f(1, b=2), f(1, c=3), f(c=3, b=2, a=1), f(1, b=2, c=3), f(1, c=3, b=2)]
    assert calls == [(1, 2, 3)] * 6
    assert counts(f) == (5, 1)
    assert [f(1, c=2), f(1, b=3)] == [(1, 2, 2), (1, 3, 3)]
    assert counts(f) == (5, 3)


def test_required_keyword_only_arguments_match_in_any_order():
    @cache
    def f(*, a, b):
        return a, b

    assert [f(a=1, b=2), f(b=2, a=1), f(a=2, b=1)] == [(1, 2), (1, 2), (2, 1)]
    assert counts(f) == (1, 2)


def test_positional_only_arguments_take_their_defaults():
    @cache
    def f(a, b=2, /, c=3):
        return a, b, c

    assert [f(1), f(1, 2), f(1, 2, 3), f(1, c=3), f(1, 2, c=3)] == [(1, 2, 3)] * 5
    assert counts(f) == (4, 1)


def test_extra_positional_arguments_are_part_of_the_key():
    @cache
    def f(a, b=2, *rest, c=3):
        return a, b, rest, c

    assert [f(1), f(1, 2), f(a=1), f(1, c=3)] == [(1, 2, (), 3)] * 4
    assert [f(1, 2, 3), f(1, 2, 3, c=3), f(1, 2, (3,)), f(1, 2, 3, c=4)] == [
        (1, 2, (3,), 3),
        (1, 2, (3,), 3),
        (1, 2, ((3,),), 3),
        (1, 2, (3,), 4),
    ]
    assert counts(f) == (4, 4)


def test_the_last_extra_argument_is_not_taken_for_a_keyword_only_one():
    def run(a, *rest, c=3):
        return a, rest, c

    f = cache(max_size=None)(run)
    calls = [((1,), {}), ((1, 3), {}), ((1, 3, 3), {}), ((1,), {"c": (3,)}), ((1, 3), {"c": 1}), ((1, 3, 1), {})]
    for args, kwargs in calls * 2:
        assert f(*args, **kwargs) == run(*args, **kwargs)
    assert counts(f) == (6, 6)


def test_var_keywords_keep_what_the_caller_wrote():
    f = cache(echo)
    assert f(a=1, b=2) == ((), [("a", 1), ("b", 2)])
    assert f(b=2, a=1) == ((), [("b", 2), ("a", 1)])
    assert counts(f) == (0, 2)


def test_var_keywords_beside_named_arguments_keep_their_order():
    @cache
    def f(a, b=2, **rest):
        return a, b, list(rest.items())

    assert f(1, x=1, y=2) == (1, 2, [("x", 1), ("y", 2)])
    assert f(1, y=2, x=1) == (1, 2, [("y", 2), ("x", 1)])
    assert counts(f) == (0, 2)


def test_a_keyword_may_repeat_the_name_of_a_positional_only_argument():
    @cache
    def f(a, /, **rest):
        return a, rest

    assert [f(1), f(1, a=2), f(1, a=3), f(1, a=2)] == [(1, {}), (1, {"a": 2}), (1, {"a": 3}), (1, {"a": 2})]
    assert counts(f) == (1, 3)


@pytest.mark.parametrize("name", ["self", "cls", "key", "value", "args", "kwargs", "func", "function", "fn"])
def test_no_keyword_name_is_taken(name):
    f = cache(lambda **kwargs: kwargs)
    assert [f(**{name: 1}), f(**{name: 1}), f(**{name: 2})] == [{name: 1}, {name: 1}, {name: 2}]
    assert counts(f) == (1, 2)


def test_a_function_of_no_arguments_has_one_entry():
    f = cache(lambda: 3)
    assert [f(), f(), f(*[], **{})] == [3, 3, 3]
    assert f.cache_info() == (2, 1, 128, 1)


def test_a_builtin_keeps_what_it_was_called_with():
    f = cache(pow)
    assert [f(2, 5), f(base=2, exp=5), f(exp=5, base=2), f(2, 5)] == [32, 32, 32, 32]
    assert counts(f) == (1, 3)


def test_a_partial_gives_its_own_results():
    f = cache(functools.partial(add, 1))
    assert [f(), f(5), f(b=5), f(5), f(b=5)] == [3, 6, 6, 6, 6]
    assert counts(f) == (2, 3)


def test_a_callable_object_gives_its_own_results():
    class Adder:
        def __call__(self, a, b=2):
            return a + b

    f = cache(Adder())
    assert [f(1), f(1, 3), f(b=3, a=1), f(1)] == [3, 4, 4, 3]


def test_a_class_can_be_cached():
    f = cache(complex)
    assert [f(1, 2), f(1, 2), f("1j")] == [1 + 2j, 1 + 2j, 1j]
    assert f(1, 2) is f(1, 2)


def test_a_bound_method_gives_its_own_results():
    class Scale:
        factor = 10

        def times(self, a, b=2):
            return self.factor * a + b

    f = cache(Scale().times)
    assert [f(1), f(1, 2), f(1, 3), f(a=1, b=3), f(2)] == [12, 12, 13, 13, 22]


def test_a_callable_with_a_false_code_object_still_works():
    class Odd:
        __code__ = add.__code__
        __defaults__ = 3
        __kwdefaults__ = "text"

        def __call__(self, *args, **kwargs):
            return args, kwargs

    f = cache(Odd())
    assert [f(1), f(1, 2, 3), f(x=1)] == [((1,), {}), ((1, 2, 3), {}), ((), {"x": 1})]


def test_a_function_that_wraps_another_is_matched_to_its_own_signature():
    @functools.wraps(add)
    def wrapper(*args):
        return args

    f = cache(wrapper)
    assert [f(1), f(1, 2), f(1)] == [(1,), (1, 2), (1,)]
    assert counts(f) == (1, 2)


def test_a_long_signature_is_matched():
    names = [f"argument_{number}" for number in range(300)]
    namespace = {}
    exec(f"def f({', '.join(f'{name}={index}' for index, name in enumerate(names))}): return argument_299", namespace)
    f = cache(namespace["f"])
    assert [f(), f(*range(300)), f(**dict(zip(reversed(names), reversed(range(300)), strict=True)))] == [299, 299, 299]
    assert f(argument_299=7) == 7
    assert counts(f) == (2, 2)


def test_a_keyword_name_that_is_not_interned_is_matched():
    f = cache(add)
    assert [f(1, **{"".join(["b"]): 2}), f(**{"".join(["a"]): 1}), f(1)] == [3, 3, 3]
    assert counts(f) == (2, 1)


def test_non_ascii_names_are_matched():
    @cache
    def f(größe, 名=2):
        return größe + 名

    assert [f(1), f(größe=1), f(名=2, größe=1)] == [3, 3, 3]
    assert counts(f) == (2, 1)


# Calls that do not fit


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((), {"b": 2}),
        ((1, 2, 3), {}),
        ((1,), {"a": 1}),
        ((1, 2), {"b": 2}),
        ((1,), {"c": 3}),
        ((1, 2), {"c": 3}),
        ((), {"a": 1, "c": 3}),
    ],
)
def test_a_call_that_does_not_fit_raises_the_error_of_the_function(function_kind, args, kwargs):
    f = cache(add)
    f(1), f(1, 2)
    with pytest.raises(TypeError) as expected:
        add(*args, **kwargs)
    with pytest.raises(TypeError) as raised:
        f(*args, **kwargs)
    assert str(raised.value) == str(expected.value)
    assert f.cache_info() == (1, 2 if function_kind == "plain" else 1, 128, 1)


def test_positional_only_names_are_refused_as_keywords():
    @cache
    def f(a, b=2, /):
        return a + b

    f(1)
    for kwargs in ({"a": 1}, {"b": 2}):
        with pytest.raises(TypeError, match="positional-only"):
            f(1, **kwargs)


# Defaults


def test_an_unhashable_default_stands_for_itself():
    @cache
    def f(a, b=[]):  # noqa: B006
        return a, list(b)

    assert [f(1), f(1), f(a=1), f(2)] == [(1, []), (1, []), (1, []), (2, [])]
    assert f.cache_info() == (2, 2, 128, 2)


def test_an_unhashable_keyword_only_default_stands_for_itself():
    @cache
    def f(a=1, *, b={}, c=3):  # noqa: B006
        return a, b, c

    assert [f(), f(1), f(c=3), f(c=4)] == [(1, {}, 3), (1, {}, 3), (1, {}, 3), (1, {}, 4)]
    assert counts(f) == (2, 2)


def test_an_unhashable_argument_is_refused_where_the_default_is_one():
    @cache
    def f(a, b=[]):  # noqa: B006
        return a, b

    f(1)
    with pytest.raises(TypeError, match="unhashable"):
        f(1, [])
    with pytest.raises(TypeError, match="unhashable"):
        f(1, b=[])
    assert f.cache_info() == (0, 1, 128, 1)


@pytest.mark.parametrize("other", [None, (), 0, "", list, "b", object()])
def test_nothing_written_shares_the_entry_of_an_unhashable_default(other):
    @cache
    def f(a, b=[]):  # noqa: B006
        return a, b

    assert [f(1), f(1, other), f(1)] == [(1, []), (1, other), (1, [])]
    assert counts(f) == (1, 2)


def test_two_unhashable_defaults_stand_each_for_itself():
    @cache
    def f(a=[], b=[]):  # noqa: B006
        return a, b

    assert [f(), f(1), f(b=1), f(1), f(b=1)] == [([], []), (1, []), ([], 1), (1, []), ([], 1)]
    assert counts(f) == (2, 3)


def test_the_function_gets_its_own_default_object():
    default = []

    @cache
    def f(a, b=default):
        return b

    assert f(1) is default
    assert f(1) is default


def test_defaults_are_left_to_the_function():
    @cache
    def f(a, b=2, *, c=3):
        return a, b, c

    f.__wrapped__.__defaults__, f.__wrapped__.__kwdefaults__ = (20,), {"c": 30}
    assert f(1) == (1, 20, 30)


# What the function receives


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1,), {}), ((1, 2), {}), ((), {"a": 1}), ((1,), {"b": 2}), ((), {"b": 2, "a": 1})]
)
@both_decorators
def test_the_function_receives_exactly_what_the_caller_wrote(decorator, args, kwargs):
    class Recorder:
        def __call__(self, *args, **kwargs):
            return args, list(kwargs.items())

    assert decorator(Recorder())(*args, **kwargs) == (args, list(kwargs.items()))


@both_decorators
def test_the_function_receives_the_very_objects(decorator):
    f = decorator(lambda a, *, b: (a, b))
    first, second = object(), object()
    received = f(first, b=second)
    assert received[0] is first
    assert received[1] is second


@both_decorators
def test_the_very_object_that_was_returned_comes_back(decorator):
    value = object()
    f = decorator(lambda: value)
    assert f() is value
    assert f() is value


# Keys


def test_a_positional_and_a_keyword_call_never_collide():
    f = cache(echo)
    assert f(1, a=2) == ((1,), [("a", 2)])
    assert f((1,), (("a", 2),)) == (((1,), (("a", 2),)), [])
    assert counts(f) == (0, 2)


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("function", [echo, lambda *args: args])
def test_calls_that_look_alike_never_collide(function, typed):
    f = cache(max_size=None, typed=typed)(function)
    calls = [(), ((),), (None,), (1, 2), ((1, 2),), (((1, 2),),), (1, (2,)), ((1,), 2), ("a",), (("a",),), ("a", 1)]
    calls += [(("a", 1),), ((("a", 1),),), (1, int), (1, 2, int, int), (1, object), ("",), (b"",), (b"a",), (0,)]
    for args in calls * 2:
        f(*args)
    assert f.cache_info() == (len(calls), len(calls), None, len(calls))


@pytest.mark.parametrize("order", list(itertools.permutations([1, 1.0, True])))
def test_equal_numbers_are_one_key(order):
    f = cache(lambda x: x)
    first = f(order[0])
    assert [f(number) is first for number in order] == [True, True, True]
    assert f.cache_info() == (3, 1, 128, 1)


@pytest.mark.parametrize("order", list(itertools.permutations([0, 0.0, False, -0.0])))
def test_equal_zeros_are_one_key(order):
    f = cache(lambda x: x)
    for number in order:
        f(number)
    assert counts(f) == (3, 1)


@pytest.mark.parametrize("number", [2**30, 2**53, 2**62, 2**63, 2**64, 10**20, -1, -2, -(2**63)])
def test_an_int_of_any_size_and_its_equal_float_are_one_key(number):
    f = cache(lambda x: x)
    f(number), f(float(number))
    assert counts(f) == ((1, 1) if number == float(number) else (0, 2))


def test_subclasses_that_are_equal_are_one_key():
    class Text(str):
        pass

    class Colour(IntEnum):
        RED = 1

    f = cache(lambda x: x)
    f("a"), f(Text("a")), f(1), f(Colour.RED)
    assert counts(f) == (2, 2)


@pytest.mark.parametrize("pair", [(-1, -2), (0, 2**61 - 1), (1, 2**61), (-1, -(2**61) - 1), (1.5, "a"), (5, 2**61 + 4)])
def test_unequal_values_are_separate_even_where_hashes_agree(pair):
    f = cache(lambda x: x)
    assert [f(pair[0]), f(pair[1]), f(pair[0]), f(pair[1])] == [*pair, *pair]
    assert counts(f) == (2, 2)


def test_many_keys_of_one_hash_are_separate():
    class Collider:
        def __init__(self, number):
            self.number = number

        def __hash__(self):
            return 7

        def __eq__(self, other):
            return self.number == other.number

    f = cache(lambda x: x.number)
    for _ in range(2):
        assert [f(Collider(number)) for number in range(50)] == list(range(50))
    assert f.cache_info() == (50, 50, 128, 50)


def test_nan_is_found_by_identity():
    f = cache(lambda x: x)
    f(math.nan), f(math.nan), f(float("nan"))
    assert counts(f) == (1, 2)


def test_typed_separates_by_the_type_of_each_argument():
    f = cache(typed=True)(lambda a, b=2: (a, b))
    results = [repr(f(*args)) for args in [(1,), (1.0,), (True,), (1, 2), (1, 2.0), (1, 2)]]
    assert results == ["(1, 2)", "(1.0, 2)", "(True, 2)", "(1, 2)", "(1, 2.0)", "(1, 2)"]
    assert counts(f) == (2, 4)


def test_typed_separates_by_the_type_of_keyword_arguments():
    f = cache(typed=True)(lambda a, *, b=2: (a, b))
    results = [repr(f(1, b=2.0)), repr(f(b=2, a=1)), repr(f(1)), repr(f(a=1.0))]
    assert results == ["(1, 2.0)", "(1, 2)", "(1, 2)", "(1.0, 2)"]
    assert counts(f) == (1, 3)


def test_typed_separates_extra_arguments_and_var_keywords():
    f = cache(typed=True)(echo)
    f(1, 2), f(1, 2.0), f(x=1), f(x=True), f(1, 2), f(x=1)
    assert counts(f) == (2, 4)


def test_typed_looks_at_the_top_level_only():
    f = cache(typed=True)(repr)
    assert [f((1,)), f((1.0,)), f((True,))] == ["(1,)"] * 3


def test_typed_separates_subclasses():
    class Number(int):
        pass

    f = cache(typed=True)(lambda x: x)
    assert [type(f(1)), type(f(Number(1))), type(f(1))] == [int, Number, int]


@pytest.mark.parametrize("typed", [False, True])
def test_an_unhashable_argument_is_refused_and_nothing_counted(typed):
    f = cache(typed=typed)(echo)
    for args, kwargs in [(([],), {}), ((1, {}), {}), ((), {"a": []}), (((1, []),), {})]:
        with pytest.raises(TypeError, match="unhashable"):
            f(*args, **kwargs)
    assert f.cache_info() == (0, 0, 128, 0)


VALUES = st.sampled_from(
    [0, 1, 2, 3, -1, -2, 1.0, True, "a", "b", "c", "", b"", None, (), (1,), ((1,),), ("a", 1), (("a", 1),), ("a", "b")]
    + [int, float, str, tuple, object, 2**61 - 1, frozenset([1])]
)
CALLS = st.lists(
    st.tuples(
        st.lists(VALUES, max_size=4), st.lists(st.tuples(st.sampled_from("abcdx"), VALUES), max_size=4).map(dict)
    ),
    max_size=40,
)


@given(calls=CALLS, typed=st.booleans())
def test_no_two_different_calls_share_a_key(calls, typed):
    f = cache(max_size=None, typed=typed)(echo)
    for args, kwargs in calls:
        result = f(*args, **kwargs)
        assert result == echo(*args, **kwargs)
        if typed:
            assert [type(value) for value in result[0]] == [type(value) for value in args]


SIGNATURES = [
    lambda: locals(),
    lambda a: locals(),
    lambda a, b=2: locals(),
    lambda a=1, b=2, c=3: locals(),
    lambda a, b=2, /, c=3: locals(),
    lambda a, /, b, *, c=3, d: locals(),
    lambda *args: locals(),
    lambda a, *args, b=2: locals(),
    lambda a=1, b=(), *args, c=3, d=4: locals(),
    lambda *, a, b=2: locals(),
]


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: str(inspect.signature(function)))
@given(calls=CALLS)
def test_calls_share_an_entry_exactly_when_their_arguments_are_equal(function_kind, function, calls):
    f = cache(max_size=None)(function)
    seen, misses, hits = set(), 0, 0
    for args, kwargs in calls:
        try:
            bound = inspect.signature(function).bind(*args, **kwargs)
        except TypeError:
            misses += function_kind == "plain"
            with pytest.raises(TypeError):
                f(*args, **kwargs)
        else:
            bound.apply_defaults()
            key = tuple(bound.arguments.items())
            hits, misses = hits + (key in seen), misses + (key not in seen)
            seen.add(key)
            assert f(*args, **kwargs) == function(*args, **kwargs)
        assert f.cache_info() == (hits, misses, None, len(seen))


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: str(inspect.signature(function)))
@given(calls=CALLS)
def test_typed_calls_share_an_entry_exactly_when_their_types_agree_too(function, calls):
    f = cache(max_size=None, typed=True)(function)
    seen = set()
    for args, kwargs in calls:
        try:
            bound = inspect.signature(function).bind(*args, **kwargs)
        except TypeError:
            continue
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        flat = [*arguments.pop("args", ()), *arguments.values()]
        seen.add((tuple(bound.arguments.items()), tuple(map(type, flat))))
        f(*args, **kwargs)
        assert f.cache_info().current_size == len(seen)


# Looking for one entry, and dropping it


@both_decorators
def test_cache_contains_says_whether_a_call_would_hit(decorator):
    f = decorator(add)
    assert f.cache_contains(1) is False
    f(1)
    assert f.cache_contains(1) is True
    assert f.cache_contains(2) is False


@both_decorators
def test_cache_contains_counts_nothing_and_calls_nothing(decorator):
    runs = []
    f = decorator(runs.append)
    f(1)
    for number in (1, 2, 1):
        f.cache_contains(number)
    assert f.cache_info() == (0, 1, 128, 1)
    assert runs == [1]


def test_cache_contains_takes_any_spelling():
    f = cache(add)
    f(1)
    assert [f.cache_contains(1, 2), f.cache_contains(a=1), f.cache_contains(b=2, a=1)] == [True, True, True]


@pytest.mark.parametrize("strategy", [Strategy.LRU, Strategy.MRU, Strategy.LFU])
def test_cache_contains_does_not_touch(strategy):
    def survivors(look):
        f = cache(strategy, 3)(abs)
        f(1), f(2), f(3)
        if look:
            for _ in range(5):
                f.cache_contains(1)
        f(4)
        return [number for number in (1, 2, 3, 4) if f.cache_contains(number)]

    assert survivors(look=True) == survivors(look=False)


def test_cache_contains_refuses_an_unhashable_argument():
    with pytest.raises(TypeError, match="unhashable"):
        cache(add).cache_contains([])


@both_decorators
def test_cache_invalidate_drops_one_entry_and_says_so(decorator):
    f = decorator(abs)
    f(1), f(2)
    assert f.cache_invalidate(1) is True
    assert f.cache_invalidate(1) is False
    assert [f.cache_contains(1), f.cache_contains(2)] == [False, True]
    assert f.cache_info() == (0, 2, 128, 1)


def test_cache_invalidate_takes_any_spelling():
    f = cache(add)
    for args, kwargs in [((1, 2), {}), ((), {"a": 1}), ((), {"b": 2, "a": 1})]:
        f(1)
        assert f.cache_invalidate(*args, **kwargs) is True


def test_a_dropped_entry_is_computed_again():
    numbers = itertools.count()
    f = cache(lambda: next(numbers))
    assert [f(), f.cache_invalidate(), f(), f()] == [0, True, 1, 1]


def test_cache_invalidate_of_an_expired_entry_is_false():
    with _ManualClock() as clock:
        f = cache(ttl=10)(abs)
        f(1)
        clock.advance(11)
        assert f.cache_invalidate(1) is False


@every_strategy
@pytest.mark.parametrize("victim", range(4))
def test_the_order_of_the_others_survives_a_dropped_entry(strategy, victim):
    f = cache(strategy, 4)(abs)
    for number in range(4):
        f(number)
    assert f.cache_invalidate(victim) is True
    for number in range(10, 20):
        f(number)
    assert f.cache_info() == (0, 14, 4, 4)


def test_cache_clear_empties_and_zeroes():
    f = cache(abs)
    f(1), f(1), f(2)
    assert f.cache_clear() is None
    assert f.cache_info() == (0, 0, 128, 0)
    assert f.cache_contains(1) is False


@both_decorators
def test_on_methods_the_instance_comes_first(decorator):
    class X:
        @decorator
        def m(self, x):
            return x

    one, other = X(), X()
    one.m(1), other.m(1)
    assert [X.m.cache_contains(one, 1), one.m.cache_contains(other, 1)] == [True, True]
    assert one.m.cache_invalidate(other, 1) is True
    assert [X.m.cache_contains(one, 1), X.m.cache_contains(other, 1)] == [True, False]


# CacheInfo


INFO = CacheInfo(hits=78, misses=81, max_size=256, current_size=81)


@once
def test_cache_info_prints_its_fields():
    assert repr(INFO) == str(INFO) == "CacheInfo(hits=78, misses=81, max_size=256, current_size=81)"


def test_cache_info_of_an_unbounded_cache_prints_none():
    assert repr(cache(max_size=None)(abs).cache_info()) == "CacheInfo(hits=0, misses=0, max_size=None, current_size=0)"


def test_cache_info_is_of_its_own_type():
    assert type(cache(abs).cache_info()) is CacheInfo
    assert isinstance(INFO, tuple)


@once
def test_cache_info_unpacks_and_indexes():
    hits, misses, max_size, current_size = INFO
    assert (hits, misses, max_size, current_size) == (78, 81, 256, 81)
    assert (INFO[0], INFO[1], INFO[2], INFO[3], INFO[-1], INFO[1:3]) == (78, 81, 256, 81, 81, (81, 256))
    assert len(INFO) == 4


@once
def test_cache_info_answers_to_every_name():
    assert (INFO.hits, INFO.misses, INFO.max_size, INFO.current_size) == (78, 81, 256, 81)
    assert (INFO.maxsize, INFO.currsize) == (256, 81)


@once
def test_cache_info_behaves_as_a_named_tuple():
    assert CacheInfo._fields == ("hits", "misses", "max_size", "current_size")
    assert INFO._asdict() == {"hits": 78, "misses": 81, "max_size": 256, "current_size": 81}
    assert INFO._replace(hits=1) == CacheInfo._make((1, 81, 256, 81))


@once
def test_cache_info_equals_plain_tuples():
    assert INFO == (78, 81, 256, 81)
    assert INFO != (78, 81, 256, 80)
    assert hash(INFO) == hash((78, 81, 256, 81))
    assert functools._CacheInfo(78, 81, 256, 81) == INFO


@once
def test_cache_info_matches_a_pattern_by_position():
    assert CacheInfo.__match_args__ == ("hits", "misses", "max_size", "current_size")


@once
def test_cache_info_cannot_be_changed():
    with pytest.raises((AttributeError, TypeError)):
        INFO.hits = 3


@once
def test_cache_info_survives_pickle_and_copy():
    for twin in (pickle.loads(pickle.dumps(INFO)), copy.copy(INFO), copy.deepcopy(INFO)):
        assert twin == INFO
        assert type(twin) is CacheInfo


@once
def test_shared_cache_info_behaves_as_a_named_tuple():
    info = SharedCacheInfo(1, 2, 3, 4, 5)
    assert SharedCacheInfo._fields == ("hits", "misses", "max_size", "current_size", "oversize_skips")
    assert info == (1, 2, 3, 4, 5)
    assert (info.maxsize, info.currsize, info.oversize_skips) == (3, 4, 5)
    assert repr(info) == "SharedCacheInfo(hits=1, misses=2, max_size=3, current_size=4, oversize_skips=5)"


# Strategy and Backend


@once
def test_strategies_are_numbered():
    assert issubclass(Strategy, IntEnum)
    assert {member.name: int(member) for member in Strategy} == {"LRU": 0, "MRU": 1, "FIFO": 2, "LFU": 3}


@once
def test_backends_are_numbered():
    assert issubclass(Backend, IntEnum)
    assert {member.name: int(member) for member in Backend} == {"MEMORY": 0, "SHARED": 1}


@once
@pytest.mark.parametrize("member", [*Strategy, *Backend])
def test_members_survive_pickle(member):
    assert pickle.loads(pickle.dumps(member)) is member


@once
@pytest.mark.parametrize("name", ["cache", "lru_cache", "Strategy", "Backend", "CacheInfo", "SharedCacheInfo"])
def test_everything_public_is_listed(name):
    assert name in warp_cache.__all__


@once
@pytest.mark.parametrize("kind", [Strategy, Backend, CacheInfo, SharedCacheInfo])
def test_public_types_belong_to_the_package(kind):
    assert kind.__module__ == "warp_cache"


# Metadata


def documented(a: int, /, b: str, *, c: bool = True) -> float:
    """What it does."""
    return 1.5


documented.note = "kept"


@pytest.mark.parametrize("attribute", [*functools.WRAPPER_ASSIGNMENTS, "__annotations__", "note"])
@both_decorators
def test_attributes_of_the_function_are_carried_over(decorator, attribute):
    assert getattr(decorator(documented), attribute) == getattr(documented, attribute)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters came with Python 3.12")
@both_decorators
def test_type_parameters_are_carried_over(decorator):
    namespace = {}
    exec("def first[T](a: T) -> T: return a", namespace)
    assert decorator(namespace["first"]).__type_params__ == namespace["first"].__type_params__ != ()


@plain_only
@both_decorators
def test_wrapped_is_the_function(decorator):
    assert decorator(documented).__wrapped__ is documented
    assert inspect.unwrap(decorator(documented)) is documented


@both_decorators
def test_the_signature_is_that_of_the_function(decorator):
    f = bare(decorator(documented))
    assert inspect.signature(f) == inspect.signature(documented)
    assert inspect.getdoc(f) == "What it does."


@plain_only
@both_decorators
@pytest.mark.parametrize("function", [functools.partial(add, 1), len, int, type("C", (), {"__call__": echo})()])
def test_what_lacks_attributes_can_be_decorated(decorator, function):
    assert decorator(function).__wrapped__ is function


@both_decorators
def test_attributes_can_be_set_and_deleted(decorator):
    f = decorator(abs)
    f.note = 3
    assert f.note == vars(f)["note"] == 3
    del f.note
    assert not hasattr(f, "note")


@both_decorators
def test_name_and_doc_can_be_set(decorator):
    f = decorator(lambda: 3)
    f.__name__, f.__doc__ = "three", "Gives three."
    assert (f.__name__, f.__doc__) == ("three", "Gives three.")


@both_decorators
def test_attributes_set_on_the_cache_do_not_reach_the_function(decorator):
    def function():
        pass

    decorator(function).note = 3
    assert not hasattr(function, "note")


@both_decorators
def test_repr_names_the_function(decorator):
    class X:
        @decorator
        def method(self):
            pass

    assert "documented" in repr(bare(decorator(documented)))
    assert X.method.__qualname__ in repr(bare(X.method))


@both_decorators
def test_repr_of_what_has_no_name_works(decorator):
    f = decorator(functools.partial(add, 1))
    assert "cached" in repr(bare(f)).lower()


@both_decorators
def test_a_weak_reference_dies_with_the_object(decorator):
    f = bare(decorator(lambda x: x))
    reference = weakref.ref(f)
    assert reference() is f
    del f
    gc.collect()
    assert reference() is None


@both_decorators
def test_copies_are_the_object_itself(decorator):
    f = bare(decorator(lambda x: x))
    assert copy.copy(f) is f
    assert copy.deepcopy(f) is f
    assert copy.deepcopy([f])[0] is f


@cache
def at_module_level(x):
    return x


class Holder:
    @cache
    def method(self, x):
        return x

    @staticmethod
    @cache
    def static(x):
        return x


@plain_only
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("cached", [at_module_level, Holder.method, Holder.static])
def test_pickle_gives_the_same_object(cached, protocol):
    assert pickle.loads(pickle.dumps(cached, protocol)) is cached


@both_decorators
def test_pickle_refuses_a_local_function(decorator):
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(bare(decorator(lambda x: x)))


@both_decorators
def test_a_cached_function_is_a_key_itself(decorator):
    first, second = bare(decorator(abs)), bare(decorator(abs))
    assert first == first  # noqa: PLR0124
    assert first != second
    assert {first: 1, second: 2}[first] == 1


def test_the_types_behind_the_decorator_cannot_be_made_by_hand():
    for kind in (type(bare(cache(abs))), type(warp_cache.cache())):
        with pytest.raises(TypeError):
            kind()
        with pytest.raises(TypeError):
            kind.__new__(kind)


# Methods


@both_decorators
def test_a_method_passes_its_instance_which_is_part_of_the_key(decorator):
    class X:
        @decorator
        def m(self, x):
            return self, x

    one, other = X(), X()
    assert [one.m(1), other.m(1), one.m(1)] == [(one, 1), (other, 1), (one, 1)]
    assert X.m.cache_info() == one.m.cache_info() == (1, 2, 128, 2)


def test_a_method_is_matched_to_its_signature():
    class X:
        @cache
        def m(self, a, b=2):
            return a + b

    x = X()
    assert [x.m(1), x.m(1, 2), x.m(b=2, a=1), X.m(x, 1), X.m(self=x, a=1)] == [3] * 5
    assert counts(X.m) == (4, 1)


@both_decorators
def test_a_call_through_the_class_shares_the_entry_of_the_instance(decorator):
    class X:
        @decorator
        def m(self, x):
            return x

    x = X()
    x.m(1), X.m(x, 1), x.m.__call__(1), X.m.__get__(x)(1), X.m.__get__(x, X)(1)
    assert counts(X.m) == (4, 1)


@both_decorators
def test_the_class_gives_the_object_itself(decorator):
    cached = bare(decorator(documented))
    holder = type("Holder", (), {"method": cached})
    assert holder.method is cached
    assert holder.__dict__["method"].__get__(None, holder) is cached


@both_decorators
def test_a_bound_method_knows_its_instance_and_function(decorator):
    class X:
        @decorator
        def m(self):
            return self

    x = X()
    bound = x.m
    assert bound.__self__ is x
    assert bound.__func__ is bare(X.m)
    assert bare(bound) == bare(x.m)
    assert bound() is x


@both_decorators
def test_the_interpreter_may_call_a_method_without_binding_it(decorator):
    method_descriptor = 1 << 17
    cached = bare(decorator(documented))
    assert type(cached).__flags__ & method_descriptor
    # What passes for a function is not called a method descriptor, as a function is not, which is one.
    assert inspect.ismethoddescriptor(cached) != inspect.isfunction(cached)


@both_decorators
def test_equal_instances_share_entries(decorator):
    class Number(int):
        @decorator
        def m(self, x):
            return self + x

    assert [Number(1).m(2), Number(1).m(2), Number(2).m(2)] == [3, 3, 4]
    assert counts(Number.m) == (1, 2)


@both_decorators
def test_an_unhashable_instance_is_refused(decorator):
    class X(list):
        @decorator
        def m(self):
            pass

    with pytest.raises(TypeError, match="unhashable"):
        X().m()


@both_decorators
def test_staticmethod_above_it_works(decorator):
    class X:
        @staticmethod
        @decorator
        def m(x):
            return x

    assert [X.m(1), X().m(1)] == [1, 1]
    assert counts(X.m) == (1, 1)


@both_decorators
def test_classmethod_above_it_works(decorator):
    class X:
        @classmethod
        @decorator
        def m(cls, x):
            return cls, x

    class Y(X):
        pass

    assert [X.m(1), X().m(1), Y.m(1), Y.m(1)] == [(X, 1), (X, 1), (Y, 1), (Y, 1)]
    assert counts(X.m) == (2, 2)


@both_decorators
def test_property_above_it_works(decorator):
    class X:
        @property
        @decorator
        def p(self):
            return [self]

    x = X()
    assert x.p is x.p


@both_decorators
def test_a_subclass_may_call_the_method_of_its_parent(decorator):
    class X:
        @decorator
        def m(self, x):
            return x

    class Y(X):
        @decorator
        def m(self, x):
            return -super().m(x)

    y = Y()
    assert [y.m(1), y.m(1)] == [-1, -1]
    assert counts(X.m) == (0, 1)
    assert counts(Y.m) == (1, 1)


# Stacked decorators


every_inner = pytest.mark.parametrize("inner", [cache, lru_cache, functools.lru_cache])
every_outer = pytest.mark.parametrize("outer", [cache, lru_cache, functools.lru_cache])


@every_inner
@every_outer
def test_the_outer_of_two_caches_answers_for_itself(outer, inner):
    below = inner(abs)
    above = outer(below)
    assert [above(-1), above(-1)] == [1, 1]
    assert tuple(above.cache_info()) == (1, 1, 128, 1)
    assert tuple(below.cache_info()) == (0, 1, 128, 1)
    above.cache_clear()
    assert tuple(above.cache_info()) == (0, 0, 128, 0)
    assert tuple(below.cache_info()) == (0, 1, 128, 1)


@plain_only
@every_inner
@every_outer
def test_the_outer_of_two_caches_wraps_the_inner(outer, inner):
    below = inner(abs)
    assert outer(below).__wrapped__ is below


@pytest.mark.parametrize("inner", [cache(max_size=5), lru_cache(5), functools.lru_cache(5)])
def test_the_outer_of_two_caches_reports_its_own_parameters(inner):
    assert cache(max_size=9)(inner(abs)).cache_parameters()["max_size"] == 9
    assert lru_cache(9)(inner(abs)).cache_parameters() == {"maxsize": 9, "typed": False}


@both_decorators
def test_no_attribute_of_the_function_hides_one_of_the_cache(decorator):
    def function(x):
        return x

    names = ["cache_info", "cache_clear", "cache_parameters", "cache_invalidate", "cache_contains", "__wrapped__"]
    for name in names:
        setattr(function, name, "hidden")
    f = decorator(function)
    f(1)
    assert f.cache_info() == (0, 1, 128, 1)
    assert inspect.isfunction(f.__wrapped__)
    assert "hidden" not in [getattr(f, name) for name in names]


@both_decorators
def test_a_wrapper_above_it_reaches_it_by_wrapped(decorator):
    f = decorator(abs)
    wrapper = functools.wraps(f)(lambda x: f(x))
    assert [wrapper(-1), wrapper(-1)] == [1, 1]
    assert wrapper.__wrapped__.cache_info() == (1, 1, 128, 1)


# Exceptions and values


class Failure(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError("v"), KeyError(1), StopIteration(3), KeyboardInterrupt(), Failure()])
@both_decorators
def test_an_exception_passes_through_as_the_same_object(function_kind, decorator, error):
    if function_kind == "coroutine" and isinstance(error, StopIteration):
        pytest.skip("no coroutine lets a StopIteration out")

    @decorator
    def f():
        raise error

    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            f()
        assert caught.value is error
        assert caught.value.__context__ is None
    assert f.cache_info() == (0, 2, 128, 0)


@every_strategy
def test_after_an_exception_the_next_call_runs_again(strategy):
    outcomes = iter([ValueError, ValueError, None])

    @cache(strategy)
    def f():
        error = next(outcomes)
        if error:
            raise error
        return 3

    for _ in range(2):
        with pytest.raises(ValueError, match=r"^$"):
            f()
    assert [f(), f()] == [3, 3]
    assert f.cache_info() == (1, 3, 128, 1)


@both_decorators
def test_an_exception_evicts_nothing(decorator):
    f = decorator(max_size=2)("abc".__getitem__)
    f(0), f(1)
    with pytest.raises(IndexError):
        f(9)
    assert [f.cache_contains(0), f.cache_contains(1)] == [True, True]


@pytest.mark.parametrize("value", [None, False, 0, "", (), NotImplemented, ..., ValueError("returned")])
@both_decorators
def test_any_value_is_cached(decorator, value):
    runs = []

    @decorator
    def f():
        runs.append(1)
        return value

    assert f() is value
    assert f() is value
    assert runs == [1]


class Moody:
    """Hashes and compares like all of its kind, or raises, as the class is told."""

    hash_error = None
    eq_error = None

    def __hash__(self):
        if Moody.hash_error:
            raise Moody.hash_error
        return 7

    def __eq__(self, other):
        if Moody.eq_error:
            raise Moody.eq_error
        return self is other


@every_strategy
@pytest.mark.parametrize("kind", ["hash_error", "eq_error"])
@pytest.mark.parametrize("wrap", [lambda key: key, lambda key: (key,)], ids=["alone", "in a tuple"])
def test_a_raising_key_reaches_the_caller_and_leaves_the_cache_as_it_was(strategy, kind, wrap, monkeypatch):
    runs = []
    f = cache(strategy, 2)(runs.append)
    first, error = wrap(Moody()), LookupError("not today")
    f(first)
    monkeypatch.setattr(Moody, kind, error)
    for attempt in (f, f.cache_contains, f.cache_invalidate):
        with pytest.raises(LookupError) as caught:
            attempt(wrap(Moody()))
        assert caught.value is error
    monkeypatch.undo()
    assert f.cache_info() == (0, 1, 2, 1)
    f(first)
    assert f.cache_info() == (1, 1, 2, 1)
    assert len(runs) == 1


def test_a_raising_keyword_reaches_the_caller(monkeypatch):
    f = cache(add)
    monkeypatch.setattr(Moody, "hash_error", LookupError("not today"))
    with pytest.raises(LookupError, match="not today"):
        f(b=Moody(), a=1)
    assert f.cache_info() == (0, 0, 128, 0)


def test_a_result_of_eq_that_has_no_truth_value_reaches_the_caller():
    class Undecided:
        def __bool__(self):
            raise LookupError("neither")

    class Key:
        def __hash__(self):
            return 7

        def __eq__(self, other):
            return Undecided()

    f = cache(id)
    f(Key())
    with pytest.raises(LookupError, match="neither"):
        f(Key())
    assert f.cache_info() == (0, 1, 128, 1)


@every_strategy
@pytest.mark.parametrize("act", ["call", "clear", "invalidate", "contains", "info"])
def test_eq_may_use_the_same_cache(strategy, act):
    class Key:
        busy = False

        def __init__(self, number):
            self.number = number

        def __hash__(self):
            return 7

        def __eq__(self, other):
            if not Key.busy:
                Key.busy = True
                actions[act]()
                Key.busy = False
            return self.number == other.number

    f = cache(strategy, 3)(lambda key: key.number)
    actions = {
        "call": lambda: [f(Key(number)) for number in range(10)],
        "clear": f.cache_clear,
        "invalidate": lambda: f.cache_invalidate(Key(1)),
        "contains": lambda: f.cache_contains(Key(1)),
        "info": f.cache_info,
    }
    for number in (0, 1, 2, 1, 3, 0, 4, 1, 2):
        assert f(Key(number)) == number
        assert f.cache_info().current_size <= 3


@every_strategy
@pytest.mark.parametrize("max_size", [1, 3, None])
def test_recursion_on_the_same_key_leaves_one_entry(strategy, max_size):
    depth = itertools.count()

    @cache(strategy, max_size)
    def f(x):
        return f(x) if next(depth) < 5 else x

    assert f(3) == 3
    assert f.cache_info() == (0, 6, max_size, 1)
    assert f(3) == 3
    assert f.cache_info().hits == 1


@every_strategy
def test_the_function_may_clear_its_own_cache(strategy):
    @cache(strategy, 2)
    def f(x):
        f.cache_clear()
        return x

    assert [f(1), f(2), f(2)] == [1, 2, 2]
    assert f.cache_info().current_size <= 2


def test_an_exception_from_del_of_a_dropped_value_does_not_reach_the_caller(monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: unraisable.append(event.exc_type))

    class Value:
        def __del__(self):
            raise LookupError

    f = cache(max_size=1)(lambda x: Value())
    f(1), f(2)
    f.cache_clear()
    gc.collect()
    assert unraisable == [LookupError, LookupError]


def test_endless_recursion_ends_in_a_recursion_error():
    @cache
    def endless(n):
        return endless(n + 1)

    with pytest.raises(RecursionError):
        endless(0)
    assert endless.cache_info().current_size == 0


# Garbage


class Token:
    """Something that can be referred to weakly and told anything."""


def dies(build):
    """Whether the token that `build` returns is collected once nothing outside refers to it."""
    reference = weakref.ref(build())
    gc.collect()
    return reference() is None


@both_decorators
def test_a_cycle_through_the_function_is_collected(decorator):
    def build():
        token = Token()

        @decorator
        def f(x):
            return token, f

        f(1)
        return token

    assert dies(build)


@both_decorators
def test_a_cycle_through_a_value_is_collected(decorator):
    def build():
        token = Token()
        token.cache = decorator(lambda x: token)
        token.cache(1)
        return token

    assert dies(build)


@every_strategy
@pytest.mark.parametrize("max_size", [1, 128, None])
def test_a_cycle_through_a_key_is_collected(strategy, max_size):
    def build():
        token = Token()
        token.cache = cache(strategy, max_size)(lambda *args, **kwargs: 3)
        token.cache(token)
        token.cache(1, token)
        token.cache(name=token)
        return token

    assert dies(build)


@pytest.mark.parametrize("wrap", [lambda token: token, lambda token: [token]], ids=["hashable", "unhashable"])
def test_a_cycle_through_a_default_is_collected(wrap):
    def build():
        token = Token()
        default = wrap(token)

        @cache
        def f(x, y=default, *, z=default):
            return x

        token.cache = f
        f(1)
        return token

    assert dies(build)


@both_decorators
def test_a_cycle_through_an_attribute_is_collected(decorator):
    def build():
        f = decorator(abs)
        f.token = Token()
        f.token.cache = f
        return f.token

    assert dies(build)


@both_decorators
def test_a_cycle_through_an_instance_and_its_class_is_collected(decorator):
    def build():
        class X:
            @decorator
            def m(self):
                return self

        x = X()
        x.m()
        return x

    assert dies(build)


@every_strategy
def test_an_evicted_key_and_value_are_let_go(strategy):
    f = cache(strategy, 1)(lambda key: Token())
    key = Token()
    references = [weakref.ref(key), weakref.ref(f(key))]
    del key
    f(Token())
    gc.collect()
    assert [reference() for reference in references] == [None, None]


@pytest.mark.parametrize("drop", ["cache_clear", "cache_invalidate"])
def test_a_dropped_value_is_let_go(drop):
    f = cache(lambda: Token())
    reference = weakref.ref(f())
    getattr(f, drop)()
    gc.collect()
    assert reference() is None


def test_a_hit_keeps_no_reference_to_its_arguments():
    f = cache(lambda x, y=2: 3)
    f(1.5)
    argument = Token()
    reference = weakref.ref(argument)
    Token.__hash__, Token.__eq__ = (lambda self: hash(1.5)), (lambda self, other: other == 1.5)
    try:
        assert f(argument) == 3
        assert f(y=2, x=argument) == 3
    finally:
        del Token.__hash__, Token.__eq__
    assert counts(f) == (2, 1)
    del argument
    gc.collect()
    assert reference() is None


@both_decorators
def test_a_failing_call_keeps_no_reference_to_its_arguments(decorator):
    f = decorator(lambda x, y=2: 3)
    argument = Token()
    reference = weakref.ref(argument)
    for args, kwargs in [((argument, []), {}), ((argument,), {"y": []}), ((argument, 1, 2), {}), ((), {"z": argument})]:
        with pytest.raises(TypeError):
            f(*args, **kwargs)
    del argument, args, kwargs
    gc.collect()
    assert reference() is None
