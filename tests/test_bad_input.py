"""What no parameter should be: each is refused with its name and its value, or means what is documented."""

import datetime
import decimal
import fractions
import functools
import math
import subprocess
import sys

import pytest
from kinds import both_kinds, cache, lru_cache, once, plain_only

import warp_cache
from warp_cache import Backend, Strategy

pytestmark = both_kinds


class Boom(Exception):
    """Raised by the dunder methods below, and to be seen unchanged."""


class BadIndex:
    def __index__(self):
        raise Boom("index")

    def __repr__(self):
        return "BadIndex()"


class BadFloat:
    def __float__(self):
        raise Boom("float")

    def __repr__(self):
        return "BadFloat()"


class BadBool:
    def __bool__(self):
        raise Boom("bool")

    def __repr__(self):
        return "BadBool()"


class BadRepr:
    def __repr__(self):
        raise Boom("repr")


class LastWords(BaseException):
    """No Exception, as KeyboardInterrupt is none."""


class LastRepr:
    def __repr__(self):
        raise LastWords("repr")


class Two:
    def __index__(self):
        return 2

    def __repr__(self):
        return "Two()"


class Text(str):
    pass


class Number(int):
    pass


ODD = [
    -1, 0, 1, 2, 4, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64, 2**64 + 1, -(2**70), 2**2000, -(2**2000),
    0.0, -0.0, 1.0, 0.5, -1.5, math.nan, math.inf, -math.inf, 1e300, 1e-300, 5e-324, 3 + 4j,
    True, False, None, ...,
    "", "lru", "LRU", "nope", "shared ", "memory\0", "\ud800", "\0",
    "\u017ftrategy", "l" * 10_000, b"x", b"lru", bytearray(b"lru"),
    [], [1], (), (1,), {}, set(), object(), int, str, Strategy, Backend,
    Strategy.LFU, Backend.MEMORY, Text("lru"), Number(3),
    decimal.Decimal(5), decimal.Decimal("nan"), fractions.Fraction(1, 2),
    datetime.timedelta(0), datetime.timedelta(days=-1), datetime.timedelta.max, datetime.timedelta.min,
    datetime.timedelta(microseconds=1), datetime.datetime(2020, 1, 1),
    Two(), BadIndex(), BadFloat(), BadBool(), BadRepr(), LastRepr(),
]  # fmt: skip

PARAMETERS = ["strategy", "max_size", "ttl", "backend", "max_key_size", "max_value_size", "typed", "single_flight"]
PARAMETERS += ["name", "version"]
OF = {cache: PARAMETERS, lru_cache: [*PARAMETERS[1:], "maxsize"]}
CASES = [(decorator, parameter) for decorator in OF for parameter in OF[decorator]]


def label(value):
    try:
        # Without an address, which is another one in each process.
        return repr(value).partition(" at 0x")[0][:30]
    except (Boom, LastWords):
        return type(value).__name__


def outcome(decorator, parameter, value):
    """Decorates and calls; returns the cached function or the exception."""
    try:
        cached = decorator(**{parameter: value})(lambda key: [key])
        assert cached(1) == [1]
        assert cached(1) == [1]
        assert sum(cached.cache_info()[:2]) == 2
    except (TypeError, ValueError, NotImplementedError, Boom) as error:
        return error
    return cached


@pytest.mark.filterwarnings("ignore::warp_cache.SharedCacheWarning")
@pytest.mark.parametrize(
    ("decorator", "parameter"), CASES, ids=[f"{decorator.__name__}-{parameter}" for decorator, parameter in CASES]
)
def test_a_value_is_taken_or_refused_by_name(decorator, parameter):
    wrong = []
    for value in ODD:
        try:
            check_taken_or_refused(decorator, parameter, value)
        except Exception as error:
            wrong.append(f"{parameter}={label(value)!a}: {type(error).__name__}: {str(error)[:500]}")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(ODD)} values", *wrong])


