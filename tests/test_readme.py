"""Every Python example in README.md runs.

Each block has a module of its own, unless `<!-- continues -->` stands above it: then it goes on in the one before it.
"""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"^(<!-- continues -->\s+)?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(text: str) -> list[list[tuple[int, str]]]:
    """The blocks that share a namespace, as their first line's number and their code."""
    groups: list[list[tuple[int, str]]] = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start(2)) + 1
        if not match[1]:
            groups.append([])
        groups[-1].append((line, match[2]))
    return groups


EXAMPLES = examples(README.read_text(encoding="utf-8"))


def test_every_python_block_is_an_example() -> None:
    assert EXAMPLES
    assert sum(map(len, EXAMPLES)) == README.read_text(encoding="utf-8").count("```python")


def test_a_marked_block_goes_on_in_the_one_before_it() -> None:
    text = "# A\n\n```python\na = 1\n```\n\n<!-- continues -->\n\n```python\nb = a\n```\ntext\n```python\nc = 2\n```\n"
    assert examples(text) == [[(4, "a = 1\n"), (10, "b = a\n")], [(14, "c = 2\n")]]


@pytest.mark.parametrize("blocks", [pytest.param(blocks, id=f"line {blocks[0][0]}") for blocks in EXAMPLES])
def test_readme_example_runs(blocks: list[tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A real module, so that what an example defines can be pickled by its name.
    module = types.ModuleType(f"readme_line_{blocks[0][0]}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for line, code in blocks:
        # Tracebacks give the line in the README.
        exec(compile("\n" * (line - 1) + code, str(README), "exec"), vars(module))
