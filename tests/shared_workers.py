"""What the tests of the shared backend run in other processes.

`outside("task", option=…)` runs a function of this file in a new interpreter and returns what it returns, which must be
something that JSON can say. `in_child` does so in a forked child, which costs next to nothing.
"""

import asyncio  # noqa: F401 (a process that has changed its user may not be able to read the library any more)
import collections
import contextlib
import dataclasses
import enum
import faulthandler
import fcntl
import functools
import gc
import json
import mmap
import os
import pickle
import random
import resource
import select
import signal
import stat
import subprocess
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path

import warp_cache

SLOW = 0.25  # seconds that a call may take beyond its function
NOBODY, SOMEBODY = 65534, 65533


# What is stored


class Color(enum.IntEnum):
    RED = 1
    BLUE = 2


class Flag(enum.Flag):
    A = 1
    B = 2


class Mood(str, enum.Enum):
    GOOD = "good"


Point = collections.namedtuple("Point", "x y")


class Text(str):
    pass


class Number(int):
    pass


class Real(float):
    pass


class Octets(bytes):
    pass


class Row(tuple):
    pass


class Listing(list):
    pass


class Mapping(dict):
    pass


@dataclasses.dataclass(frozen=True)
class Order:
    name: str
    parts: tuple = ()
    tags: frozenset = frozenset()


@dataclasses.dataclass(order=True)
class Mutable:
    number: int
    items: list


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a

    def __eq__(self, other):
        return type(other) is Slotted and self.a == other.a

    def __hash__(self):
        return hash(self.a)


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (Path(self.mark),)


def value(key):
    """What the cached functions of these tests make of a number: known from it alone, of mixed sizes."""
    return key, f"{key}:".encode() * (1 + key * key % 300)


def cached(function=value, **options):
    options = {"name": "worker", "version": 0, "backend": "shared", **options}
    return warp_cache.cache(**options)(function)


# Processes


def outside(task, /, *, timeout=100, wrapper=(), interpreter=(), env=None, **options):
    """Runs a task of this file in a process of its own, started by the command `wrapper`, and returns its result."""
    command = [*wrapper, sys.executable, *interpreter, "-W", "error", __file__, task, json.dumps(options)]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=None if env is None else os.environ | env,
    )
    assert done.returncode == 0, f"{task} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def script(path, *arguments, source=None, timeout=60, interpreter=(), env=None):
    """Runs a program, written to `path` first if `source` is given, and returns what it prints and its warnings."""
    if source is not None:
        Path(path).write_text(source, encoding="utf-8")
    command = [sys.executable, *interpreter, str(path), *map(str, arguments)]
    environment = {**os.environ, **(env or {})}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout, env=environment)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip(), done.stderr.strip()


def printed(path, *arguments, **options):
    """What a program prints that may not warn."""
    out, err = script(path, *arguments, **options)
    assert err == ""
    return out


class Died(Exception):
    """A child did not return. The argument says what became of it."""


def begin(task, *arguments, seconds=20, user=None):
    """Forks a child that runs `task`. Returns its process id and where its result can be read."""
    readable, writable = os.pipe()
    child = os.fork()
    if child:
        os.close(writable)
        return child, readable
    status = 70
    try:
        os.close(readable)
        faulthandler.register(signal.SIGALRM, chain=True)
        signal.alarm(seconds)
        if user:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        result = json.dumps(task(*arguments)).encode()
        while result:
            result = result[os.write(writable, result) :]
        status = 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(status)


def read_all(readable, seconds):
    """Everything up to the end. A grandchild that holds the other end, too, cannot make this wait for ever."""
    result, until = b"", time.monotonic() + seconds
    while select.select([readable], [], [], max(0, until - time.monotonic()))[0]:
        more = os.read(readable, 65536)
        if not more:
            break
        result += more
    os.close(readable)
    return result


def end(child, readable, seconds=30):
    result = read_all(readable, seconds)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise Died(f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}")
    return json.loads(result)


def in_child(task, *arguments, **options):
    """What `task` returns in a forked child; Died if it does not return."""
    return end(*begin(task, *arguments, **options))


@contextlib.contextmanager
def recorded():
    """The messages of the warnings that are issued meanwhile, which all must be SharedCacheWarning."""
    messages = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield messages
    for each in caught:
        assert issubclass(each.category, warp_cache.SharedCacheWarning), each
        messages.append(str(each.message))


def run_delay():
    """For how many seconds this thread has been ready to run, and others ran instead."""
    try:
        with open("/proc/thread-self/schedstat", "rb", 0) as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:
        return 0.0


# Storms


