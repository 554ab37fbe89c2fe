"""The canonical tables as JSON lines: one record a line, of any table.

Blocks are taken as columns; a line that is in any way unusual is taken by itself, and what that says decides.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from relaywatch.model.schemas import TABLES, TEXT
from relaywatch.model.tables import Batch, TableName
from relaywatch.sources.canonical import (
    ADDRESSES,
    COUNTS,
    MEANINGS,
    TABLE_NAMES,
    as_dictionary,
    cast_halves,
    out_of_range,
)
from relaywatch.sources.columns import LAST_SECOND, canonical_address, canonical_addresses
from relaywatch.sources.json_records import parted, positions
from relaywatch.sources.lines import Block, counted_blocks, shown
from relaywatch.sources.reading import Head, Reading

PROBED_LINES: Final = 20
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_Lines = NDArray[np.int64]
_Found = dict[TableName, list[tuple[_Lines, pa.RecordBatch]]]
"""Rows of a block by table, each piece with its lines."""


class CanonicalNdjson:
    """Canonical records as JSON lines: {"table": "flows", ...columns}; times RFC 3339 or whole microseconds."""

    name: ClassVar[str] = "canonical-ndjson"

    @staticmethod
    def fits(head: Head) -> bool:
        """One of the first lines is a JSON object that names a canonical table and a device."""
        lines = head.content.split(b"\n", PROBED_LINES)[:PROBED_LINES]
        return any(line.startswith(b"{") and b'"table"' in line and _table_record(line) is not None for line in lines)

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Batches by table; lines that are no record go to quarantine by line number."""
        tables: list[TableName] = []
        for block in counted_blocks(stream, path, reading):
            found: _Found = {}
            for part, columns in _parts(block, tables):
                left = None if columns is None else _at_once(columns, positions(part, columns), tables, found)
                _by_line(part, left, path, reading, found)
            for table, pieces in found.items():
                rows = _in_order(pieces)
                reading.tally.met(rows.num_rows)
                reading.tally.with_rows += rows.num_rows
                yield Batch(table, rows)


def _parts(block: Block, tables: list[TableName]) -> list[tuple[Block, pa.Table | None]]:
    """The block's parts with the columns of these tables; those that it holds besides are added to them."""
    while True:
        parts = list(parted(block, _schema(tables, pa.string()), _schema(tables, pa.int64())))
        named = {name for _, columns in parts if columns is not None for name in columns["table"].unique().to_pylist()}
        unmet = [table for table in TABLE_NAMES if table in named and table not in tables]
        if not unmet:
            return parts
        tables.extend(unmet)


def _schema(tables: Sequence[TableName], times: pa.DataType) -> pa.Schema:
    """The columns of these tables as JSON holds them, and which table a record is of."""
    fields = {"table": pa.string(), "device_uid": pa.string()}
    for field in (field for table in tables for field in TABLES[table]):
        if field.type == TEXT:
            fields[field.name] = pa.string()
        elif pa.types.is_timestamp(field.type):
            fields[field.name] = times
        else:
            fields[field.name] = pa.float64() if pa.types.is_floating(field.type) else field.type
    return pa.schema(list(fields.items()))


def _at_once(columns: pa.Table, numbers: pa.Array, tables: Sequence[TableName], found: _Found) -> _Lines:
    """Adds the rows to `found`; gives the lines that must be looked at one by one."""
    lines: _Lines = numbers.to_numpy()
    whole = columns.combine_chunks().to_batches()[0]
    settled = np.zeros(len(lines), np.bool_)
    for table in tables:
        mine = np.asarray(pc.fill_null(pc.equal(whole.column("table"), table), pa.scalar(value=False)))
        if not mine.any():
            continue
        some, at = (whole, lines) if mine.all() else (whole.filter(pa.array(mine)), lines[mine])
        rows, good = _rows(table, some)
        if not good.all():
            rows, at = rows.filter(pa.array(good)), at[good]
        settled[np.flatnonzero(mine)[good]] = True
        if rows.num_rows:
            found.setdefault(table, []).append((at, rows))
    return lines[~settled]


def _rows(table: TableName, values: pa.RecordBatch) -> tuple[pa.RecordBatch, NDArray[np.bool_]]:
    """The values in the canonical schema, and which rows are surely sound."""
    good = np.ones(values.num_rows, np.bool_)
    columns = []
    for field in TABLES[table]:
        given = values.column(field.name)
        cast = _cast(given, field)
        unfit = pc.is_null(cast) if not field.nullable else pc.and_(pc.is_valid(given), pc.is_null(cast))
        good &= ~np.asarray(unfit) & ~out_of_range(cast, field.name)
        columns.append(cast)
    return pa.RecordBatch.from_arrays(columns, schema=TABLES[table]), good


