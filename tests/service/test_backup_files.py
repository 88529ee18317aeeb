"""Files that come and go while a backup copies them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dropnorm_service import backup
from dropnorm_service.durable import draft_of

EXPORTS = Path("jobs") / "job" / "exports"


def export(source: Path, name: str) -> Path:
    folder = source / EXPORTS / name
    folder.mkdir(parents=True)
    (folder / "model.bin").write_text(name)
    return folder


def copied(target: Path) -> set[str]:
    return {str(path.relative_to(target / EXPORTS)) for path in (target / EXPORTS).rglob("*.bin")}


def test_folders_that_go_and_come_meanwhile_are_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source, target = tmp_path / "data", tmp_path / "backup"
    for name in ("first", "second", "third"):
        export(source, name)
    copy2 = shutil.copy2

    def meanwhile(path: Path, copy: Path) -> object:
        monkeypatch.setattr(shutil, "copy2", copy2)
        for folder in (source / EXPORTS).iterdir():
            if folder != path.parent:
                shutil.rmtree(folder)
        export(source, "newer")
        return copy2(path, copy)

    monkeypatch.setattr(shutil, "copy2", meanwhile)
    copies = backup._copy_folder(source, Path("jobs"), target)
    assert len(copies) == 2
    assert "newer/model.bin" in copied(target)


def test_what_is_being_exported_is_left_out(tmp_path: Path):
    source, target = tmp_path / "data", tmp_path / "backup"
    whole = export(source, "whole")
    export(source, draft_of(whole).name)
    backup._copy_folder(source, Path("jobs"), target)
    assert copied(target) == {"whole/model.bin"}


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path: Path):
    (tmp_path / "jobs").write_text("in the way")
    with pytest.raises(NotADirectoryError):
        backup._copy_folder(tmp_path, Path("jobs"), tmp_path / "backup")
