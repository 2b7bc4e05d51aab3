"""An interpreter that exits while threads are inside a cached call, in whatever place: the process ends with status 0.

Up to Python 3.13, a daemon thread that would go on after the interpreter has begun to end is ended where it stands, in
the middle of our call. Each place in which other code can run, or the thread may wait for its turn, is a script here.
"""

import os
import sys

import pytest
from survival import FREE_THREADED, lived, lives, run

EXITS = int(os.environ.get("WARP_CACHE_EXITS", "3"))  # of each script: 20 by hand
posix = pytest.mark.skipif(sys.platform == "win32", reason="no shared memory, fork or pthreads on Windows")
linux = pytest.mark.skipif(sys.platform != "linux", reason="calls glibc by name")

BEGIN = """
import asyncio, copy, functools, gc, os, pickle, random, sys, threading, time, warnings
import warp_cache
from warp_cache import cache, lru_cache

warnings.simplefilter("ignore")
sys.setswitchinterval(1e-5)
THREADS = 6
seed = int(sys.argv[1])

# Code of others, in which threads are switched. All that it needs is bound to it: globals go before threads do.
def pause(sleep=time.sleep, range=range):
    for _ in range(60):
        pass
    sleep(0)

class Key:
    def __init__(self, number, hash=None):
        self.number, self.hash = number, number if hash is None else hash
    def __hash__(self, pause=pause):
        pause()
        return self.hash
    def __eq__(self, other, pause=pause):
        pause()
        return self.number == other.number

class Value:
    def __del__(self, pause=pause):
        pause()

class Reduced:
    def __init__(self, number):
        self.number = number
    def __hash__(self):
        return hash(self.number)
    def __eq__(self, other):
        return self.number == other.number
    def __reduce__(self, pause=pause):
        pause()
        return Reduced, (self.number,)

class Restored:
    def __init__(self, number):
        self.number = number
    def __getstate__(self, pause=pause):
        pause()
        return {"number": self.number}
    def __setstate__(self, state, pause=pause):
        pause()
        self.__dict__.update(state)

def forever(coroutine_function):
    '''Rounds of an event loop that this thread has for itself.'''
    local = threading.local()
    def step(i):
        if not hasattr(local, "loop"):
            local.loop = asyncio.new_event_loop()
            local.loop.set_exception_handler(lambda *_: None)
        local.loop.run_until_complete(coroutine_function(i))
    return step

"""

END = """
rounds = [0] * THREADS

def work(me, rounds=rounds, step=step):
    i = 7 * me
    while True:
        step(i)
        i += 1
        rounds[me] += 1

class Late:
    '''Goes when the modules do, so late that no other thread may run any more, and lets all have their turn.'''
    def __del__(self, sleep=time.sleep, range=range):
        for _ in range(20):
            sleep(0.0005)

if seed % 3:
    late = Late()
for me in range(THREADS):
    threading.Thread(target=work, args=(me,), daemon=True).start()
patience = time.monotonic() + 60
while min(rounds) < 2:
    assert time.monotonic() < patience, rounds
    time.sleep(0.001)
time.sleep(random.Random(seed).random() * 0.01)
"""

