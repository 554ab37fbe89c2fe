"""The canonical tables as Parquet files, one table a file; canonical_ndjson has their other form.

Every record keeps the source and position of the telemetry that it was first read from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import TABLES, TEXT, Direction, Observability, SignalKind
from relaywatch.model.tables import Batch, TableName
from relaywatch.sources.columns import LAST_SECOND, canonical_addresses
from relaywatch.sources.compression import FREE_BYTES, LARGEST_RATIO
from relaywatch.sources.lines import shown
from relaywatch.sources.reading import Head, Reading

ROWS: Final = 65_536
ROW_GROUP_BYTES: Final = 1 << 31
"""Uncompressed; writers make row groups of some hundred MiB at most."""
TABLE_NAMES: Final[tuple[TableName, ...]] = ("flows", "volumes", "signals", "inventory")
MEANINGS: Final[dict[str, type[IntEnum]]] = {
    "direction_id": Direction,
    "direction_observability": Observability,
    "hostname_observability": Observability,
    "bytes_observability": Observability,
    "observability": Observability,
    "kind": SignalKind,
}
ADDRESSES: Final = ("local_ip", "remote_ip")
_DAMAGE: Final = (OSError, pa.ArrowException, UnicodeDecodeError)
"""What pyarrow raises of a damaged file; the last where a column's name is no text."""
COUNTS: Final = (
    "bytes_out",
    "bytes_in",
    "wire_bytes_out",
    "wire_bytes_in",
    "packets_out",
    "packets_in",
    "duration_us",
)


def required_columns(table: TableName) -> frozenset[str]:
    """The columns of a canonical table that may not be null."""
    return frozenset(field.name for field in TABLES[table] if not field.nullable)


def table_of(columns: frozenset[str]) -> TableName | None:
    """The canonical table that a file with these columns holds: the one with the most required columns, all present."""
    fitting = [table for table in TABLE_NAMES if required_columns(table) <= columns]
    return max(fitting, key=lambda table: len(required_columns(table)), default=None)


class CanonicalParquet:
    """A canonical table as Parquet. Missing nullable columns are null, other columns are ignored.

    Parquet ends with its index, so the file itself is opened, not the stream.
    """

    name: ClassVar[str] = "canonical-parquet"

    @staticmethod
    def fits(head: Head) -> bool:
        """Parquet with a canonical table's columns; also a damaged Parquet file, so that reading it says so."""
        if not head.content.startswith(b"PAR1"):
            return False
        try:
            return table_of(frozenset(pq.read_schema(head.path).names)) is not None
        except _DAMAGE:
            return True

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Batches of the table in file order; rows that do not fit the schema go to quarantine by row number."""
        row = 1
        try:
            stored = pq.read_schema(path)
            present = frozenset(stored.names)
            table = table_of(present)
            if table is None:
                raise SourceError(path, "holds no canonical table.", remedy="Name its columns as the schema does.")
            columns = [field.name for field in TABLES[table] if field.name in present]
            texts = [n for n in columns if TABLES[table].field(n).type == TEXT and _holds_text(stored.field(n))]
            with pq.ParquetFile(path, read_dictionary=texts, pre_buffer=False) as file:
                _check_expansion(path, file.metadata, TABLES[table])
                size, rows_in_all, told = path.stat().st_size, max(file.metadata.num_rows, 1), 0
                for rows in file.iter_batches(ROWS, columns=columns):
                    reading.tally.met(rows.num_rows)
                    fit = fitted(table, rows, row, path, reading.quarantine)
                    reading.tally.with_rows += fit.rows.num_rows
                    yield fit
                    row += rows.num_rows
                    share = size * (row - 1) // rows_in_all
                    reading.progress(share - told)
                    told = share
                if row - 1 != file.metadata.num_rows:
                    raise pa.ArrowInvalid(f"{row - 1} of its {file.metadata.num_rows} rows can be read")
        except _DAMAGE as error:
            raise SourceError(
                path, f"damaged Parquet ({shown(error)}).", position=f"row {row}", remedy="Write the file again."
            ) from error


def _holds_text(field: pa.Field) -> bool:
    """Whether the column can be read as a dictionary, so that long text that repeats is in memory once."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def _check_expansion(path: Path, metadata: pq.FileMetaData, schema: pa.Schema) -> None:
    """Raises SourceError, before any row is read, where the file would fill memory or time as a bomb does."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    for number, group in enumerate(groups, 1):
        if group.total_byte_size > ROW_GROUP_BYTES:
            raise SourceError(
                path,
                f"a row group of {group.total_byte_size} bytes uncompressed, more than {ROW_GROUP_BYTES}.",
                position=f"row group {number}",
                remedy="Write the file again with smaller row groups.",
            )
    row_bits = sum(field.type.bit_width for field in schema)
    expanded = max(sum(group.total_byte_size for group in groups), metadata.num_rows * row_bits // 8)
    if expanded > FREE_BYTES and expanded > LARGEST_RATIO * path.stat().st_size:
        raise SourceError(
            path,
            f"its {metadata.num_rows} rows expand to more than {LARGEST_RATIO} times the stored size, "
            "as a decompression bomb does.",
            remedy="Write it again without compression, in several files, if it is genuine.",
        )


def fitted(table: TableName, rows: pa.RecordBatch, first_row: int, path: Path, quarantine: Quarantine) -> Batch:
    """The rows in the canonical schema, without those that do not fit; first_row: number of the first, for messages."""
    schema = TABLES[table]
    columns, good, reasons = [], np.ones(rows.num_rows, np.bool_), {}
    for field in schema:
        index = rows.schema.get_field_index(field.name)
        if index < 0:
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        values, unfit = _cast(rows.column(index), field, path)
        for i in np.flatnonzero(unfit & good).tolist():
            reasons[i] = f"{field.name} does not fit {field.type}, or is missing"
        good &= ~unfit
        columns.append(values)
    for i, reason in sorted(reasons.items()):
        quarantine.add(str(path), f"row {first_row + i}", reason)
    if reasons:
        columns = [values.filter(pa.array(good)) for values in columns]
    canonical = pa.RecordBatch.from_arrays(columns, schema=schema)
    canonical.validate(full=True)
    return Batch(table, canonical)


REMEMBERED: Final = 12
_remembered: list[tuple[pa.Array, Callable[[pl.Series], pl.Series] | None, pa.Array, pa.Array]] = []
"""Entries as they came, by what they were made canonical, and what became of them: of a batch's text columns."""


