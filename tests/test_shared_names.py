"""Which functions share a region, in this process and the next: the same one, whatever the hash seed, and never two."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shared memory is for Unix")

PRELUDE = """\
import enum, functools, json, math, multiprocessing, sys, threading
from warp_cache import cache
shared = cache(backend="shared", max_size=8)
args, given = (1,), {}
def say(function, *args):
    hits, misses = function.cache_info()[:2]
    value = function(*args)
    after = function.cache_info()
    assert after.hits + after.misses == hits + misses + 1
    assert repr(value) == repr(function.__wrapped__(*args)), "a value of another function"
    print(json.dumps([repr(value), ["miss", "hit"][after.hits - hits]]), flush=True)
"""


@dataclasses.dataclass
class Place:
    """A folder with programs, and one for the regions, which outlives each program."""

    folder: pathlib.Path
    regions: pathlib.Path

    def write(self, name: str, source: str) -> pathlib.Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PRELUDE + textwrap.dedent(source), encoding="utf-8")
        return path

    def start(self, *command: object, seed: int = 0, cwd: "pathlib.Path | None" = None, stdin: str = ""):
        environment = os.environ | {"WARP_CACHE_DIR": str(self.regions), "PYTHONHASHSEED": str(seed)}
        return subprocess.run(
            [sys.executable, *map(str, command)],
            env=environment,
            cwd=cwd or self.folder,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )

    def said(self, *command: object, seed: int = 0, cwd: "pathlib.Path | None" = None) -> list:
        """What the program says, which must issue no warning of ours."""
        done = self.start("-W", "error::RuntimeWarning", *command, seed=seed, cwd=cwd)
        assert done.returncode == 0, done.stderr
        assert "SharedCacheWarning" not in done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def run(self, source: str, *, name: str = "program.py", seed: int = 0) -> list:
        return self.said(self.write(name, source), seed=seed)


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Iterator[Place]:
    shm = "/dev/shm"
    regions = pathlib.Path(tempfile.mkdtemp(prefix="warp_cache-test-", dir=shm if os.access(shm, os.W_OK) else None))
    yield Place(tmp_path, regions)
    shutil.rmtree(regions)


PRICE = """
@shared
def price(x):
    return x + 1
say(price, 1)
"""


def test_a_function_finds_its_values_in_the_next_process(place):
    assert place.run(PRICE) == [["2", "miss"]]
    assert place.run(PRICE) == [["2", "hit"]]


def test_equal_functions_of_two_scripts_are_two(place):
    for folder in ("one", "two"):
        assert place.run(PRICE, name=f"{folder}/program.py") == [["2", "miss"]]


def test_a_script_reached_through_a_symbolic_link_is_the_same(place):
    place.run(PRICE, name="real/program.py")
    (place.folder / "link").symlink_to(place.folder / "real")
    assert place.said("link/program.py") == [["2", "hit"]]
    assert place.said("program.py", cwd=place.folder / "link") == [["2", "hit"]]


FROZEN = """
import os, pathlib, shutil, tempfile
sys._MEIPASS = tempfile.mkdtemp(prefix="_MEI")
try:
    shutil.copytree(pathlib.Path(__file__).parent / "parts", sys._MEIPASS, dirs_exist_ok=True)
    sys.path.insert(0, sys._MEIPASS)
    __file__ = os.path.join(sys._MEIPASS, "program.py")
    import prices, shop.goods
    say(prices.price, 1)
    say(shop.goods.price, 1)
    {own}
finally:
    shutil.rmtree(sys._MEIPASS)
