"""From a trace's clocks to the time of day: one offset for the whole trace, by its first snapshot.

Times are kept on the phone's boot clock, so that a clock that is set meanwhile makes no flow longer or shorter; by how
much it was set widens the bound of the times instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from relaywatch.sources.capture_columns import Records
from relaywatch.sources.perfetto_messages import BOOTTIME, REALTIME

_LAST_NS: Final = 1 << 62
MOST_MOVED_S: Final = 1e6
"""A bound beyond this says no more."""


class Clock:
    """Offsets of a trace's clocks to the time since epoch, in ns."""

    def __init__(self) -> None:
        self.moved_s = 0.0
        self._offsets: dict[int, int] = {}

    @property
    def known(self) -> bool:
        """Whether a snapshot said what time it was."""
        return bool(self._offsets)

    def set(self, snapshot: Mapping[int, int]) -> None:
        """Take a snapshot's readings in ns by clock; of each clock the first one with the time of day counts."""
        real = snapshot.get(REALTIME)
        if real is None or real >= _LAST_NS:
            return
        for clock, reading in snapshot.items():
            if reading < _LAST_NS:
                offset = self._offsets.setdefault(clock, real - reading)
                if clock == BOOTTIME:
                    moved = abs(real - reading - offset) / 1e9
                    self.moved_s = min(max(self.moved_s, moved), MOST_MOVED_S)

    def of(self, times: Records, clocks: Records) -> NDArray[np.int64]:
        """Times (ns on their clocks) as ns since epoch; -1: the clock is not known, or before 1970."""
        found = np.full(len(times), -1, np.int64)
        for clock in np.unique(clocks).tolist():
            offset = self._offsets.get(clock)
            if offset is None:
                continue
            own = clocks == clock
            found[own] = np.maximum(times[own].astype(np.int64) + offset, -1)  # both below 2**62
        return found
