"""compose.dev.yaml: a service on SQLite alone, without tokens and TLS, for one person."""

from collections.abc import Callable

import pytest
from tests.docker.engine import Composition
from tests.e2e.servers import check_journal, spec

import dropnorm as dn

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(3600)]


def test_it_trains_and_keeps_its_jobs_when_its_container_is_made_anew(
    compose: Callable[[str], Composition],
) -> None:
    dev = compose("compose.dev.yaml")
    dev.healthy("service")
    with dn.Client(f"127.0.0.1:{dev.port}") as client:
        job = client.train(spec(), name="first")
        evaluation = job.result()

    dev.compose("up", "--detach", "--no-build", "--force-recreate")
    dev.healthy("service")

    with dn.Client(f"127.0.0.1:{dev.port}") as client:
        again = client.job(job.id)
        assert again.result() == evaluation
        check_journal(list(again.watch()))
