"""Models of sequences: all that is in made-up pairs, and of a text more than its frequencies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.benchmarks.rows import Row
from tests.benchmarks.trials import Results, asked, measured, percent, rows

import dropnorm as dn

_PLAIN = dn.Regularization()

PAIRS: Mapping[str, dn.Architecture] = {
    "LSTM": dn.Seq2Seq(layers=1, width=256, embedding_width=64),
    "GRU": dn.RNNEncoderDecoder(width=256, embedding_width=64, maxout_units=256),
    "Transformer": dn.Transformer(
        width=128, heads=4, feed_forward=256, encoder_layers=2, decoder_layers=2
    ),
}
"""Small forms, for a CPU."""


def measure_pairs(quick: bool) -> Iterator[Row]:
    """Letters told backwards, and sums of numbers of up to three digits (Sutskever et al. 2014 reversed sources)."""
    for dataset in ("reversal", "addition"):
        specs = {
            name: [
                asked(architecture, _PLAIN, _optimization(quick), dataset=dataset, seed=seed)
                for seed in range(1 if quick else 2)
            ]
            for name, architecture in PAIRS.items()
        }

        def compare(results: Results, seeds: int) -> Row:
            shares = {
                name: [measured(each.test.sequence_accuracy) for each in group]
                for name, group in results.items()
            }
            return Row(
                "",
                ", ".join(f"{name} {percent(each)}" for name, each in shares.items()),
                "",
                all(min(each) >= 0.99 for each in shares.values()),
                f"greedy decoding, to the last token; seeds 0 to {seeds - 1}",
            )

        title = f"sequence accuracy on test, {dataset}"
        yield from rows(specs, compare, title, ">= 99 % each, with every seed")


def _optimization(quick: bool) -> dn.Optimization:
    return dn.Optimization(
        optimizer=dn.Adam(lr=2e-3),
        schedule=dn.CosineSchedule(),
        epochs=2 if quick else 12,
        batch_size=128,
        gradient_clipping=dn.GradientClipping(max_norm=1.0),
    )


def measure_masked(quick: bool) -> Iterator[Row]:
    """Devlin et al. 2018: hidden characters of Python's documentation are restored."""
    epochs = 10 if quick else 40
    architecture = dn.BERT(width=128, heads=4, layers=2, feed_forward=512)
    optimization = dn.Optimization(
        optimizer=dn.AdamW(lr=1e-3), schedule=dn.CosineSchedule(), epochs=epochs, batch_size=32
    )
    spec = asked(architecture, _PLAIN, optimization, dataset="python_docs")

    def compare(results: Results, seeds: int) -> Row:
        ((only,),) = results.values()
        found, baseline = measured(only.test.accuracy), measured(only.test.baseline_accuracy)
        return Row(
            "",
            f"{percent([found])} to {percent([baseline])}",
            "",
            found > 2 * baseline,
            f"2 layers of width 128, {epochs} epochs of AdamW at 0.001 along a cosine, seed 0",
        )

    title = "BERT on Python's documentation: masked accuracy on test to that of the likeliest token"
    yield from rows({"": [spec]}, compare, title, "more than twice")