"""
OF_A_MODULE = PRICE.replace("say(price, 1)", "")


def test_a_program_that_unpacks_itself_into_another_folder_each_time_finds_its_values(place):
    place.write("parts/prices.py", OF_A_MODULE)
    place.write("parts/shop/goods.py", OF_A_MODULE)
    own = textwrap.indent(PRICE, "    ").strip()
    for outcome in ("miss", "hit"):
        assert place.run(FROZEN.format(own=own)) == [["2", outcome]] * 3
    assert len(list(place.regions.rglob("*.wc"))) == 3


def test_what_such_a_program_has_from_elsewhere_is_known_by_its_path(place):
    for folder in ("one", "two"):
        source = f"sys._MEIPASS = {str(place.folder)!r} + '/elsewhere'" + PRICE
        assert place.run(source, name=f"{folder}/program.py") == [["2", "miss"]]


def test_two_programs_that_unpack_themselves_are_two(place):
    (place.folder / "parts").mkdir()
    for program in ("one", "two"):
        source = FROZEN.format(own=textwrap.indent(PRICE, "    ").strip())
        source = source.replace("import prices, shop.goods", f"sys.executable = '/opt/{program}'")
        source = "\n".join(line for line in source.splitlines() if "say(prices" not in line and "say(shop" not in line)
        assert place.run(source) == [["2", "miss"]]


def archive(place: Place, path: str, modules: "dict[str, str]") -> pathlib.Path:
    file = place.folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as written:
        for name, source in modules.items():
            written.writestr(name, PRELUDE + textwrap.dedent(source))
    return file


def test_a_zip_file_of_temporary_ones_is_known_by_what_it_contains(place):
    program = place.write("program.py", "sys.path.insert(0, sys.argv[1])\nimport shop.goods\nsay(shop.goods.price, 1)")
    parts = {"shop/__init__.py": "", "shop/goods.py": OF_A_MODULE, "shop/other.py": "rate = 1"}
    assert place.said(program, archive(place, "run 1/parts.zip", parts)) == [["2", "miss"]]
    assert place.said(program, archive(place, "run 2/parts.zip", parts)) == [["2", "hit"]]
    # The function is the same, and what it might call is not.
    assert place.said(program, archive(place, "run 3/parts.zip", parts | {"shop/other.py": "rate = 2"})) == [
        ["2", "miss"]
    ]
    assert place.said(program, archive(place, "run 4/parts.zip", parts)) == [["2", "hit"]]


def test_a_zip_file_that_is_a_program_is_known_by_what_it_contains(place):
    for folder, outcome in (("one", "miss"), ("two", "hit")):
        assert place.said(archive(place, f"{folder}/app.pyz", {"__main__.py": PRICE})) == [["2", outcome]]


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="it takes a folder that is none of temporary files")
def test_any_other_zip_file_is_known_by_its_path(place):
    with tempfile.TemporaryDirectory(prefix="warp_cache-test-", dir="/dev/shm") as folder:
        for name, rate, outcome in (("one", 1, "miss"), ("two", 1, "miss"), ("one", 2, "hit")):
            parts = {"__main__.py": PRICE, "other.py": f"rate = {rate}"}
            assert place.said(archive(place, f"{folder}/{name}.pyz", parts)) == [["2", outcome]]


def test_a_module_is_known_by_its_name_to_all_programs(place):
    place.write("prices.py", PRICE.replace("say(price, 1)", ""))
    for name, outcome in (("first.py", "miss"), ("second.py", "hit")):
        assert place.run("from prices import price\nsay(price, 1)", name=name) == [["2", outcome]]


def test_equal_functions_of_two_modules_are_two(place):
    for name in ("one", "two"):
        place.write(f"{name}.py", PRICE.replace("say(price, 1)", ""))
    said = place.run("import one, two\nsay(one.price, 1)\nsay(two.price, 1)")
    assert said == [["2", "miss"], ["2", "miss"]]


def test_equal_functions_of_two_names_are_two(place):
    said = place.run(PRICE + PRICE.replace("price", "cost"))
    assert said == [["2", "miss"], ["2", "miss"]]


# Each is a function f(x) before and after an edit.
EDITS = {
    "constant": ("def f(x): return x + 1", "def f(x): return x + 2"),
    "operator": ("def f(x): return x + 3", "def f(x): return x - 3"),
    "attribute": ("def f(x): return x.real", "def f(x): return x.imag"),
    "called": ("def f(x): return abs(x)", "def f(x): return str(x)"),
    "int-to-float": ("def f(x): return x, 1", "def f(x): return x, 1.0"),
    "int-to-bool": ("def f(x): return x, 1", "def f(x): return x, True"),
    "nested-type": ("def f(x): return x, (0, (1,))", "def f(x): return x, (0, (1.0,))"),
    "sign-of-zero": ("def f(x): return x, 0.0", "def f(x): return x, -0.0"),
    "sign-of-complex-zero": ("def f(x): return x, 0j", "def f(x): return x, -0j"),
    "str-to-bytes": ("def f(x): return x, 'a'", "def f(x): return x, b'a'"),
    "text-split-elsewhere": ("def f(x): return ('ab', 'c')", "def f(x): return ('a', 'bc')"),
    "big-int": ("def f(x): return 1 << 70", "def f(x): return 1 << 71"),
    "ellipsis": ("def f(x): return ...", "def f(x): return None"),
    "lone-surrogate": (r"def f(x): return '\ud800'", r"def f(x): return '\ud801'"),
    "set-constant": ("def f(x): return x in {1, 2}", "def f(x): return x in {2, 3}"),
    "set-to-tuple": ("def f(x): return (x in {1, 2}, {1, 2})", "def f(x): return (x in (1, 2), (1, 2))"),
    "slice": ("def f(x): return 'abc'[0:x]", "def f(x): return 'abc'[1:x]"),
    "default": ("def f(x, a=1): return x + a", "def f(x, a=2): return x + a"),
    "default-type": ("def f(x, a=1): return x, a", "def f(x, a=True): return x, a"),
    "default-moved": ("def f(x, a=1, *, b=2): return a, b", "def f(x, a=2, *, b=1): return a, b"),
    "keyword-default": ("def f(x, *, a=1): return x + a", "def f(x, *, a=2): return x + a"),
    "unhashable-default": ("args = 1, 0\ndef f(x, a=[1]): return x, a", "args = 1, 0\ndef f(x, a=[2]): return x, a"),
    "lambda-default": (
        "args = 1, 0\ndef f(x, a=lambda y: y): return x, a",
        "args = 1, 0\ndef f(x, a=lambda y: -y): return x, a",
    ),
    "nested-function": (
        "def f(x):\n    def g(): return 1\n    return g()",
        "def f(x):\n    def g(): return 2\n    return g()",
    ),
    "nested-default": (
        "def f(x):\n    def g(a=(1, 2)): return a\n    return g()",
        "def f(x):\n    def g(a=(1, 3)): return a\n    return g()",
    ),
    "nested-class": (
        "def f(x):\n    class A:\n        a = 1\n    return A.a",
        "def f(x):\n    class A:\n        a = 2\n    return A.a",
    ),
    "nested-method": (
        "def f(x):\n    class A:\n        def g(self): return 1\n    return A().g()",
        "def f(x):\n    class A:\n        def g(self): return 2\n    return A().g()",
    ),
    "comprehension": ("def f(x): return [y for y in (1, 2)]", "def f(x): return [y for y in (1, 3)]"),
    "lambda": ("f = lambda x: x + 1", "f = lambda x: x + 2"),
    "parameter-order": ("def f(x, y=1): return x - y", "def f(y, x=1): return x - y"),
    "handler": (
        "def f(x):\n    try: return x / 0\n    except ZeroDivisionError: return 1",
        "def f(x):\n    try: return x / 0\n    except ArithmeticError: return 2",
    ),
}


@pytest.mark.parametrize(("before", "after"), EDITS.values(), ids=EDITS)
def test_an_edited_function_starts_afresh(place, before, after):
    end = "\nf = shared(f)\nsay(f, *args)"
    for source, outcome in ((before, "miss"), (after, "miss"), (before, "hit"), (after, "hit")):
        assert [outcome for _, outcome in place.run(source + end)] == [outcome], source


MOVES = {
    "comment": "\n# A comment.\n@shared\ndef f(x, a=1):  # another\n\n    # and one more\n    return x + a\n",
    "below": "\ndef g(x, a=1): return x - a\n\n\n@shared\ndef f(x, a=1):\n    return x + a\n",
    "far-below": "\n" * 70_000 + "@shared\ndef f(x, a=1):\n    return x + a\n",
    "annotations": "\n@shared\ndef f(x: int, a: int = 1) -> int:\n    return x + a\n",
    "called": "\ndef f(x, a=1):\n    return x + a\nf = shared(f)\n",
}


@pytest.mark.parametrize("moved", MOVES.values(), ids=MOVES)
def test_comments_lines_and_annotations_do_not_matter(place, moved):
    assert place.run("@shared\ndef f(x, a=1):\n    return x + a\nsay(f, 1)") == [["2", "miss"]]
    assert place.run(moved + "say(f, 1)") == [["2", "hit"]]


def test_a_nested_class_stays_the_same_in_every_process_and_starts_afresh_where_its_line_is_stored(place):
    source = """
    @shared
    def f(x):
        class A:
            three, many = 3, 300
            def __init__(self): self.alpha, self.beta, self.gamma, self.delta = x, 2, 3, 4
        return A.three, A.many, A().alpha
    say(f, 1)
    """
    assert place.run(source) == [["(3, 300, 1)", "miss"]]
    for seed in range(4):
        assert place.run(source, seed=seed) == [["(3, 300, 1)", "hit"]]
    moved = "\n" * 300 + textwrap.dedent(source)
    assert place.run(moved) == [["(3, 300, 1)", "miss" if sys.version_info >= (3, 13) else "hit"]]
    assert place.run(moved) == [["(3, 300, 1)", "hit"]]


def test_the_hash_seed_does_not_matter(place):
    source = """
    import dataclasses, enum
    class Kind(enum.Enum):
        ONE = "one"
    class Names(frozenset):
        pass
    @dataclasses.dataclass(frozen=True)
    class Options:
        names: frozenset
    def make(names, table, nested, kind, subclass, options):
        @shared
        def f(x, default=frozenset({"p", "q", "r"}), *, wanted=frozenset({"s", "t", "u"})):
            held = names, table, nested, kind, subclass, options
            return len(held) if x in {"a", "b", "c", "d", None, 1.5} else len(default | wanted)
        return f
    letters = {"a", "b", "c", "d", "e"}
    f = make(letters, {"k": letters}, [({frozenset(letters)},)], Kind.ONE, Names(letters), Options(frozenset(letters)))
    say(f, "a")
    """
    assert place.run(source, seed=0) == [["6", "miss"]]
    for seed in (1, 2, 3):
        assert place.run(source, seed=seed) == [["6", "hit"]]


# Two values for which a closure is another function.
CLOSED_OVER = {
    "int": ("2", "3"),
    "int-float": ("2", "2.0"),
    "int-bool": ("1", "True"),
    "zeros": ("0.0", "-0.0"),
    "str-bytes": ("'a'", "b'a'"),
    "none-ellipsis": ("None", "..."),
    "big": ("1 << 64", "1 << 65"),
    "tuple-list": ("(1, 2)", "[1, 2]"),
    "split": ("[[1], 2]", "[[1, 2]]"),
    "set-frozenset": ("{1, 2}", "frozenset({1, 2})"),
    "dict": ("{'a': 1}", "{'a': 2}"),
    "order-of-dict": ("{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}"),
    "function": ("lambda x: x", "lambda x: -x"),
    "class": ("int", "float"),
    "module": ("json", "math"),
    "builtin": ("math.sin", "math.cos"),
    "enum": ("Kind.ONE", "Kind.OTHER"),
    "instance": ("Options(1)", "Options(2)"),
    "instance-deep": ("Options([{'a': {1}}])", "Options([{'a': {2}}])"),
    "partial": ("functools.partial(pow, 2)", "functools.partial(pow, 3)"),
    "bound-method": ("Options(1).get", "Options(2).get"),
    "local-class": ("local_class(2)", "local_class(3)"),
    "local-instance": ("local_class(2)()", "local_class(3)()"),
    "dynamic-class": ("type('Made', (), {'v': 2})", "type('Made', (), {'v': 3})"),
    "closure": ("constant(2)", "constant(3)"),
    "cached-closure": ("cache(constant(2))", "cache(constant(3))"),
    "functools-closure": ("functools.lru_cache(constant(2))", "functools.lru_cache(constant(3))"),
    "lock": ("threading.Lock()", "threading.Lock()"),
    "object": ("object()", "object()"),
}


@pytest.mark.parametrize(("one", "other"), CLOSED_OVER.values(), ids=CLOSED_OVER)
def test_closures_over_different_values_are_different_functions(place, one, other):
    source = f"""
    import warnings
    warnings.simplefilter("ignore")
    class Kind(enum.Enum):
        ONE = 1
        OTHER = 2
    class Options:
        def __init__(self, value): self.value = value
        def get(self): return self.value
    def local_class(n):
        class Local:
            v = n
        return Local
    def constant(n):
        def get(): return n
        return get
    def make(n):
        @shared
        def f(x):
            return x if n is n else n
        return f
    one, other = make({one}), make({other})
    one(1), other(1)
    print(json.dumps([one.cache_info()[:2], other.cache_info()[:2]]))
    """
    assert place.run(source) == [[[0, 1], [0, 1]]]


def test_closures_are_found_again(place):
    source = """
    def make(n):
        @shared
        def f(x):
            return x * n
        return f
    say(make(2), 10)
    say(make(3), 10)
    """
    assert place.run(source) == [["20", "miss"], ["30", "miss"]]
    assert place.run(source) == [["20", "hit"], ["30", "hit"]]


def test_a_closure_over_what_is_set_later_keeps_its_values_to_itself(place):
    source = """
    import warnings
    warnings.simplefilter("ignore")
    def make(value):
        @shared
        def f(x):
            return x * n
        n = value
        return f
    say(make(2), 10)
    say(make(3), 10)
    """
    for _ in range(2):
        assert place.run(source) == [["20", "miss"], ["30", "miss"]]


def test_a_closure_that_calls_itself_is_found_again(place):
    source = """
    def make():
        @shared
        def factorial(n):
            return n * factorial(n - 1) if n else 1
        return factorial
    f = make()
    print(json.dumps([f(5), *f.cache_info()[:2]]))
    """
    assert place.run(source) == [[120, 0, 6]]
    assert place.run(source) == [[120, 1, 6]]


def test_a_function_that_names_the_class_around_it_is_found_again(place):
    source = """
    class A:
        class Inner:
            pass
        @staticmethod
        @shared
        def f(x, kind=Inner):
            return __class__.__name__, kind.__name__
    say(A.f, 1)
    """
    assert place.run(source) == [["('A', 'Inner')", "miss"]]
    assert place.run(source) == [["('A', 'Inner')", "hit"]]


DECORATED = """
def doubled(function):
    @functools.wraps(function)
    def inner(x):
        return 2 * function(x)
    return inner

