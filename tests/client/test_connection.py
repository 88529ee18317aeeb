"""Where a client looks for address, token and certificates, and what it sends them over."""

from __future__ import annotations

from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Authority
from tests.client.conftest import Kind
from tests.client.scripted import ScriptedService

import dropnorm as dn
from dropnorm._connection import Connection, is_loopback
from dropnorm.cli.options import choose_access, connect

TOKEN = "dn_0123456789ab_" + "s" * 43


def resolve(address: str | None = None, **given: Any) -> Connection:
    options = {"token": None, "tls": None, "insecure": False} | given
    return Connection.resolve(address, **options)


def refused(address: str | None = None, **given: Any) -> list[dn.Problem]:
    with pytest.raises(dn.InvalidRequest) as caught:
        resolve(address, **given)
    assert "sss" not in str(caught.value)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    "address",
    ["localhost:1", "127.0.0.1:5", "[::1]:5", "dns:///localhost:1", "ipv4:127.0.0.1:4", "unix:/s"],
)
def test_loopback_is_known(address: str):
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address",
    [
        "host:1",
        "127.example.com:5",
        "localhost.example.com:1",
        "localhost@example.com:1",
        "localhost#@example.com:1",
        "localhost/.example.com:1",
        "dns://192.0.2.1/localhost:1",
        "10.0.0.1:1",
        "",
    ],
)
def test_what_is_not_surely_loopback_gets_no_token_in_plain_text(address: str):
    assert not is_loopback(address)
    [problem] = refused(address, token=TOKEN)
    assert problem.field == "token"
    assert "plain text" in problem.message
    assert resolve(address, token=TOKEN, insecure=True).metadata
    assert resolve(address, token=TOKEN, tls=True).metadata
    assert resolve(address, token="").metadata == ()


def test_the_environment_says_what_the_caller_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("DROPNORM_ADDRESS", "trainer:1")
    monkeypatch.setenv("DROPNORM_TOKEN", TOKEN)
    monkeypatch.setenv("DROPNORM_TLS_CA", str(Authority(tmp_path).ca))
    found = resolve()

    assert (found.address, dict(found.metadata)) == (
        "trainer:1",
        {"authorization": f"Bearer {TOKEN}"},
    )
    assert found._credentials is not None
    given = resolve("localhost:2", token="", tls=False)
    assert (given.address, given.metadata, given._credentials) == ("localhost:2", (), None)
    monkeypatch.setenv("DROPNORM_TLS", "0")
    assert refused()[0].field == "token"
    monkeypatch.setenv("DROPNORM_TLS", "maybe")
    assert refused()[0].field == "tls"


def test_a_token_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    file = tmp_path / "token"
    monkeypatch.setenv("DROPNORM_TOKEN_FILE", str(file))
    assert "cannot be read" in refused()[0].message
    file.write_text(f"{TOKEN}\n")
    assert dict(resolve().metadata) == {"authorization": f"Bearer {TOKEN}"}
    file.write_text("sss sss\n")
    assert "is no token" in refused()[0].message


def test_files_of_tls_that_cannot_be_used_are_named(tmp_path: Path):
    authority = Authority(tmp_path)
    pair = authority.issue("client")
    locked = authority.issue("locked", password=b"x")
    wrong = [
        (dn.TLS(ca="/nowhere.pem"), "tls.ca", "cannot be read"),
        (dn.TLS(ca=pair.key), "tls.ca", "no certificates"),
        (dn.TLS(certificate=pair.certificate), "tls.key", "is missing"),
        (dn.TLS(key=pair.key), "tls.certificate", "is missing"),
        (dn.TLS(certificate=pair.certificate, key=locked.key), "tls.certificate", "its own key"),
        (dn.TLS(certificate=locked.certificate, key=locked.key), "tls.certificate", "encrypted"),
    ]
    for tls, field, text in wrong:
        [problem] = refused(tls=tls)
        assert problem.field == field
        assert text in problem.message
    assert resolve(tls=dn.TLS(certificate=pair.certificate, key=pair.key))._credentials


async def test_no_representation_of_a_client_shows_its_token(kind: Kind, service: ScriptedService):
    client = kind.open(service.address, token=TOKEN)
    await kind.do(client.workers)

    assert "sss" not in f"{client} {client!r} {vars(client)}"
    await kind.do(client.close)


@pytest.mark.parametrize(
    ("tls", "ca", "spoken"),
    [(None, False, False), (None, True, True), (True, False, True), (False, True, False)],
)
def test_a_file_says_that_the_command_speaks_tls_unless_it_may_not(
    tls: bool | None, ca: bool, spoken: bool, tmp_path: Path
):
    files = dn.TLS(ca=Authority(tmp_path).ca) if ca else dn.TLS()
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)

    def connects() -> bool:
        choose_access(token_file=token_file, tls=tls, files=files, insecure=False)
        try:
            connect("trainer:1").close()
        except dn.InvalidRequest as error:  # the token would go in plain text
            return "plain text" not in str(error)
        return True

    assert copy_context().run(connects) is spoken
