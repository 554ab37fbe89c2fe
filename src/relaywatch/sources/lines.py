"""Text formats by the line: blocks of whole lines with their numbers, and delimited blocks as columns of text."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.reading import Reading

BLOCK_BYTES: Final = 4 << 20
LINE_BYTES: Final = 1 << 24
"""A longer line is no record of any format here."""
SHOWN_CHARACTERS: Final = 40


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines, each ended by a line feed. first_line counts from 1.

    apart: each line's number, where the lines do not follow each other in the file; else None.
    """

    first_line: int
    content: bytes
    apart: Sequence[int] | None = None

    @staticmethod
    def of(lines: Sequence[tuple[int, bytes]]) -> Block:
        """Some lines of a file, with their numbers; not none."""
        return Block(lines[0][0], b"".join(line + b"\n" for _, line in lines), [number for number, _ in lines])

    def halves(self) -> tuple[Block, Block]:
        """The block cut at a line end near its middle; it must have two lines or more."""
        cut = self.content.index(b"\n", len(self.content) // 2) + 1
        if cut == len(self.content):
            cut = self.content.rindex(b"\n", 0, len(self.content) - 1) + 1
        head, lines = self.content[:cut], self.content.count(b"\n", 0, cut)
        if self.apart is None:
            return Block(self.first_line, head), Block(self.first_line + lines, self.content[cut:])
        before, after = self.apart[:lines], self.apart[lines:]
        return Block(before[0], head, before), Block(after[0], self.content[cut:], after)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line's number and content without its line end."""
        found = self.content.split(b"\n")[:-1]
        numbers = range(self.first_line, self.first_line + len(found)) if self.apart is None else self.apart
        for number, line in zip(numbers, found, strict=True):
            yield number, line.removesuffix(b"\r")


class Piece(io.BytesIO):
    """Some lines out of the middle of a growing text, which a reader takes as if it had read all before them.

    head: the lines, each ended, that say what the later ones mean (a header); they are line 1 and what follows it.
    first_line: the number of the first line of `content`.
    """

    def __init__(self, content: bytes, *, first_line: int, head: bytes = b"") -> None:
        super().__init__(content)
        self.first_line = first_line
        self.head = head


def blocks(stream: BinaryIO, path: Path, quarantine: Quarantine, *, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """The stream's lines in blocks of about block_bytes; lines beyond LINE_BYTES go to quarantine.

    A Piece's head is a block of its own, and its lines have their numbers of the whole text.
    Where the stream is damaged, the whole lines before the damage come first, then its SourceError.
    """
    line, rest, skipping = 1, b"", False
    if isinstance(stream, Piece):
        line = stream.first_line
        if stream.head:
            yield Block(1, stream.head)
    while True:
        try:
            data = stream.read(block_bytes)
        except SourceError:
            if rest.count(b"\n"):
                yield Block(line, rest[: rest.rindex(b"\n") + 1])
            raise
        if not data:
            break
        if skipping:
            end = data.find(b"\n")
            if end < 0:
                continue
            data, skipping = data[end + 1 :], False
            line += 1
        cut = data.rfind(b"\n") + 1
        if cut:
            content, rest = b"".join((rest, memoryview(data)[:cut])), data[cut:]
            yield from _bounded(Block(line, content), path, quarantine)
            line += int(np.count_nonzero(np.frombuffer(content, np.uint8) == ord("\n")))
        else:
            rest += data
        if len(rest) > LINE_BYTES:
            quarantine.add(str(path), f"line {line}", f"longer than {LINE_BYTES} bytes")
            rest, skipping = b"", True
    if rest:
        yield Block(line, rest + b"\n")


def counted_blocks(
    stream: BinaryIO, path: Path, reading: Reading, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[Block]:
    """As blocks(); the lines that it puts aside are counted in the tally, the others are the caller's to count."""
    source, found = str(path), blocks(stream, path, reading.quarantine, block_bytes=block_bytes)
    while True:
        before = reading.quarantine.counts[source]
        try:
            block = next(found, None)
        finally:
            reading.tally.met(reading.quarantine.counts[source] - before)
        if block is None:
            return
        yield block


def _bounded(block: Block, path: Path, quarantine: Quarantine) -> Iterator[Block]:
    """The block, without lines beyond LINE_BYTES."""
    if len(block.content) <= LINE_BYTES:
        yield block
        return
    ends = np.flatnonzero(np.frombuffer(block.content, np.uint8) == ord("\n"))
    begins = np.concatenate(([0], ends[:-1] + 1))
    start = 0
    for index in np.flatnonzero(ends - begins > LINE_BYTES).tolist():
        quarantine.add(str(path), f"line {block.first_line + index}", f"longer than {LINE_BYTES} bytes")
        if begins[index] > begins[start]:
            yield Block(block.first_line + start, block.content[begins[start] : begins[index]])
        start = index + 1
    if start < len(ends):
        yield Block(block.first_line + start, block.content[begins[start] :])


def shown(value: object) -> str:
    """A value of a suspect file as it may stand in a message: bounded, control characters escaped."""
    text = str(value)
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…")


def delimited(
    block: Block,
    columns: Sequence[str],
    delimiter: str,
    path: Path,
    quarantine: Quarantine,
    *,
    used: Sequence[str] = (),
) -> pl.DataFrame:
    """The block's lines as text columns, without quoting, plus `position` (line number).

    used: the columns to keep; empty: all. Empty lines are left out, lines with another number of fields go to
    quarantine. Bytes that are no UTF-8 become U+FFFD.
    """
    kept = block.content
    numbers: Sequence[int] | None = block.apart
    separator = delimiter.encode()
    parsed = split_at_once(kept, columns, delimiter, used)
    if parsed is None or parsed.num_rows != kept.count(b"\n"):
        rows = []
        for number, line in block.lines():
            if not line:
                continue
            found = line.count(separator) + 1
            if found != len(columns):
                quarantine.add(str(path), f"line {number}", f"{found} fields where the header names {len(columns)}")
            else:
                rows.append((number, line.decode("utf-8", "replace").replace("\r", "\ufffd").encode()))
        numbers = [number for number, _ in rows]
        parsed = split_at_once(b"".join(line + b"\n" for _, line in rows), columns, delimiter, used)
    if parsed is None or (numbers is not None and parsed.num_rows != len(numbers)):
        raise SourceError(path, "cannot be split into fields.", position=f"line {block.first_line}")
    positions = (
        np.arange(block.first_line, block.first_line + parsed.num_rows)
        if numbers is None
        else np.array(numbers, np.int64)
    )
    frame = pl.from_arrow(parsed)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table always becomes a frame
    return frame.with_columns(pl.Series("position", positions, pl.Int64))


def split_at_once(content: bytes, columns: Sequence[str], delimiter: str, used: Sequence[str] = ()) -> pa.Table | None:
    """The lines as a table of text; None where one is empty or no UTF-8, or has a wrong number of fields or a return.

    used: the columns to keep; empty: all.
    """
    wanted = list(used or columns)
    if not content:
        return pa.table({name: pa.array([], pa.string()) for name in wanted})
    if b"\r" in content or content.startswith(b"\n") or b"\n\n" in content:
        return None
    try:
        return pacsv.read_csv(
            io.BytesIO(content),
            read_options=pacsv.ReadOptions(column_names=list(columns), use_threads=False, block_size=len(content) + 1),
            parse_options=pacsv.ParseOptions(
                delimiter=delimiter, quote_char=False, escape_char=False, ignore_empty_lines=False
            ),
            convert_options=pacsv.ConvertOptions(
                column_types={name: pa.string() for name in wanted}, include_columns=wanted, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        return None


def typed(
    frame: pl.DataFrame,
    kinds: Mapping[str, type[pl.DataType]],
    path: Path,
    quarantine: Quarantine,
    *,
    required: Sequence[str],
    place: str = "line",
) -> pl.DataFrame:
    """The frame with the named text columns cast; rows with a misfit, or without a required value, go to quarantine.

    Floats must be finite. `place` names what `position` counts.
    """
    cast = frame.with_columns(_cast(frame, name, kind) for name, kind in kinds.items())
    bad = {name: frame[name].is_not_null() & cast[name].is_null() for name in kinds}
    missing = {name: frame[name].is_null() for name in required}
    wrong = pl.repeat(value=False, n=frame.height, eager=True, dtype=pl.Boolean)
    for mask in (*bad.values(), *missing.values()):
        wrong = wrong | mask
    if not wrong.any():
        return cast
    for index in wrong.arg_true().to_list():
        position = f"{place} {frame['position'][index]}"
        name = next((n for n, mask in bad.items() if mask[index]), None)
        if name is not None:
            quarantine.add(str(path), position, f"{name}: {shown(frame[name][index])} is not a valid value")
        else:
            absent = next(n for n, mask in missing.items() if mask[index])
            quarantine.add(str(path), position, f"{absent} is missing or not valid")
    return cast.filter(~wrong)


def _cast(frame: pl.DataFrame, name: str, kind: type[pl.DataType]) -> pl.Expr:
    value = pl.col(name).cast(kind, strict=False)
    if kind == pl.Float64:
        value = pl.when(value.is_finite()).then(value)
    return value.alias(name)
