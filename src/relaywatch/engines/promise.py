"""A cheap sign that a pair is worth judging before its time: two of its latest flows that mirror each other.

It decides how soon a finding comes and nothing else: whatever it passes over is judged when its stretch is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from relaywatch.engines.records import FLOW, WORD
from relaywatch.model.compilation import compiled

Words = npt.NDArray[np.uint64]
_FIELDS: Final[Mapping[str, tuple[Any, ...]]] = FLOW.fields or {}
_START, _END, _OUT, _IN, _REMOTE = (
    int(_FIELDS[name][1]) // WORD for name in ("start", "end", "bytes_out", "bytes_in", "remote")
)
NEAR_US: Final = 10_000_000
"""Flows that begin or end within this time of each other may be a client leg and its target leg."""
LIKE: Final = 1.3
PADDED: Final = 60.0
"""Bytes mirror each other within this ratio, so many bytes added to both."""


@compiled
def _like(one: float, other: float) -> bool:
    return one <= LIKE * other + PADDED and other <= LIKE * one + PADDED


@compiled
def mirror(one: Words, other: Words) -> bool:
    """Whether two FLOW records, as words, might be the legs of one bridge: near in time, bytes swapped."""
    out, came = np.int64(one[_OUT]), np.int64(one[_IN])
    if out < 0 or came < 0 or one[_REMOTE] == other[_REMOTE]:
        return False
    if not (_like(float(out), float(np.int64(other[_IN]))) and _like(float(came), float(np.int64(other[_OUT])))):
        return False
    begin, end = np.int64(one[_START]) - np.int64(other[_START]), np.int64(one[_END]) - np.int64(other[_END])
    return bool(abs(begin) <= NEAR_US or abs(end) <= NEAR_US)
