"""One computation a key and event loop: who waits, who gets what, who takes over, and that nobody waits for ever."""

import asyncio
import collections
import contextlib
import contextvars
import faulthandler
import gc
import itertools
import random
import sys
import threading
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import counts, pause, settle
from warp_cache.warp_cache import _ManualClock

from warp_cache import cache, lru_cache

DECORATORS = {
    "cache": cache,
    "cache-None": cache(max_size=None),
    "cache-1": cache(max_size=1),
    "cache-0": cache(max_size=0),
    "cache-lfu": cache("lfu", 3),
    "cache-mru-ttl": cache("mru", 3, ttl=1000),
    "cache-asked-for": cache(single_flight=True),
    "lru_cache": lru_cache,
    "lru_cache-None": lru_cache(None),
    "lru_cache-0": lru_cache(0),
}
every = pytest.mark.parametrize("decorator", [pytest.param(made, id=name) for name, made in DECORATORS.items()])
both_decorators = pytest.mark.parametrize("decorator", [cache, lru_cache])


@pytest.fixture(autouse=True)
def watched():
    """A hang that no timeout of asyncio ends, ends the run with every stack shown."""
    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def run(main, **options):
    """Runs a coroutine function on a new event loop that must have nothing to complain about."""
    complaints = []

    async def bounded():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        try:
            return await asyncio.wait_for(main(), 20)
        finally:
            gc.collect()

    value = asyncio.run(bounded(), **options)
    gc.collect()
    assert complaints == []
    return value


class Run:
    """A computation under way, which ends when the test says so."""

    def __init__(self, key):
        self.key, self.task, self.future = key, asyncio.current_task(), asyncio.get_running_loop().create_future()

    def finish(self, value):
        self.future.set_result(value)

    def fail(self, error):
        self.future.set_exception(error)


def held(decorator):
    """A cached function whose computations wait for the test, and the list of all that ever began."""
    runs = []

    @decorator
    async def f(key):
        runs.append(Run(key))
        return await runs[-1].future

    return f, runs


async def begin(f, number, key=None):
    """Tasks of callers, all of which have come as far as they can."""
    tasks = [asyncio.create_task(f(key)) for _ in range(number)]
    await settle()
    return tasks


async def outcomes(tasks):
    """What became of each task: its value, its exception, or "cancelled"."""
    await asyncio.wait(tasks)
    return ["cancelled" if task.cancelled() else task.exception() or task.result() for task in tasks]


class Failed(Exception):
    pass


class Interrupt(BaseException):
    """As KeyboardInterrupt, but for one task only."""


# Sharing


@every
@pytest.mark.parametrize("number", [2, 10, 300])
def test_callers_who_come_meanwhile_share_one_computation(decorator, number):
    async def main():
        f, runs = held(decorator)
        tasks = await begin(f, number)
        assert len(runs) == 1
        value = object()
        runs[0].finish(value)
        assert await outcomes(tasks) == [value] * number
        assert len(runs) == 1
        assert counts(f) == (number - 1, 1)
        assert f.cache_info().current_size == (f.cache_info().max_size != 0)

    run(main)


@every
@pytest.mark.parametrize("number", [2, 10, 300])
def test_callers_who_come_meanwhile_share_the_exception_which_is_not_stored(decorator, number):
    async def main():
        f, runs = held(decorator)
        tasks = await begin(f, number)
        error = Failed("once")
        runs[0].fail(error)
        for outcome in await outcomes(tasks):
            assert outcome is error
        assert len(runs) == 1
        assert f.cache_info() == (0, number, f.cache_info().max_size, 0)
        (task,) = await begin(f, 1)
        assert len(runs) == 2
        runs[1].finish("value")
        assert await task == "value"

    run(main)


@both_decorators
def test_gather_and_bare_awaits_share_with_tasks(decorator):
    async def main():
        ran = []

        @decorator
        async def f(key):
            ran.append(key)
            await asyncio.sleep(0)
            return [key]

        calls = [f(1), f(1), f(1)]
        first, others = await calls[1], await asyncio.gather(calls[0], calls[2], f(1), f(2))
        assert [each is first for each in others] == [True, True, True, False]
        assert ran == [1, 2]
        assert counts(f) == (3, 2)

    run(main)


def test_each_key_has_a_computation_of_its_own():
    async def main():
        f, runs = held(cache)
        tasks = [asyncio.create_task(f(key)) for key in (1, 2, 1, 3, 2)]
        await settle()
        assert [each.key for each in runs] == [1, 2, 3]
        runs[2].finish("three")
        await settle()
        assert [task.done() for task in tasks] == [False, False, False, True, False]
        runs[0].fail(Failed())
        runs[1].finish("two")
        results = await outcomes(tasks)
        assert results[1:2] + results[3:] == ["two", "three", "two"]
        assert results[0] is results[2]
        assert (f.cache_contains(1), f.cache_contains(2), f.cache_contains(3)) == (False, True, True)

    run(main)


def test_equal_arguments_share_and_typed_ones_of_other_types_do_not():
    async def main():
        f, runs = held(cache)
        typed, typed_runs = held(cache(typed=True))
        tasks = [asyncio.create_task(function(key)) for function in (f, typed) for key in (1, 1.0, True, 1)]
        await settle()
        assert (len(runs), len(typed_runs)) == (1, 3)
        for each in runs + typed_runs:
            each.finish(each.key)
        assert list(map(type, await asyncio.gather(*tasks))) == [int] * 4 + [int, float, bool, int]

    run(main)


def test_ten_thousand_tasks_on_one_key_run_it_once():
    async def main():
        f, runs = held(cache)
        tasks = await begin(f, 10_000)
        assert len(runs) == 1
        runs[0].finish("value")
        assert await asyncio.gather(*tasks) == ["value"] * 10_000
        assert counts(f) == (9_999, 1)

    run(main)


def test_single_flight_can_be_declined():
    async def main():
        for decorator in (cache(single_flight=False), lru_cache(single_flight=False)):
            f, runs = held(decorator)
            tasks = await begin(f, 5)
            assert len(runs) == 5
            tasks[1].cancel()
            runs[2].fail(Failed())
            for number in (4, 3, 0):
                runs[number].finish(number)
            results = await outcomes(tasks)
            assert [results[number] for number in (0, 1, 3, 4)] == [0, "cancelled", 3, 4]
            assert isinstance(results[2], Failed)
            assert counts(f) == (0, 5)
            assert await f(None) in (0, 3, 4)
            assert counts(f) == (1, 5)

    run(main)


# Exceptions


def depth(error):
    """How many entries the traceback of an exception has."""
    number, entry = 0, error.__traceback__
    while entry is not None:
        number, entry = number + 1, entry.tb_next
    return number


