"""From pandas frames, CSV and Parquet files to a data set."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet

from dropnorm.datasets import InvalidData, limits
from dropnorm.datasets.files import from_files
from dropnorm.datasets.tables import from_frame


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
            ([np.inf, 1, 2, 3], "row 0 is inf"),
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
        with pytest.raises(InvalidData, match="'age' is missing in row 1"):
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
            InvalidData, match=r"'amount': most are numbers, but line 1502 is '1500x'"
        ):
            from_files([path])

    def test_a_small_file_of_a_huge_table(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "table.parquet"
        pd.DataFrame({"a": np.zeros(10_000), "b": 0}).to_parquet(path)
        assert path.stat().st_size < 5_000
        monkeypatch.setattr("dropnorm.datasets.table_files.MAX_VALUES", 19_999)
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
            ("a.csv", b"a,b\n\xff,1\n", "not UTF-8 at byte 4, line 2"),
            ("a.parquet", b"PAR1", "no Parquet file"),
        ],
    )
    def test_broken_files(self, tmp_path: Path, name: str, content: bytes, message: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidData, match=message):
            from_files([tmp_path / name])


class TestKindsOfColumns:
    LABEL = ("x", "y", "x", "y")

    def feature(self, column: Any) -> Any:
        bundle = from_frame(pd.DataFrame({"a": column, "label": self.LABEL}))
        return bundle.manifest.feature_names, bundle.arrays["x"].T.tolist()

    @pytest.mark.parametrize(
        ("column", "names", "values"),
        [
            ([Decimal("1.5"), Decimal(2), None, Decimal(3)], ("a", "a is missing"), [1.5, 2, 2, 3]),
            ([True, None, False, True], ("a", "a is missing"), [1, 1, 0, 1]),
            (pd.array([1, 2, 3, 4], "Int64"), ("a",), [1, 2, 3, 4]),
            (["10", "9", "10", "9"], ("a=10", "a=9"), [1, 0, 1, 0]),
            (pd.Categorical([10, 9, 10, 9]), ("a=9", "a=10"), [0, 1, 0, 1]),
            (pd.Categorical(list("smsm"), list("smx")), ("a=s", "a=m", "a=x"), [1, 0, 1, 0]),
            ([b"p", b"q", b"p", b"q"], ("a=p", "a=q"), [1, 0, 1, 0]),
        ],
    )
    def test_by_what_they_hold(self, column: Any, names: Any, values: Any) -> None:
        found, features = self.feature(column)
        assert (found, features[0]) == (names, values)

    @pytest.mark.parametrize(
        ("column", "message"),
        [
            ([[1], [2], [3], [4]], "row 0 is of the type list"),
            ([{"b": 1}] * 4, "row 0 is of the type dict"),
            ([1j, 2, 3, 4], "row 0 is of the type complex|complex"),
            ([b"\xff", b"a", b"b", b"c"], "row 0 is bytes that are no UTF-8"),
            ([datetime.date(2026, 1, 1)] * 4, "holds times"),
            ([datetime.time(12)] * 4, "holds times"),
            (pd.period_range("2026", periods=4, freq="M"), "holds times"),
            (pd.Categorical(pd.date_range("2026", periods=4)), "holds times"),
            (["2026-01-31", "2026-02-01T12:00", None, "2026-02-01 12:00:00+01:00"], "holds times"),
            ([1, 2, 2**24 + 1, 4], f"row 2 is {2**24 + 1}"),
            (pd.array([1, None, 2**53 + 1, 4], "Int64"), f"row 2 is {2**53 + 1}"),
            ([1, 2**70 + 1, 3, 4], f"row 1 is {2**70 + 1}"),
            ([10**400, 1, 2, 3], "row 0 is 1000"),
            ([1.0, 2.0, 1e39, 4.0], r"row 2 is 1e\+39"),
            (["1", "2", "3", "4x"], "most are numbers, but row 3 is '4x'"),
            (["p" * 201, "q", "p", "q"], "A feature would be called"),
        ],
    )
    def test_of_no_use(self, column: Any, message: str) -> None:
        with pytest.raises(InvalidData, match=message) as caught:
            self.feature(column)
        assert "a" in str(caught.value)

    def test_of_the_target(self) -> None:
        frame = pd.DataFrame({"a": [1, 2, 3, 4], "t": [Decimal("1.5")] * 4})
        assert from_frame(frame).arrays["y"].tolist() == [[1.5]] * 4
        frame["t"] = ["1", "2", "3", "4x"]
        with pytest.raises(InvalidData, match="Target 't': most are numbers, but row 3"):
            from_frame(frame)
        assert len(from_frame(frame, task="classification").manifest.class_names) == 4
        frame["t"] = [datetime.date(2026, 1, 1)] * 4
        with pytest.raises(InvalidData, match="Target 't' holds times"):
            from_frame(frame)

    def test_targets_beside_the_table(self) -> None:
        frame = pd.DataFrame({"a": [1, 2, 3, 4], "b": [5, 6, 7, 8]})
        bundle = from_frame(frame[["a"]], frame[["b"]] / 2)
        assert bundle.arrays["y"].tolist() == [[2.5], [3], [3.5], [4]]
        assert from_frame(frame, pd.Series(self.LABEL)).manifest.class_names == ("x", "y")
        with pytest.raises(InvalidData, match="Give y, or target='b'"):
            from_frame(frame, [0, 1, 0, 1], target="b")
        with pytest.raises(InvalidData, match="The test table has no targets"):
            from_frame(frame, [0, 1, 0, 1], test=(frame, None))

    def test_numbers_in_the_test_table_of_a_column_of_text(self) -> None:
        frame = pd.DataFrame({"a": list("pqpq"), "label": self.LABEL})
        with pytest.raises(InvalidData, match="'a' is of text, and of numbers in the test table"):
            from_frame(frame, test=(frame.assign(a=1), None))

    def test_columns_without_a_name(self) -> None:
        with pytest.raises(InvalidData, match="no name for column 2"):
            from_frame(pd.DataFrame([[1, 2, 0], [3, 4, 1]], columns=["a", " ", "y"]))


class TestCsv:
    def read(self, folder: Path, text: str | bytes, **given: Any) -> Any:
        path = folder / "table.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return from_files([path], **given)

    def test_only_what_is_empty_is_missing_in_text(self, tmp_path: Path) -> None:
        bundle = self.read(tmp_path, "land,label\nNA,p\nNone,q\n,p\nnull,q\n")
        assert bundle.manifest.feature_names == ("land=NA", "land=None", "land=null")
        assert bundle.arrays["x"].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]

    def test_words_for_what_is_missing_among_numbers(self, tmp_path: Path) -> None:
        text = "a,label\n1,p\nNA,q\nNaN,p\nnan,p\nnull,q\nN/A,q\n,p\n3,q\n"
        bundle = self.read(tmp_path, text)
        assert bundle.manifest.feature_names == ("a", "a is missing")
        assert bundle.arrays["x"][:, 1].tolist() == [0, 1, 1, 1, 1, 1, 1, 0]

    def test_a_mark_of_the_byte_order_is_no_name(self, tmp_path: Path) -> None:
        bundle = self.read(tmp_path, b'\xef\xbb\xbf"a",label\n1,p\n2,q\n')
        assert bundle.manifest.feature_names == ("a",)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a,a,label\n1,2,p\n", r"table\.csv has two columns 'a'; rename one"),
            ("a,,label\n1,2,p\n", r"table\.csv has no name for column 2; give it one"),
            ("a,label\n1,p\n\n2,q\n12x,p\n3,q\n", r"table\.csv: Column 'a': .*line 5 is '12x'"),
            ("a,label\n1,p\n12x,q\nNA,p\n3,q\n4,q\n", "line 3 is '12x'"),
            ('a,label\n"x\ny",p\n1,\n', "is missing in line 4"),
            ("a,label\n1,p\ninf,q\n", "line 3 is inf"),
            (f"a,label\n{2**24 + 1},p\n,q\n", f"line 2 is {2**24 + 1}"),
            ("a,label\n2026-01-31,p\n2026-02-01,q\n", r"table\.csv: Column 'a' holds times"),
            ("a,label\n1,p\n1,2,3\n", "line 3 has 3 fields and the names are 2"),
            ("a,label\n1,2,3\n1,2,3\n", "line 2 has 3 fields and the names are 2"),
            ('a,label\n1,p\n2,"q\n', "a quotation mark in line 3 is never closed"),
            (b"a,label\n1,p\n2,\xff\n", "not UTF-8 at byte 14, line 3"),
            (b"a,label\n" + b"1,p\n" * 200_000 + b"2,\xff\n", "at byte 800010, line 200002"),
        ],
    )
    def test_the_line_is_named(self, tmp_path: Path, text: str | bytes, message: str) -> None:
        with pytest.raises(InvalidData, match=message):
            self.read(tmp_path, text)


class TestParquet:
    def write(self, folder: Path, columns: Any, names: Any = None) -> Path:
        path = folder / "table.parquet"
        table = pyarrow.table(columns, names=names) if names else pyarrow.table(columns)
        parquet.write_table(table, path)
        return path

    @pytest.mark.parametrize(
        ("column", "message"),
        [
            ([[1], [2]], "column 'a' holds list"),
            ([{"b": 1}, {"b": 2}], "column 'a' holds struct"),
            ([b"\xff", b"a"], "Column 'a', row 0 is bytes that are no UTF-8"),
            ([datetime.date(2026, 1, 1)] * 2, "Column 'a' holds times"),
            ([datetime.time(1)] * 2, "Column 'a' holds times"),
        ],
    )
    def test_columns_of_no_use(self, tmp_path: Path, column: Any, message: str) -> None:
        with pytest.raises(InvalidData, match=message):
            from_files([self.write(tmp_path, {"a": column, "label": ["p", "q"]})])

    def test_columns_of_text_and_decimals(self, tmp_path: Path) -> None:
        columns = {
            "s": ["u", None],
            "l": pyarrow.array(["u", "v"], pyarrow.large_string()),
            "b": [b"u", b"v"],
            "d": [Decimal("1.50"), Decimal("2.25")],
            "label": ["p", "q"],
        }
        bundle = from_files([self.write(tmp_path, columns)])
        assert bundle.manifest.feature_names == ("s=u", "l=u", "l=v", "b=u", "b=v", "d")
        assert bundle.arrays["x"][:, -1].tolist() == [1.5, 2.25]

    def test_two_columns_of_one_name(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, [[1], [2], ["p"]], ["a", "a", "label"])
        with pytest.raises(InvalidData, match=r"table\.parquet has two columns 'a'"):
            from_files([path])

    def test_what_unfolds_to_too_much(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = self.write(tmp_path, {"a": np.random.default_rng(0).random(1000), "b": [0] * 1000})
        monkeypatch.setattr(limits, "MAX_BYTES", 5000)
        with pytest.raises(InvalidData, match=r"unfolds to [\d,]+ bytes, more than 5,000"):
            from_files([path])
        path = self.write(tmp_path, {"a": ["long " * 20] * 1000, "b": [0] * 1000})
        with pytest.raises(InvalidData, match="'a' has a text of 100 bytes and 1,000 rows"):
            from_files([path])
