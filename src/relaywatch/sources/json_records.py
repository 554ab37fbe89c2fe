"""JSON lines as columns: whole blocks at once where every line is as expected, else line by line.

A reader names the (nested) fields it uses as an Arrow schema of strings, int64, float64, bool, structs and lists; all
else in a record is skipped. What a record holds in another type is converted where that loses nothing (a number as
text, digits as a number); where it cannot be, the record goes to quarantine by line and field.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson
from numpy.typing import NDArray

from relaywatch.sources.lines import Block, counted_blocks, shown
from relaywatch.sources.reading import Head, Reading

AT_ONCE_BYTES: Final = 1 << 23
"""JSON that becomes columns at once: so much that the work a block is small beside it."""
FEWEST_AT_ONCE: Final = 2048
"""Lines of a block that are sorted out rather than halved again."""
PROBED_RECORDS: Final = 20
_LARGEST: Final = 2**63 - 1
_ENDINGS: Final = ("<u8", "<u4")
"""How much of a name's end is looked at: the most that the name has."""
_HASH_BITS: Final = 16
_Asked = tuple[pa.Schema, pa.Schema]
"""A schema, and what of it occurs."""
_Shape = dict[str, "_Shape"] | list["_Shape"] | tuple[type, ...]


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
    whole = pa.concat_tables(tables)
    return whole if len(tables) == 1 else whole.take(pc.sort_indices(whole["position"]))


def positions(part: Block, table: pa.Table) -> pa.Array:
    """The line number of each row of a part that was taken at once."""
    if part.apart is not None:
        return pa.array(part.apart, pa.int64())
    return pa.array(np.arange(part.first_line, part.first_line + table.num_rows))


def parted(block: Block, *schemas: pa.Schema) -> Iterator[tuple[Block, pa.Table | None]]:
    """The block in parts, each with its table in the first of the schemas that all its lines fit.

    A table has a row a line. None: the part's lines fit no schema (or are empty); take them one by one. Where lines are
    damaged, the parts are not in order: what is sound around them comes first.
    """
    names = _Names(block.content)
    asked = [(schema, names.met(schema)) for schema in schemas]
    framed = _framed(block)
    if framed.all():
        yield from _halved(block, asked)
        return
    lines = list(block.lines())
    whole = [line for line, good in zip(lines, framed.tolist(), strict=True) if good]
    if whole:
        yield from _halved(Block.of(whole), asked)
    yield Block.of([line for line, good in zip(lines, framed.tolist(), strict=True) if not good]), None


def _halved(block: Block, asked: Sequence[_Asked]) -> Iterator[tuple[Block, pa.Table | None]]:
    table = _first_fit(block, asked)
    if table is not None:
        yield block, table
        return
    if block.content.count(b"\n") <= FEWEST_AT_ONCE:
        yield from _sorted_out(block, asked)
        return
    for half in block.halves():
        yield from _halved(half, asked)


def _first_fit(block: Block, asked: Sequence[_Asked]) -> pa.Table | None:
    lines = _regular(block)
    return next((t for one in asked if (t := _at_once(block, *one, lines)) is not None), None) if lines else None


def _sorted_out(block: Block, asked: Sequence[_Asked]) -> Iterator[tuple[Block, pa.Table | None]]:
    """The lines that fit a schema, at once, then the others, for a close look at each."""
    records = [(number, line, _plain_record(line)) for number, line in block.lines()]
    others = [(number, line) for number, line, record in records if record is None]
    sound = [(number, line) for number, line, record in records if record is not None]
    part = Block.of(sound) if sound and others else None
    if part is not None and (table := _first_fit(part, asked)) is not None:
        yield part, table
    else:
        told = [record for *_, record in records if record is not None]
        for fitting, one in _by_schema(sound, told, asked):
            part = Block.of(fitting)
            if one is not None and (table := _first_fit(part, [one])) is not None:
                yield part, table
            else:
                others += fitting
    if others:
        yield Block.of(sorted(others)), None


def _by_schema(
    lines: Sequence[tuple[int, bytes]], records: Sequence[dict[str, Any]], asked: Sequence[_Asked]
) -> Iterator[tuple[list[tuple[int, bytes]], _Asked | None]]:
    """The lines by the first of the schemas that their records fit without conversion; None: they fit none."""
    shapes = [_shape(pa.struct(list(met))) for _, met in asked]
    fitting: list[list[tuple[int, bytes]]] = [[] for _ in (*asked, None)]
    for line, record in zip(lines, records, strict=True):
        fitting[next((n for n, shape in enumerate(shapes) if _suits(record, shape)), -1)].append(line)
    yield from ((found, one) for found, one in zip(fitting, (*asked, None), strict=True) if found)


def _plain_record(line: bytes) -> dict[str, Any] | None:
    """The object on the line; None where there is none, or one whose text only a close look can tell."""
    if not line.startswith(b"{") or not line.endswith(b"}") or b"\\u" in line:
        return None
    try:
        return cast("dict[str, Any]", json.loads(line))
    except (ValueError, RecursionError):
        return None


def _shape(kind: pa.DataType) -> _Shape:
    """What JSON values are exactly of a type: by name for an object, by entry for a list, else Python's types."""
    if pa.types.is_struct(kind):
        return {field.name: _shape(field.type) for field in kind}
    if pa.types.is_list(kind):
        return [_shape(kind.value_type)]
    if pa.types.is_boolean(kind):
        return (bool,)
    if pa.types.is_floating(kind):
        return (float, int)
    return (int,) if pa.types.is_integer(kind) else (str,)


