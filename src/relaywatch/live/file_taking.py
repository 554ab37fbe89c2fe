"""What is taken of one file: its new lines by pieces, or all of it; handed over with the place after it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from relaywatch.live.decoding import FOLLOWED, Decoded, HeadLines, decoded_lines, head_lines
from relaywatch.live.file_marks import Place
from relaywatch.live.inbox import Inbox
from relaywatch.live.positions import MOST, Positions
from relaywatch.live.taking import LiveError, Position, Taken
from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine, Quarantined
from relaywatch.model.tables import Batch
from relaywatch.sources.discovery import discover
from relaywatch.sources.lines import LINE_BYTES
from relaywatch.sources.reading import Reading

PIECE_BYTES: Final = 8 << 20
WHOLE_BYTES: Final = 32 << 20
"""Rows of a file that is read whole, in one entry of the spool."""
WHOLE: Final = "whole"
"""In a Place's form: the file is of a format that is read whole."""
_FILE, _NAME = "file", "file-name"


class FileTaker:
    """The places of all files, and the way from a file to the inbox."""

    def __init__(self, inbox: Inbox, positions: Positions, device: str, stopping: Callable[[], bool]) -> None:
        self._inbox, self._device, self._stopping = inbox, device, stopping
        self.places = {key: Place.of(position) for key, position in positions.of(_FILE)}
        self._names = Counter({name: position["files"] for name, position in positions.of(_NAME)})
        self._refused = False
        self._forgotten: dict[str, Position | None] = {}

    @property
    def over(self) -> bool:
        """The engine takes no more, or the input is to stop."""
        return self._refused or self._stopping()

    def begin(self, key: str, path: Path, form: str, present: Collection[str]) -> Place:
        """A new place for a file. The second one at a path is named with #2: its lines have numbers of their own.

        present: the files that are there, of which none may be forgotten. Raises LiveError where they are too many.
        """
        if len(self.places) >= MOST and key not in self.places:
            gone = next((old for old in self.places if old not in present), None)
            if gone is None:
                raise LiveError(f"{path}: more than {MOST} files to remember. Move files away that were read.")
            del self.places[gone]
            self._forgotten[f"{_FILE}:{gone}"] = None
        self._names[str(path)] += 1
        number = self._names[str(path)]
        place = self.places[key] = Place(str(path), str(path) if number == 1 else f"{path}#{number}", form)
        return place

    def lines(self, key: str, place: Place, file: BinaryIO, *, final: bool) -> bool:
        """Take the whole lines after the place; whether there were any. final: the last line is whole as it stands."""
        took = False
        self.places[key] = place
        while not self.over:
            data = os.pread(file.fileno(), PIECE_BYTES, place.offset)
            ended = len(data) < PIECE_BYTES
            if not ended and b"\n" not in data:
                data = os.pread(file.fileno(), LINE_BYTES + 1, place.offset)
                ended = len(data) <= LINE_BYTES
            lines = data if final and ended else data[: data.rfind(b"\n") + 1]
            if not lines and ended:
                break
            if lines:
                found = self._decoded(place, lines)
            else:
                lines, found = data, self._part_of_long_line(place)
            place.offset += len(lines)
            place.mark(file)
            self._hand(key, place, found, place.form)
            took = True
        return took

    def rest(self, key: str, place: Place, content: BinaryIO) -> None:
        """Take what comes after the place in the content of a packed file, which stands there."""
        held = b""
        while not self.over and (data := content.read(PIECE_BYTES)):
            held += data
            cut = held.rfind(b"\n") + 1
            if cut:
                self._hand(key, place, self._decoded(place, held[:cut]), place.form)
                held = held[cut:]
            elif len(held) > LINE_BYTES:
                held, found = b"", self._part_of_long_line(place)
                self._hand(key, place, found, place.form)
        if held:
            self._hand(key, place, self._decoded(place, held), place.form)

    def whole(self, key: str, place: Place, path: Path) -> str:
        """Take a file that is complete, after the batches taken of it before; what hinders it, if anything."""
        reading, held, fault, form = Reading(Quarantine(), self._device), list[Batch](), "", ""
        try:
            (unit,) = discover([path]).units
            form = unit.reader_name
            for number, batch in enumerate(unit.read(reading), 1):
                if number <= place.whole:
                    continue
                held.append(batch)
                if sum(one.rows.nbytes for one in held) >= WHOLE_BYTES:
                    place.whole = number
                    self._hand(key, place, Decoded(held), form)
                    held = []
                if self.over:
                    return ""
        except SourceError as error:
            fault = str(error)
            reading.quarantine.add(str(path), "file", error.reason)
        self.close(key, place, path, Decoded(held, reading.quarantine.records, reading.quarantine.total), form)
        return fault

    def close(self, key: str, place: Place, path: Path, found: Decoded, form: str = "") -> None:
        """Nothing more is to be taken of a file that is read whole."""
        status = path.stat()
        place.over, place.offset, place.lines = True, status.st_size, status.st_mtime_ns
        self._hand(key, place, found, form)

    def _decoded(self, place: Place, lines: bytes) -> Decoded:
        """The rows of the lines that follow the place, which moves its lines and head on."""
        at_start, first = place.lines == 0, place.lines + 1
        place.lines += lines.count(b"\n") + (not lines.endswith(b"\n"))
        if place.skipping:
            place.skipping, lines, first = False, lines.partition(b"\n")[2], first + 1
        if at_start:
            lines = lines.removeprefix(b"\xef\xbb\xbf")
        before = place.head
        place.head, body = head_lines(place.form, before, lines, at_start=at_start)
        if FOLLOWED[place.form] is HeadLines.FIRST:
            before, first = place.head, first + at_start
        return decoded_lines(place.form, place.source, body, first, self._device, before)

    def _part_of_long_line(self, place: Place) -> Decoded:
        """A part of a line too long to be a record, which is put aside once."""
        aside: Sequence[Quarantined] = ()
        if not place.skipping:
            reason = f"longer than {LINE_BYTES} bytes"
            aside = [Quarantined(place.source, f"line {place.lines + 1}", reason)]
        place.skipping = True
        return Decoded((), aside, len(aside))

    def _hand(self, key: str, place: Place, found: Decoded, form: str) -> None:
        moved: dict[str, Position | None] = {
            **self._forgotten,
            f"{_FILE}:{key}": place.told(),
            f"{_NAME}:{place.path}": {"files": self._names[place.path]},
        }
        self._forgotten = {}
        if not self._inbox.put(Taken(found.batches, moved, found.aside, found.aside_total, form)):
            self._refused = True
