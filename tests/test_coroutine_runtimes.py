"""Coroutine functions under asyncio, uvloop and trio, under no event loop at all, and what they leave behind."""

import asyncio
import gc
import importlib.util
import inspect
import subprocess
import sys
import threading
import warnings
import weakref

import pytest
from steps import counts, drive, pause

from warp_cache import cache, lru_cache

both_decorators = pytest.mark.parametrize("decorator", [cache, lru_cache])


def needs(*modules):
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"without {', '.join(missing)}")


needs_trio = needs("trio")
RUNTIMES = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}
every_runtime = pytest.mark.parametrize(
    "runtime",
    [
        pytest.param("asyncio", marks=needs("anyio")),
        pytest.param("uvloop", marks=needs("anyio", "uvloop")),
        pytest.param("trio", marks=needs("anyio", "trio")),
    ],
)


def run(runtime, main):
    """Runs a coroutine function under anyio, but not for ever."""
    import anyio

    async def bounded():
        with anyio.fail_after(20):
            return await main()

    return anyio.run(bounded, **RUNTIMES[runtime])


async def settle(iterations=20):
    """Lets everything run that can."""
    import anyio.lowlevel

    for _ in range(iterations):
        await anyio.lowlevel.cancel_shielded_checkpoint()


class Failed(Exception):
    pass


def worker(decorator, turns=3):
    """A cached coroutine function that waits a little, fails for negative keys, and the list of its runs."""
    ran = []

    @decorator
    async def f(key):
        import anyio.lowlevel

        ran.append(key)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        if key < 0:
            raise Failed(key)
        return "value of", key

    return f, ran


# Under each runtime


@every_runtime
@both_decorators
def test_a_call_runs_and_then_hits(runtime, decorator):
    async def main():
        f, ran = worker(decorator)
        assert [await f(1), await f(1), await f(2), await f(1)] == [("value of", key) for key in (1, 1, 2, 1)]
        assert ran == [1, 2]
        with pytest.raises(Failed):
            await f(-1)
        assert f.cache_info() == (2, 3, 128, 2)

    run(runtime, main)


@every_runtime
@both_decorators
def test_the_cached_function_itself_is_what_the_runtime_runs(runtime, decorator):
    import anyio

    @decorator
    async def f(*arguments):
        await anyio.sleep(0)
        return arguments

    async def main():
        async with anyio.create_task_group() as group:
            for _ in ("miss", "hit"):
                group.start_soon(f, 1, 2, name="named")
                group.start_soon(f, 1, 2)
                await settle()
        return await f(1, 2)

    assert anyio.run(f, 1, 2, **RUNTIMES[runtime]) == (1, 2)
    assert anyio.run(f, 1, 2, **RUNTIMES[runtime]) == (1, 2)
    assert run(runtime, main) == (1, 2)
    assert sum(counts(f)) == 7


@every_runtime
def test_a_hit_passes_no_checkpoint(runtime):
    import anyio

    async def main():
        f, _ = worker(cache)
        await f(1)
        passed = []

        async def other():
            passed.append(1)

        async with anyio.create_task_group() as group:
            group.start_soon(other)
            assert await f(1) == ("value of", 1)
            assert not passed
        assert passed
        with anyio.CancelScope() as scope:
            scope.cancel()
            assert await f(1) == ("value of", 1)
            await anyio.sleep(0)
            pytest.fail("was not cancelled")

    run(runtime, main)


@every_runtime
@both_decorators
@pytest.mark.parametrize("number", [2, 50])
def test_callers_who_come_meanwhile_all_get_the_value(runtime, decorator, number):
    import anyio

    async def main():
        f, ran = worker(decorator)
        values = []

        async def caller(key):
            values.append((key, await f(key)))

        async with anyio.create_task_group() as group:
            for place in range(number):
                group.start_soon(caller, place % 2)
        assert sorted(values) == sorted((place % 2, ("value of", place % 2)) for place in range(number))
        assert sum(counts(f)) == number
        if runtime == "trio":
            assert sorted(set(ran)) == [0, 1]
        else:
            assert ran == [0, 1]
        assert f.cache_info().current_size == 2

    run(runtime, main)


