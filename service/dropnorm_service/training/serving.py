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
from dropnorm_service.training.prediction import (
    Predicted,
    drops,
    mixes_inputs,
    predict,
    predict_by_samples,
)
from dropnorm_service.training.saved import SavedModel, load_saved

_DTYPES = {"float32": np.float32, "uint8": np.uint8, "int64": np.int64}
_MAX_INPUTS = 100_000


class TooManyInputs(InvalidSpecError):
    """What the model says of so many inputs does not fit into an answer.

    Args:
        values: that the model gives for each input.
        limit: inputs at a time at most; 0: a single one's are too many.
    """

    def __init__(self, values: int, limit: int) -> None:
        advice = (
            f"give at most {limit:,} inputs at a time"
            if limit
            else "more than an answer takes; export the model, and run it where you are"
        )
        text = f"the model gives {values:,} values for each input; {advice}"
        super().__init__([Problem("inputs.shape", text)])
        self.limit = limit


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
            TooManyInputs: the outputs for so many do not fit into an answer.
        """
        saved, model = self._saved, self._saved.predictor
        if problems := tuple(self._problems(inputs, sampling)):
            raise InvalidSpecError(problems)
        x = _tensor(inputs)
        if saved.dataset.sequences is None and x.dtype == torch.int64:
            x = x.float()  # numbers are taken as whoever asks has them
        try:
            self._check_size(x)
            said = self._said(x, sampling)
        except ValueError as error:
            if isinstance(error, InvalidSpecError) or not mixes_inputs(model):
                raise
            text = (
                "the model normalises each batch by itself, which a batch of one input does not allow; "
                "give another number of inputs"
            )
            raise InvalidSpecError([Problem("inputs.shape", text)]) from error
        if (wrong := _first_not_finite(said.outputs)) is not None:
            text = (
                f"input {wrong} is beyond what the model can compute with: its outputs are not finite; "
                "give values in the unit that it was trained on"
            )
            raise InvalidSpecError([Problem("inputs.data", text)])
        return _prediction(name, saved, said)

    def _said(self, x: torch.Tensor, sampling: DropoutSampling | None) -> Predicted:
        model, size = self._saved.predictor, self._batch_size
        classes = self._saved.dataset.task == "classification"
        if sampling is None:
            return predict(model, x, classes=classes, batch_size=size)
        return predict_by_samples(
            model,
            x,
            classes=classes,
            batch_size=size,
            samples=sampling.samples,
            seed=sampling.seed,
            offset=sampling.offset,
        )

    def _problems(self, inputs: Array, sampling: DropoutSampling | None) -> Iterator[Problem]:
        saved, shape = self._saved, self._saved.input_shape
        if inputs.shape[1:] != shape or not inputs.shape:
            wanted = ", ".join(map(str, ("inputs", *shape)))
            text = f"the model takes [{wanted}] and was given {list(inputs.shape)}"
            yield Problem("inputs.shape", text)
        elif not 0 < len(inputs) <= _MAX_INPUTS:
            text = f"give 1 to {_MAX_INPUTS:,} inputs at a time, not {len(inputs)}"
            yield Problem("inputs.shape", text)
        yield from self._wrong_values(inputs)
        if sampling is not None and saved.dataset.task == "sequence_to_sequence":
            text = "the answers are tokens, which have no mean; leave sampling out"
            yield Problem("sampling", text)
        elif sampling is not None and not drops(saved.predictor):
            text = (
                "this model drops nothing, so that all passes would be the same; leave sampling out"
            )
            yield Problem("sampling", text)

    def _wrong_values(self, inputs: Array) -> Iterator[Problem]:
        sequences = self._saved.dataset.sequences
        if sequences is None:
            wrong = _first_not_finite(_tensor(inputs)) if inputs.shape and inputs.data else None
            if wrong is not None:
                text = f"input {wrong} has NaN or an infinite value; give finite numbers"
                yield Problem("inputs.data", text)
        elif inputs.dtype != "int64":
            yield Problem("inputs.dtype", "the model takes tokens: give int64")
        elif inputs.data:
            tokens = np.frombuffer(inputs.data, np.int64)
            if tokens.min() < 0 or tokens.max() >= sequences.vocabulary:
                text = f"tokens are numbers from 0 to {sequences.vocabulary - 1} here"
                yield Problem("inputs.data", text)

    def _check_size(self, x: torch.Tensor) -> None:
        with torch.inference_mode():
            answer = self._saved.predictor(
                x[:2]
            )  # a batch norm without statistics takes no single one
        values = answer[0].numel()
        most = MAX_TENSOR_BYTES // (values * answer.element_size())
        if len(x) > most:
            raise TooManyInputs(values, most)


def _first_not_finite(values: torch.Tensor) -> int | None:
    """The first of some inputs, or of what is said of them, with a value that is NaN or infinite."""
    finite = values.isfinite()
    if finite.all():
        return None
    return int(finite.view(len(values), -1).all(dim=1).logical_not().nonzero()[0])


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
