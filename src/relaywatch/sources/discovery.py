"""From the paths a user gives to units that can be read: which format each file or folder is, by content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relaywatch.model.errors import SourceError
from relaywatch.model.tables import Batch
from relaywatch.sources.compression import open_content, read_head
from relaywatch.sources.reading import Reading
from relaywatch.sources.registry import FILE_READERS, FOLDER_READERS

DEEPEST: Final = 32
"""Folders within folders that are followed."""

_FILE_READERS: Final = {reader.name: reader for reader in FILE_READERS}
_FOLDER_READERS: Final = {reader.name: reader for reader in FOLDER_READERS}


@dataclass(frozen=True, slots=True)
class Unit:
    """One file, or one folder whose files belong together, and the reader that knows it.

    Can be sent to another process.     size_bytes: stored size of what the reader will read.
    """

    path: Path
    reader_name: str
    size_bytes: int

    def read(self, reading: Reading) -> Iterator[Batch]:
        """Canonical rows; of a damaged unit those before the damage, which then goes to quarantine."""
        try:
            if self.reader_name in _FOLDER_READERS:
                yield from _FOLDER_READERS[self.reader_name].read(self.path, reading)
            else:
                with open_content(self.path, reading.progress) as stream:
                    yield from _FILE_READERS[self.reader_name].read(self.path, stream, reading)
        except SourceError as damage:
            reading.tally.met(1)  # what the damage took counts as one record, the one put aside here
            reading.quarantine.add(damage.path, damage.position or "file", f"{damage.reason} {damage.remedy}".strip())


@dataclass(frozen=True, slots=True)
class Unrecognised:
    """A file within a given folder that is not read, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """What will be read, and what was found but will not be. Both in the order of the paths given, then by name."""

    units: tuple[Unit, ...]
    unrecognised: tuple[Unrecognised, ...]


def known_formats() -> list[str]:
    """Names of the formats that can be read, sorted."""
    return sorted({*_FILE_READERS, *_FOLDER_READERS})


def discover(paths: Sequence[Path]) -> Discovery:
    """The units under `paths`, each file in one unit only.

    Folders are walked in name order to a depth of DEEPEST; hidden files, symbolic links and
    special files in them are not read.
    Raises SourceError where a given path is missing, or a file given by itself is of no known format.
    """
    walk = _Walk()
    for path in paths:
        if path.is_dir():
            walk.folder(path, 0)
        else:
            walk.given_file(path)
    return Discovery(tuple(walk.units), tuple(walk.unrecognised))


class _Walk:
    """The units found so far."""

    __slots__ = ("_seen", "units", "unrecognised")

    def __init__(self) -> None:
        self.units: list[Unit] = []
        self.unrecognised: list[Unrecognised] = []
        self._seen: set[Path] = set()

    def given_file(self, path: Path) -> None:
        if not path.exists():
            raise SourceError(path, "does not exist.", remedy="Check the path.")
        if not self._first_time(path):
            return
        unit = _file_unit(path)
        if unit is None:
            raise SourceError(path, "is of no known format.", remedy=f"Known formats: {', '.join(known_formats())}.")
        self.units.append(unit)

    def folder(self, folder: Path, depth: int) -> None:
        if depth > DEEPEST:
            self.unrecognised.append(Unrecognised(folder, f"more than {DEEPEST} folders deep"))
            return
        try:
            entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            if depth == 0:
                raise SourceError(folder, f"cannot be listed: {error.strerror or error}.") from error
            self.unrecognised.append(Unrecognised(folder, f"cannot be listed: {error.strerror or error}"))
            return
        claimed = self._claimed(folder)
        for entry in entries:
            if entry.is_symlink():
                self.unrecognised.append(Unrecognised(entry, "a symbolic link, not followed"))
            elif entry.is_dir():
                self.folder(entry, depth + 1)
            elif not entry.is_file():
                self.unrecognised.append(Unrecognised(entry, "not a regular file"))
            elif entry not in claimed:
                self._file(entry)

    def _claimed(self, folder: Path) -> set[Path]:
        """The folder's files that formats of several files claim; links are nobody's."""
        claimed: set[Path] = set()
        for reader in FOLDER_READERS:
            members = frozenset(path for path in reader.members(folder) if not path.is_symlink()) - claimed
            fresh = [path for path in sorted(members) if self._first_time(path)]
            if fresh:
                self.units.append(Unit(folder, reader.name, sum(path.stat().st_size for path in fresh)))
            claimed |= members
        return claimed

    def _file(self, path: Path) -> None:
        if not self._first_time(path):
            return
        try:
            unit = _file_unit(path)
        except SourceError as error:
            self.unrecognised.append(Unrecognised(path, error.reason))
            return
        if unit is None:
            self.unrecognised.append(Unrecognised(path, "of no known format"))
        else:
            self.units.append(unit)

    def _first_time(self, path: Path) -> bool:
        """A file given twice, or by itself and in its folder, is read once."""
        real = path.resolve()
        if real in self._seen:
            return False
        self._seen.add(real)
        return True


def _file_unit(path: Path) -> Unit | None:
    head = read_head(path)
    for reader in FILE_READERS:
        if reader.fits(head):
            return Unit(path, reader.name, path.stat().st_size)
    if not head.content and path.stat().st_size:
        with open_content(path) as content:
            content.read(1)  # says what is damaged
    return None
