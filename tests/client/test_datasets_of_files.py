"""From arrays, tables, images and texts to the one file that is uploaded."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file

from dropnorm.datasets import InvalidData, _requests, arrays, files, write_bundle
from dropnorm.datasets.arrays import from_arrays
from dropnorm.datasets.files import from_files, read_idx
from dropnorm.datasets.tables import from_frame

X = np.arange(12.0).reshape(6, 2)
Y = np.array(["b", "a", "b", "a", "b", "c"])


class TestTheFile:
    def test_is_safetensors_with_a_manifest(self, tmp_path: Path) -> None:
        path = tmp_path / "data"
        write_bundle(from_arrays(X, Y, feature_names=("one", "two")), path)
        found = load_file(path)
        np.testing.assert_array_equal(found["x"], X.astype(np.float32))
        assert found["y"].tolist() == [1, 0, 1, 0, 1, 2]
        length = int.from_bytes(path.read_bytes()[:8], "little")
        assert (8 + length) % 8 == 0
        metadata = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]
        manifest = json.loads(metadata["dropnorm"])
        assert manifest["class_names"] == ["a", "b", "c"]
        assert manifest["feature_names"] == ["one", "two"]

    def test_is_the_same_whenever_it_is_written(self, tmp_path: Path) -> None:
        sums = {write_bundle(from_arrays(X, Y), tmp_path / str(n)) for n in range(2)}
        assert len(sums) == 1


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
            (X, ["", "b", "", "b", "b", "b"], r"class_names\[0\]"),
            (X, ["a" * 201, "b", "b", "b", "b", "b"], r"class_names\[0\]"),
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

    def test_numbers_that_are_no_classes(self) -> None:
        with pytest.raises(InvalidData, match=r"y, row 1 is 0\.5"):
            from_arrays(X, [0, 0.5, 1, 0, 1, 0.0], task="classification")

    def test_classes_beyond_their_names(self) -> None:
        with pytest.raises(InvalidData, match="y, row 5 is class 2, which is none of 2"):
            from_arrays(X, [0, 1, 0, 1, 0, 2], class_names=("no", "yes"))


class TestTables:
    FRAME = pd.DataFrame(
        {
            "age": [30.0, None, 50, 40],
            "member": [True, False, True, True],
            "city": ["Rome", None, "Oslo", "Rome"],
            "count": [1, 2, 3, 4],
            "label": ["x", "y", "x", "y"],
        }
    )

    def test_columns_become_features_by_the_stated_rules(self) -> None:
        bundle = from_frame(self.FRAME, target="label")
        expected = {
            "age": [30, 40, 50, 40],  # the median of what is there
            "age is missing": [0, 1, 0, 0],
            "member": [1, 0, 1, 1],
            "city=Oslo": [0, 0, 1, 0],
            "city=Rome": [1, 0, 0, 1],
            "count": [1, 2, 3, 4],
        }
        assert list(bundle.manifest.feature_names) == list(expected)
        assert bundle.arrays["x"].T.tolist() == list(expected.values())
        assert bundle.manifest.class_names == ("x", "y")

    def test_the_last_column_is_the_target_unless_said(self) -> None:
        assert from_frame(self.FRAME).manifest.class_names == ("x", "y")
        assert from_frame(self.FRAME.dropna(), target="age").manifest.task == "regression"

    @pytest.mark.parametrize(
        ("column", "message"),
        [
            ([None] * 4, "has no value at all"),
            ([np.inf, 1, 2, 3], "row 0 is infinite"),
            (pd.date_range("2020-01-01", periods=4), "holds times"),
        ],
    )
    def test_columns_of_no_use(self, column: Any, message: str) -> None:
        frame = pd.DataFrame({"odd": column, "label": [0, 1, 0, 1]})
        with pytest.raises(InvalidData, match=f"'odd'.*{message}"):
            from_frame(frame)

    def test_too_many_categories(self) -> None:
        frame = pd.DataFrame(
            {"key": [f"k{n}" for n in range(1001)], "label": [0, 1, 0] * 333 + [1, 1]}
        )
        with pytest.raises(InvalidData, match=r"'key' has 1,001 categories"):
            from_frame(frame)

    def test_missing_targets_and_columns(self) -> None:
        with pytest.raises(InvalidData, match="target is missing in row 1"):
            from_frame(self.FRAME, target="age")
        with pytest.raises(InvalidData, match="no column 'price'"):
            from_frame(self.FRAME, target="price")

    def test_a_test_table_is_encoded_as_the_table_was(self) -> None:
        test = pd.DataFrame(
            {
                "age": [None, 20],
                "member": [False, None],  # missing here, and never there: no feature says so
                "city": ["Paris", "Oslo"],  # Paris was never there
                "count": [9, 8],
                "label": ["y", "x"],
            }
        ).astype({"member": "boolean"})
        bundle = from_frame(self.FRAME, target="label", test=(test, None))
        names = bundle.manifest.feature_names
        found = dict(zip(names, bundle.arrays["test_x"].T.tolist(), strict=True))
        assert found == {
            "age": [40, 20],
            "age is missing": [1, 0],
            "member": [0, 1],
            "city=Oslo": [0, 1],
            "city=Rome": [0, 0],
            "count": [9, 8],
        }
        assert bundle.arrays["test_y"].tolist() == [1, 0]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda table: table.drop(columns="city"), "'city' is in one of"),
            (lambda table: table.assign(more=1), "'more' is in one of"),
            (lambda table: table.assign(age="old"), "'age' is of numbers"),
            (lambda table: table[:0], "The test table is empty"),
            (lambda table: table.to_numpy(), "no pandas frame"),
        ],
    )
    def test_a_test_table_of_another_form(self, change: Any, message: str) -> None:
        with pytest.raises(InvalidData, match=message):
            from_frame(self.FRAME, target="label", test=(change(self.FRAME), None))

    @pytest.mark.parametrize("names", [["a", "a", "y"], ["a", "y", "y"]])
    def test_two_columns_of_one_name(self, names: list[str]) -> None:
        with pytest.raises(InvalidData, match="two columns"):
            from_frame(pd.DataFrame([[1, 2, 0], [3, 4, 1]], columns=names), target="y")

    def test_a_slip_in_a_column_of_numbers_is_found(self, tmp_path: Path) -> None:
        path = tmp_path / "table.csv"
        rows = [f"{n}x,0" if n == 1500 else f"{n},1" for n in range(2000)]
        path.write_text("\n".join(["amount,label", *rows]))
        with pytest.raises(
            InvalidData, match=r"'amount' has 2,000 categories.*row 1500 is '1500x'"
        ):
            from_files([path])

    def test_a_small_file_of_a_huge_table(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "table.parquet"
        pd.DataFrame({"a": np.zeros(10_000), "b": 0}).to_parquet(path)
        assert path.stat().st_size < 5_000
        monkeypatch.setattr("dropnorm.datasets.tables.MAX_VALUES", 19_999)
        with pytest.raises(InvalidData, match="10,000 rows of 2 columns"):
            from_files([path])

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_files(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"table.{suffix}"
        if suffix == "csv":
            self.FRAME.to_csv(path, index=False)
        else:
            self.FRAME.to_parquet(path)
        bundle = from_files([path])
        assert bundle.arrays["x"].shape == (4, 6)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.csv", b"a,b\n1,2\n1,2,3\n", "line 3"),
            ("a.csv", b"a,b\n1,2,3\n", "no table"),
            ("a.csv", b"", "no table"),
            ("a.csv", b"a,b\n\xff,1\n", "not UTF-8 at byte"),
            ("a.parquet", b"PAR1", "no Parquet file"),
        ],
    )
    def test_broken_files(self, tmp_path: Path, name: str, content: bytes, message: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidData, match=message):
            from_files([tmp_path / name])


def idx(values: Any) -> bytes:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return header + bytes(values.tobytes())


class TestFiles:
    IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    LABELS = np.array([0, 1, 2, 1, 0], np.uint8)

    def test_npz(self, tmp_path: Path) -> None:
        path = tmp_path / "data.npz"
        np.savez_compressed(path, X=X, y=Y, X_test=X[:2], y_test=Y[:2])
        bundle = from_files([path])
        assert set(bundle.arrays) == {"x", "y", "test_x", "test_y"}

    def test_objects_in_an_npz_are_not_unpickled(self, tmp_path: Path) -> None:
        path = tmp_path / "data.npz"
        np.savez(path, X=np.array([{}], dtype=object), y=np.array([1]))
        with pytest.raises(InvalidData, match="no npz file of plain arrays"):
            from_files([path])

    def test_a_zip_bomb_is_refused_unread(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "data.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("X.npy", b"\0" * 10_000_000)
        monkeypatch.setattr(files, "MAX_BYTES", 1_000_000)
        with pytest.raises(InvalidData, match="unfolds to 10,000,000 bytes"):
            from_files([path])

    def test_an_npz_that_promises_more_than_it_has(self, tmp_path: Path) -> None:
        path, header = tmp_path / "data.npz", io.BytesIO()
        facts = {"descr": "<f8", "fortran_order": False, "shape": (10**14,)}
        np.lib.format.write_array_header_1_0(header, facts)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("X.npy", header.getvalue())
        with pytest.raises(InvalidData, match="no npz file of plain arrays; X: "):
            from_files([path])

    @given(st.data())
    @settings(
        max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
    )
    def test_a_damaged_file_is_a_clear_error(self, tmp_path: Path, data: st.DataObject) -> None:
        suffix = data.draw(st.sampled_from(["npz", "parquet", "idx.gz", "csv"]))
        path = tmp_path / f"damaged.{suffix}"
        if suffix == "npz":
            np.savez_compressed(path, X=X, y=Y)
        elif suffix == "idx.gz":
            path.write_bytes(gzip.compress(idx(self.IMAGES)))
        else:
            frame = TestTables.FRAME
            frame.to_csv(path) if suffix == "csv" else frame.to_parquet(path)
        content = bytearray(path.read_bytes())
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
        path.write_bytes(content)
        with suppress(InvalidData):
            from_files([path, path] if suffix == "idx.gz" else [path])

    @pytest.mark.parametrize("gzipped", [False, True])
    def test_idx(self, tmp_path: Path, gzipped: bool) -> None:
        names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
        paths = [tmp_path / (name + ".gz" * gzipped) for name in names]
        for path, values in zip(paths, (self.IMAGES, self.LABELS), strict=True):
            path.write_bytes(gzip.compress(idx(values)) if gzipped else idx(values))
        bundle = from_files(paths)
        np.testing.assert_array_equal(bundle.arrays["x"][:, 0], self.IMAGES)
        assert bundle.arrays["y"].tolist() == self.LABELS.tolist()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "byte 0"),
            (b"\0\1\x08\x01", "byte 1"),
            (b"\0\0\x07\x01", "byte 2"),
            (b"\0\0\x08\x02\0\0\0\1", "within its header"),
            (b"\0\0\x08\x64" + b"\0\0\0\1" * 100 + b"a", "100 dimensions at byte 3"),
            (b"\0\0\x08\x01\0\0\0\x09abc", "has 11 bytes and its header says 17"),
        ],
    )
    def test_broken_idx(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "x.idx"
        path.write_bytes(content)
        with pytest.raises(InvalidData, match=message):
            read_idx(path)

    @given(
        st.binary(max_size=60), st.sampled_from(["npz", "csv", "parquet", "idx", "txt", "idx.gz"])
    )
    @settings(
        max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
    )
    def test_any_bytes_are_a_data_set_or_a_clear_error(
        self, tmp_path: Path, content: bytes, suffix: str
    ) -> None:
        path = tmp_path / f"any.{suffix}"
        path.write_bytes(content)
        # Anything else than InvalidData, a warning too, fails here.
        with suppress(InvalidData):
            from_files([path, path] if "idx" in suffix else [path])

    def test_unknown_kinds_and_missing_files(self, tmp_path: Path) -> None:
        (tmp_path / "x.pkl").write_bytes(b"")
        with pytest.raises(InvalidData, match="no known kind"):
            from_files([tmp_path / "x.pkl"])
        with pytest.raises(FileNotFoundError):
            from_files([tmp_path / "none.csv"])


class TestImages:
    def folder(self, root: Path, colours: bool = False) -> Path:
        for index, name in enumerate(("cat", "dog")):
            (root / name).mkdir(parents=True)
            for number in range(2):
                level = 100 * index + number
                pixel: Any = (level, 0, 9) if colours else level
                Image.new("RGB" if colours else "L", (5, 4), pixel).save(
                    root / name / f"{number}.png"
                )
        return root

    def test_grey(self, tmp_path: Path) -> None:
        bundle = from_files([self.folder(tmp_path)])
        assert bundle.arrays["x"].shape == (4, 1, 4, 5)
        assert bundle.arrays["x"][:, 0, 0, 0].tolist() == [0, 1, 100, 101]
        assert bundle.manifest.class_names == ("cat", "dog")

    def test_colour_and_size(self, tmp_path: Path) -> None:
        bundle = from_files([self.folder(tmp_path, colours=True)], size=(8, 6))
        assert bundle.arrays["x"].shape == (4, 3, 8, 6)
        assert bundle.arrays["x"][3, :, 0, 0].tolist() == [101, 0, 9]

    def test_images_that_are_none_or_differ(self, tmp_path: Path) -> None:
        root = self.folder(tmp_path)
        Image.new("L", (7, 7)).save(root / "dog" / "9.png")
        with pytest.raises(InvalidData, match=r"9\.png has 7 x 7 pixels and .*0\.png 4 x 5"):
            from_files([root])
        (root / "dog" / "9.png").write_bytes(b"\x89PNG nothing")
        with pytest.raises(InvalidData, match=r"9\.png is no image"):
            from_files([root])

    def test_links_and_empty_classes(self, tmp_path: Path) -> None:
        root = self.folder(tmp_path / "images")
        (tmp_path / "secret.png").write_bytes((root / "cat" / "0.png").read_bytes())
        (root / "cat" / "7.png").symlink_to(tmp_path / "secret.png")
        with pytest.raises(InvalidData, match="link out of"):
            from_files([root])
        (root / "cat" / "7.png").unlink()
        (root / "empty").mkdir()
        with pytest.raises(InvalidData, match="'empty'"):
            from_files([root])

    def test_more_bits_than_a_byte_are_not_cut_off(self, tmp_path: Path) -> None:
        root = self.folder(tmp_path)
        Image.new("I;16", (5, 4), 5000).save(root / "dog" / "9.png")
        with pytest.raises(InvalidData, match="more than 8 bits"):
            from_files([root])

    def test_images_of_too_many_bytes_together(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("dropnorm.datasets.images.MAX_BYTES", 79)
        with pytest.raises(InvalidData, match=r"up to .*dog/1\.png unfold to more than 79"):
            from_files([self.folder(tmp_path)])

    def test_an_image_of_too_many_pixels(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("dropnorm.datasets.images.MAX_PIXELS", 10)
        with pytest.raises(InvalidData, match="has 20 pixels"):
            from_files([self.folder(tmp_path)])


class TestTexts:
    def test_a_text_in_pieces(self, tmp_path: Path) -> None:
        path = tmp_path / "text.txt"
        path.write_text("abcabcabcab")
        bundle = from_files([path], length=4)
        assert bundle.manifest.vocabulary == ("a", "b", "c")
        assert bundle.arrays["x"].tolist() == [[1, 5, 6, 7]] * 3
        assert bundle.arrays["y"].shape == (3, 0)

    def test_only_line_feeds_end_lines(self, tmp_path: Path) -> None:
        (tmp_path / "s.txt").write_text("a\u2028b\x0cc\nd\n")
        (tmp_path / "t.txt").write_text("x\ny")
        bundle = from_files([tmp_path / "s.txt", tmp_path / "t.txt"])
        assert [len(bundle.arrays[name]) for name in "xy"] == [2, 2]

    def test_pairs_of_lines(self, tmp_path: Path) -> None:
        (tmp_path / "en.txt").write_text("good day\nday\n")
        (tmp_path / "de.txt").write_text("guten tag\ntag\n")
        bundle = from_files([tmp_path / "en.txt", tmp_path / "de.txt"], tokens="words")
        assert bundle.manifest.vocabulary == ("day", "good")
        assert bundle.manifest.separator == " "
        assert bundle.arrays["x"].tolist() == [[6, 5, 2], [5, 2, 0]]
        assert bundle.arrays["y"].tolist() == [[1, 5, 6, 2], [1, 6, 2, 0]]

    @pytest.mark.parametrize(
        ("source", "target", "message"),
        [
            (b"a\n\nb\n", b"a\nb\nc\n", r"s\.txt, line 2 is empty"),
            (b"a\nb\n", b"a\n", "has 2 lines and .* has 1"),
            (b"a\n", b"\xff\n", r"t\.txt is not UTF-8 at byte 0"),
            (b"a" * 5000 + b"\n", b"a\n", "line 1 has more than"),
        ],
    )
    def test_what_is_wrong_with_pairs(
        self, tmp_path: Path, source: bytes, target: bytes, message: str
    ) -> None:
        (tmp_path / "s.txt").write_bytes(source)
        (tmp_path / "t.txt").write_bytes(target)
        with pytest.raises(InvalidData, match=message):
            from_files([tmp_path / "s.txt", tmp_path / "t.txt"])


def test_a_target_column_is_for_frames() -> None:
    with pytest.raises(InvalidData, match="column of a pandas frame"):
        _requests.bundle_of(X, Y, "label", None, None, None)


def test_numpy_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    with pytest.raises(ImportError, match=r"dropnorm\[data\]"):
        arrays.from_arrays([[1.0]], [0])
