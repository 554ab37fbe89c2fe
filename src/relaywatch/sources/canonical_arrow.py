"""The canonical tables as Arrow IPC, stream or file: the form that costs least to take in.

A stream is read batch by batch, so that it can go on for ever. Compressed bodies are refused: their size is known only
after they have been expanded.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Final, cast

import pyarrow as pa

from relaywatch.model.errors import SourceError
from relaywatch.model.schemas import TABLES
from relaywatch.model.tables import Batch, TableName
from relaywatch.sources.canonical import fitted, table_of
from relaywatch.sources.lines import shown
from relaywatch.sources.reading import Head, Reading

_FILE_MAGIC: Final = b"ARROW1\0\0"
_STREAM_MAGIC: Final = b"\xff\xff\xff\xff"
MESSAGE_BYTES: Final = 1 << 30
"""A longer message is no batch of any writer here."""
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
"""MessageHeader's members in Arrow's Message.fbs; below, the slots of its tables."""
_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3
_DICTIONARY_DATA, _COMPRESSION = 1, 3
_DAMAGE: Final = (OSError, EOFError, pa.ArrowException, UnicodeDecodeError, struct.error)


class CanonicalArrow:
    """A canonical table as Arrow IPC. Missing nullable columns are null, other columns are ignored."""

    name: ClassVar[str] = "canonical-arrow"

    @staticmethod
    def fits(head: Head) -> bool:
        """An Arrow stream or file whose schema has a canonical table's columns."""
        content = head.content.removeprefix(_FILE_MAGIC)
        if not content.startswith(_STREAM_MAGIC):
            return False
        try:
            return _table(pa.ipc.read_schema(pa.BufferReader(content))) is not None
        except _DAMAGE:
            return False

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Batches of the table in stream order; rows that do not fit the schema go to quarantine by row number."""
        row = 1
        try:
            source = _Messages(path, stream)
            opened = pa.ipc.open_stream(source.as_file())
            table = _table(opened.schema)
            if table is None:
                raise SourceError(path, "holds no canonical table.", remedy="Name its columns as the schema does.")
            for rows in opened:
                rows.validate(full=True)
                known = [name for name in rows.schema.names if name in TABLES[table].names]
                reading.tally.met(rows.num_rows)
                fit = fitted(table, rows.select(known), row, path, reading.quarantine)
                reading.tally.with_rows += fit.rows.num_rows
                row += rows.num_rows
                if fit.rows.num_rows:
                    yield fit
        except _DAMAGE as error:
            raise SourceError(
                path, f"damaged Arrow data ({shown(error)}).", position=f"row {row}", remedy="Send it again."
            ) from error


def _table(schema: pa.Schema) -> TableName | None:
    return table_of(frozenset(schema.names)) if len(set(schema.names)) == len(schema.names) else None


class _Messages:
    """The stream's encapsulated messages, each looked at before Arrow decodes it."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path, self._stream = path, stream
        self._held: deque[memoryview] = deque()
        start = stream.read(len(_FILE_MAGIC))
        self._start = b"" if start == _FILE_MAGIC else start

    def as_file(self) -> pa.PythonFile:
        """The messages as a file that Arrow reads."""
        return pa.PythonFile(self, mode="r")

    closed = False

    def readable(self) -> bool:
        """As any file that is read."""
        return True

    def close(self) -> None:
        """Nothing is held open here."""

    def flush(self) -> None:
        """Nothing is written."""

    def read(self, size: int = -1) -> bytes | memoryview:
        """The next bytes, of one message at most unless that is too short."""
        wanted = MESSAGE_BYTES if size < 0 else size
        taken: list[memoryview] = []
        while wanted:
            if not self._held:
                self._held.extend(memoryview(part) for part in self._message() if part)
                if not self._held:
                    break
            part = self._held[0][:wanted]
            if len(part) == len(self._held[0]):
                self._held.popleft()
            else:
                self._held[0] = self._held[0][len(part) :]
            wanted -= len(part)
            taken.append(part)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def _exactly(self, size: int) -> bytes:
        parts = [self._start[:size]]
        self._start = self._start[size:]
        missing = size - len(parts[0])
        while missing and (data := self._stream.read(missing)):
            parts.append(data)
            missing -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _message(self) -> tuple[bytes, ...]:
        """The next message and its body; its end mark, or nothing, where the stream ends."""
        prefix = self._exactly(8)
        if len(prefix) < 8:
            return (prefix,)
        size = cast("int", struct.unpack("<i", prefix[4:])[0])
        if not prefix.startswith(_STREAM_MAGIC) or size <= 0:
            return (prefix,)
        if size > MESSAGE_BYTES:
            raise SourceError(self._path, "a message of absurd length.")
        metadata = self._exactly(size)
        length, compressed = _told(metadata)
        if compressed:
            raise SourceError(self._path, "compressed Arrow data.", remedy="Write it without body compression.")
        if not 0 <= length <= MESSAGE_BYTES:
            raise SourceError(self._path, f"a batch of {length} bytes, more than {MESSAGE_BYTES}.")
        return prefix, metadata, self._exactly(length)


def _told(metadata: bytes) -> tuple[int, bool]:
    """The length of a message's body, and whether that is compressed (Arrow's Message.fbs, by hand)."""
    message = cast("int", struct.unpack_from("<I", metadata)[0])
    at_length = _slot(metadata, message, _BODY_LENGTH)
    length = struct.unpack_from("<q", metadata, at_length)[0] if at_length else 0
    at_type, at_header = _slot(metadata, message, _TYPE), _slot(metadata, message, _HEADER)
    if not at_type or not at_header:
        return length, False
    header = at_header + struct.unpack_from("<I", metadata, at_header)[0]
    if metadata[at_type] == _DICTIONARY_BATCH:  # it holds a RecordBatch
        at_data = _slot(metadata, header, _DICTIONARY_DATA)
        if not at_data:
            return length, False
        header = at_data + struct.unpack_from("<I", metadata, at_data)[0]
    elif metadata[at_type] != _RECORD_BATCH:
        return length, False
    return length, bool(_slot(metadata, header, _COMPRESSION))


def _slot(metadata: bytes, table: int, slot: int) -> int:
    """Where a field of a flatbuffer's table is; 0 where it is not set. Raises struct.error outside the bytes."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    size = struct.unpack_from("<H", metadata, vtable)[0]
    offset = struct.unpack_from("<H", metadata, vtable + 4 + 2 * slot)[0] if 4 + 2 * slot < size else 0
    return table + offset if offset else 0