@pytest.mark.parametrize("handling", [False, True])
def test_the_traceback_of_a_shared_exception_does_not_grow_with_those_who_wait(handling):
    async def caller(f):
        if not handling:
            return await f(None)
        try:
            raise KeyError("handled")
        except KeyError:
            return await f(None)

    async def depth_with(number):
        f, runs = held(cache)
        tasks = [asyncio.create_task(caller(f)) for _ in range(number)]
        await settle()
        runs[0].fail(Failed())
        errors = await outcomes(tasks)
        assert len(set(map(id, errors))) == 1
        contexts, error = 0, errors[0]
        while error is not None and contexts < 1000:
            contexts, error = contexts + 1, error.__context__
        assert contexts <= 3
        return depth(errors[0])

    async def main():
        assert await depth_with(200) <= await depth_with(3) + 1

    run(main)


def test_the_traceback_that_one_who_waits_sees_names_the_function():
    async def main():
        @cache
        async def recognisable():
            await asyncio.sleep(0)
            raise Failed()

        for outcome in await asyncio.gather(recognisable(), recognisable(), return_exceptions=True):
            names, entry = [], outcome.__traceback__
            while entry is not None:
                names, entry = [*names, entry.tb_frame.f_code.co_name], entry.tb_next
            assert "recognisable" in names

    run(main)


def test_an_exception_nobody_asked_for_is_no_complaint():
    async def main():
        f, runs = held(cache)
        leader, waiter = await begin(f, 2)
        waiter.cancel()
        await settle()
        runs[0].fail(Failed())
        assert isinstance((await outcomes([leader]))[0], Failed)
        del leader, waiter, runs[:]
        gc.collect()

    run(main)


@pytest.mark.parametrize("kind", [Failed, StopAsyncIteration, TimeoutError, asyncio.InvalidStateError, AssertionError])
def test_any_ordinary_exception_is_shared(kind):
    async def main():
        f, runs = held(cache)
        tasks = await begin(f, 3)
        error = kind("text")
        runs[0].fail(error)
        assert [outcome is error for outcome in await outcomes(tasks)] == [True] * 3
        assert counts(f) == (0, 3)

    run(main)


def test_a_stop_iteration_is_a_runtime_error_for_all():
    async def main():
        @cache
        async def f():
            await asyncio.sleep(0)
            raise StopIteration(1)

        results = await asyncio.gather(f(), f(), f(), return_exceptions=True)
        assert [type(each) for each in results] == [RuntimeError] * 3

    run(main)


# Cancellation


@every
@pytest.mark.parametrize("number", [1, 2, 4])
def test_cancelling_one_who_waits_hurts_nobody_else(decorator, number):
    async def main():
        f, runs = held(decorator)
        tasks = await begin(f, 5)
        tasks[number].cancel()
        await settle()
        assert [task.done() for task in tasks] == [each == number for each in range(5)]
        runs[0].finish("value")
        expected = ["value"] * 5
        expected[number] = "cancelled"
        assert await outcomes(tasks) == expected
        assert len(runs) == 1
        assert sum(counts(f)) == 5

    run(main)


@every
def test_when_the_one_who_computes_is_cancelled_exactly_one_takes_over(decorator):
    async def main():
        f, runs = held(decorator)
        tasks = await begin(f, 5)
        assert runs[0].task is tasks[0]
        tasks[0].cancel()
        await settle()
        assert len(runs) == 2
        assert runs[1].task in tasks[1:]
        runs[1].finish("value")
        assert await outcomes(tasks) == ["cancelled"] + ["value"] * 4
        assert len(runs) == 2
        assert counts(f) == (3, 2)

    run(main)


@both_decorators
def test_a_chain_of_cancelled_computations_ends_with_the_last_who_waits(decorator):
    async def main():
        f, runs = held(decorator)
        tasks = await begin(f, 30)
        for number in range(29):
            assert len(runs) == number + 1
            runs[number].task.cancel()
            await settle()
        assert len(runs) == 30
        runs[29].finish("value")
        results = await outcomes(tasks)
        assert sorted(results) == ["cancelled"] * 29 + ["value"]
        assert counts(f) == (0, 30)
        assert await f(None) == "value"

    run(main)


def test_when_all_are_cancelled_the_next_caller_starts_afresh():
    async def main():
        f, runs = held(cache)
        tasks = await begin(f, 5)
        for task in tasks:
            task.cancel()
        assert await outcomes(tasks) == ["cancelled"] * 5
        assert len(runs) == 1
        assert not f.cache_contains(None)
        (task,) = await begin(f, 1)
        assert len(runs) == 2
        runs[1].finish("value")
        assert await task == "value"

    run(main)


@pytest.mark.parametrize("ticks", range(6))
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("leader_first", [True, False])
def test_one_who_would_take_over_may_be_cancelled_at_the_same_time(ticks, number, leader_first):
    async def main():
        f, runs = held(cache)
        tasks = await begin(f, 4)
        pair = [tasks[0], tasks[number]]
        for task in pair if leader_first else reversed(pair):
            task.cancel()
            await settle(ticks)
        await settle()
        assert len(runs) in (2, 3)
        if ticks == 0:
            assert len(runs) == 2
        runs[-1].finish("value")
        results = await outcomes(tasks)
        assert [each for place, each in enumerate(results) if place not in (0, number)] == ["value"] * 2
        assert [results[0], results[number]] == ["cancelled"] * 2
        assert sum(counts(f)) == 4
        assert await f(None) == "value"

    run(main)


@pytest.mark.parametrize("ticks", range(4))
@pytest.mark.parametrize("ending", ["finish", "fail"])
@pytest.mark.parametrize("who", [0, 1, 2])
def test_a_caller_may_be_cancelled_just_when_the_computation_ends(ticks, ending, who):
    async def main():
        f, runs = held(cache)
        tasks = await begin(f, 3)
        getattr(runs[0], ending)("value" if ending == "finish" else Failed())
        await settle(ticks)
        tasks[who].cancel()
        await settle()
        if who == 0 and ticks == 0:  # the cancellation came first
            assert len(runs) == 2
            getattr(runs[1], ending)("value" if ending == "finish" else Failed())
        results = await outcomes(tasks)
        assert len(runs) == 1 + (who == 0 and ticks == 0)
        for number, result in enumerate(results):
            assert result == "value" or isinstance(result, Failed) or (number == who and result == "cancelled")
        assert sum(counts(f)) == 3

    run(main)


def test_a_cancellation_that_the_function_survives_ends_nothing():
    async def main():
        @cache
        async def f():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
            return "survived"

        tasks = await begin(lambda key: f(), 3)
        tasks[0].cancel()
        assert await outcomes(tasks) == ["survived"] * 3
        assert counts(f) == (2, 1)

    run(main)


