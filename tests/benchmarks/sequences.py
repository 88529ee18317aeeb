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
    """Letters told backwards, and sums of two numbers of up to three digits."""
    for dataset, epochs in (("addition", 15), ("reversal", 10)):
        specs = {
            name: [asked(architecture, _PLAIN, _optimization(name, epochs), dataset=dataset)]
            for name, architecture in PAIRS.items()
        }

        def compare(results: Results, seeds: int, epochs: int = epochs) -> Row:
            shares = {
                name: measured(only.test.sequence_accuracy) for name, (only,) in results.items()
            }
            return Row(
                "",
                ", ".join(f"{name} {percent([each])}" for name, each in shares.items()),
                "",
                min(shares.values()) >= 0.99,
                f"greedy decoding, to the last token; {epochs} epochs of Adam along a cosine, seed 0",
            )

        yield from rows(specs, compare, f"sequence accuracy on test, {dataset}", ">= 99 % each")
        if quick:
            return


def _optimization(name: str, epochs: int) -> dn.Optimization:
    return dn.Optimization(
        optimizer=dn.Adam(lr=1e-3 if name == "Transformer" else 2e-3),
        schedule=dn.CosineSchedule(),
        epochs=epochs,
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
