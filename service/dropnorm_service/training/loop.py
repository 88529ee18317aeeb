"""The training loop: from a spec and its data on the device to a model and its evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from dropnorm.results import (
    AutoOutcome,
    EpochCompleted,
    EpochMetrics,
    LayerReport,
    Phase,
)
from dropnorm.spec import TrainingSpec
from dropnorm_service.training.augmentation import augmentation_of
from dropnorm_service.training.auto import automatic, settled, tune
from dropnorm_service.training.batching import Batching, epoch_order
from dropnorm_service.training.checkpoint import Checkpoints
from dropnorm_service.training.data import SplitData
from dropnorm_service.training.design import Design
from dropnorm_service.training.device import wait_for
from dropnorm_service.training.epochwise import Epochwise
from dropnorm_service.training.errors import Diverged, TimeLimit
from dropnorm_service.training.evaluation import report_step
from dropnorm_service.training.judging import FitResult, Judge
from dropnorm_service.training.objectives import objective_of
from dropnorm_service.training.reporting import (
    EventSink,
    Interrupted,
    Order,
    Orders,
    ProgressReport,
    Resumed,
    heeding,
    ignore,
    uncounted,
)
from dropnorm_service.training.resumption import Resumption
from dropnorm_service.training.schedules import learning_rates
from dropnorm_service.training.selection import merit
from dropnorm_service.training.state import fresh_state
from dropnorm_service.training.step import Stepper
from dropnorm_service.training.stopwatch import Stopwatch
from dropnorm_service.training.timetable import Timetable


class Training:
    """One attempt at a training.

    Args:
        spec: what to train.
        data: its data.
        paper: its network.
        batch_size: the one that was found for it; None: the spec says it.
        on_event: as in `fit`, like the rest.
        orders: see there.
        checkpoint: see there.
        time_limit: see there.
        on_resumed: see there.
        on_uncounted_step: see there.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        data: SplitData,
        paper: Design,
        batch_size: int | None,
        on_event: EventSink,
        orders: Orders,
        checkpoint: Checkpoints | None = None,
        time_limit: float | None = None,
        on_resumed: Callable[[Resumed], object] = ignore,
        on_uncounted_step: Callable[[], None] = uncounted,
    ) -> None:
        self._data, self._paper = data, paper
        self._on_uncounted_step = on_uncounted_step
        self._on_event, self._orders = on_event, orders
        self._settle(spec, AutoOutcome(batch_size=batch_size))
        self._report = ProgressReport(
            on_event, epochs=spec.optimization.epochs, steps=self._timetable.steps
        )
        self._report.enter("building", epoch=0, step=0)
        self._objective = objective_of(spec, data)
        heed = heeding(orders, time.perf_counter() - data.seconds, time_limit)
        self.state = fresh_state(spec, data, paper, heed)
        self._trained = Epochwise(self.state.model, paper, spec)
        self._resumption = (
            None if checkpoint is None else Resumption(checkpoint, spec, data, on_event)
        )
        if self._resumption is not None:
            self._resumption.resume(self.state)
        if self.state.steps_done:
            on_resumed(Resumed(tuple(self.state.history), self.state.steps_done))
        self._time_limit = math.inf if time_limit is None else time_limit
        self._deadline = time.perf_counter() + self._time_limit - self.state.watch.seconds
        if self.state.auto is None and automatic(spec.optimization):
            self._enter("tuning")
            self.state.auto = tune(
                self._spec,
                data,
                paper,
                self.state,
                self._objective,
                batch_size=batch_size,
                on_event=on_event,
                between_steps=self._between_uncounted_steps,
            )
        self._settle(spec, self.state.auto)
        self._report.steps = self._timetable.steps  # the checkpoint may know another batch size
        self._judge = Judge(
            self._spec,
            data,
            paper,
            self.state,
            self._objective,
            self._timetable,
            self._between_steps,
            self._between_uncounted_steps,
        )
        augment = augmentation_of(self._spec, data)
        self._step = Stepper(self.state, self._objective, self._spec, augment)

    def _settle(self, spec: TrainingSpec, outcome: AutoOutcome | None) -> None:
        """From here on automatic values are what they came to."""
        self._spec = settled(spec, outcome)
        self._timetable = Timetable.of(self._spec.optimization, len(self._data.train))

    def run(self) -> FitResult:
        """Train, choose, and look at the test split."""
        heard: set[Order] = set()
        try:
            result = self._run()
        finally:
            if self._resumption is not None:
                self._resumption.finish(lambda: heard.add(self._orders()))
        if Order.CANCEL in heard:  # whoever pauses it now finds it done
            raise Interrupted(Order.CANCEL)
        return result

    def _run(self) -> FitResult:
        spec, state = self._spec, self.state
        self._between_steps()
        while state.epoch <= spec.optimization.epochs and not state.selection.exhausted(spec):
            self._train_epoch()
            self._finish_epoch()
        self._enter("testing")
        return self._judge.conclude()

    def uncompile(self) -> None:
        """Run the network module by module from now on, so that hooks are heard."""
        self._step.uncompile()

    def _train_epoch(self) -> None:
        """The steps of the current epoch that are not done yet."""
        spec, state, train = self._spec, self.state, self._data.train
        self._enter("training")
        self._trained.train(state.epoch)
        state.expect(self._batching(state.epoch).steps_per_epoch)
        order = epoch_order(len(train), spec.seed, state.epoch).to(self._data.device)
        batches = order.split(self._batching(state.epoch).batch_size)
        # Beside a small network's step Python itself takes time, so what can be done before the loop is.
        rates = self._learning_rates()
        x, y, losses, step = train.x, train.y, state.losses, self._step
        state.epoch_watch.start()
        for index in range(state.step, len(losses)):
            batch = batches[index]
            losses[index] = step(x.index_select(0, batch), y.index_select(0, batch), rates[index])
            state.step = index + 1
            if not self._report.stepped:
                wait_for(self._data.device)
                self._report.first_step(epoch=len(state.history), step=state.steps_done)
            self._between_steps()
        wait_for(self._data.device)
        state.epoch_watch.stop()
        self._require_finite_losses()

    def _finish_epoch(self) -> None:
        """Measure the current epoch, take note of it, and go to the next."""
        spec, state = self._spec, self.state
        self._enter("validating")
        watch = Stopwatch()
        watch.start()
        layers = self._report_layers()
        self._judge.bring_to_end_of(state.epoch)
        # Everything that the host wants to know of an epoch crosses over at once.
        mean_loss, *values = torch.cat([self._mean_loss(), *self._judge.scores()]).tolist()
        metrics = self._epoch_metrics(mean_loss, values, layers, watch.stop())
        if state.selection.offer(spec, metrics, state.watch.seconds):
            state.keep_weights()
        state.history.append(metrics)
        self._on_event(EpochCompleted(metrics=metrics))
        if not math.isfinite(metrics.validation_loss):
            raise Diverged(
                step=metrics.step, metric="validation_loss", value=metrics.validation_loss
            )
        state.plateau.offer(spec.optimization.schedule, merit(spec, metrics))
        state.end_epoch()

    def _report_layers(self) -> tuple[LayerReport, ...]:
        """What goes on in the layers of the network in training, if the current epoch is to tell."""
        spec, epoch = self._spec, self.state.epoch
        every = spec.evaluation.layer_report_epochs
        if every is None or epoch % every:
            return ()
        self._trained.train(epoch)
        batching, train = self._batching(epoch), self._data.train
        return report_step(self.state, self._objective, spec, train, batching)

    def _epoch_metrics(
        self,
        mean_loss: float,
        values: list[float],
        layers: tuple[LayerReport, ...],
        evaluation_seconds: float,
    ) -> EpochMetrics:
        """An epoch's entry; `values` are the scores of train, if it was measured, and validation."""
        state = self.state
        seconds = state.epoch_watch.seconds
        return EpochMetrics(
            epoch=state.epoch,
            step=state.steps_done,
            train_loss=mean_loss,
            dropout_rates=self._judge.dropout_rates(state.epoch),
            learning_rate=self._learning_rates()[-1],
            batch_size=self._batching(state.epoch).batch_size,
            seconds=seconds,
            evaluation_seconds=evaluation_seconds,
            samples_per_second=self._batching(state.epoch).samples_per_epoch / seconds,
            layers=layers,
            **dict(zip(self._judge.score_names, values, strict=True)),
        )

    def _batching(self, epoch: int) -> Batching:
        return self._timetable.batching(epoch)

    def _learning_rates(self) -> list[float]:
        """The rate of each step of the current epoch."""
        state = self.state
        return learning_rates(
            self._spec.optimization, self._timetable, state.epoch, factor=state.plateau.factor
        )

    def _mean_loss(self) -> Tensor:
        """Mean over the samples of the current epoch as trained: float64 `[1]`, on the device."""
        losses, batching = self.state.losses.double(), self._batching(self.state.epoch)
        total = losses.sum() * batching.batch_size
        surplus = losses[-1:] * (batching.batch_size - batching.last_batch_size)
        return (total - surplus) / batching.samples_per_epoch

    def _require_finite_losses(self) -> None:
        """Waits for the device, so it is asked per epoch and report and never per step.

        Raises:
            Diverged: a loss of the current epoch is not finite; the first such step is named.
        """
        state = self.state
        losses = state.losses[: state.step]
        wrong = losses.isfinite().logical_not().nonzero()
        if len(wrong):
            index = int(wrong[0])
            step = state.steps_before + index + 1
            raise Diverged(step=step, metric="train_loss", value=losses[index].item())

    def _between_steps(self) -> None:
        """Hear orders, and do what is due: a report, a checkpoint."""
        order = self._orders()
        if order is not Order.GO_ON:
            self._obey({order})
        now = time.perf_counter()
        if self._report.due(now):
            self._require_finite_losses()
            self._report.tell(epoch=len(self.state.history), step=self.state.steps_done)
        if now >= self._deadline:
            self._stop(set())
            raise TimeLimit(self._time_limit, step=self.state.steps_done)
        if self._resumption is not None:
            heard: set[Order] = set()
            if self._resumption.due(now):
                self._require_finite_losses()  # nobody could go on from it
            self._resumption.attend(self.state, now, lambda: heard.add(self._orders()))
            self._obey(heard)

    def _between_uncounted_steps(self) -> None:
        """The same between steps that the training does not count: while automatic values are found, and of a network
        that it is measured by."""
        self._on_uncounted_step()
        self._between_steps()

    def _obey(self, heard: set[Order]) -> None:
        """Write a checkpoint if that is ordered, beside the training if it goes on.

        Raises:
            Interrupted: it does not.
        """
        if Order.CHECKPOINT in heard and self._resumption is not None:
            self._resumption.hurry()
        if heard & {Order.PAUSE, Order.CANCEL}:
            self._stop(heard)

    def _stop(self, heard: set[Order]) -> None:
        """Write the last checkpoint.

        Raises:
            Interrupted: to pause or to cancel was heard, before or meanwhile; who hears both cancels.
        """
        self._require_finite_losses()
        if self._resumption is not None:
            self._resumption.write(self.state, lambda: heard.add(self._orders()))
        for order in (Order.CANCEL, Order.PAUSE):
            if order in heard:
                raise Interrupted(order)

    def _enter(self, phase: Phase) -> None:
        self._report.enter(phase, epoch=len(self.state.history), step=self.state.steps_done)
