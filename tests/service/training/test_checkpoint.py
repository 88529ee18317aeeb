"""Checkpoints on the disk: whole or passed over, two of them, no pickle."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dropnorm_service.training.checkpoint import Checkpoints, Snapshot


def snapshot(number: int) -> Snapshot:
    tensors = {"weights/a": torch.full((3, 2), float(number)), "random": torch.arange(4).byte()}
    return Snapshot(tensors, {"number": number, "third": 1 / 3, "worst": math.inf})


def read(folder: Path) -> tuple[Any, list[str]]:
    found, problems = Checkpoints(folder).read()
    if found is not None:
        number = found.facts["number"]
        assert found.facts == snapshot(number).facts
        for name, tensor in snapshot(number).tensors.items():
            assert torch.equal(found.tensors[name], tensor)
        return number, problems
    return None, problems


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three checkpoints were written."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for number in (1, 2, 3):
        checkpoints.write(snapshot(number))
    return tmp_path / "checkpoints"


def test_there_is_none_at_first(tmp_path):
    assert read(tmp_path / "nowhere") == (None, [])


def test_the_newest_is_read_and_two_are_kept(folder):
    assert read(folder) == (3, [])
    assert sorted(path.name for path in folder.iterdir()) == [
        "000002.json",
        "000002.safetensors",
        "000003.json",
        "000003.safetensors",
    ]


@pytest.mark.parametrize(
    "damage",
    ["cut", "flipped", "emptied", "tensors gone", "fact changed", "no json", "nonsense", "list"],
)
def test_a_damaged_one_is_passed_over_and_named(folder, damage):
    manifest, tensors = folder / "000003.json", folder / "000003.safetensors"
    content = bytearray(tensors.read_bytes())
    if damage == "cut":
        tensors.write_bytes(content[:-1])
    elif damage == "flipped":
        content[-3] ^= 1
        tensors.write_bytes(content)
    elif damage == "emptied":
        tensors.write_bytes(b"")
    elif damage == "tensors gone":
        tensors.unlink()
    elif damage == "fact changed":
        manifest.write_text(manifest.read_text().replace('"number": 3', '"number": 4'))
    elif damage == "no json":
        manifest.write_bytes(manifest.read_bytes()[:30])
    else:
        manifest.write_text("{}" if damage == "nonsense" else "[1]")
    number, problems = read(folder)
    assert number == 2
    (problem,) = problems
    assert "000003 is damaged" in problem


def test_when_all_are_damaged_all_are_named(folder):
    for path in folder.glob("*.safetensors"):
        path.write_bytes(b"")
    number, problems = read(folder)
    assert number is None
    assert len(problems) == 2


def test_tensors_without_their_manifest_are_no_checkpoint(folder):
    """As a crash between the two files leaves them."""
    (folder / "000003.json").unlink()
    assert read(folder) == (2, [])
    Checkpoints(folder).write(snapshot(4))
    assert read(folder) == (4, [])


def test_half_written_files_of_a_killed_attempt_are_cleared_away(folder):
    (folder / ".000004.safetensors.abc").write_bytes(b"half")
    assert read(folder) == (3, [])
    assert not list(folder.glob(".*"))


def test_files_hold_no_pickle(folder):
    header = (folder / "000003.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert set(json.loads(header[8 : 8 + length])) >= {"weights/a", "random"}
    assert json.loads((folder / "000003.json").read_text())["facts"]["number"] == 3


def test_a_periodic_one_is_due_after_the_interval_and_not_before_it_has_paid_off(tmp_path):
    checkpoints = Checkpoints(tmp_path, interval_seconds=0.0)
    assert checkpoints.due(time.perf_counter())
    started = time.perf_counter()
    checkpoints.write(snapshot(1))
    spent = time.perf_counter() - started
    assert not checkpoints.due(started + 2 * spent)
    assert checkpoints.due(started + 200 * spent)
    assert not Checkpoints(tmp_path, interval_seconds=30.0).due(time.perf_counter() + 29.0)
