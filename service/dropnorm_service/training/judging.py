"""The network that is judged: brought to each epoch's end, measured there, and in the end before all the world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dropnorm.results import Evaluation, Recalibration
from dropnorm.spec import TrainingSpec
from dropnorm_service.training.cost import training_cost
from dropnorm_service.training.data import SplitData
from dropnorm_service.training.design import Design
from dropnorm_service.training.epochwise import Epochwise
from dropnorm_service.training.evaluation import Trained, measure
from dropnorm_service.training.inference import Inference, inference_batch_size
from dropnorm_service.training.objectives import Objective
from dropnorm_service.training.pictures import Pictures
from dropnorm_service.training.recalibration import recalibrate, shifts, statistics_of
from dropnorm_service.training.state import TrainingState
from dropnorm_service.training.step import autocast
from dropnorm_service.training.timetable import Timetable


@dataclass(frozen=True)
class FitResult:
    """What a training comes to.

    Attributes:
        model: the network with the best epoch's weights, in eval mode, on the data's device. It takes
            standardised inputs; `save_model` puts the standardisation in front of it.
        evaluation: its history and metrics.
        pictures: what there is to see, `save_pictures` writes it beside the model; most have nothing.
    """

    model: nn.Module
    evaluation: Evaluation
    pictures: Pictures


class Judge:
    """Measures the network that is judged: that in training, or the average of its weights.

    Args:
        spec: with automatic values settled.
        data: its data.
        paper: the network's layers.
        state: holds the network.
        objective: judges what it says.
        timetable: how epochs are cut.
        between_batches: called after each batch; what it raises ends the measurement.
        between_uncounted_steps: the same for each step of another network that is trained to measure by.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        data: SplitData,
        paper: Design,
        state: TrainingState,
        objective: Objective,
        timetable: Timetable,
        between_batches: Callable[[], None],
        between_uncounted_steps: Callable[[], None],
    ) -> None:
        self._spec, self._data, self._paper = spec, data, paper
        self._state, self._objective = state, objective
        self._timetable = timetable
        self._between_batches = between_batches
        self._network = Epochwise(state.judged, paper, spec)
        self._inference = Inference(
            state.judged,
            batch_size=inference_batch_size(paper),
            autocast=autocast(spec.compute, data.device),
            between_batches=between_batches,
            between_steps=between_uncounted_steps,
        )
        splits = ["train_eval"] * spec.evaluation.train_metrics + ["validation"]
        self.score_names = [f"{split}_{name}" for split in splits for name in objective.score_names]
        """What `scores` measures, by the names of `EpochMetrics`."""

    def scores(self) -> list[Tensor]:
        """What each epoch measures of the network as it is, a vector per split, on the device."""
        data = self._data
        parts = [data.train] * self._spec.evaluation.train_metrics + [data.validation]
        return [self._objective.scores(self._inference, part) for part in parts]

    def bring_to_end_of(self, epoch: int) -> None:
        """Bring the average of the weights, if there is one, to the end of an epoch; asked again it is the same."""
        average = self._state.average
        self._network.rates.enter(epoch)
        if average is not None and average.after_epoch(epoch) and statistics_of(average.network):
            self._compute_statistics(epoch)

    def dropout_rates(self, epoch: int) -> dict[str, float]:
        """The rates in force at the end of an epoch."""
        return self._network.rates.of(epoch)

    def conclude(self) -> FitResult:
        """Bring the network to the best epoch, and look at the test split.

        Stopped anywhere and asked again, it comes to the same: it begins with the best weights, which it leaves alone.
        """
        spec, data, state = self._spec, self._data, self._state
        state.judged.load_state_dict(state.best)
        self._network.rates.enter(state.selection.epoch)
        recalibration = self._recalibrate()
        parts = (data.train, data.validation, data.test)
        train, validation, test = (self._objective.metrics(self._inference, part) for part in parts)
        measured = measure(self._trained())
        evaluation = Evaluation(
            task=data.summary.task,
            dataset=data.summary,
            history=tuple(state.history),
            best_epoch=state.selection.epoch,
            stopped_early=len(state.history) < spec.optimization.epochs,
            train=train,
            validation=validation,
            test=test,
            generalization_gap=self._objective.gap(train, test),
            cost=training_cost(state, self._paper, self._samples_seen()),
            recalibration=recalibration,
            auto=state.auto,
            mc_dropout=measured.mc_dropout,
            temperature_scaling=measured.temperature_scaling,
            variance_shift=measured.variance_shift,
            robustness=measured.robustness,
            beam_search=measured.beam_search,
        )
        return FitResult(state.judged, evaluation, self._objective.pictures(self._inference))

    def _recalibrate(self) -> Recalibration | None:
        """Compute the running statistics of the chosen epoch anew, if that is asked for."""
        state = self._state
        if self._spec.evaluation.recalibrate_batch_norm is None:
            return None
        before = self._objective.metrics(self._inference, self._data.validation)
        statistics = statistics_of(state.judged)
        self._compute_statistics(state.selection.epoch)
        return Recalibration(layers=shifts(state.judged, statistics), validation_before=before)

    def _compute_statistics(self, epoch: int) -> None:
        """Compute the running statistics of the weights that are judged anew."""
        self._network.train(epoch)
        batching = self._timetable.batching(epoch)
        with self._state.other_random_numbers():
            recalibrate(self._network.network, self._spec, self._data.train, batching, self._look)

    def _look(self, x: Tensor, y: Tensor) -> None:
        """A forward pass as in training, for what it leaves in the network."""
        with torch.no_grad(), autocast(self._spec.compute, self._data.device):
            self._objective.training_loss(self._network.network, x, y)
        self._between_batches()

    def _trained(self) -> Trained:
        """What further measurements work on."""
        epoch = self._state.selection.epoch
        return Trained(
            inference=self._inference,
            spec=self._spec,
            data=self._data,
            paper=self._paper,
            objective=self._objective,
            batching=self._timetable.batching(epoch),
            train_mode=lambda: self._network.train(epoch),
        )

    def _samples_seen(self) -> int:
        epochs = range(1, len(self._state.history) + 1)
        return sum(self._timetable.batching(epoch).samples_per_epoch for epoch in epochs)
