"""How the range's own agents pack many sessions into one link: a binary framing, and one of JSON with base64.

The second is built as public SDK sources describe theirs: a JSON message tunnel_connect / tunnel_data / tunnel_close
per event, payload in base64, keyed by session. Both may carry padding; PACK holds other frames, compressed.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Protocol

LARGEST: Final = 1 << 20
_HEADER: Final = struct.Struct("!IBIIH")


class Kind(IntEnum):
    """What a frame means."""

    OPEN = 1
    OPENED = 2
    DATA = 3
    CLOSE = 4
    PING = 5
    CHAFF = 6
    PACK = 7


_TYPES: Final = {
    Kind.OPEN: "tunnel_connect",
    Kind.OPENED: "tunnel_connected",
    Kind.DATA: "tunnel_data",
    Kind.CLOSE: "tunnel_close",
    Kind.PING: "heartbeat",
    Kind.CHAFF: "status",
    Kind.PACK: "batch",
}
_KINDS: Final = {name: kind for kind, name in _TYPES.items()}


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. number: its place within the session and direction, because several links may reorder."""

    kind: Kind
    session: int = 0
    number: int = 0
    data: bytes = b""


class FramingError(ValueError):
    """The bytes on a link are no frames."""


class Codec(Protocol):
    """One framing, with the bytes of a frame not yet complete."""

    def encode(self, frame: Frame, padding: int = 0) -> bytes:
        """The frame's bytes, with `padding` bytes that mean nothing."""
        ...

    def feed(self, content: bytes) -> Iterator[Frame]:
        """The frames completed by `content`; raises FramingError."""
        ...


@dataclass(slots=True)
class Binary:
    """Length, kind, session, number, padding length; data; padding."""

    rest: bytearray = field(default_factory=bytearray)

    def encode(self, frame: Frame, padding: int = 0) -> bytes:
        """As Codec.encode."""
        head = _HEADER.pack(len(frame.data), frame.kind, frame.session, frame.number, padding)
        return head + frame.data + bytes(padding)

    def feed(self, content: bytes) -> Iterator[Frame]:
        """As Codec.feed."""
        self.rest += content
        while len(self.rest) >= _HEADER.size:
            size, kind, session, number, padding = _HEADER.unpack_from(self.rest)
            if size > LARGEST or not Kind.OPEN <= kind <= Kind.PACK:
                raise FramingError(f"no frame: kind {kind}, {size} bytes")
            end = _HEADER.size + size
            if len(self.rest) < end + padding:
                return
            data = bytes(self.rest[_HEADER.size : end])
            del self.rest[: end + padding]
            yield Frame(Kind(kind), session, number, data)


@dataclass(slots=True)
class Base64Json:
    """One JSON object a line."""

    rest: bytearray = field(default_factory=bytearray)

    def encode(self, frame: Frame, padding: int = 0) -> bytes:
        """As Codec.encode."""
        message: dict[str, object] = {"type": _TYPES[frame.kind], "sessionId": frame.session, "seq": frame.number}
        message["data"] = base64.b64encode(frame.data).decode("ascii")
        if padding:
            message["pad"] = "x" * padding
        return json.dumps(message, separators=(",", ":")).encode() + b"\n"

    def feed(self, content: bytes) -> Iterator[Frame]:
        """As Codec.feed."""
        self.rest += content
        while (end := self.rest.find(b"\n")) >= 0:
            line = bytes(self.rest[:end])
            del self.rest[: end + 1]
            try:
                message = json.loads(line)
                data = base64.b64decode(message["data"])
                yield Frame(_KINDS[message["type"]], int(message["sessionId"]), int(message["seq"]), data)
            except (ValueError, KeyError, TypeError) as error:
                raise FramingError(f"no message: {line[:60]!r}") from error
        if len(self.rest) > 2 * LARGEST:
            raise FramingError("a message without end")


CODECS: Final[dict[str, type[Codec]]] = {"binary": Binary, "json": Base64Json}


def pack(frames: Sequence[Frame]) -> Frame:
    """Several frames as one, compressed together."""
    inner = Binary()
    return Frame(Kind.PACK, data=zlib.compress(b"".join(inner.encode(frame) for frame in frames)))


def unpack(frame: Frame) -> list[Frame]:
    """The frames of a PACK."""
    try:
        machine = zlib.decompressobj()
        content = machine.decompress(frame.data, 8 * LARGEST)
    except zlib.error as error:
        raise FramingError("a batch that does not decompress") from error
    return list(Binary().feed(content))


@dataclass(slots=True)
class Sequencer:
    """Puts the frames of one session and direction back in order."""

    expected: int = 0
    early: dict[int, Frame] = field(default_factory=dict)

    def add(self, frame: Frame) -> Iterator[Frame]:
        """The frames that are now in turn."""
        self.early[frame.number] = frame
        while (ready := self.early.pop(self.expected, None)) is not None:
            self.expected += 1
            yield ready