def check_taken_or_refused(decorator, parameter, value):
    try:
        got = outcome(decorator, parameter, value)
    except LastWords:
        assert isinstance(value, LastRepr)
        return
    if not isinstance(got, Exception):
        return
    if isinstance(got, NotImplementedError):
        assert (parameter, value) == ("single_flight", True)
    elif isinstance(got, Boom):
        assert isinstance(value, (BadIndex, BadFloat, BadBool, BadRepr))
    elif callable(value) and parameter == "maxsize":
        assert isinstance(got, (TypeError, ValueError))  # functools takes it for the function
    else:
        assert type(got) in (TypeError, ValueError), repr(got)
        assert named(decorator, parameter) in str(got)
        assert any(form in str(got) for form in forms(value)), str(got)


def named(decorator, parameter):
    """How a message calls the parameter: the size of an lru_cache is called what functools calls it."""
    return "" if decorator is lru_cache and parameter in ("max_size", "maxsize") else parameter


def forms(value):
    """How a message may show a value: as it is, or as the number or the seconds that it means."""
    if isinstance(value, (BadRepr, LastRepr)):
        return [type(value).__name__]
    shown = [repr(value)]
    if isinstance(value, (int, float, decimal.Decimal)):
        shown += [format(value, "d") if isinstance(value, int) else str(value), "NaN"]
    if isinstance(value, datetime.timedelta):
        shown.append(repr(value.total_seconds()))
    if isinstance(value, int) and abs(value) > 2**63:
        shown.append("e")
    return [*shown, ""] if len(shown[0]) > 100 else shown


def refused(decorator, parameter, value):
    got = outcome(decorator, parameter, value)
    assert isinstance(got, Exception), f"{parameter}={value!r} was taken"
    return type(got), str(got)


def taken(decorator, parameter, value):
    got = outcome(decorator, parameter, value)
    assert not isinstance(got, Exception), got
    return got


@pytest.mark.parametrize("value", [-1, -(2**63), -(2**70), 2**64, 2**2000])
def test_cache_refuses_a_size_out_of_range(value):
    kind, message = refused(cache, "max_size", value)
    assert kind is ValueError
    assert message.startswith("max_size must be ")


@pytest.mark.parametrize("value", ["10", 1.0, math.nan, [], object(), b"x"])
def test_cache_refuses_a_size_that_is_no_int(value):
    kind, message = refused(cache, "max_size", value)
    assert kind is TypeError
    assert message.startswith("max_size must be ")


@pytest.mark.parametrize("value", [-1, -(2**63), -(2**70), -(2**2000)])
@pytest.mark.parametrize("parameter", ["max_size", "maxsize"])
def test_lru_cache_takes_a_negative_size_for_zero(parameter, value):
    cached = taken(lru_cache, parameter, value)
    assert cached.cache_info() == (0, 2, 0, 0)
    assert cached.cache_parameters() == {"maxsize": 0, "typed": False}


@pytest.mark.parametrize("value", ["10", 1.0, [], object(), {}])
def test_lru_cache_refuses_what_functools_refuses(value):
    with pytest.raises(TypeError, match="Expected first argument to be an integer, a callable, or None"):
        lru_cache(value)
    assert refused(lru_cache, "maxsize", value)[0] is TypeError


def test_lru_cache_takes_a_bool_for_a_size_as_functools_does():
    assert taken(lru_cache, "maxsize", True).cache_info() == (1, 1, 1, 1)
    assert taken(lru_cache, "maxsize", False).cache_info() == (0, 2, 0, 0)