def _suits(value: object, shape: _Shape) -> bool:
    """Whether a value is of the shape, or null, without conversion."""
    if value is None:
        return True
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(
            _suits(part, wanted) for name, part in value.items() if (wanted := shape.get(name)) is not None
        )
    if isinstance(shape, list):
        return isinstance(value, list) and all(_suits(entry, shape[0]) for entry in value)
    return type(value) in shape and (not isinstance(value, float) or math.isfinite(value))


def _regular(block: Block) -> int:
    """How many lines, if all is UTF-8, which Arrow does not check; else 0."""
    try:
        sound = block.content.isascii() or bool(block.content.decode())
    except UnicodeDecodeError:
        return 0
    return int(np.count_nonzero(np.frombuffer(block.content, np.uint8) == ord("\n"))) if sound else 0


def _framed(block: Block) -> NDArray[np.bool_]:
    """Whether each line begins and ends as one object does."""
    octets = np.frombuffer(block.content, np.uint8)
    ends = np.flatnonzero(octets == ord("\n"))
    begins = np.concatenate(([0], ends[:-1] + 1))
    last = octets[ends - 1]
    if (last == ord("\r")).any():
        last = np.where(last == ord("\r"), octets[ends - 2], last)
    framed: NDArray[np.bool_] = (last == ord("}")) & (octets[begins] == ord("{"))
    return framed


def _at_once(block: Block, schema: pa.Schema, met: pa.Schema, lines: int) -> pa.Table | None:
    """The block of objects as a table; None where a line is not as the schema has it. met: what of it is parsed."""
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
    columns = [_widened(table[f.name].combine_chunks(), f.type) if f.name in met.names else None for f in schema]
    made = [pa.nulls(lines, f.type) if c is None else c for c, f in zip(columns, schema, strict=True)]
    return pa.table(made, schema=schema)


def _widened(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """The values with the fields that were not parsed, as null."""
    if values.type == kind:
        return values
    if pa.types.is_list(kind):
        inner = _widened(values.values, kind.value_type)
        return pa.ListArray.from_arrays(values.offsets, inner, type=kind, mask=values.is_null())
    parts = [
        _widened(values.field(f.name), f.type)
        if values.type.get_field_index(f.name) >= 0
        else pa.nulls(len(values), f.type)
        for f in kind
    ]
    return pa.StructArray.from_arrays(parts, fields=list(kind), mask=values.is_null())


class _Names:
    """Which names occur in some JSON: parsing for the others costs more than to see that they do not.

    Most that do not are told by their last characters, whose hashes are kept for all names at once.
    """

    __slots__ = ("_begun", "_content", "_ends")

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._begun: dict[str, bool] = {}
        self._ends = _name_ends(content)

    def met(self, schema: pa.Schema) -> pa.Schema:
        """The fields, and theirs, whose names occur; all where none does, or one could be hidden."""
        found = [] if self._ends is None else self._narrowed(list(schema))
        return pa.schema(found) if found else schema

    def _narrowed(self, fields: Sequence[pa.Field]) -> list[pa.Field]:
        return [field.with_type(self._narrow(field.type)) for field in fields if self._occurs(field.name)]

    def _narrow(self, kind: pa.DataType) -> pa.DataType:
        if pa.types.is_list(kind):
            return pa.list_(self._narrow(kind.value_type))
        found = self._narrowed(list(kind)) if pa.types.is_struct(kind) else []
        return pa.struct(found) if found else kind

    def _occurs(self, name: str) -> bool:
        quoted, (begin, dot, _) = f'"{name}"'.encode(), name.partition(".")
        kind = next((k for k in self._ends or () if len(quoted) > np.dtype(k).itemsize), None)
        if self._ends is not None and kind is not None:
            end = np.frombuffer(quoted[-np.dtype(kind).itemsize - 1 : -1], kind)
            if not self._ends[kind][_hashed(end)[0]]:
                return False
        if dot and begin not in self._begun:
            self._begun[begin] = f'"{begin}.'.encode() in self._content
        return (not dot or self._begun[begin]) and quoted in self._content


def _name_ends(content: bytes) -> dict[str, NDArray[np.bool_]] | None:
    """Which hashes the last eight, and the last four, characters of names have, the opening quote included.

    None where a name could be spelt with escapes, or stand apart from its colon.
    """
    if len(content) < np.dtype(_ENDINGS[0]).itemsize or (b"\\" in content and b"\\u" in content):
        return None
    octets = np.frombuffer(content, np.uint8)
    colons = np.flatnonzero(octets == ord(":"))
    before = octets[colons - 1]
    if (before <= ord(" ")).any():
        return None
    quotes = colons[before == ord('"')] - 1
    ends = {}
    for kind in _ENDINGS:
        size = np.dtype(kind).itemsize
        each = np.ndarray(len(content) - size + 1, f"V{size}", content, strides=(1,))  # aligned to no more than a byte
        ends[kind] = np.zeros(1 << _HASH_BITS, np.bool_)
        ends[kind][_hashed(each[quotes[quotes >= size] - size].view(kind))] = True
    return ends


def _hashed(words: NDArray[np.unsignedinteger]) -> NDArray[np.intp]:
    """The words' hashes, by multiplication: the highest bits depend on all others."""
    bits = words.dtype.itemsize * 8
    factor, shift = (words.dtype.type(number) for number in (0x9E3779B97F4A7C15 >> (64 - bits), bits - _HASH_BITS))
    hashes: NDArray[np.intp] = ((words * factor) >> shift).astype(np.intp)
    return hashes


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