@shared
@doubled
def price(x):
    return x + 1
say(price, 1)

@shared
@doubled
def cost(x):
    return x + 1
say(cost, 1)
"""


def test_a_function_under_another_decorator_is_found_again(place):
    assert place.run(DECORATED) == [["4", "miss"], ["4", "miss"]]
    assert place.run(DECORATED) == [["4", "hit"], ["4", "hit"]]


def test_an_edit_is_seen_through_another_decorator(place):
    place.run(DECORATED)
    assert place.run(DECORATED.replace("x + 1", "x + 5")) == [["12", "miss"], ["12", "miss"]]
    assert place.run(DECORATED.replace("2 * ", "3 * ")) == [["6", "miss"], ["6", "miss"]]


def test_an_edit_is_seen_through_what_a_decorator_calls_its_wrapped_function(place):
    source = """
    wrapped = {}
    def registered(function):
        wrapped[function.__name__] = function
        @functools.wraps(function)
        def inner(x):
            return wrapped["price"](x)
        return inner
    @shared
    @registered
    def price(x):
        return x + 1
    say(price, 1)
    """
    assert place.run(source) == [["2", "miss"]]
    assert place.run(source.replace("x + 1", "x + 5")) == [["6", "miss"]]


def test_two_lambdas_on_a_line_are_two_functions(place):
    source = "one, other = shared(lambda x: x + 1), shared(lambda x: x + 2)\nsay(one, 1)\nsay(other, 1)"
    assert place.run(source) == [["2", "miss"], ["3", "miss"]]
    assert place.run(source) == [["2", "hit"], ["3", "hit"]]


KINDS = {
    "static-method": ("f = shared(staticmethod(lambda x: x + 1))", "2"),
    "builtin": ("f = shared(abs)", "1"),
    "native": ("f = shared(math.floor)", "1"),
    "cached": ("f = shared(functools.lru_cache(lambda x: x + 1))", "2"),
    "twice": ("f = shared(cache(lambda x: x + 1))", "2"),
}


@pytest.mark.parametrize(("source", "value"), KINDS.values(), ids=KINDS)
def test_other_kinds_of_functions_are_found_again(place, source, value):
    assert place.run(source + "\nsay(f, 1)") == [[value, "miss"]]
    assert place.run(source + "\nsay(f, 1)") == [[value, "hit"]]


def test_a_coroutine_function_is_found_again(place):
    source = """
    import asyncio
    @shared
    async def f(x):
        return x + 1
    print(json.dumps([asyncio.run(f(1)), f.cache_info().hits]))
    """
    assert place.run(source) == [[2, 0]]
    assert place.run(source) == [[2, 1]]


def test_how_often_a_function_ran_and_who_traces_it_does_not_matter(place):
    source = """
    def f(x):
        total = 0
        for i in range(x):
            total += len(str(i))
        return total
    {}
    f = shared(f)
    say(f, 10)
    """
    assert place.run(source.format("")) == [["10", "miss"]]
    for before in (
        "for i in range(500): f(50)",
        "sys.settrace(lambda *event: sys.gettrace()); f(50)",
        "sys.setprofile(lambda *event: None); f(50)",
    ):
        assert place.run(source.format(before)) == [["10", "hit"]]


SPAWNING = """
@shared
def price(x):
    return x + 1

