"""Zeek's log files as columns of text, TSV or JSON: what conn.log and its siblings have in common.

Format: Zeek's documentation of its ASCII writer. TSV columns vary by version, so the header alone names them; a header
may come again in the middle where logs were joined. JSON leaves unset fields out and keeps the dotted names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

import polars as pl
import pyarrow as pa

from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.columns import microseconds
from relaywatch.sources.json_records import parted, positions
from relaywatch.sources.lines import Block, counted_blocks, delimited, shown
from relaywatch.sources.reading import Head, Reading

PROBED_LINES: Final = 20
LEADING_BYTES: Final = 4_096
"""Where a part of JSON nearly always has its first brace."""
LOGS: Final[Mapping[str, frozenset[str]]] = {
    "conn": frozenset({"ts", "id.orig_h", "id.resp_h", "proto", "conn_state"}),
    "dns": frozenset({"ts", "id.orig_h", "query"}),
    "ssl": frozenset({"ts", "uid", "id.orig_h", "version", "established"}),
    "socks": frozenset({"ts", "id.orig_h", "id.resp_h", "version", "request_p"}),
    "http": frozenset({"ts", "uid", "id.orig_h", "trans_depth", "method"}),
    "tunnel": frozenset({"ts", "id.orig_h", "tunnel_type", "action"}),
    "dhcp": frozenset({"ts", "mac", "msg_types"}),
}
"""The logs that are read, each with columns that tell it from the others."""

BOOLEANS: Final = frozenset({"local_orig", "local_resp"})
LISTS: Final = frozenset({"answers", "msg_types"})
SPANS: Final = frozenset({"duration", "lease_time"})
"""Columns in use that JSON holds as booleans, lists of text, and seconds; a time is seconds or text."""
_WHOLE: Final = 2**53

_ESCAPE: Final = re.compile(r"\\x([0-9a-fA-F]{2})")


def log_kind(head: Head) -> str | None:
    """Which of LOGS this is, by its header or its first JSON record; None: none of them."""
    if not head.content.startswith((b"#", b"{")):
        return None
    header = _Header()
    for line in head.content.split(b"\n", PROBED_LINES)[:PROBED_LINES]:
        if line.startswith(b"#"):
            header = header.told(line)
        elif line.startswith(b"{") and (kind := _json_kind(line)) is not None:
            return kind
    return header.path if header.fields and header.path in LOGS and "ts" in header.fields else None


def _json_kind(line: bytes) -> str | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    if (path := record.get("_path")) is not None:
        return path if path in tuple(LOGS) else None
    return next((kind for kind, keys in LOGS.items() if keys <= record.keys()), None)


@dataclass(frozen=True, slots=True)
class _Header:
    """What the # lines said so far."""

    separator: str = "\t"
    set_separator: str = ","
    empty: str = "(empty)"
    unset: str = "-"
    path: str = ""
    fields: tuple[str, ...] = ()

    def told(self, line: bytes) -> _Header:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text.startswith("#separator "):
            separator = _ESCAPE.sub(lambda code: chr(int(code[1], 16)), text[11:].strip(" "))
            return replace(self, separator=separator) if len(separator) == 1 and separator.isascii() else self
        key, _, value = text.partition(self.separator)
        match key:
            case "#set_separator" if value:
                return replace(self, set_separator=value)
            case "#empty_field":
                return replace(self, empty=value)
            case "#unset_field":
                return replace(self, unset=value)
            case "#path":
                return replace(self, path=value)
            case "#fields":
                return replace(self, fields=tuple(value.split(self.separator)))
        return self


def text_frames(
    stream: BinaryIO, path: Path, columns: Sequence[str], reading: Reading, *, counts: Sequence[str] = ()
) -> Iterator[pl.DataFrame]:
    """The log's records as frames with exactly `columns` (null where unset or not logged) and `position` (line number).

    counts: columns that JSON holds as whole numbers; the others are text, SPANS or BOOLEANS. Booleans are "T" or "F",
    lists are joined with ",". Counts the records in the reading's tally; those that cannot be split go to quarantine.
    """
    header, source = _Header(), str(path)
    for block in counted_blocks(stream, path, reading):
        for part, told in _records(block, header):
            header, before = told, reading.quarantine.counts[source]
            frame = _frame(part, path, header, columns, counts, reading.quarantine)
            reading.tally.met(reading.quarantine.counts[source] - before + frame.height)
            if frame.height:
                yield frame


def _records(block: Block, header: _Header) -> Iterator[tuple[Block, _Header]]:
    """The records of a block, in as few parts as there are headers and layouts, each with the header that it is under.

    The last one's header goes for what follows the block. A header that says what the one before it said parts nothing.
    """
    held: list[Block] = []
    for part in _parts(block):
        if part.content.startswith(b"#"):
            told = header
            for _, line in part.lines():
                told = told.told(line)
            if told != header and held:
                yield _together(held), header
                held = []
            header = told
            continue
        if held and _is_json(held[0]) != _is_json(part):
            yield _together(held), header
            held = []
        held.append(part)
    yield (_together(held) if held else Block(block.first_line, b"")), header


def _together(parts: Sequence[Block]) -> Block:
    """The parts as one."""
    if len(parts) == 1:
        return parts[0]
    numbers = [range(part.first_line, part.first_line + part.content.count(b"\n")) for part in parts]
    content = b"".join(part.content for part in parts)
    return Block(parts[0].first_line, content, [number for some in numbers for number in some])


