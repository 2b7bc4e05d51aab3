"""What all tests share."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    # Thousands of tests are objects, too. Without them, a test that collects garbage takes a fiftieth of the time.
    gc.collect()
    gc.freeze()
