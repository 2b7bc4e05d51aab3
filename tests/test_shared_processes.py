"""Families of processes on one cache: how they begin, how they are killed and stopped, and what nobody may notice."""

import os
import random
import subprocess
import sys

import pytest
from shared_workers import outside, printed, script

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no shared memory on Windows"),
    pytest.mark.usefixtures("shared_directory"),
]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
STRATEGIES = ["lru", "mru", "fifo", "lfu"]


def storm(**options):
    """A storm after which nothing is amiss but what the caller looks at himself."""
    options["seed"] = random.randrange(2**32)
    print("seed", options["seed"])
    report = outside("storm", **options)
    print(report)
    assert report["died"] == []
    assert report["too_large"] == 0
    assert report["left_out"] == [[]] * len(options["functions"])
    return report


# Kills and stops


@pytest.mark.parametrize("preload", [False, True], ids=["fresh", "preloaded"])
def test_processes_that_are_killed_while_they_write_cost_nobody_else_anything(preload):
    functions = [
        {"name": "churn", "max_size": 8, "max_value_size": 10_000},
        {"name": "roomy", "max_size": 256, "strategy": "lfu"},
        {"name": "short", "max_size": 64, "ttl": 0.02},
    ]
    report = storm(workers=5, functions=functions, keys=150, skew=0.2, others=0.05, clears=0.002, seconds=10, kills=50,
                   pause=0.02, preload=preload)  # fmt: skip
    assert report["kills"] >= 40
    assert report["slow"] == []


def test_a_process_that_is_stopped_holds_up_nobody_else():
    functions = [{"name": "churn", "max_size": 8, "max_value_size": 10_000}, {"name": "roomy", "max_size": 256}]
    report = storm(workers=4, functions=functions, keys=150, skew=0.2, others=0.05, seconds=6, stops=10, stopped=0.15)
    assert report["stops"] >= 5
    assert report["slow"] == []


def test_files_that_are_removed_in_the_middle_of_it_all_cost_only_entries():
    functions = [{"name": "churn", "max_size": 8, "max_value_size": 10_000}, {"name": "shards", "max_size": 1400}]
    often = {"others": 0.05, "clears": 0.003, "unlinks": 0.01}
    report = storm(workers=4, functions=functions, keys=150, skew=0.2, kills=30, seconds=10, pause=0.02, **often)
    assert report["kills"] >= 25
    assert report["slow"] == []


def test_what_a_stopped_process_was_storing_can_be_cleared():
    assert outside("clears_while_stopped", stops=25) == [[], []]


# Many processes


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_twelve_processes_get_right_values_and_exact_counts(strategy):
    functions = [
        {"name": "short", "strategy": strategy, "max_size": 50, "ttl": 0.05},
        {"name": "long", "strategy": strategy, "max_size": 300, "max_value_size": 10_000},
        {"name": "shards", "strategy": strategy, "max_size": 1500, "ttl": 0.05},
    ]
    report = storm(workers=12, functions=functions, keys=2000, others=0.02, seconds=1.3, limit=20_000)
    assert report["calls"] == report["counted"]
    assert report["slow"] == []
    assert [stats["checksum_failures"] for stats in report["stats"]] == [0, 0, 0]


def test_processes_that_begin_at_the_same_moment_share_one_region():
    wrong, files = outside("first_together", rounds=12, workers=6)
    assert wrong == []
    assert files == 12


def test_a_function_of_a_script_is_the_same_however_the_script_is_started(tmp_path):
    source = """
import warp_cache
@warp_cache.cache(backend="shared")
def f(x):
    return x
f(1)
print(*f.cache_info()[:2])
"""
    path = tmp_path / "shop.py"
    (tmp_path / "link").symlink_to(tmp_path)
    starts = [[path], [tmp_path / "link" / "shop.py"], [tmp_path / "link" / ".." / tmp_path.name / "shop.py"], [path]]
    assert printed(path, source=source) == "0 1"
    assert [printed(*start) for start in starts] == ["1 1", "2 1", "3 1", "4 1"]
    as_module = [sys.executable, "-m", "shop"]
    assert subprocess.run(as_module, cwd=tmp_path, capture_output=True, text=True).stdout.strip() == "5 1"


