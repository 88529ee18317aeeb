"""What a training returns: its history and its metrics, and with them the answer to "did it help?"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dropnorm.results import _findings, _format
from dropnorm.results._base import ResultModel
from dropnorm.results.auto import AutoOutcome
from dropnorm.results.decoding import BeamSearch
from dropnorm.results.diagnostics import LayerReport, Robustness, VarianceShift
from dropnorm.results.uncertainty import MCDropout, TemperatureScaling

if TYPE_CHECKING:
    import pandas

    from dropnorm.results._style import Chart

Task = Literal[
    "classification",
    "regression",
    "reconstruction",
    "generation",
    "sequence_to_sequence",
    "masked_language_modelling",
]


class SequenceSummary(ResultModel):
    """Samples that are sequences of tokens; the five special tokens count."""

    vocabulary: int
    """Tokens in the input's vocabulary."""
    target_vocabulary: int
    """Tokens in the target's vocabulary; 0: the target is no sequence."""
    target_length: int
    """Tokens of a target, with its beginning, its end and padding; 0: the target is no sequence."""


class DatasetSummary(ResultModel):
    """The data a job really used."""

    name: str
    """Name of the data set."""
    task: Task
    """Kind of learning problem."""
    digest: str | None = None
    """SHA-256 (hex) of the parsed content; absent in a plan made before the data was first read."""
    input_shape: tuple[int, ...]
    """Shape of one sample: `[features]`, `[channels, height, width]` or `[tokens]`."""
    outputs: int
    """Number of classes or regression targets; 0: the data has neither."""
    class_names: tuple[str, ...] = ()
    """Names of the classes in order; empty in regression."""
    train_samples: int
    """Samples in the training split."""
    validation_samples: int
    """Samples in the validation split."""
    test_samples: int
    """Samples in the test split."""
    sequences: SequenceSummary | None = None
    """What is known of the tokens; absent: samples are numbers."""


class EpochMetrics(ResultModel):
    """One pass over the training split and what was measured after it."""

    epoch: int
    """Number of the epoch, from 1."""
    step: int
    """Optimizer steps done since the start of the training."""
    train_loss: float
    """Mean loss over the epoch as trained: dropout on, batch norm by batch, weights moving."""
    train_eval_loss: float | None = None
    """Loss over the training split in eval mode after the epoch; absent when not asked for."""
    train_eval_accuracy: float | None = None
    """Accuracy (0 to 1) over the training split in eval mode; absent in regression or when not asked for."""
    validation_loss: float
    """Loss over the validation split in eval mode."""
    validation_accuracy: float | None = None
    """Accuracy (0 to 1) over the validation split; absent where nothing is right or wrong."""
    train_eval_reconstruction: float | None = None
    """Reconstruction's part of the loss over the training split; only in reconstruction."""
    validation_reconstruction: float | None = None
    """Reconstruction's part of the loss over the validation split; only in reconstruction."""
    train_eval_kl: float | None = None
    """The codes' part of the loss over the training split; only in reconstruction."""
    validation_kl: float | None = None
    """The codes' part of the loss over the validation split; only in reconstruction."""
    train_eval_generator_loss: float | None = None
    """Generator's loss against the training split in nats; only in generation."""
    validation_generator_loss: float | None = None
    """Generator's loss against the validation split in nats; only in generation."""
    train_eval_discriminator_loss: float | None = None
    """Discriminator's loss over the training split and as many generated samples in nats; only in generation."""
    validation_discriminator_loss: float | None = None
    """Discriminator's loss over the validation split and as many generated samples in nats; only in generation."""
    train_eval_perplexity: float | None = None
    """Perplexity of the tokens that are told, over the training split; only where there are such."""
    validation_perplexity: float | None = None
    """Perplexity of the tokens that are told, over the validation split; only where there are such."""
    train_eval_sequence_accuracy: float | None = None
    """Share of the training split's targets told without a mistake, 0 to 1; only in sequence to sequence."""
    validation_sequence_accuracy: float | None = None
    """Share of the validation split's targets told without a mistake, 0 to 1; only in sequence to sequence."""
    learning_rate: float
    """Learning rate of the epoch's last step."""
    dropout_rates: dict[str, float] = {}
    """The rates in force, by its schedule, of `regularization.dropout`: each that is above 0 there, by its name, as
    `rate` or `input_rate`."""
    batch_size: int
    """Samples in a full batch of the epoch."""
    seconds: float
    """Wall time of the training steps in seconds."""
    evaluation_seconds: float
    """Wall time of the evaluation after them in seconds."""
    samples_per_second: float
    """Training samples per second of training time."""
    layers: tuple[LayerReport, ...] = ()
    """Each layer with weights and each activation, in order; empty in epochs without a report."""