class Options:
    pass

def make(options):
    @shared
    def f(x):
        return x, options.__name__
    return f

closed = make(Options)

def child(_):
    return [(f(1), f.cache_info()[:2]) for f in (price, closed, make(Options))]

if __name__ == "__main__":
    own = child(0)
    with multiprocessing.get_context({method!r}).Pool(1) as pool:
        print(json.dumps([own, pool.apply(child, (0,))]))
"""

OWN = [[2, [0, 1]], [[1, "Options"], [0, 1]], [[1, "Options"], [1, 1]]]
CHILDS = [[2, [1, 1]], [[1, "Options"], [2, 1]], [[1, "Options"], [3, 1]]]


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_child_process_shares_with_its_parent(place, method):
    assert place.run(SPAWNING.format(method=method)) == [[OWN, CHILDS]]


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_child_of_a_module_run_as_a_program_shares_with_its_parent(place, method):
    place.write("package/__init__.py", "")
    place.write("package/program.py", SPAWNING.format(method=method))
    assert place.said("-m", "package.program") == [[OWN, CHILDS]]


NAMED = """
@cache(backend="shared", max_size=8, name={name!r}, version={version!r})
def {function}(x):
    return x + 1, {constant!r}
print(json.dumps([{function}(1), {function}.cache_info().hits]))
"""


def named(place, program, function, constant, name="prices", version=None):
    return place.run(NAMED.format(function=function, constant=constant, name=name, version=version), name=program)


def test_a_name_stands_for_module_and_qualified_name_and_the_code_counts_all_the_same(place):
    assert named(place, "one.py", "price", "a") == [[[2, "a"], 0]]
    assert named(place, "two.py", "cost", "a") == [[[2, "a"], 1]]
    assert named(place, "two.py", "cost", "b") == [[[2, "b"], 0]]
    assert named(place, "one.py", "price", "b") == [[[2, "b"], 1]]
    assert named(place, "one.py", "price", "a") == [[[2, "a"], 2]]
    assert named(place, "one.py", "price", "a", name="costs") == [[[2, "a"], 0]]


def test_name_and_version_stand_for_the_code_too(place):
    assert named(place, "one.py", "price", "a", version=1) == [[[2, "a"], 0]]
    assert named(place, "two.py", "cost", "b", version=1) == [[[2, "a"], 1]]
    assert named(place, "two.py", "cost", "b", name="costs", version=1) == [[[2, "b"], 0]]
    assert named(place, "two.py", "cost", "c", version="2") == [[[2, "c"], 0]]
    assert named(place, "two.py", "cost", "d", version="3") == [[[2, "d"], 0]]
    assert named(place, "one.py", "price", "e", version="2") == [[[2, "c"], 1]]
    assert named(place, "one.py", "price", "a") == [[[2, "a"], 0]]


@pytest.mark.parametrize(("before", "after"), EDITS.values(), ids=EDITS)
def test_an_edited_function_starts_afresh_under_its_name(place, before, after):
    begin, end = 'shared = cache(backend="shared", max_size=8, name="f")\n', "\nf = shared(f)\nsay(f, *args)"
    for source, outcome in ((before, "miss"), (after, "miss"), (before, "hit"), (after, "hit")):
        assert [outcome for _, outcome in place.run(begin + source + end)] == [outcome], source


def test_a_name_stands_for_the_file_of_what_is_wrapped_and_closed_over_too(place):
    begin = 'shared = cache(backend="shared", max_size=8, name="price")\n'
    source = DECORATED[: DECORATED.index("@shared\n@doubled\ndef cost")]
    assert place.run(begin + source, name="one.py") == [["4", "miss"]]
    assert place.run(begin + source, name="two.py") == [["4", "hit"]]
    assert place.run(begin + source.replace("price", "cost"), name="two.py") == [["4", "hit"]]
    assert place.run(begin + source.replace("x + 1", "x + 5"), name="two.py") == [["12", "miss"]]
    assert place.run(begin + source.replace("2 * ", "3 * "), name="two.py") == [["6", "miss"]]


def test_equal_code_that_runs_in_other_modules_is_other_code_under_a_name(place):
    for name in ("one", "two"):
        place.write(f"{name}.py", f"rate = {name!r}\ndef rated(x):\n    return x, rate\n")
    source = """
    import one, two
    def make(rated):
        @cache(backend="shared", max_size=8, name="rated")
        def f(x):
            return rated(x)
        return f
    say(make(one.rated), 1)
    say(make(two.rated), 1)
    """
    assert place.run(source) == [["(1, 'one')", "miss"], ["(1, 'two')", "miss"]]
    assert place.run(source) == [["(1, 'one')", "hit"], ["(1, 'two')", "hit"]]


def test_a_version_starts_afresh(place):
    source = """
    @cache(backend="shared", max_size=8, version={!r})
    def f(x):
        return x + 1
    say(f, 1)
    """
    outcomes = [place.run(source.format(version))[0][1] for version in (None, 1, 2, None, 1, 2, "two", "two")]
    assert outcomes == ["miss", "miss", "miss", "hit", "hit", "hit", "miss", "hit"]


# What makes f, and why it has no identity.
NAMELESS = {
    "partial": ("f = shared(functools.partial(pow, 2))", "functools.partial"),
    "bound-method": ("class A:\n    def f(self, x): return x\nf = shared(A().f)", "a method bound to an object"),
    "native-bound-method": ("f = shared({1: 1}.get)", "a method bound to an object"),
    "object": ("class A:\n    def __call__(self, x): return x\nf = shared(A())", "an object of type A"),
    "class": ("class A(int): pass\nf = shared(A)", "a class"),
    "closure": (
        "def make(connection):\n    @shared\n    def f(x): return connection and x\n    return f\n"
        "f = make(threading.Lock())",
        "it closes over 'connection', which cannot be fingerprinted",
    ),
    "wrapped-closure": (
        "def wrap(function):\n    @functools.wraps(function)\n    def inner(x): return function(x)\n    return inner\n"
        "def make(connection):\n    def f(x): return connection and x\n    return f\n"
        "f = shared(wrap(make(threading.Lock())))",
        "it closes over 'function', which closes over 'connection', which cannot be fingerprinted",
    ),
    "unset": (
        "def make():\n    @shared\n    def f(x): return later\n    later = 1\n    return f\nf = make()",
        "it closes over 'later', which has no value yet",
    ),
    "default": (
        "given = {'lock': 0}\n@shared\ndef f(x, lock=threading.Lock()): return x",
        "it has a default for 'lock', which cannot be",
    ),
    "keyword-default": (
        "given = {'missing': 0}\n@shared\ndef f(x, *, missing=object()): return x",
        "it has a default for 'missing', which cannot be fingerprinted",
    ),
    "large": (
        "given = {'a': 0}\n@shared\ndef f(x, a=list(range(1 << 20))): return x",
        "is too large to be fingerprinted",
    ),
    "large-int": (
        "given = {'a': 0}\n@shared\ndef f(x, a=1 << (1 << 24)): return x",
        "is too large to be fingerprinted",
    ),
    "shared-parts": (
        "given, a = {'a': 0}, []\nfor _ in range(30): a = [a, a]\n@shared\ndef f(x, a=a): return x",
        "is too large to be fingerprinted",
    ),
    "deep": (
        "given, a = {'a': 0}, []\nfor _ in range(1000): a = [a]\n@shared\ndef f(x, a=a): return x",
        "is nested too deeply to be fingerprinted",
    ),
    "raising": (
        "class A:\n    def __reduce_ex__(self, protocol): raise ValueError\n"
        "given = {'a': 0}\n@shared\ndef f(x, a=A()): return x",
        "it has a default for 'a', which cannot be fingerprinted",
    ),
    "endless": (
        "class A:\n    def __reduce_ex__(self, protocol): return A, (A(),)\n"
        "given = {'a': 0}\n@shared\ndef f(x, a=A()): return x",
        "is nested too deeply to be fingerprinted",
    ),
    "endless-items": (
        "class A:\n    def __reduce_ex__(self, protocol): return A, (), None, iter(int, 1)\n"
        "given = {'a': 0}\n@shared\ndef f(x, a=A()): return x",
        "is too large to be fingerprinted",
    ),
    "exec": ("space = {}\nexec('def f(x): return x', space)\nf = shared(space['f'])", "outside of any module"),
}

TRIED = """
f(1, **given)
first = f.cache_info().hits
f(1, **given)
print(json.dumps([first, f.cache_info().hits, f.shared_stats().path is None]))
"""


# With what a function without identity is shared, and what its warning says of that.
BOTH = "; pass name= and version= to share them, and another version= whenever the code changes"
ONE = "; pass name= to share them"
REMEDIES = dict.fromkeys(NAMELESS, BOTH) | {"exec": ONE}


def warning_of(place, naming, source, outcome):
    """The text of the only warning of a program that runs twice, each time with this outcome."""
    given = f'shared = cache(backend="shared", max_size=8, {naming})\n'
    program = place.write("program.py", given + source + TRIED)
    for _ in range(2):
        done = place.start("-W", "always", program)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == outcome
    [message] = [line for line in done.stderr.splitlines() if "SharedCacheWarning: " in line]
    return message


@pytest.mark.parametrize("kind", NAMELESS)
def test_a_function_without_identity_is_cached_for_its_process_with_one_warning_that_says_why(place, kind):
    source, why = NAMELESS[kind]
    message = warning_of(place, "", source, [0, 1, True])
    assert why in message
    assert message.endswith(REMEDIES[kind])


@pytest.mark.parametrize("kind", [kind for kind in NAMELESS if REMEDIES[kind] == BOTH])
def test_a_name_alone_does_not_share_code_that_cannot_be_told_from_other_code(place, kind):
    source, why = NAMELESS[kind]
    message = warning_of(place, "name='f'", source, [0, 1, True])
    assert message.partition("SharedCacheWarning: ")[2].startswith("f: its values are cached in this process")
    assert why in message
    assert message.endswith("; pass version=, too, to share them, and another one whenever the code changes")


@pytest.mark.parametrize("kind", NAMELESS)
def test_a_version_alone_does_not_share_a_function_without_identity(place, kind):
    source, why = NAMELESS[kind]
    message = warning_of(place, "version=1", source, [0, 1, True])
    assert why in message
    assert message.endswith("; pass name=, too, to share them, and another version= whenever the code changes")


@pytest.mark.parametrize(
    ("source", "naming"),
    [
        *((source, "name='f', version=1") for source, _ in NAMELESS.values()),
        *((NAMELESS[kind][0], "name='f'") for kind in NAMELESS if REMEDIES[kind] == ONE),
    ],
    ids=[*NAMELESS, *(f"{kind}-name" for kind in NAMELESS if REMEDIES[kind] == ONE)],
)
def test_a_function_without_identity_is_shared_as_its_warning_says(place, source, naming):
    source = f'shared = cache(backend="shared", max_size=8, {naming})\n' + source + TRIED
    assert place.run(source) == [[0, 1, False]]
    assert place.run(source) == [[2, 3, False]]


PROMPT = """\
import json
from warp_cache import cache
f = cache(backend="shared", max_size=8)(lambda x: x)
print(json.dumps([f(1), f(1), f.cache_info().hits, f.shared_stats().path]))
"""
PROMPTS = [["-c"], ["-"], ["-i"], ["-m", "code"], ["-m", "asyncio"]]


def typed_in(place, prompt, source):
    given, stdin = ([source], "") if prompt == ["-c"] else ([], source)
    return place.start("-W", "always", *prompt, *given, stdin=stdin)


@pytest.mark.parametrize("prompt", PROMPTS, ids=" ".join)
def test_what_is_typed_in_is_cached_for_its_process(place, prompt):
    for _ in range(2):
        done = typed_in(place, prompt, PROMPT)
        assert "[1, 1, 1, null]" in done.stdout
        assert done.stderr.count("SharedCacheWarning: ") == 1
        assert "; pass name= to share them\n" in done.stderr


CELL = """\
import json
from warp_cache import cache
twice = lambda function: lambda x: 2 * function(x)
add = lambda x: x + 1
doubled = lambda add: twice(lambda x: add(x))
f = cache(backend="shared", max_size=8, name="cell"{version})(doubled(add))
print(json.dumps([f(1), f.cache_info().hits, f.shared_stats().path is None]))
"""


@pytest.mark.parametrize("prompt", PROMPTS, ids=" ".join)
def test_a_cell_that_is_named_and_edited_begins_anew(place, prompt):
    def outcome(source):
        done = typed_in(place, prompt, source)
        assert "SharedCacheWarning" not in done.stderr
        return done.stdout

    cell, fixed = CELL.format(version=""), CELL.format(version=", version=1")
    assert "[4, 0, false]" in outcome(cell)
    assert "[4, 1, false]" in outcome(cell)
    assert "[6, 0, false]" in outcome(cell.replace("2 * ", "3 * "))
    assert "[8, 0, false]" in outcome(cell.replace("x + 1", "x + 3"))
    assert "[4, 2, false]" in outcome(cell)
    assert "[4, 0, false]" in outcome(fixed)
    assert "[4, 1, false]" in outcome(fixed.replace("2 * ", "3 * "))


def test_an_exception_that_is_none_of_exception_ends_the_decoration(place):
    source = """
    class LastWords(BaseException):
        pass
    class A:
        def __reduce_ex__(self, protocol):
            raise LastWords
    try:
        @shared
        def f(x, a=[A()]):
            return x
    except LastWords:
        print(json.dumps("raised"))
    """
    assert place.run(source) == ["raised"]


@pytest.mark.parametrize("kind", ["dict", "list", "set"])
def test_values_may_change_while_they_are_walked(place, kind):
    source = f"""
    class Clearing:
        def __reduce_ex__(self, protocol):
            values.clear()
            return int, ()
    values = {kind}([(Clearing(), 1), (2, 3), (4, 5)])
    def make(values):
        @shared
        def f(x):
            return x if values is values else values
        return f
    say(make(values), 1)
    """
    assert place.run(source) == [["1", "miss"]]