def test_children_forked_while_regions_are_made_keep_no_lock():
    assert outside("children_that_stay", count=40) is True


def test_a_crowd_of_processes_is_counted_one_by_one():
    assert outside("crowd", count=120) == [[0], 121]


# How processes come to be

FAMILY = """
import multiprocessing, os, sys
import warp_cache

@warp_cache.cache(backend="shared", max_size=100)
def square(x):
    return x * x, os.getpid()

def work(x):
    return square(x)

if __name__ == "__main__":
    method = sys.argv[1]
    context = multiprocessing.get_context(method)
    mine = [square(x) for x in range(5)]
    with context.Pool(3) as pool:
        theirs = pool.map(work, list(range(10)) * 3, chunksize=1)
    assert theirs[:5] == mine, theirs
    assert [value for value, _ in theirs] == [x * x for x in range(10)] * 3
    again = [square(x) for x in range(10)]
    assert all(pid != os.getpid() for _, pid in again[5:])
    info = square.cache_info()
    print(info.hits + info.misses, info.current_size, info.misses >= 10, len(warp_cache.shared_regions()))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_shares_the_functions_of_the_script_that_starts_it(method, tmp_path):
    out, err = script(tmp_path / "family.py", method, source=FAMILY, interpreter=["-W", "ignore::DeprecationWarning"])
    assert (out, err) == ("45 10 True 1", "")


def test_a_forked_worker_of_a_preloading_master_may_be_killed_and_replaced():
    info, contains = outside("preloaded", workers=4)
    hits, misses, _, size, _ = info
    assert contains == [True, True, True]
    assert size == 10 + 1 + 4 + 1
    assert (hits, misses) == (10 * 5, 10 + 1 + 4 + 1)


@pytest.mark.parametrize("private", [False, True], ids=["file", "private"])
def test_children_that_are_forked_while_other_threads_write_find_nothing_locked(private):
    assert outside("forks_while_writing", children=30, private=private) is True


@linux_only
def test_a_process_that_closes_all_descriptors_goes_on_and_its_own_files_are_left_alone():
    seen, seen_here = outside("closes_everything")
    assert seen == seen_here == [str(number) for number in range(20)]


DAEMON = """
import os, sys, time
import warp_cache
@warp_cache.cache(backend="shared", name="daemon")
def f(x):
    return x, "value"
f(1)
readable, writable = os.pipe()
if os.fork():
    os.close(writable)
    print(os.read(readable, 100).decode(), f.cache_contains(2))
    os.wait()
    sys.exit()
os.setsid()
if os.fork():
    os._exit(0)
os.chdir("/")
os.closerange(0, writable), os.closerange(writable + 1, 5000)
for each in range(3):
    os.open(os.devnull, os.O_RDWR)
right = [f(x) == (x, "value") for x in (1, 2, 2)]
os.write(writable, b"%d %d" % (all(right), f.cache_info().hits))
"""


def test_a_daemon_shares_with_the_process_that_it_came_from(tmp_path):
    assert printed(tmp_path / "daemon.py", source=DAEMON) == "1 2 True"


EXEC = """
import os, sys
import warp_cache
@warp_cache.cache(backend="shared")
def f(x):
    return x
f(1)
if len(sys.argv) == 1:
    os.execv(sys.executable, [sys.executable, __file__, "again"])
