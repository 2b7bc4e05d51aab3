"""Coroutine functions as the code of one event loop sees them: what is detected, what a call gives, what is counted."""

import asyncio
import collections.abc
import contextvars
import copy
import functools
import gc
import inspect
import io
import itertools
import pickle
import random
import sys
import threading
import warnings
import weakref

import pytest
from model import Model
from steps import counts, drive, pause, settle
from warp_cache.warp_cache import _ManualClock

from warp_cache import Strategy, cache, lru_cache

both_decorators = pytest.mark.parametrize("decorator", [cache, lru_cache])
both_states = pytest.mark.parametrize("state", ["hit", "miss"])
since_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="came with Python 3.11")
since_314 = pytest.mark.skipif(sys.version_info < (3, 14), reason="came with Python 3.14")
since_312 = pytest.mark.skipif(sys.version_info < (3, 12), reason="came with Python 3.12")


def run(coroutine):
    """Runs to the end on a new event loop, but not for ever."""

    async def bounded():
        return await asyncio.wait_for(coroutine, 20)

    return asyncio.run(bounded())


def is_coroutine_function(function):
    """What inspect and asyncio say, which must be the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # asyncio's own from Python 3.14 on
        answers = {inspect.iscoroutinefunction(function), asyncio.iscoroutinefunction(function)}
    assert len(answers) == 1
    return answers.pop()


async def double(n):
    return 2 * n


def called(state, function=double, argument=1, decorator=cache):
    """A call that is a hit, or else a miss, and has not been awaited."""
    f = decorator(function)
    if state == "hit":
        drive(f(argument))
    return f(argument)


# Detection


class Doubler:
    async def __call__(self, n):
        return 2 * n

    async def method(self, n):
        return 2 * n

    @staticmethod
    async def static(n):
        return 2 * n

    @classmethod
    async def klass(cls, n):
        return 2 * n


async def multiply(m, n):
    return m * n


def kept_apart(partial):
    """functools.partial does not flatten one that has attributes."""
    partial.note = 1
    return partial


KINDS = {
    "async def": double,
    "partial": functools.partial(multiply, 2),
    "partial of a partial": functools.partial(kept_apart(functools.partial(multiply, 2))),
    "bound method": Doubler().method,
    "static method": Doubler.static,
    "class method": Doubler.klass,
    "partial of a bound method": functools.partial(Doubler().method),
    "callable": Doubler(),
    "bound __call__": Doubler().__call__,
    "partial of a callable": functools.partial(Doubler()),
    "cached function": cache(double),
    "partial of a cached function": functools.partial(lru_cache(double)),
}
every_kind = pytest.mark.parametrize("function", [pytest.param(value, id=name) for name, value in KINDS.items()])


@every_kind
@pytest.mark.parametrize("decorator", [cache, lru_cache, cache(max_size=None, ttl=9), lru_cache(3), cache("lfu", 0)])
def test_every_kind_of_coroutine_function_is_detected(decorator, function):
    f = decorator(function)
    assert is_coroutine_function(f)
    assert is_coroutine_function(functools.partial(f))
    assert is_coroutine_function(functools.partial(functools.partial(f), 1))
    assert f.__wrapped__ is function


@every_kind
@both_decorators
def test_every_kind_of_coroutine_function_is_cached(decorator, function):
    f = decorator(function)
    assert [asyncio.run(f(21)), asyncio.run(f(21)), asyncio.run(f(4))] == [42, 42, 8]
    assert f.cache_info() == (1, 2, 128, 2)


class Methods:
    @cache
    async def method(self, n):
        return self, n

    @lru_cache
    async def functools_method(self, n):
        return self, n

    @staticmethod
    @cache
    async def static(n):
        return n

    @classmethod
    @cache
    async def klass(cls, n):
        return cls, n


@pytest.mark.parametrize("name", ["method", "functools_method", "static", "klass"])
def test_methods_are_coroutine_functions_on_class_and_instance(name):
    for owner in (Methods, Methods()):
        assert is_coroutine_function(getattr(owner, name))
        assert is_coroutine_function(functools.partial(getattr(owner, name), 1))


def test_methods_pass_instance_and_class():
    first, second = Methods(), Methods()
    assert [drive(each.method(1)) for each in (first, second, first)] == [(first, 1), (second, 1), (first, 1)]
    assert [drive(each.functools_method(1)) for each in (first, second, first)] == [(first, 1), (second, 1), (first, 1)]
    assert counts(Methods.method) == counts(Methods.functools_method) == (1, 2)
    assert [drive(first.static(1)), drive(Methods.static(1))] == [1, 1]
    assert [drive(first.klass(1)), drive(Methods.klass(1))] == [(Methods, 1)] * 2
    assert counts(Methods.static) == counts(Methods.klass) == (1, 1)
    assert Methods.method.cache_contains(first, 1)
    assert Methods.method.cache_invalidate(first, 1)
    assert drive(first.method(1)) == (first, 1)
    assert counts(Methods.method) == (1, 3)


class Plain:
    async def method(self):
        pass

    def __call__(self):
        return self.method()


@pytest.mark.parametrize("function", [len, lambda: 1, functools.partial(len), int, Doubler, Plain(), Plain().__call__])
@both_decorators
def test_what_is_no_coroutine_function_is_not_taken_for_one(decorator, function):
    assert not is_coroutine_function(decorator(function))
    assert not is_coroutine_function(functools.partial(decorator(function)))


async def async_generator():
    yield 1


class AsyncIterating:
    async def __call__(self):
        yield 1


@pytest.mark.parametrize("form", [cache, cache(), cache(max_size=0), cache(single_flight=False)])
@pytest.mark.parametrize(
    "function", [async_generator, functools.partial(async_generator), AsyncIterating(), AsyncIterating().__call__]
)
def test_an_async_generator_function_is_refused_with_advice(form, function):
    with pytest.raises(TypeError, match="generator"):
        form(function)


def test_lru_cache_takes_an_async_generator_function_as_functools_does():
    f = lru_cache(async_generator)
    assert not is_coroutine_function(f)
    assert f() is f()
    assert inspect.isasyncgen(f())


# The object that a call gives


@both_states
@both_decorators
def test_a_call_gives_a_coroutine(decorator, state):
    call = called(state, decorator=decorator)
    assert isinstance(call, collections.abc.Coroutine)
    assert isinstance(call, collections.abc.Awaitable)
    assert inspect.isawaitable(call)
    assert asyncio.iscoroutine(call)
    assert not isinstance(call, (collections.abc.AsyncIterator, asyncio.Future))
    assert all(callable(getattr(call, name)) for name in ("__await__", "send", "throw", "close"))
    assert drive(call) == 2


async def by_await(call):
    return await call


async def by_create_task(call):
    return await asyncio.create_task(call)


async def by_ensure_future(call):
    return await asyncio.ensure_future(call)


async def by_task(call):
    return await asyncio.Task(call, loop=asyncio.get_running_loop(), name="named")


async def by_gather(call):
    return (await asyncio.gather(call, asyncio.sleep(0)))[0]


async def by_wait_for(call):
    return await asyncio.wait_for(call, 20)


async def by_shield(call):
    return await asyncio.shield(call)


async def by_wait(call):
    done, _ = await asyncio.wait([asyncio.ensure_future(call)])
    return done.pop().result()


async def by_as_completed(call):
    return [await each for each in asyncio.as_completed([call])][0]


async def by_another_thread(call):
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, asyncio.get_running_loop()))


async def by_dunder_await(call):
    class Awaitable:
        def __await__(self):
            return call.__await__()

    return await Awaitable()


async def by_yield_from(call):
    class Awaitable:
        def __await__(self):
            return (yield from call.__await__())

    return await Awaitable()


async def by_iteration(call):
    iterator = call.__await__()
    assert iter(iterator) is iterator
    try:
        while True:
            await pause(next(iterator))
    except StopIteration as stop:
        return stop.value


async def by_send(call):
    try:
        while True:
            await pause(call.send(None))
    except StopIteration as stop:
        return stop.value


async def by_timeout(call):
    async with asyncio.timeout(20):
        return await call


async def by_task_group(call):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(call)
    return task.result()


async def by_eager_task(call):
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    return await asyncio.create_task(call)


def ways():
    marks = {"by_timeout": since_311, "by_task_group": since_311, "by_eager_task": since_312}
    for name, way in list(globals().items()):
        if name.startswith("by_"):
            yield pytest.param(way, id=name, marks=marks.get(name, ()))


every_way = pytest.mark.parametrize("way", list(ways()))

VALUES = [
    None,
    NotImplemented,
    ...,
    0,
    (),
    (1,),
    (1, 2),
    ((),),
    (ValueError, ValueError("in a tuple")),
    ValueError("value"),
    ValueError,
    StopIteration(5),
    StopIteration(),
    StopIteration,
    StopAsyncIteration(1),
    GeneratorExit(),
    asyncio.CancelledError(),
    BaseException,
    [StopIteration(1)],
    double,
]


@every_way
@pytest.mark.parametrize("value", VALUES, ids=lambda value: getattr(value, "__name__", repr(value)))
def test_any_value_comes_back_exactly_from_a_miss_and_from_a_hit(way, value):
    async def give(argument):
        return value

    async def give_later(argument):
        await pause()
        return value

    for function in (give, give_later):
        f = cache(function)
        assert run(way(f(1))) is value
        assert run(way(f(1))) is value
        assert f.cache_info() == (1, 1, 128, 1)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: getattr(value, "__name__", repr(value)))
def test_any_value_comes_back_exactly_to_one_who_waited(value):
    async def main():
        @cache
        async def f():
            await asyncio.sleep(0)
            return value

        for each in await asyncio.gather(f(), f(), asyncio.create_task(f())):
            assert each is value
        assert counts(f) == (2, 1)

    run(main())


@pytest.mark.parametrize("way", [way for way in ways() if "by_task_group" not in way.id])
@pytest.mark.parametrize("error", [ValueError("text"), KeyError(("a", "b")), StopAsyncIteration(1)], ids=repr)
def test_an_exception_passes_through_as_the_same_object(way, error):
    async def fail(argument):
        await pause()
        raise error

    f = cache(fail)
    for _ in range(2):
        with pytest.raises(type(error)) as raised:
            run(way(f(1)))
        assert raised.value is error
        assert error.__context__ is error.__cause__ is None
    assert f.cache_info() == (0, 2, 128, 0)


@pytest.mark.parametrize("suspends", [False, True])
def test_a_stop_iteration_raised_inside_is_a_runtime_error_as_in_any_coroutine(suspends):
    @cache
    async def f():
        if suspends:
            await pause()
        raise StopIteration(3)

    for _ in range(2):
        with pytest.raises(RuntimeError, match="coroutine raised StopIteration") as raised:
            run(f())
        assert type(raised.value.__cause__) is StopIteration
    assert counts(f) == (0, 2)


@both_decorators
def test_asyncio_run_takes_the_call_itself(decorator):
    f = decorator(double)
    assert [asyncio.run(f(1)), asyncio.run(f(1)), asyncio.run(f(1), debug=True)] == [2, 2, 2]
    loop = asyncio.new_event_loop()
    assert [loop.run_until_complete(f(1)), loop.run_until_complete(f(2))] == [2, 4]
    loop.close()
    assert counts(f) == (3, 2)


@since_311
def test_a_runner_takes_the_call_itself():
    f = cache(double)
    with asyncio.Runner() as runner:
        assert [runner.run(f(1)), runner.run(f(1))] == [2, 2]


@pytest.mark.parametrize("name", ["", "abc", "ünï"])
def test_a_task_of_a_call_can_be_named_and_cancelled(name):
    async def main():
        @cache
        async def f():
            await asyncio.Event().wait()

        task = asyncio.create_task(f(), name=name)
        await settle()
        assert task.get_name() == name
        assert task.get_coro() is not None
        task.cancel("message")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(main())


# A hit never waits


def test_a_hit_is_ready_at_the_first_step():
    f = cache(double)
    assert drive(f(1)) == 2
    with pytest.raises(StopIteration) as stop:
        f(1).send(None)
    assert stop.value.value == 2
    with pytest.raises(StopIteration) as stop:
        next(f(1).__await__())
    assert stop.value.value == 2


def test_a_coroutine_of_hits_never_suspends():
    f = cache(double)

    async def many():
        return [await f(n % 3) for n in range(300)]

    assert drive(many()) == [n % 3 * 2 for n in range(300)]
    assert counts(f) == (297, 3)


def test_no_iteration_of_the_loop_passes_during_a_hit():
    async def main():
        @cache
        async def f():
            await asyncio.sleep(0)
            return asyncio.current_task()

        task = await f()
        assert task is asyncio.current_task()
        passed = []
        asyncio.get_running_loop().call_soon(passed.append, 1)
        assert await f() is task
        assert not passed
        await asyncio.sleep(0)
        assert passed

    run(main())


def test_a_miss_that_does_not_suspend_lets_no_iteration_of_the_loop_pass():
    async def main():
        f = cache(double)
        passed = []
        asyncio.get_running_loop().call_soon(passed.append, 1)
        assert await f(1) == 2
        assert not passed

    run(main())


@since_312
def test_an_eager_task_of_a_hit_is_done_at_once():
    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        f = cache(double)
        assert asyncio.create_task(f(1)).result() == 2
        assert asyncio.create_task(f(1)).result() == 2
        assert counts(f) == (1, 1)

    run(main())


def test_a_miss_runs_in_the_task_of_the_caller():
    async def main():
        @cache
        async def f():
            before = asyncio.current_task()
            await asyncio.sleep(0)
            return before, asyncio.current_task()

        tasks = asyncio.all_tasks()
        assert await f() == (asyncio.current_task(),) * 2
        assert asyncio.all_tasks() == tasks

    run(main())


# As a coroutine, step by step. The oracle is the coroutine of the function itself.


async def returns():
    return "value"


async def fails():
    raise KeyError("failed")


async def pauses():
    return [await pause("first"), await pause("second")]


async def catches():
    try:
        await pause("first")
    except (LookupError, GeneratorExit):
        return "caught"


async def stays():
    while True:
        try:
            await pause("again")
        except BaseException:
            pass


async def changes():
    try:
        await pause("first")
    except BaseException as error:
        raise OSError("instead") from error


async def cleans_up():
    try:
        await pause("first")
    finally:
        await pause("last")


async def stops():
    await pause("first")
    raise StopIteration(1)


class Thrown(LookupError):
    pass


def outcome(act):
    """What a step led to, as far as it must be the same: texts of the interpreter's own errors may vary."""
    try:
        return "gave", act()
    except StopIteration as stop:
        return "returned", stop.value
    except (RuntimeError, TypeError, ValueError) as error:
        return "raised", type(error)
    except BaseException as error:
        return "raised", type(error), error.args


