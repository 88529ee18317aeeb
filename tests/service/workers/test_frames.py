import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dropnorm.results import EpochCompleted, EpochMetrics
from dropnorm_service.workers import frames
from dropnorm_service.workers.frames import Frames, decode, encode
from dropnorm_service.workers.messages import End, Report, Trace


@given(st.lists(st.text(max_size=40), max_size=8), st.data())
def test_messages_come_out_whole_however_the_bytes_are_cut(
    texts: list[str], data: st.DataObject
) -> None:
    stream = b"".join(encode(Trace(text=text)) for text in texts)
    cut, heard = Frames(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        heard += [decode(body) for body in cut.feed(stream[:size])]
        stream = stream[size:]
    assert heard == [Trace(text=text) for text in texts]


def test_a_diverged_loss_survives_the_way() -> None:
    metrics = EpochMetrics(
        epoch=1,
        step=10,
        train_loss=math.nan,
        validation_loss=math.inf,
        learning_rate=0.1,
        batch_size=128,
        seconds=1.0,
        evaluation_seconds=1.0,
        samples_per_second=1.0,
    )
    report = Report(time=datetime.now(UTC), payload=EpochCompleted(metrics=metrics))
    (body,) = Frames().feed(encode(report))
    heard = decode(body)
    assert isinstance(heard, Report)
    assert isinstance(heard.payload, EpochCompleted)
    assert math.isnan(heard.payload.metrics.train_loss)
    assert heard.payload.metrics.validation_loss == math.inf
    assert heard.time == report.time


def test_too_long_a_message_is_refused_by_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    long = encode(Trace(text="x" * 2000))
    monkeypatch.setattr(frames, "MAX_MESSAGE_BYTES", 1000)
    with pytest.raises(ValueError, match="the limit is 1000"):
        encode(Trace(text="x" * 2000))
    with pytest.raises(ValueError, match="the limit is 1000"):
        list(Frames().feed(long))


@pytest.mark.parametrize("body", [b"", b"null", b'{"kind":"dance"}', b'{"kind":"end","more":1}'])
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(ValidationError):
        decode(body)


def test_an_end_without_order_and_error_is_the_good_one() -> None:
    assert decode(b'{"kind":"end"}') == End(order=None, error=None, retry=False)
