"""The spool: what was taken, on disk before it is acknowledged, so that a crash loses nothing and doubles nothing.

Segments are files of entries, named by the number of their first entry. An entry is a header (magic, CRC-32, length,
number, number of the last entry that was known to be on disk) and a payload of taking.encode. After a crash the end of
the last segment may be torn: it is cut, as nothing of it was acknowledged. Damage before an entry that was on disk is
told, never skipped.
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from relaywatch.live.durable import sync_folder, write_all
from relaywatch.live.taking import LiveError, Taken, decode, encode

MAGIC: Final = b"RwE\x01"
_HEADER: Final = struct.Struct("<4sIIQQ")
_SUMMED: Final = struct.Struct("<IQQ")
SEGMENT_BYTES: Final = 64 << 20
ENTRY_BYTES: Final = 1 << 30
_SUFFIX: Final = ".spool"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it stands in a segment."""

    number: int
    committed: int
    payload: bytes
    end: int


class Spool:
    """A folder of segments. Append, commit, then acknowledge; entries count from 1."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        folder.mkdir(exist_ok=True, mode=0o700)
        self._folder, self._segment_bytes = folder, segment_bytes
        self._handle = -1
        self._written = 0
        self.last = 0
        self._committed = 0
        self.appended_bytes = self.size_bytes
        """Bytes that were there, and all that were appended."""

    def recover(self, after: int) -> Iterator[tuple[int, Taken]]:
        """The entries after that number with theirs; a torn end is cut. To be exhausted before anything is appended.

        Raises LiveError, naming file and offset, where an entry that was on disk is damaged or missing.
        """
        segments = self._segments()
        wanted = [s for i, s in enumerate(segments) if i + 1 == len(segments) or _first(segments[i + 1]) > after + 1]
        self.last = number = after
        if wanted and _first(wanted[0]) > after + 1:
            raise LiveError(f"{wanted[0]}: entries {after + 1} to {_first(wanted[0]) - 1} before it are missing.")
        for path in wanted:
            number = _first(path) - 1
            if number > self.last:
                raise LiveError(f"{path}: entries {self.last + 1} to {number} before it are missing.")
            for entry in self._entries(path, torn_may_be=path == wanted[-1]):
                number = entry.number
                if number > after:
                    yield number, _decoded(entry, path)
            self.last = max(number, after)
        self._committed = self.last
        goes_on = wanted and number == self.last
        self._open(wanted[-1] if goes_on else self._folder / f"{self.last + 1:020d}{_SUFFIX}")

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{_SUFFIX}"))

    def _open(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._written = os.fstat(self._handle).st_size
        sync_folder(self._folder)

    def _entries(self, path: Path, *, torn_may_be: bool) -> Iterator[Entry]:
        number, at = _first(path), 0
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while at < size:
                file.seek(at)
                entry = _entry(file.read(_HEADER.size), file.read, at)
                if entry is None or entry.number != number:
                    file.seek(at)
                    if not torn_may_be or _known_later(file.read(), number):
                        raise LiveError(
                            f"{path}, byte {at}: entry {number} of the spool is damaged. Restore the file, or begin "
                            "again with an empty state folder."
                        )
                    break
                yield entry
                number, at = number + 1, entry.end
        if at < size:
            os.truncate(path, at)

    def append(self, taken: Taken) -> int:
        """Write one piece; its number. It is on disk only after commit()."""
        if self._written >= self._segment_bytes:
            self.commit()
            os.close(self._handle)
            self._open(self._folder / f"{self.last + 1:020d}{_SUFFIX}")
        payload = encode(taken)
        number = self.last + 1
        summed = _SUMMED.pack(len(payload), number, self._committed)
        crc = zlib.crc32(payload, zlib.crc32(summed))
        write_all(self._handle, _HEADER.pack(MAGIC, crc, len(payload), number, self._committed) + payload)
        self._written += _HEADER.size + len(payload)
        self.appended_bytes += _HEADER.size + len(payload)
        self.last = number
        return number

    def commit(self) -> None:
        """All that was appended is on disk once this returns."""
        if self._committed != self.last:
            os.fdatasync(self._handle)
            self._committed = self.last

    def forget(self, number: int) -> None:
        """Entries up to this number are no longer needed; segments that hold no others are removed."""
        segments = self._segments()
        for path, following in itertools.pairwise(segments):
            if _first(following) <= number + 1:
                path.unlink()

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(path.stat().st_size for path in self._segments())

    def close(self) -> None:
        """Nothing more is appended."""
        if self._handle >= 0:
            self.commit()
            os.close(self._handle)
            self._handle = -1


def _first(path: Path) -> int:
    try:
        return int(path.name.removesuffix(_SUFFIX))
    except ValueError:
        raise LiveError(f"{path}: not a segment of the spool. Take it away.") from None


def _entry(header: bytes, rest: Callable[[int], bytes], at: int) -> Entry | None:
    """The entry whose header this is; None where it is damaged or not whole."""
    if len(header) < _HEADER.size:
        return None
    magic, crc, length, number, committed = _HEADER.unpack(header)
    if magic != MAGIC or length > ENTRY_BYTES:
        return None
    payload = rest(length)
    if len(payload) < length or zlib.crc32(payload, zlib.crc32(header[8:])) != crc:
        return None
    return Entry(number, committed, payload, at + _HEADER.size + length)


def _known_later(rest: bytes, number: int) -> bool:
    """Whether a whole entry in these bytes says that this one was on disk."""
    at = rest.find(MAGIC)
    while at >= 0:
        begin = at + _HEADER.size
        entry = _entry(rest[at:begin], lambda length: rest[begin : begin + length], at)  # noqa: B023
        if entry is not None and entry.committed >= number:
            return True
        at = rest.find(MAGIC, at + 1)
    return False


def _decoded(entry: Entry, path: Path) -> Taken:
    try:
        return decode(entry.payload)
    except (ValueError, KeyError, TypeError, struct.error, pa.ArrowException) as fault:
        raise LiveError(
            f"{path}, byte {entry.end - len(entry.payload)}: entry {entry.number} of the spool cannot be read "
            f"({type(fault).__name__}). Was it written by a newer relaywatch?"
        ) from fault
