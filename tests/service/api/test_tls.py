"""TLS: who can connect, and certificates that change while the server runs; with real handshakes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.certificates import Authority, Pair, replace
from tests.service.api.details import failure
from tests.service.api.edge import edge_of
from tests.service.jobs.bench import Bench
from tests.service.observability.scrapes import Scrape

import dropnorm as dn
from dropnorm_service.api.tls import Certificates, TlsFiles, UnusableCertificate
from dropnorm_service.certificates import expiry_in
from dropnorm_service.observability.metrics import Metrics
from dropnorm_service.observability.readings import Sources

METHOD = "/test.Echo/Echo"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server_pair(authority: Authority) -> Pair:
    return authority.issue("server")


def certificates_of(pair: Pair, client_ca: Path | None = None) -> Certificates:
    return Certificates(TlsFiles(certificate=pair.certificate, key=pair.key, client_ca=client_ca))


def serving(
    pair: Pair, client_ca: Path | None = None
) -> contextlib.AbstractAsyncContextManager[str]:
    return serving_with(certificates_of(pair, client_ca))


@asynccontextmanager
async def serving_with(certificates: Certificates) -> AsyncIterator[str]:
    async def echo(request: bytes, context: object) -> bytes:
        return request

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Echo", {"Echo": handler}),)
    )
    port = server.add_secure_port("127.0.0.1:0", certificates.credentials())
    await server.start()
    yield f"localhost:{port}"
    await server.stop(None)


def channel(address: str, ca: Path, pair: Pair | None = None) -> grpc.aio.Channel:
    """A new connection; gRPC shares those of equal channels otherwise."""
    credentials = grpc.ssl_channel_credentials(
        ca.read_bytes(),
        pair.key.read_bytes() if pair else None,
        pair.certificate.read_bytes() if pair else None,
    )
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(address, credentials, options=options)


def echo(channel: grpc.aio.Channel) -> Awaitable[bytes]:
    call: Any = channel.unary_unary(METHOD)
    answer: Awaitable[bytes] = call(b"hello", timeout=60)
    return answer


async def test_only_who_trusts_the_certificate_connects(
    authority: Authority, server_pair: Pair, tmp_path: Path
):
    async with serving(server_pair) as address:
        async with channel(address, authority.ca) as trusting:
            assert await echo(trusting) == b"hello"
        async with channel(address, Authority(tmp_path, "other").ca) as doubting:
            assert (await failure(echo(doubting))).code() is grpc.StatusCode.UNAVAILABLE
        async with grpc.aio.insecure_channel(address) as plain:
            assert (await failure(echo(plain))).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_shows_a_certificate_of_the_right_authority(
    authority: Authority, server_pair: Pair, tmp_path: Path
):
    other = Authority(tmp_path, "other")
    async with serving(server_pair, client_ca=other.ca) as address:
        async with channel(address, authority.ca, other.issue("client")) as known:
            assert await echo(known) == b"hello"
        for pair in (None, authority.issue("stranger")):
            async with channel(address, authority.ca, pair) as unknown:
                assert (await failure(echo(unknown))).code() is grpc.StatusCode.UNAVAILABLE


async def test_new_connections_get_the_new_certificate_and_old_ones_go_on(
    authority: Authority, server_pair: Pair, tmp_path: Path
):
    new = Authority(tmp_path, "new")
    async with (
        serving(server_pair) as address,
        channel(address, authority.ca) as old,
    ):
        await echo(old)
        new.issue("server")
        async with channel(address, new.ca) as fresh:
            assert await echo(fresh) == b"hello"
        async with channel(address, authority.ca) as late:
            assert (await failure(echo(late))).code() is grpc.StatusCode.UNAVAILABLE
        assert await echo(old) == b"hello"


@pytest.mark.parametrize(
    "harm",
    [
        lambda pair: replace(pair.certificate, b"no certificate"),
        lambda pair: replace(pair.key, b""),
        lambda pair: pair.key.unlink(),
    ],
)
async def test_a_broken_new_file_keeps_the_old_certificate_and_is_logged_once(
    authority: Authority,
    server_pair: Pair,
    caplog: pytest.LogCaptureFixture,
    garbage_stays: None,
    harm: Callable[[Pair], None],
):
    caplog.set_level(logging.INFO, logger="dropnorm_service")
    async with serving(server_pair) as address:
        harm(server_pair)
        for _ in range(3):
            async with channel(address, authority.ca) as still:
                assert await echo(still) == b"hello"
        [record] = caplog.records
        assert "the new certificate is not used" in record.getMessage()

        authority.issue("server")
        async with channel(address, authority.ca) as mended:
            assert await echo(mended) == b"hello"
        assert "is in use" in caplog.records[-1].getMessage()


async def test_one_that_is_not_valid_yet_is_taken_when_it_is(
    authority: Authority, server_pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Nothing about the file changes meanwhile."""
    new = Authority(tmp_path, "new")
    async with serving(server_pair) as address:
        new.issue("server", begins_in=timedelta(seconds=3))
        async with channel(address, authority.ca) as old:
            assert await echo(old) == b"hello"
        async with asyncio.timeout(60):
            while True:
                async with channel(address, new.ca) as later:
                    with contextlib.suppress(grpc.RpcError):
                        assert await echo(later) == b"hello"
                        break
    [refused] = [each for each in caplog.records if "is not used" in each.getMessage()]
    assert "not yet valid" in refused.getMessage()


