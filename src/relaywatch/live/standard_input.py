"""Standard input: lines of any followed format, or an Arrow stream of a canonical table, for as long as it is open.

What was taken is in the spool; what was still in the pipe when the watcher stopped is the sender's to send again.
"""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import BinaryIO, Final, cast

from relaywatch.live.decoding import FOLLOWED, READERS, HeadLines, decoded_lines, head_lines, recognised
from relaywatch.live.inbox import Inbox
from relaywatch.live.inputs import Threaded
from relaywatch.live.positions import Positions
from relaywatch.live.taking import LiveError, Taken
from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.lines import LINE_BYTES
from relaywatch.sources.reading import HEAD_BYTES, Reading

READ_BYTES: Final = 1 << 20
_LOOK_S: Final = 0.25
_ARROW: Final = "canonical-arrow"
_KEY: Final = "stdin:"


class StandardInput(Threaded):
    """One pipe. handle: its file descriptor."""

    def __init__(self, device: str, handle: int = 0) -> None:
        super().__init__()
        self._device, self._handle = device, handle

    def run(self, inbox: Inbox, positions: Positions) -> None:
        """Take until the pipe is closed."""
        runs = next((position["runs"] for _, position in positions.of("stdin")), 0) + 1
        self._position = {_KEY: {"runs": runs}}
        source = "stdin" if runs == 1 else f"stdin#{runs}"
        start, form = self._recognise(source)
        if form == _ARROW:
            self._batches(inbox, source, start)
        elif form:
            self._lines(inbox, source, form, start)

    def _recognise(self, source: str) -> tuple[bytes, str]:
        """The first bytes, and the format that they tell; no format where nothing came."""
        held = b""
        while data := self.read(READ_BYTES):
            held += data
            form = recognised(held if held.startswith(b"\xff") else held[: held.rfind(b"\n") + 1], source)
            if form == _ARROW or form in FOLLOWED:
                return held, form
            if len(held) >= HEAD_BYTES:
                break
        if self.stopping.is_set() or not held:
            return b"", ""
        form = recognised(held, source)
        if form in FOLLOWED:
            return held, form
        raise LiveError(
            f"standard input: {form or 'no known format'} cannot be read from a pipe. "
            f"Formats that can: {_ARROW}, {', '.join(FOLLOWED)}."
        )

    def read(self, size: int) -> bytes:
        """Some bytes; none at the end, and when the input is to stop."""
        while not self.stopping.is_set():
            if select.select([self._handle], [], [], _LOOK_S)[0]:
                return os.read(self._handle, size)
        return b""

    def _lines(self, inbox: Inbox, source: str, form: str, held: bytes) -> None:
        head, lines, ended = b"", 0, False
        while not ended:
            cut = held.rfind(b"\n") + 1
            if not cut and len(held) <= LINE_BYTES:
                data = self.read(READ_BYTES)
                held, ended = held + data, not data
                cut = len(held) if ended and not self.stopping.is_set() else 0
                if not cut:
                    continue
            ready, held = (held[:cut], held[cut:]) if cut else (held, b"")
            before = head
            head, body = head_lines(form, head, ready, at_start=lines == 0)
            first = lines + 1
            if FOLLOWED[form] is HeadLines.FIRST:
                before, first = head, first + (lines == 0)
            found = decoded_lines(form, source, body, first, self._device, before)
            lines += ready.count(b"\n") + (not ready.endswith(b"\n"))
            if not inbox.put(Taken(found.batches, self._position, found.aside, found.aside_total, form)):
                return

    def _batches(self, inbox: Inbox, source: str, start: bytes) -> None:
        reading = Reading(Quarantine(), self._device)
        stream, told = cast("BinaryIO", _Rejoined(start, self)), 0
        try:
            for batch in READERS[_ARROW].read(Path(source), stream, reading):
                aside, total = reading.quarantine.records[told:], reading.quarantine.total - told
                told += total
                if not inbox.put(Taken([batch], self._position, aside, total, _ARROW)):
                    return
        except SourceError as fault:
            if self.stopping.is_set():
                return
            reading.quarantine.add(source, fault.position, fault.reason)
            aside = reading.quarantine.records[told:]
            inbox.put(Taken((), self._position, aside, reading.quarantine.total - told))


class _Rejoined:
    """The bytes that were read to tell the format, then the rest."""

    def __init__(self, start: bytes, rest: StandardInput) -> None:
        self._start, self._rest = start, rest

    def read(self, size: int) -> bytes:
        """Some bytes, at most `size`."""
        if self._start:
            part, self._start = self._start[:size], self._start[size:]
            return part
        return self._rest.read(size)