def storm_worker(options, functions, seed, until, over):
    """Calls at random until the time is over, or all is over, and returns what it saw."""
    functions = functions or [cached(**each) for each in options["functions"]]
    expected = [value(key) for key in range(options["keys"])]
    rng = random.Random(seed)
    calls = [0] * len(functions)
    slow, too_large = [], 0
    for turn in range(options.get("limit", 10**9)):
        if turn % 16 == 0 and (time.monotonic() > until or over[0]):
            break
        which = rng.randrange(len(functions))
        f, key = functions[which], int(rng.paretovariate(options.get("skew", 0.7))) % options["keys"]
        waited, began = run_delay(), time.monotonic()
        what = rng.random()
        if what < options.get("others", 0):
            [f.cache_invalidate, f.cache_contains][rng.randrange(2)](key)
        elif what < options.get("others", 0) + options.get("clears", 0):
            f.cache_clear()
        elif what > 1 - options.get("unlinks", 0):
            f.cache_unlink()
        elif what > 1 - 2 * options.get("unlinks", 0):
            warp_cache.shared_regions(remove_unused=rng.random() < 0.5)
        else:
            calls[which] += 1
            got = f(key)
            if got != expected[key] or type(got) is not tuple or type(got[0]) is not int:
                raise AssertionError(f"wrong value for {key}: {got!r:.100}")
        ended = time.monotonic()
        if ended - began > SLOW and ended - began - (run_delay() - waited) > SLOW:
            slow.append((began, ended))
        if turn % 64 == 0:
            info = f.cache_info()
            too_large += info.current_size > info.max_size
    return {"calls": calls, "slow": slow, "too_large": too_large}


def storm(**options):
    """Lets processes call, kills and stops some at random, and returns what all of them saw."""
    rng = random.Random(options["seed"])
    until = time.monotonic() + options["seconds"]
    over = mmap.mmap(-1, 1)
    functions = [cached(**each) for each in options["functions"]] if options.get("preload") else None
    if functions:
        for f in functions:
            f(0)
    stops, workers, kills, died, reports = {}, {}, 0, [], []

    def start():
        child, readable = begin(storm_worker, options, functions, rng.random(), until, over, seconds=60)
        workers[child] = readable

    for _ in range(options["workers"]):
        start()
    time.sleep(0.05)
    while time.monotonic() < until:
        time.sleep(rng.uniform(0.0005, options.get("pause", 0.01)))
        if kills < options.get("kills", 0):
            child = rng.choice(list(workers))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(workers.pop(child))
            kills += 1
            start()
        if len(stops) < options.get("stops", 0):
            child = rng.choice(list(workers))
            began = time.monotonic()
            os.kill(child, signal.SIGSTOP)
            time.sleep(options["stopped"])
            os.kill(child, signal.SIGCONT)
            stops[began] = child, time.monotonic()
        if kills + len(stops) == options.get("kills", 0) + options.get("stops", 0) > 0:
            over[0] = True
            break
    for child, readable in workers.items():
        try:
            report = end(child, readable, seconds=70)
        except Died as error:
            died.append(str(error))
            continue
        mine = [(began, ended) for began, (who, ended) in stops.items() if who == child]
        for began, ended in report["slow"]:
            paused = sum(max(0, min(ended, last) - max(began, first)) for first, last in mine)
            if ended - began - paused > SLOW:
                reports.append(ended - began - paused)
        report.pop("slow")
        workers[child] = report
    finished = [report for report in workers.values() if isinstance(report, dict)]
    functions = functions or [cached(**each) for each in options["functions"]]
    after = [in_child(aftermath, f, options["keys"]) for f in functions]
    return {
        "died": died,
        "slow": reports,
        "kills": kills,
        "stops": len(stops),
        "calls": [sum(counts) for counts in zip(*(report["calls"] for report in finished), strict=True)],
        "too_large": sum(report["too_large"] for report in finished),
        "counted": [each["counted"] for each in after],
        "left_out": [each["left_out"] for each in after],
        "stats": [each["stats"] for each in after],
    }


def aftermath(f, keys):
    """What the statistics say once all is over, and which keys do not stay when there is room for all."""
    info = f.cache_info()
    for key in range(keys):
        assert f(key) == value(key)
    endless = f.cache_parameters()["ttl"] is None
    fits = [key for key in range(keys) if len(pickle.dumps(value(key))) < 4000]
    left_out = [key for key in fits if not f.cache_contains(key)] if endless and keys <= info.max_size else []
    stats = f.shared_stats()
    return {"counted": info.hits + info.misses, "left_out": left_out, "stats": stats._asdict()}


def clears_while_stopped(stops):
    """Clears and invalidates while the processes that store are stopped, wherever they are in it."""
    rng = random.Random(stops)

    def make():
        return cached(lambda key: b"x" * (key % 7) * 1400, max_size=8, max_value_size=10_000)

    def use():
        f, key = make(), 0
        while True:
            key += 1
            f(key % 40)

    f = make()
    users = [begin(use, seconds=60)[0] for _ in range(2)]
    time.sleep(0.05)
    wrong, slow = [], []

    def timed(what, *arguments):
        waited, began = run_delay(), time.monotonic()
        result = what(*arguments)
        took = time.monotonic() - began
        if took > SLOW and took - (run_delay() - waited) > SLOW:
            slow.append([what.__name__, took])
        return result

    for turn in range(stops):
        time.sleep(rng.random() * 0.003)
        for user in users:
            os.kill(user, signal.SIGSTOP)
            os.waitpid(user, os.WUNTRACED)
        if turn % 2:
            timed(f.cache_clear)
            left = [key for key in range(40) if timed(f.cache_contains, key)]
            left += [f.cache_info()] if f.cache_info().current_size else []
        else:
            timed(f.cache_invalidate, turn)
            left = [turn] if timed(f.cache_contains, turn) else []
        if left or timed(f, turn) != b"x" * (turn % 7) * 1400:
            wrong.append([turn, left])
        for user in users:
            os.kill(user, signal.SIGCONT)
    for user in users:
        os.kill(user, signal.SIGKILL)
        os.waitpid(user, 0)
    return wrong, slow


