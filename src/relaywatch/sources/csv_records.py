"""CSV with quoting (RFC 4180), record by record: exports of consoles and spreadsheets, whose fields may hold line ends.

Row by row, for context formats: a record costs some microseconds.
"""

from __future__ import annotations

import csv
import itertools
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from relaywatch.model.errors import SourceError
from relaywatch.sources.lines import counted_blocks
from relaywatch.sources.reading import Head, Reading

DELIMITERS: Final = (",", ";", "\t")
LINES_PER_RECORD: Final = 1000
"""A quoted field holds some dozen lines at most."""
TIMES_AGAIN: Final = 1000
"""Records of several lines whose lines are read again; bounds the work that stray quotes make."""
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
    number of fields go to quarantine. A quote that never ends costs its own line only. Empty lines are no records.
    Raises SourceError where the header cannot be split.
    """
    lines = _Lines(stream, path, reading)
    if delimiter is None:
        delimiter = max(DELIMITERS, key=lines.peek().count)
    names: list[str] | None = None
    while True:
        try:
            for fields in csv.reader(lines, delimiter=delimiter, strict=True):
                if names is None:
                    names = [fields[0].removeprefix("\ufeff"), *fields[1:]] if fields else []
                elif any(fields):
                    record = _record(names, fields)
                    reading.tally.met(1)
                    yield lines.first, record
                lines.done()
        except csv.Error as error:
            if names is None:
                raise SourceError(path, f"the header is no CSV ({error}).", position="line 1") from error
            reading.tally.met(1)
            reading.quarantine.add(str(path), f"line {lines.first}", str(error))
            lines.again()
            continue
        return


def _record(names: list[str], fields: list[str]) -> dict[str, str]:
    if len(fields) != len(names):
        raise csv.Error(f"{len(fields)} fields where the header names {len(names)}")
    return dict(zip(names, fields, strict=True))


class _Lines:
    """The text lines of the stream; those of the present record can be read again."""

    __slots__ = ("_again", "_ahead", "_source", "_taken")

    def __init__(self, stream: BinaryIO, path: Path, reading: Reading) -> None:
        self._source = _numbered(stream, path, reading)
        self._ahead: deque[tuple[int, str]] = deque()
        self._taken: list[tuple[int, str]] = []
        self._again = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self._taken) >= LINES_PER_RECORD:
            raise csv.Error(f"a record of more than {LINES_PER_RECORD} lines")
        entry = self._ahead.popleft() if self._ahead else next(self._source)
        self._taken.append(entry)
        return entry[1]

    @property
    def first(self) -> int:
        """The number of the first line of the present record."""
        return self._taken[0][0] if self._taken else 1

    def peek(self) -> str:
        """The next line, which is still to come; empty at the end."""
        if not self._ahead:
            self._ahead.extend(itertools.islice(self._source, 1))
        return self._ahead[0][1] if self._ahead else ""

    def done(self) -> None:
        """The present record is over."""
        self._taken.clear()

    def again(self) -> None:
        """All lines of the present record but the first are still to come, where that has not happened too often."""
        if len(self._taken) > 1 and self._again < TIMES_AGAIN:
            self._again += 1
            self._ahead.extendleft(reversed(self._taken[1:]))
        self._taken.clear()


def _numbered(stream: BinaryIO, path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    for block in counted_blocks(stream, path, reading):
        for number, line in block.lines():
            # A lone carriage return would end the record for the csv module.
            yield number, line.decode("utf-8", "replace").replace("\r", "\ufffd") + "\n"
