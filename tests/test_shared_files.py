"""Damaged files, hostile folders, and no room: the function works, and nobody dies, waits, or reads what is wrong."""

import os
import random
import re
import stat
import subprocess
import sys

import pytest
from shared_workers import KEYS, NOBODY, SOMEBODY, cached, in_child, outside, use_twice

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no shared memory on Windows"),
    pytest.mark.usefixtures("shared_directory"),
]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
root_only = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="changes owners")


def seed():
    number = random.randrange(2**32)
    print("seed", number)
    return number


def in_own_memory(options):
    """A command that gives the process after it a /dev/shm of its own."""
    script = f'mount -t tmpfs -o mode=1777,{options} tmpfs /dev/shm && exec "$@"'
    return ["unshare", "-m", "sh", "-c", script, "sh"]


def may_mount():
    if sys.platform != "linux":
        return False
    try:
        return subprocess.run([*in_own_memory("size=1m"), "true"], capture_output=True, timeout=20).returncode == 0
    except OSError:
        return False


mount_only = pytest.mark.skipif(not may_mount(), reason="mounts a file system")


# Damage


def test_changed_bytes_of_a_file_at_rest_are_misses_or_a_new_file():
    report = outside("damaged_at_rest", seed=seed(), flips=180)
    assert report["untouched"] == [[], len(KEYS)]
    failed, hits = report["damaged"]
    assert failed == []
    assert hits > 0


def test_changed_bytes_of_any_file_of_the_folder_are_misses_or_a_new_file():
    report = outside("damaged_at_rest", seed=seed(), flips=120, every_file=True)
    assert report["untouched"] == [[], len(KEYS)]
    assert report["damaged"][0] == []


def test_a_file_of_another_size_or_content_is_made_anew():
    failed, hits = outside("resized_at_rest")
    assert failed == []
    assert hits >= 0


def test_changed_bytes_under_a_process_are_misses():
    assert outside("damaged_while_mapped", seed=seed(), rounds=10, flips=15) == []


def test_bytes_that_change_while_processes_call_are_misses():
    assert outside("damaged_in_use", seed=seed(), seconds=1.2) == []


def test_a_file_of_another_function_is_never_read():
    assert outside("replaced_by_another") is True


def test_changed_bytes_of_the_other_files_are_no_harm_to_who_uses_them():
    assert outside("others_damaged_while_mapped", seed=seed(), rounds=25) is True


@pytest.mark.parametrize("how", ["deleted", "zeroed", "replaced", "folder"])
def test_a_file_may_vanish_while_it_is_in_use(how):
    assert outside("gone_while_mapped", how=how) >= 0


@pytest.mark.parametrize(
    "kind", ["fifo", "link", "hard link", "dangling link", "folder", "empty", "noise", "mode", "unreadable"]
)
def test_each_file_of_the_library_may_be_something_odd(kind):
    assert outside("odd_files", kind=kind) == []


# Strangers

TRAPS = {
    "folder of another": "private",
    "folder of another, open to all": "private",
    "folder of another, file of the victim": "private",
    "open folder, file of another": "any",
    "sticky open folder, file of another": "any",
    "file of another": "any",
    "readable file of another": "any",
    "file open to all": "any",
    "file open to the group": "any",
    "link to a folder of another": "private",
    "link to a folder of the victim": "private",
    "link to a file of another": "any",
    "link to a file of the victim": "any",
    "hard link to a file of another": "any",
    "hard link to a file of the victim": "any",
    "a file in place of the folder": "private",
    "a pipe in place of the folder": "private",
    "a pipe in place of the file": "any",
}


@root_only
@pytest.mark.parametrize(("victim", "attacker"), [(0, NOBODY), (NOBODY, SOMEBODY)], ids=["root", "nobody"])
@pytest.mark.parametrize("case", TRAPS)
def test_what_another_user_has_planted_is_never_loaded(case, victim, attacker):
    report = outside("strangers", case=case, victim=victim, attacker=attacker)
    assert report["loaded"] is False
    assert report["got"] == report["again"]["got"] == ["mine", "mine"]
    assert report["attacker"] == ["mine", "mine"] or "planted" in report["attacker"]
    for each in (report, report["again"]):
        assert len(each["warnings"]) <= 1
        assert (each["path"] is None) == (len(each["warnings"]) == 1)
        if TRAPS[case] == "private":
            assert each["path"] is None


