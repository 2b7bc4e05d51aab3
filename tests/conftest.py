"""What all tests share."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import kinds
import pytest

import warp_cache

# Where each module of tests runs. The full extent is every module. The extent `version`, for another Python, leaves out
# those whose promise is kept by Rust code that no version of CPython changes. The extent `build`, for another build
# of a version that has been tested, keeps those that meet the build itself: its C stack, its exit, its calls.
BUILD = {
    "test_exit": "how the interpreter ends, and takes its threads along",
    "test_garbage": "reference counts and the collector",
    "test_lru_cache": "calls and keys, side by side with this build's functools",
    "test_survival": "how much C stack a level of recursion takes",
    "test_threads": "switches between threads",
}
VERSION = {
    "test_bad_input": "how arguments are converted, and the words of CPython's own errors",
    "test_cache": "calls, keys, str layouts, methods, pickling",
    "test_coroutine_flights": "how tasks wait and are cancelled",
    "test_coroutine_flights_failures": "the allocations that a step makes",
    "test_coroutine_runtimes": "asyncio, uvloop and trio of this version",
    "test_coroutines": "the coroutine protocol, StopIteration, and what inspect detects",
    "test_cpython_lru_cache": "the tests are this version's own",
    "test_frameworks": "the frameworks installed for this version",
    "test_integrations": "the libraries installed for this version",
    "test_memory_exhausted": "the allocations that a call makes",
    "test_reentrancy": "what foreign code may do in the middle of a call",
    "test_shared": "calls and pickles of the shared backend",
    "test_shared_encoding": "the layouts of str and int, and pickle",
    "test_shared_names": "code objects, from which a function's identity is made",
    "test_typing": "the stub against this version's inspect",
}
FULL = {
    "test_architecture": "a text and the sources",
    "test_changed_root": "users and roots are the system's",
    "test_examples": "the examples use nothing that the tests of a version leave out",
    "test_extents": "these lists",
    "test_readme": "the examples use nothing that the tests of a version leave out",
    "test_shared_files": "files and their damages are the system's",
    "test_shared_leaks": "descriptors and mappings are the system's",
    "test_shared_processes": "kills and stops are the system's",
    "test_strategies": "the order of entries is Rust's, against the model",
}
EXTENTS = {"build": [BUILD], "version": [BUILD, VERSION], "full": [BUILD, VERSION, FULL]}

# A machine that is busy with other things is no failure.
hypothesis.settings.register_profile("steady", parent=hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("steady")


def pytest_configure() -> None:
    if not hasattr(warp_cache.warp_cache, "_ManualClock"):
        pytest.exit("this warp_cache was built without the hooks of its tests: `make build` has them", returncode=4)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--extent", choices=EXTENTS, default="full", help="how many of the modules of tests run")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A module outside of the extent is not even imported. One that no list names always runs."""
    extent = EXTENTS[config.getoption("extent")]
    listed = any(collection_path.stem in modules for modules in EXTENTS["full"])
    return True if listed and not any(collection_path.stem in modules for modules in extent) else None


@pytest.fixture(scope="session", autouse=True)
def own_folder() -> Iterator[None]:
    """Shared caches of a run of the tests are nobody else's."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        os.environ["WARP_CACHE_DIR"] = folder
        yield


@pytest.fixture(scope="module", autouse=True)
def past_is_frozen() -> None:
    """Thousands of tests and their reports are objects, too. A collection of garbage takes a fraction without them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", params=["plain", "coroutine"])
def function_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Whether the decorators of `kinds` decorate what they are given, or a coroutine function made of it."""
    kinds.current = request.param
    yield request.param
    kinds.current = "plain"


@pytest.fixture
def shared_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for regions of shared memory that this test alone uses, as do the processes that it starts."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="warp_cache-test-", dir=memory))
    monkeypatch.setenv("WARP_CACHE_DIR", str(directory))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)