def awaiting(call, keep):
    async def awaits():
        return await call

    keep.append(awaits())
    return keep[-1].send(None)


STEPS = {
    "next": lambda call, keep: call.send(None),
    "send": lambda call, keep: call.send("sent"),
    "throw class": lambda call, keep: call.throw(Thrown),
    "throw instance": lambda call, keep: call.throw(Thrown("instance")),
    "throw three": lambda call, keep: call.throw(Thrown, Thrown("third"), None),
    "throw arguments": lambda call, keep: call.throw(Thrown, "argument"),
    "throw exit": lambda call, keep: call.throw(GeneratorExit),
    "close": lambda call, keep: call.close(),
    "await": awaiting,
}


def play(call, script):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # throw() with three arguments
        keep = []
        outcomes = [outcome(lambda step=step: STEPS[step](call, keep)) for step in script]
    if ("raised", RuntimeError) == outcome(call.close):  # it will not stop
        outcomes.append("stays")
    return outcomes, keep


BODIES = [returns, fails, pauses, catches, changes, cleans_up, stops]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
@both_decorators
def test_a_miss_steps_as_the_coroutine_of_the_function(decorator, body):
    for script in itertools.product(STEPS, repeat=3):
        expected, _ = play(body(), script)
        found, _ = play(decorator(body)(), script)
        assert found == expected, script


