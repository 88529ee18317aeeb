"""Checkpoints on the disk: whole or passed over, two of them, no pickle."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.service.training.killing import killed_at

from dropnorm_service.durable import sha256_of
from dropnorm_service.training import checkpoint
from dropnorm_service.training._files import write_tensors
from dropnorm_service.training.checkpoint import Checkpoints, Snapshot, Unusable


def snapshot(number: int) -> Snapshot:
    tensors = {
        "weights/a": torch.full((3, 2), float(number)),
        "random": torch.arange(5).byte(),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "step": torch.tensor(number),
        "wide": torch.full((2,), 1 / 3, dtype=torch.float64),
        "none": torch.zeros(0, 4),
        "across": torch.arange(6.0).reshape(2, 3).T,
    }
    return Snapshot(tensors, {"number": number, "third": 1 / 3, "worst": math.inf})


def read(folder: Path) -> tuple[Any, list[str]]:
    """Number of the checkpoint that is read, and the codes of the warnings."""
    found, warnings = Checkpoints(folder).read()
    codes = [warning.code for warning in warnings]
    if found is None:
        return None, codes
    number = found.facts["number"]
    assert found.facts == snapshot(number).facts
    wanted = snapshot(number).tensors
    assert found.tensors.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
    return number, codes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three checkpoints were written."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for number in (1, 2, 3):
        checkpoints.write(snapshot(number))
    return tmp_path / "checkpoints"


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert read(tmp_path / "nowhere") == (None, [])


def test_the_newest_is_read_and_two_are_kept(folder: Path) -> None:
    assert read(folder) == (3, [])
    assert sorted(path.name for path in folder.iterdir()) == [
        "000002.json",
        "000002.safetensors",
        "000003.json",
        "000003.safetensors",
    ]


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "no manifest's text": lambda manifest, tensors: manifest.write_text("nonsense"),
    "a list": lambda manifest, tensors: manifest.write_text("[1]"),
    "nested for ever": lambda manifest, tensors: manifest.write_text("[" * 10**6),
    "tensors gone": lambda manifest, tensors: tensors.unlink(),
    "tensors of another": lambda manifest, tensors: tensors.write_bytes(
        tensors.with_stem("000002").read_bytes()
    ),
    "manifest of another": lambda manifest, tensors: manifest.write_bytes(
        manifest.with_stem("000002").read_bytes()
    ),
    "a link": lambda manifest, tensors: _link(tensors),
    "a linked manifest": lambda manifest, tensors: _link(manifest),
    "a pipe": lambda manifest, tensors: _replace(manifest, os.mkfifo),
    "a folder": lambda manifest, tensors: _replace(manifest, os.mkdir),
    "a folder of tensors": lambda manifest, tensors: _replace(tensors, os.mkdir),
    "a manifest of a terabyte": lambda manifest, tensors: os.truncate(manifest, 2**40),
    "tensors of a terabyte": lambda manifest, tensors: os.truncate(tensors, 2**40),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_one_is_passed_over_and_the_next_takes_its_place(
    damage: Callable[[Path, Path], object], folder: Path
) -> None:
    damage(folder / "000003.json", folder / "000003.safetensors")
    assert read(folder) == (2, ["CHECKPOINT_DAMAGED"])
    checkpoints = Checkpoints(folder)
    _, (warning,) = checkpoints.read()
    assert "Checkpoint 000003 is damaged (" in warning.message
    assert str(folder) not in warning.message
    checkpoints.write(snapshot(4))
    assert read(folder) == (4, [])
    (folder / "000004.json").unlink()
    assert read(folder)[0] == 2, "the last one that was whole is the one that is kept"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_byte_can_change_and_none_be_missing_unnoticed(
    data: st.DataObject, folder: Path
) -> None:
    path = folder / data.draw(st.sampled_from(["000003.json", "000003.safetensors"]))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        flipped = content[place] ^ data.draw(st.integers(1, 255))
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
    else:
        path.write_bytes(content[:place])
    try:
        assert read(folder) == (2, ["CHECKPOINT_DAMAGED"])
    finally:
        path.write_bytes(content)
    assert read(folder) == (3, [])


def test_when_all_are_damaged_all_are_named(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.write_bytes(b"")
    assert read(folder) == (None, ["CHECKPOINT_DAMAGED"] * 2)


@pytest.mark.parametrize(("version", "which"), [(2, "a later version"), (0, "an earlier version")])
def test_another_version_s_is_passed_over_by_name(
    version: int, which: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", version)
    Checkpoints(folder).write(snapshot(4))
    monkeypatch.undo()
    assert read(folder) == (3, ["CHECKPOINT_OF_OTHER_VERSION"])
    _, (warning,) = Checkpoints(folder).read()
    assert f"{which} of the service, in form {version} where this one has 1" in warning.message


def header(size: int, **shape: Any) -> bytes:
    """A file of tensors that says of itself what is not so."""
    said = {"w": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42], **shape}}
    text = json.dumps(said).encode()
    return (size or len(text)).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        header(0),
        header(2**60),
        header(0, shape=[2**62, 2**62], data_offsets=[0, 0]),
        header(0, data_offsets=[2**60, 0]),
        (2**26).to_bytes(8, "little") + b"[" * 2**20,
    ],
    ids=["a bomb", "a header of an exabyte", "overflow", "backwards", "nested for ever"],
)
def test_what_claims_more_than_there_is_takes_no_memory(
    content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sums are right: whoever can write into the folder can make them so."""

    def bomb(path: Path, tensors: Any) -> str:
        write_tensors(path, tensors)
        path.write_bytes(content)
        return sha256_of(path)

    monkeypatch.setattr(checkpoint, "write_tensors", bomb)
    Checkpoints(folder).write(snapshot(4))
    assert read(folder) == (3, ["CHECKPOINT_DAMAGED"])


