"""Record batches of the canonical schemas: build them from columns, name their table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from relaywatch.model.schemas import TABLES

TableName = Literal["flows", "volumes", "signals", "inventory"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one canonical table, schema exactly TABLES[table]."""

    table: TableName
    rows: pa.RecordBatch


def batch(table: TableName, columns: Mapping[str, Any], *, length: int) -> Batch:
    """Rows of `table` from columns: arrays, NumPy arrays, sequences, or a scalar that fills the column.

    Columns not given are null. Raises pa.ArrowInvalid where a value does not fit the column's type.
    """
    schema = TABLES[table]
    unknown = set(columns) - set(schema.names)
    if unknown:
        raise ValueError(f"no such column in {table}: {', '.join(sorted(unknown))}")
    return Batch(
        table, pa.RecordBatch.from_arrays([_column(columns.get(f.name), f, length) for f in schema], schema=schema)
    )


def _column(value: object, field: pa.Field, length: int) -> pa.Array:
    if value is None:
        return pa.nulls(length, field.type)
    if isinstance(value, pa.ChunkedArray):
        value = value.combine_chunks()
    if isinstance(value, pa.Array):
        return value if value.type == field.type else value.cast(field.type)
    if isinstance(value, (str, int, float, bool)):
        if pa.types.is_dictionary(field.type):
            indices = pa.repeat(pa.scalar(0, pa.int32()), length)
            return pa.DictionaryArray.from_arrays(indices, pa.array([value], pa.string()))
        return pa.repeat(pa.scalar(value, field.type), length)
    if pa.types.is_dictionary(field.type):
        return pa.array(value, pa.string()).dictionary_encode()
    return pa.array(value, field.type)
