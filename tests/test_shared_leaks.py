"""Nothing is left behind: no descriptor, no mapping, no file."""

import sys

import pytest
from shared_workers import outside

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.usefixtures("shared_directory"),
]


def unchanged(before, after):
    """No more descriptors and regions than before, and no more other mappings than an allocator's whims explain."""
    assert after[:2] == before[:2]
    assert after[2] <= before[2] + 8


def test_unlinking_and_beginning_anew_leaves_nothing():
    before, after, same_files = outside("unlink_cycles", count=2000)
    unchanged(before, after)
    assert same_files


@pytest.mark.parametrize("named", [True, False], ids=["named", "private"])
def test_a_function_that_is_dropped_leaves_nothing_open(named):
    before, after = outside("decoration_cycles", count=500, named=named)
    unchanged(before, after)


@pytest.mark.parametrize("kill", [False, True], ids=["ended", "killed"])
def test_processes_that_come_and_go_leave_no_files(kill):
    before, after, same_files = outside("child_cycles", count=60, kill=kill)
    unchanged(before, after)
    assert same_files


def test_what_a_killed_maker_of_a_region_left_is_removed():
    assert outside("killed_makers", count=60) <= 2


def test_an_open_region_holds_no_descriptor():
    before, after = outside("many_functions", count=300)
    assert after[0] <= before[0] + 1
    assert after[1] == 300


def test_calls_of_every_kind_leave_no_memory():
    assert outside("memory", count=1500) == []


def test_listing_again_and_again_leaves_nothing_open():
    before, after = outside("listing_cycles", count=300)
    unchanged(before, after)