def test_cleaning_up_after_a_cancellation_may_take_its_time():
    async def main():
        under_way = []

        @cache
        async def f():
            under_way.append(1)
            try:
                await (asyncio.Event().wait() if len(under_way) == 1 else asyncio.sleep(0))
                return len(under_way)
            finally:
                await settle(5)

        tasks = await begin(lambda key: f(), 4)
        tasks[0].cancel()
        assert await outcomes(tasks) == ["cancelled", 2, 2, 2]

    run(main)


def test_an_exception_raised_instead_of_the_cancellation_is_shared():
    async def main():
        @cache
        async def f():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise Failed() from None

        tasks = await begin(lambda key: f(), 3)
        tasks[0].cancel()
        assert [type(each) for each in await outcomes(tasks)] == [Failed] * 3
        assert counts(f) == (0, 3)

    run(main)


@pytest.mark.parametrize("kind", [Interrupt, KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_what_is_no_ordinary_exception_hands_over(kind):
    async def main():
        ran = []

        @cache
        async def f():
            ran.append(1)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if len(ran) == 1:
                raise kind
            return "value"

        async def caller():
            try:
                return await f()
            except kind:
                return "interrupted"

        tasks = [asyncio.create_task(caller()) for _ in range(4)]
        assert await outcomes(tasks) == ["interrupted"] + ["value"] * 3
        assert len(ran) == 2
        assert counts(f) == (2, 2)

    run(main)


def test_closing_the_call_that_computes_hands_over():
    async def main():
        ran = []

        @cache
        async def f():
            ran.append(1)
            await pause()
            return len(ran)

        async def by_hand():
            leader = f()
            leader.send(None)
            await trigger.wait()
            leader.close()

        trigger = asyncio.Event()
        driver = asyncio.create_task(by_hand())
        await settle()
        tasks = await begin(lambda key: f(), 3)
        assert ran == [1]
        trigger.set()
        assert await outcomes([*tasks, driver]) == [2, 2, 2, None]
        assert ran == [1, 1]

    run(main)


def test_a_task_that_steps_a_call_by_hand_does_not_wait_for_it():
    async def main():
        f, runs = held(cache)
        leader = f(None)
        leader.send(None)

        async def finish():
            await settle()
            for number, each in enumerate(runs):
                each.finish(number)

        finishing = asyncio.create_task(finish())
        assert await f(None) == 1
        await finishing
        with pytest.raises(StopIteration) as stop:
            leader.send(None)
        assert stop.value.value == 0

    run(main)


def test_closing_one_who_waits_hurts_nobody():
    async def main():
        f, runs = held(cache)
        tasks = await begin(f, 2)
        waiter = f(None)
        waiter.send(None)
        waiter.close()
        runs[0].finish("value")
        assert await outcomes(tasks) == ["value"] * 2
        assert sum(counts(f)) == 3

    run(main)


def test_closing_one_who_was_just_chosen_to_take_over_passes_it_on():
    async def main():
        f, runs = held(cache)
        (leader,) = await begin(f, 1)
        waiters = [f(None), f(None)]
        for waiter in waiters:
            waiter.send(None)
        tasks = await begin(f, 2)
        leader.cancel()
        await asyncio.wait([leader])
        for waiter in waiters:
            waiter.close()
        await settle()
        assert len(runs) == 2
        runs[1].finish("value")
        assert await outcomes(tasks) == ["value"] * 2

    run(main)


def test_dropping_one_who_was_just_chosen_to_take_over_passes_it_on():
    async def main():
        f, runs = held(cache)
        (leader,) = await begin(f, 1)
        waiters = [f(None), f(None)]
        for waiter in waiters:
            waiter.send(None)
        tasks = await begin(f, 2)
        leader.cancel()
        await asyncio.wait([leader])
        del waiter, waiters
        gc.collect()
        await settle()
        assert len(runs) == 2
        runs[1].finish("value")
        assert await outcomes(tasks) == ["value"] * 2

    run(main)


@pytest.mark.parametrize("collector", [False, True])
def test_a_computation_whose_task_is_garbage_hands_over(collector):
    async def main():
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context["message"]))
        ran = []

        @cache
        async def f():
            ran.append(1)
            if len(ran) == 1:
                await asyncio.get_running_loop().create_future()  # that nobody else knows
            return "value"

        leader = asyncio.create_task(f())
        await settle()
        waiters = [asyncio.create_task(f()) for _ in range(3)] if collector else []
        await settle()
        gone = weakref.ref(leader)
        del leader
        gc.collect()
        assert gone() is None
        assert complaints == ["Task was destroyed but it is pending!"]
        assert await asyncio.gather(*waiters, f()) == ["value"] * (len(waiters) + 1)
        assert len(ran) == 2

    run(main)


@both_decorators
def test_a_timeout_of_one_who_waits_or_computes_hurts_nobody_else(decorator):
    async def main():
        f, runs = held(decorator)
        impatient = asyncio.create_task(asyncio.wait_for(f(None), 0.01))
        await settle()
        waiting = asyncio.create_task(asyncio.wait_for(f(None), 0.02))
        patient = await begin(f, 3)
        for task in (impatient, waiting):
            with pytest.raises(asyncio.TimeoutError):
                await task
        await settle()
        assert len(runs) in (2, 3)  # the one who takes over may be the next to lose patience
        runs[-1].finish("value")
        assert await outcomes(patient) == ["value"] * 3
        assert sum(counts(f)) == 5

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="came with Python 3.11")
def test_a_failing_task_group_hands_over():
    async def main():
        f, runs = held(cache)
        inside = []

        async def group():
            async with asyncio.TaskGroup() as group:
                inside.append(group.create_task(f(None)))
                await settle()
                await trigger.wait()
                raise Failed

        trigger = asyncio.Event()
        doomed = asyncio.create_task(group())
        await settle()
        waiters = await begin(f, 2)
        trigger.set()
        with pytest.raises(BaseException, match="unhandled") as raised:
            await doomed
        assert [type(each) for each in raised.value.exceptions] == [Failed]
        await settle()
        runs[1].finish("value")
        assert await outcomes([*inside, *waiters]) == ["cancelled", "value", "value"]

    run(main)


# Clearing and invalidating


@both_decorators
@pytest.mark.parametrize("how", ["clear", "invalidate"])
def test_clearing_while_a_computation_runs(decorator, how):
    async def main():
        f, runs = held(decorator)
        older = await begin(f, 3)
        if how == "clear":
            f.cache_clear()
        else:
            assert f.cache_invalidate(None) is False
        newer = await begin(f, 3)
        assert len(runs) == 2
        runs[0].finish("older")
        assert await outcomes(older) == ["older"] * 3
        assert not f.cache_contains(None)
        newer += await begin(f, 1)
        assert len(runs) == 2
        runs[1].finish("newer")
        assert await outcomes(newer) == ["newer"] * 4
        assert await f(None) == "newer"
        assert len(runs) == 2

    run(main)


