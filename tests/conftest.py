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
