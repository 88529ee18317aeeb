"""Original files: read right, and refused with the file and the byte where they are wrong."""

import gzip
import io
import os
import struct
import tarfile
from pathlib import Path

import pytest
import torch
from tests.service.training.made import (
    IDX_NAMES,
    cifar_files,
    cifar_info,
    idx,
    idx_dataset,
    tar,
)

from dropnorm_service.training import BadData
from dropnorm_service.training.data.idx import read_idx

PIXELS = torch.arange(2 * 3 * 4).view(2, 3, 4).to(torch.uint8)
HEADER = 16


def written(folder: Path, content: bytes | bytearray, name: str = "images-idx3-ubyte") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["images-idx3-ubyte", "images-idx3-ubyte.gz"])
def test_idx_is_read_plain_and_gzipped(tmp_path, name):
    content = idx(PIXELS)
    path = written(tmp_path, gzip.compress(content) if name.endswith(".gz") else content, name)
    assert torch.equal(read_idx(path, (2, 3, 4)), PIXELS)


@pytest.mark.parametrize(
    ("content", "byte", "says"),
    [
        (b"", 0, "nothing"),
        (b"\x00\x00\x08\x01" + idx(PIXELS)[4:], 0, "begins with 00 00 08 01"),
        (b"\x00\x00\x0d\x03" + idx(PIXELS)[4:], 0, "begins with 00 00 0d 03"),
        (idx(PIXELS)[:10], 10, "within its header"),
        (idx(PIXELS[:1]), 4, "announces 1 along axis 0, not 2"),
        (idx(PIXELS.view(2, 4, 3)), 8, "announces 4 along axis 1, not 3"),
        (idx(PIXELS)[:-3], HEADER + 21, "3 bytes too early"),
        (idx(PIXELS) + b"\x00", HEADER + 24, "goes on"),
        (struct.pack(">HBB3I", 0, 8, 3, 2, 3, 4), HEADER, "24 bytes too early"),
    ],
)
def test_broken_idx_is_refused_with_file_and_byte(tmp_path, content, byte, says):
    path = written(tmp_path, content)
    with pytest.raises(BadData, match=says) as raised:
        read_idx(path, (2, 3, 4))
    assert raised.value.metadata == {"file": str(path), "byte": str(byte)}
    assert path.name in raised.value.message


