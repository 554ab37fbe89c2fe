"""Android dumps in every wrapping: bug report, AndroidQF acquisition (zip or folder), or files of adb output.

What one file says (the zone, the time, which package has which uid) holds for all files of a dump, so they are read
twice: once for that, once for the rows. An archive's members are bounded in number, size and ratio, and their names are
only ever labels.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Final, cast

import polars as pl

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import IdentifierKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.android_parsers import PARSERS
from relaywatch.sources.android_section import DumpContext
from relaywatch.sources.android_sections import ContextScan, is_dump, sections
from relaywatch.sources.androidqf import AndroidQfPackages
from relaywatch.sources.compression import content_of, open_content
from relaywatch.sources.intrusion_logs import IntrusionLogs
from relaywatch.sources.lines import shown
from relaywatch.sources.netstats_binary import FILE_NAME, NetstatsBinary
from relaywatch.sources.reading import HEAD_BYTES, FileReader, Head, Reading
from relaywatch.sources.section_lines import Lines, read_columns

MOST_MEMBERS: Final = 20_000
MEMBER_BYTES: Final = 2 << 30
INNER_ZIP_BYTES: Final = 1 << 30
DEEPEST_ZIP: Final = 1
"""Archives within archives that are opened: an AndroidQF acquisition holds its bug report as one."""
PIECE_BYTES: Final = 65_536
_MEMBER_READERS: Final[tuple[FileReader, ...]] = (IntrusionLogs(), AndroidQfPackages(), NetstatsBinary())
"""Other formats within an acquisition."""


@dataclass(frozen=True, slots=True)
class _File:
    """One text file of a dump. label: path, and member of an archive after "!"."""

    label: str
    path: Path
    members: tuple[str, ...] = ()

    def open(self, stack: ExitStack) -> BinaryIO:
        """The content, decompressed, JSON as lines."""
        if not self.members:
            return stack.enter_context(open_content(self.path))
        holder: Path | BinaryIO = self.path
        for member in self.members[:-1]:
            outer = stack.enter_context(zipfile.ZipFile(holder))
            holder = io.BytesIO(outer.open(member).read(INNER_ZIP_BYTES))
        archive = stack.enter_context(zipfile.ZipFile(holder))
        raw = stack.enter_context(archive.open(self.members[-1]))
        return content_of(cast("BinaryIO", raw), Path(self.label))

    def head(self) -> Head:
        """The first bytes. Raises SourceError where they cannot be had."""
        with ExitStack() as stack:
            try:
                return Head(Path(self.label), self.open(stack).read(HEAD_BYTES))
            except _DAMAGE as error:
                raise _damaged(self.label, error) from error

    def columns(self, reading: Reading) -> Iterator[pl.Series]:
        """Lines as section_lines.read_columns gives them. Raises SourceError at damage, after what is before it."""
        with ExitStack() as stack:
            try:
                content = self.open(stack)
            except _DAMAGE as error:
                raise _damaged(self.label, error) from error
            steady = cast("BinaryIO", _Steady(content, self.label))
            yield from read_columns(steady, Path(self.label), reading)


class _Steady:
    """Reads on in small pieces, so that what is before a damage is had; then raises SourceError."""

    def __init__(self, stream: BinaryIO, label: str) -> None:
        self._stream = stream
        self._label = label
        self._damage: SourceError | None = None

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; empty at the end."""
        taken, have = [], 0
        while have < size and self._damage is None:
            try:
                piece = self._stream.read(min(size - have, PIECE_BYTES))
            except SourceError as damage:
                self._damage = damage
                break
            except _DAMAGE as error:
                self._damage = _damaged(self._label, error)
                break
            if not piece:
                break
            taken.append(piece)
            have += len(piece)
        if self._damage is not None and not taken:
            raise self._damage
        return b"".join(taken)


_DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    IndexError,
    RuntimeError,
    NotImplementedError,
    ValueError,
)
"""What zipfile raises of damaged, encrypted or unknown members."""


def _damaged(label: str, error: Exception) -> SourceError:
    return SourceError(label, f"damaged archive ({shown(error)}).", remedy="Collect it again.")


class AndroidZip:
    """A bug report's or an acquisition's zip. Zip ends with its index, so the file itself is opened."""

    name: ClassVar[str] = "android-zip"

    @staticmethod
    def fits(head: Head) -> bool:
        """A zip; whether it is an Android dump is known once it is listed."""
        return head.content.startswith(b"PK\x03\x04")

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Rows of every dump text in the archive, and of the other formats that an acquisition holds."""
        files = _members(path, (), path, reading, 0)
        reading.progress(path.stat().st_size)
        yield from _dump(files, path.name.partition(".")[0], str(path), reading)


class AndroidText:
    """One text file: a bug report's, dumpsys' or one command's output."""

    name: ClassVar[str] = "android-text"

    @staticmethod
    def fits(head: Head) -> bool:
        """A heading of a dump, or the first lines of a command that is known."""
        return b"\x00" not in head.content[:512] and is_dump(head.content.decode("utf-8", "replace"))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Rows of the sections that are known."""
        reading.progress(path.stat().st_size)
        yield from _dump([_File(str(path), path)], path.name.partition(".")[0], str(path), reading)


class AndroidFolder:
    """A folder with files of one dump: getprop.txt beside dumpsys.txt, socket tables and the like."""

    name: ClassVar[str] = "android-folder"

    @staticmethod
    def members(folder: Path) -> frozenset[Path]:
        """The dump texts and other formats of a folder and those in it, if getprop says which phone."""
        found = dict(_heads(folder))
        texts = {path for path, head in found.items() if AndroidText.fits(head)}
        if not any(found[path].content.lstrip().startswith(b"[") for path in texts):
            return frozenset()
        others = {path for path, head in found.items() if any(reader.fits(head) for reader in _MEMBER_READERS)}
        return frozenset(texts | others) if len(texts | others) > 1 else frozenset()

    def read(self, folder: Path, reading: Reading) -> Iterator[Batch]:
        """Rows of all files, with the zone, the time and the packages that any of them states."""
        files = [_File(str(path), path) for path in sorted(self.members(folder))]
        reading.progress(sum(file.path.stat().st_size for file in files))
        yield from _dump(files, folder.name, str(folder), reading)


def _plain_files(folder: Path) -> list[Path]:
    """A dump's files, as it seems, in the folder and the folders in it; none where no own one may be getprop's."""
    own = _listed(folder)
    if not any(path.name.startswith("getprop") for path in own):
        return []
    inner = [
        path
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.is_symlink()
        for path in _listed(entry)
    ]
    return [*own, *inner][:MOST_MEMBERS]


def _heads(folder: Path) -> Iterator[tuple[Path, Head]]:
    """The files that may be a dump's, with their first bytes; damaged ones are left to be told elsewhere."""
    for path in _plain_files(folder):
        try:
            yield path, _File(str(path), path).head()
        except SourceError:
            continue


