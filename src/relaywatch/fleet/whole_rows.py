"""The sieve where whole canonical rows are at hand, of a stream's state: it gives the rows of cases too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from relaywatch.detection.calibration import Tables
from relaywatch.detection.columns import Flags
from relaywatch.detection.settings import Settings
from relaywatch.engines.intake import without_allowed
from relaywatch.engines.judging import judge_part
from relaywatch.engines.records import FLOW, SIGNAL, VOLUME, Records, Registry, flow_records, volume_records
from relaywatch.engines.stretches import DAY_US, written_at
from relaywatch.engines.texts import Texts
from relaywatch.fleet.sieve import Sifted, Told, wanted
from relaywatch.model.schemas import TABLES
from relaywatch.model.tables import Batch, TableName

Rows = Sequence[pa.RecordBatch]
_COMPRESSED: Final = pa.ipc.IpcWriteOptions(compression="zstd", unify_dictionaries=True)


def to_bytes(table: pa.Table) -> bytes:
    """Rows as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_COMPRESSED) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_bytes(content: bytes) -> pa.Table:
    """The rows of `to_bytes`."""
    with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
        return reader.read_all()


def sift_rows(flows: Rows, volumes: Rows, found: Sifted, settings: Settings, tables: Tables) -> None:
    """Judge canonical rows, all there are of some devices' days; note the cases, with their rows.

    flows: without those that settings allow.
    """
    registry, texts = Registry(), Texts()
    records = np.concatenate(
        [np.empty(0, FLOW), *(flow_records(Batch("flows", rows), registry, texts) for rows in flows)]
    )
    intervals = np.concatenate(
        [np.empty(0, VOLUME), *(volume_records(Batch("volumes", rows), registry) for rows in volumes)]
    )
    part = judge_part(records, intervals, np.empty(0, SIGNAL), registry, settings, tables)
    found.count(part, records, intervals)
    keys = wanted(part, records, registry)
    if keys:
        which = _of(records, keys)
        note_rows(found, Told.CASE_FLOWS, _chosen("flows", flows, which))
        note_rows(found, Told.CASE_VOLUMES, _chosen("volumes", volumes, _belong(intervals, records[which])))


def to_judge(flows: Rows, settings: Settings) -> Rows:
    """The flows without those that settings allow."""
    allowed = settings.allowed_destinations
    return [without_allowed(rows, allowed) for rows in flows] if allowed else flows


def _of(flows: Records, keys: set[tuple[int, int]]) -> Flags:
    app, day = np.array(sorted(keys), np.int64).T
    held = pl.DataFrame({"app": flows["app"].astype(np.int64), "day": written_at(flows) // DAY_US}).with_row_index()
    rows = held.join(pl.DataFrame({"app": app, "day": day}), on=["app", "day"], how="semi")["index"]
    return _flags(rows, len(flows))


def _belong(volumes: Records, flows: Records) -> Flags:
    """Which volumes are of these flows."""
    held, of = (pl.DataFrame({n: records[n] for n in ("source", "flow_id")}) for records in (volumes, flows))
    return _flags(held.with_row_index().join(of, on=["source", "flow_id"], how="semi")["index"], len(volumes))


def _flags(rows: pl.Series, size: int) -> Flags:
    flags: Flags = np.zeros(size, np.bool_)
    flags[rows.to_numpy()] = True
    return flags


def note_rows(found: Sifted, told: Told, rows: pa.Table) -> None:
    """Add rows of a table to what was found, if there are any."""
    if rows.num_rows:
        found.rows.append((told, 0, rows.num_rows, to_bytes(rows)))


def _chosen(table: TableName, rows: Rows, which: Flags) -> pa.Table:
    return pa.Table.from_batches(rows, TABLES[table]).filter(pa.array(which))