@every_runtime
def test_callers_who_come_meanwhile_all_get_the_exception(runtime):
    import anyio

    async def main():
        f, ran = worker(cache)
        failed = []

        async def caller():
            with pytest.raises(Failed):
                await f(-1)
            failed.append(1)

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(caller)
        assert len(failed) == 10
        assert runtime == "trio" or len(ran) == 1
        assert f.cache_info() == (0, 10, 128, 0)

    run(runtime, main)


@every_runtime
@pytest.mark.parametrize("who", ["first", "later", "first and later"])
@pytest.mark.parametrize("ticks", [0, 1, 2])
def test_a_cancelled_scope_takes_nobody_else_along(runtime, who, ticks):
    import anyio

    async def main():
        f, ran = worker(cache, turns=8)
        values, scopes = [], [anyio.CancelScope() for _ in range(4)]

        async def caller(scope):
            with scope:
                values.append(await f(1))

        async with anyio.create_task_group() as group:
            for scope in scopes:
                group.start_soon(caller, scope)
                await settle(1)
            for place in {"first": [0], "later": [1], "first and later": [0, 1]}[who]:
                scopes[place].cancel()
                await settle(ticks)
        cancelled = sum(scope.cancelled_caught for scope in scopes)
        assert cancelled == len(who.split(" and "))
        assert values == [("value of", 1)] * (4 - cancelled)
        assert sum(counts(f)) == 4
        assert await f(1) == ("value of", 1)

    run(runtime, main)


@every_runtime
@pytest.mark.parametrize("impatient", [0, 1, 2])
def test_a_timeout_takes_nobody_else_along(runtime, impatient):
    import anyio

    async def main():
        values, release, ran = [], anyio.Event(), []

        @cache
        async def f(key):
            ran.append(key)
            await release.wait()
            return "value"

        async def caller(place):
            with anyio.move_on_after(0.01 if place == impatient else 20):
                values.append(await f(1))
            if place == impatient:
                await settle()
                release.set()

        async with anyio.create_task_group() as group:
            for place in range(3):
                group.start_soon(caller, place)
                await settle()
        assert values == ["value"] * 2

    run(runtime, main)


@every_runtime
def test_a_computation_that_has_not_been_stepped_may_be_cancelled(runtime):
    import anyio

    async def main():
        f, ran = worker(cache)
        async with anyio.create_task_group() as group:
            group.start_soon(f, 1)
            group.cancel_scope.cancel()
        async with anyio.create_task_group() as group:
            group.start_soon(f, 1)
            await settle(1)
            group.cancel_scope.cancel()
        assert await f(1) == ("value of", 1)
        assert f.cache_info().current_size == 1

    run(runtime, main)


@every_runtime
def test_a_failing_group_takes_no_other_group_along(runtime):
    import anyio

    async def main():
        f, ran = worker(cache, turns=30)
        values = []

        async def caller():
            values.append(await f(1))

        async def fails():
            await settle(3)
            raise Failed

        async def doomed():
            with pytest.raises(BaseException) as raised:  # noqa: PT011, PT012
                async with anyio.create_task_group() as group:
                    group.start_soon(f, 1)
                    group.start_soon(fails)
            assert isinstance(raised.value.exceptions[0], Failed)

        async with anyio.create_task_group() as group:
            group.start_soon(doomed)
            await settle(1)
            group.start_soon(caller)
            group.start_soon(caller)
        assert values == [("value of", 1)] * 2

    run(runtime, main)


@every_runtime
def test_recursion_on_the_same_and_on_other_keys_ends(runtime):
    import anyio

    async def main():
        ran = []

        @cache(max_size=None)
        async def fib(n):
            await anyio.sleep(0)
            return n if n < 2 else await fib(n - 1) + await fib(n - 2)

        @cache
        async def same(key):
            ran.append(key)
            await anyio.sleep(0)
            if len(ran) > 6:
                return "bottom"
            if len(ran) % 2:
                return await same(key)
            values = []

            async def nested():
                values.append(await same(key))

            async with anyio.create_task_group() as group:
                group.start_soon(nested)
            return values[0]

        assert await fib(20) == 6765
        assert counts(fib) == (18, 21)
        assert await same(1) == "bottom"
        assert len(ran) == 7

    run(runtime, main)


