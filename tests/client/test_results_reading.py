"""Results as people read them: words, tables, frames and charts."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from tests.client import samples

import dropnorm as dn
from dropnorm.results import Event, _format

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (9999, "9,999"), (12_345, "12.3 k"), (999_999, "1000 k"), (61e6, "61.0 M")],
)
def test_count(value, text):
    assert _format.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (2048, "2.0 KiB"), (210 * 2**20, "210 MiB"), (2**50, "1024 TiB")],
)
def test_size(value, text):
    assert _format.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123, "12 ms"),
        (0.5, "0.50 s"),
        (12.34, "12.3 s"),
        (83, "1 min 23 s"),
        (7260, "2 h 1 min"),
    ],
)
def test_seconds(value, text):
    assert _format.seconds(value) == text


def test_mean_and_deviation():
    assert _format.mean_and_deviation([2.0, 4.0, 9.0]) == pytest.approx((5.0, math.sqrt(13)))
    assert _format.mean_and_deviation([3.0]) == (3.0, 0.0)
    assert all(map(math.isnan, _format.mean_and_deviation([math.nan, 1.0])))


def test_an_evaluation_reads_as_a_table():
    lines = repr(samples.evaluation()).splitlines()

    assert lines[0] == "classification of digits: best epoch 3 of 3"
    assert lines[1].split() == ["train", "validation", "test"]
    assert lines[2].split() == ["accuracy", "1.0000", "0.9500", "0.9000"]
    assert any(line.startswith("generalization gap 0.1000") for line in lines)
    assert any("12,345 parameters, 24.7 k FLOPs" in line for line in lines)
    assert str(samples.evaluation()) == repr(samples.evaluation())


def test_an_evaluation_of_a_regression_shows_its_own_metrics():
    text = repr(samples.regression())

    assert "accuracy" not in text
    assert "R²" in text
    assert "MSE" in text


def test_an_evaluation_in_a_notebook_escapes_what_it_shows():
    nasty = samples.evaluation().model_copy(
        update={"dataset": samples.DATASET.model_copy(update={"name": "<script>"})}
    )

    html = nasty._repr_html_()
    assert html.count("<table") == 1
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_a_plan_reads_as_a_table():
    text = repr(samples.plan())

    assert "hidden.0.linear  Linear(64 -> 8)" in text
    assert (
        "30 steps: 3 epochs of 10 steps, 128 samples each, the last batch of an epoch has 69"
        in text
    )
    assert "DROPOUT_ON_LOGITS: regularization.dropout.output_rate: dropping logits" in text
    assert "<table" in samples.plan()._repr_html_()


def test_every_event_reads_as_a_line():
    for number, payload in enumerate(samples.story(dn.State.FAILED), 1):
        event = Event(
            training_job="trainingJobs/a",
            sequence=number,
            time=datetime(2026, 1, 1, tzinfo=UTC),
            attempt=1,
            payload=payload,
        )
        assert str(event).split()[0] == str(number)
        assert "\n" not in str(event)
        assert repr(event).startswith(f"<Event {number} {payload.kind}: ")


def test_an_event_of_an_unknown_kind_still_reads():
    event = Event.model_construct(
        training_job="trainingJobs/a", sequence=1, time=samples.START, attempt=1, payload=None
    )
    assert "unknown" in str(event)
    assert event.kind == "unknown"


def test_a_job_reads_as_a_line():
    assert repr(samples.job()) == "<TrainingJob first 'first': queued>"


def test_to_frame():
    frame = samples.evaluation(epochs=5).to_frame()

    assert list(frame.index) == [1, 2, 3, 4, 5]
    assert frame.index.name == "epoch"
    assert frame.loc[2, "train_eval_accuracy"] == pytest.approx(0.95)
    assert frame["learning_rate"].dtype.kind == "f"


def test_layers_to_frame():
    frame = samples.measured().layers_to_frame()

    assert list(frame.index.names) == ["epoch", "layer"]
    assert frame.loc[(3, "output.linear"), "gradient_norm"] == 2.0
    assert len(frame) == 6
    assert "layers" not in samples.measured().to_frame().columns
    assert len(samples.evaluation().layers_to_frame()) == 0


def test_to_frame_of_no_epochs_still_has_its_columns():
    frame = samples.evaluation(epochs=0).to_frame()

    assert len(frame) == 0
    assert "validation_loss" in frame.columns


def test_plot_shows_loss_and_accuracy_and_the_best_epoch(tmp_path):
    chart = samples.evaluation(epochs=4).plot()

    assert [axes.get_title() for axes in chart.axes] == ["loss", "accuracy"]
    train, validation, best = chart.axes[0].get_lines()
    assert np.asarray(train.get_ydata()) == pytest.approx([1.0, 0.5, 1 / 3, 0.25])
    assert np.asarray(validation.get_ydata()) == pytest.approx([0.5] * 4)
    assert np.asarray(best.get_xdata()) == pytest.approx([4, 4])
    chart.savefig(tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(PNG)
    assert chart._repr_png_().startswith(PNG)


def test_what_was_measured_stands_beside_the_splits_and_below_them():
    found = samples.measured()
    lines = repr(found).splitlines()
    assert lines[1].split() == [
        *("train", "validation", "test"),
        *("test,", "MC", "dropout", "test,", "temperature"),
    ]
    rows = {line.split("  ")[0]: line.split()[-5:] for line in lines}
    assert rows["NLL (nats)"] == ["0.2500", "0.2500", "0.2500", "0.4000", "0.5000"]
    assert rows["calibration error"][-2:] == ["0.0300", "0.1000"]
    assert any(line.startswith("MC dropout, 30 passes") and "0.7000" in line for line in lines)
    assert any(line.startswith("temperature 1.5000: NLL") for line in lines)
    assert (
        "variance shift at 3 batch norms: evaluation has 50.0% of training's variance where it is largest "
        "(hidden.0.norm), 50.0% by dropout alone" in lines
    )
    assert "mean accuracy under corruption 0.7500, 0.8250 with batch norm adapted to it" in lines
    assert (
        "last report of 3 layers: gradient norm 0.5000 in the first with weights, 2.0000 in the last"
        in lines
    )
    assert "dead units in 1 activations, at most 25.0% (hidden.0.activation)" in lines
    assert "MC dropout" in found._repr_html_()


def test_normal_likelihoods_of_a_regression_are_told():
    mc = dn.MCDropout(
        passes=9, mse=1.0, standard_deviation=2.0, gaussian_nll=3.0, deterministic_gaussian_nll=4.0
    )
    text = repr(samples.regression().model_copy(update={"mc_dropout": mc}))
    assert "standard deviation 2.0000, normal NLL 3.0000 nats (4.0000 with dropout off)" in text


def test_what_was_measured_has_panels_and_pictures_of_its_own():
    found = samples.measured()
    panels = [
        "test: calibration",
        "test: MC dropout",
        "variance shift at batch norms",
        "gradient norm by layer",
        "mean of outputs by layer",
        "variance of outputs by layer",
        "share of dead units by activation",
        "test: robustness",
    ]
    assert [axes.get_title() for axes in found.plot().axes] == ["loss", "accuracy", *panels]
    charts = found.plots()
    assert list(charts) == [
        "learning_curves",
        "calibration",
        "mc_dropout",
        "variance_shift",
        "gradient_norms",
        "output_means",
        "output_variances",
        "dead_units",
        "robustness",
    ]
    (calibration,) = charts["calibration"].axes
    heights = [[bar.get_height() for bar in bars] for bars in calibration.containers]
    assert heights == [[0.25, 0.1, 0.05], [0.4, 0.15, 0.03], [0.5, 0.2, 0.1]]
    (uncertainty,) = charts["mc_dropout"].axes
    assert [bar.get_width() for bar in uncertainty.containers[0]] == [0.7, 0.2]
    (shift,) = charts["variance_shift"].axes
    for bars in shift.containers:
        assert [bar.get_width() for bar in bars] == pytest.approx([1.0, 0.5, 0.9])
    (norms,) = charts["gradient_norms"].axes
    assert [line.get_label() for line in norms.get_lines()] == ["epoch 2", "epoch 3"]
    assert np.asarray(norms.get_lines()[0].get_ydata()) == pytest.approx([0.5, 2.0])
    (robustness,) = charts["robustness"].axes
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in robustness.get_lines()}
    assert lines["shift"] == pytest.approx([0.9, 0.8, 0.7])
    assert lines["contrast, adapted"] == pytest.approx([0.9, 0.85, 0.8])
    assert all(chart._repr_png_().startswith(PNG) for chart in charts.values())


def test_a_dropout_schedule_and_a_recalibration_have_panels_of_their_own():
    plain = samples.evaluation()
    rates = (0.0, 0.25, 0.5)
    history = [
        epoch.model_copy(update={"dropout_rates": {"rate": rate, "input_rate": rate / 2}})
        for epoch, rate in zip(plain.history, rates, strict=True)
    ]
    shifts = [
        dn.NormShift(
            layer=f"hidden.{number}.norm",
            mean_shift=0.1 + number,
            largest_mean_shift=2.0,
            variance_shift=0.3 + number,
            largest_variance_shift=4.0,
        )
        for number in range(2)
    ]
    recalibration = dn.Recalibration(layers=tuple(shifts), validation_before=samples.metrics(0.8))
    found = plain.model_copy(update={"history": tuple(history), "recalibration": recalibration})
    charts = found.plots()
    assert list(charts) == ["learning_curves", "dropout_rates", "recalibration"]
    rate, input_rate = charts["dropout_rates"].axes[0].get_lines()
    assert np.asarray(rate.get_xydata()).tolist() == [[1, 0], [2, 0.25], [3, 0.5]]
    assert np.asarray(input_rate.get_xydata()).tolist() == [[1, 0], [2, 0.125], [3, 0.25]]
    assert found.to_frame()["dropout_rates/input_rate"].tolist() == [0, 0.125, 0.25]
    (bars,) = charts["recalibration"].axes
    widths = [[bar.get_width() for bar in series] for series in bars.containers]
    assert widths == [[0.1, 1.1], [0.3, 1.3]]
    assert all(chart._repr_png_().startswith(PNG) for chart in charts.values())
    constant = [
        epoch.model_copy(update={"dropout_rates": {"rate": 0.5}}) for epoch in plain.history
    ]
    assert list(plain.model_copy(update={"history": tuple(constant)}).plots()) == [
        "learning_curves"
    ]


def test_plot_of_a_regression_has_the_loss_alone():
    assert [axes.get_title() for axes in samples.regression().plot().axes] == ["loss"]


def test_plot_comparison_draws_means_and_every_repetition():
    groups = {
        "plain": [samples.evaluation(test_accuracy=value) for value in (0.8, 0.9)],
        "dropout": [samples.evaluation(epochs=5, test_accuracy=0.95)],
    }
    chart = dn.plot_comparison(groups, title="both")

    loss, accuracy, test = chart.axes
    assert [axes.get_title() for axes in chart.axes] == ["loss", "accuracy", "test accuracy"]
    assert np.size(loss.get_lines()[2].get_xdata()) == 5  # of dropout, whose job trained longer
    assert len(accuracy.collections) == 2  # a band each
    dots = [value for cloud in test.collections for _, value in np.asarray(cloud.get_offsets())]
    assert {0.8, 0.9, 0.95} <= {round(value, 6) for value in dots}
    assert [label.get_text() for label in test.get_xticklabels()] == ["plain", "dropout"]


def test_plot_comparison_survives_a_diverged_loss():
    nothing = samples.evaluation()
    history = tuple(
        each.model_copy(update={"validation_loss": math.nan, "train_eval_loss": math.inf})
        for each in nothing.history
    )
    diverged = nothing.model_copy(update={"history": history})

    assert dn.plot_comparison({"diverged": [diverged, diverged]})._repr_png_().startswith(PNG)


@pytest.mark.parametrize("groups", [{}, {"plain": []}])
def test_plot_comparison_of_nothing_says_so(groups):
    with pytest.raises(ValueError, match="at least one evaluation"):
        dn.plot_comparison(groups)


def test_the_chart_of_a_regression_s_mc_dropout_is_of_errors_in_its_unit() -> None:
    found = samples.measured()
    mc_dropout = dn.MCDropout(passes=20, mse=0.5, mae=0.4, standard_deviation=0.3)
    test = found.test.model_copy(update={"mae": 0.6})
    found = found.model_copy(update={"temperature_scaling": None})
    (axes,) = (
        found.model_copy(update={"mc_dropout": mc_dropout, "test": test}).plots()["mc_dropout"].axes
    )
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "error as trained",
        "error of the mean pass",
        "standard deviation over passes",
    ]
    assert [bar.get_width() for bar in axes.containers[0]] == [0.6, 0.4, 0.3]


def test_no_class_is_the_likeliest_among_probabilities_that_are_none():
    nan = np.array([[0.5, 0.5], [np.nan, np.nan]], dtype=np.float32)
    tensor = dn.Tensor(shape=(2, 2), dtype="float32", data=nan.tobytes())
    said = dn.Prediction(
        training_job="trainingJobs/a", task="classification", outputs=tensor, probabilities=tensor
    )
    with pytest.raises(ValueError, match="of input 1 is the likeliest"):
        _ = said.classes