def _cast(values: pa.Array, field: pa.Field, path: Path) -> tuple[pa.Array, np.ndarray[Any, np.dtype[np.bool_]]]:
    """The values in the field's type, and which of them do not fit it (these are null)."""
    try:
        cast = _cast_all(values, field)
    except pa.ArrowNotImplementedError as error:
        raise SourceError(path, f"{field.name} is {values.type}, which cannot become {field.type}.") from error
    except pa.ArrowInvalid:
        cast = pa.concat_arrays(cast_halves(values, field))
    unfit = np.asarray(pc.and_(pc.is_valid(values), pc.is_null(cast))) | out_of_range(cast, field.name)
    if not field.nullable:
        unfit |= np.asarray(pc.is_null(cast))
    return cast, unfit


def _cast_all(values: pa.Array, field: pa.Field) -> pa.Array:
    if field.type == TEXT:
        return as_dictionary(values, canonical_addresses if field.name in ADDRESSES else None)
    if values.type == field.type:
        return values
    return values.cast(options=pc.CastOptions(target_type=field.type, allow_time_truncate=True))


def as_dictionary(values: pa.Array, canonical: Callable[[pl.Series], pl.Series] | None) -> pa.DictionaryArray:
    """Text with each entry once, as `canonical` has it; null where an entry is no UTF-8 or has no canonical text.

    Only the entries are converted, never the rows: a long text that repeats stays one. Batches of one stream or row
    group share their entries, so the last ones are remembered.
    """
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    for entries, by, places, distinct in _remembered:
        if by is canonical and len(entries) == len(encoded.dictionary) and entries.equals(encoded.dictionary):
            return pa.DictionaryArray.from_arrays(places.take(encoded.indices), distinct)
    entries = _decoded(encoded.dictionary)
    if canonical is not None:
        entries = canonical(pl.Series(entries, dtype=pl.String)).to_arrow().cast(pa.string())
    distinct = entries.drop_null().unique()
    places = pc.index_in(entries, value_set=distinct)
    _remembered[:] = [(encoded.dictionary, canonical, places, distinct), *_remembered[: REMEMBERED - 1]]
    return pa.DictionaryArray.from_arrays(places.take(encoded.indices), distinct)


def _decoded(entries: pa.Array) -> pa.Array:
    """The entries as text; null where the bytes are no UTF-8, which Parquet does not check."""
    try:
        texts = entries.cast(pa.string())
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return pa.array([_utf8(entry) for entry in entries.cast(pa.binary()).to_pylist()], pa.string())
    return texts


def _utf8(entry: bytes | None) -> str | None:
    try:
        return None if entry is None else entry.decode()
    except UnicodeDecodeError:
        return None


def cast_halves(values: pa.Array, field: pa.Field) -> list[pa.Array]:
    """Casts what can be cast, and gives null for the single values that cannot."""
    try:
        return [_cast_all(values, field)]
    except pa.ArrowInvalid:
        if len(values) == 1:
            return [pa.nulls(1, field.type)]
        half = len(values) // 2
        return [*cast_halves(values.slice(0, half), field), *cast_halves(values.slice(half), field)]


def out_of_range(values: pa.Array, name: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which values are outside what the column can mean; nulls are inside."""
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
        outside = pc.or_(pc.less(values, 0), pc.greater(values, LAST_SECOND * 1_000_000))
    elif name in MEANINGS:
        members = pa.array([int(member) for member in MEANINGS[name]], values.type)
        outside = pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values, value_set=members)))
    elif name in COUNTS:
        outside = pc.less(values, 0)
    else:
        return np.zeros(len(values), np.bool_)
    return np.asarray(pc.fill_null(outside, pa.scalar(value=False)))
