"""What engines read of a lake: its days, partitions and rows, memory-mapped, and no more than is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from relaywatch.lake.compacting import needs_merging
from relaywatch.lake.files import damage_told, opened
from relaywatch.lake.layout import DAILY, ORDER, SHARDS, Partition, day_date, day_number, shard_of
from relaywatch.lake.store import Manifest, StoredFile, read_manifest
from relaywatch.model.schemas import INVENTORY, TABLES
from relaywatch.model.tables import TableName

_DEVICE = "device_uid"


@dataclass(frozen=True, slots=True)
class TableSize:
    """What a lake holds of one table. to_merge: files that a compaction would merge, or free of exact repeats."""

    rows: int
    size_bytes: int
    files: int
    to_merge: int


class Lake:
    """A lake as it was when it was opened. An import beside it changes nothing; a compaction may remove its files."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self._manifest = manifest
        self._files = manifest.partitions()

    @classmethod
    def open(cls, folder: Path) -> Lake:
        """The lake at `folder`. Raises LakeError where it is none, of a later layout, or its list is damaged."""
        return cls(folder, read_manifest(folder))

    def days(self) -> list[date]:
        """UTC days of which there are flows or volumes, rising."""
        return [day_date(day) for day in sorted({part.day for part in self._files if part.day is not None})]

    def partitions(self, table: TableName) -> list[tuple[date, int]]:
        """Day and shard of each partition of flows or volumes that has rows, rising."""
        return [
            (day_date(part.day), part.shard)
            for part in self._files
            if part.table == table and part.day is not None and part.shard is not None
        ]

    def shards(self, table: TableName) -> list[int]:
        """Shards of a table that have rows on any day, rising."""
        return sorted({part.shard for part in self._files if part.table == table and part.shard is not None})

    @property
    def digest(self) -> str:
        """A text that changes whenever the lake's files do."""
        files = sorted((file.path, file.rows, file.size_bytes) for files in self._files.values() for file in files)
        return blake2b(repr(files).encode(), digest_size=16).hexdigest()

    def sources(self) -> dict[str, str]:
        """Format (the reader's name) by source name, of all that was imported."""
        return dict(self._manifest.sources)

    def rows(self, table: TableName, day: date, shard: int) -> int:
        """Rows of a partition of flows or volumes."""
        return sum(file.rows for file in self._of(_daily(table, day, shard)))

    def is_one_run(self, table: TableName, day: date, shard: int) -> bool:
        """Whether `read` gives the partition's rows in one sorted sequence; otherwise one such for each file."""
        return len(self._of(_daily(table, day, shard))) <= 1

    def read(
        self,
        table: TableName,
        day: date,
        shard: int,
        columns: Sequence[str] | None = None,
        devices: Collection[str] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Rows of a partition of flows or volumes, a batch a row group, each file's in its order (layout.ORDER).

        columns: only these, in this order, with the schema's types. devices: rows of these alone; row groups that hold
        none of them are not read. Raises LakeError where a file is missing or damaged.
        """
        return self._rows(_daily(table, day, shard), columns, devices)

    def has_first_seen(self) -> bool:
        """Whether some flow's start is only when it was first seen (start_observability), by the files' statistics."""
        for path in self.paths("flows"):
            with damage_told(path), opened(path, "flows") as file:
                if any(_has_values(file.metadata.row_group(number)) for number in range(file.num_row_groups)):
                    return True
        return False

    def signals(self, shard: int, devices: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Signals of a shard, of all days; as `read`."""
        return self._rows(Partition("signals", None, shard), None, devices)

    def inventory(self) -> pa.Table:
        """All inventory rows, each file's sorted; exact repeats of several imports stand until a compaction."""
        return pa.Table.from_batches(self._rows(Partition("inventory", None, None), None, None), INVENTORY)

    def devices(self) -> Iterator[set[str]]:
        """The devices that have rows: those of each shard, and last those that only the inventory names.

        Reads the device column of every file.
        """
        met: set[str] = set()
        for shard in range(SHARDS):
            found: set[str] = set()
            for part in self._files:
                if part.shard == shard:
                    found |= _names(self._rows(part, [_DEVICE], None))
            met |= found
            yield found
        yield _names(self._rows(Partition("inventory", None, None), [_DEVICE], None)) - met

    def paths(self, table: TableName) -> list[Path]:
        """The files of a table, for whoever reads Parquet by other means."""
        return [self.folder / file.path for part, files in self._files.items() if part.table == table for file in files]

    def sizes(self) -> dict[TableName, TableSize]:
        """What the lake holds of each table."""
        found: dict[TableName, TableSize] = {}
        for table in ORDER:
            parts = [files for part, files in self._files.items() if part.table == table]
            files = [file for part in parts for file in part]
            found[table] = TableSize(
                rows=sum(file.rows for file in files),
                size_bytes=sum(file.size_bytes for file in files),
                files=len(files),
                to_merge=sum(len(part) for part in parts if needs_merging(part)),
            )
        return found

    @property
    def imported(self) -> int:
        """Files and folders that were imported."""
        return len(self._manifest.imported)

    @property
    def quarantined(self) -> int:
        """Damaged records that the imports put aside."""
        return sum(entry.quarantined for entry in self._manifest.imported)

    def _of(self, part: Partition) -> list[StoredFile]:
        return self._files.get(part, [])

    def _rows(
        self, part: Partition, columns: Sequence[str] | None, devices: Collection[str] | None
    ) -> Iterator[pa.RecordBatch]:
        for file in self._of(part):
            yield from self._file_rows(file, part, columns, devices)

    def _file_rows(
        self, stored: StoredFile, part: Partition, columns: Sequence[str] | None, devices: Collection[str] | None
    ) -> Iterator[pa.RecordBatch]:
        wanted = None if devices is None else _of_shard(devices, part.shard)
        if wanted == []:
            return
        path = self.folder / stored.path
        names = list(TABLES[part.table].names if columns is None else columns)
        asked = names if wanted is None or _DEVICE in names else [*names, _DEVICE]
        schema = pa.schema([TABLES[part.table].field(name) for name in names])
        with damage_told(path), opened(path, part.table) as file:
            for number in range(file.num_row_groups):
                if wanted is not None and not _may_hold(file.metadata.row_group(number), wanted):
                    continue
                for rows in file.read_row_group(number, columns=asked).combine_chunks().to_batches():
                    chosen = rows if wanted is None else _only(rows, wanted)
                    if chosen.num_rows:
                        yield pa.RecordBatch.from_arrays([chosen.column(name) for name in names], schema=schema)


def _daily(table: TableName, day: date, shard: int) -> Partition:
    if table not in DAILY:
        raise ValueError(f"{table} is not cut by day")
    return Partition(table, day_number(day), shard)


def _of_shard(devices: Collection[str], shard: int | None) -> list[str]:
    """Those of the devices that the shard can hold, in the order of files."""
    return sorted((name for name in devices if shard is None or shard_of(name) == shard), key=str.encode)


def _has_values(group: pq.RowGroupMetaData) -> bool:
    """Whether the row group may hold a value of start_observability."""
    columns = [group.column(number) for number in range(group.num_columns)]
    spans = [each.statistics for each in columns if each.path_in_schema == "start_observability"]
    return any(span is None or span.null_count < group.num_rows for span in spans)


def _may_hold(group: pq.RowGroupMetaData, wanted: list[str]) -> bool:
    """Whether a row group's least and greatest device leave room for one of `wanted`."""
    spans = [
        group.column(number).statistics
        for number in range(group.num_columns)
        if group.column(number).path_in_schema == _DEVICE
    ]
    if not spans or spans[0] is None or not spans[0].has_min_max:
        return True
    least, greatest = spans[0].min.encode(), spans[0].max.encode()
    return any(least <= name.encode() <= greatest for name in wanted)


def _only(rows: pa.RecordBatch, wanted: list[str]) -> pa.RecordBatch:
    """The rows of these devices; the entries of text columns stay as they are."""
    devices = rows.column(_DEVICE)
    hit = np.asarray(pc.is_in(devices.dictionary, value_set=pa.array(wanted, pa.string())))
    return rows.filter(pa.array(hit[devices.indices.to_numpy(zero_copy_only=False)]))


def _names(batches: Iterator[pa.RecordBatch]) -> set[str]:
    return {name for rows in batches for name in rows.column(_DEVICE).unique().to_pylist()}
