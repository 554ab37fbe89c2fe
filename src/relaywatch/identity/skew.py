"""How far two clocks are apart, from connections that both saw.

Where two sources saw the same connections, the differences of their times pile up at the clocks' offset; those of
unrelated pairs spread evenly. The offset is the densest place, and only believed where it stands out of the spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LARGEST_S: Final = 3_600.0
"""Clocks further apart are a wrong time zone or a wrong date: for the reader to say, not to guess here."""
WINDOW_S: Final = 1.0
"""Width within which differences count as one place: connect() to SYN on the wire, and a second's resolution."""
FEWEST: Final = 3
STANDS_OUT: Final = 4.0
"""Differences in the densest window, over those expected there if all were unrelated."""


@dataclass(frozen=True, slots=True)
class Skew:
    """One clock less another, s. spread: half-width that holds most differences; support: differences it rests on."""

    offset: float
    spread: float
    support: int


def estimate(differences: Floats) -> Skew | None:
    """The offset of the clocks; None where the differences (s, of candidate pairs) do not show one."""
    near = np.sort(differences[np.abs(differences) <= LARGEST_S])
    if len(near) < FEWEST:
        return None
    counts = np.searchsorted(near, near + WINDOW_S, side="right") - np.arange(len(near))
    best = int(counts.argmax())
    support = int(counts[best])
    span = max(float(near[-1] - near[0]), WINDOW_S)
    expected = (len(near) - support) * WINDOW_S / span
    if support < FEWEST or support < STANDS_OUT * expected:
        return None
    within = near[best : best + support]
    offset = float(np.median(within))
    spread = float(np.quantile(np.abs(within - offset), 0.95))
    return Skew(offset, spread, support)
