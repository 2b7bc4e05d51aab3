"""What all tests share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import hypothesis
import kinds
import pytest

# A machine that is busy with other things is no failure.
hypothesis.settings.register_profile("steady", parent=hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("steady")


def pytest_collection_finish() -> None:
    # Thousands of tests are objects, too. Without them, a test that collects garbage takes a fiftieth of the time.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", params=["plain", "coroutine"])
def function_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Whether the decorators of `kinds` decorate what they are given, or a coroutine function made of it."""
    kinds.current = request.param
    yield request.param
    kinds.current = "plain"
