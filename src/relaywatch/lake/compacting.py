"""Several sorted files of a partition merged into one, rows that are exactly alike kept once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from relaywatch.lake.files import Columns, SortedFile, damage_told, joined, opened, taken
from relaywatch.lake.importing import Watcher
from relaywatch.lake.layout import Partition
from relaywatch.lake.ordering import Indices, ordered
from relaywatch.lake.store import Store, StoredFile, changing
from relaywatch.model.tables import TableName

MERGED_ROWS: Final = 1_000_000
"""Rows of all files of a partition held at a time."""
FEWEST_ROWS: Final = 4_096
"""Rows read of one file at a time, however many files there are."""
MOST_FILES: Final = 256
"""Files merged at a time; more are merged in rounds, for files open and rows held."""
CHANGE_ROWS: Final = 50_000_000
"""Rows merged before they are published: until then the disk holds them twice."""


@dataclass(slots=True)
class CompactAccount:
    """What a compaction did. merged: partitions written anew; before, after: its files; repeats: rows left out."""

    merged: int = 0
    before: int = 0
    after: int = 0
    repeats: int = 0


def compact(folder: Path, watcher: Watcher) -> CompactAccount:
    """Make every partition of the lake one sorted file without exact repeats.

    Raises LakeError where `folder` is no lake, cannot be written, or one of its files is missing or damaged; partitions
    published before stay compacted, and all others are as they were.
    """
    account = CompactAccount()
    with changing(folder, create=False) as store:
        account.before = len(store.manifest.files)
        # Rounds, for partitions of more than MOST_FILES files.
        while pending := _pending(store):
            _round(store, pending, account, watcher)
        account.after = len(store.manifest.files)
    return account


def needs_merging(files: list[StoredFile]) -> bool:
    """Whether a partition is not one file without exact repeats."""
    return len(files) > 1 or files[0].repeats > 0


def _pending(store: Store) -> dict[Partition, list[StoredFile]]:
    return {part: files for part, files in store.manifest.partitions().items() if needs_merging(files)}


def _round(store: Store, pending: dict[Partition, list[StoredFile]], account: CompactAccount, watcher: Watcher) -> None:
    watcher.writing(len(pending))
    fresh: list[StoredFile] = []
    stale: list[StoredFile] = []
    for partition, files in pending.items():
        # The smallest, so that rounds read large files as seldom as can be.
        chosen = sorted(files, key=lambda file: file.rows)[:MOST_FILES]
        fresh.append(_merge(store, partition, chosen))
        stale += chosen
        account.merged += 1
        account.repeats += sum(file.rows for file in chosen) - fresh[-1].rows
        watcher.written()
        if sum(file.rows for file in stale) >= CHANGE_ROWS:
            store.publish(fresh, without=stale)
            fresh, stale = [], []
    if fresh:
        store.publish(fresh, without=stale)


def _merge(store: Store, partition: Partition, files: list[StoredFile]) -> StoredFile:
    path = store.fresh(partition, 0)
    staged = store.staged(path)
    with ExitStack() as stack:
        rows = max(MERGED_ROWS // len(files), FEWEST_ROWS)
        runs = [stack.enter_context(_Run(store.folder / file.path, partition.table, rows, file.rows)) for file in files]
        merged = stack.enter_context(SortedFile(staged, partition.table))
        for columns, order in _merged(partition.table, runs, rows):
            merged.add(columns, order)
    return StoredFile(path, merged.rows, staged.stat().st_size, 0)


class _Run:
    """One sorted file, read piece by piece. Raises LakeError where it is missing or damaged."""

    def __init__(self, path: Path, table: TableName, rows: int, listed: int) -> None:
        """rows: of a piece; listed: of the whole file, as the lake says."""
        self._path = path
        with damage_told(path):
            self._file: pq.ParquetFile = opened(path, table)
            if self._file.metadata.num_rows != listed:
                raise pa.ArrowInvalid(f"{self._file.metadata.num_rows} rows, not {listed} as the lake lists")
            self._pieces = self._file.iter_batches(rows)
            self._ahead: pa.RecordBatch | None = next(self._pieces, None)

    @property
    def ended(self) -> bool:
        """Whether all pieces are taken."""
        return self._ahead is None

    def take(self) -> Columns:
        """The next piece."""
        piece = self._ahead
        with damage_told(self._path):
            self._ahead = next(self._pieces, None)
        columns: Columns = [] if piece is None else piece.columns
        return columns

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _merged(table: TableName, runs: list[_Run], rows: int) -> Iterator[tuple[Columns, Indices]]:
    """Columns and the order of those of their rows that no row still to be read sorts before, exact repeats once.

    Of a run that has more, nothing still to come sorts before its last row held: what sorts before the first of these
    last rows is final. That row itself stays, for a repeat to come. rows: of a piece.
    """
    held: list[Columns] = []
    owner = np.empty(0, np.int32)
    wanting = list(range(len(runs)))
    while True:
        for number in wanting:
            held.append(runs[number].take())
            owner = np.concatenate([owner, np.full(len(held[-1][0]), number, np.int32)])
        unfinished = np.array([number for number, run in enumerate(runs) if not run.ended], np.int32)
        columns = joined(held)
        order, alike = ordered(table, columns)
        cut = _final(owner[order], alike, unfinished, len(runs))
        yield columns, order[:cut][~alike[:cut]]
        if not len(unfinished):
            return
        rest = order[cut:][~alike[cut:]]
        if len(rest):
            held.append(taken(columns, rest))
        owner = owner[rest]
        left = np.bincount(owner, minlength=len(runs))
        # At least the run whose last row set the bound: of it one row is left, or none.
        wanting = unfinished[left[unfinished] <= max(rows // 2, 1)].tolist()


def _final(
    owner: npt.NDArray[np.int32], alike: npt.NDArray[np.bool_], unfinished: npt.NDArray[np.int32], runs: int
) -> int:
    """How many sorted rows are final. owner: run of each row; alike: whether it repeats the one before."""
    if not len(unfinished):
        return len(owner)
    last = np.zeros(runs, np.int64)
    last[owner] = np.arange(len(owner))  # where a run is named repeatedly, the last place stays
    bound = int(last[unfinished].min())
    # The first of all that are like the bound, so that one of them stays.
    return int(np.flatnonzero(~alike[: bound + 1])[-1])
