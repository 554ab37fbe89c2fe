"""What inputs hand to the engine: rows, with the positions of the inputs after them, to be kept as one."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from relaywatch.model.errors import RelaywatchError
from relaywatch.model.quarantine import Quarantined
from relaywatch.model.schemas import TABLES
from relaywatch.model.tables import Batch, TableName

Position = Mapping[str, Any]
"""How far an input was taken, as JSON values; only the input itself knows what they mean."""

_HEADER: Final = struct.Struct("<I")
_BARE: Final = {table: pa.schema([column.remove_metadata() for column in schema]) for table, schema in TABLES.items()}
"""The schemas without their documentation, which would be most of a small entry."""


class LiveError(RelaywatchError):
    """The live engine's state or an input of it cannot be used."""


def _unheard(_: bool) -> None:  # noqa: FBT001 - a callback's one argument
    """Nobody waits for it."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One piece of input. All of it is kept, or nothing.

    positions: of each input that this moves, its position after the rows; None: forget that input.
    form: name of the reader that gave the rows; aside: damaged records, the first of them; aside_total counts all.
    done: called once from the engine's thread: True once the piece is on disk, False where it never will be.
    """

    batches: Sequence[Batch]
    positions: Mapping[str, Position | None]
    aside: Sequence[Quarantined] = ()
    aside_total: int = 0
    form: str = ""
    done: Callable[[bool], None] = field(default=_unheard, compare=False)

    @property
    def size_bytes(self) -> int:
        """About how much memory the piece holds."""
        return sum(int(batch.rows.nbytes) for batch in self.batches) + 1024


def encode(taken: Taken) -> bytes:
    """The piece as bytes: a JSON header, then each batch as an Arrow IPC stream."""
    streams = [(batch.table, _stream(batch)) for batch in taken.batches]
    header = json.dumps(
        {
            "positions": taken.positions,
            "batches": [[table, len(stream)] for table, stream in streams],
            "aside": [[entry.source, entry.position, entry.reason] for entry in taken.aside],
            "aside_total": taken.aside_total,
            "form": taken.form,
        },
        separators=(",", ":"),
    ).encode()
    return b"".join((_HEADER.pack(len(header)), header, *(stream for _, stream in streams)))


def _stream(batch: Batch) -> memoryview:
    sink: Any = pa.BufferOutputStream()
    rows = pa.RecordBatch.from_arrays(batch.rows.columns, schema=_BARE[batch.table])
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return memoryview(sink.getvalue())


def decode(payload: bytes) -> Taken:
    """The piece that encode() wrote. Raises ValueError or pa.ArrowException where it is none."""
    (size,) = _HEADER.unpack_from(payload)
    at = _HEADER.size + size
    header = json.loads(payload[_HEADER.size : at])
    batches = []
    for table, length in header["batches"]:
        batches.append(_batch(table, pa.py_buffer(memoryview(payload)[at : at + length])))
        at += length
    aside = [Quarantined(*entry) for entry in header["aside"]]
    return Taken(batches, header["positions"], aside, header["aside_total"], header["form"])


def _batch(table: TableName, stream: pa.Buffer) -> Batch:
    rows = pa.ipc.open_stream(stream).read_next_batch()
    return Batch(table, pa.RecordBatch.from_arrays(rows.columns, schema=TABLES[table]))