@every_runtime
def test_computations_that_wait_for_each_other_in_a_circle_end(runtime):
    import anyio

    async def main():
        ran, values = [], []

        @cache
        async def f(key):
            ran.append(key)
            await anyio.sleep(0)
            return await f(3 - key) if len(ran) < 6 else "bottom"

        async def caller(key):
            values.append(await f(key))

        async with anyio.create_task_group() as group:
            for key in (1, 2, 1, 2):
                group.start_soon(caller, key)
        assert values == ["bottom"] * 4

    run(runtime, main)


@every_runtime
def test_clearing_while_a_computation_runs(runtime):
    import anyio

    async def main():
        f, ran = worker(cache, turns=5)
        values = []

        async def caller():
            values.append(await f(1))

        async with anyio.create_task_group() as group:
            group.start_soon(caller)
            await settle(2)
            f.cache_clear()
        assert values == [("value of", 1)]
        assert not f.cache_contains(1)
        assert await f(1) == ("value of", 1)
        assert ran == [1, 1]

    run(runtime, main)


@every_runtime
def test_worker_threads_and_their_portals_share_the_cache(runtime):
    import anyio.from_thread
    import anyio.to_thread

    async def main():
        f, ran = worker(cache)

        def in_a_thread():
            return anyio.from_thread.run(f, 1)

        assert await anyio.to_thread.run_sync(in_a_thread) == ("value of", 1)
        assert await f(1) == ("value of", 1)
        assert ran == [1]

    run(runtime, main)


