"""A flight under failures: whichever allocation of a step fails, nobody who waits for it waits for ever."""

import pytest
import survival

ALLOCATIONS = 80

# An event loop without a loop: the script takes each step of each task, so that it knows when one can never go on.
BEGIN = """
import asyncio, sys, warnings
import _testcapi
from warp_cache import cache, lru_cache

warnings.simplefilter("ignore")
sys.unraisablehook = lambda unraisable: None
allocations = int(sys.argv[1])

class Future:
    def __init__(self):
        self.is_done, self.failures = False, failures
    def done(self):
        return self.is_done
    def set_result(self, value):
        if self.failures:
            self.failures -= 1
            raise MemoryError
        self.is_done = True
    def __await__(self):
        while not self.is_done:
            yield self

class Loop:
    def create_future(self):
        return Future()

failures = 0
loop = Loop()
asyncio._set_running_loop(loop)

class Task:
    def __init__(self, call):
        self.call, self.waits_for, self.outcome = call, None, None

    def step(self, fail_at=None, act=lambda call: call.send(None)):
        asyncio.tasks._enter_task(loop, self)
        if fail_at is not None:
            _testcapi.set_nomemory(fail_at, fail_at + 1)
        try:
            self.waits_for = act(self.call)
            _testcapi.remove_mem_hooks()
        except StopIteration as stop:
            _testcapi.remove_mem_hooks()
            self.outcome = stop.value
        except BaseException as error:
            _testcapi.remove_mem_hooks()
            self.outcome = type(error).__name__
        finally:
            asyncio.tasks._leave_task(loop, self)
        if self.outcome is not None:
            self.call = None

    def can_go_on(self):
        return self.outcome is None and (self.waits_for is None or self.waits_for.is_done)

def finish(tasks):
    while ready := [task for task in tasks if task.can_go_on()]:
        for task in ready:
            task.step()
    hung = [task for task in tasks if task.outcome is None]
    assert not hung, f"{len(hung)} of {len(tasks)} wait for ever"

gate = Future()

class Failed(Exception):
    pass

async def body(x):
    await gate
    if fails:
        raise Failed
    return ("value", x)

def close(call):
    call.close()
    raise StopIteration("closed")

def begin(number):
    tasks = [Task(f("key")) for _ in range(number)]
    for task in tasks:
        task.step()
    assert all(task.outcome is None for task in tasks)
    return tasks

fails = False
f = DECORATOR(body)
for number in range(-1, allocations):
    gate.is_done = False
    f.cache_clear()
    fail_at = number if number >= 0 else None
    tasks = []
"""

# The step in which an allocation fails.
STEPS = {
    "the leader's first step": """
    tasks = [Task(f("key"))]
    tasks[0].step(fail_at)
    tasks += [Task(f("key")), Task(f("key"))]
    for task in tasks[1:]:
        task.step()
""",
    "the leader's last step": """
    tasks = begin(3)
    gate.is_done = True
    tasks[0].step(fail_at)
""",
    "the leader's last step, which raises": """
    tasks = begin(3)
    gate.is_done = fails = True
    tasks[0].step(fail_at)
    finish(tasks)
    fails = False
""",
    "the leader's close": """
    tasks = begin(3)
    tasks[0].step(fail_at, close)
""",
    "the leader's cancellation": """
    tasks = begin(3)
    tasks[0].step(fail_at, lambda call: call.throw(asyncio.CancelledError()))
""",
    "the leader's drop": """
    tasks = begin(3)
    def let_go(call):
        tasks[0].call = None
        del call
    tasks[0].step(fail_at, let_go)
    tasks[0].outcome = "dropped"
""",
    "a waiter's first step": """
    tasks = begin(1)
    tasks += [Task(f("key")), Task(f("key"))]
    tasks[1].step(fail_at)
    tasks[2].step()
""",
    "a waiter's last step": """
    tasks = begin(3)
    gate.is_done = True
    tasks[0].step()
    tasks[1].step(fail_at)
""",
    "a waiter's close": """
    tasks = begin(3)
    tasks[1].step(fail_at, close)
""",
    "a waiter's take-over": """
    tasks = begin(3)
    tasks[0].step(None, close)
    for task in tasks[1:]:
        task.step(fail_at if task.can_go_on() else None)
""",
    "a chosen waiter's close": """
    tasks = begin(3)
    tasks[0].step(None, close)
    for task in tasks[1:]:
        if task.can_go_on():
            task.step(fail_at, close)
""",
    "a clearing": """
    tasks = begin(3)
    Task(None).step(fail_at, lambda call: f.cache_clear())
    tasks += begin(2)
""",
}

END = """
    gate.is_done = True
    finish(tasks)
    allowed = {("value", "key"), "MemoryError", "SystemError", "closed", "dropped", "CancelledError", "Failed"}
    outcomes = [task.outcome for task in tasks]
    assert set(outcomes) <= allowed, outcomes
    afterwards = Task(f("key"))
    finish([afterwards])
    assert afterwards.outcome == ("value", "key"), afterwards.outcome
    del tasks, afterwards
print("end")
"""

DECORATORS = {
    "cache": "cache(max_size=10)",
    "lru_cache": "lru_cache(maxsize=10)",
    "that keeps nothing": "cache(max_size=0)",
    "shared": "cache(max_size=10, backend='shared', name='f', version=1)",
}


@pytest.mark.parametrize("decorator", DECORATORS)
@pytest.mark.parametrize("step", STEPS)
def test_no_failure_makes_others_wait_for_ever(step, decorator, shared_directory):
    pytest.importorskip("_testcapi")
    source = BEGIN.replace("DECORATOR", DECORATORS[decorator]) + STEPS[step] + END
    survival.lives(source, ALLOCATIONS, out="end\n", WARP_CACHE_DIR=str(shared_directory))


ONCE = """
failures = 1
tasks = begin(3)
failures = 0
gate.is_done = True
tasks[0].step()
finish(tasks)
print([task.outcome for task in tasks])
"""


def test_a_signal_that_could_not_be_given_is_given_again():
    pytest.importorskip("_testcapi")
    source = BEGIN[: BEGIN.index("for number")].replace("DECORATOR", "cache") + ONCE
    survival.lives(source, 0, out=f"{[('value', 'key')] * 3}\n")
