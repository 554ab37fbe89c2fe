"""JSON lines as columns: whole blocks at once where every line is as expected, else line by line.

A reader names the (nested) fields it uses as an Arrow schema of strings, int64, float64, bool, structs and lists; all
else in a record is skipped. What a record holds in another type is converted where that loses nothing (a number as
text, digits as a number); where it cannot be, the record goes to quarantine by line and field.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from relaywatch.sources.lines import Block, counted_blocks, shown
from relaywatch.sources.reading import Head, Reading

AT_ONCE_BYTES: Final = 1 << 24
"""JSON that becomes columns at once: so much that the work a block is small beside it."""
FEWEST_AT_ONCE: Final = 64
"""Lines of a block that are taken one by one rather than halved again."""
PROBED_RECORDS: Final = 20
_LARGEST: Final = 2**63 - 1


def first_records(head: Head) -> list[dict[str, Any]]:
    """The objects among the first lines of the content, for telling the format. Never raises."""
    found = []
    for line in head.content.split(b"\n", PROBED_RECORDS)[:PROBED_RECORDS]:
        if not line.lstrip().startswith(b"{"):
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            found.append(record)
    return found


def frames(stream: BinaryIO, path: Path, schema: pa.Schema, reading: Reading) -> Iterator[pl.DataFrame]:
    """The records as frames with exactly the schema's columns (null where absent) and `position` (line number).

    Counts the records in the reading's tally. Lines that are no JSON object, or do not fit, go to quarantine.
    """
    for block in counted_blocks(stream, path, reading, block_bytes=AT_ONCE_BYTES):
        table = _table(block, schema, path, reading)
        if table.num_rows:
            frame = pl.from_arrow(table)
            assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table always becomes a frame
            yield frame


def _table(block: Block, schema: pa.Schema, path: Path, reading: Reading) -> pa.Table:
    tables = []
    for part, table in parted(block, schema):
        if table is None:
            tables.append(_one_by_one(part, schema, path, reading))
        else:
            reading.tally.met(table.num_rows)
            tables.append(table.append_column("position", positions(part, table)))
    return pa.concat_tables(tables)


def positions(part: Block, table: pa.Table) -> pa.Array:
    """The line number of each row of a part that was taken at once."""
    return pa.array(np.arange(part.first_line, part.first_line + table.num_rows))


def parted(block: Block, *schemas: pa.Schema) -> Iterator[tuple[Block, pa.Table | None]]:
    """The block in parts, in order, each with its table in the first of the schemas that all its lines fit.

    A table has a row a line. None: the part has lines that fit no schema (or empty ones); take it one by one.
    """
    lines = _regular(block)
    table = next((t for s in schemas if (t := _at_once(block, s, lines)) is not None), None) if lines else None
    if table is not None or block.content.count(b"\n") <= FEWEST_AT_ONCE:
        yield block, table
        return
    cut = block.content.index(b"\n", len(block.content) // 2) + 1
    if cut == len(block.content):
        cut = block.content.rindex(b"\n", 0, len(block.content) - 1) + 1
    head = Block(block.first_line, block.content[:cut])
    yield from parted(head, *schemas)
    yield from parted(Block(block.first_line + head.content.count(b"\n"), block.content[cut:]), *schemas)


def _regular(block: Block) -> int:
    """How many lines, if each begins and ends as one object does and all is UTF-8, which Arrow does not check.

    0: one does not.
    """
    content = block.content
    if not content.startswith(b"{"):
        return 0
    octets = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(octets == ord("\n"))
    last = octets[ends - 1]
    if (last == ord("\r")).any():
        last = np.where(last == ord("\r"), octets[ends - 2], last)
    if (last != ord("}")).any() or (octets[ends[:-1] + 1] != ord("{")).any():
        return 0
    try:
        sound = content.isascii() or bool(content.decode())
    except UnicodeDecodeError:
        sound = False
    return len(ends) if sound else 0


def _at_once(block: Block, schema: pa.Schema, lines: int) -> pa.Table | None:
    """The regular block as a table; None where a line is not as the schema has it."""
    met = _met(block.content, schema)
    try:
        table = pajson.read_json(
            io.BytesIO(block.content),
            read_options=pajson.ReadOptions(use_threads=False, block_size=len(block.content) + 1),
            parse_options=pajson.ParseOptions(explicit_schema=met, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowException:
        return None
    if table.num_rows != lines or not all(_finite(column) for column in table.columns):
        return None
    columns = [table[f.name] if f.name in met.names else pa.nulls(lines, f.type) for f in schema]
    return pa.table(columns, schema=schema)


def _met(content: bytes, schema: pa.Schema) -> pa.Schema:
    """The fields whose names occur in the content: parsing for the others costs more than to see that they do not.

    All of them where a name could be spelt with escapes.
    """
    begins = {f.name.partition(".")[0] for f in schema if "." in f.name}
    dotted = {begin for begin in begins if f'"{begin}.'.encode() in content}
    asked = [f for f in schema if "." not in f.name or f.name.partition(".")[0] in dotted]
    found = [f for f in asked if f'"{f.name}"'.encode() in content]
    return schema if b"\\u" in content or not found else pa.schema(found)


def _finite(values: pa.ChunkedArray | pa.Array) -> bool:
    """Whether no number in the column is NaN or infinite, which Arrow takes though JSON has none."""
    kind = values.type
    if isinstance(values, pa.ChunkedArray):
        return not _holds_floats(kind) or all(_finite(chunk) for chunk in values.chunks)
    if pa.types.is_struct(kind):
        return all(_finite(part) for part in values.flatten() if _holds_floats(part.type))
    if pa.types.is_list(kind):
        return _finite(values.flatten())
    return not pa.types.is_floating(kind) or pc.all(pc.is_finite(values)).as_py() is not False


def _holds_floats(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return _holds_floats(kind.value_type)
    return any(_holds_floats(field.type) for field in kind) if pa.types.is_struct(kind) else pa.types.is_floating(kind)


def _one_by_one(block: Block, schema: pa.Schema, path: Path, reading: Reading) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for number, line in block.lines():
        if not line.strip():
            continue
        reading.tally.met(1)
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("no JSON object")  # noqa: TRY301, TRY004 - the one place that knows the line
            rows.append({f.name: _fitted(record.get(f.name), f.type, f.name) for f in schema} | {"position": number})
        except (ValueError, RecursionError) as error:
            reading.quarantine.add(str(path), f"line {number}", f"no JSON record ({shown(error)})")
    return pa.Table.from_pylist(rows, schema.append(pa.field("position", pa.int64())))


def _fitted(value: object, kind: pa.DataType, where: str) -> Any:  # noqa: ANN401 - whatever the field holds
    """The value as the field's type. Raises ValueError with the field's name where it cannot be."""
    if value is None:
        return None
    if pa.types.is_struct(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{where} is no object")
        return {f.name: _fitted(value.get(f.name), f.type, f"{where}.{f.name}") for f in kind}
    if pa.types.is_list(kind):
        if not isinstance(value, list):
            raise ValueError(f"{where} is no list")
        return [_fitted(entry, kind.value_type, where) for entry in value]
    if isinstance(value, (dict, list)):
        raise ValueError(f"{where} holds an object where a value is expected")  # noqa: TRY004 - bad data, not a bad call
    if pa.types.is_string(kind):
        return _as_text(value, where)
    if pa.types.is_boolean(kind):
        if not isinstance(value, bool):
            raise ValueError(f"{where}: {shown(value)} is not true or false")
        return value
    return _as_number(value, kind, where)


def _as_text(value: object, where: str) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: {value} is no JSON number")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text.encode()  # a lone surrogate is no text
    return text


def _as_number(value: object, kind: pa.DataType, where: str) -> float | int | None:
    if isinstance(value, str) and not value.strip():
        return None
    try:
        number = float(cast("Any", value))
        whole = int(cast("Any", value)) if pa.types.is_integer(kind) else 0
    except (ValueError, OverflowError):
        number, whole = math.nan, 0
    if pa.types.is_floating(kind) and math.isfinite(number):
        return number
    exact = whole == number or abs(number) >= 2**53  # text of more digits than a float keeps
    if isinstance(value, bool) or not math.isfinite(number) or not exact or abs(whole) > _LARGEST:
        raise ValueError(f"{where}: {shown(value)} is no number that fits")
    return whole