# What one round of a thread is. Each is the body of a module that defines `step(i)`.
PLACES = {
    "hash": """
        @cache(max_size=8)
        def f(key): return key
        def step(i): f(Key(i % 16))
    """,
    "hash_lru_cache": """
        @lru_cache(maxsize=8)
        def f(key): return key
        def step(i): f(Key(i % 16))
    """,
    "hash_of_several": """
        @cache(max_size=8)
        def f(a, b, c=3): return a
        def step(i): f(Key(i % 16), i % 3, Key(1))
    """,
    "hash_of_several_lru_cache": """
        @lru_cache(maxsize=8, typed=True)
        def f(a, b, c=3): return a
        def step(i): f(Key(i % 16), i % 3, Key(1))
    """,
    "eq": """
        @cache(max_size=8)
        def f(key): return key
        def step(i): f(Key(i % 12, hash=1))
    """,
    "eq_lru_cache_unbounded": """
        @lru_cache(maxsize=None)
        def f(key): return key
        def step(i): f(Key(i % 12, hash=1))
    """,
    "eq_of_several": """
        @cache(max_size=8)
        def f(a, b): return a
        def step(i): f(i % 2, Key(i % 6, hash=1))
    """,
    "eq_of_every_strategy": """
        def f(key): return key
        cached = [cache(strategy, 4)(f) for strategy in ("lru", "mru", "fifo", "lfu")]
        def step(i): cached[i % 4](Key(i % 7, hash=1))
    """,
    "function": """
        @cache(max_size=8)
        def f(n, pause=pause):
            pause()
            return n
        def step(i): f(i % 16)
    """,
    "function_lru_cache": """
        @lru_cache(maxsize=8)
        def f(n):
            pause()
            return n
        def step(i): f(i % 16)
    """,
    "function_that_raises": """
        @cache
        def f(n):
            pause()
            raise ValueError(n)
        def step(i):
            try: f(n=i % 16)
            except ValueError: pass
    """,
    "function_that_recurses": """
        @cache(max_size=3)
        def f(n):
            pause()
            return f(n - 1) if n else 0
        def step(i): f(i % 16)
    """,
    "del_of_evicted": """
        @cache(max_size=2)
        def f(n): return Value()
        def step(i): f(i % 16)
    """,
    "del_of_evicted_keys": """
        @lru_cache(maxsize=2)
        def f(a, b): return None
        def step(i): f(Value(), Value())
    """,
    "del_of_expired": """
        @cache(max_size=None, ttl=1e-6)
        def f(n): return Value()
        def step(i): f(i % 16)
    """,
    "clear": """
        @cache
        def f(n): return Value()
        def step(i):
            f(i % 64)
            if i % 8 == 0:
                f.cache_clear()
    """,
    "contains": """
        @cache(max_size=8)
        def f(key): return key
        for n in range(8): f(Key(n, hash=1))
        def step(i): f.cache_contains(Key(i % 12, hash=1))
    """,
    "invalidate": """
        @cache(max_size=8)
        def f(a, b=1): return Value()
        def step(i):
            f.cache_invalidate(Key(i % 12, hash=1))
            f(b=1, a=Key(i % 12, hash=1))
    """,
    "info": """
        @cache
        def f(n): return n
        def step(i): f.cache_info()
    """,
    "info_as_tuple": """
        @cache
        def f(n): return n
        def step(i):
            info = f.cache_info()
            repr(info), info == (0, 0, 128, 0), info._asdict(), list(info), info.maxsize, hash(info)
            info._replace(hits=2)
            pickle.loads(pickle.dumps(info))
    """,
    "parameters": """
        @cache
        def f(n): return n
        @lru_cache
        def g(n): return n
        def step(i): f.cache_parameters(), g.cache_parameters()
    """,
    "keywords": """
        @cache(max_size=8)
        def f(a, b=2, *, c=3): return a
        def step(i): f(c=Key(i % 3), a=Key(i % 16, hash=1))
    """,
    "keywords_of_any_name": """
        @cache(max_size=8)
        def f(**names):
            pause()
            return Value()
        def step(i): f(**{f"name{i % 3}": Key(i % 16), "z": 1})
    """,
    "keywords_lru_cache": """
        @lru_cache(maxsize=8)
        def f(a, b=2, **names):
            pause()
            return Value()
        def step(i): f(b=Key(i % 3), a=Key(i % 16, hash=1), other=3)
    """,
    "ttl": """
        @cache(max_size=8, ttl=1e-5)
        def f(key):
            pause()
            return Value()
        def step(i): f(Key(i % 12, hash=1))
    """,
    "methods": """
        class Thing(Key):
            @cache(max_size=8)
            def method(self, n):
                pause()
                return Value()
            @classmethod
            @lru_cache
            def of_class(cls, key): return key
        things = [Thing(n, hash=1) for n in range(4)]
        def step(i):
            things[i % 4].method(i % 7)
            Thing.of_class(Key(i % 3))
            things[i % 4].method
    """,
    "decorating": """
        def step(i):
            @cache(max_size=i % 3)
            def f(n): return Value()
            f(1), f(2), f(3)
            lru_cache(f)(1)
    """,
    "repr": """
        class Named:
            __name__ = property(lambda self: (pause(), "name")[1])
            def __repr__(self): return pause() or "Named()"
            def __call__(self, n): return n
        f, g = cache(Named()), cache(len)
        def step(i): repr(f), repr(g), repr(f(i % 5)), str(cache())
    """,
    "attributes": """
        @cache
        def f(n): return n
        def step(i):
            f.__dict__, f.__wrapped__, f.__name__, f.__doc__, hasattr(f, "nothing"), f.__get__(1)
            f.mark = Value()
    """,
    "copy_and_pickle": """
        @cache
        def f(n): return n
        def step(i): copy.copy(f), copy.deepcopy(f), pickle.loads(pickle.dumps(f))
    """,
    "unhashable": """
        class Bad:
            def __hash__(self):
                pause()
                raise TypeError("no")
        @cache
        def f(a, b=1): return a
        def step(i):
            try: f(Bad())
            except TypeError: pass
            try: f(b=[], a=1)
            except TypeError: pass
            try: f()
            except TypeError: pass
    """,
    "collections_of_garbage": """
        def make(i):
            @cache
            def f(n): return Value()
            f(1)
            f.itself = f
            box = [f]
            f.box = box
            cache(max_size=2)(lambda value, f=f: f)(i)
        def step(i, make=make):
            # Only one thread collects at a time, slowly: the others must not make garbage faster than that.
            if gc.get_count()[0] < 500: make(i)
            else: pause()
            gc.collect(i % 2)
    """,
    "asyncio": """
        @cache(max_size=8)
        async def f(n):
            pause()
            await asyncio.sleep(0)
            pause()
            return Value()
        @forever
        async def step(i):
            await f(i % 12)
            await asyncio.gather(*(f(n) for n in range(6)))
    """,
    "asyncio_keys": """
        @lru_cache(maxsize=8)
        async def f(key):
            await asyncio.sleep(0)
            return key
        @forever
        async def step(i):
            await f(Key(i % 12, hash=1))
            await asyncio.wait_for(f(Key(i % 5, hash=1)), 100)
    """,
    "waiters": """
        @cache(max_size=2)
        async def f(n):
            for _ in range(4):
                pause()
                await asyncio.sleep(0)
            if n == 3: raise ValueError
            return Value()
        @forever
        async def step(i):
            tasks = [asyncio.ensure_future(f(i % 4)) for _ in range(6)]
            await asyncio.sleep(0)
            tasks[i % 6].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    """,
    "coroutines_by_hand": """
        class Waits:
            def __await__(self):
                pause()
                yield 1
        @cache(max_size=2)
        async def f(n):
            await Waits()
            return Value()
        def step(i):
            call = f(i % 4)
            repr(call)
            try:
                call.send(None)
                if i % 3 == 0: call.throw(ValueError())
                call.send(None)
            except (StopIteration, ValueError): pass
            call.close()
            f(100 + i)  # never awaited
    """,
}

