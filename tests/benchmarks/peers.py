"""What a user would write instead: two training loops, run as `python -m tests.benchmarks.peers LOOP FOLDER THREADS`.

Both train the demo network, 784-128-64-10 with ReLU, batch 128, Adam, on as many MNIST samples as the service leaves
after its validation split, and print samples per second of each epoch as JSON.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

SAMPLES = 51_000
EPOCHS = 10
_BATCH = 128
_HEADER = {"images": 16, "labels": 8}

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def load(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Training images as standardised rows, and their classes."""
    images = _read(folder / "train-images-idx3-ubyte.gz", "images").reshape(-1, 784)[:SAMPLES]
    labels = _read(folder / "train-labels-idx1-ubyte.gz", "labels")[:SAMPLES]
    x = torch.from_numpy(images.astype(numpy.float32))
    return (x - x.mean()) / x.std(), torch.from_numpy(labels.astype(numpy.int64))


def _read(path: Path, kind: str) -> numpy.ndarray:
    return numpy.frombuffer(gzip.decompress(path.read_bytes()), numpy.uint8)[_HEADER[kind] :]


def plain(x: torch.Tensor, y: torch.Tensor) -> Callable[[], Batches]:
    """The DataLoader of the tutorials."""
    loader = DataLoader(TensorDataset(x, y), batch_size=_BATCH, shuffle=True)
    return lambda: iter(loader)


def tuned(x: torch.Tensor, y: torch.Tensor) -> Callable[[], Batches]:
    """Slices of one permutation."""

    def batches() -> Batches:
        for index in torch.randperm(len(x)).split(_BATCH):
            yield x[index], y[index]

    return batches


def train(batches: Callable[[], Batches], *, fused: bool) -> list[float]:
    """Samples per second of each epoch."""
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
    rates = []
    for _ in range(EPOCHS):
        start = time.perf_counter()
        total = torch.zeros(())
        for x, y in batches():
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        rates.append(SAMPLES / (time.perf_counter() - start))
    return rates


def main() -> None:
    """Train by the loop that the command line names."""
    loop, folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    data = load(Path(folder))
    batches = plain(*data) if loop == "plain" else tuned(*data)
    print(json.dumps(train(batches, fused=loop == "tuned")))


if __name__ == "__main__":
    main()
