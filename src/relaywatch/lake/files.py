"""Columns taken, joined and written as the lake's sorted Parquet files, and read back by row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from relaywatch.lake.layout import ORDER
from relaywatch.lake.ordering import Indices
from relaywatch.model.errors import LakeError
from relaywatch.model.schemas import TABLES, TEXT
from relaywatch.model.tables import TableName

ROW_GROUP: Final = 131_072
COMPRESSION: Final = "lz4"
"""The cheapest to read of those measured (docs/lake.md)."""
DICTIONARY_BYTES: Final = 8 << 20
"""Text stays dictionary-encoded up to here, so that reading it costs four bytes a row."""
_PLAIN: Final = frozenset(
    {"bytes_out", "bytes_in", "wire_bytes_out", "wire_bytes_in", "packets_out", "packets_in", "duration_us"}
)
_RISING: Final = frozenset({"flow_id", "start_time", "end_time", "position", "valid_from", "valid_to"})
"""Numbers near to the row before's: stored as differences."""

Columns = list[pa.Array]


def compacted(column: pa.Array) -> pa.Array:
    """Text without the entries that no row uses; other columns as they are."""
    if not pa.types.is_dictionary(column.type):
        return column
    entries = column.dictionary
    if entries.null_count:
        return column.cast(pa.string()).dictionary_encode()
    used = np.zeros(len(entries) + 1, np.bool_)
    indices = column.indices
    whole = indices.fill_null(len(entries)) if indices.null_count else indices
    codes = whole.to_numpy(zero_copy_only=False)
    used[codes] = True
    if used[:-1].all():
        return column
    fresh = np.cumsum(used, dtype=np.int32) - np.int32(1)
    mask = codes == len(entries) if indices.null_count else None
    return pa.DictionaryArray.from_arrays(
        pa.array(fresh[codes], pa.int32(), mask=mask), entries.take(pa.array(np.flatnonzero(used[:-1])))
    )


def taken(columns: Sequence[pa.Array], rows: Indices) -> Columns:
    """The rows of each column; a column of nulls costs nothing."""
    chosen = pa.array(rows)
    return [
        pa.nulls(len(rows), column.type) if column.null_count == len(column) else compacted(column.take(chosen))
        for column in columns
    ]


def joined(parts: list[Columns]) -> Columns:
    """The parts' columns one after the other. Empties `parts`, so that no column is held twice."""
    columns = [list(chunks) for chunks in zip(*parts, strict=True)]
    parts.clear()
    whole = []
    for chunks in columns:
        whole.append(_one(chunks))
        chunks.clear()
    return whole


def _one(chunks: Columns) -> pa.Array:
    kind = chunks[0].type
    if all(chunk.null_count == len(chunk) for chunk in chunks):
        return pa.nulls(sum(map(len, chunks)), kind)
    if len(chunks) == 1:
        return chunks[0]
    if pa.types.is_dictionary(kind):
        chunks = pa.chunked_array(chunks, kind).unify_dictionaries().chunks
    return pa.concat_arrays(chunks)


class SortedFile:
    """A Parquet file of one table, written in row groups of ROW_GROUP rows as sorted rows come."""

    def __init__(self, path: Path, table: TableName) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.rows = path, 0
        self._schema = TABLES[table]
        self._pending: list[Columns] = []
        self._pending_rows = 0
        by_dictionary = [name for name in self._schema.names if name not in _PLAIN | _RISING | {"established"}]
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression=COMPRESSION,
            use_dictionary=by_dictionary,
            column_encoding={name: "DELTA_BINARY_PACKED" for name in self._schema.names if name in _RISING},
            dictionary_pagesize_limit=DICTIONARY_BYTES,
            write_page_index=True,
            sorting_columns=pq.SortingColumn.from_ordering(
                self._schema, [(name, "ascending") for name in ORDER[table]], null_placement="at_start"
            ),
        )

    def __enter__(self) -> SortedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        """Close it; where all went well, with all rows in it."""
        try:
            if kind is None and self._pending:
                self._write()
        finally:
            self._writer.close()

    def add(self, columns: Sequence[pa.Array], rows: Indices) -> None:
        """Write these rows of the columns, in this order; none sorts before one that was written earlier."""
        self.rows += len(rows)
        while len(rows):
            size = ROW_GROUP - self._pending_rows
            self._pending.append(taken(columns, rows[:size]))
            self._pending_rows += len(self._pending[-1][0])
            rows = rows[size:]
            if self._pending_rows == ROW_GROUP:
                self._write()

    def _write(self) -> None:
        columns = joined(self._pending)
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema), row_group_size=ROW_GROUP)
        self._pending_rows = 0


def opened(path: Path, table: TableName) -> pq.ParquetFile:
    """A file of the lake, memory-mapped, text as dictionaries. Raises OSError or pa.ArrowException where damaged."""
    texts = [field.name for field in TABLES[table] if field.type == TEXT]
    return pq.ParquetFile(path, memory_map=True, read_dictionary=texts, pre_buffer=False)


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Tell of a file of the lake that is missing or damaged as LakeError."""
    try:
        yield
    except FileNotFoundError as fault:
        raise LakeError(
            f"{path}: missing, though the lake lists it. If a compaction has just ended, run the command again; "
            "otherwise restore the file."
        ) from fault
    except (OSError, pa.ArrowException) as fault:
        raise LakeError(f"{path}: cannot be read ({fault}). Restore it, or import into a new lake.") from fault
