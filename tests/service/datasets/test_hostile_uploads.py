"""Files that nobody's SDK wrote: whatever is in them, the answer is a data set or a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dropnorm.datasets import Bundle, write_bundle
from dropnorm.datasets.arrays import from_arrays
from dropnorm.spec import DatasetManifest
from dropnorm_service.workers.child.inspector import answer
from dropnorm_service.workers.messages import Inspect, Inspected

GOOD = from_arrays(np.arange(24, dtype=np.float32).reshape(8, 3), np.arange(8) % 2)
SIZES = {"F32": 4, "F64": 8, "F16": 2, "U8": 1, "I64": 8, "I32": 4, "BOOL": 1}

quick = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def inspected(path: Path, content: bytes) -> Inspected:
    path.write_bytes(content)
    reply = answer(Inspect(dataset_id="mine", path=path, samples=10_000, values=10_000))
    assert not reply.trace, reply.trace
    assert (reply.dataset is None) == bool(reply.problems)
    return reply


@st.composite
def changed(draw: st.DrawFn, content: bytes) -> bytes:
    """A file with bytes overwritten, cut out or put in."""
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 40)))
    return content[:start] + draw(st.binary(max_size=40)) + content[end:]


tensors = st.dictionaries(
    st.sampled_from(["x", "y", "test_x", "test_y", "z"]),
    st.tuples(st.sampled_from(sorted(SIZES)), st.lists(st.integers(0, 3), max_size=5)),
    max_size=5,
)
manifests = st.fixed_dictionaries(
    {
        "task": st.sampled_from(
            [
                "classification",
                "regression",
                "sequence_to_sequence",
                "masked_language_modelling",
                "generation",
            ]
        )
    },
    optional={
        name: st.lists(st.text(max_size=3), max_size=3)
        for name in ("class_names", "feature_names", "vocabulary", "target_vocabulary")
    },
)


@given(manifests, tensors, st.integers(0, 255))
@quick
def test_any_tensors_under_any_manifest(
    tmp_path: Path, manifest: Any, tensors: Any, byte: int
) -> None:
    header: dict[str, Any] = {"__metadata__": {"dropnorm": json.dumps(manifest)}}
    place = 0
    for name, (kind, shape) in tensors.items():
        end = place + SIZES[kind] * int(np.prod(shape, dtype=int))
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    inspected(tmp_path / "file", len(text).to_bytes(8, "little") + text + bytes([byte]) * place)


@given(st.data())
@quick
def test_a_damaged_file(tmp_path: Path, data: st.DataObject) -> None:
    write_bundle(GOOD, tmp_path / "good")
    inspected(tmp_path / "file", data.draw(changed((tmp_path / "good").read_bytes())))


@pytest.mark.parametrize("length", [2**63, 2**40, 0])
def test_a_header_whose_length_is_a_lie(tmp_path: Path, length: int) -> None:
    reply = inspected(tmp_path / "file", length.to_bytes(8, "little") + b"{}")
    assert "no safetensors file" in reply.problems[0].message


@pytest.mark.parametrize("name", ["\x1b[31m", "a\u202eb"])
def test_names_that_would_steer_a_terminal(tmp_path: Path, name: str) -> None:
    manifest = GOOD.manifest.model_copy(update={"class_names": (name, "b")})
    write_bundle(Bundle(manifest, GOOD.arrays), tmp_path / "file")
    reply = inspected(tmp_path / "file", (tmp_path / "file").read_bytes())
    assert "its manifest is wrong: class_names.0" in reply.problems[0].message


def test_a_file_that_its_writer_would_have_refused(tmp_path: Path) -> None:
    manifest = DatasetManifest(task="regression")
    write_bundle(Bundle(manifest, GOOD.arrays), tmp_path / "file")
    reply = inspected(tmp_path / "file", (tmp_path / "file").read_bytes())
    assert "targets are float32" in reply.problems[0].message
