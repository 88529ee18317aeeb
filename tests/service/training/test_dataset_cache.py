"""The cache: parsed once, warm without parsing, mended when damaged, shared between processes."""

import gzip
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.service.training.killing import killed_at
from tests.service.training.made import IDX_NAMES, idx, idx_dataset
from tests.service.training.shorthand import mlp, problems

from dropnorm import spec as dn
from dropnorm_service.training import BadData, DatasetCache
from dropnorm_service.training.data import Dataset
from dropnorm_service.training.data.entry import Entry


@pytest.fixture
def files(tmp_path):
    return tmp_path / "datasets" / "made"


@pytest.fixture
def cache(tmp_path, files):
    facts = idx_dataset(files)
    return DatasetCache(tmp_path / "cache", datasets_dir=files.parent, catalog={"made": facts})


@pytest.fixture
def parses(monkeypatch):
    """How often a file of pixels or labels was read."""
    import dropnorm_service.training.data.idx as module

    calls, read = [], module.read_idx

    def counted(path, shape):
        calls.append(path.name)
        return read(path, shape)

    monkeypatch.setattr(module, "read_idx", counted)
    return calls


def tensor_file(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache" / "made").glob("*.safetensors")
    return path


def in_memory(dataset: Dataset) -> Dataset:
    """A copy that does not follow what happens to the mapped file."""
    tensors = {name: tensor.clone() for name, tensor in dataset.tensors.items()}
    return Dataset(dataset.info, dataset.digest, tensors)


def assert_same(one: Dataset, other: Dataset) -> None:
    assert one.digest == other.digest
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[name])


def test_files_are_parsed_once_and_named_by_their_content(cache, tmp_path, parses):
    first = cache.load("made")
    assert len(parses) == 4
    assert_same(cache.load("made"), first)
    assert len(parses) == 4
    assert tensor_file(tmp_path).name == f"{first.digest}.safetensors"


def test_the_digest_is_that_of_the_content_not_of_the_files(cache, tmp_path, files):
    plain = tmp_path / "elsewhere"
    plain.mkdir()
    for name in IDX_NAMES:
        content = gzip.decompress((files / name).read_bytes())
        (plain / name.removesuffix(".gz")).write_bytes(content)
    facts = idx_dataset(tmp_path / "unused")
    other = DatasetCache(tmp_path / "other", datasets_dir=plain, catalog={"made": facts})
    assert_same(other.load("made"), cache.load("made"))


@pytest.mark.parametrize("damage", ["cut", "scrambled", "missing", "index", "index of nonsense"])
def test_damage_is_noticed_and_mended(cache, tmp_path, parses, damage):
    whole = in_memory(cache.load("made"))
    path, index = tensor_file(tmp_path), tmp_path / "cache" / "made" / "index.json"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-10])
    elif damage == "scrambled":
        path.write_bytes(content[:-10] + bytes(10))
    elif damage == "missing":
        path.unlink()
    elif damage == "index":
        index.write_bytes(index.read_bytes()[:20])
    else:
        index.write_text(json.dumps({"digest": [], "stamp": 7}))
    assert_same(cache.load("made"), whole)
    assert len(parses) == 8
    assert_same(cache.load("made"), whole)
    assert len(parses) == 8


def test_a_file_that_was_only_touched_is_checked_and_kept(cache, tmp_path, parses):
    whole = cache.load("made")
    os.utime(tensor_file(tmp_path), ns=(1, 1))
    assert_same(cache.load("made"), whole)
    assert len(parses) == 4
    index = Entry(tmp_path / "cache" / "made").index(())
    assert index is not None
    assert index.stamp[2] == 1


def test_other_files_make_another_entry(cache, tmp_path, files, parses):
    old = cache.load("made")
    (files / IDX_NAMES[1].removesuffix(".gz")).write_bytes(idx(torch.ones(60)))
    new = cache.load("made")
    assert new.digest != old.digest
    assert new.tensors["y"].unique().tolist() == [1]
    assert tensor_file(tmp_path).stem == new.digest


def test_the_cache_outlives_the_files(cache, files):
    whole = cache.load("made")
    for name in IDX_NAMES:
        (files / name).unlink()
    assert_same(cache.load("made"), whole)


