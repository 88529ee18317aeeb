"""The real MNIST, from its original files to an evaluation."""

import pytest
from tests.mnist import MNIST, needs_mnist
from tests.service.training.made import CPU, of_kind
from tests.service.training.shorthand import mlp

from dropnorm import spec as dn
from dropnorm.results import DatasetLoaded, Payload
from dropnorm_service.training import DatasetCache, fit, load_data

pytestmark = needs_mnist


def test_the_demo_network_learns_mnist(tmp_path):
    spec = mlp(
        128,
        64,
        data=dn.Data(dataset="mnist"),
        optimization=dn.Optimization(epochs=1, batch_size=128),
    )
    cache, events = DatasetCache(tmp_path, datasets_dir=MNIST), list[Payload]()
    data = load_data(spec, cache, CPU, on_event=events.append)
    evaluation = fit(spec, data).evaluation

    assert (len(data.train), len(data.validation), len(data.test)) == (51_000, 9_000, 10_000)
    assert of_kind(events, DatasetLoaded) == [DatasetLoaded(dataset=cache.summarize(spec))]
    assert data.inputs is not None
    # The well-known mean and deviation of the whole training file.
    assert data.inputs.mean.item() / 255 == pytest.approx(0.1307, abs=1e-3)
    assert data.inputs.std.item() / 255 == pytest.approx(0.3081, abs=1e-3)
    assert evaluation.test.accuracy is not None
    assert evaluation.test.accuracy > 0.94
    assert sum(map(sum, evaluation.test.confusion_matrix)) == 10_000
    supports = [each.support for each in evaluation.test.classes]
    assert supports == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
