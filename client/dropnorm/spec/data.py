"""What is learned from: a data set, its splits, its scale, and what is changed in training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from dropnorm.spec._base import Bool, Float, Int, SpecModel, text_of
from dropnorm.spec.augmentation import Augmentation

# "datasets/mine" is the resource name of "mine"; a spec says the shorter.
DatasetName = Annotated[
    str,
    text_of(
        r"^(datasets/)?[a-z][a-z0-9_-]{0,62}$",
        "give small letters, digits, _ and -, at most 63, the first a letter",
    ),
    AfterValidator(lambda name: name.removeprefix("datasets/")),
]
OpenShare = Annotated[Float, Field(gt=0.0, lt=1.0)]


class Data(SpecModel):
    """Training, validation and test split of one data set.

    Validation chooses the best epoch; the test split is looked at once, after that. Where a data set comes with a test
    split of its own (mnist, fashion_mnist, cifar10), that one is used.
    """

    dataset: DatasetName
    """Name of the data set: digits, iris, wine, breast_cancer, diabetes, mnist, fashion_mnist, cifar10,
    python_docs (a text), reversal or addition (pairs of sequences), or that of an uploaded one, also
    written `datasets/NAME`."""
    validation_share: OpenShare = 0.15
    """Share of the samples that are not test samples held out for validation, above 0 to below 1."""
    test_share: OpenShare | None = None
    """Share of all samples held out for the test, above 0 to below 1; absent: 0.2. Not for a data set with a test
    split of its own."""
    stratify: Bool = True
    """Keep each class's share equal in every split; has no meaning in regression."""
    split_seed: Annotated[Int, Field(ge=0, lt=2**63)] | None = None
    """Seed of the splits, 0 to 2^63 - 1; absent: the job's seed."""
    train_samples: Annotated[Int, Field(ge=2, le=2**40)] | None = None
    """Use only so many of the training samples, drawn by the split seed, 2 or more; absent: all."""
    standardization: Literal["none", "per_feature", "global"] = "per_feature"
    """Scale of the input, measured on the training split: `per_feature` gives each feature (each channel of an image)
    mean 0 and standard deviation 1; `global` uses one mean and deviation for all; `none` keeps raw values, but bytes
    become 0 to 1. Regression targets are standardised too, unless `none`; metrics are in the target's own unit. Tokens
    have no scale."""
    augmentation: Augmentation | None = None
    """Random changes of the training samples; absent: they are seen as they are."""