@both_decorators
@pytest.mark.parametrize("how", ["clear", "invalidate"])
def test_a_late_value_does_not_replace_a_newer_one(decorator, how):
    async def main():
        f, runs = held(decorator)
        older = await begin(f, 3)
        f.cache_clear() if how == "clear" else f.cache_invalidate(None)
        newer = await begin(f, 2)
        runs[1].finish("newer")
        assert await outcomes(newer) == ["newer"] * 2
        runs[0].finish("older")
        assert await outcomes(older) == ["older"] * 3
        assert await f(None) == "newer"
        assert f.cache_info().current_size == 1

    run(main)


@pytest.mark.parametrize("how", ["clear", "invalidate"])
def test_a_late_value_is_not_stored_though_nobody_came_after(how):
    async def main():
        f, runs = held(cache)
        (task,) = await begin(f, 1)
        f.cache_clear() if how == "clear" else f.cache_invalidate(None)
        runs[0].finish("older")
        assert await task == "older"
        assert f.cache_info().current_size == 0

    run(main)


def test_invalidating_one_key_leaves_the_computations_of_others():
    async def main():
        f, runs = held(cache)
        tasks = await begin(f, 2, 1) + await begin(f, 2, 2)
        assert f.cache_invalidate(1) is False
        tasks += await begin(f, 1, 2)
        assert [each.key for each in runs] == [1, 2]
        runs[0].finish("one")
        runs[1].finish("two")
        assert await outcomes(tasks) == ["one"] * 2 + ["two"] * 3
        assert (f.cache_contains(1), f.cache_contains(2)) == (False, True)

    run(main)


@pytest.mark.parametrize("how", ["clear", "invalidate"])
def test_a_cleared_computation_that_is_cancelled_still_leaves_everybody_with_a_value(how):
    async def main():
        f, runs = held(cache)
        older = await begin(f, 3)
        f.cache_clear() if how == "clear" else f.cache_invalidate(None)
        newer = await begin(f, 2)
        older[0].cancel()
        await settle()
        for number, each in enumerate(runs[1:]):
            each.finish(number)
        results = await outcomes(older + newer)
        assert results[0] == "cancelled"
        assert all(isinstance(result, int) for result in results[1:])

    run(main)


def test_a_function_may_clear_or_invalidate_its_own_cache():
    async def main():
        for act in (lambda: f.cache_clear(), lambda: f.cache_invalidate(1)):

            @cache
            async def f(key, act=act):
                await asyncio.sleep(0)
                act()
                return key

            assert await asyncio.gather(f(1), f(1), f(1)) == [1, 1, 1]
            assert not f.cache_contains(1)

    run(main)


def test_cache_contains_says_no_while_a_computation_runs_and_counts_nothing():
    async def main():
        f, runs = held(cache)
        (task,) = await begin(f, 1)
        assert f.cache_contains(None) is False
        assert f.cache_info() == (0, 1, 128, 0)
        runs[0].finish(1)
        await task
        assert f.cache_contains(None) is True
        assert f.cache_info() == (0, 1, 128, 1)

    run(main)


# Late results, with a bound and a time to live


def test_late_results_keep_to_the_bound():
    async def main():
        f, runs = held(cache(max_size=2))
        tasks = [asyncio.create_task(f(key)) for key in range(6)]
        await settle()
        for number in (5, 0, 3, 1, 4, 2):
            runs[number].finish(number)
            await settle()
            assert f.cache_info().current_size <= 2
        assert await outcomes(tasks) == [0, 1, 2, 3, 4, 5]
        assert [f.cache_contains(key) for key in range(6)] == [False, False, True, False, True, False]

    run(main)


def test_a_value_lives_from_the_moment_its_computation_ended():
    async def main():
        with _ManualClock() as clock:
            f, runs = held(cache(ttl=10))
            tasks = await begin(f, 3)
            clock.advance(1000)
            tasks += await begin(f, 1)
            assert len(runs) == 1
            runs[0].finish("value")
            await outcomes(tasks)
            clock.advance(9)
            assert await f(None) == "value"
            clock.advance(1)
            tasks = await begin(f, 2)
            assert len(runs) == 2
            runs[1].finish("again")
            assert await outcomes(tasks) == ["again"] * 2
        assert f.cache_info() == (3 + 1 + 1, 2, 128, 1)

    run(main)


@pytest.mark.parametrize("how", ["expire", "clear", "invalidate"])
@pytest.mark.parametrize("ticks", range(4))
def test_those_who_wait_get_the_value_though_it_is_gone_before_they_wake(how, ticks):
    async def main():
        with _ManualClock() as clock:
            f, runs = held(cache(ttl=10))
            tasks = await begin(f, 5)
            runs[0].finish("value")
            await settle(ticks)
            act = {
                "expire": lambda: clock.advance(100),
                "clear": f.cache_clear,
                "invalidate": lambda: f.cache_invalidate(None),
            }
            act[how]()
            assert await outcomes(tasks) == ["value"] * 5
            assert len(runs) == 1

    run(main)


def test_an_entry_evicted_before_those_who_wait_wake_is_theirs_all_the_same():
    async def main():
        f, runs = held(cache(max_size=1))
        first, second = await begin(f, 3, 1), await begin(f, 3, 2)
        runs[0].finish("one")
        runs[1].finish("two")
        assert await outcomes(first + second) == ["one"] * 3 + ["two"] * 3
        assert len(runs) == 2

    run(main)


# Keys whose comparison does something else


class Key:
    """A key whose hash is that of all others, and whose comparison does something first."""

    meanwhile = staticmethod(lambda: None)

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return 1

    def __eq__(self, other):
        self.meanwhile()
        return isinstance(other, Key) and self.number == other.number


@every
@pytest.mark.parametrize("when", range(12))
def test_a_raising_eq_leaves_nobody_waiting(decorator, when, monkeypatch):
    async def main():
        compared = itertools.count()

        def meanwhile():
            if next(compared) == when:
                raise Failed("eq")

        @decorator
        async def f(key):
            await asyncio.sleep(0)
            return "value of", key.number

        async def caller(number):
            return await f(Key(number))

        await caller(9)
        monkeypatch.setattr(Key, "meanwhile", staticmethod(meanwhile))
        tasks = [asyncio.create_task(caller(number)) for number in (0, 1, 0, 1, 2, 0)]
        results = await outcomes(tasks)
        monkeypatch.setattr(Key, "meanwhile", staticmethod(lambda: None))
        for number, result in zip((0, 1, 0, 1, 2, 0), results, strict=True):
            assert result == ("value of", number) or isinstance(result, Failed)
        for number in (0, 1, 2, 9):
            assert await caller(number) == ("value of", number)

    run(main)


