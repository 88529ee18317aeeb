"""The package root: what it offers, and what it loads for it."""

import subprocess
import sys

import pytest

import dropnorm


def python(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_dir_lists_the_public_names_once_each():
    assert dir(dropnorm) == sorted(dropnorm.__all__)
    assert len(dropnorm.__all__) == len(set(dropnorm.__all__))


@pytest.mark.parametrize("name", dropnorm.__all__)
def test_every_name_is_there(name):
    assert getattr(dropnorm, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Cleint'"):
        dropnorm.Cleint  # noqa: B018


def test_describing_a_training_loads_no_grpc():
    program = (
        "import sys, dropnorm as dn;"
        "dn.TrainingSpec(architecture=dn.MLP(hidden=[8]), data=dn.Data(dataset='digits'));"
        "print('grpc' in sys.modules, 'google.protobuf' in sys.modules)"
    )
    assert python(program).split() == ["False", "False"]


def test_importing_the_root_loads_nothing_of_the_package():
    program = "import sys, dropnorm; print(*[name for name in sys.modules if 'dropnorm.' in name])"
    assert python(program).split() == []


def test_local_is_the_function_even_after_its_module_was_imported():
    program = "import dropnorm.embedded, dropnorm; print(dropnorm.local.__module__)"
    assert python(program).split() == ["dropnorm.embedded"]
