"""From folders of images to a data set."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dropnorm.datasets import InvalidData, limits
from dropnorm.datasets.files import from_files


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
        monkeypatch.setattr(limits, "MAX_BYTES", 79)
        with pytest.raises(
            InvalidData, match=r"4 images of 1 x 4 x 5 bytes unfold to 80, more than 79"
        ):
            from_files([self.folder(tmp_path)])

    def test_an_image_of_too_many_pixels(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("dropnorm.datasets.images.MAX_PIXELS", 10)
        with pytest.raises(InvalidData, match="has 20 pixels"):
            from_files([self.folder(tmp_path)])


class TestWhatIsTaken:
    def save(self, path: Path, image: Image.Image, **given: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **given)

    def pixel(self, folder: Path, suffix: str, image: Image.Image, **given: Any) -> Any:
        self.save(folder / "class" / f"x.{suffix}", image, **given)
        return from_files([folder]).arrays["x"][0, :, 0, 0].tolist()

    def test_a_file_of_another_format_by_its_content(self, tmp_path: Path) -> None:
        for kind in ("EPS", "TIFF"):
            self.save(tmp_path / "class" / "x.png", Image.new("L", (5, 4)), format=kind)
            with pytest.raises(InvalidData, match=r"x\.png is no image that can be read"):
                from_files([tmp_path])

    def test_transparent_pixels_are_before_white(self, tmp_path: Path) -> None:
        assert self.pixel(tmp_path, "png", Image.new("RGBA", (5, 4), (9, 0, 0, 0))) == [255] * 3
        assert self.pixel(tmp_path, "png", Image.new("LA", (5, 4), (7, 255))) == [7]
        palette = Image.new("P", (5, 4), 1)
        palette.putpalette([9, 8, 7, 1, 2, 3])
        given = {"transparency": bytes([0, 255])}  # which Pillow warns of
        assert self.pixel(tmp_path, "png", palette, **given) == [1, 2, 3]

    def test_palettes_of_greys_are_grey(self, tmp_path: Path) -> None:
        palette = Image.new("P", (5, 4), 1)
        palette.putpalette([0, 0, 0, 77, 77, 77])
        assert self.pixel(tmp_path, "png", palette) == [77]

    def test_photographs_are_turned(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[274] = 6  # to be turned by a quarter
        self.save(tmp_path / "class" / "x.jpg", Image.new("L", (5, 4)), exif=exif)
        assert from_files([tmp_path]).arrays["x"].shape == (1, 1, 5, 4)

    def test_the_first_picture_of_an_animation(self, tmp_path: Path) -> None:
        frames = [Image.new("L", (5, 4), level) for level in (40, 90)]
        assert self.pixel(tmp_path, "gif", frames[0], save_all=True, append_images=frames[1:]) == [
            40
        ]

    @pytest.mark.parametrize(("colour", "values"), [(2, 3), (4, 2), (6, 4)])
    def test_16_bits_of_every_kind_are_refused(
        self, tmp_path: Path, colour: int, values: int
    ) -> None:
        def chunk(name: bytes, data: bytes) -> bytes:
            check = struct.pack(">I", zlib.crc32(name + data))
            return struct.pack(">I", len(data)) + name + data + check

        header = struct.pack(">IIBBBBB", 1, 1, 16, colour, 0, 0, 0)
        data = chunk(b"IDAT", zlib.compress(b"\0" + b"\1\2" * values))
        path = tmp_path / "class" / "x.png"
        path.parent.mkdir()
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b""))
        with pytest.raises(InvalidData, match=r"more than 8 bits per value \(16\)"):
            from_files([tmp_path])

    def test_grey_images_among_those_in_colour(self, tmp_path: Path) -> None:
        for number, image in enumerate(
            (
                Image.new("L", (5, 4), 7),
                Image.new("RGB", (5, 4), (1, 2, 3)),
                Image.new("L", (5, 4), 8),
            )
        ):
            self.save(tmp_path / "class" / f"{number}.png", image)
        found = from_files([tmp_path]).arrays["x"]
        assert found[:, :, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3], [8, 8, 8]]

    def test_hidden_files_and_folders_are_not_looked_at(self, tmp_path: Path) -> None:
        self.save(tmp_path / "cat" / "x.png", Image.new("L", (5, 4)))
        for name in (".ipynb_checkpoints/x.png", "cat/._x.png", "cat/.cache/x.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"none")
        assert from_files([tmp_path]).manifest.class_names == ("cat",)

    def test_files_that_would_be_left_out(self, tmp_path: Path) -> None:
        self.save(tmp_path / "cat" / "x.png", Image.new("L", (5, 4)))
        self.save(tmp_path / "cat" / "y.tiff", Image.new("L", (5, 4)))
        with pytest.raises(InvalidData, match=r"y\.tiff is no image by its name"):
            from_files([tmp_path])
        (tmp_path / "cat" / "y.tiff").unlink()
        self.save(tmp_path / "z.png", Image.new("L", (5, 4)))
        with pytest.raises(InvalidData, match=r"z\.png is in no folder of a class"):
            from_files([tmp_path])

    def test_splits_of_their_own(self, tmp_path: Path) -> None:
        for name, level in (
            ("train/cat/1", 1),
            ("train/dog/2", 2),
            ("train/dog/3", 3),
            ("test/dog/4", 4),
        ):
            self.save(tmp_path / f"{name}.png", Image.new("L", (5, 4), level))
        bundle = from_files([tmp_path])
        assert bundle.manifest.class_names == ("cat", "dog")
        assert bundle.arrays["y"].tolist() == [0, 1, 1]
        assert bundle.arrays["test_y"].tolist() == [1]
        assert bundle.arrays["test_x"][:, 0, 0, 0].tolist() == [4]
        self.save(tmp_path / "test" / "cow" / "5.png", Image.new("L", (5, 4)))
        with pytest.raises(InvalidData, match="cow is of a class that train has not"):
            from_files([tmp_path])
        self.save(tmp_path / "val" / "cat" / "6.png", Image.new("L", (5, 4)))
        with pytest.raises(InvalidData, match="has the splits test, train, val"):
            from_files([tmp_path])

    def test_sizes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.save(tmp_path / "class" / "x.png", Image.new("L", (50, 40)))
        with pytest.raises(InvalidData, match=r"99999 x 99999 is not 1 to 16,777,216 pixels"):
            from_files([tmp_path], size=(99999, 99999))
        monkeypatch.setattr("dropnorm.datasets.images.MAX_PIXELS", 100)
        with pytest.raises(InvalidData, match="has 2,000 pixels, more than 100; give a size"):
            from_files([tmp_path])
        assert from_files([tmp_path], size=(8, 8)).arrays["x"].shape == (1, 1, 8, 8)
        monkeypatch.setattr(limits, "MAX_BYTES", 63)
        (tmp_path / "class" / "x.png").write_bytes(b"never read")
        with pytest.raises(InvalidData, match="unfold to 64, more than 63"):
            from_files([tmp_path], size=(8, 8))
