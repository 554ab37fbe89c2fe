"""How a file is known again: by device and inode, and by what it holds, as inodes come back and files are copied."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from relaywatch.live.taking import Position

START_BYTES: Final = 1024
TAIL_BYTES: Final = 256


@dataclass(slots=True)
class Place:
    """How far one file was taken.

    path: where it was first; source: its name in rows; form: its format, or that it is read whole; offset: bytes taken;
    lines: lines taken; head: the lines that say what later ones mean; start and tail: length and CRC-32 of the first
    bytes and of those before offset; whole: of a file that is read whole, batches taken; over: it was read whole (then
    offset and lines are its size and time of change); skipping: within a line too long to be a record.
    """

    path: str
    source: str
    form: str
    offset: int = 0
    lines: int = 0
    head: bytes = b""
    start: tuple[int, int] = (0, 0)
    tail: tuple[int, int] = (0, 0)
    whole: int = 0
    over: bool = False
    skipping: bool = False

    def told(self) -> Position:
        """The place as JSON values."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "head": self.head.decode("latin-1"),
            "start": list(self.start),
            "tail": list(self.tail),
        }

    @staticmethod
    def of(position: Position) -> Place:
        """The place that told() told."""
        values: dict[str, Any] = dict(position)
        values["head"] = values["head"].encode("latin-1")
        values["start"], values["tail"] = tuple(values["start"]), tuple(values["tail"])
        return Place(**values)

    def mark(self, file: BinaryIO) -> None:
        """Remember what stands at the start and before the offset."""
        self.start = mark_of(file, 0, min(START_BYTES, self.offset))
        size = min(TAIL_BYTES, self.offset)
        self.tail = mark_of(file, self.offset - size, size)

    def begins(self, start: bytes) -> bool:
        """Whether a file with this start, of START_BYTES where it has so many, may hold what was taken."""
        return 0 < self.start[0] <= len(start) and zlib.crc32(start[: self.start[0]]) == self.start[1]

    def passed(self, content: BinaryIO) -> bool:
        """Whether a stream holds, up to the offset, what was taken; it stands there then."""
        size = self.offset - self.tail[0]
        while size > 0 and (data := content.read(min(size, 1 << 20))):
            size -= len(data)
        last = content.read(self.tail[0]) if size == 0 else b""
        return (len(last), zlib.crc32(last)) == self.tail

    def goes_on_in(self, file: BinaryIO) -> bool:
        """Whether the file holds, up to the offset, what was taken."""
        return mark_of(file, 0, self.start[0]) == self.start and (
            mark_of(file, self.offset - self.tail[0], self.tail[0]) == self.tail
        )


def mark_of(file: BinaryIO, at: int, size: int) -> tuple[int, int]:
    """Length and CRC-32 of so many bytes of a file."""
    data = os.pread(file.fileno(), size, at)
    return len(data), zlib.crc32(data)


def key_of(status: os.stat_result) -> str:
    """What a file is called among the positions."""
    return f"{status.st_dev}-{status.st_ino}"


def opened(path: Path) -> tuple[BinaryIO, os.stat_result] | None:
    """The file, not followed through a link; None where it cannot be read now."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    file = os.fdopen(handle, "rb", buffering=0)
    return file, os.fstat(handle)
