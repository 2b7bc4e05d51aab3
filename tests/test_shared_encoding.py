"""Keys and values as bytes in shared memory: values come back as they were, and equal keys have equal bytes."""

import collections
import contextlib
import copyreg
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import gc
import math
import os
import pathlib
import pickle
import re
import struct
import subprocess
import sys
import textwrap
import threading
import tracemalloc
import uuid
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

if sys.platform == "win32":
    pytest.skip("nothing is shared there", allow_module_level=True)

from warp_cache.warp_cache import _codec, cache  # noqa: E402


def label(value):
    """The same in every process."""
    return re.sub(" at 0x[0-9a-f]+", "", ascii(value))


class Number(enum.IntEnum):
    ONE = 1
    MANY = 2**70


class Color(enum.Enum):
    RED = 1
    GREEN = 1.5


class Word(str, enum.Enum):
    HELLO = "hello"


class Pair(NamedTuple):
    x: Any
    y: Any


class Int(int):
    pass


class Float(float):
    pass


class Str(str):
    pass


class Bytes(bytes):
    pass


class Tuple(tuple):
    pass


class Frozen(frozenset):
    pass


class CaselessStr(str):
    def __eq__(self, other):
        return isinstance(other, str) and self.lower() == other.lower()

    def __hash__(self):
        return hash(self.lower())


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any
    y: Any


class Point3(Point):
    pass


@dataclasses.dataclass(frozen=True)
class Cached:
    x: Any
    note: Any = dataclasses.field(default=None, compare=False)

    @functools.cached_property
    def double(self):
        return 2 * self.x


@dataclasses.dataclass(eq=False)
class Node:
    x: Any


@dataclasses.dataclass(frozen=True)
class OwnEquality:
    x: Any

    def __eq__(self, other):
        return type(self.x) is type(other.x) and self.x == other.x


class Slots:
    __slots__ = ("a", "b")

    def __init__(self, a, b):
        self.a = a
        self.b = b


class Service:
    def __init__(self, **state):
        self.__dict__.update(state)

    def method(self):
        pass


class ReducesTo:
    """Is reduced to what a function returns."""

    def __init__(self, make):
        self.make = make

    def __reduce_ex__(self, protocol):
        return self.make()


def function():
    pass


class Stop(BaseException):
    pass


def fail(error):
    raise error


def key(*args, **named):
    """The bytes of a call's key, which are the same on both ways to them."""
    flags = {name: named.pop(name) for name in ("typed", "is_apart") if name in named}
    values, names = (*args, *named.values()), tuple(named) or None
    encoded = _codec.encode_key(values, names, **flags)
    assert _codec.encode_native_key(values, names, **flags) in (encoded, None)
    return encoded


def is_native(*args, **flags):
    return _codec.encode_native_key(args, **flags) is not None


def round_trip(value):
    return _codec.decode_value(_codec.encode_value(value))