def test_tensors_without_their_manifest_are_no_checkpoint(folder: Path) -> None:
    """As a crash between the two files leaves them."""
    (folder / "000003.json").unlink()
    assert read(folder) == (2, [])
    Checkpoints(folder).write(snapshot(4))
    assert read(folder) == (4, [])


def test_what_is_no_checkpoint_is_left_alone(folder: Path) -> None:
    others = ["1e3.json", "notes.json", "0000003.json", "٠٠٠٠٠٩.json", "000009.txt"]
    for name in others:
        (folder / name).write_text("mine")
    (folder / ".mine").mkdir()
    assert read(folder) == (3, [])
    Checkpoints(folder).write(snapshot(4))
    assert all((folder / name).read_text() == "mine" for name in others)


def test_half_written_files_of_a_killed_attempt_are_cleared_away(folder: Path) -> None:
    (folder / ".000004.safetensors.abc").write_bytes(b"half")
    assert read(folder) == (3, [])
    assert not list(folder.glob(".*"))


def test_what_could_not_be_read_again_is_not_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_LARGEST_MANIFEST", 100)
        with pytest.raises(OSError, match="File too large"):
            Checkpoints(folder).write(snapshot(4))
    assert read(folder) == (3, [])


def test_who_reads_may_refuse_one_for_the_one_before(folder: Path) -> None:
    def check(found: Snapshot) -> None:
        if found.facts["number"] == 3:
            raise Unusable("CHECKPOINT_OF_OTHER_JOB", "is of another spec")

    found, warnings = Checkpoints(folder).read(check)
    assert found is not None
    assert found.facts["number"] == 2
    assert [warning.message for warning in warnings] == [
        "Checkpoint 000003 is of another spec; it is passed over."
    ]


def test_files_hold_no_pickle(folder: Path) -> None:
    content = (folder / "000003.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert set(json.loads(content[8 : 8 + length])) == set(snapshot(3).tensors)
    assert json.loads((folder / "000003.json").read_text())["facts"]["number"] == 3


def test_a_kill_at_any_moment_of_writing_leaves_a_whole_checkpoint(folder: Path) -> None:
    """The checkpoint before until the very last rename, then the new one; and writing goes on behind it."""
    found = []
    for moment in range(1, 100):
        for path in folder.iterdir():
            path.unlink()
        checkpoints = Checkpoints(folder)
        for number in (1, 2):
            checkpoints.write(snapshot(number))
        if not killed_at(moment, partial(checkpoints.write, snapshot(3))):
            break
        number, warnings = read(folder)
        found.append(number)
        assert warnings == []
        again = Checkpoints(folder)
        again.read()
        again.write(snapshot(4))
        assert read(folder) == (4, [])
    assert len(found) > 8
    assert set(found) == {2, 3}
    assert found == sorted(found)