SHARED = {
    "shared_hits": """
        @cache(backend="shared", name="f")
        def f(n): return n
        def step(i): f(i % 4), f.cache_info(), f.cache_contains(i), f.shared_stats()
    """,
    "shared_misses": """
        @cache(max_size=4, backend="shared", name="f")
        def f(a, b=(1, "two")):
            pause()
            return (a, 2.0, "three")
        def step(i): f(i % 32), f.cache_invalidate(i % 7), f(b=2, a=1)
    """,
    "shared_reduce": """
        @cache(max_size=4, backend="shared", name="f")
        def f(key): return Reduced(1)
        def step(i): f(Reduced(i % 12)), f.cache_contains(Reduced(1))
    """,
    "shared_setstate": """
        @lru_cache(maxsize=16, backend="shared", name="f")
        def f(n): return Restored(n)
        def step(i): f(i % 24)
    """,
    "shared_clear": """
        @cache(max_size=16, backend="shared", name="f")
        def f(n): return [Restored(n)]
        def step(i):
            f(i % 24)
            if i % 10 == 0: f.cache_clear()
            if i % 50 == 0: f.cache_unlink()
    """,
    "shared_decorating": """
        def step(i):
            @cache(max_size=4, backend="shared", name=f"f{i % 3}")
            def f(n): return n
            f(i % 5)
            warp_cache.shared_regions()
    """,
    "shared_asyncio": """
        @cache(max_size=4, backend="shared", name="f")
        async def f(n):
            pause()
            await asyncio.sleep(0)
            return Restored(n)
        @forever
        async def step(i):
            await asyncio.gather(*(f(n % 5) for n in range(i % 4, 12)))
    """,
}