@every
@pytest.mark.parametrize("what", ["clear", "invalidate", "info", "call", "start", "collect"])
def test_eq_may_do_anything(decorator, what, monkeypatch):
    async def main():
        @decorator
        async def f(key):
            await asyncio.sleep(0)
            return "value of", key.number

        def start():
            call = f(Key(5))
            with contextlib.suppress(StopIteration):
                call.send(None)
            call.close()

        act = {
            "clear": f.cache_clear,
            "invalidate": lambda: f.cache_invalidate(Key(0)),
            "info": f.cache_info,
            "call": lambda: f(Key(1)).close(),
            "start": start,
            "collect": lambda: gc.collect(0),
        }[what]
        busy = []

        def meanwhile():
            if not busy:
                busy.append(1)
                act()
                busy.clear()

        monkeypatch.setattr(Key, "meanwhile", staticmethod(meanwhile))
        for _ in range(3):
            f.cache_clear()
            tasks = [asyncio.create_task(f(Key(number))) for number in (0, 1, 0, 2, 1, 0)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            results = await outcomes(tasks)
            assert results == ["cancelled"] + [("value of", number) for number in (1, 0, 2, 1, 0)]

    run(main)


# Recursion


@every
def test_recursion_on_other_keys_runs_each_once(decorator):
    async def main():
        ran = []

        @decorator
        async def fib(n):
            ran.append(n)
            await asyncio.sleep(0)
            return n if n < 2 else await fib(n - 1) + await fib(n - 2)

        assert await fib(10) == 55
        if fib.cache_info().max_size is None:
            assert sorted(ran) == list(range(11))
            assert counts(fib) == (8, 11)

    run(main)


@every
def test_concurrent_recursion_on_other_keys_ends(decorator):
    async def main():
        ran = []

        @decorator
        async def fib(n):
            ran.append(n)
            await asyncio.sleep(0)
            return n if n < 2 else sum(await asyncio.gather(fib(n - 1), fib(n - 2)))

        assert await asyncio.gather(fib(10), fib(9), fib(10)) == [55, 34, 55]
        if fib.cache_info().max_size is None:
            assert sorted(ran) == list(range(11))

    run(main)


async def directly(call):
    return await call


async def in_a_task(call):
    return await asyncio.create_task(call)


async def in_a_gather(call):
    return (await asyncio.gather(call, asyncio.sleep(0)))[0]


async def in_a_timeout(call):
    return await asyncio.wait_for(call, 10)


async def in_a_shield(call):
    return await asyncio.shield(call)


async def in_a_task_of_a_task(call):
    return await asyncio.create_task(in_a_task(call))


async def with_another_key_between(call):
    @cache
    async def between():
        return await in_a_task(call)

    return await in_a_task(between())


async def in_a_callback(call):
    started = asyncio.get_running_loop().create_future()

    def start():
        call.close() if started.cancelled() else started.set_result(asyncio.ensure_future(call))

    started.get_loop().call_soon(start)
    return await (await started)


NESTINGS = [
    directly,
    in_a_task,
    in_a_gather,
    in_a_timeout,
    in_a_shield,
    in_a_task_of_a_task,
    with_another_key_between,
    in_a_callback,
]
every_nesting = pytest.mark.parametrize("nest", NESTINGS, ids=lambda nest: nest.__name__)


@every
@every_nesting
def test_recursion_on_the_same_key_ends(decorator, nest):
    async def main():
        ran = []

        @decorator
        async def f(key):
            ran.append(key)
            await asyncio.sleep(0)
            return await nest(f(key)) if len(ran) < 5 else "bottom"

        assert await f(1) == "bottom"
        assert len(ran) == 5
        assert sum(counts(f)) == 5
        assert await f(1) == "bottom"

    run(main)


@every_nesting
def test_those_who_wait_for_a_computation_that_recurses_on_its_key_get_the_value(nest):
    async def main():
        ran = []

        @cache
        async def f(key):
            ran.append(key)
            await asyncio.sleep(0)
            return await nest(f(key)) if len(ran) < 3 else "bottom"

        assert await asyncio.gather(*(f(1) for _ in range(5))) == ["bottom"] * 5
        assert len(ran) == 3

    run(main)


@every_nesting
@pytest.mark.parametrize("size", [2, 3, 5])
def test_computations_that_wait_for_each_other_in_a_circle_end(nest, size):
    async def main():
        ran = collections.Counter()

        @cache
        async def f(key):
            ran[key] += 1
            await asyncio.sleep(0)
            return await nest(f((key + 1) % size)) if sum(ran.values()) < 3 * size else "bottom"

        tasks = [asyncio.create_task(f(key)) for key in range(size)]
        tasks += [asyncio.create_task(f(key)) for key in range(size)]
        assert await outcomes(tasks) == ["bottom"] * (2 * size)
        assert await f(0) == "bottom"

    run(main)


@every_nesting
@pytest.mark.parametrize("decorators", [(cache, cache), (cache, lru_cache), (lru_cache, lru_cache)])
def test_two_functions_that_wait_for_each_other_end(nest, decorators):
    async def main():
        ran = []

        @decorators[0]
        async def first(key):
            ran.append("first")
            await asyncio.sleep(0)
            return await nest(second(key)) if len(ran) < 8 else "bottom"

        @decorators[1]
        async def second(key):
            ran.append("second")
            await asyncio.sleep(0)
            return await nest(first(key)) if len(ran) < 8 else "bottom"

        calls = [first(1), second(1), first(1), second(1)]
        assert await asyncio.gather(*calls) == ["bottom"] * 4

    run(main)


def test_a_circle_that_closes_late_ends():
    async def main():
        release, ran = asyncio.Event(), collections.Counter()

        @cache
        async def f(key):
            ran[key] += 1
            if ran[key] > 1:
                return f"again {key}"
            await release.wait()
            return await f({1: 2, 2: 3, 3: 1}[key])

        tasks = [asyncio.create_task(f(key)) for key in (1, 2, 3)]
        await settle()
        release.set()
        results = await outcomes(tasks)
        assert all(result.startswith("again") for result in results)

    run(main)


def test_a_circle_ends_though_the_one_who_computes_has_changed():
    async def main():
        f_runs, release = [], asyncio.Event()

        @cache
        async def f(key):
            f_runs.append((key, asyncio.current_task()))
            await release.wait()
            return await f(3 - key) if len(f_runs) < 8 else "bottom"

        tasks = [asyncio.create_task(f(key)) for key in (1, 1, 1, 2, 2, 2)]
        await settle()
        tasks[0].cancel()
        tasks[3].cancel()
        await settle()
        release.set()
        results = await outcomes(tasks)
        assert [results[0], results[3]] == ["cancelled"] * 2
        assert set(results) == {"cancelled", "bottom"}

    run(main)


def test_two_computations_that_need_a_third_run_it_once():
    async def main():
        ran = []

        @cache
        async def f(key):
            ran.append(key)
            await asyncio.sleep(0)
            return key if key == 3 else await f(3)

        assert await asyncio.gather(f(1), f(2), f(1), f(2)) == [3] * 4
        assert sorted(ran) == [1, 2, 3]

    run(main)


def test_branches_of_one_computation_share_what_they_both_need():
    async def main():
        ran = []
        needs = {"top": ["left", "right", "leaf"], "left": ["leaf"], "right": ["leaf", "left"], "leaf": []}

        @cache
        async def f(key):
            ran.append(key)
            await asyncio.sleep(0)
            return key + "".join(await asyncio.gather(*map(f, needs[key])))

        assert await f("top") == "topleftleafrightleafleftleafleaf"
        assert sorted(ran) == ["leaf", "left", "right", "top"]
        assert counts(f) == (3, 4)

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="came with Python 3.12")
@every_nesting
def test_eager_tasks_share_and_their_recursion_ends(nest):
    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        f, runs = held(cache)
        tasks = [asyncio.create_task(f(1)) for _ in range(5)]
        assert len(runs) == 1
        tasks[0].cancel()
        await settle()
        assert len(runs) == 2
        runs[1].finish("value")
        assert await outcomes(tasks) == ["cancelled"] + ["value"] * 4
        assert asyncio.create_task(f(1)).done()

        for turns in (0, 1):
            ran = []

            @cache
            async def recursive(key, ran=ran, turns=turns):
                ran.append(key)
                await settle(turns)
                return await nest(recursive(key)) if len(ran) < 4 else "bottom"

            assert await asyncio.gather(recursive(1), recursive(1)) == ["bottom"] * 2
            assert len(ran) == 4

    run(main)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # by whom a cancellation came first
