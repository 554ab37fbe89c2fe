"""Zeek's log files as columns of text, TSV or JSON: what conn.log and its siblings have in common.

Format: Zeek's documentation of its ASCII writer. TSV columns vary by version, so the header alone names them; a header
may come again in the middle where logs were joined. JSON leaves unset fields out and keeps the dotted names.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

import polars as pl
import pyarrow as pa
import pyarrow.json as pajson

from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.columns import microseconds
from relaywatch.sources.lines import Block, blocks, delimited, shown
from relaywatch.sources.reading import Head

PROBED_LINES: Final = 20
LOGS: Final[Mapping[str, frozenset[str]]] = {
    "conn": frozenset({"ts", "id.orig_h", "id.resp_h", "proto", "conn_state"}),
    "dns": frozenset({"ts", "id.orig_h", "query"}),
    "ssl": frozenset({"ts", "uid", "id.orig_h", "version", "established"}),
    "socks": frozenset({"ts", "id.orig_h", "id.resp_h", "version", "request_p"}),
}
"""The logs that are read, each with columns that tell it from the others."""

BOOLEANS: Final = frozenset({"local_orig", "local_resp"})
"""Columns in use that JSON holds as booleans."""

_ESCAPE: Final = re.compile(r"\\x([0-9a-fA-F]{2})")


def log_kind(head: Head) -> str | None:
    """Which of LOGS this is, by its header or its first JSON record; None: none of them."""
    if not head.content.startswith((b"#", b"{")):
        return None
    header = _Header()
    for line in head.content.split(b"\n", PROBED_LINES)[:PROBED_LINES]:
        if line.startswith(b"#"):
            header = header.told(line)
        elif line.startswith(b"{"):
            return _json_kind(line)
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
    stream: BinaryIO, path: Path, columns: Sequence[str], quarantine: Quarantine, *, numbers: Sequence[str] = ()
) -> Iterator[pl.DataFrame]:
    """The log's records as frames with exactly `columns` (null where unset or not logged) and `position` (line number).

    numbers: columns that JSON holds as numbers; the others are text. Booleans are "T" or "F", sets are joined with ",".
    """
    header = _Header()
    for block in blocks(stream, path, quarantine):
        for part in _parts(block):
            if part.content.startswith(b"#"):
                for _, line in part.lines():
                    header = header.told(line)
            elif part.content.lstrip().startswith(b"{"):
                yield _json_frame(part, path, columns, numbers, quarantine)
            elif not header.fields or len(set(header.fields)) != len(header.fields):
                for number, line in part.lines():
                    if line:
                        quarantine.add(str(path), f"line {number}", "a record without a #fields header before it")
            else:
                yield _tsv_frame(part, path, header, columns, quarantine)


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
    part: Block, path: Path, columns: Sequence[str], numbers: Sequence[str], quarantine: Quarantine
) -> pl.DataFrame:
    """Whole block at once where every line is as expected, else line by line."""
    kinds = dict.fromkeys(numbers, pa.float64()) | dict.fromkeys(BOOLEANS, pa.bool_())
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns])
    try:
        table = pajson.read_json(
            io.BytesIO(part.content),
            read_options=pajson.ReadOptions(use_threads=False, block_size=len(part.content) + 1),
            parse_options=pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid:
        table = None
    if table is None or table.num_rows != part.content.count(b"\n"):
        return _json_lines(part, path, columns, quarantine)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table always becomes a frame
    first = part.first_line
    truths = [name for name in columns if name in BOOLEANS]
    frame = frame.with_columns(
        pl.col(name).replace_strict({True: "T", False: "F"}, return_dtype=pl.String) for name in truths
    )
    return frame.with_columns(pl.int_range(first, first + frame.height, dtype=pl.Int64, eager=True).alias("position"))


def _json_lines(part: Block, path: Path, columns: Sequence[str], quarantine: Quarantine) -> pl.DataFrame:
    rows: list[list[str | None]] = []
    positions: list[int] = []
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
        positions.append(number)
    frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    return frame.with_columns(pl.Series("position", positions, pl.Int64))


def _json_text(value: object) -> str | None:
    """A JSON value as the TSV log would have written it. Raises ValueError where it is no text."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, list):
        return ",".join(str(entry) for entry in value if not isinstance(entry, (list, dict))) or None
    if isinstance(value, dict):
        raise TypeError("an object where a value is expected")
    text = str(value)
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