@root_only
def test_the_trap_of_these_tests_springs_where_nothing_is_wrong():
    for victim, attacker in ((0, NOBODY), (NOBODY, SOMEBODY)):
        report = outside("strangers", case="control", victim=victim, attacker=attacker)
        assert report["loaded"] is True
        assert report["got"] == ["planted", "planted"]
        os.mkdir(os.environ["WARP_CACHE_DIR"], 0o700)


@root_only
def test_a_folder_that_cannot_be_made_leaves_a_private_region_and_one_warning():
    case = "nothing where nothing can be made"
    report = outside("strangers", case=case, victim=NOBODY, attacker=SOMEBODY)
    assert report["got"] == ["mine", "mine"]
    assert report["path"] is None
    assert len(report["warnings"]) == 1


ODD_FOLDERS = {
    "a trailing slash": ("{}/new/", True),
    "dots": ("{}/../{name}/new", True),
    "bytes that are no text": ("{}/\udcff\udc80", True),
    "a long name": ("{}/" + "x" * 300, False),
    "a long path": ("{}/" + "y/" * 3000, False),
    "nothing above it": ("{}/a/b/c", None),
    "open to all": ("{}/open", False),
    "a file": ("{}/file", False),
    "below a file": ("{}/file/below", False),
    "a device": ("/dev/null", False),
    "a system's": ("/proc", False),
}


@pytest.mark.parametrize("case", ODD_FOLDERS)
def test_a_folder_of_any_kind_is_taken_or_refused_with_one_warning(case, shared_directory, monkeypatch):
    (shared_directory / "open").mkdir()
    (shared_directory / "open").chmod(0o755)
    (shared_directory / "file").touch(0o600)
    path, is_taken = ODD_FOLDERS[case]
    monkeypatch.setenv("WARP_CACHE_DIR", path.format(shared_directory, name=shared_directory.name))
    report = in_child(use_twice)
    assert report["runs"] == len(KEYS)
    assert len(report["warnings"]) == (report["path"] is None)
    if is_taken is not None:
        assert (report["path"] is not None) == is_taken
    assert (shared_directory / "open").stat().st_mode & 0o777 == 0o755
    assert (shared_directory / "file").read_bytes() == b""


def test_a_relative_folder_is_the_one_of_the_time_of_decoration(shared_directory, monkeypatch):
    monkeypatch.chdir(shared_directory)
    monkeypatch.setenv("WARP_CACHE_DIR", "relative")
    f = cached()
    (shared_directory / "elsewhere").mkdir()
    monkeypatch.chdir(shared_directory / "elsewhere")
    f(1)
    assert f.shared_stats().path.startswith(str(shared_directory / "relative" / "worker-"))


def test_a_umask_that_takes_every_right_is_no_matter(shared_directory, monkeypatch):
    monkeypatch.setenv("WARP_CACHE_DIR", str(shared_directory / "new"))
    old = os.umask(0o777)
    try:
        f = cached()
        f(1)
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(f.shared_stats().path).st_mode) == 0o600
    assert in_child(lambda: cached().cache_contains(1)) is True


def test_a_folder_that_somebody_keeps_locked_costs_one_wait_and_one_warning():
    waits, warnings, works = outside("locked_folder")
    assert works is True
    assert len(warnings) == 1
    assert waits[0] < 5
    assert max(waits[1:]) < 0.25


@root_only
@mount_only
@pytest.mark.parametrize("kind", ["free", "folder", "file", "link"])
@pytest.mark.parametrize("uid", [0, NOBODY])
def test_who_takes_the_default_folder_first_costs_one_warning(kind, uid):
    report = outside("squatted", wrapper=in_own_memory("size=64m"), uid=uid, kind=kind)
    assert report["runs"] == len(KEYS)
    if kind == "free":
        assert report["warnings"] == []
        assert report["path"].startswith(f"/dev/shm/warp_cache-{uid}/")
        assert (report["mode"], report["files"]) == (0o700, [0o600])
        assert report["made"] == [f"/dev/shm/warp_cache-{uid}"]
    else:
        assert report["path"] is None
        assert len(report["warnings"]) == 1


# No room


def want(options="size=64m", **wants):
    """What comes of calls on a /dev/shm of its own."""
    environment = {"WARP_CACHE_DIR": "/dev/shm/regions"}
    report = outside("want", wrapper=in_own_memory(options), env=environment, **wants)
    assert len(report["warnings"]) <= 1
    return report


