"""The one total order of a table's rows, and which rows are exactly alike.

Rows are sorted by the columns that layout.ORDER names, then by source and position, then by all other columns, so that
no two orders of one set of rows are possible. Null comes first; text goes by its UTF-8 bytes; floats by their bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from relaywatch.lake.layout import ORDER
from relaywatch.model.schemas import TABLES
from relaywatch.model.tables import TableName

Indices = npt.NDArray[np.int64]
WORD_BITS: Final = 64


class Key(NamedTuple):
    """Numbers that order as a column's values do. bits: width of the largest."""

    values: npt.NDArray[np.uint64]
    bits: int


class Ordered(NamedTuple):
    """order: row numbers, sorted; alike: whether the row is exactly the one sorted before it."""

    order: Indices
    alike: npt.NDArray[np.bool_]


def ordered(table: TableName, columns: Sequence[pa.Array], days: npt.NDArray[np.int64] | None = None) -> Ordered:
    """Sort a table's columns (in the order of its schema); by `days` before all else where given."""
    names = TABLES[table].names
    stages = [ORDER[table], ("source", "position")]
    stages.append(tuple(name for name in names if not any(name in stage for stage in stages)))
    rows = len(columns[0])
    order, alike = np.arange(rows), np.ones(rows, np.bool_)
    alike[:1] = False
    for number, stage in enumerate(stages):
        taken = [columns[names.index(name)] for name in stage]
        if number == 0:
            keys = [] if days is None else _number_keys(days, None)
            order, alike = _sorted([*keys, *_keys(taken)])
        else:
            _refine(order, alike, taken)
        if not alike.any():
            break
    return Ordered(order, alike)


def _refine(order: Indices, alike: npt.NDArray[np.bool_], columns: Sequence[pa.Array]) -> None:
    """Sort the rows that are alike so far by further columns, in place."""
    tied = alike.copy()
    tied[:-1] |= alike[1:]
    places = np.flatnonzero(tied)
    if not len(places):
        return
    rows = order[places]
    run = np.cumsum(~alike[places]).astype(np.uint64)
    chosen = pa.array(rows)
    inner, same = _sorted([_numbered(run), *_keys([column.take(chosen) for column in columns])])
    order[places] = rows[inner]
    alike[places] = same


def _sorted(keys: Sequence[Key]) -> Ordered:
    """Row numbers in the order of the keys, the first weighing most, and which rows equal the one before."""
    words = _packed(keys)
    order: Indices = np.argsort(words[0]) if len(words) == 1 else np.lexsort(words[::-1])
    alike = np.zeros(len(order), np.bool_)
    if len(order):
        alike[1:] = True
        for word in words:
            put = word[order]
            alike[1:] &= put[1:] == put[:-1]
    return Ordered(order, alike)


def _packed(keys: Sequence[Key]) -> list[npt.NDArray[np.uint64]]:
    """The keys in as few words as they fit into, so that most sorts are of one word."""
    words: list[npt.NDArray[np.uint64]] = []
    free = 0
    for values, bits in keys:
        if bits > free or not words:
            words.append(values.copy())
            free = WORD_BITS - bits
        else:
            words[-1] = (words[-1] << np.uint64(bits)) | values if bits else words[-1]
            free -= bits
    return words


def _keys(columns: Sequence[pa.Array]) -> list[Key]:
    return [key for column in columns for key in _column_keys(column)]


def _column_keys(column: pa.Array) -> list[Key]:
    if pa.types.is_dictionary(column.type):
        return [_text_key(column)]
    valid = None if column.null_count == 0 else np.asarray(column.is_valid())
    if pa.types.is_floating(column.type):
        bits = pc.fill_null(column, 0).to_numpy(zero_copy_only=False).view(np.uint32)
        # A negative float's bits fall as it rises.
        return _number_keys(np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.int64), valid)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    filled = column if valid is None else pc.fill_null(column, 0)
    return _number_keys(filled.to_numpy(zero_copy_only=False).astype(np.int64), valid)


def _text_key(column: pa.DictionaryArray) -> Key:
    """The rank of each entry among all entries, from 1; equal entries that stand twice share the first one's rank."""
    entries = column.dictionary
    sequence = pc.sort_indices(entries).to_numpy(zero_copy_only=False)
    put = entries.take(pa.array(sequence))
    fresh = np.ones(len(entries), np.bool_)
    if len(entries) > 1:
        fresh[1:] = np.asarray(
            pc.fill_null(pc.not_equal(put.slice(1), put.slice(0, len(put) - 1)), pa.scalar(value=True))
        )
    rank = np.zeros(len(entries) + 1, np.uint64)
    rank[sequence] = np.cumsum(fresh)
    indices = pc.fill_null(column.indices, len(entries)).to_numpy(zero_copy_only=False)
    return Key(rank[indices], len(entries).bit_length())


def _numbered(values: npt.NDArray[np.uint64]) -> Key:
    return Key(values, int(values.max(initial=0)).bit_length())


def _number_keys(values: npt.NDArray[np.int64], valid: npt.NDArray[np.bool_] | None) -> list[Key]:
    """Distances from the least value; null is 0, and a key of its own where the numbers leave no room for it."""
    known = values if valid is None else values[valid]
    if not len(known):
        return [Key(np.zeros(len(values), np.uint64), 0)]
    least, most = int(known.min()), int(known.max())
    # Unsigned, so that a range beyond 63 bits does not overflow.
    distance = values.astype(np.uint64) - np.uint64(least & (2**64 - 1))
    if valid is None:
        return [Key(distance, (most - least).bit_length())]
    if (most - least).bit_length() == WORD_BITS:
        return [Key(valid.astype(np.uint64), 1), Key(np.where(valid, distance, np.uint64(0)), WORD_BITS)]
    return [Key(np.where(valid, distance + np.uint64(1), np.uint64(0)), (most - least + 1).bit_length())]
