"""Steps of coroutines: how the tests of coroutine functions suspend them, and how they go on."""

import asyncio
import types

import pytest


@types.coroutine
def pause(value=None):
    """Suspends whoever awaits it; a task goes on in the next iteration of its loop."""
    return (yield value)


def drive(coroutine):
    """Runs to the end without any event loop what must not suspend."""
    try:
        suspended = coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    pytest.fail(f"suspended with {suspended!r}")


async def settle(iterations=20):
    """Lets everything run that can on a loop of asyncio."""
    for _ in range(iterations):
        await asyncio.sleep(0)


def counts(f):
    """The hits and misses of a cached function so far."""
    return tuple(f.cache_info()[:2])