def _is_json(part: Block) -> bool:
    return (part.content[:LEADING_BYTES].lstrip() or part.content.lstrip()).startswith(b"{")


def _frame(
    part: Block, path: Path, header: _Header, columns: Sequence[str], counts: Sequence[str], quarantine: Quarantine
) -> pl.DataFrame:
    """The records of a part without # lines."""
    if not part.content:
        return pl.DataFrame()
    if _is_json(part):
        return _json_frame(part, path, columns, counts, quarantine)
    if header.fields and len(set(header.fields)) == len(header.fields):
        return _tsv_frame(part, path, header, columns, quarantine)
    for number, line in part.lines():
        if line:
            quarantine.add(str(path), f"line {number}", "a record without a #fields header before it")
    return pl.DataFrame()


def _parts(block: Block) -> Iterator[Block]:
    """The block cut where # lines begin and end; each part holds only # lines or only others."""
    content, start, line = block.content, 0, block.first_line
    while start < len(content):
        marked = content.startswith(b"#", start)
        end = start
        if marked:
            while content.startswith(b"#", end):
                end = content.index(b"\n", end) + 1
        else:
            end = content.find(b"\n#", start) + 1 or len(content)
        part = Block(line, content[start:end])
        yield part
        line += part.content.count(b"\n")
        start = end


def _tsv_frame(
    part: Block, path: Path, header: _Header, columns: Sequence[str], quarantine: Quarantine
) -> pl.DataFrame:
    logged = [name for name in columns if name in header.fields]
    frame = delimited(part, header.fields, header.separator, path, quarantine, used=logged)
    return frame.select(
        "position",
        *(
            pl.when(~pl.col(name).is_in([header.unset, header.empty, ""])).then(pl.col(name)).alias(name)
            if name in logged
            else pl.lit(None, pl.String).alias(name)
            for name in columns
        ),
    )


def _json_frame(
    block: Block, path: Path, columns: Sequence[str], counts: Sequence[str], quarantine: Quarantine
) -> pl.DataFrame:
    """Whole parts at once where every line is as expected, else line by line; then all is text."""
    kinds = dict.fromkeys(counts, pa.int64()) | dict.fromkeys(SPANS, pa.float64()) | dict.fromkeys(BOOLEANS, pa.bool_())
    kinds |= dict.fromkeys(LISTS, pa.list_(pa.string()))
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns])
    at = schema.get_field_index("ts")
    schemas = [schema] if at < 0 else [schema.set(at, pa.field("ts", pa.float64())), schema]
    frames = []
    for part, table in parted(block, *schemas):
        if table is None:
            frames.append(_json_lines(part, path, columns, quarantine))
            continue
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table always becomes a frame
        as_tsv = frame.select(_as_tsv(name, frame.schema[name]) for name in columns)
        frames.append(as_tsv.with_columns(pl.Series("position", positions(part, table).to_numpy())))
    if any(frame.schema != frames[0].schema for frame in frames):
        frames = [frame.with_columns(pl.exclude("position").cast(pl.String)) for frame in frames]
    return frames[0] if len(frames) == 1 else pl.concat(frames).sort("position")


def _as_tsv(name: str, kind: pl.DataType) -> pl.Expr:
    """A JSON column as the TSV log would have it, but for numbers, which stay numbers."""
    value = pl.col(name)
    if kind == pl.Boolean:
        return pl.when(value).then(pl.lit("T")).when(~value).then(pl.lit("F")).alias(name)
    if isinstance(kind, pl.List):
        value = value.list.join(",", ignore_nulls=True)
    elif kind != pl.String:
        return value
    return pl.when(value != "").then(value).alias(name)


def _json_lines(part: Block, path: Path, columns: Sequence[str], quarantine: Quarantine) -> pl.DataFrame:
    rows: list[list[str | None]] = []
    numbers: list[int] = []
    for number, line in part.lines():
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise TypeError("no JSON object")  # noqa: TRY301 - the one place that knows the line
            row = [_json_text(record.get(name)) for name in columns]
        except (ValueError, TypeError, RecursionError) as error:
            quarantine.add(str(path), f"line {number}", f"no JSON record ({shown(error)})")
            continue
        rows.append(row)
        numbers.append(number)
    frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    return frame.with_columns(pl.Series("position", numbers, pl.Int64))


def _json_text(value: object) -> str | None:
    """A JSON value as the TSV log would have written it. Raises ValueError where it is no text."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, list):
        return (
            ",".join(str(entry) for entry in value if entry is not None and not isinstance(entry, (list, dict))) or None
        )
    if isinstance(value, dict):
        raise TypeError("an object where a value is expected")
    whole = isinstance(value, float) and abs(value) < _WHOLE and value.is_integer()
    text = f"{value:.0f}" if whole else str(value)
    text.encode()
    return text


def instants(name: str, dtype: pl.DataType) -> pl.Expr:
    """A Zeek time (epoch seconds, or ISO 8601) as microseconds; null where it is neither."""
    seconds = microseconds(_finite(pl.col(name).cast(pl.Float64, strict=False)))
    if dtype != pl.String:
        return seconds
    written = pl.col(name).str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False).dt.epoch("us")
    return pl.coalesce(seconds, pl.when(written >= 0).then(written))


def _finite(value: pl.Expr) -> pl.Expr:
    return pl.when(value.is_finite()).then(value)