@pytest.mark.parametrize("number", [1, 5])
@needs("anyio", "trio")
def test_one_function_serves_different_runtimes_in_turn_and_at_once(number):
    f, _ = worker(cache(max_size=2))

    async def main():
        import anyio

        async def caller(key):
            assert await f(key) == ("value of", key)

        async with anyio.create_task_group() as group:
            for key in range(20):
                group.start_soon(caller, key % 4)

    raised = []

    def body(runtime):
        try:
            for _ in range(number):
                run(runtime, main)
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    threads = [threading.Thread(target=body, args=(runtime,), daemon=True) for runtime in ("asyncio", "trio") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    assert raised == []
    body("trio"), body("asyncio")
    assert raised == []
    assert sum(counts(f)) == number * 20 * 6


@needs("anyio", "trio")
def test_a_run_that_ended_in_the_middle_of_a_computation_holds_nobody_up():
    ran, left = [], []

    @cache(max_size=None)
    async def f(key):
        ran.append(key)
        if ran.count(key) == 1:
            await pause()
        return "value of", key

    async def leave(key):
        left.append(f(key))
        left[-1].send(None)

    for number in range(20):
        for key in ((number, "asyncio"), (number, "trio")):
            run(key[1], lambda key=key: leave(key))
            assert run(key[1], lambda key=key: f(key)) == ("value of", key)
            left[-1].close()
    assert len(ran) == 80


# trio's own


@needs_trio
def test_trio_runs_misses_and_hits():
    import trio

    @cache
    async def f(n):
        await trio.sleep(0)
        return 2 * n

    async def main():
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(f, 2, name="named")
        with trio.move_on_after(20) as scope:
            assert await f(2) == 4
        assert not scope.cancelled_caught

    assert [trio.run(f, 1), trio.run(f, 1)] == [2, 2]
    trio.run(main)
    assert sum(counts(f)) == 23


@needs_trio
@pytest.mark.parametrize("first", [0.01, 20])
def test_trio_moves_on_from_one_caller_and_serves_the_other(first):
    import trio
    import trio.testing

    values = []

    @cache
    async def f():
        await trio.sleep(1)
        return "value"

    async def caller(seconds):
        with trio.move_on_after(seconds):
            values.append(await f())

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller, first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(caller, 20 if first < 1 else 0.01)
            nursery.start_soon(caller, 20)
        assert await f() == "value"

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert values == ["value"] * 2
    assert sum(counts(f)) == 4


@needs_trio
def test_trio_shows_a_task_of_a_call():
    import trio

    @cache
    async def f():
        task = trio.lowlevel.current_task()
        assert repr(task)
        for _ in task.iter_await_frames():
            pass

    async def main():
        async with trio.open_nursery() as nursery:
            for _ in ("miss", "hit"):
                nursery.start_soon(f)

    trio.run(main)


@needs_trio
def test_trio_as_a_guest_of_asyncio_does_not_disturb_it():
    import trio

    ran = []

    @cache
    async def f(key):
        ran.append(key)
        for _ in range(5):
            await (trio.sleep(0) if key == "trio" else asyncio.sleep(0))
        return key

    async def as_guest():
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(f, "trio")
        return await f("trio")

    async def host():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio.lowlevel.start_guest_run(
            as_guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        assert await asyncio.gather(*(f("asyncio") for _ in range(5))) == ["asyncio"] * 5
        return (await done).unwrap()

    async def bounded():
        return await asyncio.wait_for(host(), 20)

    assert asyncio.run(bounded()) == "trio"
    assert ran.count("asyncio") == 1


# uvloop's own


@needs("uvloop")
def test_uvloop_runs_the_call_itself():
    import uvloop

    ran = []

    @cache
    async def f(n):
        ran.append(n)
        await asyncio.sleep(0.001)
        return 2 * n

    async def main():
        return await asyncio.wait_for(asyncio.gather(*(f(2) for _ in range(100))), 20)

    for _ in range(2):
        loop = uvloop.new_event_loop()
        try:
            assert loop.run_until_complete(f(1)) == 2
            assert loop.run_until_complete(main()) == [4] * 100
        finally:
            loop.close()
    if sys.version_info >= (3, 11):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            assert runner.run(f(1)) == 2
    assert ran == [1, 2]


# No event loop at all


@both_decorators
def test_two_computations_of_one_key_may_be_stepped_in_turn(decorator):
    ran = []

    @decorator
    async def f(key):
        ran.append(key)
        number = len(ran)
        assert await pause(number) == f"sent {number}"
        return key * 10

    first, second = f(1), f(1)
    assert (first.send(None), second.send(None)) == (1, 2)
    for number, call in ((2, second), (1, first)):
        with pytest.raises(StopIteration) as stop:
            call.send(f"sent {number}")
        assert stop.value.value == 10
    assert drive(f(1)) == 10
    assert f.cache_info() == (1, 2, 128, 1)


def test_many_computations_stepped_in_any_order_give_right_values():
    @cache(max_size=2)
    async def f(key):
        for _ in range(key):
            await pause()
        if key == 3:
            raise Failed
        return "value of", key

    calls = [(key % 5, f(key % 5)) for key in range(50)]
    ended, values, failed = 0, [], []
    while calls:
        key, call = calls.pop(ended * 7 % len(calls))
        try:
            call.send(None)
        except StopIteration as stop:
            values.append((key, stop.value))
            ended += 1
        except Failed:
            failed.append(key)
            ended += 1
        else:
            calls.append((key, call))
    assert ended == sum(counts(f)) == 50
    assert sorted(values) == sorted([(key, ("value of", key)) for key in (0, 1, 2, 4)] * 10)
    assert failed == [3] * 10


def test_closing_one_of_two_computations_leaves_the_other():
    @cache
    async def f():
        await pause()
        return "value"

    first, second = f(), f()
    first.send(None), second.send(None)
    first.close()
    with pytest.raises(StopIteration) as stop:
        second.send(None)
    assert stop.value.value == "value"
    assert drive(f()) == "value"


def test_recursion_without_a_loop_ends():
    ran = []

    @cache
    async def f(key):
        ran.append(key)
        await pause()
        return await f(key) if len(ran) < 4 else "bottom"

    call = f(1)
    for _ in range(4):
        assert call.send(None) is None
    with pytest.raises(StopIteration) as stop:
        call.send(None)
    assert stop.value.value == "bottom"


def test_a_call_may_be_stepped_by_different_threads():
    @cache
    async def f():
        return [await pause(), await pause(), threading.get_ident()]

    call, stepped = f(), []
    for value in (None, 1, 2):

        def step(value=value):
            try:
                stepped.append(call.send(value))
            except StopIteration as stop:
                stepped.append(stop.value)

        thread = threading.Thread(target=step)
        thread.start()
        thread.join(20)
    assert stepped[:2] == [None, None]
    assert stepped[2][:2] == [1, 2]
    assert drive(f()) is stepped[2]


def test_one_call_stepped_by_many_threads_at_once_gives_its_value_once():
    async def returns():
        return "value"

    f = cache(returns)
    for _ in range(200):
        if _ % 2:
            f.cache_clear()
        call, results, barrier = f(), [], threading.Barrier(3)

        def step(call=call, results=results, barrier=barrier):
            barrier.wait(20)
            try:
                call.send(None)
            except (StopIteration, RuntimeError, ValueError) as error:
                results.append(type(error))

        threads = [threading.Thread(target=step) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(results) == 3
        assert results.count(StopIteration) == 1


# Garbage


class Thing:
    """Something that can be weakly referenced."""


def suspended(decorator, thing, *, waiter):
    """A cached function with calls that reach a thing in the middle of their work."""

    async def body(key):
        future = asyncio.get_running_loop().create_future()
        thing.future = future
        await future
        return thing

    async def main():
        thing.cached = decorator(body)
        thing.calls = [thing.cached(1) for _ in range(3 if waiter else 1)]
        for call in thing.calls:
            call.send(None)

    asyncio.run(main())


@both_decorators
@pytest.mark.parametrize("what", ["value", "miss", "hit", "suspended", "waiting", "own call", "exception"])
def test_a_cycle_through_a_call_is_collected(decorator, what):
    def make():
        thing = Thing()

        async def body(key):
            if what == "exception":
                raise Failed(thing)
            return thing

        thing.cached = decorator(body)
        if what in ("value", "hit"):
            drive(thing.cached(1))
        if what in ("miss", "hit"):
            thing.call = thing.cached(thing if what == "miss" else 1)
        if what == "exception":
            with pytest.raises(Failed) as raised:
                thing.cached(1).send(None)
            thing.error = raised.value
        if what in ("suspended", "waiting"):
            suspended(decorator, thing, waiter=what == "waiting")
        if what == "own call":

            async def holds(key):
                held = thing
                await pause()
                return held

            thing.cached = decorator(holds)
            thing.call = thing.cached(1)
            thing.call.send(None)
        return weakref.ref(thing)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the miss
        gc.collect()
        gone = make()
        gc.collect()
        gc.collect()
    assert gone() is None


@both_decorators
def test_a_finished_call_holds_nothing(decorator):
    async def body(key):
        return [Thing()]

    f = decorator(body)
    key = Thing()
    for drop in (False, True):
        call = f(key)
        value = weakref.ref(drive(call)[0])
        assert value() is not None
        if drop:
            f.cache_clear()
            assert value() is None
    call.close()
    key_gone = weakref.ref(key)
    del key
    gc.collect()
    assert key_gone() is None
    assert inspect.isawaitable(call)


@both_decorators
def test_a_cleared_cache_and_ended_calls_hold_nothing(decorator):
    references = []

    async def main():
        @decorator
        async def f(key):
            await asyncio.sleep(0)
            if key == 1:
                raise Failed
            return [Thing()]

        for key in range(3):
            tasks = [asyncio.create_task(f(key)) for _ in range(5)]
            await asyncio.sleep(0)
            tasks[0 if key == 2 else 3].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            references.extend(weakref.ref(one) for result in results if isinstance(result, list) for one in result)
            del results
        del tasks
        assert len(references) == 8
        f.cache_clear()
        await asyncio.sleep(0)  # so that nothing of gather is left on the stack
        gc.collect()
        assert [each() for each in references] == [None] * 8

    asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize("decorator", [cache(max_size=4), lru_cache(4), cache(max_size=0), cache(max_size=4, ttl=100)])
def test_nothing_is_left_of_many_calls(decorator):
    keys, values, error = [Thing() for _ in range(6)], [object() for _ in range(6)], Failed("shared")

    async def body(key, fate="value"):
        if fate != "at once":
            await asyncio.sleep(0)
        if fate == "fail":
            raise error
        return values[keys.index(key)]

    f = decorator(body)

    async def work(rounds):
        for number in range(rounds):
            key = keys[number % 6]
            fate = ("value", "fail", "at once")[number % 3]
            tasks = [asyncio.create_task(f(key, fate)) for _ in range(4)]
            await asyncio.sleep(0)
            if number % 4 == 0:
                tasks[0].cancel()
            if number % 5 == 0:
                tasks[1].cancel()
            if number % 7 == 0:
                f.cache_clear()
            if number % 11 == 0:
                f.cache_invalidate(key, fate)
            await asyncio.gather(*tasks, return_exceptions=True)
            f(key, "at once").close()
            call = f(key, "fail")
            call.send(None)
            del call, tasks
            try:
                await f(key, fate)
            except Failed:
                pass
            error.__traceback__ = error.__context__ = None

    def state():
        f.cache_clear()
        gc.collect()
        return [sys.getrefcount(each) for each in (*keys, *values, error, f, body)], len(gc.get_objects())

    async def main():
        await work(300)
        before = state()
        await work(3000)
        after = state()
        assert after[0] == before[0]
        assert after[1] <= before[1] + 50

    asyncio.run(asyncio.wait_for(main(), 60))


def test_nothing_is_left_of_many_hits():
    value, key = object(), Thing()

    async def body(key):
        return value

    f = cache(body)

    async def work(rounds):
        for number in range(rounds):
            assert await f(key) is value
            f(key)
            if number % 10 == 0:
                await asyncio.create_task(f(key))
                f(key).close()
                with pytest.raises(Failed):
                    f(key).throw(Failed())

    async def main():
        await work(100)
        gc.collect()
        before = sys.getrefcount(value), sys.getrefcount(key), sys.getrefcount(f), len(gc.get_objects())
        await work(20_000)
        gc.collect()
        after = sys.getrefcount(value), sys.getrefcount(key), sys.getrefcount(f), len(gc.get_objects())
        assert after[:3] == before[:3]
        assert after[3] <= before[3] + 50

    asyncio.run(asyncio.wait_for(main(), 60))


def test_functions_and_loops_come_and_go():
    def work(rounds):
        for _ in range(rounds):

            @cache
            async def f(key):
                await asyncio.sleep(0)
                return [key]

            async def main(f=f):
                tasks = [asyncio.create_task(f(1)) for _ in range(3)]
                await asyncio.sleep(0)
                tasks[0].cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

            asyncio.run(main())
            call = f(2)
            call.close()

    work(10)
    gc.collect()
    before = len(gc.get_objects())
    work(150)
    gc.collect()
    assert len(gc.get_objects()) <= before + 100


def test_a_loop_is_let_go_when_it_is_closed():
    @cache
    async def f(key):
        await asyncio.sleep(0)
        return key

    async def main():
        await asyncio.gather(f(1), f(1), f(2))
        return weakref.ref(asyncio.get_running_loop())

    gone = asyncio.run(main())
    gc.collect()
    assert gone() is None
    assert drive(f(1)) == 1


PENDING = """
import asyncio, threading
from warp_cache import cache

@cache
async def f(key):
    await asyncio.sleep(3600)

@cache(max_size=3)
async def busy(key):
    await asyncio.sleep(0)
    return key

async def start(key):
    call = f(key)
    call.send(None)
    return call

async def spin():
    for number in range(10**9):
        await busy(number % 5)

def body():
    async def main():
        tasks = [asyncio.ensure_future(each) for each in (f(1), f(1), spin(), spin())]
        await asyncio.sleep(0)
        started.release()
        await asyncio.wait(tasks)
    asyncio.run(main())

started = threading.Semaphore(0)
for _ in range(3):
    threading.Thread(target=body, daemon=True).start()
for _ in range(3):
    started.acquire()
loop = asyncio.new_event_loop()
kept = [loop.run_until_complete(start(2)), loop.run_until_complete(start(2))]
print("end")
"""

CHAIN = """
from warp_cache import cache

@cache(max_size=1)
async def f(key):
    return link

def drive(call):
    try:
        call.send(None)
    except StopIteration:
        pass

link = None
for number in range(200_000):
    drive(f(number))
    link = f(number)
f.cache_clear()
link = None
print("end")
"""


@pytest.mark.parametrize("program", [PENDING, CHAIN], ids=["pending calls at exit", "a long chain of hits"])
def test_the_process_ends_well(program):
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("end\n", 0), done.stderr
    assert "panic" not in done.stderr
