"""Records that could not be read: kept with file, position and reason, so that nothing is lost in silence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

KEPT_PER_SOURCE: Final = 1000
"""Damaged records kept in full per source; further ones are counted only, so that memory stays bounded."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One record that was not read. position: "line 7", "packet 12", "byte 4096"."""

    source: str
    position: str
    reason: str


@dataclass(slots=True)
class Quarantine:
    """Collects damaged records; counts all, keeps the first KEPT_PER_SOURCE of each source."""

    records: list[Quarantined] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, source: str, position: str, reason: str) -> None:
        """Put one damaged record aside."""
        self.counts[source] += 1
        if self.counts[source] <= KEPT_PER_SOURCE:
            self.records.append(Quarantined(source, position, reason))

    @property
    def total(self) -> int:
        """Damaged records over all sources."""
        return self.counts.total()
