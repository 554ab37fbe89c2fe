"""Telemetry into the lake: read, parted by device, sorted shard by shard, published as a whole or not at all."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from relaywatch.lake.files import Columns, SortedFile
from relaywatch.lake.layout import DAILY, SHARDED, Partition, row_days
from relaywatch.lake.ordering import ordered
from relaywatch.lake.spill import Spill
from relaywatch.lake.store import STAGING, Imported, Store, StoredFile, changing
from relaywatch.model.errors import LakeError, SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import TABLES
from relaywatch.model.tables import TableName
from relaywatch.sources.discovery import Unit, Unrecognised, discover
from relaywatch.sources.reading import Reading
from relaywatch.sources.registry import FOLDER_READERS

LOAD_ROWS: Final = 100_000_000
"""Rows after which what was read so far is published at the end of a file, so that an interruption loses no more."""
WRITERS: Final = 2
"""Shards sorted and written at a time: memory follows it."""


class Watcher(Protocol):
    """Told how an import or a compaction goes on."""

    def reading(self, total_bytes: int) -> None:
        """Reading begins; so many stored bytes are to be read."""

    def read(self, stored_bytes: int) -> None:
        """So many more stored bytes are read."""

    def writing(self, parts: int) -> None:
        """Writing begins; so many parts are to be written."""

    def written(self) -> None:
        """One more part is written."""


@dataclass(slots=True)
class ImportAccount:
    """What an import did. known: units whose content is in the lake already and was not read again."""

    imported: list[Imported] = field(default_factory=list)
    known: list[Path] = field(default_factory=list)
    quarantine: Quarantine = field(default_factory=Quarantine)
    unrecognised: tuple[Unrecognised, ...] = ()
    files: int = 0


def import_telemetry(paths: Sequence[Path], folder: Path, device: str, watcher: Watcher) -> ImportAccount:
    """Read what is under `paths` into the lake at `folder`, which is made where there is none.

    device: the user's word for the device, for formats that do not name one. Damaged records go to the account's
    quarantine. Raises SourceError where there is nothing to read, LakeError where the lake cannot be written; the lake
    is then as it was, but for files published before.
    """
    discovery = discover(paths)
    if not discovery.units:
        raise SourceError(paths[0], "holds no telemetry in a known format.", remedy="See docs/quick-start.md.")
    inside = folder.resolve()
    for unit in discovery.units:
        if unit.path.resolve().is_relative_to(inside):
            raise LakeError(f"{unit.path}: in the lake itself, which holds these rows. Give paths outside {folder}.")
    account = ImportAccount(unrecognised=discovery.unrecognised)
    with changing(folder, create=True) as store:
        _import(store, discovery.units, account, device, watcher)
    return account


def _import(store: Store, units: Sequence[Unit], account: ImportAccount, device: str, watcher: Watcher) -> None:
    known = {entry.digest for entry in store.manifest.imported}
    watcher.reading(sum(unit.size_bytes for unit in units))
    load = _Load(store)
    try:
        for unit in units:
            digest = _digest(unit)
            if digest in known:
                account.known.append(unit.path)
                watcher.read(unit.size_bytes)
                continue
            known.add(digest)
            load.read(unit, digest, Reading(account.quarantine, device, watcher.read))
            if load.spill.rows >= LOAD_ROWS:
                _publish(load, account, watcher)
                load = _Load(store)
        _publish(load, account, watcher)
    finally:
        load.spill.close()


class _Load:
    """What is read and published at once: some units."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.spill = Spill(store.folder / STAGING / "spill")
        self.imported: list[Imported] = []
        self.sources: dict[str, str] = {}

    def read(self, unit: Unit, digest: str, reading: Reading) -> None:
        """Read a unit whole."""
        before, rows = reading.quarantine.total, Counter[str]()
        for batch in unit.read(reading):
            self.spill.add(batch)
            rows[batch.table] += batch.rows.num_rows
            for name in batch.rows["source"].unique().to_pylist():
                self.sources.setdefault(name, unit.reader_name)
        self.imported.append(
            Imported(
                path=str(unit.path),
                format=unit.reader_name,
                size_bytes=unit.size_bytes,
                digest=digest,
                rows={table: rows[table] for table in TABLES if rows[table]},
                quarantined=reading.quarantine.total - before,
            )
        )

    def write(self, table: TableName, shard: int) -> list[StoredFile]:
        """Sort and write a shard's rows under the staging folder."""
        files = []
        for number, columns in enumerate(self.spill.runs(table, shard)):
            files += self._write_run(table, shard, number, columns)
        return files

    def _write_run(self, table: TableName, shard: int, number: int, columns: Columns) -> list[StoredFile]:
        named = dict(zip(TABLES[table].names, columns, strict=True))
        days = row_days(table, named) if table in DAILY else None
        order, alike = ordered(table, columns, days)
        starts = np.zeros(1, np.int64)
        if days is not None:
            days = days[order]
            starts = np.concatenate([starts, np.flatnonzero(np.diff(days)) + 1])
        files = []
        for first, last in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
            partition = Partition(
                table, None if days is None else int(days[first]), shard if table in SHARDED else None
            )
            path = self.store.fresh(partition, number)
            staged = self.store.staged(path)
            with SortedFile(staged, table) as file:
                file.add(columns, order[first:last])
            files.append(StoredFile(path, file.rows, staged.stat().st_size, int(alike[first:last].sum())))
        return files


def _publish(load: _Load, account: ImportAccount, watcher: Watcher) -> None:
    """Sort, write and publish all that the load has read."""
    parts = load.spill.seal()
    watcher.writing(len(parts))
    files: list[StoredFile] = []
    writers = ThreadPoolExecutor(WRITERS)
    try:
        for done in writers.map(lambda part: load.write(*part), parts):
            files += done
            watcher.written()
    finally:
        writers.shutdown(cancel_futures=True)
    if load.imported:
        load.store.publish(files, imported=load.imported, sources=load.sources)
    account.imported += load.imported
    account.files += len(files)


def _digest(unit: Unit) -> str:
    """SHA-256 of a file's content; of a folder's unit, of its files' names and contents."""
    try:
        if unit.path.is_file():
            with unit.path.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        whole = hashlib.sha256()
        (reader,) = (reader for reader in FOLDER_READERS if reader.name == unit.reader_name)
        for path in sorted(reader.members(unit.path)):
            with path.open("rb") as stream:
                part = hashlib.file_digest(stream, "sha256").hexdigest()
            whole.update(f"{path.relative_to(unit.path).as_posix()}\0{part}\n".encode(errors="surrogateescape"))
        return whole.hexdigest()
    except OSError as fault:
        raise SourceError(unit.path, f"cannot be read: {fault.strerror or fault}.") from fault
