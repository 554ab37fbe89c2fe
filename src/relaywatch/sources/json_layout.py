"""JSON however it was saved, as JSON lines: what collectors wrap around records is taken off like compression.

Readers then meet one record a line, whether a file holds JSON lines, one array, one object printed over many lines, an
answer of an API that lists records under a key, or records in a collector's envelope. A file of plain JSON lines, and
any that is no JSON, passes through untouched. Line numbers of what was laid out anew count records from 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import ijson

from relaywatch.model.errors import SourceError

PROBED_BYTES: Final = 65_536
PROBED_LINES: Final = 20
RECORD_BYTES: Final = 64 << 20
"""A single object of more text is no record of any format here."""
DEEPEST: Final = 64
"""Nesting beyond which a document is no telemetry."""
LISTS: Final = frozenset({"value", "Records", "records", "results", "content", "data", "items", "events", "devices"})
"""Keys under which APIs list their records: OData, AWS, Azure, Google, Elastic, Zimperium."""
_AROUND: Final = frozenset(
    {"message", "@timestamp", "@version", "tags", "host", "type", "input", "agent", "log", "stream"}
)
"""What shippers put beside a record's text in `message`, and nothing else."""
_WHITE: Final = b" \t\r\n"


def as_lines(start: bytes, stream: BinaryIO, path: Path) -> Iterator[bytes] | None:
    """The content as pieces of JSON lines; None where it needs no other layout.

    start: the content's first bytes, which `stream` will give again. Raises SourceError, while iterated, at damage.
    """
    text = start.lstrip(_WHITE)
    if not text.startswith((b"{", b"[")):
        return None
    line, ended, _ = text.partition(b"\n")
    first = _parsed(line) if ended or len(start) < PROBED_BYTES else None
    if isinstance(first, dict):
        more = text[len(line) :].strip(_WHITE)
        if _envelope(first) is not None:
            return _unwrapped_lines(stream)
        if more or _list_key(first) is None:
            return None
    elif _later_record(text):
        return None
    shape = _shape(text)
    if shape is None:
        return None
    prefix, wrapped = shape
    return _laid_out(stream, path, prefix, wrapped=wrapped)


def _later_record(text: bytes) -> bool:
    """Whether one of the lines after the first is a record by itself: JSON lines of which the first is damaged."""
    lines = text.split(b"\n", PROBED_LINES)[1:PROBED_LINES]
    return text.startswith(b"{") and any(line[:1] == b"{" and isinstance(_parsed(line), dict) for line in lines)


def _parsed(text: bytes) -> object:
    """The JSON value, or None where it is none."""
    try:
        return cast("object", json.loads(text))
    except (ValueError, RecursionError):
        return None


def _shape(start: bytes) -> tuple[str, bool] | None:
    """Where the records of a document are (ijson prefix), and whether they are enveloped; None: no JSON document."""
    builder, whole, depth = ijson.ObjectBuilder(), False, 0
    try:
        for _, event, value in ijson.parse(start):
            depth += (event in ("start_map", "start_array")) - (event in ("end_map", "end_array"))
            if depth > DEEPEST:
                break
            builder.event(event, value)
        else:
            whole = True
    except (ijson.JSONError, ValueError):
        pass  # cut off, no UTF-8, or a number of absurd length: the shape is told by what comes before
    value = getattr(builder, "value", None)
    if isinstance(value, list):
        return ("item", _envelope(value[0]) is not None) if value and isinstance(value[0], dict) else None
    if not isinstance(value, dict) or not value:
        return None
    key = _list_key(value)
    if key is not None:
        return f"{key}.item", _envelope(value[key][0]) is not None
    if not whole and len(start) < PROBED_BYTES:
        return ("", False)  # cut off or followed by more: the damage is told when it is read
    return "", _envelope(value) is not None


def _list_key(record: dict[str, Any]) -> str | None:
    """The key that lists the records, where there is exactly one such list of objects."""
    keys = [k for k, v in record.items() if k in LISTS and isinstance(v, list) and v and isinstance(v[0], dict)]
    return keys[0] if len(keys) == 1 else None


def _envelope(record: object) -> str | None:
    """The text of the record inside a collector's envelope; None where this is the record itself."""
    if not isinstance(record, dict):
        return None
    inner = record.get("input")
    if isinstance(inner, dict) and isinstance(inner.get("message"), str):
        return cast("str", inner["message"])
    if isinstance(result := record.get("result"), dict) and isinstance(result.get("_raw"), str):
        return cast("str", result["_raw"])
    if isinstance(record.get("_raw"), str):
        return cast("str", record["_raw"])
    if isinstance(source := record.get("_source"), dict) and "_index" in record:
        return json.dumps(source, default=float)
    if isinstance(record.get("message"), str) and record.keys() <= _AROUND:
        return cast("str", record["message"])
    return None


def _line(record: object, *, wrapped: bool) -> bytes:
    """One record as one line; numbers with a fraction, which come as decimals, as floats."""
    text = _envelope(record) if wrapped else None
    if text is None:
        return json.dumps(record, separators=(",", ":"), default=float).encode() + b"\n"
    inner = text.strip().encode("utf-8", "replace")
    if b"\n" in inner:
        value = _parsed(inner)
        inner = json.dumps(value, separators=(",", ":")).encode() if value is not None else inner.replace(b"\n", b" ")
    return inner + b"\n"


def _unwrapped_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Each line's inner record; a line that is no envelope stays as it is, for the reader to judge."""
    for line in stream:
        record = _parsed(line)
        yield _line(record, wrapped=True) if isinstance(record, dict) else line


def _laid_out(stream: BinaryIO, path: Path, prefix: str, *, wrapped: bool) -> Iterator[bytes]:
    """Each record of a document as one line. Bounded: a record by RECORD_BYTES of text, nesting by DEEPEST."""
    number, at = 1, 0
    builder: Any = None
    base = depth = 0
    begun = 0
    try:
        for where, event, value in ijson.parse(stream, multiple_values=True):
            starts = event in ("start_map", "start_array")
            if builder is None and where == prefix and event not in ("end_map", "end_array"):
                builder, base, begun = ijson.ObjectBuilder(), depth, 0
            depth += starts
            if depth > DEEPEST:
                raise SourceError(path, f"nested more than {DEEPEST} deep.", position=f"record {number}")
            if event in ("end_map", "end_array"):
                depth -= 1
            if builder is None:
                continue
            builder.event(event, value)
            begun += len(value) if isinstance(value, str) else 8
            if begun > RECORD_BYTES:
                raise SourceError(path, f"a record of more than {RECORD_BYTES} bytes.", position=f"record {number}")
            if depth == base:
                yield _line(builder.value, wrapped=wrapped)
                builder, at = None, number
                number += 1
    except (ijson.JSONError, UnicodeDecodeError, ValueError) as error:
        raise SourceError(
            path, f"damaged JSON ({str(error)[:120]!r}).", position=f"record {at + 1}", remedy="Export it again."
        ) from error
