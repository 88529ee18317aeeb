"""Plain data from YAML and JSON files, or a sentence that says why there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dropnorm.spec._base import InvalidSpecError, Problem


def read(path: Path) -> Any:
    """What a file says: JSON where its name ends in .json, otherwise YAML.

    Raises:
        InvalidSpecError: the text is not UTF-8, is no YAML or JSON, or says nothing.
        OSError: the file cannot be read.
        ImportError: it is YAML, and PyYAML is not installed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        raise _unreadable(f"{path} is not text in UTF-8: {error}") from error
    values = _from_json(path, text) if path.suffix == ".json" else _from_yaml(path, text)
    if values is None:
        raise _unreadable(f"{path} is empty; a spec has at least architecture and data")
    return values


def too_deep(path: Path) -> InvalidSpecError:
    """The error for a file whose lists and mappings nest deeper than Python can follow."""
    return _unreadable(f"{path} nests too deep; no spec needs that")


def _from_json(path: Path, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except ValueError as error:
        raise _unreadable(f"{path} is not JSON: {error}") from error


def _from_yaml(path: Path, text: str) -> Any:
    # Only the command line and YAML files need PyYAML; the base install does without.
    from dropnorm.spec._yaml import NotYaml, load

    try:
        return load(text)
    except NotYaml as error:
        raise _unreadable(f"{path} is not YAML: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return values


def _unreadable(text: str) -> InvalidSpecError:
    return InvalidSpecError([Problem("", text)])
