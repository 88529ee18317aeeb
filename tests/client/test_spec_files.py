"""Specs from files and plain data, their digest, and their JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError
from tests import strategies

from dropnorm import spec as dn

YAML = """\
architecture: {kind: mlp, hidden: [128, 64], activation: relu}
regularization:
  dropout: {keep_prob: 0.8}
  batch_norm: {}
optimization:
  optimizer: {kind: adam, lr: 0.001}
  epochs: 20
data: {dataset: digits}
seed: 7
"""
SPEC = dn.TrainingSpec(
    architecture=dn.MLP(hidden=(128, 64), activation="relu"),
    regularization=dn.Regularization(dropout=dn.Dropout(rate=0.2), batch_norm=dn.BatchNorm()),
    optimization=dn.Optimization(optimizer=dn.Adam(lr=1e-3), epochs=20),
    data=dn.Data(dataset="digits"),
    seed=7,
)


class TestFiles:
    def test_yaml(self, tmp_path: Path) -> None:
        path = tmp_path / "spec.yaml"
        path.write_text(YAML)

        assert dn.TrainingSpec.from_file(path) == SPEC

    def test_json(self, tmp_path: Path) -> None:
        path = tmp_path / "spec.json"
        path.write_text(SPEC.model_dump_json())

        assert dn.TrainingSpec.from_file(path) == SPEC

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("spec.json", '{"seed": 7,', "is not JSON: Expecting property name"),
            ("spec.yaml", "seed: [7", "is not YAML: while parsing a flow sequence"),
            ("spec.yaml", "!!python/object:os.system {}", "is not YAML: could not determine"),
            ("spec.yaml", "", "Input should be a valid dictionary or instance of TrainingSpec"),
            ("spec.yaml", "- 1", "Input should be a valid dictionary or instance of TrainingSpec"),
        ],
    )
    def test_what_is_no_spec(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        path = tmp_path / name
        path.write_text(text)

        with pytest.raises(dn.InvalidSpecError) as caught:
            dn.TrainingSpec.from_file(path)

        ((field, found),) = caught.value.problems
        assert field == ""
        assert message in found

    def test_every_wrong_field_of_a_file_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "spec.yaml"
        path.write_text(YAML.replace("epochs: 20", "epochs: yes").replace("seed: 7", "sed: 7"))

        with pytest.raises(dn.InvalidSpecError) as caught:
            dn.TrainingSpec.from_file(path)

        assert str(caught.value) == (
            "optimization.epochs: Input should be a valid integer, not True; "
            "sed: there is no such field; check the spelling or the version of the service"
        )

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            dn.TrainingSpec.from_file(tmp_path / "none.yaml")


class TestDigest:
    def test_defaults_written_or_not_are_the_same(self):
        written = dn.TrainingSpec.model_validate(SPEC.model_dump())

        assert written.model_fields_set != SPEC.model_fields_set
        assert written.digest() == SPEC.digest()

    def test_it_is_the_same_for_ever(self):
        """Plans, data sets and MLflow tags are found by it: a change of this value needs a good reason."""
        spec = dn.TrainingSpec(architecture=dn.MLP(hidden=()), data=dn.Data(dataset="iris"))

        assert spec.digest() == "b15a6ca1b79bbc755a322f941a2feab0d2c998d9b058be19fdc7b9f5dde50d4f"

    def test_any_change_shows(self):
        other = SPEC.model_copy(update={"seed": 8})

        assert other.digest() != SPEC.digest()

    def test_a_whole_number_is_the_same_as_a_fraction_or_not(self):
        one = dn.Optimization(warmup=dn.Warmup(epochs=1))
        assert one == dn.Optimization(warmup=dn.Warmup(epochs=1.0))
        specs = [
            SPEC.model_copy(
                update={"optimization": dn.Optimization(warmup=dn.Warmup(epochs=epochs))}
            )
            for epochs in (1, 1.0)
        ]

        assert specs[0].digest() == specs[1].digest()


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        SPEC.seed = 8


@given(spec=strategies.specs())
def test_json_and_back(spec):
    assert dn.TrainingSpec.parse(json.loads(spec.model_dump_json())) == spec


class TestJsonSchema:
    SCHEMA = dn.TrainingSpec.model_json_schema()

    def properties(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, part in {"TrainingSpec": self.SCHEMA, **self.SCHEMA["$defs"]}.items():
            for field, content in part.get("properties", {}).items():
                if field != "kind":
                    yield f"{name}.{field}", content

    def test_everything_in_it_is_explained(self):
        undescribed = [
            name for name, part in self.SCHEMA["$defs"].items() if not part["description"]
        ]
        undescribed += [
            name for name, content in self.properties() if not content.get("description")
        ]

        assert undescribed == []
        assert len(list(self.properties())) > 80

    def test_it_holds_limits_and_defaults(self):
        batch_size = self.SCHEMA["$defs"]["Optimization"]["properties"]["batch_size"]

        assert (batch_size["minimum"], batch_size["maximum"], batch_size["default"]) == (
            1,
            2**20,
            128,
        )

    def test_unions_are_told_apart_by_their_kind(self):
        architecture = self.SCHEMA["properties"]["architecture"]

        assert architecture["discriminator"]["propertyName"] == "kind"
        assert set(architecture["discriminator"]["mapping"]) == {"mlp", "sequential"}

    def test_unknown_fields_are_refused_by_it_too(self):
        parts = [self.SCHEMA, *self.SCHEMA["$defs"].values()]

        assert [
            part["title"] for part in parts if part.get("additionalProperties") is not False
        ] == []

    def test_it_is_json(self):
        assert json.loads(json.dumps(self.SCHEMA)) == self.SCHEMA
