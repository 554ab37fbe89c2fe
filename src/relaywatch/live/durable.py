"""Files that must survive a crash: written whole, appended by the line, and one watcher to a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from relaywatch.live.taking import LiveError

_PIECE: Final = 1 << 16


def sync_folder(folder: Path) -> None:
    """The folder's entries are on disk once this returns."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """All files and folders below, and the folder itself, are on disk once this returns."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
            continue
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    sync_folder(folder)


def write_all(handle: int, data: bytes) -> None:
    """All of the data at the handle's place; a short write is written on."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def cut_torn_line(path: Path) -> None:
    """Take off what stands after the file's last line end: a line that was being written at a crash."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        at = size
        while at:
            start = max(at - _PIECE, 0)
            file.seek(start)
            end = file.read(at - start).rfind(b"\n")
            if end >= 0:
                at = start + end + 1
                break
            at = start
        if at != size:
            file.truncate(at)
            os.fsync(file.fileno())


class Lines:
    """A file of lines that only grows. A torn last line is cut when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            cut_torn_line(path)
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.size = os.fstat(self._handle).st_size

    def append(self, lines: str) -> None:
        """Whole lines, on disk once this returns."""
        data = lines.encode()
        write_all(self._handle, data)
        os.fdatasync(self._handle)
        self.size += len(data)

    def close(self) -> None:
        """No more lines come."""
        os.close(self._handle)


@contextmanager
def held_alone(folder: Path) -> Iterator[None]:
    """The folder, made where it is missing, is this process's as long as the context lasts.

    Raises LiveError where another watcher has it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(folder.iterdir()) and not (folder / "lock").exists():
            raise LiveError(f"{folder}: holds other files. Give a watcher a folder of its own.")
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as fault:
        raise LiveError(f"{folder}: cannot be used as state folder: {fault.strerror}. Choose another.") from fault
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(handle)
        raise LiveError(
            f"{folder}: another watcher (process {other}) uses this state folder. Stop it, or give each its own."
        ) from None
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
