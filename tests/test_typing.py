"""The stub: type checkers find in it what users rely on, it agrees with the package, and its examples run."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import inspect
import json
import os
import pydoc
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import warp_cache

TYPING = Path(__file__).parent / "typing"
ACCEPTED, REFUSED = TYPING / "accepted.py", TYPING / "refused.py"
DECORATORS = ["cache", "lru_cache"]


def stub_path() -> Path:
    """The stub of the package that is imported, which the build puts beside it."""
    spec = importlib.util.find_spec("warp_cache")
    assert spec is not None
    assert spec.submodule_search_locations, "warp_cache is no package"
    return Path(spec.submodule_search_locations[0]) / "__init__.pyi"


STUB = ast.parse(stub_path().read_text(encoding="utf-8"))


def module_command(name: str) -> list[str]:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return [sys.executable, "-m", name]


def pyright_command() -> list[str]:
    if importlib.util.find_spec("pyright") is not None:
        return [sys.executable, "-m", "pyright"]
    executable = shutil.which("pyright")
    if executable is None:
        pytest.skip("pyright is not installed")
    return [executable]


def run(command: list[str | Path], directory: Path) -> subprocess.CompletedProcess[str]:
    """Runs a type checker in an empty directory, so that it sees the installed package and no source tree."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")}
    return subprocess.run(
        [str(part) for part in command], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


def assert_mypy_finds_nothing(file: Path, directory: Path) -> None:
    # With --strict, an ignore that ignores nothing is an error.
    command = [*module_command("mypy"), "--strict", "--cache-dir", directory / "cache", file]
    result = run(command, directory)
    assert result.stdout.strip() == "Success: no issues found in 1 source file", result.stdout + result.stderr


@pytest.mark.parametrize("file", [ACCEPTED, REFUSED], ids=["accepted", "refused"])
def test_mypy_accepts_and_refuses(file: Path, tmp_path: Path) -> None:
    assert_mypy_finds_nothing(file, tmp_path)


def test_mypy_finds_nothing_wrong_with_the_stub(tmp_path: Path) -> None:
    assert_mypy_finds_nothing(shutil.copy(stub_path(), tmp_path / "stub.pyi"), tmp_path)


@pytest.mark.parametrize("file", [ACCEPTED, REFUSED], ids=["accepted", "refused"])
def test_pyright_accepts_and_refuses(file: Path, tmp_path: Path) -> None:
    shutil.copy(file, tmp_path)
    config = {
        "include": [file.name],
        "typeCheckingMode": "strict",
        # Here only pyright's own comments ignore an error, and one that ignores nothing is an error.
        "enableTypeIgnoreComments": False,
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config), encoding="utf-8")
    result = run([*pyright_command(), "--outputjson", "--pythonpath", sys.executable], tmp_path)
    assert result.stdout, result.stderr
    report = json.loads(result.stdout)
    found = [
        (diagnostic["range"]["start"]["line"] + 1, diagnostic["severity"], diagnostic["message"])
        for diagnostic in report["generalDiagnostics"]
    ]
    assert found == []
    # Pyright counts the files that it was told to check, and it may be told of none.
    assert report["summary"]["filesAnalyzed"] == 1


def test_stub_agrees_with_the_package(tmp_path: Path) -> None:
    python, *_ = module_command("mypy")
    allowlist = TYPING / "stubtest-allowlist.txt"
    result = run([python, "-m", "mypy.stubtest", "warp_cache", "--allowlist", allowlist], tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def documented(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.Constant]]:
    """Every docstring below with the dotted name of what it documents: modules, classes, functions and variables."""
    before: ast.stmt | None = None
    for statement in body:
        match statement:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield from documented(statement.body, f"{prefix}{name}.")
            case ast.Expr(value=ast.Constant(value=str()) as docstring):
                match before:
                    case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                        yield f"{prefix}{name}", docstring
                    case None:
                        yield prefix.rstrip("."), docstring
        before = statement


def examples() -> Iterator[doctest.DocTest]:
    parser = doctest.DocTestParser()
    for name, docstring in documented(STUB.body):
        text = inspect.cleandoc(str(docstring.value))
        test = parser.get_doctest(text, {"__name__": "__main__"}, name, str(stub_path()), docstring.lineno - 1)
        if test.examples:
            yield test


EXAMPLES = list(examples())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name or "module")
def test_example_in_the_stub_runs(example: doctest.DocTest) -> None:
    report: list[str] = []
    failed, attempted = doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert attempted == len(example.examples)
    assert failed == 0, "".join(report)


def test_every_public_name_has_an_example() -> None:
    public = {name for name in warp_cache.__all__ if not name.startswith("_")} | {"__version__"}
    assert public - {example.name for example in EXAMPLES} == set()


def overloads(name: str) -> list[dict[str, tuple[inspect._ParameterKind, object]]]:
    """The parameters of each overload in the stub: kind and default, which is `empty` where there is none."""
    found = []
    for function in STUB.body:
        if not (isinstance(function, ast.FunctionDef) and function.name == name):
            continue
        arguments = function.args
        assert not arguments.posonlyargs
        assert arguments.vararg is arguments.kwarg is None
        missing: list[ast.expr | None] = [None] * (len(arguments.args) - len(arguments.defaults))
        parameters = {}
        for kind, group, defaults in [
            (inspect.Parameter.POSITIONAL_OR_KEYWORD, arguments.args, [*missing, *arguments.defaults]),
            (inspect.Parameter.KEYWORD_ONLY, arguments.kwonlyargs, arguments.kw_defaults),
        ]:
            for argument, default in zip(group, defaults, strict=True):
                value = inspect.Parameter.empty
                if default is not None:
                    value = eval(ast.unparse(default), vars(warp_cache).copy())
                parameters[argument.arg] = (kind, value)
        found.append(parameters)
    return found


@pytest.mark.parametrize("name", DECORATORS)
def test_signature_agrees_with_the_stub(name: str) -> None:
    runtime = inspect.signature(getattr(warp_cache, name)).parameters
    in_stub = overloads(name)
    # The first overload takes the function itself in place of the first argument, and has all parameters in order.
    assert list(in_stub[0]) == list(runtime)
    for parameters in in_stub:
        for parameter, (kind, default) in parameters.items():
            # An overload may ask for more: a name where position would do, a value where there is a default.
            assert kind in (runtime[parameter].kind, inspect.Parameter.KEYWORD_ONLY)
            assert default in (inspect.Parameter.empty, runtime[parameter].default)
            assert type(default) in (type, type(runtime[parameter].default))
    for parameter, described in runtime.items():
        assert (described.kind, described.default) in [
            parameters[parameter] for parameters in in_stub if parameter in parameters
        ]


@pytest.mark.parametrize("name", DECORATORS)
def test_help_describes_every_parameter(name: str) -> None:
    function = getattr(warp_cache, name)
    text = pydoc.render_doc(function, renderer=pydoc.plaintext)
    assert f"{name} in module warp_cache" in text.splitlines()[0]
    assert f"{name}(" in text
    assert "Cache a function's results" in text
    documentation = inspect.getdoc(function) or ""
    for parameter in inspect.signature(function).parameters:
        assert parameter in documentation
    assert "Raises" in documentation