def _cast(values: pa.Array, field: pa.Field) -> pa.Array:
    """The values in the column's type; null where one does not fit, or only a closer look can tell."""
    if values.null_count == len(values):
        return pa.nulls(len(values), field.type)
    if field.type == TEXT:
        return _as_addresses(values) if field.name in ADDRESSES else values.dictionary_encode()
    if pa.types.is_timestamp(field.type):
        return pa.concat_arrays(cast_halves(values, field))
    if pa.types.is_floating(field.type):
        return values.cast(field.type, safe=False)
    return values


def _as_addresses(values: pa.Array) -> pa.DictionaryArray:
    """Addresses as their canonical text; null where one has none."""
    encoded = values.dictionary_encode()
    entries = pl.Series(encoded.dictionary)
    return encoded if canonical_addresses(entries) is entries else as_dictionary(values, canonical_addresses)


def _by_line(part: Block, lines: _Lines | None, path: Path, reading: Reading, found: _Found) -> None:
    """Adds the records on these lines of the part (None: on all) to `found`; what is none goes to quarantine."""
    if lines is not None and not len(lines):
        return
    wanted = None if lines is None else frozenset(lines.tolist())
    records: dict[TableName, list[tuple[int, dict[str, Any]]]] = {}
    for number, line in part.lines():
        if not line.strip() or (wanted is not None and number not in wanted):
            continue
        try:
            table, values = _record(line)
        except ValueError as error:
            reading.tally.met(1)
            reading.quarantine.add(str(path), f"line {number}", str(error))
            continue
        records.setdefault(table, []).append((number, values))
    for table, rows in records.items():
        arrays = [pa.array([row[f.name] for _, row in rows], _plain(f.type)).cast(f.type) for f in TABLES[table]]
        at = np.array([number for number, _ in rows], np.int64)
        found.setdefault(table, []).append((at, pa.RecordBatch.from_arrays(arrays, schema=TABLES[table])))


def _in_order(pieces: Sequence[tuple[_Lines, pa.RecordBatch]]) -> pa.RecordBatch:
    """The pieces as one, by line."""
    if len(pieces) == 1:
        return pieces[0][1]
    lines = np.concatenate([at for at, _ in pieces])
    together = pa.Table.from_batches([rows for _, rows in pieces]).unify_dictionaries().combine_chunks()
    return together.take(pa.array(np.argsort(lines))).combine_chunks().to_batches()[0]


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return pa.string()
    return pa.int64() if pa.types.is_timestamp(kind) else kind


def _table_record(line: bytes) -> tuple[TableName, dict[str, Any]] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or "device_uid" not in record:
        return None
    table = next((name for name in TABLE_NAMES if name == record.get("table")), None)
    return None if table is None else (table, record)


def _record(line: bytes) -> tuple[TableName, dict[str, Any]]:
    """A line's table and its columns. Raises ValueError with the reason where it is no canonical record."""
    found = _table_record(line)
    if found is None:
        raise ValueError("no JSON object that names a canonical table and a device")
    table, record = found
    values: dict[str, Any] = {}
    for name, nullable, convert in _CONVERTERS[table]:
        value = record.get(name)
        if value is None:
            if not nullable:
                raise ValueError(f"{name} is missing")
            values[name] = None
            continue
        try:
            values[name] = convert(value)
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"{name}: {shown(value)} is not a valid value") from None
    return table, values


def _as_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # a lone surrogate is no text
    return value


def _as_address(value: object) -> str:
    address = canonical_address(_as_text(value))
    if address is None:
        raise ValueError
    return address


def _as_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _as_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _as_instant(value: object) -> int:
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
        value = (moment - _EPOCH) // timedelta(microseconds=1)
    return _whole(value, 0, LAST_SECOND * 1_000_000)


def _whole(value: object, lowest: int, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise ValueError
    return value


def _converter(field: pa.Field) -> Callable[[Any], Any]:
    """How a JSON value becomes a value of the column; raises where it does not fit."""
    if field.type == TEXT:
        return _as_address if field.name in ADDRESSES else _as_text
    if pa.types.is_boolean(field.type):
        return _as_bool
    if pa.types.is_floating(field.type):
        return _as_float
    if pa.types.is_timestamp(field.type):
        return _as_instant
    signed = pa.types.is_signed_integer(field.type)
    bits = field.type.bit_width - signed
    lowest = -(2**bits) if signed and field.name not in COUNTS else 0
    highest = 2**bits - 1
    if (meaning := MEANINGS.get(field.name)) is not None:
        return lambda value: int(meaning(_whole(value, lowest, highest)))
    return lambda value: _whole(value, lowest, highest)


_CONVERTERS: Final = {table: [(f.name, f.nullable, _converter(f)) for f in TABLES[table]] for table in TABLE_NAMES}