@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("circular", [False, True])
def test_any_graph_of_computations_ends_and_without_circles_runs_each_once(seed, circular):
    async def main():
        rng = random.Random(f"{seed} {circular}")
        size = rng.randrange(2, 12)
        needs = {
            key: [rng.randrange(0 if circular else key + 1, size) for _ in range(rng.randrange(4))]
            if key < size - 1
            else []
            for key in range(size)
        }
        ran = collections.Counter()

        @cache(max_size=None)
        async def f(key):
            ran[key] += 1
            await settle(rng.randrange(3))
            if sum(ran.values()) < 20 * size:
                if rng.random() < 0.5:
                    await asyncio.gather(*map(f, needs[key]))
                else:
                    for other in needs[key]:
                        await rng.choice(NESTINGS)(f(other))
            return "value of", key

        keys = [rng.randrange(size) for _ in range(10)]
        tasks = []
        for key in keys:
            tasks.append(asyncio.create_task(f(key)))
            await settle(rng.randrange(3))
        doomed = rng.sample(tasks, 3) if circular else []
        for task in doomed:
            task.cancel()
            await settle(rng.randrange(3))
        for key, task, outcome in zip(keys, tasks, await outcomes(tasks), strict=True):
            assert outcome == ("value of", key) or (outcome == "cancelled" and task in doomed)
        if not circular:
            assert set(ran.values()) == {1}
        assert await f(keys[0]) == ("value of", keys[0])

    run(main)


def test_a_long_chain_of_computations_that_wait_for_each_other_ends():
    async def main():
        ran = []

        @cache(max_size=None)
        async def f(key):
            ran.append(key)
            await asyncio.sleep(0)
            return await f(key + 1) if key < 3000 else "end"

        tasks = [asyncio.create_task(f(key)) for key in range(3001)]
        assert await asyncio.gather(*tasks) == ["end"] * 3001
        assert len(ran) == 3001
        assert counts(f) == (3000, 3001)

    run(main)


def test_a_task_left_behind_by_a_computation_waits_like_anyone_else():
    async def main():
        f, runs = held(cache)
        late, left_behind = asyncio.Event(), []

        @cache
        async def parent(key):
            async def background():
                await late.wait()
                return await f(key), await parent(key)

            left_behind.append(asyncio.create_task(background()))
            await f(key)
            return len(left_behind)

        (task,) = await begin(parent, 1, 1)
        runs[0].finish("first")
        assert await task == 1
        f.cache_clear(), parent.cache_clear()
        (leader,) = await begin(f, 1, 1)
        assert len(runs) == 2
        late.set()
        await settle()
        assert len(runs) == 2, "it computes though another does"
        runs[1].finish("second")
        assert await leader == "second"
        await settle()
        assert await left_behind[0] == ("second", 2)
        for task in left_behind[1:]:
            await task

    run(main)


def test_a_task_left_behind_by_a_computation_of_the_same_key_waits_like_anyone_else():
    async def main():
        late, left_behind, runs = asyncio.Event(), [], []

        @cache
        async def f(key):
            async def background():
                await late.wait()
                return await f(key)

            if not left_behind:
                left_behind.append(asyncio.create_task(background()))
                return "first"
            runs.append(Run(key))
            return await runs[-1].future

        assert await f(1) == "first"
        f.cache_clear()
        (leader,) = await begin(f, 1, 1)
        late.set()
        await settle()
        assert len(runs) == 1, "it computes though another does"
        runs[0].finish("second")
        assert await leader == await left_behind[0] == "second"

    run(main)


def test_a_cancelled_recursion_hands_over():
    async def main():
        f_runs = []

        @cache
        async def f(key):
            f_runs.append(key)
            if len(f_runs) < 3:
                return await f(key)
            if len(f_runs) == 3:
                await asyncio.Event().wait()
            return "value"

        tasks = await begin(f, 3, 1)
        tasks[0].cancel()
        assert await outcomes(tasks) == ["cancelled", "value", "value"]
        assert len(f_runs) == 4

    run(main)


# Event loops


def in_threads(number, body):
    """Runs the body in that many threads from one moment on, and raises what any of them raised."""
    barrier, raised = threading.Barrier(number), []

    def guarded(place):
        try:
            barrier.wait(20)
            body(place)
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(place,), daemon=True) for place in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if raised:
        raise raised[0]


def bounded(coroutine):
    async def main():
        return await asyncio.wait_for(coroutine, 20)

    return asyncio.run(main())


