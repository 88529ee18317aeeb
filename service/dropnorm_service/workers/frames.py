"""Messages as bytes: JSON, each behind its length.

Only the server's own processes hold the ends of a connection, yet nothing that arrives is ever run: no pickle, and
every message is checked against its model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, TypeAdapter

from dropnorm_service.workers.messages import AnyMessage, Message

_LENGTH_BYTES = 4
MAX_MESSAGE_BYTES = 2**28

_adapter: TypeAdapter[AnyMessage] = TypeAdapter(Annotated[AnyMessage, Field(discriminator="kind")])


def encode(message: Message) -> bytes:
    """The message as it goes over a connection.

    Raises:
        ValueError: it is longer than MAX_MESSAGE_BYTES.
    """
    body = message.model_dump_json().encode()
    if len(body) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {len(body)} bytes; the limit is {MAX_MESSAGE_BYTES}")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def decode(body: bytes) -> AnyMessage:
    """The message in the body of a frame.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return _adapter.validate_json(body)


class Frames:
    """Cuts the bytes that arrive into the bodies of messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Every body that is complete now.

        Raises:
            ValueError: one is longer than MAX_MESSAGE_BYTES; the connection is of no more use.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTH_BYTES:
            length = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
            if length > MAX_MESSAGE_BYTES:
                raise ValueError(f"a message of {length} bytes; the limit is {MAX_MESSAGE_BYTES}")
            end = _LENGTH_BYTES + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH_BYTES:end])
            del self._buffer[:end]
            yield body
