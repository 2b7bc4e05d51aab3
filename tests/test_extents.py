"""Every module of tests says on which Pythons it runs."""

from collections import Counter
from pathlib import Path

from conftest import BUILD, FULL, VERSION


def test_every_module_of_tests_is_in_one_list():
    modules = [path.stem for path in Path(__file__).parent.glob("test_*.py")]
    assert Counter([*BUILD, *VERSION, *FULL]) == Counter(modules)