def test_loops_in_several_threads_each_compute_for_themselves():
    together, ran = threading.Barrier(4), []

    @cache
    async def f(key):
        ran.append(threading.get_ident())
        await asyncio.sleep(0)
        together.wait(20)  # all four are inside at once
        await asyncio.sleep(0)
        return "value"

    async def main():
        assert await asyncio.gather(*(f(1) for _ in range(10))) == ["value"] * 10

    in_threads(4, lambda place: bounded(main()))
    assert len(ran) == len(set(ran)) == 4
    assert counts(f) == (36, 4)
    assert bounded(f(1)) == "value"
    assert counts(f) == (37, 4)


@pytest.mark.parametrize("act", ["cancel", "fail", "finish", "close"])
def test_what_happens_on_one_loop_disturbs_no_other(act):
    ran, elsewhere, done = [], threading.Event(), threading.Event()

    @cache(max_size=0)
    async def f(key):
        ran.append(key)
        if len(ran) > 1:
            await settle(2)
            if act == "fail":
                raise Failed
            if act == "finish":
                return "other"
        while not done.is_set():
            await asyncio.sleep(0.001)
        return "value"

    async def waits_for_long():
        tasks = [asyncio.create_task(f(1)) for _ in range(3)]
        await settle()
        elsewhere.set()
        assert await outcomes(tasks) == ["value"] * 3

    async def comes_and_goes():
        tasks = [asyncio.create_task(f(1)) for _ in range(3)]
        await settle()
        if act == "cancel":
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def is_closed():
        call = f(1)
        call.send(None)
        call.close()

    def body(place):
        if place == 0:
            return bounded(waits_for_long())
        try:
            assert elsewhere.wait(20)
            bounded(is_closed() if act == "close" else comes_and_goes())
        finally:
            done.set()

    in_threads(2, body)
    assert len(ran) == 2


@both_decorators
def test_consecutive_loops_share_the_values(decorator):
    ran = []

    @decorator
    async def f(key):
        ran.append(key)
        await asyncio.sleep(0)
        return "value"

    async def main():
        return await asyncio.gather(f(1), f(1))

    assert [bounded(main()) for _ in range(5)] == [["value"] * 2] * 5
    assert ran == [1]
    assert counts(f) == (9, 1)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("keep", ["nothing", "tasks", "calls"])
def test_a_loop_closed_with_a_computation_pending_holds_nobody_up(keep):
    ran, kept = [], []

    @cache
    async def f(key):
        ran.append(key)
        if ran.count(key) == 1:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return "value", key

    async def main(key):
        return await asyncio.gather(f(key), f(key))

    for key in range(30):  # so that a later loop is likely to lie where an earlier one lay
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        if keep == "calls":
            call = f(key)

            async def step(call=call):
                call.send(None)

            loop.run_until_complete(step())
            kept.append(call)
        else:
            tasks = [loop.create_task(f(key)) for _ in range(2)]
            loop.run_until_complete(settle())
            kept.extend(tasks if keep == "tasks" else [])
            del tasks
        loop.close()
        del loop
        assert bounded(main(key)) == [("value", key)] * 2
    assert len(ran) == 60
    for each in kept:
        if keep == "calls":
            each.close()
        else:
            each._log_destroy_pending = False
    kept.clear()
    gc.collect()
    assert bounded(main(0)) == [("value", 0)] * 2


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_computation_that_ends_in_another_thread_hands_over(how):
    holder = []

    @cache
    async def f(key):
        if not holder:
            await pause()
        return "value"

    async def begins():
        call = f(1)
        call.send(None)
        holder.append(call)

    def end():
        if how == "close":
            holder[0].close()
        holder[0] = None
        gc.collect()  # without the GIL, what another thread made is freed later

    async def main():
        await asyncio.create_task(begins())
        tasks = await begin(f, 3, 1)
        assert not any(task.done() for task in tasks)
        timer = threading.Timer(0.05, end)  # when the loop has nothing else to do
        timer.start()
        assert await outcomes(tasks) == ["value"] * 3
        timer.join()

    run(main, debug=True)


@pytest.mark.parametrize("how", ["close", "finish", "drop"])
def test_a_computation_that_ends_after_its_loop_was_closed_ends_quietly(how):
    def play():
        @cache
        async def f(key):
            await pause()
            return "value"

        async def begins():
            call = f(1)
            call.send(None)
            return call

        loop = asyncio.new_event_loop()
        leader = loop.run_until_complete(begins())
        waiters = [loop.create_task(f(1)) for _ in range(3)]
        loop.run_until_complete(settle())
        loop.close()
        if how == "close":
            leader.close()
        elif how == "finish":
            with pytest.raises(StopIteration) as stop:
                leader.send(None)
            assert stop.value.value == "value"
        del leader
        assert bounded(f(1)) == "value"
        for each in waiters:
            each._log_destroy_pending = False

    play()
    for _ in range(5):
        gc.collect()


def test_a_loop_may_run_inside_the_computation_of_another_loop():
    ran = []

    @cache
    async def f(key):
        ran.append(key)
        if len(ran) < 4:
            context = contextvars.copy_context()
            return await asyncio.get_running_loop().run_in_executor(None, context.run, bounded, f(key))
        return "bottom"

    assert bounded(f(1)) == "bottom"
    assert len(ran) == 4


def test_threads_may_clear_and_invalidate_while_a_loop_computes():
    stop = threading.Event()

    @cache(max_size=3)
    async def f(key):
        for _ in range(key):
            await asyncio.sleep(0)
        return "value of", key

    async def main():
        try:
            rng = random.Random(1)
            for _ in range(100):
                keys = [rng.randrange(5) for _ in range(20)]
                assert await asyncio.gather(*map(f, keys)) == [("value of", key) for key in keys]
        finally:
            stop.set()

    def body(place):
        if place == 0:
            return bounded(main())
        while not stop.is_set():
            f.cache_clear() if place == 1 else f.cache_invalidate(random.randrange(5))
            assert f.cache_info().current_size <= 3

    in_threads(3, body)


@pytest.mark.parametrize("decorator", [cache(max_size=2), cache(max_size=0), lru_cache(None), cache(ttl=0.0001)])
def test_hammering_from_many_loops_with_cancellations_gives_right_values_and_counts(decorator):
    awaited = [0] * 4

    @decorator
    async def f(key):
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)
        if key == 3:
            raise Failed(key)
        return "value of", key

    async def caller(place, key):
        awaited[place] += 1
        try:
            assert await f(key) == ("value of", key)
        except Failed as error:
            if error.args != (key,):
                raise

    async def main(place):
        rng = random.Random(place)
        for _ in range(60):
            tasks = [asyncio.create_task(caller(place, rng.randrange(4))) for _ in range(25)]
            for _ in range(rng.randrange(8)):
                await asyncio.sleep(0)
                rng.choice(tasks).cancel()
            for task in tasks:
                try:
                    await task
                except asyncio.CancelledError:
                    assert task.cancelled()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        in_threads(4, lambda place: bounded(main(place)))
    finally:
        sys.setswitchinterval(interval)
    info = f.cache_info()
    assert info.hits + info.misses == sum(awaited)
    assert info.max_size is None or info.current_size <= info.max_size


