"""Text that records refer to, for a judgement that goes on: each text once, and none for ever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from relaywatch.detection.columns import Keys
from relaywatch.engines.names import SCHEMA, Names, holds, together, with_more

MERGED_AT: Final = 50_000
"""Texts met lately that are kept apart, so that a few new ones do not move all."""


class _Generation:
    """Texts by key, each once."""

    def __init__(self) -> None:
        self.days: frozenset[int] = frozenset()
        """Days for which they may be asked."""
        self._known = np.empty(0, np.uint64)
        self._ordered: list[pa.RecordBatch] = []
        """By rising key each."""
        self._lately_known = np.empty(0, np.uint64)
        self._lately: list[pa.RecordBatch] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in what is new of the texts."""
        keys, first = np.unique(batch["key"].to_numpy(), return_index=True)
        new = ~(holds(self._known, keys) | holds(self._lately_known, keys))
        if new.any():
            self._lately.append(batch.take(pa.array(first[new])))
            self._lately_known = with_more(self._lately_known, keys[new])
        if len(self._lately_known) > MERGED_AT:
            self._ordered += self._of_lately()
            self._known = with_more(self._known, self._lately_known)
            self._lately_known, self._lately = np.empty(0, np.uint64), []

    def batches(self) -> list[pa.RecordBatch]:
        """All texts with their keys, by rising key in each batch."""
        if len(self._lately) > 1:
            self._lately = self._of_lately()
        return [*self._ordered, *self._lately]

    def _of_lately(self) -> list[pa.RecordBatch]:
        return [batch.take(pa.array(np.argsort(batch["key"].to_numpy()))) for batch in together(self._lately)]


class Texts(Names):
    """Texts in memory, those that were met while any of the days went on that still does."""

    def __init__(self) -> None:
        super().__init__(Path())
        self._generations = [_Generation()]

    def day_over(self, others: Iterable[int]) -> None:
        """A day is over, and these go on: forget what was met only for days that are over."""
        going_on = frozenset(others)
        self._generations[-1].days = going_on
        kept = [held for held in self._generations if held.days & going_on and held.batches()]
        self._generations = [*kept, _Generation()]
        self._recent = []

    def texts(self, keys: Keys) -> dict[int, str]:
        """The text behind each of the keys."""
        wanted, found = np.unique(keys), dict[int, str]()
        for batch in self._batches():
            ordered = batch["key"].to_numpy()
            hit = wanted[holds(ordered, wanted)]
            texts = batch["text"].take(pa.array(np.searchsorted(ordered, hit)))
            found.update(zip(hit.tolist(), texts.to_pylist(), strict=True))
        return found

    def hold(self, texts: Mapping[int, str]) -> None:
        """Take in texts that are to outlast their day."""
        keys = pa.array(list(texts), pa.uint64())
        self._hold(pa.RecordBatch.from_arrays([keys, pa.array(texts.values(), pa.string())], schema=SCHEMA))

    def table(self) -> pa.Table:
        """All texts with their keys."""
        return pa.Table.from_batches(list(self._batches()), SCHEMA)

    def restore(self, table: pa.Table) -> None:
        """Take the texts that `table` gave."""
        for batch in table.combine_chunks().to_batches():
            self._hold(batch)

    def _hold(self, batch: pa.RecordBatch) -> None:
        self._generations[-1].add(batch)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for generation in self._generations:
            yield from generation.batches()
