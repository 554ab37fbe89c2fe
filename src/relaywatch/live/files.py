"""Files and folders that grow, looked at again and again: new lines, new files, rotation, truncation.

A format whose lines stand by themselves is followed line by line; a file of any other format is read whole, once it has
not changed for a while. A file is known again by inode and content: one that is renamed is not read twice, one that is
truncated is read anew, and the copy that a rotation makes of it gives only the lines that were still to come.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from relaywatch.live.decoding import FOLLOWED, Decoded, recognised
from relaywatch.live.file_marks import START_BYTES, TAIL_BYTES, Place, key_of, mark_of, opened
from relaywatch.live.file_taking import WHOLE, FileTaker
from relaywatch.live.inbox import Inbox
from relaywatch.live.inputs import Tell, Threaded
from relaywatch.live.positions import Positions
from relaywatch.live.taking import LiveError
from relaywatch.model.errors import SourceError
from relaywatch.sources.compression import open_content, read_head
from relaywatch.sources.discovery import DEEPEST
from relaywatch.sources.reading import HEAD_BYTES
from relaywatch.sources.registry import FILE_READERS

HANDLES: Final = 256
"""Files held open, so that the rest of one that is renamed or removed can still be read."""
_PACKED: Final = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Looking:
    """How files are watched. poll_s: pause between looks; settle_s: unchanged for so long, a file is complete."""

    device: str = ""
    poll_s: float = 0.25
    settle_s: float = 5.0
    until_end: bool = False


@dataclass(slots=True)
class _Seen:
    """A file as it was at the last look.

    since: monotonic time since which size and time of change are as they are; idle: a look at it as it is gave nothing,
    and another would not.
    """

    path: Path
    size: int = -1
    changed_ns: int = -1
    since: float = 0.0
    handle: BinaryIO | None = None
    idle: bool = False

    def settled(self, looking: Looking) -> bool:
        """Unchanged for so long that the file is complete."""
        return time.monotonic() - self.since >= looking.settle_s


class Files(Threaded):
    """Some files and folders."""

    def __init__(self, paths: Sequence[Path], looking: Looking, tell: Tell) -> None:
        super().__init__()
        self._paths, self._looking, self._tell = [path.absolute() for path in paths], looking, tell
        self._seen: dict[str, _Seen] = {}
        self._taker: FileTaker

    def run(self, inbox: Inbox, positions: Positions) -> None:
        """Look, take what is new, pause; with until_end, until a look finds nothing new."""
        for path in self._paths:
            if path.exists():
                continue
            if self._looking.until_end:
                raise LiveError(f"{path}: does not exist. Check the path.")
            self._tell(f"{path}: does not exist yet; waiting for it")
        self.begin(inbox, positions)
        try:
            while not self._taker.over:
                if self.look(last=False):
                    continue
                if self._looking.until_end:
                    self.look(last=True)
                    return
                self.stopping.wait(self._looking.poll_s)
        finally:
            for seen in self._seen.values():
                _close(seen)

    def begin(self, inbox: Inbox, positions: Positions) -> None:
        """Go on after these positions."""
        self._taker = FileTaker(inbox, positions, self._looking.device, self.stopping.is_set)
        self._find_renamed()

    def _find_renamed(self) -> None:
        """Files that were followed by their path and have moved within their folder since: their rest is still due."""
        for given in (path.resolve() for path in self._paths if not path.is_dir()):
            for path in _below(given.parent, DEEPEST):
                found = opened(path) if path != given else None
                if found is None:
                    continue
                key = key_of(found[1])
                place = self._taker.places.get(key)
                if place is not None and place.path == str(given) and place.form in FOLLOWED:
                    self._seen[key] = _Seen(path, handle=found[0])
                else:
                    found[0].close()

    def look(self, *, last: bool) -> bool:
        """One look at everything; whether anything was taken. last: what is there is complete."""
        took, met = False, set()
        for path in self._candidates():
            if self._taker.over:
                return took
            found = opened(path)
            if found is None:
                continue
            file, status = found
            key = key_of(status)
            if not stat.S_ISREG(status.st_mode) or key in met:
                file.close()
                continue
            met.add(key)
            took |= self._file(key, path, file, status, last=last)
        for key in [key for key in self._seen if key not in met]:
            took |= self._gone(key, last=last)
        return took

    def _candidates(self) -> Iterator[Path]:
        for path in self._paths:
            if path.is_dir():
                yield from _below(path, 0)
            else:
                yield path.resolve()  # a given link is followed, those in folders are not

    def _file(self, key: str, path: Path, file: BinaryIO, status: os.stat_result, *, last: bool) -> bool:
        """Take what is new of one file. Takes the handle over."""
        seen = self._seen.setdefault(key, _Seen(path))
        if (seen.size, seen.changed_ns) != (status.st_size, status.st_mtime_ns):
            seen.size, seen.changed_ns, seen.since, seen.idle = (
                status.st_size,
                status.st_mtime_ns,
                time.monotonic(),
                False,
            )
        seen.path = path
        if seen.idle:
            file.close()
            return False
        _close(seen)
        seen.handle = file
        settled = last or seen.settled(self._looking)
        took = self._taken_of(key, seen, file, settled=settled, last=last)
        seen.idle = settled and not took
        self._bound_handles()
        return took

    def _bound_handles(self) -> None:
        held = [seen for seen in self._seen.values() if seen.handle is not None]
        if len(held) > HANDLES:
            _close(min(held, key=lambda seen: seen.since))

    def _taken_of(self, key: str, seen: _Seen, file: BinaryIO, *, settled: bool, last: bool) -> bool:
        place, took = self._taker.places.get(key), False
        if place is not None and place.form != WHOLE and not (place.offset <= seen.size and place.goes_on_in(file)):
            took, place = self._rest_of_copy(seen.path, place), None
        if place is None:
            place = self._begun(key, seen, file, settled=settled)
        if place is None:
            return took
        if place.form == WHOLE:
            return (self._whole(key, seen, place) if settled else False) or took
        return self._taker.lines(key, place, file, final=last) or took

    def _begun(self, key: str, seen: _Seen, file: BinaryIO, *, settled: bool) -> Place | None:
        """Where a new file begins; None: its format is not known yet, or it is a copy of one that is followed."""
        start = os.pread(file.fileno(), HEAD_BYTES, 0)
        if not start:
            return None
        text = start if settled or len(start) == HEAD_BYTES else start[: start.rfind(b"\n") + 1]
        form = None
        if not start.startswith(_PACKED):
            form = recognised(text.removeprefix(_BYTE_ORDER_MARK), str(seen.path))
        if form in FOLLOWED:
            if self._copied(key, seen, file, start[:START_BYTES], settled=settled):
                return None
            return self._taker.begin(key, seen.path, form, self._seen)
        if not settled:
            return None
        if not _known(seen.path):
            self._tell(f"{seen.path}: of no known format; not read.")
            return None
        return self._taker.begin(key, seen.path, WHOLE, self._seen)

    def _copied(self, key: str, seen: _Seen, file: BinaryIO, start: bytes, *, settled: bool) -> bool:
        """Whether this is a copy of a file that is followed, or may be one that is still being made."""
        for other, place in self._taker.places.items():
            if other == key or place.form not in FOLLOWED or not place.begins(start):
                continue
            if place.offset <= seen.size:
                if place.goes_on_in(file):
                    return True
            elif not settled or self._ends_alike(other, file, seen.size):
                return True
        return False

    def _ends_alike(self, other: str, file: BinaryIO, size: int) -> bool:
        """Whether the end of this file stands in a followed one at the same place: this is a copy of what that was."""
        followed = self._seen.get(other)
        if followed is None or followed.handle is None:
            return False
        at = max(size - TAIL_BYTES, 0)
        return mark_of(file, at, size - at) == mark_of(followed.handle, at, size - at)

    def _rest_of_copy(self, truncated: Path, place: Place) -> bool:
        """A file was truncated: the lines of it that were still to come may stand in a copy beside it."""
        for path in _below(truncated.parent, DEEPEST):
            found = opened(path) if path != truncated else None
            if found is None:
                continue
            with found[0] as file:
                key = key_of(found[1])
                new = stat.S_ISREG(found[1].st_mode) and key not in self._taker.places
                if new and found[1].st_size >= place.offset and place.goes_on_in(file):
                    return self._taker.lines(key, replace(place), file, final=True)
        return False

    def _gone(self, key: str, *, last: bool) -> bool:
        """A file that is no longer where it was: whoever writes it may go on for a while, by the name it has now."""
        seen, place = self._seen[key], self._taker.places.get(key)
        if seen.handle is None or place is None or place.form not in FOLLOWED:
            _close(seen)
            del self._seen[key]
            return False
        size = os.fstat(seen.handle.fileno()).st_size
        if size != seen.size:
            seen.size, seen.since = size, time.monotonic()
        over = last or seen.settled(self._looking)
        took = size >= place.offset and self._taker.lines(key, place, seen.handle, final=over)
        if over:
            _close(seen)
            del self._seen[key]
        return took

    def _whole(self, key: str, seen: _Seen, place: Place) -> bool:
        """Take a file that is complete, unless it is what rotation made of one that was followed."""
        if place.over:
            if (place.offset, place.lines) != (seen.size, seen.changed_ns):
                self._tell(f"{seen.path}: changed after it was read; it is not read again. Write a new file instead.")
            return False
        if self._packed_copy(key, seen.path, place):
            return True
        fault = self._taker.whole(key, place, seen.path)
        if fault:
            self._tell(fault)
        return True

    def _packed_copy(self, key: str, path: Path, place: Place) -> bool:
        """Whether the file is a packed copy of one that was followed; what it holds beyond what was taken is taken."""
        try:
            with open_content(path, json_as_lines=False) as content:
                start = content.read(START_BYTES)
            for other, followed in list(self._taker.places.items()):
                if followed.form not in FOLLOWED or not followed.begins(start):
                    continue
                with open_content(path, json_as_lines=False) as content:
                    if not followed.passed(content):
                        continue
                    if other not in self._seen:
                        self._taker.rest(other, followed, content)
                    self._taker.close(key, place, path, Decoded(()))
                    return True
        except SourceError:
            return False  # reading it whole tells the damage
        return False


def _close(seen: _Seen) -> None:
    if seen.handle is not None:
        seen.handle.close()
        seen.handle = None


def _known(path: Path) -> bool:
    """Whether the file is of a format that is read whole; a damaged one is, so that reading it says so."""
    try:
        head = read_head(path)
    except SourceError:
        return True
    return any(reader.fits(head) for reader in FILE_READERS) or not head.content


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Files of a folder and, to a depth of DEEPEST, of those in it; hidden ones and links are nobody's."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.is_symlink():
            continue
        if not entry.is_dir(follow_symlinks=False):
            yield Path(entry.path)
        elif depth < DEEPEST:
            yield from _below(Path(entry.path), depth + 1)
