"""Pub/Sub envelopes of the Android Management API taken off: what is inside comes as JSON lines.

A push body is {"message": {"data": base64, "attributes": {"notificationType": …}}}, a pulled message the inner object;
`data` is base64 of a JSON object (Google's documentation of Pub/Sub messages and of AMAPI notifications).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

_MARK: Final = b'"data"'


def inside(record: dict[str, Any]) -> dict[str, Any] | None:
    """The object that an envelope holds; None where the record is no envelope, or damaged."""
    try:
        value = json.loads(_held(record) or b"null")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _held(record: dict[str, Any]) -> bytes | None:
    """The bytes in an envelope; None where the record is none."""
    message = record.get("message", record)
    data = message.get("data") if isinstance(message, dict) else None
    if not isinstance(data, str):
        return None
    try:
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        return None


class Opened:
    """A stream of JSON lines with every envelope replaced by what it holds; other lines pass as they are."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = self._opened(stream)
        self._held = b""

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        parts, have = [self._held], len(self._held)
        while size < 0 or have < size:
            line = next(self._lines, None)
            if line is None:
                break
            parts.append(line)
            have += len(line)
        whole = b"".join(parts)
        cut = len(whole) if size < 0 else size
        self._held = whole[cut:]
        return whole[:cut]

    def _opened(self, stream: BinaryIO) -> Iterator[bytes]:
        for line in stream:
            yield _opened_line(line) if _MARK in line else line


def _opened_line(line: bytes) -> bytes:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return line
    held = _held(record) if isinstance(record, dict) else None
    if held is None:
        return line
    plain = held.strip()
    if plain.startswith(b"{") and b"\n" not in plain and b"\r" not in plain:
        return plain + b"\n"
    value = inside(record)
    return line if value is None else json.dumps(value, separators=(",", ":")).encode() + b"\n"