@pytest.mark.parametrize("script", list(itertools.product(STEPS, repeat=2)), ids="-".join)
def test_a_hit_steps_as_a_coroutine_that_returns_at_once(script):
    f = cache(returns)
    drive(f())
    for more in STEPS:
        expected, _ = play(returns(), [*script, more])
        found, _ = play(f(), [*script, more])
        assert found == expected, more


@pytest.mark.parametrize("first", [step for step in STEPS if step not in ("next", "send")])
def test_one_who_waits_steps_as_a_coroutine_that_waits(first):
    async def main():
        for second in STEPS:
            if first == "await" and second in ("next", "send"):
                continue  # still waiting: nobody steps it before there is something to see
            future = asyncio.get_running_loop().create_future()
            f = cache(functools.partial(by_await, future))
            tasks = [asyncio.create_task(f()) for _ in range(3)]
            await settle()
            waiter, oracle = f(), by_await(future)
            for call in (waiter, oracle):
                call.send(None)
            expected, kept = play(oracle, [first, second])
            found, more_kept = play(waiter, [first, second])
            assert found == expected, second
            await settle()
            future.set_result("value")
            assert await asyncio.gather(*tasks) == ["value"] * 3
            assert sum(counts(f)) == 4
            del kept, more_kept

    run(main())


