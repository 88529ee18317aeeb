"""What a model says of some inputs."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan
from typing import Any

from dropnorm.results._base import ResultModel
from dropnorm.results.evaluation import Task
from dropnorm.spec import Tensor


class Prediction(ResultModel):
    """What a model says of some inputs. Its tensors become numpy arrays by `numpy.asarray`."""

    training_job: str
    """Name of the training job whose model it is, `trainingJobs/{id}`."""
    task: Task
    """What the model does."""
    outputs: Tensor
    """`[inputs, ...]`: logits of classes or tokens or values in the unit of the data, float32; or the tokens of a
    sequence told, int64. With MC dropout their mean over the passes."""
    probabilities: Tensor | None = None
    """float32 `[inputs, classes]`, with MC dropout the mean over the passes; absent: the model tells no classes."""
    entropy: Tensor | None = None
    """Entropy of `probabilities` in nats, float32 `[inputs]`; absent where these are."""
    standard_deviation: Tensor | None = None
    """Standard deviation over the passes of `probabilities`, or where there are none of `outputs`; absent without MC
    dropout."""
    mutual_information: Tensor | None = None
    """How far the passes disagree, in nats, float32 `[inputs]`: `entropy` less the passes' mean entropy (Houlsby et
    al. 2011). Absent without MC dropout, and where there are no classes."""
    class_names: tuple[str, ...] = ()
    """Names of the classes in order."""

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def classes(self) -> tuple[int, ...]:
        """The likeliest class of each input, by number.

        Raises:
            ValueError: the model tells no classes, or the probabilities of an input are NaN.
        """
        if self.probabilities is None:
            raise ValueError(f"a model for {self.task.replace('_', ' ')} tells no classes")
        rows: list[list[float]] = self.probabilities.tolist()
        for index, row in enumerate(rows):
            if any(map(isnan, row)):
                raise ValueError(
                    f"no class of input {index} is the likeliest: its probabilities are NaN"
                )
        return tuple(max(range(len(row)), key=row.__getitem__) for row in rows)

    @property
    def labels(self) -> tuple[str, ...]:
        """The likeliest class of each input, by name; by number where classes have no names."""
        names = self.class_names
        return tuple(names[each] if names else str(each) for each in self.classes)

    def rows(self) -> Iterator[dict[str, Any]]:
        """What is said of each input, as plain values by name; `label` is the likeliest class."""
        said = {
            name: value.tolist() for name, value in self if isinstance(value, Tensor) and len(value)
        }
        labels = self.labels if self.probabilities is not None else None
        for index in range(len(self)):
            row = {name: values[index] for name, values in said.items()}
            yield row if labels is None else {"label": labels[index], **row}

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """`outputs` as what numpy makes an array of."""
        return self.outputs.__array_interface__
