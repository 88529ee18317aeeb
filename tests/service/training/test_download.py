"""Downloads from a mirror: a real server on this machine, well-behaved and not."""

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.service.training.made import IDX_NAMES, idx_dataset

from dropnorm_service.training import BadData, DatasetCache, DataUnavailable
from dropnorm_service.training.data.download import download
from dropnorm_service.training.data.info import PinnedFile

CONTENT = bytes(range(256)) * 1024
FILE = PinnedFile("data.gz", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """The URL of a server that answers every GET by `answer`."""

    class Mirror(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/mirror/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def whole(content: bytes, announced: int | None = None) -> Answer:
    """Sends content, announcing its size, or another."""

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(announced or len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def slowly(handler):
    """Sends a little and then nothing."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT[:100])
    handler.wfile.flush()
    handler.connection.recv(1)  # until the other side has gone


def not_found(handler):
    handler.send_error(404)


def test_a_published_file_arrives_whole(tmp_path):
    paths = []

    def answer(handler):
        paths.append(handler.path)
        whole(CONTENT)(handler)

    with serving(answer) as url:
        assert download(url, FILE, tmp_path).read_bytes() == CONTENT
    assert paths == ["/mirror/data.gz"]
    assert [path.name for path in tmp_path.iterdir()] == ["data.gz"]


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (whole(CONTENT[:-1] + b"!"), BadData, f"is not the published file.*{FILE.sha256}"),
        (whole(CONTENT + b"more"), BadData, "is not the published file"),
        (whole(CONTENT[:1000]), DataUnavailable, "broke off after 1000 of 262144 bytes"),
        (whole(CONTENT[:70000], len(CONTENT)), DataUnavailable, "data.gz"),
        (not_found, DataUnavailable, "answers 404"),
        (slowly, DataUnavailable, "timed out"),
    ],
    ids=["wrong sum", "too long", "too short", "broken off", "not found", "stalled"],
)
def test_what_is_not_the_file_leaves_nothing_behind(tmp_path, answer, error, says):
    with serving(answer) as url, pytest.raises(error, match=says):
        download(url, FILE, tmp_path, timeout=0.2 if answer is slowly else 60.0)
    assert list(tmp_path.iterdir()) == []


def test_a_mirror_that_is_not_there_is_unavailable(tmp_path):
    with serving(not_found) as url:
        pass
    with pytest.raises(DataUnavailable, match="cannot be fetched"):
        download(url, FILE, tmp_path)


@pytest.mark.parametrize("url", ["file:///etc", "ftp://127.0.0.1/", "127.0.0.1"])
def test_only_http_is_a_mirror(tmp_path, url):
    with pytest.raises(ValueError, match="http or https"):
        download(url, FILE, tmp_path)


def test_a_download_can_be_ended_between_blocks(tmp_path):
    blocks = []

    def stop():
        blocks.append(1)
        if len(blocks) == 2:
            raise InterruptedError

    with serving(whole(CONTENT)) as url, pytest.raises(InterruptedError):
        download(url, FILE, tmp_path, between_blocks=stop)
    assert len(blocks) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_is_downloaded_once_and_what_arrived_is_not_fetched_again(tmp_path):
    published = tmp_path / "published"
    facts = idx_dataset(published)
    asked, failing = [], {IDX_NAMES[2]}

    def answer(handler):
        name = handler.path.rpartition("/")[2]
        asked.append(name)
        if name in failing:
            handler.send_error(503)
        else:
            whole((published / name).read_bytes())(handler)

    with serving(answer) as url:
        cache = DatasetCache(tmp_path / "cache", mirrors={"made": url}, catalog={"made": facts})
        with pytest.raises(DataUnavailable, match="answers 503"):
            cache.load("made")
        failing.clear()
        dataset = cache.load("made")
        again = cache.load("made")
    assert asked == [*IDX_NAMES[:3], *IDX_NAMES[2:]]
    assert dataset.digest == again.digest
    assert dataset.tensors["x"].shape == (60, 1, 4, 5)
    assert not list((tmp_path / "cache").rglob("*.gz"))
