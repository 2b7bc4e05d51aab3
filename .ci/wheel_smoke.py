"""What an installed wheel must have and do. Runs in an environment that has nothing else."""

import asyncio
import multiprocessing
import os
import sys
import sysconfig
import threading
import uuid
from importlib import metadata

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def import_package():
    import warp_cache

    if FREE_THREADED:
        assert not sys._is_gil_enabled(), "the import turned the GIL on"
    return warp_cache


warp_cache = import_package()


def check_contents():
    distribution = metadata.distribution("warp_cache")
    files = {str(file).replace("\\", "/") for file in distribution.files}
    assert distribution.version == warp_cache.__version__
    for ending in ("warp_cache/__init__.pyi", "warp_cache/py.typed", "licenses/LICENSE", "METADATA"):
        assert any(file.endswith(ending) for file in files), (ending, sorted(files))
    assert any("/sboms/" in file for file in files), ("no SBOM", sorted(files))
    (binary,) = (file for file in files if file.endswith((".so", ".pyd")))
    wheel = distribution.read_text("WHEEL")
    tags = [line.partition(": ")[2] for line in wheel.splitlines() if line.startswith("Tag: ")]
    abi = "cp{}{}{}".format(*sys.version_info[:2], "t" if FREE_THREADED else "")
    assert tags and all(tag.split("-")[1] == abi for tag in tags), (tags, abi)
    size = distribution.locate_file(binary).stat().st_size
    return f"{', '.join(tags)}, {binary}: {size / 1024:.0f} KiB"


def check_no_test_hooks():
    """Users get no hook that is there for the tests alone."""
    names = vars(warp_cache).keys() | vars(sys.modules.get("warp_cache.warp_cache", warp_cache)).keys()
    found = names & {"_ManualClock", "_codec"}
    assert not found, f"test hooks in the wheel: {sorted(found)}"


def check_cache():
    @warp_cache.cache(max_size=2, ttl=60)
    def double(x, *, by=2):
        return by * x

    assert [double(1), double(1), double(2), double(3), double(1)] == [2, 2, 4, 6, 2]
    assert double.cache_info()[:2] == (1, 4), double.cache_info()
    double.cache_clear()
    assert double.cache_info()[:2] == (0, 0), double.cache_info()

    @warp_cache.lru_cache(maxsize=None)
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(90) == 2880067194370816120


def check_coroutines():
    calls = 0

    @warp_cache.cache(max_size=8)
    async def load(x):
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return [x]

    async def main():
        return await asyncio.gather(*(load(1) for _ in range(5)))

    assert asyncio.run(main()) == [[1]] * 5 and calls == 1, calls


def check_threads():
    @warp_cache.cache(max_size=16)
    def square(x):
        return x * x

    wrong = []

    def work():
        wrong.extend(x for x in list(range(32)) * 200 if square(x) != x * x)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong


def shared_loader(name):
    @warp_cache.cache(max_size=64, backend="shared", name=name)
    def load(x):
        return (os.getpid(), {"x": x})

    return load


def other_process(name, queue):
    load = shared_loader(name)
    queue.put((load(7), load.cache_info().hits))


def check_shared():
    name = f"wheel_{uuid.uuid4().hex}"
    load = shared_loader(name)
    try:
        mine = load(7)
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=other_process, args=(name, queue))
        process.start()
        theirs, hits = queue.get(timeout=60)
        process.join(60)
        assert process.exitcode == 0 and theirs == mine and hits == 1, (process.exitcode, mine, theirs, hits)
    finally:
        load.cache_unlink()


if __name__ == "__main__":
    contents = check_contents()
    checks = [check_cache, check_coroutines, check_threads, check_no_test_hooks]
    if os.name == "posix":
        checks.append(check_shared)
    for check in checks:
        check()
    print(f"warp_cache {warp_cache.__version__} on {sys.version.split()[0]}{'t' * FREE_THREADED}: {contents}")
