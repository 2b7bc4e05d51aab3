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

# A machine that is busy with other things is no failure.
hypothesis.settings.register_profile("steady", parent=hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("steady")


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