# Any schedule, against a model

KEYS = range(3)


class Flight:
    """What the model knows of a computation: its callers, the one who computes first."""

    def __init__(self, caller):
        self.callers, self.stored_later = [caller], True


class Schedule:
    """A cached function and its model, which do everything together and must agree on all of it."""

    def __init__(self):
        self.f, self.runs = held(cache(max_size=None))
        self.tasks, self.expected = [], {}
        self.stored, self.current, self.under_way = {}, {}, {}
        self.cleared = False

    async def call(self, key, _):
        caller = asyncio.create_task(self.f(KEYS[key]))
        self.tasks.append(caller)
        if key in self.stored:
            self.expected[caller] = self.stored[key]
        elif key in self.current:
            self.current[key].callers.append(caller)
        else:
            self.current[key] = flight = Flight(caller)
            await settle()
            self.began(flight)

    def began(self, flight):
        self.under_way[flight] = self.runs[-1]
        assert self.runs[-1].task in flight.callers, "a stranger computes"
        flight.callers.remove(self.runs[-1].task)
        flight.callers.insert(0, self.runs[-1].task)

    def ended(self, flight):
        key = self.under_way.pop(flight).key
        if self.current.get(key) is flight:
            del self.current[key]
        return key

    async def finish(self, choice, value):
        if not self.under_way:
            return
        flight = list(self.under_way)[choice % len(self.under_way)]
        self.under_way[flight].finish(value)
        self.expected.update(dict.fromkeys(flight.callers, value))
        key = self.ended(flight)
        if flight.stored_later:
            self.stored[key] = value

    async def fail(self, choice, value):
        if not self.under_way:
            return
        flight = list(self.under_way)[choice % len(self.under_way)]
        error = Failed(value)
        self.under_way[flight].fail(error)
        self.expected.update(dict.fromkeys(flight.callers, error))
        self.ended(flight)

    async def cancel(self, choice, other):
        waiting = [(flight, caller) for flight in self.under_way for caller in flight.callers]
        if not waiting:
            return
        flight, caller = waiting[(choice + 7 * other) % len(waiting)]
        computes = caller is flight.callers[0]
        if computes and len(flight.callers) > 1 and not flight.stored_later:
            return  # what those who wait for a cleared computation do then is left open
        caller.cancel()
        self.expected[caller] = "cancelled"
        flight.callers.remove(caller)
        if computes and flight.callers:
            before = len(self.runs)
            await settle()
            assert len(self.runs) == before + 1, "not exactly one took over"
            self.began(flight)
        elif computes:
            self.ended(flight)

    async def invalidate(self, key, _):
        assert self.f.cache_invalidate(key) is (key in self.stored)
        self.stored.pop(key, None)
        if key in self.current:
            self.current.pop(key).stored_later = False

    async def clear(self, _key, _):
        self.f.cache_clear()
        self.cleared = True
        self.stored.clear()
        for flight in self.current.values():
            flight.stored_later = False
        self.current.clear()

    def check(self):
        assert len(self.runs) - len(self.under_way) == sum(each.future.done() for each in self.runs)
        for task in self.tasks:
            assert task.done() == (task in self.expected)
            if task.done():
                found = "cancelled" if task.cancelled() else task.exception() or task.result()
                assert found is self.expected[task] or found == self.expected[task]
        assert {key for key in KEYS if self.f.cache_contains(key)} == set(self.stored)
        assert self.f.cache_info().current_size == len(self.stored)
        if not self.cleared:
            hits, misses = counts(self.f)
            ended_well = sum(isinstance(self.expected.get(task), int) for task in self.tasks)
            assert misses >= len(self.runs)
            assert hits <= ended_well


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["call"] * 6 + ["finish"] * 2 + ["fail", "cancel", "cancel", "cancel", "invalidate", "clear"]),
        st.sampled_from(KEYS),
        st.integers(0, 5),
    ),
    max_size=40,
)


@settings(max_examples=400, deadline=None, database=None)
@given(STEPS)
def test_any_schedule_agrees_with_the_model(steps):
    async def main():
        schedule = Schedule()
        for name, *arguments in steps:
            await getattr(schedule, name)(*arguments)
            await settle()
            schedule.check()
        for _ in range(len(schedule.under_way)):
            await schedule.finish(0, 9)
        await settle()
        schedule.check()
        if not schedule.cleared:
            assert sum(counts(schedule.f)) == len(schedule.tasks)

    asyncio.run(asyncio.wait_for(main(), 20))


@settings(max_examples=400, deadline=None, database=None)
@given(STEPS, st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_any_schedule_with_many_things_at_once_ends_with_a_value_for_everyone(steps, pauses):
    async def main():
        f, runs = held(cache(max_size=2))
        tasks, cancelled, given_values = [], set(), collections.defaultdict(list)
        for (name, key, number), ticks in zip(steps, itertools.cycle(pauses), strict=False):
            open_runs = [each for each in runs if not each.future.done()]
            if name == "call":
                tasks.append((key, asyncio.create_task(f(key))))
            elif name in ("finish", "fail") and open_runs:
                each = open_runs[number % len(open_runs)]
                value = object() if name == "finish" else Failed()
                given_values[each.key].append(value)
                each.finish(value) if name == "finish" else each.fail(value)
            elif name == "cancel" and tasks:
                task = tasks[-1 - number % len(tasks)][1]
                if not task.done():
                    cancelled.add(task)
                    task.cancel()
            elif name == "invalidate":
                f.cache_invalidate(key)
            elif name == "clear":
                f.cache_clear()
            await settle(ticks)
        for _ in range(len(tasks) + 1):
            await settle()
            for each in runs:
                if not each.future.done():
                    value = object()
                    given_values[each.key].append(value)
                    each.finish(value)
        await settle()
        for key, task in tasks:
            assert task.done(), "a caller waits for ever"
            if task.cancelled():
                assert task in cancelled
            else:
                found = task.exception() or task.result()
                assert any(found is value for value in given_values[key])
        assert len(runs) <= len(tasks)
        assert f.cache_info().current_size <= 2

    asyncio.run(asyncio.wait_for(main(), 20))
