"""Every family of networks becomes an MLflow model that predicts the same, whatever the regularization."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.service.training import (
    test_bert,
    test_families,
    test_generative,
    test_recurrent_families,
    test_transformer,
)
from tests.service.training.made import classification, pairs, split_of, text
from tests.service.training.test_families import spec

from dropnorm import spec as dn
from dropnorm_service.tracking.mirror.model import export
from dropnorm_service.training import fit, load_examples, load_model, save_model
from dropnorm_service.training.data import Dataset

# MLflow warns of its own type hints when its pyfunc half is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")

REGULARIZATION = dn.Regularization(
    dropout=dn.Dropout(rate=0.1, method="spatial", stochastic_depth_rate=0.1),
    group_norm=dn.GroupNorm(groups=4),
)


SMALL = test_families.SMALL | test_generative.SMALL


@pytest.mark.parametrize("name", SMALL)
def test_a_trained_family_is_exported(name: str, tmp_path: Path) -> None:
    training = spec(SMALL[name], REGULARIZATION, optimization=dn.Optimization(epochs=1))
    data = split_of(training, classification(1, 12, 12, samples=120))
    save_model(tmp_path / "saved", training, data, fit(training, data).model)
    model, examples = load_model(tmp_path / "saved"), load_examples(tmp_path / "saved")

    # It compares what it wrote with the trained model, and raises where the two differ.
    described = export(model, examples, tmp_path / "exported")

    assert described.signature is not None
    assert (tmp_path / "exported" / "data" / "model.pt2").is_file()


@pytest.mark.parametrize(
    ("training", "dataset", "output"),
    [
        (test_bert.asked(epochs=1, regularization=REGULARIZATION), text(), "float32"),
        (test_bert.asked(epochs=1, regularization=REGULARIZATION), text(labelled=True), "float32"),
        (test_transformer.fitted(1, regularization=REGULARIZATION), pairs(), "int64"),
        *(
            (test_recurrent_families.fitted(each, regularization=REGULARIZATION), pairs(), "int64")
            for each in test_recurrent_families.BOTH
        ),
    ],
    ids=["bert", "bert, labelled", "transformer", "seq2seq", "rnn_encoder_decoder"],
)
def test_a_trained_model_of_tokens_is_exported(
    training: dn.TrainingSpec, dataset: Dataset, output: str, tmp_path: Path
) -> None:
    data = split_of(training, dataset)
    save_model(tmp_path / "saved", training, data, fit(training, data).model)
    model, examples = load_model(tmp_path / "saved"), load_examples(tmp_path / "saved")

    described = export(model, examples, tmp_path / "exported")

    assert described.signature is not None
    assert described.signature.inputs.inputs[0].type == np.dtype("int64")
    assert described.signature.outputs.inputs[0].type == np.dtype(output)
