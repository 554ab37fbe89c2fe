"""Pieces of text into canonical batches, by the readers that read files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Final

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine, Quarantined
from relaywatch.model.tables import Batch
from relaywatch.sources.json_layout import as_lines
from relaywatch.sources.lines import Piece
from relaywatch.sources.reading import HEAD_BYTES, FileReader, Head, Reading
from relaywatch.sources.registry import FILE_READERS

READERS: Final[dict[str, FileReader]] = {reader.name: reader for reader in FILE_READERS}


class HeadLines(Enum):
    """Which lines of a text say what the others mean."""

    NONE = "none"
    FIRST = "first"
    HASH = "hash"


FOLLOWED: Final = {
    "canonical-ndjson": HeadLines.NONE,
    "ecs": HeadLines.NONE,
    "pcapdroid-csv": HeadLines.FIRST,
    "suricata-eve": HeadLines.NONE,
    "zeek-conn": HeadLines.HASH,
    "zeek-dhcp": HeadLines.HASH,
    "zeek-http": HeadLines.HASH,
    "zeek-names": HeadLines.HASH,
    "zeek-socks": HeadLines.HASH,
    "zeek-tunnel": HeadLines.HASH,
}
"""Formats whose lines mean the same by themselves, given the head lines: files of them are read as they grow."""

BY_BODY: Final = frozenset(FOLLOWED) | {
    *("conntrack", "intrusion-logs", "netflow-json", "nfdump-json", "ocsf", "vpc-flow-logs", "vpc-flow-logs-json"),
}
"""Formats that can be sent. Where their records belong together, they are put together within one body."""

HEAD_LINES_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a piece held."""

    batches: Sequence[Batch]
    aside: Sequence[Quarantined] = ()
    aside_total: int = 0


def recognised(content: bytes, source: str) -> str | None:
    """The format of a text's start; None: of none, or the text needs another layout first."""
    start = content[:HEAD_BYTES]
    if as_lines(start, io.BytesIO(start), Path(source)) is not None:
        return None
    head = Head(Path(source), start)
    return next((reader.name for reader in FILE_READERS if reader.fits(head)), None)


def decoded(form: str, source: str, stream: BinaryIO, device: str) -> Decoded:
    """The rows of a stream; what is damaged is put aside. source: the name that rows and messages give it."""
    reading = Reading(Quarantine(), device)
    batches: list[Batch] = []
    try:
        batches.extend(batch for batch in READERS[form].read(Path(source), stream, reading) if batch.rows.num_rows)
    except SourceError as damage:
        reason = f"{damage.reason} {damage.remedy}".strip()
        reading.quarantine.add(damage.path, damage.position or "file", reason)
    return Decoded(batches, reading.quarantine.records, reading.quarantine.total)


def decoded_lines(form: str, source: str, lines: bytes, first_line: int, device: str, head: bytes = b"") -> Decoded:
    """The rows of whole lines out of a text, which is read as far as they begin."""
    return decoded(form, source, Piece(lines, first_line=first_line, head=head), device)


def head_lines(form: str, head: bytes, lines: bytes, *, at_start: bool) -> tuple[bytes, bytes]:
    """The head lines for what follows these lines; and these lines without a head that must stand before them.

    head: the head lines so far; at_start: the lines are the text's first.
    """
    style = FOLLOWED.get(form, HeadLines.NONE)
    if style is HeadLines.FIRST and at_start:
        first, ended, rest = lines.partition(b"\n")
        return first + ended, rest
    if style is HeadLines.HASH and (lines.startswith(b"#") or b"\n#" in lines):
        told = b"".join(line + b"\n" for line in lines.split(b"\n") if line.startswith(b"#"))
        head += told
        newest = head.rfind(b"#separator ")
        head = head[max(newest, 0) :]
        if len(head) > HEAD_LINES_BYTES:
            head = head[head.index(b"\n", len(head) - HEAD_LINES_BYTES) + 1 :]
    return head, lines