# Damage

KEYS = range(24)


def fill():
    """Stores every key, and returns where."""
    f = cached(max_size=32)
    for key in KEYS:
        f(key)
    return f.shared_stats().path


def visit(f=None):
    """Uses a function in every way, checks values and the time of calls, and returns the hits of the first round."""
    with recorded() as messages:
        f = f or cached(max_size=32)
        slow = []

        def timed(what, *arguments):
            waited, began = run_delay(), time.monotonic()
            result = what(*arguments)
            took = time.monotonic() - began
            if took > SLOW and took - (run_delay() - waited) > SLOW:
                slow.append([what.__name__, took])
            return result

        for key in KEYS:
            assert timed(f, key) == value(key), key
        hits = f.cache_info().hits
        for key in [*KEYS, *range(100, 140), *KEYS]:
            assert timed(f, key) == value(key), key
        info = f.cache_info()
        assert info.current_size <= info.max_size, info
        for key in KEYS:
            timed(f.cache_contains, key)
            timed(f.cache_invalidate, key)
            assert timed(f, key) == value(key), key
        timed(f.cache_clear)
        for key in KEYS:
            assert timed(f, key) == value(key), key
        f.shared_stats()
        with contextlib.suppress(OSError):
            warp_cache.shared_regions()
    assert len(messages) <= 1, messages
    assert slow == []
    return hits


def write(path, content):
    """Puts a private file of this content in the place of another."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def flipped(rng, content, count):
    """The content with some bytes changed, half of them where there was anything."""
    content = bytearray(content)
    filled = [place for place, byte in enumerate(content) if byte]
    for _ in range(count):
        place = rng.choice(filled) if rng.random() < 0.5 else rng.randrange(len(content))
        content[place] = rng.choice([content[place] ^ 1 << rng.randrange(8), rng.randrange(256), 0xFF])
    return bytes(content)


def outcomes(cases):
    """Visits once after each preparation. Returns what went wrong, and how many hits there were."""
    failed, hits = [], 0
    for name, prepare in cases:
        prepare()
        try:
            hits += in_child(visit)
        except Died as error:
            failed.append([name, str(error)])
    return failed, hits


def damaged_at_rest(seed, flips=0, every_file=False):
    """Changes bytes of the region, or of all files in its folder, while nobody uses them."""
    rng = random.Random(seed)
    path = Path(in_child(fill))
    files = [path]
    if every_file:
        files = [each for each in path.parent.rglob("*") if each.is_file()]
    pristine = {each: each.read_bytes() for each in files}

    def cases():
        for number in range(flips):
            target = rng.choice([each for each in files if pristine[each]])
            damage = flipped(rng, pristine[target], rng.choice([1, 1, 1, 3, 40]))

            def prepare(target=target, damage=damage):
                for each, content in pristine.items():
                    write(each, damage if each == target else content)

            yield f"flip {number} in {target.name}", prepare

    untouched = outcomes([("nothing", lambda: [write(each, content) for each, content in pristine.items()])])
    return {"untouched": untouched, "damaged": outcomes(cases()), "bytes": len(pristine[path])}


def resized_at_rest():
    """Cuts the region at many sizes, extends it, empties it, and puts other things in its place."""
    path = Path(in_child(fill))
    pristine = path.read_bytes()
    size = len(pristine)
    rng = random.Random(1)
    sizes = [*range(0, 8200, 131), *(rng.randrange(size) for _ in range(40)), size - 1, size - 4096]
    cases = [(f"cut to {each}", lambda each=each: write(path, pristine[:each])) for each in sizes if 0 <= each < size]
    cases += [(f"zeros, {each}", lambda each=each: write(path, bytes(each))) for each in (1, 4096, size)]
    cases += [(f"longer by {each}", lambda each=each: write(path, pristine + bytes(each))) for each in (1, 4096, size)]
    cases += [
        (f"zeros from {each}", lambda each=each: write(path, pristine[:each] + bytes(size - each)))
        for each in (1, 64, 4096, 8192, size // 2)
        if each < size
    ]
    cases += [(f"noise {each}", lambda: write(path, rng.randbytes(size))) for each in range(5)]
    cases += [("deleted", path.unlink)]
    return outcomes(cases)


def damaged_while_mapped(seed, rounds, flips):
    """Changes bytes of the region under a process that uses it, one by one."""
    rng = random.Random(seed)
    failed = []

    def once(seed):
        rng = random.Random(seed)
        f = cached(max_size=32)
        f(0)
        for _ in range(flips):
            path = f.shared_stats().path
            if path and os.path.exists(path):
                content = Path(path).read_bytes()
                damage = flipped(rng, content, rng.choice([1, 1, 4]))
                with open(path, "r+b") as file:
                    for place in (place for place in range(len(content)) if content[place] != damage[place]):
                        file.seek(place)
                        file.write(damage[place : place + 1])
            visit(f)
        f.cache_unlink()
        return True

    for number in range(rounds):
        try:
            in_child(once, rng.random(), seconds=40)
        except Died as error:
            failed.append([number, str(error)])
    return failed


def others_damaged_while_mapped(seed, rounds):
    """Changes bytes of the library's other files while they are in use."""
    rng = random.Random(seed)
    f = cached(max_size=32)
    f(0)
    for _ in range(rounds):
        for path in Path(os.environ["WARP_CACHE_DIR"]).rglob("*"):
            if path.is_file() and path.suffix != ".wc" and path.stat().st_size:
                with open(path, "r+b") as file:
                    for _ in range(20):
                        file.seek(rng.randrange(path.stat().st_size))
                        file.write(bytes([rng.randrange(256)]))
        visit(f)
        in_child(visit)
    return True