async def test_files_that_are_written_in_place_and_given_their_old_times_are_seen(
    authority: Authority, server_pair: Pair, tmp_path: Path
):
    def pad(path: Path) -> None:
        """A text of a size that hides which one it is."""
        path.write_bytes(path.read_bytes().ljust(2000, b"\n"))

    new = Authority(tmp_path, "new")
    other = new.issue("other")
    for path in (server_pair.certificate, server_pair.key, other.certificate, other.key):
        pad(path)
    async with serving(server_pair) as address:
        for path, source in (
            (server_pair.certificate, other.certificate),
            (server_pair.key, other.key),
        ):
            before = path.stat()
            path.write_bytes(source.read_bytes())
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        async with channel(address, new.ca) as connection:
            assert await echo(connection) == b"hello"


async def test_what_the_metrics_say_is_of_the_certificate_in_use(
    authority: Authority, server_pair: Pair, bench: Bench, tmp_path: Path
):
    """A newer one whose key is not there yet, a file that is broken, and a pair that fits at last."""
    certificates = certificates_of(server_pair)
    metrics = Metrics()
    metrics.read_from(
        Sources(
            ledger=bench.store,
            slots=lambda: (),
            worker_restarts=dict,
            audits_lost=lambda: 0,
            mirrors=(),
            data_dir=tmp_path,
            certificate=certificates,
        )
    )

    async def told() -> list[float]:
        _, page = await metrics.exposition("")
        names = ("expiry_seconds", "refused")
        return [Scrape(page.decode()).value(f"dropnorm_tls_certificate_{name}") for name in names]

    first = expiry_in(server_pair.certificate.read_bytes()).timestamp()
    async with serving_with(certificates) as address:

        async def connect() -> None:
            async with channel(address, authority.ca) as connection:
                assert await echo(connection) == b"hello"

        await connect()
        assert await told() == [first, 0]
        other = authority.issue("other", ends_in=timedelta(days=900))
        replace(server_pair.certificate, other.certificate.read_bytes())
        await connect()
        assert await told() == [first, 1]
        replace(server_pair.certificate, b"broken")
        await connect()
        assert await told() == [first, 1]
        authority.issue("server", ends_in=timedelta(days=900))
        content = server_pair.certificate.read_bytes()
        replace(server_pair.certificate, "# of Köln\n".encode("latin-1") + content)
        await connect()
        assert await told() == [expiry_in(server_pair.certificate.read_bytes()).timestamp(), 0]


async def test_the_sdk_shows_its_certificate_where_one_is_asked_for(
    authority: Authority, server_pair: Pair, bench: Bench, tmp_path: Path
):
    files = TlsFiles(
        certificate=server_pair.certificate, key=server_pair.key, client_ca=authority.ca
    )
    server = edge_of(bench, tmp_path)
    address = await server.start("127.0.0.1", 0, Certificates(files).credentials())
    pair = authority.issue("client")
    known = dn.TLS(ca=authority.ca, certificate=pair.certificate, key=pair.key)

    async with dn.AsyncClient(address, tls=known) as client:
        assert await client.workers()
    async with dn.AsyncClient(address, tls=dn.TLS(ca=authority.ca)) as client:
        with pytest.raises(dn.Unavailable, match="ask for a client's certificate"):
            await client.workers()
    await server.stop(grace=0.0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda a, p: p.certificate.unlink(),
            "tls_certificate: .*server.crt cannot be read: No such",
        ),
        (lambda a, p: p.key.write_text("no key"), "tls_key: .*server.key cannot be used together"),
        (lambda a, p: p.certificate.write_text("nothing"), "cannot be used together: "),
        (lambda a, p: a.issue("other").key.replace(p.key), "key values mismatch"),
        (lambda a, p: a.issue("server", password=b"x"), "the key is encrypted"),
        (
            lambda a, p: a.issue("server", ends_in=timedelta(days=-1)),
            "trusted by nobody: certificate has expired",
        ),
    ],
)
def test_what_is_wrong_with_a_certificate_is_a_sentence(
    authority: Authority, server_pair: Pair, spoil: Callable[[Authority, Pair], Any], message: str
):
    spoil(authority, server_pair)
    with pytest.raises(UnusableCertificate, match=message):
        Certificates(TlsFiles(certificate=server_pair.certificate, key=server_pair.key))


def test_authorities_of_clients_are_certificates(server_pair: Pair):
    files = TlsFiles(
        certificate=server_pair.certificate, key=server_pair.key, client_ca=server_pair.key
    )
    with pytest.raises(UnusableCertificate, match=r"tls_client_ca: .* has no certificates in PEM"):
        Certificates(files)


def test_authorities_of_clients_that_are_all_expired_are_refused(server_pair: Pair, tmp_path: Path):
    expired = Authority(tmp_path, "expired", ends_in=timedelta(days=-1))
    with pytest.raises(UnusableCertificate, match=r"tls_client_ca: no certificate in .* \(expired"):
        certificates_of(server_pair, expired.ca)


async def test_some_authorities_that_are_expired_are_a_warning_also_when_they_come_later(
    authority: Authority, server_pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    clients = Authority(tmp_path, "clients")
    certificates = certificates_of(server_pair, clients.ca)
    assert certificates.warning == ""
    known = clients.issue("client")
    expired = Authority(tmp_path, "expired", ends_in=timedelta(days=-1))
    async with serving_with(certificates) as address:
        replace(clients.ca, clients.ca.read_bytes() + expired.ca.read_bytes())
        async with channel(address, authority.ca, known) as connection:
            assert await echo(connection) == b"hello"
        told = f"of 2 certificates in {clients.ca}, 1 cannot be used now (expired on "
        assert told in certificates.warning
        assert told in caplog.text

        replace(clients.ca, expired.ca.read_bytes())
        async with channel(address, authority.ca, known) as connection:
            assert await echo(connection) == b"hello"
        assert certificates.refused
        assert "no client could connect" in caplog.text
