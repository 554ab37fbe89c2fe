"""Records parted by device, in memory while few and in files of the work folder beyond that.

A device's records are always in one shard, so that each shard can be judged by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from relaywatch.engines.records import Records, taken

SHARDS: Final = 256
KEPT_IN_MEMORY: Final = 100_000_000
"""Bytes of records of one table held before they go to files."""


class ShardedTable:
    """One table's records, added in any order and read shard by shard."""

    def __init__(self, name: str, dtype: np.dtype[np.void], folder: Path) -> None:
        self.dtype = dtype
        self._folder = folder
        self._name = name
        self._held: list[Records] = []
        self._held_bytes = 0
        self._ordered = np.empty(0, dtype)
        self._bounds = np.zeros(SHARDS + 1, np.int64)
        self.rows = 0
        self.spilled = False

    def add(self, records: Records) -> None:
        """Take records in; they may go to files."""
        self.rows += len(records)
        self._held.append(records)
        self._held_bytes += records.nbytes
        if self._held_bytes > KEPT_IN_MEMORY:
            self._spill()

    def read(self, shard: int) -> Records:
        """All records of one shard, in the order they were added."""
        if self.spilled:
            path = self._path(shard)
            return np.fromfile(path, self.dtype) if path.exists() else np.empty(0, self.dtype)
        return self._ordered[self._bounds[shard] : self._bounds[shard + 1]]

    def seal(self) -> None:
        """No more records come. Must be called once, before reading."""
        if self.spilled:
            self._spill()
        else:
            held = np.concatenate(self._held) if self._held else np.empty(0, self.dtype)
            self._ordered, self._bounds = _by_shard(held)
        self._held = []

    def emptied(self, name: str, folder: Path) -> ShardedTable:
        """A table without records, for records of the same kind."""
        return ShardedTable(name, self.dtype, folder)

    def discard(self) -> None:
        """Let go of memory and files. The table cannot be read any more."""
        self._ordered = np.empty(0, self.dtype)
        for shard in range(SHARDS):
            self._path(shard).unlink(missing_ok=True)

    def _spill(self) -> None:
        self.spilled = True
        for records in self._held:
            ordered, bounds = _by_shard(records)
            for k in range(SHARDS):
                if bounds[k] < bounds[k + 1]:
                    with self._path(k).open("ab") as file:
                        ordered[bounds[k] : bounds[k + 1]].tofile(file)
        self._held, self._held_bytes = [], 0

    def _path(self, shard: int) -> Path:
        return self._folder / f"{self._name}-{shard:02d}.records"


def _by_shard(records: Records) -> tuple[Records, npt.NDArray[np.int64]]:
    """Records ordered by shard, otherwise as they came, and where each shard begins."""
    shard = (records["device"] % SHARDS).astype(np.uint8)
    order = np.argsort(shard, kind="stable")
    return taken(records, order), np.searchsorted(shard[order], np.arange(SHARDS + 1))
