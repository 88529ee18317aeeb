"""Results in words: numbers as people read them, and the tables that terminals and notebooks share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropnorm.results.evaluation import DatasetSummary, Evaluation, Metrics, NormShift
    from dropnorm.results.plan import Plan, PlannedBatches, PlannedLayer
    from dropnorm.results.uncertainty import Calibration, MCDropout
    from dropnorm.spec import Optimization

Row = tuple[str, ...]

_METRICS = (
    ("accuracy", "accuracy"),
    ("sequence accuracy", "sequence_accuracy"),
    ("loss", "loss"),
    ("NLL (nats)", "nll"),
    ("macro F1", "macro_f1"),
    ("calibration error", "ece"),
    ("Brier score", "brier"),
    ("MSE", "mse"),
    ("MAE", "mae"),
    ("R²", "r2"),
    ("evidence lower bound", "elbo"),
    ("reconstruction (nats)", "reconstruction"),
    ("KL of codes (nats)", "kl"),
    ("Fréchet distance", "frechet_distance"),
    ("generator loss", "generator_loss"),
    ("discriminator loss", "discriminator_loss"),
    ("perplexity", "perplexity"),
    ("accuracy of the commonest", "baseline_accuracy"),
    ("perplexity of frequencies", "baseline_perplexity"),
)

_GAPS = {
    "classification": "accuracy, train minus test",
    "regression": "MSE, test minus train",
    "sequence_to_sequence": "accuracy, train minus test",
    "masked_language_modelling": "accuracy, train minus test",
    "generation": "Fréchet distance, test minus train",
}

_TABLE_STYLE = "font-variant-numeric: tabular-nums; border-collapse: collapse;"


def count(number: float) -> str:
    """`12345678` -> `12.3 M`; whole below 10,000."""
    if number < 10_000:
        return f"{number:,.0f}"
    return _scaled(number, 1000, ("", " k", " M", " G", " T"))


def size(number_of_bytes: float) -> str:
    """`12345678` -> `11.8 MiB`."""
    return _scaled(number_of_bytes, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def seconds(duration: float) -> str:
    """`0.0123` -> `12 ms`, `83` -> `1 min 23 s`."""
    if duration < 0.1:
        return f"{duration * 1000:.0f} ms"
    if duration < 60:
        return f"{duration:.2f} s" if duration < 10 else f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def shape(sizes: Sequence[int]) -> str:
    """`(1, 28, 28)` -> `1 x 28 x 28`."""
    return " × ".join(str(part) for part in sizes) or "scalar"


def number(value: float | None) -> str:
    """Four digits that matter; a dash for what is not defined."""
    if value is None:
        return "-"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.4g}"


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 of a single value); NaN where a value is NaN or infinite."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, 0.0
    squares = sum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (len(values) - 1))


def metric_table(evaluation: Evaluation) -> tuple[Row, list[Row]]:
    """Header, and a row per metric that the task defines: of each split, and of test predicted in other ways."""
    splits: dict[str, Metrics | MCDropout | Calibration] = {
        "train": evaluation.train,
        "validation": evaluation.validation,
        "test": evaluation.test,
    }
    # Where the loss is another metric by name, one row is enough.
    named = evaluation.test.nll is not None and evaluation.test.nll == evaluation.test.loss
    if evaluation.mc_dropout is not None:
        splits["test, MC dropout"] = evaluation.mc_dropout
    if evaluation.temperature_scaling is not None:
        splits["test, temperature"] = evaluation.temperature_scaling.test_after
    same = {"loss" if len(splits) > 3 else "nll"} if named else set()
    if evaluation.task == "generation":
        same = {"loss"}
    rows = []
    for label, attribute in _METRICS:
        values = [getattr(split, attribute, None) for split in splits.values()]
        if any(value is not None for value in values) and attribute not in same:
            rows.append((label, *map(number, values)))
    counts = (getattr(split, "samples", evaluation.test.samples) for split in splits.values())
    rows.append(("samples", *(f"{samples:,}" for samples in counts)))
    return ("", *splits), rows


def evaluation_title(evaluation: Evaluation) -> str:
    """What was trained on, and which epoch won."""
    ending = ", stopped early" if evaluation.stopped_early else ""
    return (
        f"{evaluation.task} of {evaluation.dataset.name}: best epoch {evaluation.best_epoch} of "
        f"{len(evaluation.history)}{ending}"
    )


def evaluation_notes(evaluation: Evaluation) -> list[str]:
    """The gap, the cost and a recalibration, a line each."""
    cost = evaluation.cost
    gap = _GAPS.get(evaluation.task, "loss, test minus train")
    return [
        f"generalization gap {number(evaluation.generalization_gap)} ({gap})",
        f"{cost.parameters:,} parameters, {count(cost.forward_flops)} FLOPs per forward pass",
        f"{seconds(cost.seconds)} in all, {seconds(cost.seconds_to_best)} to the best epoch, "
        f"{count(cost.samples_per_second)} samples/s, peak memory {size(cost.peak_memory_bytes)}, "
        f"on {cost.device}",
        *_recalibration_notes(evaluation),
        *_chosen(evaluation),
    ]


def _recalibration_notes(evaluation: Evaluation) -> Iterator[str]:
    found = evaluation.recalibration
    if found is None or not found.layers:
        return
    mean = max(found.layers, key=lambda layer: layer.largest_mean_shift)
    variance = max(found.layers, key=lambda layer: layer.largest_variance_shift)
    yield (
        f"batch norm recalibrated: validation loss {number(found.validation_before.loss)} before, "
        f"{number(evaluation.validation.loss)} after; largest shift of a running mean "
        f"{number(mean.largest_mean_shift)} deviations ({mean.layer}), of a variance "
        f"{variance.largest_variance_shift:.1%} ({variance.layer})"
    )


def _chosen(evaluation: Evaluation) -> list[str]:
    """What automatic values came to, on one line."""
    auto = evaluation.auto
    if auto is None:
        return []
    rate = f"learning rate {auto.learning_rate:.4g}" if auto.learning_rate is not None else ""
    size = f"batch size {auto.batch_size:,}" if auto.batch_size is not None else ""
    return [f"chosen: {', '.join(filter(None, (rate, size)))}"] if rate or size else []


def layer_row(layer: PlannedLayer) -> Row:
    """A layer of a plan, as a row of its table."""
    return (
        layer.name,
        layer.type,
        shape(layer.output_shape),
        f"{layer.parameters:,}",
        count(layer.flops),
    )


def plan_notes(plan: Plan) -> list[str]:
    """Steps, memory and totals of a plan, a line each."""
    data, memory = plan.dataset, plan.memory
    epochs, part = plan.spec.optimization.epochs, plan.spec.optimization.micro_batch_size
    return [
        f"{plan.parameters:,} parameters, {count(plan.forward_flops)} FLOPs per sample forward",
        f"{data.name}: {data.train_samples:,} training, {data.validation_samples:,} validation and "
        f"{data.test_samples:,} test samples of {_sample(data)}",
        f"{plan.total_steps:,} steps: {epochs:,} epochs of "
        + ", ".join(map(_batches, plan.batches))
        + (f", in parts of at most {part:,}" if part else ""),
        *_to_be_found(plan.spec.optimization),
        f"{size(memory.total)} of memory: parameters {size(memory.parameters)}, gradients "
        f"{size(memory.gradients)}, optimizer {size(memory.optimizer)}, activations "
        f"{size(memory.activations)}, data {size(memory.data)}",
    ]


def _sample(data: DatasetSummary) -> str:
    """What a sample is, and what is told of it."""
    tokens, outputs = data.sequences, f"{data.outputs} outputs"
    if tokens is None:
        return f"{shape(data.input_shape)}, {outputs}"
    text = f"{shape(data.input_shape)} tokens from {tokens.vocabulary:,}"
    if tokens.target_length:
        return f"{text}, targets of {tokens.target_length:,} from {tokens.target_vocabulary:,}"
    return f"{text}, {outputs}" if data.outputs else text


def _to_be_found(optimization: Optimization) -> list[str]:
    """The range test before training, if there is one."""
    test, lr = optimization.auto_learning_rate, optimization.optimizer.lr
    if test is None:
        return []
    return [
        f"learning rate to be found by {test.steps:,} steps from {lr * test.lowest_factor:.3g} to "
        f"{lr * test.highest_factor:.3g}"
    ]


def _batches(batches: PlannedBatches) -> str:
    """`12 steps, 128 samples each, the last batch of an epoch has 20`."""
    since = f"from epoch {batches.first_epoch:,} on " if batches.first_epoch > 1 else ""
    last = (
        f", the last batch of an epoch has {batches.last_batch_size}"
        if batches.last_batch_size != batches.batch_size
        else ""
    )
    return f"{since}{batches.steps_per_epoch:,} steps, {batches.batch_size:,} samples each{last}"


def shift_row(shift: NormShift) -> Row:
    """How far a batch norm's running statistics have moved, as a row of a table."""
    return (
        shift.layer,
        number(shift.mean_shift),
        number(shift.largest_mean_shift),
        f"{shift.variance_shift:.1%}",
        f"{shift.largest_variance_shift:.1%}",
    )


