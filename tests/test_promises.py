"""The promises of docs/operations.md: each names a test that there is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_SECTION = "Promises, and the test that shows each"
_ROW = re.compile(r"^\| (?P<promise>.+?) \| (?P<shown>.+) \|$", re.MULTILINE)
_NAMED = re.compile(r"`(?P<file>tests/[\w/.]+)?(?:::(?P<name>\w+))?`")


def rows() -> list[tuple[str, str]]:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page[page.index(_SECTION) :]
    return [(row["promise"], row["shown"]) for row in _ROW.finditer(table)][1:]


def names_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize(("promise", "shown"), rows(), ids=[promise for promise, _ in rows()])
def test_what_shows_a_promise_is_there(promise: str, shown: str) -> None:
    file: Path | None = None
    named = [match for match in _NAMED.finditer(shown) if match["file"] or match["name"]]
    for match in named:
        if match["file"]:
            file = ROOT / match["file"]
        assert file is not None, f"{match[0]} names no file"
        assert file.exists(), file
        if match["name"]:
            assert match["name"] in names_in(file), f"{match[0]} is not in {file}"
    assert named or shown == "the same test", shown