class ClassMetrics(ResultModel):
    """How one class fared."""

    name: str
    """Name of the class."""
    precision: float
    """Share of the predictions of this class that were right; 0 when it was never predicted."""
    recall: float
    """Share of this class's samples that were found; 0 when it has none."""
    f1: float
    """Harmonic mean of precision and recall."""
    support: int
    """Samples of this class."""
    predicted: tuple[int, ...] = ()
    """How this class's samples were classified: a count per class, one row of the confusion matrix; empty where there
    are more than 100 classes."""


class Metrics(ResultModel):
    """Metrics of one split in eval mode, at the best epoch's weights. Absent: not defined for the task."""

    samples: int
    """Samples measured."""
    loss: float
    """What selects: the training objective (cross-entropy in nats, mean squared error of standardised targets, negative
    evidence lower bound in nats per sample), or in generation the Fréchet distance."""
    accuracy: float | None = None
    """Share of samples classified correctly, or of tokens told correctly, 0 to 1."""
    nll: float | None = None
    """Mean negative log-likelihood of the true class in nats."""
    brier: float | None = None
    """Brier score, summed over classes, 0 to 2 (Brier 1950)."""
    ece: float | None = None
    """Expected calibration error over equal-width confidence bins, 0 to 1 (Guo et al. 2017)."""
    macro_f1: float | None = None
    """Unweighted mean of the classes' F1."""
    classes: tuple[ClassMetrics, ...] = ()
    """Each class in order; empty in regression, and where there are more than 1,000 classes."""
    mse: float | None = None
    """Mean squared error in the target's unit squared."""
    mae: float | None = None
    """Mean absolute error in the target's unit."""
    r2: float | None = None
    """Coefficient of determination, at most 1."""
    elbo: float | None = None
    """Evidence lower bound in nats per sample (Kingma & Welling 2014): `-(reconstruction + kl)`."""
    reconstruction: float | None = None
    """Mean negative log-likelihood of a sample given a draw of its code, in nats."""
    kl: float | None = None
    """Mean Kullback-Leibler divergence of a sample's code from the prior, in nats."""
    frechet_distance: float | None = None
    """Fréchet distance of as many generated samples from the split, in the features of a classifier trained on the
    training split (Heusel et al. 2017); 0 or more."""
    generator_loss: float | None = None
    """Generator's loss `-log D(G(z))` in nats."""
    discriminator_loss: float | None = None
    """Discriminator's loss `-log D(x) - log(1 - D(G(z)))` in nats; 2 log 2 where it cannot tell."""
    sequence_accuracy: float | None = None
    """Share of targets told without a mistake by greedy decoding, 0 to 1."""
    perplexity: float | None = None
    """Exponential of the mean negative log-likelihood of a token that is told, 1 or more."""
    baseline_accuracy: float | None = None
    """Accuracy, on the same tokens, of always telling the commonest of the training split; in masked language
    modelling."""
    baseline_perplexity: float | None = None
    """Perplexity, on the same tokens, of the training split's frequencies of tokens, each counted once more than it
    occurs; in masked language modelling."""

    @property
    def confusion_matrix(self) -> tuple[tuple[int, ...], ...]:
        """Counts, `[true class][predicted class]`; empty in regression, and where there are more than 100 classes."""
        return tuple(row.predicted for row in self.classes if row.predicted)


class NormShift(ResultModel):
    """How far the running statistics of one batch norm have moved, seen through its eps."""

    layer: str
    """Name of the layer in the model."""
    mean_shift: float
    """Change of the running mean in running standard deviations, the mean over its channels."""
    largest_mean_shift: float
    """Likewise of the channel where it is largest."""
    variance_shift: float
    """Change of the running variance as a share of it, the mean over its channels."""
    largest_variance_shift: float
    """Likewise of the channel where it is largest."""


class Recalibration(ResultModel):
    """What computing the running statistics of batch norms anew has changed."""

    layers: tuple[NormShift, ...]
    """Each batch norm that keeps running statistics, in order."""
    validation_before: Metrics
    """The validation split before it; after it, the evaluation's own."""

    def __repr__(self) -> str:
        rows = [_format.shift_row(layer) for layer in self.layers]
        return "\n".join(_format.text_table(_format.SHIFT_HEADER, rows))

    __str__ = __repr__


