"""Text that records refer to by hash: addresses, host names, details. Kept once, looked up at the end.

In memory while small; appended to a file in the engine's work folder beyond that, so that memory does not grow with
the number of distinct addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from relaywatch.detection.columns import Flags, Keys

KEPT_IN_MEMORY: Final = 200_000
"""Texts held before they go to the file."""
KNOWN: Final = 2_000_000
"""Keys remembered, so that a text is not held each time it is met: 16 MB. Beyond them all are forgotten."""
REMEMBERED: Final = 4
"""Dictionaries whose keys are remembered."""
SCHEMA: Final = pa.schema([("key", pa.uint64()), ("text", pa.string())])
"""Texts with their keys."""


def text_keys(texts: pl.Series) -> npt.NDArray[np.uint64]:
    """The key of each text. Keys hold within one process only, and none is 0."""
    return np.asarray(texts.hash(seed=1).to_numpy() | np.uint64(1))


def holds(ordered: Keys, keys: Keys) -> Flags:
    """Which of the keys are among those that are in order."""
    if not len(ordered):
        return np.zeros(len(keys), np.bool_)
    place = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return np.asarray(ordered[place] == keys)


def with_more(ordered: Keys, more: Keys) -> Keys:
    """Both together in order; more: in order too."""
    return np.insert(ordered, np.searchsorted(ordered, more), more)


def together(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """The rows in one batch, which is looked through faster; in several where the texts are too long for one."""
    if len(batches) > 1:
        batches = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return batches


class Names:
    """Hash keys of text, and the way back. Key 0 is "not known"."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "names.arrows"
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._sink: pa.OSFile | None = None
        self._known = np.empty(0, np.uint64)
        self._recent: list[tuple[pa.Array, npt.NDArray[np.uint64]]] = []

    def keys(self, column: pa.DictionaryArray) -> npt.NDArray[np.uint64]:
        """The key of each row's text; 0 for nulls."""
        values = column.dictionary
        if len(values) == 0:
            return np.zeros(len(column), np.uint64)
        if len(values) > len(column):
            column = column.cast(pa.string()).dictionary_encode()
            values = column.dictionary
        table = self._table(values)
        codes = pc.fill_null(column.indices, len(values)).to_numpy(zero_copy_only=False)
        return np.asarray(table[codes])

    def _table(self, values: pa.Array) -> npt.NDArray[np.uint64]:
        """Key of each of the values, with that of null appended; batches of one file share their values."""
        for seen, table in self._recent:
            if seen.equals(values):
                return table
        table = np.zeros(len(values) + 1, np.uint64)
        table[:-1] = text_keys(pl.Series(pa.chunked_array([values])))
        self._hold(pa.RecordBatch.from_arrays([pa.array(table[:-1]), values.cast(pa.string())], schema=SCHEMA))
        self._recent = [(values, table), *self._recent[: REMEMBERED - 1]]
        return table

    def texts(self, keys: npt.NDArray[np.uint64]) -> dict[int, str]:
        """The text behind each of the keys."""
        wanted = pa.array(np.unique(keys))
        found: dict[int, str] = {}
        for batch in self._batches():
            hits = batch.filter(pc.is_in(batch["key"], value_set=wanted))
            found.update(zip(hits["key"].to_pylist(), hits["text"].to_pylist(), strict=True))
        return found

    def close(self) -> None:
        """End the file, if there is one. Texts can be looked up afterwards, not added."""
        if self._writer is not None and self._sink is not None:
            self._writer.close()
            self._sink.close()
            self._writer = self._sink = None

    def _hold(self, batch: pa.RecordBatch) -> None:
        keys, first = np.unique(batch["key"].to_numpy(), return_index=True)
        new = ~holds(self._known, keys)
        if not new.any():
            return
        self._known = with_more(self._known if len(self._known) < KNOWN else self._known[:0], keys[new])
        self._held.append(batch.take(pa.array(first[new])))
        self._held_rows += int(new.sum())
        if self._held_rows < KEPT_IN_MEMORY:
            return
        if self._writer is None:
            self._sink = pa.OSFile(str(self._path), "wb")
            self._writer = pa.ipc.new_stream(self._sink, SCHEMA)
        self._writer.write_table(pa.Table.from_batches(together(self._held), SCHEMA))
        self._held, self._held_rows = [], 0

    def _batches(self) -> Iterator[pa.RecordBatch]:
        self._held = together(self._held)
        yield from self._held
        if self._path.exists():
            with pa.memory_map(str(self._path)) as source, pa.ipc.open_stream(source) as reader:
                yield from reader