def place(text):
    lines = text.strip("\n").split("\n")
    return "\n".join(line[8:] for line in lines) + "\n"


def mixed(places):
    """One script of many: each round of a thread is a round of one of them."""
    bodies = "".join(
        f"def place{number}():\n" + "".join(f"    {line}\n" for line in place(text).split("\n")) + "    return step\n"
        for number, text in enumerate(places.values())
    )
    return f"""{bodies}
steps = [{", ".join(f"place{number}()" for number in range(len(places)))}]
dice = random.Random(seed)
def step(i, steps=steps, choice=dice.choice): choice(steps)(i)
"""


def exits(source, shared_directory):
    for seed in range(EXITS):
        # 3.10 itself may crash where a thread asks for the GIL while the interpreter's state goes, whatever the thread
        # has called: one exit in a hundred. Twice in a row is no chance.
        def is_fault_of_python(ended):
            return sys.version_info < (3, 11) and ended.status != 0

        lives_or_again(BEGIN + source + END, seed, shared_directory, is_fault_of_python)


def lives_or_again(script, seed, shared_directory, is_fault_of_python):
    """That the script lives, the second time if the interpreter itself was at fault in the first."""
    options = {"WARP_CACHE_DIR": str(shared_directory)}
    ended = run(script, seed, **options)
    if is_fault_of_python(ended):
        ended = run(script, seed, **options)
    lived(ended, out="")


@pytest.mark.parametrize("name", PLACES)
def test_threads_in_a_call_do_not_hinder_the_exit(name, shared_directory):
    exits(place(PLACES[name]), shared_directory)


@posix
@pytest.mark.parametrize("name", SHARED)
def test_threads_in_a_call_of_a_shared_cache_do_not_hinder_the_exit(name, shared_directory):
    exits(place(SHARED[name]), shared_directory)


def test_threads_everywhere_do_not_hinder_the_exit(shared_directory):
    # A function that is pickled by its name must be found under it.
    places = {name: text for name, text in PLACES.items() if name != "copy_and_pickle"}
    exits(mixed(places), shared_directory)


@posix
def test_threads_everywhere_with_shared_caches_do_not_hinder_the_exit(shared_directory):
    places = {name: text for name, text in (PLACES | SHARED).items() if name != "copy_and_pickle"}
    exits(mixed(places), shared_directory)


