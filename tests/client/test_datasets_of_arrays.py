"""From arrays and tensors to a data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dropnorm.datasets import Bundle, InvalidData, _requests, arrays
from dropnorm.datasets.arrays import from_arrays

X = np.arange(12.0).reshape(6, 2)
Y = np.array(["b", "a", "b", "a", "b", "c"])


class TestArrays:
    @pytest.mark.parametrize(
        ("x", "shape", "kind"),
        [
            (X, (6, 2), "float32"),
            (X.tolist(), (6, 2), "float32"),
            (torch.tensor(X, requires_grad=True), (6, 2), "float32"),
            (X[:, 0], (6, 1), "float32"),
            (X.astype(np.int32), (6, 2), "float32"),
            (X > 3, (6, 2), "float32"),
            (np.zeros((6, 4, 5), np.uint8), (6, 1, 4, 5), "uint8"),
            (np.zeros((6, 3, 4, 5)), (6, 3, 4, 5), "float32"),
            (np.asfortranarray(X), (6, 2), "float32"),
        ],
    )
    def test_samples(self, x: Any, shape: tuple[int, ...], kind: str) -> None:
        found = from_arrays(x, Y).arrays["x"]
        assert (found.shape, found.dtype.name) == (shape, kind)
        assert found.flags.c_contiguous

    @pytest.mark.parametrize(
        ("y", "task", "names", "values"),
        [
            (Y, "classification", ("a", "b", "c"), [1, 0, 1, 0, 1, 2]),
            ([7, 5, 7, 5, 7, 9], "classification", ("5", "7", "9"), [1, 0, 1, 0, 1, 2]),
            (np.array([True, False] * 3), "classification", ("False", "True"), [1, 0] * 3),
            (X[:, :1], "regression", (), [[0], [2], [4], [6], [8], [10]]),
            (X[:, 0], "regression", (), [[0], [2], [4], [6], [8], [10]]),
        ],
    )
    def test_targets(self, y: Any, task: str, names: tuple[str, ...], values: Any) -> None:
        bundle = from_arrays(X, y)
        assert (bundle.manifest.task, bundle.manifest.class_names) == (task, names)
        assert bundle.arrays["y"].tolist() == values

    def test_classes_by_number_with_names(self) -> None:
        bundle = from_arrays(X, [0, 1, 0, 1, 0, 0], class_names=("no", "yes", "never"))
        assert bundle.manifest.class_names == ("no", "yes", "never")
        assert bundle.arrays["y"].tolist() == [0, 1, 0, 1, 0, 0]

    def test_a_test_split_has_the_same_classes(self) -> None:
        bundle = from_arrays(X, Y, test=(X[:2], ["c", "a"]))
        assert bundle.arrays["test_y"].tolist() == [2, 0]
        with pytest.raises(InvalidData, match="test y, row 1 is class z"):
            from_arrays(X, Y, test=(X[:2], ["c", "z"]))

    @pytest.mark.parametrize(
        ("x", "y", "message"),
        [
            (np.where(X == 5, np.nan, X), Y, "X, row 2, column 1 is nan"),
            (np.where(X == 5, np.inf, X), Y, "X, row 2, column 1 is inf"),
            (X + 1e39, Y, "X, row 0, column 0"),
            (np.full((6, 2), 2**24 + 1), Y, "X, row 0, column 0"),
            (X[:5], Y, "X has 5 rows and y has 6"),
            (X[:0], Y[:0], "shape"),
            (X[None, None, None], Y, "shape"),
            (np.array([["a"]] * 6), Y, "X is text"),
            (np.array([object()] * 6), Y, "give numbers"),
            (X + 1j, Y, "give numbers"),
            ([[1, 2], [3]], Y, "X is no array"),
            (X, np.arange(6) // 2 * 1.5 + np.nan, "y, row 0"),
            (X, ["", "b", "", "b", "b", "b"], "y, row 0 is an empty text"),
            (X, ["b", "a" * 201, "b", "b", "b", "b"], "y, row 1 is a class name of 201"),
        ],
    )
    def test_what_is_wrong_is_named(self, x: Any, y: Any, message: str) -> None:
        with pytest.raises(InvalidData, match=message):
            from_arrays(x, y)

    @pytest.mark.parametrize(
        ("y", "test", "message"),
        [
            (Y, (X[:, :1], Y), r"A sample of X is float32 \[2\], and of test X float32 \[1\]"),
            (Y, (X.astype(np.uint8), Y), r"of test X uint8 \[2\]"),
            (X, (X, X[:, :1]), "not as many targets"),
        ],
    )
    def test_a_test_split_is_like_the_rest(self, y: Any, test: Any, message: str) -> None:
        with pytest.raises(InvalidData, match=message):
            from_arrays(X, y, test=test)

    def test_whole_numbers_that_are_hardly_classes(self) -> None:
        x, prices = np.zeros((100, 1)), np.arange(100) % 60
        with pytest.raises(InvalidData, match=r"60 different whole numbers.*task='regression'"):
            from_arrays(x, prices)
        assert from_arrays(x, prices, task="regression").manifest.task == "regression"
        assert len(from_arrays(x, prices, task="classification").manifest.class_names) == 60

    def test_class_names_are_text_in_classification(self) -> None:
        numbers = [0, 1, 0, 1, 0, 0]
        assert from_arrays(X, numbers, class_names=(7, 8)).manifest.class_names == ("7", "8")  # type: ignore[arg-type]
        with pytest.raises(InvalidData, match="stands there twice"):
            from_arrays(X, numbers, class_names=("a", "a"))
        with pytest.raises(InvalidData, match="this is regression"):
            from_arrays(X, X, class_names=("a", "b"))

    @pytest.mark.parametrize("name", ["\x1b[31m", "two\nlines", "\x9b", "a\u202eb", "a\u2069b"])
    def test_names_are_printable(self, name: str) -> None:
        with pytest.raises(InvalidData, match=r"class_names\[1\]: give printable text on one line"):
            from_arrays(X, [0, 1, 0, 1, 0, 0], class_names=("a", name))
        with pytest.raises(InvalidData, match=r"feature_names\[0\]: give printable text"):
            from_arrays(X, [0, 1, 0, 1, 0, 0], feature_names=(name, "b"))

    def test_numbers_that_are_no_classes(self) -> None:
        with pytest.raises(InvalidData, match=r"y, row 1 is 0\.5"):
            from_arrays(X, [0, 0.5, 1, 0, 1, 0.0], task="classification")

    def test_classes_beyond_their_names(self) -> None:
        with pytest.raises(InvalidData, match="y, row 5 is class 2, which is none of 2"):
            from_arrays(X, [0, 1, 0, 1, 0, 2], class_names=("no", "yes"))


def asked(x: Any, y: Any = None, **given: Any) -> Bundle:
    """What `upload` makes of its arguments."""
    absent: dict[str, Any] = dict.fromkeys(("text", "target", "test", "task", "class_names"))
    return _requests.bundle_of(x, y, **absent | {"tokens": "words", "length": 8} | given)


REVIEWS = ["a fine film", "dull", "a fine , fine story told at length by all", "dull dull film"]
STARS = ["good", "bad", "good", "bad"]


class TestLabelledTexts:
    def test_a_text_begins_and_is_cut_or_padded(self) -> None:
        bundle = asked(REVIEWS, STARS)
        words = bundle.manifest.vocabulary
        assert words == tuple(sorted({word for text in REVIEWS for word in text.split()}))
        number = {word: index for index, word in enumerate(words, start=5)}
        x = bundle.arrays["x"]
        assert (x.dtype.name, x.shape) == ("int64", (4, 8))
        assert x[1].tolist() == [1, number["dull"], 0, 0, 0, 0, 0, 0]
        assert x[2].tolist() == [1, *(number[word] for word in REVIEWS[2].split()[:7])]
        assert bundle.arrays["y"].tolist() == [1, 0, 1, 0]
        assert bundle.manifest.class_names == ("bad", "good")

    def test_no_longer_than_the_longest_text(self) -> None:
        assert asked(REVIEWS, STARS, length=100).arrays["x"].shape == (4, 11)

    def test_a_frame_names_its_columns_and_the_rest_is_not_looked_at(self) -> None:
        frame = pd.DataFrame({"at": ["2026-01-31"] * 4, "review": REVIEWS, "stars": STARS})
        bundle = asked(frame, text="review", target="stars", test=(frame[:2], None))
        assert same(bundle, asked(REVIEWS, STARS, test=(REVIEWS[:2], STARS[:2])))
        numbers = asked(frame.assign(stars=[4.5, 1.0, 4.0, 0.5]), text="review")
        assert numbers.manifest.task == "regression"

    def test_words_of_the_test_split_alone_are_unknown(self) -> None:
        bundle = asked(REVIEWS, STARS, test=(["a new film"], ["good"]))
        x = bundle.arrays["test_x"]
        assert x.shape == (1, 8)
        assert x[0, 2] == 3
        assert "new" not in bundle.manifest.vocabulary

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ((["a", " "], [0, 1]), "X, row 1 is an empty text"),
            ((["a", None], [0, 1]), "X, row 1 is None, which is no text"),
            ((["a", "b"], ["x", ""]), "y, row 1 is an empty text"),
            ((["a", "b"], [0, 1, 0]), "X has 2 rows and y has 3"),
            ((["a", "b"], None), "y is absent"),
        ],
        ids=str,
    )
    def test_what_is_wrong_is_named(self, given: tuple[Any, Any], message: str) -> None:
        with pytest.raises(InvalidData, match=message):
            asked(*given)

    def test_columns_that_are_not_there(self) -> None:
        frame = pd.DataFrame({"review": REVIEWS, "stars": STARS})
        with pytest.raises(InvalidData, match="has no column 'text'; it has review, stars"):
            asked(frame, text="text")
        with pytest.raises(InvalidData, match="has no column 'label'"):
            asked(frame, text="review", target="label")
        with pytest.raises(InvalidData, match="name their column by target"):
            asked(frame, STARS, text="review")


def same(one: Bundle, other: Bundle) -> bool:
    """Whether two data sets are equal."""
    return one.manifest == other.manifest and all(
        np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays
    )


def test_a_target_column_is_for_frames() -> None:
    with pytest.raises(InvalidData, match="columns of a pandas frame"):
        asked(X, Y, target="label")


def test_numpy_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    with pytest.raises(ImportError, match=r"dropnorm\[data\]"):
        arrays.from_arrays([[1.0]], [0])


class TestLabels:
    def test_a_test_split_has_the_classes_of_the_rest_whatever_the_type(self) -> None:
        x, y = np.zeros((60, 2)), np.array([1.0, 2.0] * 30)
        bundle = from_arrays(
            x, y, task="classification", test=(x[:4], np.array([1.0, 1.0, 2.0, 1.0]))
        )
        assert bundle.manifest.class_names == ("1", "2")
        assert bundle.arrays["y"].tolist() == [0, 1] * 30
        assert bundle.arrays["test_y"].tolist() == [0, 0, 1, 0]
        bundle = from_arrays(x, y.astype(int), test=(x[:2], np.array([2.0, 1.0])))
        assert bundle.arrays["test_y"].tolist() == [1, 0]
        with pytest.raises(InvalidData, match=r"test y, row 1 is class 0\.0, which is none of 2"):
            from_arrays(x, y, task="classification", test=(x[:2], np.array([1.0, 0.0])))

    def test_labels_of_another_kind_than_the_rest(self) -> None:
        with pytest.raises(InvalidData, match="test y, row 0 is class 1, which is none of 3"):
            from_arrays(X, Y, test=(X[:1], [1]))

    def test_class_names_that_are_the_labels(self) -> None:
        bundle = from_arrays(X, Y, class_names=("c", "b", "a"), test=(X[:2], ["a", "c"]))
        assert bundle.manifest.class_names == ("c", "b", "a")
        assert bundle.arrays["y"].tolist() == [1, 2, 1, 2, 1, 0]
        assert bundle.arrays["test_y"].tolist() == [2, 0]
        with pytest.raises(InvalidData, match=r"row 5 is class c, which is none of 2 \(a, b\)"):
            from_arrays(X, Y, class_names=("a", "b"))

    @pytest.mark.parametrize("y", [np.array([b"cat", b"dog"] * 3), [b"cat", b"dog"] * 3])
    def test_bytes_are_text(self, y: Any) -> None:
        assert from_arrays(X, y).manifest.class_names == ("cat", "dog")

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (None, "y is absent; give a class"),
            (["a", None, "b", "a", "a", "b"], "y, row 1 is None"),
            (["a", "b", float("nan"), "a", "a", "b"], "y, row 2 is nan"),
            ([1, 0, 1, None, 0, 1], "y, row 3 is None"),
            ([b"a", b"\xff"] * 3, "y, row 1 is bytes that are no UTF-8"),
            (np.ma.masked_equal([0, 1, 2, 1, 0, 1], 2), "y, row 2 is masked"),
            (np.eye(6, dtype=int), r"6 columns of 0 and 1.*argmax"),
        ],
    )
    def test_what_is_no_label_is_named(self, y: Any, message: str) -> None:
        with pytest.raises(InvalidData, match=message):
            from_arrays(X, y)

    def test_a_series_or_a_frame_as_targets(self) -> None:
        assert from_arrays(X, pd.Series(Y)).arrays["y"].tolist() == [1, 0, 1, 0, 1, 2]
        assert from_arrays(X, pd.DataFrame({"y": Y})).manifest.class_names == ("a", "b", "c")
        several = pd.DataFrame({"height": [1, 2, 3, 4, 5, 6], "weight": np.arange(6) / 2})
        assert from_arrays(X, several).arrays["y"].tolist() == several.to_numpy().tolist()
        with pytest.raises(InvalidData, match="y, column 'weight' is missing in row 0"):
            from_arrays(X, several.assign(weight=[np.nan, 1, 2, 3, 4, 5]))
        with pytest.raises(InvalidData, match="y has 2 columns; several targets are numbers"):
            from_arrays(X, several.assign(weight=Y))

    def test_declared_categories_are_the_classes_in_their_order(self) -> None:
        sizes = pd.Categorical(["m", "s", "m", "s", "m", "l"], ["s", "m", "l", "xl"], ordered=True)
        bundle = from_arrays(X, sizes, test=(X[:1], ["xl"]))
        assert bundle.manifest.class_names == ("s", "m", "l", "xl")
        assert bundle.arrays["y"].tolist() == [1, 0, 1, 0, 1, 2]
        assert bundle.arrays["test_y"].tolist() == [3]
        numbers = from_arrays(X, pd.Series([10, 9, 10, 9, 9, 9], dtype="category"))
        assert numbers.manifest.class_names == ("9", "10")


class TestSamples:
    def test_whole_numbers_are_compared_exactly(self) -> None:
        for value in (2**63 - 1, 2**24 + 1, -(2**53) - 1):
            with pytest.raises(InvalidData, match=f"X, row 1, column 0 is {value}"):
                from_arrays(np.array([[0], [value]]), ["a", "b"])
        held = np.array([[2**62], [-(2**63)]])
        assert from_arrays(held, ["a", "b"]).arrays["x"].tolist() == [[2.0**62], [-(2.0**63)]]
        with pytest.raises(InvalidData, match="row 0"):
            from_arrays(np.array([[2**64 - 1]], np.uint64), ["a"])

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_small_floats_of_torch(self, dtype: torch.dtype) -> None:
        found = from_arrays(torch.tensor(X).to(dtype), Y).arrays["x"]
        assert found.tolist() == X.tolist()

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (np.ma.masked_less(X, 1), "X, row 0 is masked"),
            (torch.tensor(X).to_sparse(), "X is no array of numbers"),
            (np.zeros((6, 28, 20, 3), np.uint8), r"channels last.*moveaxis"),
            (np.zeros((6, 28, 20, 1), np.uint8), r"channels last.*moveaxis"),
        ],
    )
    def test_samples_that_would_be_misunderstood(self, x: Any, message: str) -> None:
        with pytest.raises(InvalidData, match=message):
            from_arrays(x, Y)

    def test_a_mask_that_hides_nothing(self) -> None:
        assert from_arrays(np.ma.masked_less(X, -1), Y).arrays["x"].tolist() == X.tolist()
