"""Records by pair, held for as long as a pair is active: what a judgement that goes on keeps of its input.

Each pair, here one app's day, has a slot. A slot's latest records stand in memory; older ones stand in blocks of a
file that is mapped into memory, each block pointing at the one before it. So memory follows the number of active pairs
and not of their records. Blocks that are let go are used again, though not before two more checkpoints were taken:
what a checkpoint refers to is still there when it is restored.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from relaywatch.detection.columns import Ints
from relaywatch.engines.promise import mirror
from relaywatch.engines.records import WORD, Records
from relaywatch.model.compilation import compiled
from relaywatch.model.errors import RelaywatchError

BLOCK: Final = 8
"""Records of a block; as many, the latest ones, are kept in memory of each pair."""
_NO_BLOCK: Final = -1
_NONE: Final = np.empty(0, np.int64)
_FIRST_SLOTS: Final = 1_024
_FIRST_BLOCKS: Final = 4_096
Words = npt.NDArray[np.uint64]


class _Slots(NamedTuple):
    """One entry a slot. recent: its latest records as words; fill: how many; head: its last block; total: records."""

    recent: Words
    fill: Ints
    head: Ints
    total: Ints


@compiled
def _mirrored(recent: Words, fill: int, blocks: Words, head: int, record: Words) -> bool:
    """Whether one of a pair's latest flows mirrors this one; the last block is looked at where few are in memory."""
    for k in range(fill):
        if mirror(record, recent[k]):
            return True
    if head != _NO_BLOCK and fill < BLOCK // 2:
        width = len(record)
        for k in range(BLOCK):
            if mirror(record, blocks[head, k * width : (k + 1) * width]):
                return True
    return False


@compiled
def _append(slots: _Slots, blocks: Words, free: Ints, left: int, of: Ints, records: Words, mirrored: Ints) -> int:
    """Put each record into its slot. Blocks are taken from the end of `free[:left]`; returns what is left of it.

    mirrored: counts, by slot, of flows that mirror an earlier one; empty where the records are no flows.
    """
    width = records.shape[1]
    for row in range(len(of)):
        slot = of[row]
        recent = slots.recent[slot]
        if len(mirrored):
            mirrored[slot] += _mirrored(recent, slots.fill[slot], blocks, slots.head[slot], records[row])
        if slots.fill[slot] == BLOCK:
            left -= 1
            block = free[left]
            for k in range(BLOCK):
                blocks[block, k * width : (k + 1) * width] = recent[k]
            blocks[block, BLOCK * width] = np.uint64(slots.head[slot] + 1)
            slots.head[slot], slots.fill[slot] = block, 0
        recent[slots.fill[slot]] = records[row]
        slots.fill[slot] += 1
        slots.total[slot] += 1
    return left


@compiled
def _gather(slots: _Slots, blocks: Words, wanted: Ints, out: Words) -> None:
    """All records of the wanted slots, slot after slot."""
    row, width = 0, out.shape[1]
    for slot in wanted:
        for k in range(slots.fill[slot]):
            out[row] = slots.recent[slot, k]
            row += 1
        block = slots.head[slot]
        while block != _NO_BLOCK:
            for k in range(BLOCK):
                out[row] = blocks[block, k * width : (k + 1) * width]
                row += 1
            block = np.int64(blocks[block, BLOCK * width]) - 1


@compiled
def _chained(slots: _Slots, blocks: Words, wanted: Ints, out: Ints) -> int:
    """The blocks of the wanted slots into `out`, which must have room for them; how many there are."""
    count, last = 0, blocks.shape[1] - 1
    for slot in wanted:
        block = slots.head[slot]
        while block != _NO_BLOCK:
            out[count] = block
            count += 1
            block = np.int64(blocks[block, last]) - 1
    return count