@once
def test_lru_cache_takes_one_size_only():
    with pytest.raises(TypeError):
        lru_cache(maxsize=1, max_size=2)
    with pytest.raises(TypeError):
        lru_cache(1, maxsize=2)


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("value", [0, 0.0, -0.0, -1, -1e-300, -(2**70), -(2**2000), math.nan, -math.inf])
def test_a_time_to_live_must_be_positive(decorator, value):
    kind, message = refused(decorator, "ttl", value)
    assert kind is ValueError
    assert message.startswith("ttl must be ")


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("value", [datetime.timedelta(0), datetime.timedelta(-1), datetime.timedelta.min])
def test_a_timedelta_must_be_positive(decorator, value):
    assert refused(decorator, "ttl", value)[0] is ValueError


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("value", ["5", b"5", [], 3 + 4j, object(), datetime.datetime(2020, 1, 1)])
def test_a_time_to_live_must_be_a_time(decorator, value):
    kind, message = refused(decorator, "ttl", value)
    assert kind is TypeError
    assert message.startswith("ttl must be ")


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("value", [1e300, sys.float_info.max, 2**2000, datetime.timedelta.max, math.inf, None])
def test_a_time_to_live_has_no_longest(decorator, value):
    assert taken(decorator, "ttl", value).cache_info() == (1, 1, 128, 1)


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("value", [1e-300, 5e-324, 1e-9, datetime.timedelta(microseconds=1)])
def test_a_time_to_live_has_no_shortest(decorator, value):
    cached = decorator(ttl=value)(lambda key: key)
    assert [cached(1), cached(1)] == [1, 1]
    assert sum(cached.cache_info()[:2]) == 2


@pytest.mark.parametrize("value", ["lfu", "LFU", "Lfu", 3, Strategy.LFU, Text("lfu"), Number(3)])
def test_a_strategy_is_a_member_a_number_or_a_name(value):
    assert taken(cache, "strategy", value).cache_parameters()["strategy"] is Strategy.LFU


@pytest.mark.parametrize(
    "value", [-1, 4, 2**64, "nope", "", "lru ", "l\0ru", "\ud800", None, b"lru", 3.0, [], object(), int]
)
def test_any_other_strategy_is_answered_with_the_list_of_them(value):
    kind, message = refused(cache, "strategy", value)
    assert kind is ValueError
    assert message.startswith("strategy must be one of ")
    assert all(name in message for name in ("LRU", "MRU", "FIFO", "LFU"))


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("value", ["memory", "MEMORY", 0, Backend.MEMORY])
def test_a_backend_is_a_member_a_number_or_a_name(decorator, value):
    assert taken(decorator, "backend", value).cache_info() == (1, 1, 128, 1)


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("value", [-1, 2, "disk", "", None, b"memory", 0.0, []])
def test_any_other_backend_is_answered_with_the_list_of_them(decorator, value):
    kind, message = refused(decorator, "backend", value)
    assert kind is ValueError
    assert message.startswith("backend must be one of ")
    assert "MEMORY" in message
    assert "SHARED" in message


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("parameter", ["max_key_size", "max_value_size"])
@pytest.mark.parametrize("value", [-1, 2**32 - 1, 2**32, 2**64, -(2**70)])
def test_a_limit_out_of_range_is_refused(decorator, parameter, value):
    kind, message = refused(decorator, parameter, value)
    assert kind is ValueError
    assert message.startswith(f"{parameter} must be ")


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("parameter", ["max_size", "max_key_size", "max_value_size"])
def test_an_object_that_is_an_index_is_a_number_or_a_type_error(decorator, parameter):
    got = outcome(decorator, parameter, Two())
    assert not isinstance(got, Exception) or type(got) is TypeError


@once
@pytest.mark.parametrize("decorator", [cache, lru_cache])
def test_an_unknown_parameter_is_refused(decorator):
    with pytest.raises(TypeError, match="nonsense"):
        decorator(nonsense=1)


@once
def test_too_many_positional_parameters_are_refused():
    with pytest.raises(TypeError):
        cache(*[None] * 20)
    with pytest.raises(TypeError):
        lru_cache(*[None] * 20)


@once
@pytest.mark.parametrize("decorator", [cache(), lru_cache(), cache(max_size=0), lru_cache(maxsize=None)])
@pytest.mark.parametrize("value", [None, 1, "f", [], object()])
def test_what_is_not_callable_is_not_decorated(decorator, value):
    with pytest.raises(TypeError):
        decorator(value)


