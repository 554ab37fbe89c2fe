"""Records by pair, held for as long as a pair is active: what a judgement that goes on keeps of its input.

Each pair, here one app's day, has a slot. A slot's latest records stand in memory; older ones stand in blocks of a
file, and of each block only the number of the one before it is in memory. So memory follows the number of active pairs
and not of their records. Blocks that are let go are used again, though not before two more checkpoints were taken:
what a checkpoint refers to is still there when it is restored.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from relaywatch.detection.columns import Ints
from relaywatch.engines.promise import mirror
from relaywatch.engines.records import WORD, Records
from relaywatch.model.compilation import compiled
from relaywatch.model.errors import RelaywatchError

BLOCK: Final = 8
"""Records of a block."""
LATEST: Final = 12
"""Records of each pair that memory has room for; the oldest go to a block where there are more."""
MOST_BLOCKS: Final = 2**31 - 1
_NO_BLOCK: Final = -1
_NONE: Final = np.empty(0, np.int64)
_FIRST_SLOTS: Final = 1_024
_FIRST_BLOCKS: Final = 4_096
_AT_ONCE: Final = 16_384
"""Records put into slots before their full blocks are written."""
SCATTERED: Final = 8
"""Pieces of the file a slot, from which its blocks are written together when they are read."""
Words = npt.NDArray[np.uint64]
BlockNumbers = npt.NDArray[np.int32]


class _Slots(NamedTuple):
    """One entry a slot. recent: its latest records as words; fill: how many; head: its last block; total: records."""

    recent: Words
    fill: Ints
    head: Ints
    total: Ints


@compiled
def _append(
    slots: _Slots, before: BlockNumbers, numbers: Ints, full: Words, of: Ints, records: Words, mirrored: Ints
) -> int:
    """Put each record into its slot. Blocks that become full go to `full`, numbered as in `numbers`; how many do.

    before: the block before each, by number. mirrored: counts, by slot, of flows that mirror one of the latest; empty
    where the records are no flows.
    """
    width, taken = records.shape[1], 0
    for row in range(len(of)):
        slot = of[row]
        recent, fill = slots.recent[slot], slots.fill[slot]
        if len(mirrored):
            for k in range(fill):
                if mirror(records[row], recent[k]):
                    mirrored[slot] += 1
                    break
        if fill == LATEST:
            block = numbers[taken]
            for k in range(BLOCK):
                full[taken, k * width : (k + 1) * width] = recent[k]
            for k in range(BLOCK, LATEST):
                recent[k - BLOCK] = recent[k]
            before[block] = slots.head[slot]
            slots.head[slot] = block
            fill -= BLOCK
            taken += 1
        recent[fill] = records[row]
        slots.fill[slot] = fill + 1
        slots.total[slot] += 1
    return taken


@compiled
def _gather(slots: _Slots, wanted: Ints, stored: Words, places: Ints, out: Words) -> None:
    """All records of the wanted slots, slot after slot. stored: their blocks; places: of each, in _chained's order."""
    row, place, width = 0, 0, out.shape[1]
    for slot in wanted:
        for k in range(slots.fill[slot]):
            out[row] = slots.recent[slot, k]
            row += 1
        for _ in range((slots.total[slot] - slots.fill[slot]) // BLOCK):
            for k in range(BLOCK):
                out[row] = stored[places[place], k * width : (k + 1) * width]
                row += 1
            place += 1


@compiled
def _chained(slots: _Slots, before: BlockNumbers, wanted: Ints, out: Ints) -> None:
    """The blocks of the wanted slots into `out`, which must have room for them."""
    count = 0
    for slot in wanted:
        block = slots.head[slot]
        while block != _NO_BLOCK:
            out[count] = block
            count += 1
            block = np.int64(before[block])


@compiled
def _chain_anew(slots: _Slots, before: BlockNumbers, wanted: Ints, numbers: Ints) -> None:
    """Let the wanted slots have these blocks, in the order of _chained."""
    count = 0
    for slot in wanted:
        blocks = (slots.total[slot] - slots.fill[slot]) // BLOCK
        for k in range(blocks):
            before[numbers[count + k]] = numbers[count + k + 1] if k + 1 < blocks else _NO_BLOCK
        if blocks:
            slots.head[slot] = numbers[count]
        count += blocks


@compiled
def _packed(slots: _Slots, used: Ints, out: Words) -> None:
    """The latest records of the used slots, slot after slot."""
    row = 0
    for slot in used:
        for k in range(slots.fill[slot]):
            out[row] = slots.recent[slot, k]
            row += 1


@compiled
def _unpacked(slots: _Slots, used: Ints, records: Words) -> None:
    """Put back what _packed gave; `fill` must be set."""
    row = 0
    for slot in used:
        for k in range(slots.fill[slot]):
            slots.recent[slot, k] = records[row]
            row += 1


class Checkpoint(NamedTuple):
    """A store as it was at one time, blocks aside. slots: columns by slot in use; before: block before each block."""

    slots: dict[str, Ints]
    latest: Records
    before: BlockNumbers


class PairStore:
    """Records of one dtype by slot. Slots are numbers that the caller gives out, from 0."""

    def __init__(self, dtype: np.dtype[np.void], path: Path) -> None:
        """path: of the file of blocks, made anew where there is none."""
        self.dtype = dtype
        self._width = dtype.itemsize // WORD
        self._block_bytes = BLOCK * dtype.itemsize
        self._path = path
        self._slots = _Slots(
            np.zeros((_FIRST_SLOTS, LATEST, self._width), np.uint64),
            np.zeros(_FIRST_SLOTS, np.int64),
            np.full(_FIRST_SLOTS, _NO_BLOCK, np.int64),
            np.zeros(_FIRST_SLOTS, np.int64),
        )
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._full = np.empty((_AT_ONCE, BLOCK * self._width), np.uint64)
        self._before = np.full(_FIRST_BLOCKS, _NO_BLOCK, np.int32)
        self._end = 0
        """Blocks of the file so far."""
        self._free = _NONE
        self._let_go = [_NONE]
        self._resting = [_NONE, _NONE]

    @property
    def held_bytes(self) -> int:
        """Bytes of records held, in memory and in the file."""
        return int(self._slots.total.sum()) * self.dtype.itemsize

    def totals(self, slots: Ints) -> Ints:
        """How many records each slot holds."""
        known = slots < len(self._slots.total)
        if known.all():
            return np.asarray(self._slots.total[slots], np.int64)
        counts = np.zeros(len(slots), np.int64)
        counts[known] = self._slots.total[slots[known]]
        return counts

    def append(self, slots: Ints, records: Records, mirrored: Ints = _NONE) -> None:
        """Put each record into the slot given for it. mirrored: as of _append; long enough for all slots."""
        if not len(records):
            return
        self._make_room(int(slots.max()) + 1)
        words = self._words(records)
        for first in range(0, len(records), _AT_ONCE):
            rows = slice(first, first + _AT_ONCE)
            numbers = self._numbers(len(words[rows]))
            taken = _append(self._slots, self._before, numbers, self._full, slots[rows], words[rows], mirrored)
            self._write(numbers[:taken], self._full)

    def read(self, slots: Ints) -> tuple[Records, Ints]:
        """All records of the slots, in no particular order within one, and the slot of each."""
        self._make_room(int(slots.max(initial=-1)) + 1)
        counts, numbers = self.totals(slots), self._blocks_of(slots)
        out = np.empty((int(counts.sum()), self._width), np.uint64)
        order = np.argsort(numbers)
        stored, pieces = self._stored(numbers[order])
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        _gather(self._slots, slots, stored, places, out)
        if pieces > SCATTERED * len(slots):
            self._put_together(slots, numbers, stored[places], pieces)
        return self._records(out), np.repeat(slots, counts)

    def clear(self, slots: Ints) -> None:
        """Empty the slots."""
        slots = slots[slots < len(self._slots.total)]
        self._let_go.append(self._blocks_of(slots))
        self._slots.head[slots], self._slots.fill[slots], self._slots.total[slots] = _NO_BLOCK, 0, 0

    def sync(self) -> None:
        """The blocks written so far are on disk once this returns. May be called from another thread."""
        with _named(self._path):
            os.fsync(self._descriptor)

    def checkpoint(self) -> Checkpoint:
        """Everything but the blocks, as a copy: for `restore`, once `sync` has been called."""
        self._free = np.sort(np.concatenate([self._free, self._resting[0]]))
        self._resting = [self._resting[1], np.concatenate(self._let_go)]
        self._let_go = [_NONE]
        used = np.flatnonzero(self._slots.total)
        columns = {"slot": used, **{name: getattr(self._slots, name)[used] for name in ("fill", "head", "total")}}
        latest = np.empty((int(columns["fill"].sum()), self._width), np.uint64)
        _packed(self._slots, used, latest)
        return Checkpoint(columns, self._records(latest), self._before[: self._end].copy())

    def restore(self, before: Checkpoint) -> None:
        """Take the state that `checkpoint` gave, with the same file beside it."""
        slot = before.slots["slot"].astype(np.int64)
        self._make_room(int(slot.max(initial=-1)) + 1)
        for name in ("fill", "head", "total"):
            getattr(self._slots, name)[slot] = before.slots[name]
        _unpacked(self._slots, slot, self._words(before.latest))
        stored = os.fstat(self._descriptor).st_size // self._block_bytes
        if len(before.before) > stored:
            raise RelaywatchError(f"{self._path}: blocks are missing. Restore the file, or begin with an empty state.")
        self._before, self._end = before.before.astype(np.int32), len(before.before)
        # The checkpoint before this one may need what this one does not.
        needless = np.setdiff1d(np.arange(self._end, dtype=np.int64), self._blocks_of(slot))
        self._free, self._resting = _NONE, [_NONE, needless]

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _words(self, records: Records) -> Words:
        return records.view(np.uint64).reshape(len(records), self._width)

    def _records(self, words: Words) -> Records:
        return words.view(self.dtype).reshape(len(words))

    def _blocks_of(self, slots: Ints) -> Ints:
        held = self.totals(slots) - self._slots.fill[slots]
        out = np.empty(int(held.sum()) // BLOCK, np.int64)
        _chained(self._slots, self._before, slots, out)
        return out

    def _make_room(self, slots: int) -> None:
        """Let there be at least so many slots."""
        before = len(self._slots.fill)
        if slots > before:
            more = max(slots, before * 3 // 2) - before
            # Memory that is not written to is not taken yet.
            recent = np.zeros((before + more, LATEST, self._width), np.uint64)
            recent[:before] = self._slots.recent
            self._slots = _Slots(
                recent,
                np.append(self._slots.fill, np.zeros(more, np.int64)),
                np.append(self._slots.head, np.full(more, _NO_BLOCK, np.int64)),
                np.append(self._slots.total, np.zeros(more, np.int64)),
            )

    def _numbers(self, count: int) -> Ints:
        """Numbers of the next blocks, `count` of them: those that were let go, then new ones."""
        fresh = self._end + np.arange(max(count - len(self._free), 0))
        if self._end + len(fresh) > MOST_BLOCKS:
            raise OSError(errno.EFBIG, "more records than a state can hold", str(self._path))
        if self._end + len(fresh) > len(self._before):
            more = max(self._end + len(fresh), len(self._before) * 3 // 2) - len(self._before)
            self._before = np.append(self._before, np.full(more, _NO_BLOCK, np.int32))
        return np.concatenate([self._free[:count], fresh])

    def _put_together(self, slots: Ints, numbers: Ints, stored: Words, pieces: int) -> None:
        """Write the slots' blocks beside each other, so that reading them again takes few calls.

        pieces: in which they are now; nothing is won where the free blocks are as scattered.
        """
        fresh = self._numbers(len(numbers))
        if 2 * len(list(_runs(fresh))) > pieces:
            return
        self._write(fresh, stored)
        _chain_anew(self._slots, self._before, slots, fresh)
        self._let_go.append(numbers)

    def _write(self, numbers: Ints, blocks: Words) -> None:
        """Write blocks to their places, and take these numbers from those that are free."""
        self._end += max(len(numbers) - len(self._free), 0)
        self._free = self._free[len(numbers) :]
        for first, last in _runs(numbers):
            rest, at = blocks[first:last].data.cast("B"), int(numbers[first]) * self._block_bytes
            with _named(self._path):
                while rest:
                    written = os.pwrite(self._descriptor, rest, at)
                    # On its way to the disk from now on, so that a checkpoint's sync has little left to wait for.
                    os.posix_fadvise(self._descriptor, at, written, os.POSIX_FADV_DONTNEED)
                    rest, at = rest[written:], at + written

    def _stored(self, numbers: Ints) -> tuple[Words, int]:
        """Blocks as they stand in the file, by rising number, and how many pieces of the file these are."""
        out, pieces = np.empty((len(numbers), BLOCK * self._width), np.uint64), 0
        for first, last in _runs(numbers):
            rest, at = out[first:last].data.cast("B"), int(numbers[first]) * self._block_bytes
            while rest:
                read = os.preadv(self._descriptor, [rest], at)
                if not read:
                    raise RelaywatchError(f"{self._path}: ends early. Restore it, or begin with an empty state.")
                rest, at = rest[read:], at + read
            pieces += 1
        return out, pieces


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever the operating system refuses is told with the file's name."""
    try:
        yield
    except OSError as fault:
        raise OSError(fault.errno, fault.strerror, str(path)) from fault


def _runs(numbers: Ints) -> Iterator[tuple[int, int]]:
    """First place of each run of numbers that rise by one, and the place after its last."""
    edges = np.flatnonzero(np.diff(numbers) != 1) + 1
    return pairwise([0, *edges.tolist(), len(numbers)] if len(numbers) else [])