class PairStore:
    """Records of one dtype by slot. Slots are numbers that the caller gives out, from 0."""

    def __init__(self, dtype: np.dtype[np.void], path: Path) -> None:
        """path: of the file of blocks, made anew where there is none."""
        self.dtype = dtype
        self._width = dtype.itemsize // WORD
        self._path = path
        self._slots = _Slots(
            np.zeros((_FIRST_SLOTS, BLOCK, self._width), np.uint64),
            np.zeros(_FIRST_SLOTS, np.int64),
            np.full(_FIRST_SLOTS, _NO_BLOCK, np.int64),
            np.zeros(_FIRST_SLOTS, np.int64),
        )
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._map: mmap.mmap | None = None
        self._blocks = np.empty((0, BLOCK * self._width + 1), np.uint64)
        self._free = np.empty(0, np.int64)
        self._left = 0
        self._let_go = [np.empty(0, np.int64)]
        self._resting = [np.empty(0, np.int64), np.empty(0, np.int64)]

    @property
    def held_bytes(self) -> int:
        """Bytes of records held, in memory and in the file."""
        return int(self._slots.total.sum()) * self.dtype.itemsize

    def totals(self, slots: Ints) -> Ints:
        """How many records each slot holds."""
        self._make_room(int(slots.max(initial=-1)) + 1)
        return np.asarray(self._slots.total[slots], np.int64)

    def append(self, slots: Ints, records: Records, mirrored: Ints = _NONE) -> None:
        """Put each record into the slot given for it. mirrored: as of _append; long enough for all slots."""
        if not len(records):
            return
        self._make_room(int(slots.max()) + 1)
        self._make_blocks(len(records) // BLOCK + len(np.unique(slots)))
        words = records.view(np.uint64).reshape(len(records), self._width)
        self._left = _append(self._slots, self._blocks, self._free, self._left, slots, words, mirrored)

    def read(self, slots: Ints) -> tuple[Records, Ints]:
        """All records of the slots, in no particular order within one, and the slot of each."""
        counts = self.totals(slots)
        out = np.empty((int(counts.sum()), self._width), np.uint64)
        _gather(self._slots, self._blocks, slots, out)
        return out.view(self.dtype).reshape(len(out)), np.repeat(slots, counts)

    def clear(self, slots: Ints) -> None:
        """Empty the slots."""
        self._let_go.append(self._blocks_of(slots))
        self._slots.head[slots], self._slots.fill[slots], self._slots.total[slots] = _NO_BLOCK, 0, 0

    def relax(self) -> None:
        """Let the operating system take back the memory through which the file was read and written."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)

    def checkpoint(self) -> dict[str, npt.NDArray[Any]]:
        """Everything but the blocks, which are made durable: columns for `restore`. Only slots in use are given."""
        if self._map is not None:
            self._map.flush()
        os.fsync(self._descriptor)
        self._recycle(self._resting[0])
        self._resting = [self._resting[1], np.concatenate(self._let_go)]
        self._let_go = [np.empty(0, np.int64)]
        used = np.flatnonzero(self._slots.total)
        columns = {"slot": used, **{name: getattr(self._slots, name)[used] for name in ("fill", "head", "total")}}
        return {**columns, "recent": self._slots.recent[used].reshape(len(used), BLOCK * self._width)}

    def restore(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take the state that `checkpoint` gave, with the same file beside it."""
        slot = columns["slot"].astype(np.int64)
        self._make_room(int(slot.max(initial=-1)) + 1)
        self._slots.recent[slot] = columns["recent"].reshape(len(slot), BLOCK, self._width)
        for name in ("fill", "head", "total"):
            getattr(self._slots, name)[slot] = columns[name]
        stored = os.fstat(self._descriptor).st_size // (self._blocks.shape[1] * WORD)
        chained = (columns["total"] - columns["fill"]).sum() // BLOCK
        if int(columns["head"].max(initial=_NO_BLOCK)) >= stored or chained > stored:
            raise RelaywatchError(f"{self._path}: blocks are missing. Restore the file, or begin with an empty state.")
        self._map_blocks(stored)
        held = self._blocks_of(slot)
        self._left = 0
        self._recycle(np.setdiff1d(np.arange(stored, dtype=np.int64), held))

    def close(self) -> None:
        """Let go of the file."""
        self._blocks = self._blocks[:0].copy()
        self._map = None
        os.close(self._descriptor)

    def _blocks_of(self, slots: Ints) -> Ints:
        out = np.empty(int(self.totals(slots).sum()) // BLOCK + 1, np.int64)
        return out[: _chained(self._slots, self._blocks, slots, out)].copy()

    def _make_room(self, slots: int) -> None:
        """Let there be at least so many slots."""
        before = len(self._slots.fill)
        if slots > before:
            more = max(slots, before * 2) - before
            self._slots = _Slots(
                np.concatenate([self._slots.recent, np.zeros((more, BLOCK, self._width), np.uint64)]),
                np.append(self._slots.fill, np.zeros(more, np.int64)),
                np.append(self._slots.head, np.full(more, _NO_BLOCK, np.int64)),
                np.append(self._slots.total, np.zeros(more, np.int64)),
            )

    def _make_blocks(self, wanted: int) -> None:
        """Let at least so many blocks be free; the file is made longer where they are not."""
        if self._left >= wanted:
            return
        before = len(self._blocks)
        after = max(before * 3 // 2, before + wanted, _FIRST_BLOCKS)
        width = self._blocks.shape[1] * WORD
        os.posix_fallocate(self._descriptor, before * width, (after - before) * width)  # a full disk is told here
        self._map_blocks(after)
        self._recycle(np.arange(before, after, dtype=np.int64))

    def _map_blocks(self, count: int) -> None:
        if count:
            self._map = mmap.mmap(self._descriptor, count * self._blocks.shape[1] * WORD)
            self._blocks = np.frombuffer(self._map, np.uint64).reshape(count, self._blocks.shape[1])

    def _recycle(self, blocks: Ints) -> None:
        """These blocks may be used again."""
        self._free = np.concatenate([self._free[: self._left], blocks])
        self._left = len(self._free)
