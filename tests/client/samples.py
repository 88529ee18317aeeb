"""Results as a service would send them, small enough to read in a test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dropnorm.results import (
    Calibration,
    ClassMetrics,
    DatasetSummary,
    EpochCompleted,
    EpochMetrics,
    Evaluated,
    Evaluation,
    JobError,
    LayerReport,
    Lint,
    MCDropout,
    MemoryEstimate,
    Metrics,
    Payload,
    Plan,
    PlannedBatches,
    PlannedLayer,
    Progress,
    Progressed,
    Robustness,
    Slot,
    State,
    StateChanged,
    TemperatureScaling,
    Tracked,
    TrainingCost,
    TrainingJob,
    VarianceShift,
    Worker,
)
from dropnorm.results.diagnostics import Corruption
from dropnorm.spec import MLP, Data, Optimization, TrainingSpec

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

SPEC = TrainingSpec(
    architecture=MLP(hidden=(8,)), data=Data(dataset="digits"), optimization=Optimization(epochs=3)
)


def job(id: str = "first", **changes: object) -> TrainingJob:
    """A job that was queued, with one event in its journal."""
    new = TrainingJob(
        name=f"trainingJobs/{id}",
        display_name=id,
        experiment="default",
        spec=SPEC,
        spec_digest=SPEC.digest(),
        state=State.QUEUED,
        create_time=START,
        update_time=START,
    )
    return new.model_copy(update=changes)


def epoch(number: int, *, validation_loss: float = 0.5) -> EpochMetrics:
    return EpochMetrics(
        epoch=number,
        step=10 * number,
        train_loss=0.4,
        train_eval_loss=1 / number,
        train_eval_accuracy=1 - 0.1 / number,
        validation_loss=validation_loss,
        validation_accuracy=0.9 - 0.1 / number,
        learning_rate=1e-3,
        batch_size=128,
        seconds=0.1,
        evaluation_seconds=0.01,
        samples_per_second=12_345.0,
    )


DATASET = DatasetSummary(
    name="digits",
    task="classification",
    digest="ab" * 32,
    input_shape=(64,),
    outputs=2,
    class_names=("zero", "one"),
    train_samples=1221,
    validation_samples=216,
    test_samples=360,
)


def metrics(accuracy: float) -> Metrics:
    return Metrics(
        samples=10,
        loss=0.25,
        nll=0.25,
        accuracy=accuracy,
        brier=0.1,
        ece=0.05,
        macro_f1=accuracy,
        classes=(
            ClassMetrics(name="zero", precision=1, recall=1, f1=1, support=5, predicted=(5, 0)),
            ClassMetrics(name="one", precision=1, recall=1, f1=1, support=5, predicted=(0, 5)),
        ),
    )


def evaluation(*, epochs: int = 3, test_accuracy: float = 0.9) -> Evaluation:
    return Evaluation(
        task="classification",
        dataset=DATASET,
        history=tuple(epoch(number + 1) for number in range(epochs)),
        best_epoch=epochs,
        stopped_early=False,
        train=metrics(1.0),
        validation=metrics(0.95),
        test=metrics(test_accuracy),
        generalization_gap=1.0 - test_accuracy,
        cost=TrainingCost(
            parameters=12_345,
            forward_flops=24_690,
            seconds=0.61,
            training_seconds=0.3,
            seconds_to_best=0.43,
            samples_per_second=61_000,
            peak_memory_bytes=210 * 2**20,
            device="a processor",
            threads=2,
        ),
    )


def regression() -> Evaluation:
    """An evaluation without any metric of classification."""
    split = Metrics(samples=10, loss=0.5, mse=2900.0, mae=43.0, r2=0.45)
    whole = evaluation()
    return whole.model_copy(
        update={
            "task": "regression",
            "train": split,
            "validation": split,
            "test": split,
            "history": tuple(
                each.model_copy(update={"train_eval_accuracy": None, "validation_accuracy": None})
                for each in whole.history
            ),
        }
    )


CORRUPTED: list[tuple[Corruption, int]] = [
    ("none", 0),
    *(("shift", 1), ("shift", 2)),
    *(("contrast", 1), ("contrast", 2)),
]


def shifted(layer: str, ratio: float, **rates: tuple[float, ...]) -> VarianceShift:
    return VarianceShift(
        layer=layer,
        train_variance=2.0,
        eval_variance=2.0 * ratio,
        running_variance=2.1,
        ratio=ratio,
        dropout_ratio=ratio,
        **rates,
    )


def measured() -> Evaluation:
    """An evaluation with all that can be asked for."""
    sure, unsure = (
        Calibration(nll=0.6, brier=0.3, ece=0.2),
        Calibration(nll=0.5, brier=0.2, ece=0.1),
    )
    whole = evaluation()
    layers = (
        LayerReport(layer="hidden.0.linear", mean=0.1, variance=1.0, gradient_norm=0.5),
        LayerReport(layer="hidden.0.activation", mean=0.4, variance=0.6, dead_share=0.25),
        LayerReport(layer="output.linear", mean=0.0, variance=2.0, gradient_norm=2.0),
    )
    reported = tuple(each.model_copy(update={"layers": layers}) for each in whole.history[1:])
    return whole.model_copy(
        update={
            "history": (whole.history[0], *reported),
            "mc_dropout": MCDropout(
                passes=30,
                accuracy=0.91,
                nll=0.4,
                brier=0.15,
                ece=0.03,
                predictive_entropy=0.7,
                mutual_information=0.2,
            ),
            "temperature_scaling": TemperatureScaling(
                temperature=1.5,
                validation_before=sure,
                validation_after=unsure,
                test_before=sure,
                test_after=unsure,
            ),
            "variance_shift": (
                shifted("input.norm", 1.0),
                shifted("hidden.0.norm", 0.5, direct_rates=(0.5,)),
                shifted("hidden.1.norm", 0.9, upstream_rates=(0.5,)),
            ),
            "robustness": tuple(
                Robustness(
                    corruption=corruption,
                    strength=strength,
                    loss=0.1 + strength,
                    accuracy=0.9 - strength / 10,
                    adapted_loss=0.1 + strength / 2,
                    adapted_accuracy=0.9 - strength / 20,
                )
                for corruption, strength in CORRUPTED
            ),
        }
    )


FAILURE = JobError(code=3, reason="DIVERGED", message="the loss became NaN in epoch 2")


def story(ending: State = State.SUCCEEDED) -> list[Payload]:
    """What happens to a job after it was queued, up to its end: three epochs where it ends well."""
    progress = Progress(phase="training", epoch=0, epochs=3, step=1, steps=30)
    happened: list[Payload] = [StateChanged(state=State.RUNNING), Progressed(progress=progress)]
    happened += [Tracked(mlflow_experiment_id="7", mlflow_run_id="f00d")]
    happened += [EpochCompleted(metrics=epoch(number)) for number in (1, 2)]
    if ending is State.SUCCEEDED:
        happened += [EpochCompleted(metrics=epoch(3)), Evaluated(evaluation=evaluation())]
    error = FAILURE if ending is State.FAILED else None
    return [*happened, StateChanged(state=ending, error=error)]


def moment(sequence: int) -> datetime:
    """When the event of that number happened."""
    return START + timedelta(seconds=sequence)


def plan() -> Plan:
    return Plan(
        spec=SPEC,
        spec_digest=SPEC.digest(),
        dataset=DATASET,
        layers=(
            PlannedLayer(
                name="hidden.0.linear",
                type="Linear(64 -> 8)",
                field="architecture.mlp.hidden[0]",
                output_shape=(8,),
                parameters=520,
                flops=1024,
            ),
        ),
        parameters=520,
        forward_flops=1024,
        steps_per_epoch=10,
        total_steps=30,
        last_batch_size=69,
        batches=(
            PlannedBatches(first_epoch=1, batch_size=128, steps_per_epoch=10, last_batch_size=69),
        ),
        memory=MemoryEstimate(
            parameters=2080,
            gradients=2080,
            optimizer=4160,
            activations=8192,
            data=312_576,
            total=329_088,
        ),
        lints=(
            Lint(
                code="DROPOUT_ON_LOGITS",
                field="regularization.dropout.output_rate",
                message="dropping logits hides classes from the loss; leave it at 0",
            ),
        ),
    )


WORKER = Worker(
    name="workers/here",
    host="here",
    slots=(
        Slot(
            id="cpu-0", device="cpu", device_name="a processor", threads=2, memory_bytes=8 * 2**30
        ),
        Slot(
            id="cpu-1",
            device="cpu",
            device_name="a processor",
            threads=2,
            memory_bytes=8 * 2**30,
            training_job="trainingJobs/first",
            attempt=1,
        ),
    ),
)