@pytest.mark.parametrize("state", ["hit", "miss", "waiter"])
@pytest.mark.parametrize("second", ["await", "send", "task", "gather"])
def test_awaiting_twice_is_a_runtime_error(state, second):
    async def main():
        @cache
        async def f():
            await asyncio.sleep(0)
            return 1

        if state == "hit":
            await f()
        leader = asyncio.create_task(f())
        if state == "waiter":
            await asyncio.sleep(0)
        call = f()
        assert await call == 1
        await leader
        for _ in range(2):
            with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
                await {
                    "await": lambda: call,
                    "send": lambda: call.send(None),
                    "task": lambda: asyncio.create_task(call),
                    "gather": lambda: asyncio.gather(call),
                }[second]()
        call.close()
        assert await f() == 1

    run(main())


@pytest.mark.parametrize("state", ["leader", "waiter"])
def test_awaiting_what_another_task_awaits_is_a_runtime_error_and_disturbs_nobody(state):
    async def main():
        @cache
        async def f():
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return 1

        calls = [f(), f()]
        tasks = [asyncio.create_task(by_await(call)) for call in calls]
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="being awaited already"):
            await calls[state == "waiter"]
        assert await asyncio.gather(*tasks) == [1, 1]
        assert counts(f) == (1, 1)

    run(main())


@pytest.mark.parametrize("step", ["next", "throw instance", "close"])
def test_a_call_that_is_running_cannot_be_stepped(step):
    def outcome_inside(decorate):
        found = []

        async def body():
            found.append(outcome(lambda: STEPS[step](calls[0], [])))
            return "value"

        calls = [decorate(body)()]
        return drive(calls[0]), found

    assert outcome_inside(cache) == outcome_inside(lambda body: body) == ("value", [("raised", ValueError)])


def test_a_call_may_be_made_in_one_thread_and_awaited_in_another():
    f = cache(double)
    calls = [f(1), f(1)]
    results = []
    thread = threading.Thread(target=lambda: results.extend([asyncio.run(each) for each in calls]))
    thread.start()
    thread.join(20)
    assert results == [2, 2]
    assert drive(f(1)) == 2
    assert counts(f) == (2, 1)


@pytest.mark.parametrize("nonsense", [1, "text", int, None, object()])
def test_what_is_no_exception_cannot_be_thrown_and_changes_nothing(nonsense):
    f = cache(pauses)
    call = f()
    with pytest.raises(TypeError):
        call.throw(nonsense)
    assert call.send(None) == "first"
    with pytest.raises(TypeError):
        call.throw(nonsense)
    assert call.send("one") == "second"
    with pytest.raises(StopIteration):
        call.send("two")
    call = f()
    with pytest.raises(TypeError):
        call.throw(nonsense)
    assert drive(call) == ["one", "two"]


def test_closing_runs_what_has_to_be_cleaned_up_and_stores_nothing():
    done = []

    @cache
    async def f():
        try:
            await pause()
        finally:
            done.append("cleaned up")

    call = f()
    call.send(None)
    call.close()
    call.close()
    assert done == ["cleaned up"]
    assert not f.cache_contains()
    assert counts(f) == (0, 1)


def test_dropping_a_suspended_call_runs_what_has_to_be_cleaned_up():
    done = []

    @cache
    async def f():
        try:
            await pause()
        except GeneratorExit:
            done.append("cleaned up")
            raise

    call = f()
    call.send(None)
    del call
    gc.collect()
    assert done == ["cleaned up"]
    assert not f.cache_contains()


def test_thrown_exceptions_reach_the_function():
    @cache
    async def f():
        try:
            await pause()
        except KeyError as error:
            return error

    call, error = f(), KeyError(1)
    call.send(None)
    with pytest.raises(StopIteration) as stop:
        call.throw(error)
    assert stop.value.value is error
    assert drive(f()) is error


def test_a_call_that_a_collection_ends_leaves_nothing_to_the_next():
    @cache
    async def f(number):
        return [number]

    async def main():
        for number in range(70):  # more than are kept for another use
            assert await f(number % 2) == [number % 2]

    for _ in range(3):
        asyncio.run(main())
        for _ in range(70):
            ring = []
            ring += [f(0), ring]
            del ring
        gc.collect()
    asyncio.run(main())


STATES = {
    "created": inspect.CORO_CREATED,
    "running": inspect.CORO_RUNNING,
    "suspended": inspect.CORO_SUSPENDED,
    "waiting": inspect.CORO_SUSPENDED,
    "closed early": inspect.CORO_CLOSED,
    "closed": inspect.CORO_CLOSED,
    "returned": inspect.CORO_CLOSED,
    "failed": inspect.CORO_CLOSED,
    "was a hit": inspect.CORO_CLOSED,
}


@pytest.mark.parametrize("state", STATES)
def test_the_state_of_a_call_is_that_of_a_coroutine(state):
    # anyio asks for it to find out whether a task has started.
    if state == "waiting" and sys.version_info < (3, 11):
        pytest.skip("before Python 3.11 what has no frame passes for closed")

    async def body():
        found.append(inspect.getcoroutinestate(call))
        await pause()
        if state == "failed":
            raise KeyError

    async def main():
        nonlocal call
        f = cache(body)
        if state == "was a hit":
            await f()
        if state == "waiting":
            leaders.append(asyncio.create_task(f()))
            await asyncio.sleep(0)
        call = f()
        if state not in ("created", "closed early"):
            outcome(lambda: call.send(None))
        if state in ("returned", "failed"):
            outcome(lambda: call.send(None))
        if "closed" in state:
            call.close()
        if state != "running":
            found[:] = [inspect.getcoroutinestate(call)]
        call.close()

    call, found, leaders = double(1), [], []
    call.close()
    run(main())
    assert found == [STATES[state]]