def damaged_in_use(seed, seconds):
    """Changes bytes while several processes call, at no moment that they know of."""
    rng = random.Random(seed)
    path = Path(in_child(fill))
    until = time.monotonic() + seconds

    def use():
        f = cached(max_size=32)
        while time.monotonic() < until:
            visit(f)
        return True

    users = [begin(use, seconds=40) for _ in range(2)]
    while time.monotonic() < until:
        time.sleep(0.001)
        with contextlib.suppress(OSError), open(path, "r+b") as file:
            place = rng.randrange(os.fstat(file.fileno()).st_size)
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([rng.choice([byte[0] ^ 1 << rng.randrange(8), rng.randrange(256)])]))
    failed = []
    for user in users:
        try:
            end(*user)
        except Died as error:
            failed.append(str(error))
    return failed


def replaced_by_another():
    """Puts the file of another function in the place of one, and returns what that one then answers."""

    def make(name, factor):
        f = cached(lambda key: key * factor, name=name)
        return [f(key) for key in KEYS], f.shared_stats().path

    first = in_child(make, "first", 2)[1]
    second = in_child(make, "second", 3)[1]
    write(Path(first), Path(second).read_bytes())
    return in_child(make, "first", 2)[0] == [2 * key for key in KEYS]


def gone_while_mapped(how):
    """Removes or replaces the file of a function that is in use here and in another process."""
    f = cached(max_size=32)
    f(0)
    path = Path(f.shared_stats().path)

    def other(f):
        g = cached(max_size=32)
        g(0)
        if how == "deleted":
            path.unlink()
        elif how == "zeroed":
            write(path, bytes(path.stat().st_size))
        elif how == "replaced":
            write(path, path.read_bytes())
        elif how == "folder":
            for each in sorted(path.parent.rglob("*"), reverse=True):
                each.rmdir() if each.is_dir() else each.unlink()
            path.parent.rmdir()
        visit(g)
        visit(f)
        return True

    assert in_child(other, f)
    visit(f)
    in_child(visit)
    return in_child(visit)


def odd_files(kind):
    """Puts something odd in the place of each file that the library keeps, one after the other."""
    path = Path(in_child(fill))
    folder = path.parent
    precious = folder.parent / f"{folder.name}.precious"
    precious.write_bytes(b"precious" * 1000)
    precious.chmod(0o600)
    names = sorted(each.relative_to(folder) for each in folder.rglob("*"))
    failed = []
    try:
        for name in names:
            target = folder / name
            for each in sorted(folder.rglob("*"), reverse=True):
                each.rmdir() if each.is_dir() and not each.is_symlink() else each.unlink()
            in_child(fill)
            if not target.exists():
                continue
            for each in sorted(target.rglob("*"), reverse=True) if target.is_dir() else []:
                each.rmdir() if each.is_dir() else each.unlink()
            was_folder = target.is_dir()
            target.rmdir() if was_folder else target.unlink()
            if kind == "fifo":
                os.mkfifo(target, 0o600)
            elif kind == "link":
                target.symlink_to(precious)
            elif kind == "hard link":
                os.link(precious, target)
            elif kind == "dangling link":
                target.symlink_to(folder.parent / f"{folder.name}.nowhere")
            elif kind == "folder":
                target.mkdir(0o700)
            elif kind == "empty":
                write(target, b"")
            elif kind == "noise":
                write(target, random.Random(1).randbytes(10_000))
            elif kind == "mode":
                if was_folder:
                    target.mkdir()
                else:
                    write(target, b"")
                target.chmod(0o777 if was_folder else 0o666)
            elif kind == "unreadable":
                write(target, b"")
                target.chmod(0)
            try:
                in_child(visit)
                in_child(visit)
            except Died as error:
                failed.append([str(name), str(error)])
            assert precious.read_bytes() == b"precious" * 1000, name
            assert not (folder.parent / f"{folder.name}.nowhere").exists(), name
    finally:
        precious.unlink()
    return failed


# Strangers


def use_twice(functions=3):
    """Calls twice and returns how often the function ran, the warnings, and whether the region has a file."""
    with recorded() as messages:
        f = cached()
        runs = f.cache_info().misses
        for _ in range(functions):
            assert [f(key) for key in KEYS] == [value(key) for key in KEYS]
        info = f.cache_info()
        path = f.shared_stats().path
    return {"runs": info.misses - runs, "warnings": messages, "path": path}


def planted_value(mark):
    f = cached(lambda key: Payload(mark))
    f(0)
    return f.shared_stats().path


def answer():
    """What the function answers whose region somebody else may have written."""
    with recorded() as messages:
        f = cached(lambda key: "mine")
        got = [f(0), f(0)]
        path = f.shared_stats().path
    return {"got": ["mine" if each == "mine" else "planted" for each in got], "warnings": messages, "path": path}