@mount_only
@pytest.mark.parametrize("max_size", [100, 1000, 20_000, 10**6, 2**62])
@pytest.mark.parametrize("size", ["1m", "64m"])
def test_a_small_file_system_makes_a_smaller_cache_or_none(size, max_size):
    report = want(f"size={size}", max_size=max_size)
    if size == "64m" and max_size <= 20_000:
        assert report["warnings"] == []
        assert report["hits"] == min(600, max_size)


@mount_only
@pytest.mark.parametrize("full", ["before", "during"])
@pytest.mark.parametrize("size", ["1m", "64m"])
@pytest.mark.parametrize("max_size", [100, 20_000])
def test_a_full_file_system_is_no_error(size, full, max_size):
    report = want(f"size={size}", full=full, max_size=max_size)
    if full == "before":
        assert report["path"] is None
        assert len(report["warnings"]) == 1


@mount_only
@pytest.mark.parametrize("inodes", [1, 2, 3, 4, 5, 6, 8])
def test_too_few_inodes_are_no_error(inodes):
    want(f"size=8m,nr_inodes={inodes}")


@mount_only
def test_no_inode_left_is_no_error():
    report = want("size=64m,nr_inodes=100", lack="inodes")
    assert report["path"] is None
    assert len(report["warnings"]) == 1


@mount_only
def test_a_file_system_that_is_read_only_is_no_error():
    report = want(remount="ro")
    assert report["path"] is None
    assert len(report["warnings"]) == 1
    assert report["hits"] > 0


@mount_only
@pytest.mark.parametrize("limit", ["file size", "no file size"])
def test_a_limit_of_the_size_of_files_is_no_error(limit):
    report = want(lack=limit)
    assert report["path"] is None
    assert len(report["warnings"]) == 1


@mount_only
def test_what_there_is_can_be_listed_and_removed_where_no_room_is_left():
    environment = {"WARP_CACHE_DIR": "/dev/shm/regions"}
    assert outside("list_without_room", wrapper=in_own_memory("size=4m"), env=environment) == [1, 0]


@mount_only
def test_a_limit_of_memory_is_no_error():
    want(lack="memory", max_size=20_000)


@linux_only
@pytest.mark.parametrize("coroutine", [False, True])
@pytest.mark.parametrize("slack", [4 << 20, 32 << 20])
def test_a_region_that_cannot_be_mapped_is_a_private_cache_of_fewer_entries(slack, coroutine):
    report = outside("call_with_little_memory", slack=slack, coroutine=coroutine)
    assert report["info"] == [3, 3, 20_000, 3, 0]
    assert report["path"] is None
    (message,) = report["warnings"]
    found = re.search(r"cached in this process only, no more than (\d+) of them: cannot map .*Cannot allocate", message)
    assert 20 <= int(found[1]) <= 10_000
    assert report["cleared"] == [0, 0, 20_000, 0, 0]


@linux_only
@pytest.mark.parametrize("coroutine", [False, True])
@pytest.mark.parametrize("slack", [0, 8 << 10, 20 << 10, 100 << 10])
def test_calls_are_counted_where_nothing_can_be_mapped(slack, coroutine):
    report = outside("call_with_little_memory", slack=slack, coroutine=coroutine)
    hits, misses, _, size, skipped = report["info"]
    assert (hits + misses, skipped) == (6, 0)
    assert hits <= size <= 3
    assert len(report["warnings"]) == 1
    if slack <= 8 << 10:
        assert size == 0
        assert "its values are not cached: " in report["warnings"][0]
    assert report["cleared"] == [0, 0, 20_000, 0, 0]


@linux_only
def test_a_function_without_identity_is_cached_where_memory_is_short():
    report = outside("call_with_little_memory", slack=4 << 20, has_identity=False)
    assert report["info"] == [3, 3, 20_000, 3, 0]
    about_identity, about_memory = report["warnings"]
    assert "in this process and its forks only: " in about_identity
    assert "in this process only, no more than " in about_memory


@mount_only
def test_no_descriptor_left_is_no_error():
    want(lack="descriptors")


@mount_only
def test_a_file_system_that_fills_up_while_several_processes_call_kills_nobody():
    report = outside(
        "crowded", wrapper=in_own_memory("size=2m"), env={"WARP_CACHE_DIR": "/dev/shm/regions"}, workers=4, seconds=1.5
    )
    assert report == []
