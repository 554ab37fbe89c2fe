"""JSON feeds of context (verdicts, inventories) record by record: rows, a reason for none, or quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa

from relaywatch.model.tables import Batch
from relaywatch.sources.context_rows import ContextRows
from relaywatch.sources.device_names import instant, said
from relaywatch.sources.json_records import frames
from relaywatch.sources.lines import shown
from relaywatch.sources.reading import Reading

TEXT: Final = pa.string()
_NO_ID: Final = frozenset("0-")


def struct(*names: str, **kinds: pa.DataType) -> pa.DataType:
    """An object with these fields, text unless said otherwise."""
    return pa.struct([*(pa.field(name, TEXT) for name in names), *(pa.field(n, k) for n, k in kinds.items())])


def fields(*names: str, **kinds: pa.DataType) -> pa.Schema:
    """As struct, for the record itself."""
    return pa.schema(list(struct(*names, **kinds)))


class DamagedRecord(Exception):  # noqa: N818 - a record, not an error of the program
    """A record that lacks what its kind needs."""


Take = Callable[[Mapping[str, Any]], str | None]
"""Adds the rows of one record; the reason where it soundly has none. Raises DamagedRecord before it adds a row."""


def read_feed(
    path: Path, stream: BinaryIO, reading: Reading, schema: pa.Schema, rows: ContextRows, take: Take
) -> Iterator[Batch]:
    """Batches of a feed of JSON lines, with every record accounted for."""
    for frame in frames(stream, path, schema, reading):
        for record in frame.iter_rows(named=True):
            try:
                reason = take(record)
            except DamagedRecord as damage:
                reading.quarantine.add(str(path), f"line {record['position']}", str(damage))
                continue
            if reason is not None:
                reading.tally.left(reason, 1)
        found = rows.batches()
        reading.tally.gave(found)
        yield from found


def inside(record: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The object under these keys; empty where there is none."""
    for name in names:
        record = record.get(name) or {}
    return record


def known_id(value: object) -> str | None:
    """An id of a device; None where it is empty or all zeros."""
    text = said(value)
    return None if text is None or set(text) <= _NO_ID else text


def moment(value: object, name: str) -> int:
    """Microseconds since the epoch; raises DamagedRecord with the field's name where it is no time."""
    found = instant(value)
    if found is None:
        raise DamagedRecord(f"{name}: {shown(value)} is no time")
    return found.us


def joined(*parts: object) -> str:
    """What is known of the parts, comma-separated."""
    return ", ".join(text for part in parts if (text := said(part)) is not None)


def email(value: object) -> str | None:
    """A person's address; None where the field holds something else."""
    text = said(value)
    return text if text is not None and "@" in text else None
