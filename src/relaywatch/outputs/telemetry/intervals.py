"""Intervals that overlap, as one: a phone's own lists hold no interval twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

STILL_SO: Final = 1 << 62
"""End, us, of what has none."""
Interval: TypeAlias = tuple[int, int]
"""Begin and end, us since epoch."""


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The times that any interval covers, in order; those that touch are one."""
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found