@pytest.mark.parametrize("damage", ["cut", "scrambled", "not gzip"])
def test_broken_compression_is_refused(tmp_path, damage):
    packed = bytearray(gzip.compress(idx(torch.randint(0, 256, (2, 100, 100)))))
    if damage == "cut":
        packed = packed[: len(packed) // 2]
    elif damage == "scrambled":
        packed[len(packed) // 2 :] = bytes(len(packed) - len(packed) // 2)
    else:
        packed[:2] = b"no"
    path = written(tmp_path, packed, "images.gz")
    with pytest.raises(BadData, match=r"images\.gz is broken at byte \d+: its compression"):
        read_idx(path, (2, 100, 100))


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    path = written(tmp_path, gzip.compress(idx(PIXELS) + bytes(2**26)), "bomb.gz")
    with pytest.raises(BadData, match="goes on after its last element"):
        read_idx(path, (2, 3, 4))


def test_the_four_files_become_images_and_labels(tmp_path):
    facts = idx_dataset(tmp_path)
    tensors = facts.source.parse(facts.source.find(tmp_path), facts)

    assert tensors["x"].shape == (60, 1, 4, 5)
    assert tensors["x"].dtype == torch.uint8
    assert tensors["test_x"].shape == (20, 1, 4, 5)
    raw = gzip.decompress((tmp_path / IDX_NAMES[3]).read_bytes())[8:]
    assert bytes(tensors["test_y"].tolist()) == raw
    assert tensors["test_y"].dtype == torch.int64


def test_a_label_that_is_no_class_is_refused(tmp_path):
    facts = idx_dataset(tmp_path)
    labels = torch.zeros(60)
    labels[7] = 3
    (tmp_path / IDX_NAMES[1].removesuffix(".gz")).write_bytes(idx(labels))
    with pytest.raises(BadData, match="broken at byte 15: label 3 is above 2"):
        facts.source.parse(facts.source.find(tmp_path), facts)


def test_idx_files_are_found_only_together(tmp_path):
    facts = idx_dataset(tmp_path)
    (tmp_path / IDX_NAMES[2]).unlink()
    assert facts.source.find(tmp_path) == ()


@pytest.mark.parametrize("form", ["archive", "unpacked", "unpacked inside"])
def test_cifar_is_read_in_every_form(tmp_path, form):
    files = cifar_files()
    if form == "archive":
        members = [("cifar-10-batches-bin/readme.html", b"hello"), *files.items()]
        (tmp_path / "cifar-10-binary.tar.gz").write_bytes(tar(members))
    else:
        folder = tmp_path / ("" if form == "unpacked" else "cifar-10-batches-bin")
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    facts = cifar_info()
    tensors = facts.source.parse(facts.source.find(tmp_path), facts)

    record = files["data_batch_2.bin"][13:26]  # the second of four, so the sixth in all
    assert tensors["y"][5] == record[0]
    assert bytes(tensors["x"][5].flatten().tolist()) == record[1:]
    assert tensors["x"].shape == (20, 3, 2, 2)
    assert tensors["test_x"].shape == (4, 3, 2, 2)
    assert tensors["test_y"].tolist() == [files["test_batch.bin"][13 * i] for i in range(4)]


@pytest.mark.parametrize(
    ("change", "byte", "says"),
    [
        (lambda content: content[:-1], 51, "ends before its 52 bytes"),
        (lambda content: content + b"\x00", 52, "goes on after its 52 bytes"),
        (lambda content: content[:26] + b"\x09" + content[27:], 26, "label 9 is above 2"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_broken_cifar_is_refused_with_file_and_byte(tmp_path, change, byte, says, packed):
    files = cifar_files()
    files["data_batch_3.bin"] = change(files["data_batch_3.bin"])
    if packed:
        (tmp_path / "cifar-10-binary.tar.gz").write_bytes(tar(files.items()))
    else:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
    facts = cifar_info()
    with pytest.raises(BadData, match=f"data_batch_3.bin is broken at byte {byte}: .*{says}"):
        facts.source.parse(facts.source.find(tmp_path), facts)


@pytest.mark.parametrize("name", ["../escape.bin", "/etc/escape.bin", "a/../../escape.bin"])
def test_an_archive_that_points_outside_is_refused_and_writes_nothing(tmp_path, name):
    inside = tmp_path / "inside"
    inside.mkdir()
    members = [(name, b"x"), *cifar_files().items()]
    (inside / "cifar-10-binary.tar.gz").write_bytes(tar(members))
    facts = cifar_info()
    with pytest.raises(BadData, match="outside of it"):
        facts.source.parse(facts.source.find(inside), facts)
    assert [path.name for path in tmp_path.rglob("*")] == ["inside", "cifar-10-binary.tar.gz"]


def test_an_archive_with_links_is_refused(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        link = tarfile.TarInfo("data_batch_1.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(buffer.getvalue())
    facts = cifar_info()
    with pytest.raises(BadData, match="no plain file"):
        facts.source.parse(facts.source.find(tmp_path), facts)


def test_the_archive_of_another_version_is_refused(tmp_path):
    members = [("cifar-10-batches-py/data_batch_1", b"a pickle")]
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(tar(members))
    facts = cifar_info()
    with pytest.raises(BadData, match=r"lacks data_batch_1\.bin.*binary version"):
        facts.source.parse(facts.source.find(tmp_path), facts)


def test_an_archive_that_is_cut_short_is_refused(tmp_path):
    packed = tar(cifar_files(per_file=400).items())
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(packed[: len(packed) // 2])
    facts = cifar_info(per_file=400)
    with pytest.raises(BadData, match="no whole gzipped tar archive"):
        facts.source.parse(facts.source.find(tmp_path), facts)


@pytest.mark.parametrize("bit", range(20))
def test_an_archive_with_a_flipped_bit_is_refused(tmp_path, bit):
    packed = bytearray(tar(cifar_files(per_file=400).items()))
    header, footer = 10, 8  # gzip's own; most of the header says nothing that matters
    place = header + (len(packed) - header - footer) * bit // 20
    packed[place] ^= 1 << bit % 8
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(packed)
    facts = cifar_info(per_file=400)
    with pytest.raises(BadData, match=r"cifar-10-binary\.tar\.gz|data_batch|test_batch"):
        facts.source.parse(facts.source.find(tmp_path), facts)


def test_an_archive_without_its_checksum_is_refused(tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(tar(cifar_files().items())[:-8])
    facts = cifar_info()
    with pytest.raises(BadData, match="no whole gzipped tar archive"):
        facts.source.parse(facts.source.find(tmp_path), facts)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read every file")
@pytest.mark.parametrize("form", ["idx", "cifar"])
def test_a_file_that_may_not_be_read_is_named(tmp_path, form):
    if form == "idx":
        facts = idx_dataset(tmp_path)
    else:
        facts = cifar_info()
        for name, content in cifar_files().items():
            written(tmp_path, content, name)
    path = facts.source.find(tmp_path)[0]
    path.chmod(0)
    with pytest.raises(BadData, match=f"may not read {path.name}"):
        facts.source.parse(facts.source.find(tmp_path), facts)


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer", "diabetes"])
def test_bundled_data_is_what_the_catalog_says(name):
    import sklearn.datasets

    from dropnorm_service.training.data import CATALOG

    facts = CATALOG[name]
    tensors = facts.source.parse((), facts)
    original = getattr(sklearn.datasets, f"load_{name}")()

    assert tensors["x"].shape == (facts.samples, *facts.input_shape)
    assert tensors["x"].dtype == torch.float32
    names = tuple(map(str, getattr(original, "target_names", ())))
    assert facts.class_names == names
    if facts.task == "classification":
        assert tensors["y"].tolist() == original.target.tolist()
        assert int(tensors["y"].max()) + 1 == facts.outputs
    else:
        assert tensors["y"].flatten().tolist() == original.target.tolist()
        assert tensors["x"][:3, 0].tolist() == [59.0, 48.0, 72.0]  # years of age, not scaled