@once
@pytest.mark.parametrize("decorator", [cache, lru_cache])
def test_the_decorator_takes_one_function(decorator):
    with pytest.raises(TypeError):
        decorator(ttl=1)()
    with pytest.raises(TypeError):
        decorator(ttl=1)(len, len)
    with pytest.raises(TypeError):
        decorator(ttl=1)(function=len)


@once
@pytest.mark.parametrize("name", ["CachedFunction", "CacheInfo", "SharedCacheInfo"])
def test_types_made_by_hand_do_no_harm(name):
    made = getattr(warp_cache, name, None)
    if made is None:
        pytest.skip(f"no {name}")
    for arguments in [(), (1,), (1, 2, 3, 4), (1, 2, 3, 4, 5), (len,)]:
        try:
            repr(made(*arguments))
        except (TypeError, ValueError):
            pass


PEAK = """
import resource, sys, warp_cache
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kept = [warp_cache.{name}(max_size={size})(abs) for _ in range(100)]
kept[0](-1)
unit = 1 if sys.platform == "darwin" else 1024
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit)
"""


@once
@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
@pytest.mark.parametrize("name", ["cache", "lru_cache"])
@pytest.mark.parametrize("size", [10**9, 2**32, 2**62, 2**63 - 1])
def test_a_huge_size_costs_nothing_until_it_is_used(name, size):
    program = PEAK.format(name=name, size=size)
    grown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert int(grown.stdout) < 1_000_000


UNFIT = [
    pytest.param(lambda f: f(), id="missing"),
    pytest.param(lambda f: f(1, 2, 3), id="too many"),
    pytest.param(lambda f: f(1, c=2), id="unknown keyword"),
    pytest.param(lambda f: f(1, a=2), id="given twice"),
    pytest.param(lambda f: f(b=2), id="only the second"),
    pytest.param(lambda f: f(1, 2, b=2), id="second given twice"),
    pytest.param(lambda f: f(*range(1000)), id="a thousand"),
    pytest.param(lambda f: f(1, **{f"k{n}": n for n in range(1000)}), id="a thousand keywords"),
    pytest.param(lambda f: f(1, **{"": 0}), id="empty keyword"),
    pytest.param(lambda f: f(1, **{"\ud800": 0}), id="surrogate keyword"),
]


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("max_size", [0, 2, None])
@pytest.mark.parametrize("call", UNFIT)
def test_an_unfit_call_is_the_functions_own_error(function_kind, decorator, max_size, call):
    def run(a, b=2):
        return a, b

    cached = decorator(max_size=max_size)(run)
    cached(1)
    before = cached.cache_info()
    with pytest.raises(TypeError) as expected:
        call(run)
    with pytest.raises(TypeError) as got:
        call(cached)
    assert str(got.value) == str(expected.value)
    misses = before.misses + 1 if function_kind == "plain" else before.misses
    assert cached.cache_info() == (before.hits, misses, max_size, before.current_size)
    assert cached.cache_contains(1) is (max_size != 0)


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("call", UNFIT)
def test_unfit_arguments_are_not_in_the_cache(decorator, call):
    @decorator
    def run(a, b=2):
        return a, b

    run(1)
    for method in (run.cache_contains, run.cache_invalidate):
        try:
            assert call(method) is False
        except TypeError:
            pass
    assert run.cache_info() == (0, 1, 128, 1)


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("max_size", [2, None])
def test_an_unhashable_argument_is_a_type_error_and_changes_nothing(decorator, max_size):
    cached = decorator(max_size=max_size)(lambda a, b=2: a)
    cached(1)
    for call in [lambda: cached([]), lambda: cached(1, []), lambda: cached(a={}), lambda: cached((1, [2]))]:
        with pytest.raises(TypeError, match="unhashable"):
            call()
    assert cached.cache_info().current_size == 1
    assert cached(1) == 1
    assert cached.cache_info().hits == 1


