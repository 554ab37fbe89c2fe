"""Lines of an Android dump as columns of text: what large sections are read from, and small ones by the line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import polars as pl
import pyarrow as pa

from relaywatch.sources.lines import BLOCK_BYTES, counted_blocks
from relaywatch.sources.reading import Reading

LINE_CHARACTERS: Final = 65_536
"""A longer line is cut: no section that is read has such."""
COLUMN_LINES: Final = 65_536
"""Most lines that are taken at once, however short they are."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines that follow each other, held as columns. Iterating gives them one by one."""

    columns: Iterable[pl.Series]

    def __iter__(self) -> Iterator[str]:
        for column in self.columns:
            yield from column.to_list()


def line_columns(lines: Iterable[str]) -> Iterator[pl.Series]:
    """The lines as columns of COLUMN_LINES or fewer, none empty; together all lines in order."""
    if isinstance(lines, Lines):
        for column in lines.columns:
            yield from (column[at : at + COLUMN_LINES] for at in range(0, len(column), COLUMN_LINES))
        return
    rest = iter(lines)
    while taken := list(islice(rest, COLUMN_LINES)):
        yield pl.Series(taken, dtype=pl.String)


def read_columns(
    stream: BinaryIO, path: Path, reading: Reading, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[pl.Series]:
    """A file's lines without their ends, cut to LINE_CHARACTERS, what is no UTF-8 as U+FFFD.

    A line beyond LINE_BYTES is empty here, counted and in quarantine. Where the stream is damaged, the lines before the
    damage come first, then its SourceError.
    """
    number = 1
    for block in counted_blocks(stream, path, reading, block_bytes=block_bytes):
        column = _column(block.content)
        if block.first_line > number:
            column = pl.concat([pl.Series([""] * (block.first_line - number), dtype=pl.String), column])
        number += len(column)
        yield column


def _column(content: bytes) -> pl.Series:
    """Whole lines, each ended by a line feed."""
    if not content.isascii():
        content = content.decode("utf-8", "replace").encode()
    ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n"))
    # Each text goes from after one line feed to after the next: the feed itself is stripped below.
    offsets = np.concatenate(([0], ends + 1)).astype(np.int64)
    array = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(content))
    column = pl.Series("", array, dtype=pl.String).str.strip_chars_end("\r\n")
    if int(column.str.len_bytes().max() or 0) > LINE_CHARACTERS:  # type: ignore[arg-type]
        column = column.str.slice(0, LINE_CHARACTERS)
    return column
