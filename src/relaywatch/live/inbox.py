"""Between the inputs' threads and the engine's: a queue bounded by bytes, so that what comes too fast has to wait."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final

from relaywatch.live.taking import Taken

HELD_BYTES: Final = 256 << 20
TAKEN_BYTES: Final = 64 << 20
"""Taken out at a time: what one commit writes."""


class Inbox:
    """Pieces of input on their way to the engine."""

    def __init__(self, limit_bytes: int = HELD_BYTES) -> None:
        self._limit = limit_bytes
        self._changed = threading.Condition()
        self._pieces: deque[Taken] = deque()
        self._bytes = self._promised = 0
        self._closed = False
        self._fault: BaseException | None = None

    def put(self, taken: Taken) -> bool:
        """Hand a piece over, waiting while the queue is full; False: the engine takes no more, the piece is lost."""
        with self._changed:
            while self._full() and not self._closed:
                self._changed.wait()
            return self._add(taken)

    def reserve(self, size_bytes: int) -> bool:
        """Promise room for a piece to come; False: there is none now. A promise ends with release()."""
        with self._changed:
            if self._closed or self._full():
                return False
            self._promised += size_bytes
            return True

    def release(self, size_bytes: int) -> None:
        """The promised piece has come, or never will."""
        with self._changed:
            self._promised -= size_bytes
            self._changed.notify_all()

    def add(self, taken: Taken) -> bool:
        """Hand a promised piece over; False: the engine takes no more."""
        with self._changed:
            return self._add(taken)

    def take(self, timeout_s: float, *, linger_s: float = 0.0) -> list[Taken]:
        """What is there, at most TAKEN_BYTES or one piece; waits for the first, then lingers for more.

        Raises what an input failed of, once everything before it is taken.
        """
        until = time.monotonic() + timeout_s
        with self._changed:
            while not self._pieces and self._fault is None and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            if not self._pieces:
                if self._fault is not None:
                    raise self._fault
                return []
            until = time.monotonic() + linger_s
            while self._bytes < TAKEN_BYTES and not self._closed and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            found: list[Taken] = []
            size = 0
            while self._pieces and (not found or size + self._pieces[0].size_bytes <= TAKEN_BYTES):
                size += self._pieces[0].size_bytes
                found.append(self._pieces.popleft())
            self._bytes -= size
            self._changed.notify_all()
            return found

    def fail(self, fault: BaseException) -> None:
        """An input cannot go on; the engine will be told."""
        with self._changed:
            self._fault = self._fault or fault
            self._changed.notify_all()

    def close(self) -> list[Taken]:
        """Take no more; what was not taken out."""
        with self._changed:
            self._closed = True
            left = list(self._pieces)
            self._pieces.clear()
            self._changed.notify_all()
            return left

    @property
    def depth(self) -> tuple[int, int]:
        """Pieces and bytes that wait."""
        with self._changed:
            return len(self._pieces), self._bytes

    def _full(self) -> bool:
        return self._bytes + self._promised >= self._limit

    def _add(self, taken: Taken) -> bool:
        if self._closed:
            return False
        self._pieces.append(taken)
        self._bytes += taken.size_bytes
        self._changed.notify_all()
        return True
