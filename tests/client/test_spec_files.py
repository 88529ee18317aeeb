"""Specs from files and plain data, their digest, and their JSON Schema."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError
from tests import strategies

import dropnorm
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
ABSENT: Any = object()
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
            ("spec.yaml", "", "is empty; a spec has at least architecture and data"),
            ("spec.json", "null", "is empty; a spec has at least architecture and data"),
            ("spec.yaml", "- 1", "give the fields of TrainingSpec by name, not [1]"),
            ("spec.yaml", "seed: 1\nseed: 2", "the key 'seed' stands twice in one mapping"),
            ("spec.yaml", "seed: 1\nseed: 2", "line 2, column 1"),
            ("spec.json", '{"seed": 1, "seed": 2}', "the key 'seed' stands twice in one object"),
            ("spec.yaml", "seed: !!bool 7", "is not YAML"),
            ("spec.yaml", "seed: !!timestamp x", "is not YAML"),
            ("spec.yaml", "[" * 100_000, "nests too deep"),
            ("spec.json", "[" * 100_000, "nests too deep"),
            ("spec.json", '{"a":' * 100_000, "nests too deep"),
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

    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("1e-3", 1e-3),
            ("1e-8", 1e-8),
            ("1E+2", 100.0),
            ("1.e-5", 1e-5),
            ("1.5e2", 150.0),
            (".5", 0.5),
            ("+.5", 0.5),
            ("0.001", 0.001),
            ("1", 1),
        ],
    )
    def test_numbers_in_yaml_are_written_as_people_write_them(
        self, tmp_path: Path, text: str, number: float
    ) -> None:
        path = tmp_path / "spec.yaml"
        path.write_text(YAML.replace("lr: 0.001", f"lr: {text}"))

        assert dn.TrainingSpec.from_file(path).optimization.optimizer.lr == number

    def test_numbers_as_the_readme_prints_them(self, tmp_path: Path) -> None:
        path = tmp_path / "spec.yaml"
        path.write_text(
            YAML.replace("lr: 0.001", "lr: 1e-3, eps: 1e-8").replace(
                "batch_norm: {}", "batch_norm: {eps: 1e-5}"
            )
        )

        assert dn.TrainingSpec.from_file(path).digest() == SPEC.digest()

    def test_a_merged_mapping_may_give_a_key_anew(self, tmp_path: Path) -> None:
        path = tmp_path / "spec.yaml"
        path.write_text(
            YAML.replace("epochs: 20", "warmup: {<<: {epochs: 2, start_factor: 0.5}, epochs: 3}")
        )

        warmup = dn.TrainingSpec.from_file(path).optimization.warmup
        assert warmup == dn.Warmup(epochs=3, start_factor=0.5)

    def test_a_file_that_is_not_utf_8(self, tmp_path: Path) -> None:
        path = tmp_path / "spec.yaml"
        path.write_bytes(YAML.encode("utf-16"))

        with pytest.raises(dn.InvalidSpecError, match="is not text in UTF-8"):
            dn.TrainingSpec.from_file(path)

    def test_a_mark_at_the_beginning_is_no_content(self, tmp_path: Path) -> None:
        path = tmp_path / "spec.json"
        path.write_text(SPEC.model_dump_json(), encoding="utf-8-sig")

        assert dn.TrainingSpec.from_file(path) == SPEC

    def test_yaml_without_pyyaml_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "spec.yaml"
        path.write_text(YAML)
        monkeypatch.setitem(sys.modules, "yaml", None)
        monkeypatch.delitem(sys.modules, "dropnorm.spec._yaml", raising=False)

        with pytest.raises(ImportError, match=r"pip install 'dropnorm\[cli\]'"):
            dn.TrainingSpec.from_file(path)

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

        assert spec.digest() == "c1d1c518dc1d55eb04cce2fe1577474578b98a2628b19f452f4caf02f4e4b22e"

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


def test_a_wrong_spec_raises_one_thing_when_built_and_another_when_read():
    with pytest.raises(ValidationError) as built:
        dn.MLP(hidden=(0,))
    with pytest.raises(dropnorm.InvalidSpecError) as read:
        dn.TrainingSpec.parse({"architecture": {"kind": "mlp", "hidden": [0]}, "data": {}})

    assert not isinstance(built.value, dropnorm.DropnormError)
    assert not isinstance(read.value, dropnorm.DropnormError)
    assert isinstance(built.value, ValueError)
    assert isinstance(read.value, ValueError)


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        SPEC.seed = 8


@given(spec=strategies.specs())
def test_json_and_back(spec):
    assert dn.TrainingSpec.parse(json.loads(spec.model_dump_json())) == spec


def fits(given: dict[str, Any], alternative: dict[str, Any]) -> bool:
    """Whether values have the types that one alternative of a schema asks for."""
    types = {key: part["type"] for key, part in alternative["properties"].items()}
    return all(key in given for key in alternative.get("required", ())) and all(
        types[key] == ("null" if value is None else "number") for key, value in given.items()
    )


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

    def test_it_names_its_dialect(self):
        assert self.SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"

    def test_its_parts_have_names_for_people(self):
        names = set(self.SCHEMA["$defs"])

        assert {"Dropout", "DropoutLayer", "BatchNorm", "BatchNormLayer", "ConvLayer"} <= names
        assert [name for name in names if "_" in name] == []

    def test_what_has_a_kind_must_name_it(self):
        parts = self.SCHEMA["$defs"].values()
        with_kind = [part for part in parts if "kind" in part["properties"]]

        titles = {part["title"] for part in with_kind}
        assert {"MLP", "ResNet", "Conv", "Residual", "SGD", "CosineSchedule"} <= titles
        assert [part["title"] for part in with_kind if "kind" not in part["required"]] == []

    def test_a_dropout_of_everything_is_refused_by_it_too(self):
        for name, field in (
            ("Dropout", "rate"),
            ("Dropout", "input_rate"),
            ("Dropout", "output_rate"),
            ("DropoutLayer", "rate"),
        ):
            rate = self.SCHEMA["$defs"][name]["properties"][field]
            assert (rate["minimum"], rate["exclusiveMaximum"]) == (0, 1)
            assert "maximum" not in rate

    def test_lists_of_layers_are_not_empty(self):
        for name in ("Sequential", "ResidualLayer"):
            layers = self.SCHEMA["$defs"][name]["properties"]["layers"]
            assert (layers["minItems"], layers["maxItems"]) == (1, 512)

    @pytest.mark.parametrize("name", ["Dropout", "DropoutLayer"])
    @pytest.mark.parametrize("rate", [ABSENT, None, 0.5])
    @pytest.mark.parametrize("keep_prob", [ABSENT, None, 0.5])
    def test_rate_and_keep_prob_are_either_or_as_in_the_model(self, name, rate, keep_prob):
        given = {"rate": rate, "keep_prob": keep_prob}
        given = {key: value for key, value in given.items() if value is not ABSENT}
        model = dn.Dropout if name == "Dropout" else dn.layers.Dropout
        try:
            model(**given)
            valid = True
        except ValidationError:
            valid = False

        schema = self.SCHEMA["$defs"][name]
        assert schema["properties"]["rate"]["type"] == ["number", "null"]
        assert any(fits(given, alternative) for alternative in schema["anyOf"]) == valid

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
        assert set(architecture["discriminator"]["mapping"]) == {
            *("mlp", "sequential"),
            *("alexnet", "vgg", "googlenet", "resnet", "densenet"),
            *("vae", "gan"),
            *("transformer", "bert"),
            *("seq2seq", "rnn_encoder_decoder"),
        }

    def test_unknown_fields_are_refused_by_it_too(self):
        parts = [self.SCHEMA, *self.SCHEMA["$defs"].values()]

        assert [
            part["title"] for part in parts if part.get("additionalProperties") is not False
        ] == []

    def test_it_is_json(self):
        assert json.loads(json.dumps(self.SCHEMA)) == self.SCHEMA
