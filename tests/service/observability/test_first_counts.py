"""Series that alerts look at are there before anything happens: of one that begins with 1, there is no increase."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from tests.service.observability.scrapes import Scrape

from dropnorm_service.api.authorization import RULES
from dropnorm_service.observability.jobs import LOSSES
from dropnorm_service.observability.metrics import Metrics

ALERTS = Path(__file__).parents[3] / "docker/prometheus/alerts.yaml"


@pytest.fixture
async def before() -> Scrape:
    """What a server tells to which nothing has happened."""
    _, page = await Metrics().exposition("")
    return Scrape(page.decode())


def test_every_method_has_its_errors_at_0(before: Scrape) -> None:
    for method in RULES:
        for code in ("INTERNAL", "UNKNOWN"):
            asked = {"method": method.rpartition("/")[2], "code": code}
            assert (asked, 0) in list(before.samples("dropnorm_rpcs_total"))


def test_every_known_loss_is_at_0(before: Scrape) -> None:
    lost = {
        labels["reason"]: value for labels, value in before.samples("dropnorm_attempts_lost_total")
    }
    assert lost == dict.fromkeys(LOSSES, 0)


def test_every_counter_that_an_alert_looks_at_is_there(before: Scrape) -> None:
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
    asked = {
        name for rule in rules for name in re.findall(r"increase\((dropnorm_\w+)", rule["expr"])
    }
    read_at_scrapes = {"dropnorm_worker_restarts_total", "dropnorm_audit_records_lost_total"}
    assert asked - read_at_scrapes <= before.names()
    for name in asked - read_at_scrapes:
        assert {value for _, value in before.samples(name)} == {0}