def strangers(case, victim, attacker):
    """Lets one user prepare a trap with a crafted pickle in it, and another one call. Both folders are new."""
    folder = Path(os.environ["WARP_CACHE_DIR"])
    lair = folder.with_name(folder.name + ".lair")
    lair.mkdir(mode=0o700)
    folder.rmdir()
    marks = folder.with_name(folder.name + ".marks")
    marks.mkdir()
    marks.chmod(0o1777)
    mark = str(marks / "loaded")
    try:
        os.chown(lair, attacker, attacker)
        os.environ["WARP_CACHE_DIR"] = str(lair)
        trap = Path(in_child(planted_value, mark, user=attacker))
        os.environ["WARP_CACHE_DIR"] = str(folder)
        Path(mark).unlink(missing_ok=True)
        content = trap.read_bytes()
        planted = folder / trap.name

        def own_folder(mode=0o700):
            folder.mkdir()
            os.chown(folder, victim, victim)
            folder.chmod(mode)

        def plant(owner, mode):
            planted.write_bytes(content)
            os.chown(planted, owner, owner)
            planted.chmod(mode)

        if case == "control":
            own_folder()
            plant(victim, 0o600)
        elif case == "folder of another":
            folder.mkdir()
            plant(attacker, 0o644)
            os.chown(folder, attacker, attacker)
        elif case == "folder of another, open to all":
            folder.mkdir()
            plant(attacker, 0o666)
            os.chown(folder, attacker, attacker)
            folder.chmod(0o777)
        elif case == "folder of another, file of the victim":
            folder.mkdir()
            plant(victim, 0o600)
            os.chown(folder, attacker, attacker)
            folder.chmod(0o777)
        elif case == "open folder, file of another":
            own_folder(0o777)
            plant(attacker, 0o666)
        elif case == "sticky open folder, file of another":
            own_folder(0o1777)
            plant(attacker, 0o644)
        elif case == "file of another":
            own_folder()
            plant(attacker, 0o600)
        elif case == "readable file of another":
            own_folder()
            plant(attacker, 0o644)
        elif case == "file open to all":
            own_folder()
            plant(victim, 0o666)
        elif case == "file open to the group":
            own_folder()
            plant(victim, 0o660)
        elif case == "link to a folder of another":
            folder.symlink_to(lair)
            lair.chmod(0o777)
            trap.chmod(0o666)
        elif case == "link to a folder of the victim":
            os.chown(lair, victim, victim)
            os.chown(trap, attacker, attacker)
            folder.symlink_to(lair)
        elif case == "link to a file of another":
            own_folder()
            lair.chmod(0o755)
            trap.chmod(0o666)
            planted.symlink_to(trap)
        elif case == "link to a file of the victim":
            own_folder()
            lair.chmod(0o755)
            os.chown(trap, victim, victim)
            planted.symlink_to(trap)
        elif case == "hard link to a file of another":
            own_folder()
            trap.chmod(0o666)
            os.link(trap, planted)
        elif case == "hard link to a file of the victim":
            own_folder()
            os.chown(trap, victim, victim)
            os.link(trap, planted)
        elif case == "a file in place of the folder":
            folder.write_bytes(content)
            os.chown(folder, attacker, attacker)
        elif case == "a pipe in place of the folder":
            os.mkfifo(folder, 0o666)
            os.chown(folder, attacker, attacker)
        elif case == "a pipe in place of the file":
            own_folder()
            os.mkfifo(planted, 0o666)
            os.chown(planted, attacker, attacker)
        elif case == "nothing where nothing can be made":
            os.environ["WARP_CACHE_DIR"] = str(lair / "below" / "further")
        else:
            raise AssertionError(case)
        result = in_child(answer, user=victim)
        result["loaded"] = os.path.exists(mark)
        result["again"] = in_child(answer, user=victim)
        result["attacker"] = in_child(answer, user=attacker)["got"] if case != "control" else None
        return result
    finally:
        for each in (folder, lair, marks):
            if each.is_symlink() or not each.is_dir():
                each.unlink(missing_ok=True)
            else:
                subprocess.run(["rm", "-rf", str(each)], check=True)


def squatted(uid, kind):
    """Somebody else was first to make the folder that a user's regions go to. For a private /dev/shm only."""
    os.environ.pop("WARP_CACHE_DIR", None)
    folder = Path(f"/dev/shm/warp_cache-{uid}")
    assert not folder.exists()
    if kind == "free":
        pass
    elif kind == "folder":
        folder.mkdir(0o777)
        os.chown(folder, SOMEBODY, SOMEBODY)
    elif kind == "file":
        folder.touch()
        os.chown(folder, SOMEBODY, SOMEBODY)
    elif kind == "link":
        target = Path("/dev/shm/elsewhere")
        target.mkdir(0o777)
        folder.symlink_to(target)
        os.lchown(folder, SOMEBODY, SOMEBODY)
    result = in_child(use_twice, user=uid)
    made = [str(each) for each in Path("/dev/shm").iterdir()]
    return result | {"made": made, "mode": stat.S_IMODE(folder.stat().st_mode), "files": modes(folder)}


