"""From npz, IDX and texts to the one file that is uploaded."""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from typer.testing import CliRunner

from dropnorm.cli.datasets import app
from dropnorm.datasets import InvalidData, limits, write_bundle
from dropnorm.datasets.arrays import from_arrays
from dropnorm.datasets.files import from_files
from dropnorm.datasets.idx import is_idx, read_idx

X = np.arange(12.0).reshape(6, 2)
Y = np.array(["b", "a", "b", "a", "b", "c"])
FRAME = pd.DataFrame(
    {"age": [30.0, None, 50], "city": ["Rome", None, "Oslo"], "label": ["x", "y", "x"]}
)


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
            archive.writestr("y.npy", b"")
        monkeypatch.setattr(limits, "MAX_BYTES", 1_000_000)
        with pytest.raises(InvalidData, match="unfolds to 10,000,000 bytes"):
            from_files([path])

    def test_an_npz_that_promises_more_than_it_has(self, tmp_path: Path) -> None:
        path, header = tmp_path / "data.npz", io.BytesIO()
        facts = {"descr": "<f8", "fortran_order": False, "shape": (10**14,)}
        np.lib.format.write_array_header_1_0(header, facts)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("X.npy", header.getvalue())
            archive.writestr("y.npy", header.getvalue())
        with pytest.raises(
            InvalidData, match=r"no npz file of plain arrays; X\.npy: it has 0 bytes"
        ):
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
            frame = FRAME
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
            (b"\0\0\x08\x01\0\0\0\x09abc", "ends at byte 11, and its header says 17"),
            (b"\0\0\x08\x01\0\0\0\1abc", "goes on behind byte 9"),
        ],
    )
    def test_broken_idx(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "x.idx"
        path.write_bytes(content)
        with pytest.raises(InvalidData, match=message):
            read_idx(path)

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"X": X, "y": Y, "X_test": X}, "X_test without y_test"),
            ({"X": X, "y": Y, "y_test": Y}, "y_test without X_test"),
            ({"X": X, "x": X, "y": Y}, r"the arrays X\.npy and x\.npy; leave one out"),
            ({"X": X, "y": Y[:3]}, r"data\.npz: X has 6 rows and y has 3"),
        ],
    )
    def test_what_an_npz_has_too_much_or_not(
        self, tmp_path: Path, arrays: Any, message: str
    ) -> None:
        np.savez(tmp_path / "data.npz", **arrays)
        with pytest.raises(InvalidData, match=message):
            from_files([tmp_path / "data.npz"])

    def test_other_arrays_of_an_npz_are_not_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "data.npz"
        np.savez_compressed(path, X=X, y=Y, notes=np.array([{}]), large=np.zeros(10_000))
        monkeypatch.setattr(limits, "MAX_BYTES", 10_000)
        assert len(from_files([path]).arrays["x"]) == 6

    @pytest.mark.parametrize(
        "name",
        ["x.idx", "x.idx.gz", "x.idx3-ubyte", "x.idx3-ubyte.gz", "x-idx3-ubyte", "x-idx1-ubyte.GZ"],
    )
    def test_names_of_idx_files(self, name: str) -> None:
        assert is_idx(Path(name))
        assert not is_idx(Path(name + ".txt"))

    def test_no_more_of_a_gzipped_idx_is_unfolded_than_its_header_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "x.idx1-ubyte.gz"
        path.write_bytes(gzip.compress(idx(self.LABELS)) + gzip.compress(bytes(10**6)) + b"damage")
        with pytest.raises(InvalidData, match="goes on behind byte 13"):
            read_idx(path)
        path.write_bytes(gzip.compress(idx(self.LABELS))[:-9])
        with pytest.raises(InvalidData, match=r"x\.idx1-ubyte\.gz is damaged behind byte"):
            read_idx(path)
        path.write_bytes(gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12))
        with pytest.raises(InvalidData, match="bytes by its header, more than"):
            read_idx(path)

    def test_more_than_there_is_memory_for(self, tmp_path: Path) -> None:
        path = tmp_path / "data.npz"
        np.savez_compressed(path, X=np.zeros((4, 10**8), np.uint8), y=np.arange(4))
        program = """if True:
            import resource, sys
            from pathlib import Path
            import numpy
            from dropnorm.datasets import InvalidData
            from dropnorm.datasets.files import from_files
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 10**8, used + 10**8))
            try:
                from_files([Path(sys.argv[1])])
            except InvalidData as error:
                print(error)
        """
        command = [sys.executable, "-c", program, str(path)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert "data.npz takes more memory than there is" in said

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
            (b"a\n", b"\xff\n", r"t\.txt is not UTF-8 at byte 0, line 1"),
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

    def test_a_table_s_column_of_texts(self, tmp_path: Path) -> None:
        path = tmp_path / "reviews.csv"
        path.write_text("when,review,stars\n2026-01-31,good,5\n2026-02-01,not good,1\n")
        bundle = from_files([path], text="review", tokens="words", length=16)
        assert bundle.manifest.vocabulary == ("good", "not")
        assert bundle.arrays["x"].tolist() == [[1, 5, 0], [1, 6, 5]]
        path.write_text("review,stars\ngood,5\n,1\n")
        with pytest.raises(InvalidData, match=r"reviews\.csv: Column 'review', line 3"):
            from_files([path], text="review")
        with pytest.raises(InvalidData, match="text names a column of a table"):
            from_files([tmp_path], text="review")

    def test_a_mark_of_the_byte_order_is_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "text.txt"
        path.write_bytes(b"\xef\xbb\xbf" + b"abc" * 9)
        assert from_files([path], length=4).manifest.vocabulary == ("a", "b", "c")
        path.write_bytes(b"\xef\xbb\xbfab\n\xff")
        with pytest.raises(InvalidData, match="at byte 6, line 2"):
            from_files([path], length=4)

    def test_words_that_are_all_too_long(self, tmp_path: Path) -> None:
        path = tmp_path / "text.txt"
        path.write_text(" ".join(["a" * 201] * 20))
        with pytest.raises(InvalidData, match=r"text\.txt has no word of 200 characters or fewer"):
            from_files([path], tokens="words", length=4)


def test_pack_names_the_file_as_it_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", X=X, y=Y)
    output = tmp_path / "[red].st"
    done = CliRunner().invoke(app, ["pack", str(output), str(tmp_path / "data.npz")])
    assert done.exit_code == 0
    assert "[red].st is written" in done.stderr
