"""What all tests share."""

from __future__ import annotations

import gc

import hypothesis

# A machine that is busy with other things is no failure.
hypothesis.settings.register_profile("steady", parent=hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("steady")


def pytest_collection_finish() -> None:
    # Thousands of tests are objects, too. Without them, a test that collects garbage takes a fiftieth of the time.
    gc.collect()
    gc.freeze()
