"""Rows that are being imported, parted by shard into work files, so that memory follows one shard and not the input."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from relaywatch.lake.files import Columns, compacted, joined, taken
from relaywatch.lake.layout import SHARDED, row_shards
from relaywatch.model.schemas import TABLES
from relaywatch.model.tables import Batch, TableName

CHUNK_ROWS: Final = 524_288
"""Rows parted at a time: enough that a shard's piece is worth writing."""
CHUNK_BYTES: Final = 128 << 20
RUN_ROWS: Final = 2_000_000
RUN_BYTES: Final = 288 << 20
"""Rows, and their bytes, that are sorted at a time."""


class Spill:
    """Takes batches of all tables, and gives back each shard's rows in runs that fit into memory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._held: dict[TableName, list[Columns]] = defaultdict(list)
        self._held_rows: dict[TableName, int] = defaultdict(int)
        self._held_bytes: dict[TableName, int] = defaultdict(int)
        self._writers: dict[tuple[TableName, int], pa.RecordBatchStreamWriter] = {}
        # One thread parts and writes while the caller reads on.
        self._worker = ThreadPoolExecutor(1)
        self._at_work: Future[None] | None = None
        self.rows = 0

    def add(self, batch: Batch) -> None:
        """Take a batch in."""
        if not batch.rows.num_rows:
            return
        columns = [compacted(column) for column in batch.rows.columns]
        self._held[batch.table].append(columns)
        self._held_rows[batch.table] += batch.rows.num_rows
        self._held_bytes[batch.table] += sum(column.nbytes for column in columns)
        self.rows += batch.rows.num_rows
        if self._held_rows[batch.table] >= CHUNK_ROWS or self._held_bytes[batch.table] >= CHUNK_BYTES:
            self._part(batch.table)

    def seal(self) -> list[tuple[TableName, int]]:
        """No more batches come. The tables and shards that have rows; shard is 0 of tables without shards."""
        for table in [table for table, held in self._held.items() if held]:
            self._part(table)
        self._wait()
        self._worker.shutdown()
        for writer in self._writers.values():
            writer.close()
        return sorted(self._writers)

    def runs(self, table: TableName, shard: int) -> Iterator[Columns]:
        """The rows of a shard in runs of at most about RUN_ROWS; its work file is then gone."""
        path = self._path(table, shard)
        parts: list[Columns] = []
        rows = size = 0
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as pieces:
            for piece in pieces:
                if parts and (rows + piece.num_rows > RUN_ROWS or size + piece.nbytes > RUN_BYTES):
                    yield joined(parts)
                    rows = size = 0
                rows, size = rows + piece.num_rows, size + piece.nbytes
                parts.append(piece.columns)
                del piece
        if parts:
            yield joined(parts)
        path.unlink()

    def close(self) -> None:
        """Stop; the work files stay for the caller to remove."""
        self._worker.shutdown(cancel_futures=True)
        for writer in self._writers.values():
            writer.close()

    def _part(self, table: TableName) -> None:
        self._wait()
        parts = self._held.pop(table)
        self._held_rows[table] = self._held_bytes[table] = 0
        self._at_work = self._worker.submit(self._write, table, parts)

    def _wait(self) -> None:
        if self._at_work is not None:
            self._at_work.result()
            self._at_work = None

    def _write(self, table: TableName, parts: list[Columns]) -> None:
        columns = joined(parts)
        if table not in SHARDED:
            self._append(table, 0, columns)
            return
        shard = row_shards(columns[0])
        order = np.argsort(shard, kind="stable")
        bounds = np.searchsorted(shard[order], np.arange(257))
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            self._append(table, number, taken(columns, order[bounds[number] : bounds[number + 1]]))

    def _append(self, table: TableName, shard: int, columns: Columns) -> None:
        writer = self._writers.get((table, shard))
        if writer is None:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            writer = pa.ipc.new_stream(str(self._path(table, shard)), TABLES[table], options=options)
            self._writers[table, shard] = writer
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=TABLES[table]))

    def _path(self, table: TableName, shard: int) -> Path:
        return self._folder / f"{table}-{shard:02d}.arrows"
