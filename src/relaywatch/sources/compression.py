"""Opens a stored file as its content: plain, gzip or zstd by magic, streaming, so that memory stays bounded.

JSON that is not saved as JSON lines comes out as JSON lines (json_layout).
"""

from __future__ import annotations

import codecs
import io
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

import pyarrow as pa

from relaywatch.model.errors import SourceError
from relaywatch.sources.json_layout import PROBED_BYTES, as_lines
from relaywatch.sources.reading import HEAD_BYTES, Head

CHUNK_BYTES: Final = 1 << 18
FRAME_BYTES: Final = 1 << 14
"""Zstandard content asked for at a time: at most so much before a damaged place is lost with it."""
FREE_BYTES: Final = 1 << 28
LARGEST_RATIO: Final = 300
"""Content bytes per stored byte beyond the first FREE_BYTES: logs reach some dozens, a bomb a thousand."""

LONGEST_FIRST: Final = 1 << 24
"""A first line beyond this is no record of any format."""

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


def open_content(path: Path, progress: Callable[[int], None] | None = None, *, json_as_lines: bool = True) -> BinaryIO:
    """The file's content, decompressed, as a stream that cannot seek.

    json_as_lines: whether a JSON document is laid out as JSON lines; otherwise it comes as it is stored.
    progress: called with the number of stored bytes read since the last call.
    A damaged file gives every byte before the damage first; the next read raises SourceError with the position.
    Raises SourceError at once where the file is missing, unreadable, or not a regular file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SourceError(path, "not a regular file.", remedy="Give a file or a folder of files.")
        file = cast("BinaryIO", path.open("rb", buffering=0))
    except OSError as error:
        raise SourceError(path, f"cannot be opened: {error.strerror or error}.") from error
    return content_of(file, path, progress, json_as_lines=json_as_lines)


def content_of(
    file: BinaryIO, path: Path, progress: Callable[[int], None] | None = None, *, json_as_lines: bool = True
) -> BinaryIO:
    """The content of what is stored in `file`, as open_content has it; path: its name in messages."""
    stored = _Stored(file, path, progress)
    content = _Content(stored, _bounded(_pieces(stored), stored))
    start = content.begin(PROBED_BYTES)
    lines = as_lines(start, cast("BinaryIO", content), path) if json_as_lines else None
    return cast("BinaryIO", content if lines is None else _Content(stored, lines))


def read_head(path: Path, size: int = HEAD_BYTES) -> Head:
    """The first `size` bytes of the content, or its whole first line of JSON where that is longer.

    Fewer where the file ends or is damaged before.
    """
    with open_content(path) as content:
        held = b""
        try:
            held = content.read(size)
            while held[:1] == b"{" and b"\n" not in held and len(held) < LONGEST_FIRST:
                more = content.read(size)
                if not more:
                    break
                held += more
        except SourceError:
            pass
        return Head(path, held)


class _Stored(io.RawIOBase):
    """The bytes on disk, counted as they are read."""

    def __init__(self, file: BinaryIO, path: Path, progress: Callable[[int], None] | None) -> None:
        self.path = path
        self.consumed = 0
        self._file = file
        self._progress = progress

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._file.read(size)
        except OSError as error:
            raise SourceError(
                self.path, f"cannot be read: {error.strerror or error}.", position=f"byte {self.consumed}"
            ) from error
        self.consumed += len(data)
        if self._progress is not None and data:
            self._progress(len(data))
        return data

    def close(self) -> None:
        self._file.close()
        super().close()


class _Content(io.BufferedIOBase):
    """Content pieces as a stream; raises the damage only after all that came before it was read."""

    def __init__(self, stored: _Stored, pieces: Iterator[bytes]) -> None:
        self._stored = stored
        self._pieces = pieces
        self._piece = b""
        self._at = 0
        self._damage: SourceError | None = None

    def readable(self) -> bool:
        return True

    def begin(self, size: int) -> bytes:
        """The first bytes, which stay to be read; a byte order mark is dropped. Damage is told by the next read."""
        try:
            start = self.read(size)
        except SourceError:
            return b""
        self._piece, self._at = start.removeprefix(codecs.BOM_UTF8) + self._piece[self._at :], 0
        return self._piece[:size]

    def read(self, size: int | None = -1) -> bytes:
        wanted = -1 if size is None else size
        taken: list[bytes] = []
        have = 0
        while wanted < 0 or have < wanted:
            if self._at >= len(self._piece) and not self._advance():
                break
            part = self._piece[self._at : len(self._piece) if wanted < 0 else self._at + wanted - have]
            self._at += len(part)
            have += len(part)
            taken.append(part)
        if not have and wanted and self._damage is not None:
            raise self._damage
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def read1(self, size: int = -1) -> bytes:
        return self.read(CHUNK_BYTES if size < 0 else size)

    def peek(self, _size: int = 0) -> bytes:
        """What is at hand without reading on; lets readline work by pieces."""
        if self._at >= len(self._piece):
            self._advance()
        return self._piece[self._at :]

    def _advance(self) -> bool:
        if self._damage is not None:
            return False
        try:
            self._piece, self._at = next(self._pieces, b""), 0
        except SourceError as damage:
            self._damage, self._piece, self._at = damage, b"", 0
        return bool(self._piece)

    def close(self) -> None:
        self._stored.close()
        super().close()


def _pieces(stored: _Stored) -> Iterator[bytes]:
    start = stored.read(CHUNK_BYTES)
    if start.startswith(_GZIP):
        yield from _gunzip(start, stored)
    elif start.startswith(_ZSTD):
        yield from _unzstd(start, stored)
    else:
        yield start
        while data := stored.read(CHUNK_BYTES):
            yield data


def _bounded(pieces: Iterator[bytes], stored: _Stored) -> Iterator[bytes]:
    made = 0
    for piece in pieces:
        made += len(piece)
        if made > FREE_BYTES and made > LARGEST_RATIO * stored.consumed:
            raise SourceError(
                stored.path,
                f"expands to more than {LARGEST_RATIO} times its stored size, as a decompression bomb does.",
                position=f"stored byte {stored.consumed}",
                remedy="Decompress it yourself if it is genuine.",
            )
        yield piece


def _damaged(stored: _Stored, made: int, reason: str) -> SourceError:
    return SourceError(
        stored.path, f"{reason}.", position=f"byte {made} of the decompressed content", remedy="Copy the file again."
    )


def _gunzip(start: bytes, stored: _Stored) -> Iterator[bytes]:
    """RFC 1952, any number of members; zero padding after a member is allowed, as gzip does."""
    member = zlib.decompressobj(wbits=31)
    data, made = start, 0
    while True:
        try:
            piece = member.decompress(data, CHUNK_BYTES)
        except zlib.error as error:
            raise _damaged(stored, made, f"damaged gzip data ({error})") from error
        made += len(piece)
        if piece:
            yield piece
        if member.eof:
            data = member.unused_data.lstrip(b"\0")
            while not data:
                if not (more := stored.read(CHUNK_BYTES)):
                    return
                data = more.lstrip(b"\0")
            member = zlib.decompressobj(wbits=31)
            continue
        data = member.unconsumed_tail or stored.read(CHUNK_BYTES)
        if not data and not piece:
            raise _damaged(stored, made, "the gzip data ends too early")


class _Rejoined(io.RawIOBase):
    """The start that was already read, then the rest."""

    def __init__(self, start: bytes, rest: _Stored) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._start:
            part = self._start[:size] if size >= 0 else self._start
            self._start = self._start[len(part) :]
            return part
        return self._rest.read(size)


def _unzstd(start: bytes, stored: _Stored) -> Iterator[bytes]:
    made = 0
    try:
        stream = pa.CompressedInputStream(pa.PythonFile(_Rejoined(start, stored), mode="r"), "zstd")
        while piece := stream.read(FRAME_BYTES):
            made += len(piece)
            yield piece
    except (OSError, pa.ArrowException) as error:
        raise _damaged(stored, made, f"damaged Zstandard data ({error})") from error
