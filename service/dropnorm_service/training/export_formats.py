"""Files that a model can leave as: how each is written, and how it is opened again."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dropnorm.spec.export import ExportFormat
from dropnorm_service.training.folding import fold
from dropnorm_service.training.proof import Run
from dropnorm_service.training.saved import SavedModel, assemble

_METADATA = "dropnorm"
"""Where a file keeps spec, data set and whatever else is known, as JSON."""


class CannotExport(Exception):
    """The model cannot be brought into the form, a sentence."""


@dataclass(frozen=True)
class Subject:
    """A model to be written.

    Attributes:
        saved: what is known of it.
        predictor: the module itself, folded or not.
        folded: whether it is.
        examples: raw inputs, `[2, *shape of one]`: a graph is traced with them.
    """

    saved: SavedModel
    predictor: nn.Module
    folded: bool
    examples: Tensor

    @property
    def metadata(self) -> str:
        """What a file says of itself."""
        return json.dumps({**self.saved.facts, "folded": self.folded})


@dataclass(frozen=True)
class Form:
    """One kind of file.

    Attributes:
        file_name: its name.
        write: writes it.
        open: reads it back as a function from raw inputs to outputs.
    """

    file_name: str
    write: Callable[[Subject, Path], None]
    open: Callable[[Path], Run]


def read_portable(path: Path) -> SavedModel:
    """The model in a `safetensors` export, ready for raw inputs."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()[_METADATA])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    return assemble(facts, tensors, fold if facts["folded"] else lambda network: None)


def _write_portable(subject: Subject, path: Path) -> None:
    tensors = {name: each.contiguous() for name, each in subject.predictor.state_dict().items()}
    save_file(tensors, path, {_METADATA: subject.metadata})


def _write_program(subject: Subject, path: Path) -> None:
    written = io.BytesIO()  # since torch's own writer, where it finds no room, ends the process
    torch.export.save(_program(subject), written, extra_files={_METADATA: subject.metadata})
    path.write_bytes(written.getbuffer())


def _open_program(path: Path) -> Run:
    run: Run = torch.export.load(path).module()
    return run


def _program(subject: Subject) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        return torch.export.export(
            subject.predictor, (subject.examples,), dynamic_shapes=({0: batch},)
        )


def _write_onnx(subject: Subject, path: Path) -> None:
    _need("onnx", "onnxscript", "onnxruntime")
    # It says of each library that is not there that its operators are not either.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter uses what torch itself has deprecated
        program = torch.onnx.export(
            _program(subject),
            (subject.examples,),
            input_names=["inputs"],
            output_names=["outputs"],
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # under `dynamo` there is one
    program.model.metadata_props[_METADATA] = subject.metadata
    program.save(path)


def _open_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"inputs": x.numpy()})[0])


def _need(*libraries: str) -> None:
    missing = [name for name in libraries if find_spec(name) is None]
    if missing:
        raise CannotExport(
            f"the service lacks {' and '.join(missing)}, which onnx needs: install 'dropnorm[export]' "
            "there, or choose pt2"
        )


FORMS: Mapping[ExportFormat, Form] = {
    "safetensors": Form(
        "model.safetensors", _write_portable, lambda path: read_portable(path).predictor
    ),
    "pt2": Form("model.pt2", _write_program, _open_program),
    "onnx": Form("model.onnx", _write_onnx, _open_onnx),
}
"""By the name in the settings."""