WAYS = {
    "sys_exit": "sys.exit()",
    "system_exit": "raise SystemExit(0)",
    "os_exit": "os._exit(0)",
    "atexit_calls": "import atexit; atexit.register(lambda: [step(i) for i in range(20)])",
    "del_calls": """
class Last:
    def __del__(self, step=step, range=range):
        for i in range(20): step(i)
last = Last()
sys.last_of_all = Last()
""",
    "sys_exit_in_another_thread": "threading.Thread(target=sys.exit, args=(3,)).start()",
    "os_exit_in_another_thread": "threading.Thread(target=os._exit, args=(0,)).start(); threading.Event().wait(60)",
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_exit_ends_well(way, shared_directory):
    body = """
        @cache(max_size=4)
        def f(key, pause=pause, Value=Value):
            pause()
            return Value()
        def step(i, f=f, Key=Key): f(Key(i % 12, hash=i % 3)), f.cache_info(), f.cache_contains(Key(1))
    """
    for seed in range(EXITS):
        lives(BEGIN + place(body) + END + WAYS[way] + "\n", seed, out="", WARP_CACHE_DIR=str(shared_directory))


@posix
@pytest.mark.parametrize("way", ["os._exit(0)", "sys.exit(0)", "raise SystemExit"])
def test_a_forked_child_exits_while_threads_of_the_parent_are_inside(way, shared_directory):
    body = """
        @cache(max_size=4)
        def f(key):
            pause()
            return Value()
        @cache(max_size=4, backend="shared", name="f")
        def g(n):
            pause()
            return n
        @cache
        async def h(n): return n
        def step(i):
            f(Key(i % 12, hash=i % 3)), f.cache_info(), g(i % 7)
            try: h(i % 200).send(None)
            except StopIteration: pass
    """
    children = f"""
for _ in range(4):
    child = os.fork()
    if child == 0:
        for i in range(5): step(i)
        {way}
    pid, status = os.waitpid(child, 0)
    assert status == 0, status
"""
    for seed in range(EXITS):
        # A free-threaded fork may copy the lock of a dict that the interpreter has just given to a thread that is not
        # copied. The child waits for ever in the interpreter's own code, before any of ours: one fork in a thousand.
        def is_fault_of_python(ended):
            return FREE_THREADED and ended.status == "a hang"

        lives_or_again(BEGIN + place(body) + END + children, seed, shared_directory, is_fault_of_python)


def test_threads_that_have_ended_before_the_exit_leave_nothing_behind():
    body = """
        @cache(max_size=4)
        def f(key):
            pause()
            return Value()
        @cache
        async def g(n): return n
        def some(me):
            for i in range(10):
                f(Key(i % 6, hash=1))
                for _ in range(2):
                    try: g(i).send(None)
                    except StopIteration as stop: assert stop.value == i
        for _ in range(20):
            threads = [threading.Thread(target=some, args=(me,)) for me in range(THREADS)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
    """
    for seed in range(EXITS):
        lives(BEGIN + place(body), seed, out="")


C_THREADS = """
import ctypes
libc = ctypes.CDLL(None)
entry = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)

@cache(max_size=4)
def f(key):
    pause()
    return Value()
@cache
async def g(n): return n
def step(i):
    f(Key(i % 6, hash=1)), f.cache_info()
    for _ in range(2):
        try: g(i % 5).send(None)
        except StopIteration as stop: assert stop.value == i % 5
kept = []
def begin(function):
    function = entry(function)
    kept.append(function)
    handle = ctypes.c_ulong()
    assert libc.pthread_create(ctypes.byref(handle), None, function, None) == 0
    return handle
"""


@linux
def test_threads_that_c_code_has_made_may_call_and_return():
    body = """
def some(_):
    for i in range(10): step(i)
    return None
for _ in range(10):
    handles = [begin(some) for _ in range(4)]
    for handle in handles: assert libc.pthread_join(handle, None) == 0
print(f.cache_info().misses > 0)
"""
    for seed in range(EXITS):
        lives(BEGIN + C_THREADS + body, seed, out="True\n")


@linux
def test_a_thread_that_c_code_ends_after_a_call_takes_nobody_with_it():
    """`pthread_exit`, as CPython itself does it at the interpreter's end, and as a C library may do it at any time."""
    body = """
libc.pthread_exit.argtypes = [ctypes.c_void_p]
libc.pthread_exit.restype = None
done = []
def some(_):
    step(1)
    done.append(1)
    libc.pthread_exit(None)
for _ in range(5):
    assert libc.pthread_join(begin(some), None) == 0
    step(2)
print(done, flush=True)
os._exit(0)  # CPython's own structures of such threads stay behind
"""
    for seed in range(EXITS):
        lives(BEGIN + C_THREADS + body, seed, out="[1, 1, 1, 1, 1]\n")