def modes(folder):
    """The access modes of all files below, as far as this user sees them."""
    files = [each for each in folder.rglob("*") if not each.is_symlink()] if folder.is_dir() else []
    return sorted({stat.S_IMODE(each.stat().st_mode) for each in files if each.is_file()})


# Want


def hog(folder="/dev/shm"):
    """Leaves no space in a file system."""
    with open(f"{folder}/hog", "wb", 0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def want(max_size=1000, max_value_size=4096, keys=600, width=1000, full=None, lack=None, remount=None):
    """Calls where there is little room. Returns the warnings, the hits of a second round, the path and the entries."""
    if remount:
        subprocess.run(["mount", "-o", f"remount,{remount}", "/dev/shm"], check=True)
    if full == "before":
        hog()
    if lack == "inodes":
        with contextlib.suppress(OSError):
            for number in range(100_000):
                os.close(os.open(f"/dev/shm/{number}", os.O_CREAT | os.O_WRONLY))
    if lack == "file size":
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    if lack == "no file size":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with recorded() as messages:
        try:
            f = cached(lambda key: b"%d" % key * width, max_size=max_size, max_value_size=max_value_size)
        except ValueError:
            assert max_size > 10**8
            return {"warnings": [], "hits": 0, "path": None, "size": 0}
        taken = []
        if lack == "memory":
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 20),) * 2)
        if lack == "descriptors":
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open("/", os.O_RDONLY))
        assert f(1) == b"1" * width
        path = f.shared_stats().path
        if full == "during":
            hog()
        for key in range(keys):
            assert f(key) == b"%d" % key * width
        hits = f.cache_info().hits
        for key in reversed(range(keys)):
            assert f(key) == b"%d" % key * width
        hits = f.cache_info().hits - hits
        size = f.cache_info().current_size
        assert size <= max_size
        for each in taken:
            os.close(each)
        for key in range(keys):
            assert f(key) == b"%d" % key * width
        f.cache_clear()
    return {"warnings": messages, "hits": hits, "path": path, "size": size}


def call_with_little_memory(slack, coroutine=False, has_identity=True, max_size=20_000, rounds=2, keys=3):
    """Calls where the process may have no more than so many bytes beyond what it has."""
    nobody_knows = object()

    def opaque(key):
        return (key, nobody_knows)[0]

    async def later(key):
        return key

    def call(function, key):
        made = function(key)
        if not coroutine:
            return made
        try:
            made.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("it has suspended")

    def calls(function):
        for _ in range(rounds):
            for key in range(keys):
                assert call(function, key) == key
        return list(function.cache_info())

    function = later if coroutine else lambda key: key
    calls(cached(function, max_size=8))  # once everything that a call needs is there
    if has_identity:
        f = cached(function, max_size=max_size)
    ballast = [bytes(1000) for _ in range(4000)]
    kept = ballast.pop()  # so that the memory under it stays with the process
    del ballast
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    with recorded() as messages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + slack, resource.RLIM_INFINITY))
        if not has_identity:
            f = cached(opaque, max_size=max_size, name=None)
        info, path = calls(f), f.shared_stats().path
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        f.cache_clear()
        cleared = list(f.cache_info())
    assert kept
    return {"warnings": messages, "info": info, "path": path, "cleared": cleared}


def list_without_room():
    """Lists and removes regions where no byte is free. Returns how many there are."""
    in_child(fill)
    hog()
    first = in_child(lambda: len(warp_cache.shared_regions()))
    return first, in_child(lambda: len(warp_cache.shared_regions(remove_unused=True)))


def locked_folder():
    """Calls while somebody keeps the lock of the folder. Returns the time of the calls and the warnings."""
    cached()(1)
    locks = [each for each in Path(os.environ["WARP_CACHE_DIR"]).iterdir() if "lock" in each.name]
    ready, say = os.pipe()

    def keep():
        for each in locks:
            fcntl.flock(os.open(each, os.O_RDWR), fcntl.LOCK_EX)
        os.write(say, b".")
        time.sleep(50)

    keeper = begin(keep, seconds=60)[0]
    os.read(ready, 1)
    waits, works = [], True
    with recorded() as messages:
        f = cached(name="new")
        for key in (1, 1, 2, 3):
            waited, began = run_delay(), time.monotonic()
            works = works and f(key) == value(key)
            waits.append(time.monotonic() - began - (run_delay() - waited))
    os.kill(keeper, signal.SIGKILL)
    os.waitpid(keeper, 0)
    return waits, messages, works


# Leaks