folder = os.path.realpath(os.environ["WARP_CACHE_DIR"])
fds = "/proc/self/fd"
held = [os.path.realpath(f"{fds}/{each}") for each in os.listdir(fds)] if os.path.isdir(fds) else []
processes = warp_cache.shared_regions()[0].processes
print(*f.cache_info()[:2], sum(each.startswith(folder) for each in held) <= 3, processes)
"""


def test_exec_leaves_nothing_of_the_old_program_behind(tmp_path):
    assert printed(tmp_path / "exec.py", source=EXEC) == "1 1 True 1"


SUBPROCESS = '''
import os, subprocess, sys
import warp_cache
@warp_cache.cache(backend="shared")
def f(x):
    return x
f(1)
code = """
import os
fds = "/proc/self/fd"
print(sum(os.path.realpath(f"{fds}/{each}").startswith(os.environ["WARP_CACHE_DIR"]) for each in os.listdir(fds)))
"""
print(subprocess.run([sys.executable, "-c", code], close_fds=False, capture_output=True, text=True).stdout.strip())
'''


@linux_only
def test_a_program_that_is_started_inherits_no_descriptor(tmp_path):
    assert printed(tmp_path / "started.py", source=SUBPROCESS) == "0"


INTERRUPTED = """
import signal, time
from shared_workers import cached, value
f = cached(max_size=4, max_value_size=10_000)

def busy():
    # A function of its own: a loop that jumps back is not quite inside of the `try` around it.
    while True:
        for key in range(30):
            assert f(key) == value(key)

f(1)
signal.signal(signal.SIGALRM, signal.default_int_handler)
caught = 0
until = time.monotonic() + 20
while caught < 20 and time.monotonic() < until:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        busy()
    except KeyboardInterrupt:
        caught += 1
print(caught)
"""


def test_a_busy_process_can_be_interrupted(tmp_path):
    assert printed(tmp_path / "interrupted.py", source=INTERRUPTED) == "20"


ENDING = """
import atexit, sys, threading, time
from shared_workers import cached, value
f = cached(max_size=20)
f(1)
class Late:
    def __del__(self):
        f(2)
late = Late()
late.cycle = late
atexit.register(lambda: f(3))
def on():
    key = 0
    while True:
        key += 1
        f(key % 50)
for _ in range(2):
    threading.Thread(target=on, daemon=True).start()
time.sleep(0.05)
print("done")
"""


def test_an_interpreter_that_exits_while_threads_call_ends_in_peace(tmp_path):
    for _ in range(5):
        assert printed(tmp_path / "ending.py", source=ENDING) == "done"


def test_a_process_killed_in_the_middle_of_the_function_holds_nothing(tmp_path):
    source = """
import os, signal, time
from shared_workers import begin, cached
def slow(key):
    if key == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return key
f = cached(slow)
child, readable = begin(f, "die")
os.waitpid(child, 0)
began = time.monotonic()
print(f("live"), f.cache_contains("die"), time.monotonic() - began < 5, f.cache_info()[:2])
"""
    assert printed(tmp_path / "middle.py", source=source) == "live False True (0, 2)"
    assert os.path.exists(os.environ["WARP_CACHE_DIR"])


ANOTHER_USER = """
import os, warnings
warnings.simplefilter("error")
import warp_cache

@warp_cache.cache(backend="shared", name="another user's")
def who(x):
    return x, os.geteuid()

def state():
    return os.path.dirname(who.shared_stats().path), who.cache_info().misses

first, folder = who(1), state()
child = os.fork()
if not child:
    os.setgid(65534)
    os.setuid(65534)
    print(who(1), who(1), state() == ("/dev/shm/warp_cache-65534", 1), who.cache_unlink(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(first, who(1), folder == ("/dev/shm/warp_cache-0", 1), who.cache_unlink())
"""


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can become another user")
def test_a_forked_process_that_becomes_another_user_s_has_a_cache_of_that_user(tmp_path, monkeypatch):
    monkeypatch.delenv("WARP_CACHE_DIR")
    printed_lines = printed(tmp_path / "another.py", source=ANOTHER_USER).splitlines()
    assert printed_lines == ["(1, 65534) (1, 65534) True True", "(1, 0) (1, 0) True True"]