def _listed(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    kept = [path for path in entries if not path.name.startswith(".") and not path.is_symlink() and path.is_file()]
    texts = {".txt", ".json", ".log", ""}
    return [path for path in kept if path.suffix.lower() in texts or FILE_NAME.fullmatch(path.name)]


def _members(holder: Path | BinaryIO, outer: tuple[str, ...], path: Path, reading: Reading, depth: int) -> list[_File]:
    """The archive's members within bounds; others go to quarantine. Raises SourceError where it cannot be listed."""
    label = "!".join([str(path), *outer])
    try:
        with zipfile.ZipFile(holder) as archive:
            found = []
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            for entry in entries[:MOST_MEMBERS]:
                place = f"{label}!{entry.filename}"
                if entry.file_size > MEMBER_BYTES:
                    reading.tally.met(1)
                    reading.quarantine.add(place, "file", f"larger than {MEMBER_BYTES} bytes")
                elif not entry.filename.lower().endswith(".zip"):
                    found.append(_File(place, path, (*outer, entry.filename)))
                elif depth < DEEPEST_ZIP:
                    inner = io.BytesIO(archive.open(entry).read(INNER_ZIP_BYTES))
                    found += _members(inner, (*outer, entry.filename), path, reading, depth + 1)
                else:
                    reading.tally.met(1)
                    reading.quarantine.add(place, "file", "an archive within an archive within an archive")
            if len(entries) > MOST_MEMBERS:
                reading.tally.met(1)
                reading.quarantine.add(label, "file", f"members beyond the first {MOST_MEMBERS} are not read")
            return found
    except _DAMAGE as error:
        raise _damaged(label, error) from error


def _dump(files: Sequence[_File], name: str, place: str, reading: Reading) -> Iterator[Batch]:
    """Rows of one dump's files."""
    texts, others = [], []
    for file in files:
        try:
            head = file.head()
        except SourceError as damage:
            reading.tally.met(1)
            reading.quarantine.add(file.label, damage.position or "file", damage.reason)
            continue
        if AndroidText.fits(head):
            texts.append(file)
        else:
            others.append((file, next((r for r in _MEMBER_READERS if r.fits(head)), None)))
    scan = ContextScan()
    for file in texts:
        try:
            scan.read(file.columns(Reading(Quarantine())))
        except SourceError:
            continue  # told when its rows are read
    context = scan.context(reading.device, name)
    yield from _named(scan, context, place, reading)
    for file in texts:
        yield from _sections(file, context, reading)
    for file, reader in others:
        yield from _other(file, reader, context, reading)


def _named(scan: ContextScan, context: DumpContext, place: str, reading: Reading) -> Iterator[Batch]:
    """The device's serial number."""
    if scan.serial:
        reading.tally.met(1)
        columns = {"device_uid": context.device, "identifier_kind": str(IdentifierKind.SERIAL), "position": 1}
        columns |= {"identifier": scan.serial, "source": place, "clock": "device"}
        found = [batch("inventory", columns, length=1)]
        reading.tally.gave(found)
        yield from found


def _sections(file: _File, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Rows of one text file; damage costs what comes after it."""
    try:
        for section in sections(Lines(file.columns(reading)), file.label):
            parser = PARSERS.get(section.name)
            if parser is not None:
                yield from parser(section, context, reading)
            elif section.name != "getprop":
                reading.tally.met(1)
                reading.tally.left("a section that is not read", 1)
    except SourceError as damage:
        reading.tally.met(1)
        reading.quarantine.add(file.label, damage.position or "file", damage.reason)


def _other(file: _File, reader: FileReader | None, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Rows of a member in another format; one of no known format is left."""
    if reader is None:
        reading.tally.met(1)
        reading.tally.left("a file that is not read", 1)
        return
    inner = Reading(reading.quarantine, context.device, reading.progress, reading.tally)
    with ExitStack() as stack:
        try:
            yield from reader.read(Path(file.label), file.open(stack), inner)
        except SourceError as damage:
            reading.tally.met(1)
            reading.quarantine.add(file.label, damage.position or "file", damage.reason)
        except _DAMAGE as damage:
            reading.tally.met(1)
            reading.quarantine.add(file.label, "file", f"damaged archive ({shown(damage)})")