def test_a_hit_has_no_frame():
    # What looks for one, as trio does, wraps the object into a coroutine of its own.
    call = called("hit")
    assert not hasattr(call, "cr_frame")
    assert not hasattr(call, "cr_await")
    drive(call)
    assert inspect.getcoroutinestate(call) == inspect.CORO_CLOSED


# Never awaited


def warned(make):
    """The warnings that come when what `make` makes is dropped."""
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
        gc.collect()
    return [(each.category, str(each.message)) for each in caught]


@pytest.mark.parametrize("arguments", [(1,), (2,)])
@both_decorators
def test_a_miss_that_is_never_awaited_warns_as_a_coroutine(decorator, arguments):
    f = decorator(double)
    assert warned(lambda: f(*arguments)) == warned(lambda: double(*arguments))
    assert warned(lambda: f(*arguments)) == [(RuntimeWarning, "coroutine 'double' was never awaited")]
    assert f.cache_info().current_size == 0
    assert drive(f(*arguments)) == 2 * arguments[0]


@pytest.mark.parametrize("name", ["partial", "partial of a partial", "bound method", "callable", "cached function"])
def test_every_kind_of_miss_warns_once_when_it_is_never_awaited(name):
    f = cache(KINDS[name])
    assert [category for category, text in warned(lambda: f(11)) if "never awaited" in text] == [RuntimeWarning]


@both_decorators
def test_a_hit_that_is_never_awaited_does_not_warn(decorator):
    f = decorator(double)
    drive(f(1))
    assert warned(lambda: f(1)) == []


@pytest.mark.parametrize(
    "use",
    [
        lambda call: call.close(),
        lambda call: outcome(lambda: call.throw(KeyError)),
        lambda call: outcome(lambda: call.throw(KeyError())),
        lambda call: drive(call),
        lambda call: asyncio.run(call),
    ],
    ids=["close", "throw class", "throw instance", "drive", "run"],
)
@both_states
def test_a_call_that_was_used_does_not_warn(use, state):
    assert warned(lambda: use(called(state))) == []


def test_a_call_that_was_suspended_when_dropped_does_not_warn():
    f = cache(pauses)
    assert warned(lambda: f().send(None)) == []


@pytest.mark.parametrize("circle", [False, True])
def test_one_who_waited_when_dropped_does_not_warn(circle):
    async def main():
        async def waits():
            waiter = f()
            waiter.send(None)
            if circle:
                circular = [waiter]
                circular.append(circular)

        f = cache(functools.partial(by_await, asyncio.get_running_loop().create_future()))
        leader = asyncio.create_task(f())
        await asyncio.sleep(0)
        await asyncio.create_task(waits())
        gc.collect()
        assert not leader.done()
        leader.cancel()

    assert warned(lambda: run(main())) == []


def test_a_miss_that_found_the_value_when_first_stepped_does_not_warn():
    f = cache(double)
    first, second = f(1), f(1)
    assert warned(lambda: (drive(first), drive(second))) == []


def test_a_warning_that_is_an_error_reaches_nobody(monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda hooked: unraisable.append(hooked.exc_type))
    f = cache(double)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f(1)
        gc.collect()
    assert unraisable == [RuntimeWarning]