def is_same(one, other):
    """Whether two values are of the same types and, to the bit, the same."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("<d", one) == struct.pack("<d", other)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(is_same, one, other))
    return one == other


any_float = st.floats() | st.binary(min_size=8, max_size=8).map(lambda bits: struct.unpack("<d", bits)[0])
any_int = st.integers() | st.integers(-(2**64) - 5, 2**64 + 5) | st.integers(-(2**2000), 2**2000)
any_text = st.text(st.characters()) | st.text(st.characters(categories=["Cs"])) | st.text("aé€😀\udc80")
scalars = st.none() | st.booleans() | any_int | any_float | any_text | st.binary()
natives = st.recursive(scalars, lambda items: st.lists(items, max_size=4).map(tuple), max_leaves=12)


def nest_unnamed(items):
    several = st.lists(items, max_size=4)
    return several.map(tuple) | several.map(frozenset) | st.builds(Point, items, items)


def nest_hashable(items):
    return nest_unnamed(items) | st.builds(Pair, items, items)


hashables = st.recursive(scalars, nest_hashable, max_leaves=10)
# Some of them are equal.
FEW = [0, 0.0, False, 1, 1.0, -1, 0.5, 2**70, 2.0**70, None, "", "a", b"", b"a"]
few = st.recursive(st.integers(0, len(FEW) - 1).map(lambda index: FEW[index]), nest_hashable, max_leaves=4)


# Values


@given(natives)
def test_a_native_value_comes_back_to_the_bit_and_without_foreign_code(value):
    encoded = _codec.encode_value(value)
    assert is_same(_codec.decode_value(encoded), value)
    (decoded,) = _codec.decode_native(encoded)
    assert is_same(decoded, value)


@given(st.lists(any_float, min_size=1))
def test_a_list_of_floats_comes_back_to_the_bit_and_without_foreign_code(value):
    encoded = _codec.encode_value(value)
    assert encoded[0] == 0x0A
    (decoded,) = _codec.decode_native(encoded)
    assert is_same(decoded, value)


@pytest.mark.parametrize(
    "value",
    [
        [],
        [1],
        [1.0, 2],
        [1.0, Float(2.0)],
        ([1.0],),
        Number.ONE,
        Number.MANY,
        Color.GREEN,
        Word.HELLO,
        Pair(1, (2.0,)),
        (1, Pair(1, 2)),
        Int(5),
        Float(0.5),
        Str("a"),
        Bytes(b"a"),
        Tuple((1, 2)),
        Frozen((1, 2)),
        {"a": [1, {2}]},
        frozenset({"a"}),
        bytearray(b"a"),
        1j,
        decimal.Decimal("1.50"),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
        range(3),
        Point(1, 2),
        Exception,
        function,
        ...,
        NotImplemented,
    ],
    ids=label,
)
def test_any_other_value_comes_back_as_it_is_through_a_pickle(value):
    encoded = _codec.encode_value(value)
    assert encoded[0] == 0x0B
    assert _codec.decode_native(encoded) == ()
    assert is_same(_codec.decode_value(encoded), value)


def test_a_list_that_stands_twice_in_a_value_is_one_afterwards():
    numbers = [0.5]
    one, other = round_trip((numbers, numbers))
    assert one is other
    assert one == numbers


def test_tuples_nest_as_deep_as_a_pickle_allows():
    value = ()
    for _ in range(100):
        value = (value,)
    assert round_trip(value) == value


@pytest.mark.parametrize("value", ["é", "€", "😀", "a\udc80", "\ud83d\ude00", "x" * 1000], ids=label)
def test_no_copy_of_a_text_is_left_in_it(value):
    text = "".join(value)
    size = sys.getsizeof(text)
    _codec.encode_value(text)
    _codec.encode_key((text,))
    assert sys.getsizeof(text) == size


@pytest.mark.parametrize(
    "value", [lambda: 1, threading.Lock(), (i for i in ()), ReducesTo(lambda: fail(ValueError())), (1, lambda: 1)]
)
def test_a_value_that_cannot_be_pickled_has_no_bytes(value):
    with pytest.raises(TypeError, match="cannot be encoded"):
        _codec.encode_value(value)


class PicklesItself:
    def __reduce__(self):
        return _codec.encode_value([(self,)]), ()


def test_a_value_whose_pickling_has_no_end_has_no_bytes():
    with pytest.raises(TypeError, match="cannot be encoded"):
        _codec.encode_value(PicklesItself())


def test_an_exception_that_is_none_of_the_pickle_goes_to_the_caller():
    with pytest.raises(Stop):
        _codec.encode_value(ReducesTo(lambda: fail(Stop())))
    with pytest.raises(Stop):
        _codec.encode_key((ReducesTo(lambda: fail(Stop())),))
    with pytest.raises(Stop):
        _codec.decode_value(_codec.encode_value(ReducesTo(lambda: (fail, (Stop(),)))))


@pytest.mark.parametrize(
    "value",
    ["x" * 95, "é" * 48, "€" * 32, "\U0001f600" * 24, b"x" * 95, 2**752, -(2**752), (None,) * 92, [0.5] * 12, [0] * 99],
    ids=label,
)
def test_what_is_larger_than_the_limit_has_no_bytes(value):
    encoded = _codec.encode_value(value)
    assert is_same(_codec.decode_value(encoded), value)
    assert _codec.encode_value(value, limit=len(encoded)) == encoded
    for limit in (0, 1, 94, len(encoded) - 1):
        with pytest.raises(OverflowError):
            _codec.encode_value(value, limit=limit)


@pytest.mark.parametrize(
    "value", ["x", "x" * 95, 2**700, (1, 2), frozenset({1, 2}), Point(1, "x"), Service(a=1), function, 1j], ids=label
)
def test_a_key_that_is_larger_than_the_limit_has_no_bytes(value):
    encoded = key(value, k=value)
    assert _codec.encode_key((value, value), ("k",), limit=len(encoded)) == encoded
    for limit in range(len(encoded)):
        with pytest.raises(OverflowError):
            _codec.encode_key((value, value), ("k",), limit=limit)


def test_a_text_beyond_the_limit_is_not_copied():
    texts = ["x" * 10**7, "é" * 10**7, b"x" * 10**7, [0.5] * 10**6, (0.5,) * 10**6]
    tracemalloc.start()
    try:
        for text in texts:
            with pytest.raises(OverflowError):
                _codec.encode_value(text, limit=4096)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


class Gone:
    """Pickled, and then it cannot be made any more."""


@pytest.mark.parametrize("error", [ValueError, ImportError, MemoryError, RecursionError, StopIteration])
def test_what_cannot_be_unpickled_is_damaged(error):
    encoded = _codec.encode_value(ReducesTo(lambda: (fail, (error(),))))
    with pytest.raises(LookupError, match="damaged"):
        _codec.decode_value(encoded)


def test_an_instance_of_a_class_that_is_gone_is_damaged(monkeypatch):
    encoded = _codec.encode_value(Gone())
    assert type(_codec.decode_value(encoded)) is Gone
    monkeypatch.delattr(sys.modules[__name__], "Gone")
    with pytest.raises(LookupError, match="damaged"):
        _codec.decode_value(encoded)


@given(st.binary(max_size=60))
def test_no_bytes_do_harm(data):
    for tags in (b"", b"\x09\x02", b"\x07\x05", b"\x05\x09"):
        if 0x0B in (tags + data):
            continue
        try:
            value = _codec.decode_value(tags + data)
        except LookupError:
            assert _codec.decode_native(tags + data) == ()
        else:
            assert _codec.encode_value(value) == tags + data


@pytest.mark.parametrize("pickled", [b"", b".", b"N", b"\x80\x05", b"garbage", pickle.dumps(1)[:-1]])
def test_a_damaged_pickle_is_damaged(pickled):
    with pytest.raises(LookupError, match="damaged"):
        _codec.decode_value(bytes([0x0B, len(pickled)]) + pickled)


# Keys


@given(few, few)
def test_the_bytes_of_two_keys_are_equal_if_and_only_if_these_are(one, other):
    assert (key(one) == key(other)) is (one == other)


def spelled(value):
    """A text that is the same in each run, unlike the order of a frozenset: NaN is hashed by its address."""
    if isinstance(value, frozenset):
        return f"{type(value)}{sorted(map(spelled, value))}"
    if isinstance(value, tuple):
        return f"{type(value)}{[*map(spelled, value)]}"
    if isinstance(value, Point):
        return f"Point{spelled((value.x, value.y))}"
    return repr(value)


def variant(data, value):
    """An equal value of other types, made anew."""
    if isinstance(value, (bool, int, float)) and value == value:
        choices = [value]
        if isinstance(value, int):
            choices += [int(value), Int(value)]
            if abs(value) < 2**1000 and float(value) == value:
                choices += [float(value), Float(value), complex(value)]
            if value in (0, 1):
                choices += [bool(value)]
            if value == 0:
                choices += [-0.0]
        else:
            choices += [Float(value), complex(value)]
            if value.is_integer():
                choices += [int(value), Int(value)]
        return data.draw(st.sampled_from(choices))
    if isinstance(value, str):
        return data.draw(st.sampled_from([value, Str(value)]))
    if isinstance(value, bytes):
        return data.draw(st.sampled_from([value, Bytes(value)]))
    if isinstance(value, tuple):
        items = tuple(variant(data, item) for item in value)
        return data.draw(st.sampled_from([items, Tuple(items)] + ([Pair(*items)] if len(items) == 2 else [])))
    if isinstance(value, frozenset):
        items = [variant(data, item) for item in sorted(value, key=spelled)]
        return data.draw(st.sampled_from([frozenset(items), Frozen(items)]))
    if isinstance(value, Point):
        return Point(variant(data, value.x), variant(data, value.y))
    return value


@given(st.data(), hashables)
def test_equal_keys_have_equal_bytes_whatever_their_types(data, value):
    other = variant(data, value)
    assert key(value) == key(other)
    assert key(value, k=value) == key(other, k=other)


@given(st.data(), nest_unnamed(hashables))
def test_types_inside_an_argument_of_a_typed_key_do_not_count(data, value):
    other = variant(data, value)
    if type(other) is type(value):
        assert key(value, typed=True) == key(other, typed=True)
    else:
        assert key(value, typed=True) != key(other, typed=True)


@pytest.mark.parametrize(
    "equals",
    [
        [1, 1.0, True, Int(1), Float(1), Number.ONE, 1 + 0j, 1 - 0j],
        [0, 0.0, -0.0, False],
        [2**70, float(2**70), Number.MANY, Int(2**70)],
        [0.5, Float(0.5), 0.5 + 0j],
        [1j + 0, complex(-0.0, 1)],
        ["a", Str("a")],
        ["hello", Word.HELLO],
        [b"a", Bytes(b"a")],
        [(1, 2), (1.0, 2), Pair(True, 2), Tuple((1, Int(2)))],
        [frozenset({1, 2}), frozenset({2.0, 1}), Frozen({1, 2})],
        [(frozenset({1}), 1), Pair(frozenset({True}), 1.0)],
    ],
    ids=label,
)
def test_equal_arguments_are_one_key_and_typed_each_its_own(equals):
    assert len({key(value) for value in equals}) == 1
    assert len({key(value=value) for value in equals}) == 1
    assert len({key(value, typed=True) for value in equals}) == len({type(value) for value in equals})


def test_what_differs_by_its_form_differs():
    keys = [
        key(),
        key(1),
        key(1, 1),
        key((1,)),
        key(((1,),)),
        key((1, 1)),
        key(k=1),
        key(j=1),
        key(1, k=1),
        key("k", 1),
        key(("k", 1)),
        key(1, is_apart=True),
        key(None, 1),
        key("1"),
        key(b"1"),
        key(None),
        key("None"),
        key(()),
        key(""),
        key(b""),
        key(frozenset()),
        key(frozenset({()})),
        key(((),)),
        key(Point(1, 2)),
        key(Point3(1, 2)),
        key(Point(2, 1)),
        key(Point((1, 2), None)),
        key(Point([1, 2], None)),
        key(Point({1, 2}, None)),
        key(Point({1: 2}, None)),
        key((Point, 1, 2)),
        key(Slots(1, 2)),
        key(Slots(1, 2.0)),
        key(Service(a=1)),
        key(Service(a=True)),
        key(Service(a=(0.0,))),
        key(Service(a=(-0.0,))),
        key(Service(a=Int(1))),
        key(Service(a={1})),
        key(Service(a=frozenset({1}))),
        key(Service(a=Point(1, 2))),
        key(Service(a=Point(1.0, 2))),
        key(Service),
        key(Service()),
        key(Color.RED),
        key(Color.GREEN),
        key(function),
        key(fail),
        key(OwnEquality(1)),
        key(OwnEquality(1.0)),
        key(CaselessStr("a")),
        key(1j),
        key(2j),
        key(1 + 1j),
        key(math.inf),
        key(-math.inf),
        key(math.nan),
        key(len),
        key(...),
        key(range(3)),
        key(range(4)),
        key(decimal.Decimal("1.5")),
        key(fractions.Fraction(3, 2)),
        key(datetime.date(2026, 1, 1)),
        key(datetime.timedelta(1)),
        key(pathlib.PurePosixPath("a")),
        key(uuid.UUID(int=1)),
        key(functools.partial(function)),
        key(functools.partial(function, 1)),
        key(Service().method),
        key(int),
        key(type(None)),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Point({1, 2}, 0), Point(frozenset({1.0, 2}), False)),
        (Point({"a": 1, "b": 2}, 0), Point({"b": 2.0, Str("a"): True}, 0)),
        (Point([1, [2]], 0), Point([1.0, [2.0]], 0)),
        (Cached(1), Cached(1, note="not compared")),
        (Slots(1, [2]), Slots(1, [2])),
        (Service(a={1: 2}, b="x"), Service(b="x", a={1: 2})),
        (Node(1), Node(1)),
        (collections.OrderedDict(a=1).keys, collections.OrderedDict(a=1).keys),
    ],
    ids=label,
)
def test_objects_of_equal_parts_are_one_key(one, other):
    assert key(one) == key(other)


def test_what_a_dataclass_remembers_beside_its_fields_changes_no_key():
    fresh, used = Cached(3), Cached(3)
    assert used.double == 6
    assert key(fresh) == key(used)


def test_an_object_that_stands_twice_is_as_two_equal_ones():
    one, other = [1], [1]
    assert key(Point(one, one)) == key(Point(one, other))
    assert key(Service(a=one, b=one)) == key(Service(a=one, b=other))


class Recursive:
    def __init__(self):
        self.me = self


class EncodesItself:
    def __reduce_ex__(self, protocol):
        _codec.encode_key((self,))
        return EncodesItself, ()


class Buried(EncodesItself):
    def __reduce_ex__(self, protocol):
        value = Buried()
        for _ in range(25):
            value = [value]
        _codec.encode_key((Point(value, 1),))
        return Buried, ()


def nested(levels):
    value = 1
    for _ in range(levels):
        value = frozenset({value})
    return value


@pytest.mark.parametrize(
    "value",
    [
        object(),
        (1, object()),
        Point(object(), 1),
        lambda: 1,
        threading.Lock(),
        sys,
        Recursive(),
        (1, Recursive()),
        nested(32),
        EncodesItself(),
        Buried(),
        ReducesTo(lambda: fail(ValueError())),
        ReducesTo(lambda: 1),
        ReducesTo(lambda: ()),
        ReducesTo(lambda: (Service,)),
        ReducesTo(lambda: (Service, (), None, 5)),
        ReducesTo(lambda: (Service, (), None, None, iter([]), None, 1)),
        ReducesTo(lambda: "no_such_name"),
        ReducesTo(lambda: fail(RecursionError())),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_only_this_process_knows_has_no_key(value):
    assert not is_native(value)
    with pytest.raises(TypeError, match="cannot be encoded"):
        _codec.encode_key((value,))


def test_objects_nest_to_a_limit():
    assert key(nested(31)) != key(nested(30))
    assert key(((),) * 1000) != key(((),) * 999)


def test_a_module_that_makes_reductions_is_asked_first():
    class Local:
        pass

    with pytest.raises(TypeError):
        key(Local())
    copyreg.pickle(Local, lambda _: (Service, (1,)))
    try:
        assert key(Local()) == key(ReducesTo(lambda: (Service, (1,))))
    finally:
        del copyreg.dispatch_table[Local]


@pytest.mark.parametrize(
    ("value", "typed"),
    [
        (value, typed)
        for value in [None, True, 1, 2**100, 0.5, 1e300, "a", "\ud800", b"a", (1, ("a", None))]
        for typed in (False, True)
    ]
    + [(Number.ONE, False), (Pair(1, "a"), False), (Str("é"), False), (1 + 0j, False)],
    ids=label,
)
def test_a_key_of_built_in_types_runs_no_foreign_code(value, typed):
    assert is_native(value, typed=typed)


@pytest.mark.parametrize(
    "value",
    [CaselessStr("a"), frozenset(), 1j, Point(1, 2), Color.RED, function],
    ids=lambda value: type(value).__name__,
)
def test_a_key_of_other_types_may_run_foreign_code(value):
    assert not is_native(value)
    assert not is_native((1, value))


def test_a_lone_value_that_is_kept_apart_equals_no_other_key():
    apart = key(1.0, is_apart=True)
    assert apart == key(True, is_apart=True)
    assert apart not in {key(1), key(1.0), key(None, 1), key(None, None, 1), key(**{"": 1}), key(**{"None": 1})}


def test_the_text_of_a_name_counts_and_not_its_class():
    assert _codec.encode_key((1,), ("a",)) == _codec.encode_key((1,), (Str("a"),))
    assert key(**{"é": 1}) != key(**{"e": 1})
    assert key(**{"\ud800": 1}) != key(**{"\ud801": 1})


@pytest.mark.parametrize("names", [("a", "b", "c"), (1,), (None,)])
def test_names_that_are_none_have_no_bytes(names):
    assert _codec.encode_native_key((1,), names) is None
    with pytest.raises(TypeError, match="cannot be encoded"):
        _codec.encode_key((1,), names)


def test_an_unhashable_default_has_bytes_of_its_own():
    seen = []

    @cache(max_size=None)
    def remember(x=[]):  # noqa: B006
        seen.append(x)

    remember()
    remember()
    assert len(seen) == 1
    stand_in, *_ = [one for one in gc.get_referents(remember) if type(one).__name__ == "_Unhashable"]
    for typed in (False, True):
        assert _codec.encode_native_key((stand_in, 1), typed=typed) == b"\x02\x00\x0b\x00\x91"
        assert _codec.encode_key((stand_in, 1), typed=typed) == b"\x02\x00\x0b\x00\x91"


def test_a_change_while_a_key_is_read_does_no_harm():
    box = Point([], {})

    class Changes:
        def __init__(self, n):
            self.n = n

        def __reduce_ex__(self, protocol):
            box.x.clear()
            box.y.clear()
            box.y.update({n: n for n in range(100)})
            return Changes, (self.n,)

    sys.modules[__name__].Changes = Changes
    Changes.__qualname__ = "Changes"
    try:
        for _ in range(20):
            box.x[:] = [Changes(n) for n in range(50)]
            box.y.clear()
            box.y.update({n: Changes(n) for n in range(50)})
            assert isinstance(key(box), bytes)
    finally:
        del sys.modules[__name__].Changes


def test_a_change_in_another_thread_does_no_harm():
    numbers, going = [0.5] * 50, True

    def change():
        while going:
            numbers.append(0.25)
            numbers[:5] = [0.125] * 4
            numbers.append(Float(1.0))
            numbers.remove(1.0)
            del numbers[25:]

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(3000):
            # pickle refuses a list that changes meanwhile.
            with contextlib.suppress(TypeError):
                assert isinstance(round_trip(numbers), list)
            assert isinstance(_codec.encode_key((Point(numbers, 1),)), bytes)
    finally:
        going = False
        thread.join()


PROGRAM = textwrap.dedent("""
    import enum, sys
    from test_shared_encoding import *
    values = [
        frozenset("abcdefgh"), frozenset({("a", frozenset({"b", "c"})), "d", None, 1.5}), Frozen({"x", "y", "z"}),
        Point({"p", "q", "r"}, {"k": {"s", "t"}, "l": ["m"]}), Service(a={"p", "q", "r"}, b={"u": 1, "v": 2}),
        Color.RED, Word.HELLO, Pair("a", Point), Str("é"), function, len, 2**100, Slots("a", {"b", "c"}),
        decimal.Decimal("1.5"), datetime.datetime(2026, 1, 2), Service().method, uuid.UUID(int=5),
        functools.partial(function, k={"a", "b"}),
    ]
    for typed in (False, True):
        print(*(key(value, k=value, typed=typed).hex() for value in values), sep="\\n")
""")


def test_the_bytes_of_a_key_are_the_same_in_every_process():
    outputs = set()
    for seed in ("0", "1", "2", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", PROGRAM]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        outputs.add(result.stdout)
    assert len(outputs) == 1
    # Four of the values are of a class derived from a built-in one, and have two keys.
    assert len(set(outputs.pop().split())) == 18 + 4


SPAWNING = textwrap.dedent("""
    import dataclasses, multiprocessing
    from warp_cache.warp_cache import _codec

    @dataclasses.dataclass(frozen=True)
    class Point:
        x: int

    class Service:
        pass

    def encode(_):
        return _codec.encode_key((Point(1), Service(), encode))

    if __name__ == "__main__":
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.map(encode, [0]) == [encode(0)]
""")


def test_a_class_of_the_program_is_the_same_in_a_process_that_it_spawns(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(SPAWNING)
    result = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