def held():
    """How many descriptors and mappings this process has."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text()
    return len(os.listdir("/proc/self/fd")), maps.count(".wc"), maps.count("\n")


def unlink_cycles(count):
    f = cached(max_size=16)
    f(1)
    f.cache_unlink()
    f(1)
    before = held()
    files = sorted(os.listdir(os.environ["WARP_CACHE_DIR"]))
    for key in range(count):
        assert f(key % 7) == value(key % 7)
        assert f.cache_unlink() is True
    f(1)
    return before, held(), files == sorted(os.listdir(os.environ["WARP_CACHE_DIR"]))


def decoration_cycles(count, named):
    def once(number):
        f = cached(lambda key: key, max_size=16, name=f"f{number % 5}" if named else None)
        assert [f(1), f(1)] == [1, 1]

    with recorded():
        once(0)
        before = held()
        for number in range(count):
            once(number)
    return before, held()


def remove_unused():
    return len(warp_cache.shared_regions(remove_unused=True))


def child_cycles(count, kill):
    """Starts and ends processes that use a region, one after the other."""
    f = cached()
    f(1)

    def child():
        g = cached()
        g(2), f(3)
        if kill:
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    def tree():
        return sorted(str(each) for each in Path(os.environ["WARP_CACHE_DIR"]).rglob("*"))

    def once():
        try:
            in_child(child)
        except Died as error:
            if not kill or str(error) != "signal SIGKILL":
                raise

    once()
    before, files = held(), tree()
    for _ in range(count):
        once()
    return before, held(), files == tree()


def killed_makers(count):
    """Kills processes at random moments of their first call of a new function. Returns how many odd files are left."""
    folder = Path(os.environ["WARP_CACHE_DIR"])
    rng = random.Random(1)
    cached()(0)
    usual = {each.name for each in folder.iterdir()}
    for number in range(count):
        readable, writable = os.pipe()

        def make(number=number, writable=writable):
            f = cached(name=f"made{number}", max_size=3000)
            os.write(writable, b".")
            for key in range(20):
                f(key)
            time.sleep(10)

        child, result = begin(make)
        os.read(readable, 1)
        time.sleep(rng.random() * 0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for each in (readable, writable, result):
            os.close(each)
        in_child(visit)
    in_child(lambda: len(warp_cache.shared_regions(remove_unused=True)))
    in_child(fill)
    return len({each.name for each in folder.iterdir() if each.suffix != ".wc"} - usual)


def many_functions(count):
    before = held()
    functions = [cached(name=f"many{number}", max_size=16) for number in range(count)]
    for f in functions:
        f(1)
    return before, held()


def memory(count):
    """Does what may leave something behind, again and again. Returns what left more than a few blocks."""
    numbers = iter(range(10**9))

    class Unreadable:
        def __reduce__(self):
            return int, ("no number",)

    def fail(x):
        raise ValueError(x)

    f = cached(lambda *args, **kwargs: [args, kwargs], max_size=50)
    unstorable = cached(lambda x: lambda: x, name="unstorable")
    large = cached(lambda x: "x" * x, name="large")
    failing = cached(fail, name="failing")
    unreadable = cached(lambda x: Unreadable(), name="unreadable")
    floats = cached(lambda x: [1.5] * 50, name="floats")

    def suppressed(error, argument):
        with contextlib.suppress(error):
            failing(argument)

    acts = {
        "hit": lambda: f(1, "a", (1, 2)),
        "miss": lambda: f(next(numbers), "x" * 50),
        "keywords": lambda: f(next(numbers) % 100, b=next(numbers) % 3, a="q"),
        "frozenset": lambda: f(frozenset(["a", "b"]), Order("n")),
        "unpicklable value": lambda: unstorable(next(numbers) % 5),
        "unpicklable key": lambda: unstorable(lambda: 1),
        "too large": lambda: large(5000),
        "text": lambda: large(2000),
        "exception": lambda: suppressed(ValueError, next(numbers)),
        "unhashable": lambda: suppressed(TypeError, []),
        "unreadable": lambda: unreadable(1),
        "floats": lambda: floats(next(numbers) % 10),
        "looks": lambda: (f.cache_info(), f.cache_contains(1), f.cache_invalidate(1), f.shared_stats()),
        "clear": lambda: (f(1), f.cache_clear()),
    }
    left = []
    for name, act in acts.items():
        for _ in range(200):
            act()
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(count):
            act()
        gc.collect()
        if sys.getallocatedblocks() - before > count // 2:
            left.append(name)
    return left


def listing_cycles(count):
    f = cached()
    f(1)
    in_child(lambda: cached(name="other")(1)[0])
    before = held()
    for _ in range(count):
        assert len(warp_cache.shared_regions()) == 2
    return before, held()


def crowded(workers, seconds):
    """Processes that store more than there is room for, in several regions, while files come and go."""
    until = time.monotonic() + seconds

    def use(number):
        rng = random.Random(number)
        turn = 0
        with recorded():
            while time.monotonic() < until:
                turn += 1
                name = f"crowd{rng.randrange(6)}"
                f = cached(
                    lambda key: b"%d" % key * 900, name=name, max_size=rng.choice([50, 500]), max_value_size=9000
                )
                for _ in range(60):
                    key = rng.randrange(300)
                    assert f(key) == b"%d" % key * 900
                if turn % 9 == 0:
                    f.cache_unlink()
        return True

    children = [begin(use, number, seconds=40) for number in range(workers)]
    failed = []
    while time.monotonic() < until:
        hog()
        time.sleep(0.02)
        os.unlink("/dev/shm/hog")
        time.sleep(0.02)
    for child in children:
        try:
            end(*child)
        except Died as error:
            failed.append(str(error))
    return failed


# Families of processes


def closes_everything():
    """A daemon that closes all it has inherited, opens files of its own, and forks a child in its turn."""
    f = cached(max_size=64)
    f(0)
    folder = Path(os.environ["WARP_CACHE_DIR"])

    def daemon():
        kept = os.dup(max(int(each) for each in os.listdir("/proc/self/fd")))
        assert kept < 100
        # The pipe of the result and the terminal stay.
        keep = {0, 1, 2, *(int(each) for each in os.listdir("/proc/self/fd") if "pipe:" in link(each))}
        os.close(kept)
        for each in range(100):
            if each not in keep:
                with contextlib.suppress(OSError):
                    os.close(each)
        mine = [os.open(folder.parent / f"{folder.name}.mine{n}", os.O_RDWR | os.O_CREAT, 0o600) for n in range(20)]
        try:
            for n, each in enumerate(mine):
                os.write(each, b"%d" % n)
            visit(f)
            visit()

            def child():
                visit(f)
                return [os.pread(each, 10, 0).decode() for each in mine]

            seen = in_child(child)
            seen_here = [os.pread(each, 10, 0).decode() for each in mine]
            for each in mine:
                # Somebody else's lock on one of these would show here.
                fcntl.flock(each, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return seen, seen_here
        finally:
            for n in range(20):
                (folder.parent / f"{folder.name}.mine{n}").unlink(missing_ok=True)

    def link(descriptor):
        try:
            return os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            return ""

    seen, seen_here = in_child(daemon)
    visit(f)
    return seen, seen_here


def forks_while_writing(children, private):
    """Forks again and again while other threads store; the children must find nothing locked for ever."""
    with recorded():
        f = cached(functools.partial(value) if private else value, max_size=64, name=None if private else "worker")
    stop = threading.Event()
    failed = []

    def write_on():
        key = 0
        while not stop.is_set():
            key += 1
            if f(key) != value(key):
                failed.append(key)

    threads = [threading.Thread(target=write_on) for _ in range(2)]
    for each in threads:
        each.start()

    def child():
        for key in range(1000, 1020):
            waited, began = run_delay(), time.monotonic()
            assert f(key) == value(key)
            took = time.monotonic() - began - (run_delay() - waited)
            assert took < SLOW, took
        g = cached(max_size=64)
        assert g(5) == value(5)
        return True

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            for _ in range(children):
                assert in_child(child)
    finally:
        stop.set()
        for each in threads:
            each.join()
    assert failed == []
    return True


def preloaded(workers):
    """A master that fills the cache, forks workers that serve, loses one of them, and starts another."""
    f = cached(max_size=64)
    for key in range(10):
        f(key)

    def serve(first):
        for key in range(10):
            assert f(key) == value(key)
        assert f(first) == value(first)
        return f.cache_info().hits > 0

    def linger():
        f(500)
        os.write(ready, b".")
        time.sleep(60)

    readable, ready = os.pipe()
    lost = begin(linger)
    served = [begin(serve, 100 + number) for number in range(workers)]
    os.read(readable, 1)
    os.kill(lost[0], signal.SIGKILL)
    os.waitpid(lost[0], 0)
    assert all(end(*each) for each in served)
    assert in_child(serve, 200)
    return list(f.cache_info()), [f.cache_contains(key) for key in (500, 100, 200)]


def first_together(rounds, workers):
    """All begin to use a function that nobody has used, at the same moment; counts what they disagree on."""
    wrong = []
    for number in range(rounds):
        readable, writable = os.pipe()

        def run(number=number, readable=readable, writable=writable):
            os.close(writable)
            f = cached(name=f"first{number}", max_size=64)
            os.read(readable, 1)
            return [f(key) == value(key) for key in range(10)].count(False)

        children = [begin(run) for _ in range(workers)]
        os.close(writable)
        failures = sum(end(*each) for each in children)
        os.close(readable)
        f = cached(name=f"first{number}", max_size=64)
        info = f.cache_info()
        if failures or info.hits + info.misses != workers * 10 or info.current_size != 10:
            wrong.append([failures, list(info)])
    left = [each.name for each in Path(os.environ["WARP_CACHE_DIR"]).iterdir() if each.suffix == ".wc"]
    return wrong, len(left)


def children_that_stay(count):
    """Forks children that do nothing while a thread makes and removes regions. Nobody may find the folder locked."""
    stop = threading.Event()

    def churn():
        f = cached(name="churn")
        while not stop.is_set():
            f(1)
            f.cache_unlink()

    thread = threading.Thread(target=churn)
    thread.start()
    children = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for _ in range(count):
            time.sleep(random.random() * 0.003)
            children.append(begin(time.sleep, 50, seconds=60)[0])
        stop.set()
        thread.join()

    def fresh():
        began = time.monotonic()
        f = cached(name="fresh")
        assert f(1) == value(1)
        assert f.shared_stats().path
        return time.monotonic() - began < 1

    quick = fresh() and in_child(fresh)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return quick


def crowd(count):
    """Many processes use one region at the same time. Returns how they ended, and how many were listed."""
    f = cached(max_size=64)
    f(1)
    stay, leave = os.pipe()
    ready, say = os.pipe()

    def use(number):
        os.close(leave)
        g = cached(max_size=64)
        right = g(number % 50) == value(number % 50) and f(number % 60) == value(number % 60)
        os.write(say, b".")
        os.read(stay, 1)
        return right

    children = [begin(use, number, seconds=60) for number in range(count)]
    there = 0
    while there < count:
        there += len(os.read(ready, count))
    listed = warp_cache.shared_regions()[0].processes
    os.close(leave)
    return sorted({int(not end(*child)) for child in children}), listed


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))))
