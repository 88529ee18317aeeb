"""The built-in data sets: what each is, known without reading it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from dropnorm_service.training.data.bundled import Bundled
from dropnorm_service.training.data.cifar import CifarBinary
from dropnorm_service.training.data.idx import IdxFiles
from dropnorm_service.training.data.info import DatasetInfo, PinnedFile
from dropnorm_service.training.data.pairs import (
    ADDITION_LENGTH,
    LETTERS,
    REVERSAL_LENGTH,
    SUMS,
    MadeUp,
    Pair,
    addition,
    reversal,
)
from dropnorm_service.training.data.text import CHARACTERS, PythonTopics
from dropnorm_service.training.data.tokens import Vocabulary


def _mnist_like(name: str, class_names: tuple[str, ...], *files: PinnedFile) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        task="classification",
        input_shape=(1, 28, 28),
        outputs=10,
        samples=60_000,
        test_samples=10_000,
        class_names=class_names,
        source=IdxFiles(files),
    )


def _pairs(
    name: str, draw: Callable[[Random], Pair], length: int, vocabulary: Vocabulary, *, target: int, samples: int
) -> DatasetInfo:  # fmt: skip
    return DatasetInfo(
        name=name,
        task="sequence_to_sequence",
        input_shape=(length,),
        outputs=len(vocabulary),
        samples=samples,
        vocabulary=vocabulary,
        target_vocabulary=vocabulary,
        target_length=target + 2,
        source=MadeUp(draw),
    )


_DIGITS = tuple("0123456789")

# Sums and sizes are those of the files as published, as TensorFlow Datasets has them too.
_ALL = (
    DatasetInfo(
        name="digits",
        task="classification",
        input_shape=(1, 8, 8),
        outputs=10,
        samples=1797,
        class_names=_DIGITS,
        source=Bundled("load_digits"),
    ),
    DatasetInfo(
        name="iris",
        task="classification",
        input_shape=(4,),
        outputs=3,
        samples=150,
        class_names=("setosa", "versicolor", "virginica"),
        source=Bundled("load_iris"),
    ),
    DatasetInfo(
        name="wine",
        task="classification",
        input_shape=(13,),
        outputs=3,
        samples=178,
        class_names=("class_0", "class_1", "class_2"),
        source=Bundled("load_wine"),
    ),
    DatasetInfo(
        name="breast_cancer",
        task="classification",
        input_shape=(30,),
        outputs=2,
        samples=569,
        class_names=("malignant", "benign"),
        source=Bundled("load_breast_cancer"),
    ),
    DatasetInfo(
        name="diabetes",
        task="regression",
        input_shape=(10,),
        outputs=1,
        samples=442,
        source=Bundled("load_diabetes", scaled=False),
    ),
    _mnist_like(
        "mnist",
        _DIGITS,
        PinnedFile(
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        PinnedFile(
            "train-labels-idx1-ubyte.gz",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        PinnedFile(
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        PinnedFile(
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    _mnist_like(
        "fashion_mnist",
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        PinnedFile(
            "train-images-idx3-ubyte.gz",
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        PinnedFile(
            "train-labels-idx1-ubyte.gz",
            29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        PinnedFile(
            "t10k-images-idx3-ubyte.gz",
            4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        PinnedFile(
            "t10k-labels-idx1-ubyte.gz",
            5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    DatasetInfo(
        name="cifar10",
        task="classification",
        input_shape=(3, 32, 32),
        outputs=10,
        samples=50_000,
        test_samples=10_000,
        class_names=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        source=CifarBinary(
            PinnedFile(
                "cifar-10-binary.tar.gz",
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            )
        ),
    ),
    DatasetInfo(
        name="python_docs",
        task="masked_language_modelling",
        input_shape=(128,),
        outputs=0,
        samples=3500,
        vocabulary=CHARACTERS,
        source=PythonTopics(),
    ),
    _pairs("reversal", reversal, REVERSAL_LENGTH, LETTERS, target=REVERSAL_LENGTH, samples=100_000),
    _pairs("addition", addition, ADDITION_LENGTH, SUMS, target=4, samples=60_000),
)

CATALOG: Mapping[str, DatasetInfo] = {info.name: info for info in _ALL}
"""Every built-in data set by name."""
