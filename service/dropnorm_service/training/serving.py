"""A saved model that answers requests: what it takes is checked, and named where it does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from dropnorm.results import Prediction
from dropnorm.spec import DropoutSampling, InvalidSpecError, Problem
from dropnorm.spec import Tensor as Array
from dropnorm.spec.prediction import MAX_TENSOR_BYTES
from dropnorm_service.training.design import design
from dropnorm_service.training.inference import inference_batch_size
from dropnorm_service.training.prediction import Predicted, drops, predict, predict_by_samples
from dropnorm_service.training.saved import SavedModel, load_saved

_DTYPES = {"float32": np.float32, "uint8": np.uint8, "int64": np.int64}
_MAX_INPUTS = 100_000


class ServedModel:
    """A model in memory, ready to answer.

    Args:
        folder: where `save_model` wrote it.

    Raises:
        FileNotFoundError: there is none.
        BadData: it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._saved = load_saved(folder)
        spec, dataset = self._saved.spec, self._saved.dataset
        paper = design(spec, dataset.input_shape, dataset.outputs, dataset.sequences)
        self._batch_size = inference_batch_size(paper)

    def answer(self, name: str, inputs: Array, sampling: DropoutSampling | None) -> Prediction:
        """What the model says.

        Args:
            name: of the training job.
            inputs: raw inputs, `[inputs, *shape of one]`.
            sampling: several passes with dropout on; None: one with dropout off.

        Raises:
            InvalidSpecError: the inputs are not what the model takes, or it has nothing to drop; the
                request's field is named.
        """
        saved, model = self._saved, self._saved.predictor
        if problems := tuple(self._problems(inputs, sampling)):
            raise InvalidSpecError(problems)
        x = _tensor(inputs)
        if saved.dataset.sequences is None and x.dtype == torch.int64:
            x = x.float()  # numbers are taken as whoever asks has them
        self._check_size(x)
        classes = saved.dataset.task == "classification"
        said = (
            predict(model, x, classes=classes, batch_size=self._batch_size)
            if sampling is None
            else predict_by_samples(
                model,
                x,
                classes=classes,
                batch_size=self._batch_size,
                samples=sampling.samples,
                seed=sampling.seed,
            )
        )
        return _prediction(name, saved, said)

    def _problems(self, inputs: Array, sampling: DropoutSampling | None) -> Iterator[Problem]:
        saved, shape = self._saved, self._saved.input_shape
        if inputs.shape[1:] != shape or not inputs.shape:
            wanted = ", ".join(map(str, ("inputs", *shape)))
            text = f"the model takes [{wanted}] and was given {list(inputs.shape)}"
            yield Problem("inputs.shape", text)
        elif not 0 < len(inputs) <= _MAX_INPUTS:
            text = f"give 1 to {_MAX_INPUTS:,} inputs at a time, not {len(inputs)}"
            yield Problem("inputs.shape", text)
        yield from self._wrong_type(inputs)
        if sampling is not None and saved.dataset.task == "sequence_to_sequence":
            text = "the answers are tokens, which have no mean; leave sampling out"
            yield Problem("sampling", text)
        elif sampling is not None and not drops(saved.predictor):
            text = (
                "this model drops nothing, so that all passes would be the same; leave sampling out"
            )
            yield Problem("sampling", text)

    def _wrong_type(self, inputs: Array) -> Iterator[Problem]:
        sequences = self._saved.dataset.sequences
        if sequences is None:
            return
        if inputs.dtype != "int64":
            yield Problem("inputs.dtype", "the model takes tokens: give int64")
        elif inputs.data:
            tokens = np.frombuffer(inputs.data, np.int64)
            if tokens.min() < 0 or tokens.max() >= sequences.vocabulary:
                text = f"tokens are numbers from 0 to {sequences.vocabulary - 1} here"
                yield Problem("inputs.data", text)

    def _check_size(self, x: torch.Tensor) -> None:
        with torch.inference_mode():
            answer = self._saved.predictor(x[:1])
        values = answer.numel()
        most = MAX_TENSOR_BYTES // (values * answer.element_size())
        if len(x) > most:
            text = f"the model gives {values:,} values for each input; give at most {most:,} inputs at a time"
            raise InvalidSpecError([Problem("inputs.shape", text)])


def _prediction(name: str, saved: SavedModel, said: Predicted) -> Prediction:
    arrays = {key: _array(value) for key, value in vars(said).items() if value is not None}
    return Prediction(
        training_job=name,
        task=saved.dataset.task,
        class_names=saved.dataset.class_names,
        **arrays,
    )


def _tensor(array: Array) -> torch.Tensor:
    values = np.frombuffer(array.data, _DTYPES[array.dtype]).reshape(array.shape)
    return torch.from_numpy(values.copy())  # torch warns of memory that may not be written


def _array(values: torch.Tensor) -> Array:
    data = values.contiguous().numpy().tobytes()
    tokens = values.dtype == torch.int64
    return Array(shape=tuple(values.shape), dtype="int64" if tokens else "float32", data=data)