SHIFT_HEADER: Row = ("layer", "mean shift (deviations)", "largest", "variance shift", "largest")
LAYER_HEADER: Row = ("layer", "type", "output", "parameters", "FLOPs")


def text_table(header: Row, rows: Sequence[Row], *, left: int = 1) -> list[str]:
    """Aligned columns: the first `left` of them to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]


def html_table(
    title: str, header: Row, rows: Sequence[Row], notes: Iterable[str], *, left: int = 1
) -> str:
    """The same table for a notebook."""

    def line(row: Row, tag: str) -> str:
        cells = (
            f'<{tag} style="text-align: {"left" if column < left else "right"}">{escape(cell)}</{tag}>'
            for column, cell in enumerate(row)
        )
        return f"<tr>{''.join(cells)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    footer = "<br>".join(escape(note) for note in notes)
    return (
        f"<div><strong>{escape(title)}</strong>"
        f'<table style="{_TABLE_STYLE}"><thead>{line(header, "th")}</thead><tbody>{body}</tbody></table>'
        f"<small>{footer}</small></div>"
    )


def _scaled(value: float, base: int, units: Sequence[str]) -> str:
    index = 0
    while abs(value) >= base and index < len(units) - 1:
        value /= base
        index += 1
    digits = 1 if index and abs(value) < 100 else 0
    return f"{value:.{digits}f}{units[index]}"