def test_a_task_cancelled_before_its_first_step_runs_nothing_and_does_not_warn():
    async def main():
        f = cache(double)
        task = asyncio.create_task(f(1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not f.cache_contains(1)
        assert await f(1) == 2

    assert warned(lambda: run(main())) == []


# Exceptions around a call


def chain(error):
    """The contexts of an exception, from itself on."""
    while error is not None:
        yield error
        error = error.__context__


@both_states
def test_a_call_leaves_the_handled_exception_alone(state):
    f = cache(double)

    async def handles():
        try:
            raise KeyError("handled")
        except KeyError:
            before = sys.exc_info()
            assert await f(1) == 2
            assert sys.exc_info() == before
        assert sys.exc_info() == (None, None, None)

    if state == "hit":
        drive(f(1))
    drive(handles())
    assert sys.exc_info() == (None, None, None)


def test_the_context_of_an_exception_is_as_without_the_cache():
    async def fails_inside():
        assert isinstance(sys.exc_info()[1], KeyError)
        await pause()
        raise ValueError("inner")

    async def handles(function):
        try:
            raise KeyError("handled")
        except KeyError:
            await function()

    contexts = []
    for function in (fails_inside, cache(fails_inside)):
        with pytest.raises(ValueError, match="inner") as raised:
            run(handles(function))
        contexts.append([type(each) for each in chain(raised.value)])
    assert contexts == [[ValueError, KeyError]] * 2


def test_a_failed_call_leaves_nothing_in_the_next():
    seen = []

    @cache
    async def f(n):
        seen.append(sys.exc_info())
        raise KeyError(n)

    async def main():
        for n in range(3):
            with pytest.raises(KeyError) as raised:
                await f(n)
            assert list(chain(raised.value)) == [raised.value]
            assert sys.exc_info() == (None, None, None)

    drive(main())
    assert seen == [(None, None, None)] * 3


def test_the_traceback_shows_the_function_and_no_internals():
    async def fails_below(n):
        raise KeyError(n)

    f = cache(fails_below)

    async def above():
        await f(1)

    with pytest.raises(KeyError) as raised:
        drive(above())
    names = [entry.name for entry in raised.traceback]
    assert names[-2:] == ["above", "fails_below"]


@pytest.mark.parametrize("install", [sys.settrace, sys.setprofile])
def test_tracing_sees_the_function_and_changes_nothing(install):
    async def waits_and_doubles(n):
        ran.append(n)
        await pause()
        return 2 * n

    f, ran, called_names = cache(waits_and_doubles), [], []

    def trace(frame, event, argument):
        if event == "call":
            called_names.append(frame.f_code.co_name)
        return trace

    async def main():
        return [await f(1), await f(1), await asyncio.gather(f(2), f(2))]

    before = sys.gettrace(), sys.getprofile()
    install(trace)
    try:
        values = run(main())
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    assert values == [2, 2, [4, 4]]
    # Resuming is a call, too; up to Python 3.11, so is closing a coroutine that was never started.
    assert called_names.count("waits_and_doubles") == 4 + (sys.version_info < (3, 12))
    assert ran == [1, 2]
    assert counts(f) == (2, 2)


# Arguments


@both_decorators
@pytest.mark.parametrize("arguments", [((), {}), ((1, 2), {}), ((1,), {"m": 2}), ((1,), {"n": 2}), ((), {"m": 1})])
def test_wrong_arguments_are_a_type_error_at_the_call(decorator, arguments):
    f = decorator(double)
    with pytest.raises(TypeError):
        f(*arguments[0], **arguments[1])
    assert f.cache_info().current_size == 0
    assert drive(f(1)) == 2


@both_decorators
def test_wrong_arguments_of_a_partial_or_callable_are_a_type_error_at_the_call(decorator):
    for name in ("partial", "bound method", "callable", "partial of a callable"):
        with pytest.raises(TypeError):
            decorator(KINDS[name])(1, 2, 3)


@both_decorators
@pytest.mark.parametrize("argument", [[], {}, {1}, ([],)])
def test_an_unhashable_argument_is_a_type_error_at_the_call(decorator, argument):
    f = decorator(double)
    for call in (f, f.cache_contains, f.cache_invalidate):
        with pytest.raises(TypeError, match="unhashable"):
            call(argument)
        with pytest.raises(TypeError, match="unhashable"):
            call(n=argument)
    assert f.cache_info().current_size == 0


def test_a_raising_hash_or_eq_reaches_the_caller_at_the_call():
    class Broken:
        broken = False

        def __hash__(self):
            return 1

        def __eq__(self, other):
            if Broken.broken:
                raise OSError("eq")
            return self is other

    f = cache(returns_argument)
    key = Broken()
    drive(f(key))
    Broken.broken = True
    with pytest.raises(OSError, match="eq"):
        f(Broken())
    Broken.broken = False
    assert drive(f(key)) is key
    assert counts(f) == (1, 1)


async def returns_argument(argument):
    return argument


NAMES = ["self", "value", "args", "kwargs", "key", "function", "cls", "loop", "coroutine", "instance", "n", "other"]


@both_decorators
def test_keywords_of_any_name_reach_the_function(decorator):
    @decorator
    async def f(**kwargs):
        return kwargs

    keywords = {name: number for number, name in enumerate(NAMES)}
    for _ in range(2):
        assert drive(f(**keywords)) == keywords
    for name in NAMES:
        assert drive(f(**{name: 1})) == {name: 1}
        assert f.cache_contains(**{name: 1})
        assert f.cache_invalidate(**{name: 1})
    assert counts(f) == (1, 1 + len(NAMES))


def test_cache_matches_every_spelling_of_a_call_to_the_signature():
    @cache
    async def f(a, b=2):
        return a, b

    assert [drive(call) for call in (f(1), f(1, 2), f(a=1), f(b=2, a=1))] == [(1, 2)] * 4
    assert counts(f) == (3, 1)


def test_lru_cache_keeps_every_spelling_of_a_call_apart():
    @lru_cache
    async def f(a, b=2):
        return a, b

    assert [drive(call) for call in (f(1), f(1, 2), f(a=1), f(b=2, a=1), f(a=1, b=2))] == [(1, 2)] * 5
    assert counts(f) == (0, 5)


@pytest.mark.parametrize("decorator", [cache(typed=True), lru_cache(typed=True)])
def test_typed_separates_by_type(decorator):
    f = decorator(returns_argument)
    assert [type(drive(f(value))) for value in (1, 1.0, True, 1)] == [int, float, bool, int]
    assert counts(f) == (1, 3)


def test_untyped_does_not():
    f = cache(returns_argument)
    assert [type(drive(f(value))) for value in (1, 1.0, True)] == [int] * 3
    assert counts(f) == (2, 1)


# The function as an object


async def documented(a: int, /, b: str, *, c: bool = True) -> float:
    """What it does."""
    return 1.5


documented.note = "kept"


@pytest.mark.parametrize("attribute", [*functools.WRAPPER_ASSIGNMENTS, "__annotations__", "note"])
@both_decorators
def test_attributes_of_the_function_are_carried_over(decorator, attribute):
    assert getattr(decorator(documented), attribute) == getattr(documented, attribute)


@both_decorators
def test_the_signature_is_that_of_the_function(decorator):
    assert inspect.signature(decorator(documented)) == inspect.signature(documented)
    assert inspect.getdoc(decorator(documented)) == "What it does."
    assert inspect.unwrap(decorator(documented)) is documented
    assert "documented" in repr(decorator(documented))


@every_kind
@both_decorators
def test_repr_of_every_kind_works(decorator, function):
    assert "cached" in repr(decorator(function)).lower()


@both_decorators
def test_weak_references_copies_and_attributes_work(decorator):
    async def local(n):
        return n

    f = decorator(local)
    f.note = 1
    assert vars(f)["note"] == 1
    assert copy.copy(f) is f
    assert copy.deepcopy([f])[0] is f
    reference = weakref.ref(f)
    drive(f(1))
    del f, local
    gc.collect()
    assert reference() is None


@cache
async def at_module_level(n):
    return n


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("f", [at_module_level, Methods.method, Methods.functools_method, Methods.static])
def test_pickle_gives_the_same_object(f, protocol):
    assert pickle.loads(pickle.dumps(f, protocol)) is f


@both_states
def test_a_call_can_be_neither_copied_nor_pickled(state):
    call = called(state)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            attempt(call)
    drive(call)


@both_states
def test_a_call_cannot_be_made_by_hand(state):
    call = called(state)
    with pytest.raises(TypeError):
        type(call)()
    drive(call)


@pytest.mark.parametrize("debug", [False, True])
def test_tasks_of_calls_can_be_shown(debug):
    async def main():
        @cache
        async def recognisable():
            await asyncio.Event().wait()

        tasks = [asyncio.create_task(recognisable()) for _ in range(2)]
        shown = [repr(task) for task in tasks]
        await settle()
        shown += [repr(task) for task in tasks]
        for task in tasks:
            task.get_stack()
            task.print_stack(file=io.StringIO())
            task.cancel()
        await asyncio.wait(tasks)
        shown += [repr(task) for task in tasks]
        for task in tasks:
            task.print_stack(file=io.StringIO())
        assert all("recognisable" in each for each in shown)

    asyncio.run(main(), debug=debug)


@since_314
def test_the_call_graph_of_tasks_of_calls_can_be_shown():
    async def main():
        f = cache(recognisable)
        drive(f(0))
        tasks = [asyncio.create_task(f(number)) for number in (1, 1)]
        await asyncio.sleep(0)
        graphs = [asyncio.format_call_graph(task) for task in tasks]
        assert "recognisable" in graphs[0]
        await asyncio.wait(tasks)
        f.cache_clear()

        async def above():
            return await f(2)

        task = asyncio.create_task(above())
        await asyncio.sleep(0)
        assert "above" in asyncio.format_call_graph(task)
        await task

    async def recognisable(number):
        if number:
            await asyncio.sleep(0)

    run(main())


@pytest.mark.parametrize("name", ["partial", "partial of a callable", "callable", "cached function"])
def test_tasks_of_every_kind_can_be_shown(name):
    async def main():
        f = cache(KINDS[name])
        for _ in ("miss", "hit"):
            task = asyncio.create_task(f(1))
            assert repr(task)
            await task
            assert repr(task)

    asyncio.run(main(), debug=True)


def test_origin_tracking_changes_nothing():
    depth = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(5)
    try:
        f = cache(double)
        assert [drive(f(1)), drive(f(1))] == [2, 2]
    finally:
        sys.set_coroutine_origin_tracking_depth(depth)


# Contexts

variable = contextvars.ContextVar("variable", default="unset")


def test_a_variable_set_inside_is_visible_to_the_caller_that_ran_it_and_to_no_other():
    async def main():
        @cache
        async def f():
            variable.set("before")
            await asyncio.sleep(0)
            assert variable.get() == "before"
            variable.set("inside")

        async def caller():
            await f()
            return variable.get()

        assert await asyncio.gather(caller(), caller(), caller()) == ["inside", "unset", "unset"]
        assert await asyncio.create_task(caller()) == "unset"
        assert variable.get() == "unset"
        f.cache_clear()
        assert await caller() == variable.get() == "inside"

    run(main())


def test_the_function_sees_the_variables_of_its_caller():
    async def main():
        @cache
        async def f(n):
            await asyncio.sleep(0)
            return variable.get()

        variable.set("outside")
        assert await f(1) == "outside"
        assert await asyncio.create_task(f(2)) == "outside"

    run(main())


def test_a_call_leaves_no_variables_behind():
    async def main():
        @cache
        async def f(n):
            await asyncio.sleep(0)
            if n == 2:
                raise KeyError(n)

        before = dict(contextvars.copy_context())
        await f(1)
        await f(1)
        with pytest.raises(KeyError):
            await f(2)
        assert dict(contextvars.copy_context()) == before

    run(main())


def test_a_call_may_be_stepped_in_changing_contexts():
    @cache
    async def f():
        await pause()
        await pause()
        return 1

    call = f()
    assert contextvars.Context().run(call.send, None) is None
    assert contextvars.Context().run(call.send, None) is None
    with pytest.raises(StopIteration):
        contextvars.Context().run(call.send, None)
    assert drive(f()) == 1


# Counting and storing


def test_a_miss_is_counted_before_the_function_runs():
    @cache
    async def f():
        return counts(f)

    assert drive(f()) == (0, 1)
    assert counts(f) == (0, 1)


def test_hits_and_misses_are_the_awaited_calls():
    async def main():
        @cache(max_size=3)
        async def f(n):
            await asyncio.sleep(0)
            if n == 4:
                raise KeyError(n)
            return n

        rng, awaited = random.Random(1), 0
        for _ in range(50):
            group = [f(rng.randrange(5)) for _ in range(rng.randrange(1, 8))]
            awaited += len(group)
            await asyncio.gather(*group, return_exceptions=True)
            assert sum(counts(f)) == awaited
            assert f.cache_info().current_size <= 3

    run(main())


def test_one_who_waits_counts_as_a_hit_or_with_an_exception_as_a_miss():
    async def main():
        @cache
        async def f(n):
            await asyncio.sleep(0)
            if n < 0:
                raise KeyError(n)

        await asyncio.gather(*(f(1) for _ in range(5)))
        assert f.cache_info() == (4, 1, 128, 1)
        await asyncio.gather(*(f(-1) for _ in range(5)), return_exceptions=True)
        assert f.cache_info() == (4, 6, 128, 1)

    run(main())


def test_a_miss_looks_once_more_when_it_is_first_stepped():
    ran = []

    @cache
    async def f(n):
        ran.append(n)
        return [n]

    first, second, third = f(1), f(1), f(1)
    value = drive(second)
    assert drive(first) is drive(third) is value
    assert (ran, f.cache_info()) == ([1], (2, 1, 128, 1))


def test_a_hit_keeps_its_value_whatever_happens_before_it_is_awaited():
    f = cache(returns_argument)
    key = (1, 2)
    drive(f(key))
    call = f(key)
    f.cache_clear()
    assert drive(call) is key


def test_the_value_expires_counted_from_the_moment_the_computation_ended():
    with _ManualClock() as clock:

        @cache(ttl=10)
        async def f():
            await pause()
            return object()

        call = f()
        call.send(None)
        clock.advance(100)
        assert not f.cache_contains()
        with pytest.raises(StopIteration) as stop:
            call.send(None)
        clock.advance(9)
        assert f.cache_contains()
        assert drive(f()) is stop.value.value
        clock.advance(2)
        assert not f.cache_contains()
        assert f.cache_info().current_size == 0
        call = f()
        call.send(None)
        call.close()
    assert counts(f) == (1, 2)


@pytest.mark.parametrize("max_size", [0, 1, 2, 3, 5, None])
@pytest.mark.parametrize("ttl", [None, 5])
@pytest.mark.parametrize("strategy", ["lru", "mru", "fifo", "lfu"])
def test_calls_one_after_another_agree_with_the_model(strategy, ttl, max_size):
    ran = []

    async def value_of(key):
        ran.append(key)
        return "value of", key

    with _ManualClock() as clock:
        f = cache(strategy, max_size, ttl)(value_of)
    model, rng = Model(strategy, max_size, ttl), random.Random(f"{strategy} {max_size} {ttl}")
    for _ in range(1500):
        key = rng.randrange(8)
        what = rng.choice(["call"] * 12 + ["contains", "invalidate", "advance", "info"] + ["clear"] * (key == 0))
        if what == "call":
            before = len(ran)
            assert drive(f(key)) == ("value of", key)
            assert len(ran) - before == model.call(key)
        elif what == "contains":
            assert f.cache_contains(key) is model.contains(key)
        elif what == "invalidate":
            assert f.cache_invalidate(key) is model.invalidate(key)
        elif what == "advance":
            clock.advance(1)
            model.advance(1)
        elif what == "info":
            assert f.cache_info() == model.info()
        else:
            f.cache_clear()
            model.clear()
    assert {key for key in range(8) if f.cache_contains(key)} == model.keys()


@pytest.mark.parametrize("decorator", [cache(max_size=0), lru_cache(0), lru_cache(-1), cache("mru", 0, 5)])
def test_size_zero_never_stores(decorator):
    f = decorator(double)
    assert [drive(f(1)) for _ in range(3)] == [2, 2, 2]
    assert f.cache_info() == (0, 3, 0, 0)
    assert f.cache_contains(1) is False


@both_decorators
def test_invalidate_contains_clear_and_info(decorator):
    f = decorator(double)
    assert (f.cache_contains(1), f.cache_invalidate(1)) == (False, False)
    drive(f(1)), drive(f(2))
    assert (f.cache_contains(1), f.cache_invalidate(1), f.cache_invalidate(1)) == (True, True, False)
    assert (f.cache_contains(1), f.cache_contains(2)) == (False, True)
    assert f.cache_info() == (0, 2, 128, 1)
    assert f.cache_clear() is None
    assert f.cache_info() == (0, 0, 128, 0)
    assert not inspect.isawaitable(f.cache_info())


@pytest.mark.parametrize(("given", "in_force"), [(None, True), (True, True), (False, False)])
def test_cache_parameters_show_single_flight(given, in_force):
    parameters = cache(Strategy.LFU, 7, single_flight=given)(double).cache_parameters()
    assert (parameters["single_flight"], parameters["max_size"]) == (in_force, 7)


def test_cache_parameters_of_a_bare_decorator_show_single_flight():
    assert cache(double).cache_parameters()["single_flight"] is True
    assert cache(len).cache_parameters()["single_flight"] is False


def test_cache_parameters_of_lru_cache_are_those_of_functools():
    assert lru_cache(double).cache_parameters() == {"maxsize": 128, "typed": False}


# Around other tools


@both_decorators
def test_a_cached_coroutine_function_may_be_cached_and_wrapped_again(decorator):
    inner = decorator(double)
    outer = decorator(inner)

    @functools.wraps(outer)
    async def wrapper(n):
        return await outer(n)

    assert [drive(wrapper(1)), drive(wrapper(1)), drive(inner(1))] == [2, 2, 2]
    assert (counts(outer), counts(inner)) == ((1, 1), (1, 1))


def test_awaiting_inside_comprehensions_context_managers_and_generators_works():
    f = cache(double)

    async def generator():
        for n in range(4):
            yield await f(n % 2)

    async def main():
        assert [value async for value in generator()] == [0, 2, 0, 2]
        assert {n: await f(n) for n in range(2)} == {0: 0, 1: 2}
        return await f(await f(await f(1)))

    assert drive(main()) == 8


def test_deep_recursion_on_other_keys_works_or_ends_in_a_recursion_error():
    @cache(max_size=None)
    async def total(n):
        return n + await total(n - 1) if n else 0

    assert drive(total(80)) == 3240

    @cache
    async def down(n):
        return await down(n + 1)

    with pytest.raises(RecursionError):
        drive(down(0))
    assert down.cache_info().current_size == 0
    assert drive(total(81)) == 3321


def test_a_static_method_of_a_coroutine_function_is_one():
    class Service:
        @cache
        @staticmethod
        async def get(number):
            return number * 2

    assert inspect.iscoroutinefunction(Service.__dict__["get"])
    assert [drive(Service.__dict__["get"](4)) for _ in range(2)] == [8, 8]


@pytest.mark.parametrize("made", ["miss", "hit"])
def test_a_call_can_be_referred_to_weakly(made):
    f = cache(double)
    if made == "hit":
        drive(f(1))
    call, told = f(1), []
    reference = weakref.ref(call, told.append)
    assert reference() is call
    drive(call)
    del call
    assert reference() is None
    assert told == [reference]
