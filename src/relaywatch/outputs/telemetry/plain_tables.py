"""The canonical tables as Parquet (a file a table) and as NDJSON (one file, one record a line)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from relaywatch.model.schemas import TABLES
from relaywatch.model.tables import Batch

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def write_parquet(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`<table>.parquet` for each table that has rows; a row group a batch."""
    writers: dict[str, pq.ParquetWriter] = {}
    with ExitStack() as stack:
        for part in batches:
            if part.table not in writers:
                file = pq.ParquetWriter(folder / f"{part.table}.parquet", TABLES[part.table], compression="zstd")
                writers[part.table] = stack.enter_context(file)
            writers[part.table].write_batch(part.rows)
    return [folder / f"{table}.parquet" for table in writers]


def write_ndjson(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`records.ndjson`: {"table": ..., columns that are not null}; times as RFC 3339 in UTC."""
    path = folder / "records.ndjson"
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for part in batches:
            for row in _rows(part.rows):
                record = {name: value for name, value in row.items() if value is not None}
                file.write(json.dumps({"table": part.table, **record}, separators=(",", ":"), allow_nan=False) + "\n")
    return [path]


def _rows(rows: pa.RecordBatch) -> Iterable[dict[str, object]]:
    instants = [field.name for field in rows.schema if pa.types.is_timestamp(field.type)]
    for name in instants:
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, name, rows.column(index).cast(pa.int64()))
    for row in rows.to_pylist():
        for name in instants:
            if row[name] is not None:
                row[name] = rfc3339(row[name])
        yield row


def rfc3339(microseconds: int) -> str:
    """An instant (microseconds since the epoch) as RFC 3339 text in UTC, to the microsecond."""
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