def test_files_may_lie_right_in_the_folder(tmp_path, files):
    facts = idx_dataset(files)
    cache = DatasetCache(tmp_path / "cache", datasets_dir=files, catalog={"made": facts})
    assert cache.load("made").tensors["y"].shape == (60,)


def test_a_broken_file_leaves_no_entry(cache, tmp_path, files):
    (files / IDX_NAMES[0]).write_bytes(b"nonsense")
    with pytest.raises(BadData, match=IDX_NAMES[0]):
        cache.load("made")
    assert not list((tmp_path / "cache" / "made").glob("*.*"))


def test_a_plan_knows_sizes_at_once_and_the_digest_once_the_data_was_read(cache):
    spec = mlp(4)
    before = cache.summarize(spec)
    assert (before.train_samples, before.validation_samples, before.test_samples) == (51, 9, 20)
    assert before.digest is None
    assert cache.summarize(spec) == before
    digest = cache.load("made").digest
    assert cache.summarize(spec) == before.model_copy(update={"digest": digest})


def test_an_unknown_data_set_is_refused_with_what_there_is(tmp_path):
    cache = DatasetCache(tmp_path)
    for ask in (lambda: cache.load("imagenet"), lambda: cache.summarize(_spec("imagenet"))):
        with pytest.raises(dn.InvalidSpecError) as raised:
            ask()
        message = problems(raised.value)["data.dataset"]
        assert "'imagenet'" in message
        assert "breast_cancer, cifar10, diabetes" in message


@pytest.mark.parametrize("folder", [None, "somewhere"])
def test_data_without_files_is_refused_with_the_setting_to_give(tmp_path, folder):
    cache = DatasetCache(tmp_path / "cache", datasets_dir=tmp_path / folder if folder else None)
    for ask in (lambda: cache.load("mnist"), lambda: cache.summarize(_spec("mnist"))):
        with pytest.raises(dn.InvalidSpecError) as raised:
            ask()
        message = problems(raised.value)["data.dataset"]
        assert "train-images-idx3-ubyte.gz" in message
        assert "DROPNORM_DATASETS_DIR" in message
        assert (str(tmp_path / "somewhere") in message) == bool(folder)


def test_bundled_data_needs_no_folder_and_a_warm_cache_no_scikit_learn(tmp_path):
    DatasetCache(tmp_path).load("digits")
    code = (
        "import sys, pathlib; from dropnorm_service.training import DatasetCache\n"
        f"dataset = DatasetCache(pathlib.Path({str(tmp_path)!r})).load('digits')\n"
        "print(len(dataset.tensors['x']), 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1797", "False"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_copied_cache_can_be_read_in_a_folder_that_cannot_be_written(cache, tmp_path):
    digest = cache.load("made").digest
    entry = tmp_path / "cache" / "made"
    os.utime(tensor_file(tmp_path))  # as a copy has other times
    entry.chmod(0o500)
    try:
        assert cache.load("made").digest == digest
    finally:
        entry.chmod(0o700)


def _load(cache, barrier, results):
    barrier.wait()
    results.put(cache.load("made").digest)


def test_processes_that_come_at_once_parse_once(cache, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_load, args=(cache, barrier, results)) for _ in range(3)]
    for process in processes:
        process.start()
    digests = {results.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
    assert digests == {tensor_file(tmp_path).stem}


def test_waiting_for_another_process_can_be_ended(cache, tmp_path):
    class Ended(Exception):
        pass

    def end():
        raise Ended

    with (
        Entry(tmp_path / "cache" / "made").locked(lambda: None),
        pytest.raises(Ended),
    ):
        cache.load("made", between_pieces=end)


def _spec(name: str) -> dn.TrainingSpec:
    return mlp(4, data=dn.Data(dataset=name))


def test_what_a_kill_left_goes_when_the_entry_is_written_again(tmp_path):
    entry = Entry(tmp_path / "made")

    def write() -> None:
        with entry.locked(lambda: None):
            entry.write({"x": torch.ones(3)}, ())

    left = 0
    for moment in range(1, 100):
        if not killed_at(moment, write):
            break
        left += any(entry.folder.glob(".*"))
        write()
        assert not list(entry.folder.glob(".*"))
    assert left > 3
