"""ARCHITECTURE.md names the files that are there, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / "ARCHITECTURE.md").exists(), reason="the sources are elsewhere")
NAMES = re.compile(r"( *)((?:[\w-]+(?:\.rs|/)(?:, )?)+)(?:  .*)?")


def named() -> set[str]:
    """The Rust files in the tree that the text draws, two spaces a level."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    tree = text[text.index("```\nsrc/\n") + 4 :].split("\n```")[0]
    files, folders = set(), {-1: Path()}
    for line in tree.splitlines():
        match = NAMES.fullmatch(line)
        assert match, f"no line of the tree: {line!r}"
        level = len(match[1]) // 2
        for name in match[2].split(", "):
            path = folders[level - 1] / name
            if name.endswith("/"):
                folders[level] = path
            else:
                files.add(path.as_posix())
    return files


def test_the_tree_is_that_of_the_sources():
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.rs")}
    assert named() == {path for path in there if not path.endswith(("/mod.rs", "/tests.rs"))}


def test_each_file_that_the_text_names_is_there():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    there = {path.as_posix() for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.*")}
    for name in re.findall(r"`([\w/]+\.(?:rs|py))`", text):
        assert any(path.endswith("/" + name) for path in there), name


def test_unsafe_code_is_allowed_where_the_text_says():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rule = " ".join(re.search(r"6\. `unsafe` stays in(.*?);", text, re.DOTALL)[1].split())
    at_top, under_py, under_shared = re.fullmatch(
        r"(.*), under `src/py` in (.*), and under `src/backend/shared` in (.*)", rule
    ).groups()
    allowed = set()
    for folder, names in (("src", at_top), ("src/py", under_py), ("src/backend/shared", under_shared)):
        for name in re.findall(r"`([\w/.]+)`", names):
            path = ROOT / folder / name.removeprefix("src/")
            allowed |= set(path.rglob("*.rs")) if path.is_dir() else {path}
    unsafe = {path for path in (ROOT / "src").rglob("*.rs") if "allow(unsafe_code" in path.read_text(encoding="utf-8")}
    assert unsafe == allowed - {ROOT / "src/py/ffi/mod.rs"}
