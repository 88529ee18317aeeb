"""Nobody listens to the network unguarded without having said so."""

from pathlib import Path
from typing import Any

import pytest

from dropnorm_service.exposure import check_exposure, exposure_of_metrics, is_loopback
from dropnorm_service.settings import Settings, SettingsError

PAIR = {"tls_certificate": Path("/c"), "tls_key": Path("/k")}
ANY = "0.0.0.0"  # noqa: S104 - nobody listens
TOKENS = {"authentication": "tokens"}


def settings(**given: Any) -> Settings:
    return Settings(**given)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_alone_needs_no_guard(host: str):
    assert is_loopback(host)
    check_exposure(settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "0", "192.0.2.1", "::ffff:192.0.2.1"])  # noqa: S104
@pytest.mark.parametrize(
    ("given", "missing"),
    [({}, "no TLS .* and no authentication"), (PAIR, "no authentication"), (TOKENS, "no TLS")],
)
def test_the_network_needs_both(host: str, given: dict[str, Any], missing: str):
    with pytest.raises(SettingsError, match=f"host: .* can be reached .* {missing}.*--insecure"):
        check_exposure(settings(host=host, **given))
    check_exposure(settings(host=host, insecure=True, **given))
    check_exposure(settings(host=host, **PAIR, **TOKENS))


def test_a_name_that_resolves_elsewhere_is_the_network(monkeypatch: pytest.MonkeyPatch):
    answers = [(2, 1, 6, "", ("127.0.0.1", 0)), (2, 1, 6, "", ("192.0.2.7", 0))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(SettingsError, match=r"host: both\.example can be reached"):
        check_exposure(settings(host="both.example"))


@pytest.mark.parametrize("host", ["no such host", "unix", "[::1]", "a" * 70 + ".example"])
def test_a_host_without_an_address_is_named(host: str):
    with pytest.raises(SettingsError, match=r"host: .* has no address here"):
        check_exposure(settings(host=host))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tls_certificate": "/c"}, "tls_key: is missing, and tls_certificate"),
        ({"tls_key": "/k"}, "tls_certificate: is missing, and tls_key"),
        ({"tls_client_ca": "/a"}, "tls_client_ca: .* set tls_certificate and tls_key too"),
    ],
)
def test_half_of_tls_is_none(given: dict[str, str], message: str):
    with pytest.raises(SettingsError, match=message):
        check_exposure(settings(**given))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, False),
        ({"metrics_port": 9464}, False),
        ({"metrics_host": ANY}, False),
        ({"metrics_host": ANY, "metrics_port": 9464}, True),
        ({"metrics_host": ANY, "metrics_port": 9464, "insecure": True}, True),
    ],
)
def test_metrics_for_others_are_allowed_and_told(given: dict[str, Any], told: bool):
    check_exposure(settings(**given))
    assert ("can be read from other machines" in exposure_of_metrics(settings(**given))) is told


def test_a_host_for_metrics_without_an_address_is_named():
    with pytest.raises(SettingsError, match=r"metrics_host: 'unix' has no address here"):
        exposure_of_metrics(settings(metrics_host="unix", metrics_port=9464))
