"""CSV with quoting (RFC 4180), record by record: exports of consoles and spreadsheets, whose fields may hold line ends.

Row by row, for context formats: a record costs some microseconds.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from relaywatch.sources.lines import counted_blocks, shown
from relaywatch.sources.reading import Head, Reading

DELIMITERS: Final = (",", ";", "\t")
HEADER_BYTES: Final = 16_384
"""A longer first line is no header."""


def header(head: Head) -> tuple[str, list[str]] | None:
    """The delimiter and the fields of the first line, split where it splits most; None where it is no header."""
    line = head.content.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].rstrip(b"\r")
    if not line or len(line) > HEADER_BYTES or line[:1] in b"{[<#" or b"\x00" in line:
        return None
    text = line.decode("utf-8", "replace")
    delimiter = max(DELIMITERS, key=text.count)
    fields = _fields(text, delimiter)
    return (delimiter, fields) if fields is not None and len(fields) > 1 else None


def _fields(text: str, delimiter: str) -> list[str] | None:
    try:
        return next(csv.reader([text], delimiter=delimiter), None)
    except csv.Error:
        return None


def records(
    stream: BinaryIO, path: Path, reading: Reading, delimiter: str | None
) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Each record after the header as its first line's number and its fields by the header's names.

    delimiter: None: the one that splits the header most. Counts the records in the reading's tally; those with another
    number of fields go to quarantine, as does a field that never ends. Empty lines are no records.
    """
    lines = _Lines(stream, path, reading)
    if delimiter is None:
        delimiter = max(DELIMITERS, key=lines.peek().count)
    names: list[str] | None = None
    while True:
        lines.first = 0
        try:
            for fields in csv.reader(lines, delimiter=delimiter):
                first, lines.first = lines.first, 0
                if names is None:
                    names = [fields[0].removeprefix("\ufeff"), *fields[1:]] if fields else []
                    continue
                if not any(fields):
                    continue
                reading.tally.met(1)
                if len(fields) == len(names):
                    yield first, dict(zip(names, fields, strict=True))
                else:
                    reason = f"{len(fields)} fields where the header names {len(names)}"
                    reading.quarantine.add(str(path), f"line {first}", reason)
        except csv.Error as error:
            reading.tally.met(1)
            reading.quarantine.add(str(path), f"line {max(lines.first, 1)}", f"no CSV record ({shown(error)})")
            continue
        return


class _Lines:
    """The text lines of the stream; `first` is the number of the first line taken since it was set to 0."""

    __slots__ = ("_each", "first")

    def __init__(self, stream: BinaryIO, path: Path, reading: Reading) -> None:
        self.first = 0
        self._each: Iterator[tuple[int, str]] = _numbered(stream, path, reading)

    def __iter__(self) -> Iterator[str]:
        return self

    def peek(self) -> str:
        """The next line, which is still to come; empty at the end."""
        ahead = next(self._each, None)
        if ahead is None:
            return ""
        self._each = itertools.chain([ahead], self._each)
        return ahead[1]

    def __next__(self) -> str:
        number, line = next(self._each)
        self.first = self.first or number
        return line


def _numbered(stream: BinaryIO, path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    for block in counted_blocks(stream, path, reading):
        for number, line in block.lines():
            # A lone carriage return would end the record for the csv module.
            yield number, line.decode("utf-8", "replace").replace("\r", "\ufffd") + "\n"