class TrainingCost(ResultModel):
    """What the training took."""

    parameters: int
    """Learnable parameters."""
    forward_flops: int
    """Floating-point operations of one sample's forward pass; a multiply-add counts as two."""
    seconds: float
    """Wall time of all attempts in seconds, loading and evaluation included."""
    training_seconds: float
    """Wall time of the training steps in seconds."""
    seconds_to_best: float
    """Wall time from the start to the end of the best epoch in seconds."""
    samples_per_second: float
    """Training samples per second of training time."""
    peak_memory_bytes: int
    """Peak memory: of the device's allocator on a GPU, of the process on a CPU."""
    device: str
    """What it ran on: the processor's or the GPU's name."""
    threads: int
    """CPU threads used."""


class Evaluation(ResultModel):
    """The result of a training job."""

    task: Task
    """Kind of learning problem."""
    dataset: DatasetSummary
    """The data it was trained on."""
    history: tuple[EpochMetrics, ...]
    """Every epoch in order."""
    best_epoch: int
    """Epoch, from 1, whose weights were kept: the best by the selection metric on validation."""
    stopped_early: bool
    """Whether early stopping ended the training."""
    train: Metrics
    """The training split in eval mode."""
    validation: Metrics
    """The validation split, which chose the epoch."""
    test: Metrics
    """The test split, looked at once, after the choice."""
    generalization_gap: float
    """How much worse test is than train: accuracy of train minus test, in regression MSE of test minus train."""
    cost: TrainingCost
    """What it took."""
    recalibration: Recalibration | None = None
    """What computing the running statistics anew has changed, before all these metrics; absent when not asked for."""
    auto: AutoOutcome | None = None
    """What automatic values came to; absent when none were asked for."""
    mc_dropout: MCDropout | None = None
    """The test split with dropout on; absent when not asked for."""
    temperature_scaling: TemperatureScaling | None = None
    """What one temperature makes of the calibration; absent when not asked for."""
    variance_shift: tuple[VarianceShift, ...] = ()
    """Each batch norm that keeps running statistics, in order; empty when not asked for."""
    robustness: tuple[Robustness, ...] = ()
    """The test split as it is, and under each corruption at each strength; empty when not asked for."""
    beam_search: BeamSearch | None = None
    """The test split's targets told by beam search; absent when not asked for."""

    def to_frame(self) -> pandas.DataFrame:
        """The history as a pandas DataFrame: a row per epoch, indexed by `epoch`, a column per metric.

        Dropout rates in force are `dropout_rates/rate` and so on.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "evaluation.to_frame() needs pandas: pip install 'dropnorm[notebook]'"
            ) from error
        nested = {"layers", "dropout_rates"}
        rates = [
            {f"dropout_rates/{name}": rate for name, rate in epoch.dropout_rates.items()}
            for epoch in self.history
        ]
        rows = [
            epoch.model_dump(exclude=nested) | more
            for epoch, more in zip(self.history, rates, strict=True)
        ]
        columns = [name for name in EpochMetrics.model_fields if name not in nested]
        columns += dict.fromkeys(name for each in rates for name in each)
        return pandas.DataFrame(rows, columns=columns).set_index("epoch")

    def layers_to_frame(self) -> pandas.DataFrame:
        """The layer reports as a pandas DataFrame: a row per epoch and layer, indexed by both.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "evaluation.layers_to_frame() needs pandas: pip install 'dropnorm[notebook]'"
            ) from error
        rows = [
            {"epoch": metrics.epoch, **layer.model_dump()}
            for metrics in self.history
            for layer in metrics.layers
        ]
        columns = ["epoch", *LayerReport.model_fields]
        return pandas.DataFrame(rows, columns=columns).set_index(["epoch", "layer"])

    def plot(self) -> Chart:
        """Learning curves, the best epoch marked, and a panel for each measurement that was asked for.

        Returns:
            A matplotlib Figure that notebooks show by themselves; `savefig(path)` writes it.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from dropnorm.results._plot import plot_evaluation

        return plot_evaluation(self)

    def plots(self) -> dict[str, Chart]:
        """The panels of `plot`, each a chart of its own by name: `learning_curves`, `calibration` and so on.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from dropnorm.results._plot import plots

        return plots(self)

    def __repr__(self) -> str:
        header, rows = _format.metric_table(self)
        table = _format.text_table(header, rows)
        return "\n".join([_format.evaluation_title(self), *table, *_findings.notes(self)])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        header, rows = _format.metric_table(self)
        return _format.html_table(
            _format.evaluation_title(self), header, rows, _findings.notes(self)
        )