@plain_only
@pytest.mark.parametrize("decorator", [cache, lru_cache])
def test_size_zero_asks_for_no_hash(decorator):
    cached = decorator(max_size=0)(len)
    assert cached([1, 2]) == 2
    assert cached.cache_info() == (0, 1, 0, 0)


@pytest.mark.parametrize("decorator", [cache, lru_cache])
@pytest.mark.parametrize("max_size", [2, None])
def test_any_text_and_number_is_a_key(decorator, max_size):
    cached = decorator(max_size=max_size)(lambda *args, **kwargs: (args, kwargs))
    for key in ["", "\0", "\ud800", "\U0010ffff" * 1000, b"\xff", 2**2000, -1, -2, 1e-300, math.nan, ("\ud800",), ()]:
        assert cached(key) == ((key,), {})
        assert cached(key) == ((key,), {})
        assert cached(**{"\ud800": key}) == ((), {"\ud800": key})


@pytest.mark.parametrize("method", ["cache_info", "cache_clear", "cache_parameters"])
@pytest.mark.parametrize("decorator", [cache, lru_cache])
def test_methods_without_parameters_take_none(decorator, method):
    with pytest.raises(TypeError):
        getattr(decorator(len), method)(1)
    with pytest.raises(TypeError):
        getattr(decorator(len), method)(x=1)


@plain_only
def test_what_is_to_come_says_so():
    with pytest.raises(NotImplementedError):
        cache(single_flight=True)(len)


FORMS = {
    "bare": lambda decorator: decorator,
    "empty": lambda decorator: decorator(),
    "arguments": lambda decorator: decorator(max_size=3, ttl=60),
    "shared": lambda decorator: decorator(backend="shared", name="refused", version=1),
}


@once
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("decorator", [cache, lru_cache], ids=lambda decorator: decorator.__name__)
@pytest.mark.parametrize("wrapper", [classmethod, property])
def test_a_wrapped_method_that_cannot_be_called_is_refused_with_advice(wrapper, decorator, form):
    with pytest.raises(TypeError, match="only a callable can be decorated.*below the other"):
        form(decorator)(wrapper(lambda cls: 1))


class OwnPartialMethod(functools.partialmethod):
    pass


@once
@pytest.mark.parametrize("kind", [functools.partialmethod, OwnPartialMethod])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("decorator", [cache, lru_cache], ids=lambda decorator: decorator.__name__)
def test_a_partial_method_is_refused_by_name_with_what_to_write(decorator, form, kind):
    name = decorator.__name__
    with pytest.raises(TypeError) as refused:
        form(decorator)(kind(abs))
    assert str(refused.value).partition(", got ")[0] == "only a callable can be decorated"
    advice = f"cache the function in it, as in functools.partialmethod({name}(function), ...)"
    assert str(refused.value).partition("; ")[2] == f"a functools.partialmethod is none: {advice}"


@pytest.mark.parametrize("decorator", [cache, lru_cache], ids=lambda decorator: decorator.__name__)
def test_what_a_refused_partial_method_advises_works(decorator):
    class Page:
        @decorator
        def render(self, user, greeting):
            return f"{greeting} {user}"

        greet = functools.partialmethod(render, greeting="Hello")
        call = functools.partialmethod(decorator(lambda self, user: user), "Ada")

    page = Page()
    assert [page.greet("Ada"), page.greet("Ada"), page.call(), page.call()] == ["Hello Ada", "Hello Ada", "Ada", "Ada"]
    assert Page.render.cache_info()[:2] == (1, 1)


@once
@pytest.mark.parametrize("value", [0, -1, 0.0, float("nan")])
def test_a_bad_ttl_is_shown_as_it_was_given(value):
    with pytest.raises(ValueError, match=f"got {value}$"):
        cache(ttl=value)
