"""How far two clocks are apart, from connections that both saw.

Where two sources saw the same connections, the differences of their times pile up at the clocks' offset; those of
unrelated pairs spread evenly. The offset is the densest place, and only believed where it stands out of the spread.
"""

from __future__ import annotations

import math
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
CHANCE: Final = 1e-4
"""Of unrelated differences, so many sets at the most show an offset: Chernoff's bound of the Poisson tail, over all
windows together."""
FEWEST_EXPECTED: Final = 1e-3


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
    if support < FEWEST or not _stands_out(support, max(expected, FEWEST_EXPECTED), len(near)):
        return None
    within = near[best : best + support]
    offset = float(np.median(within))
    spread = float(np.quantile(np.abs(within - offset), 0.95))
    return Skew(offset, spread, support)


def _stands_out(support: int, expected: float, windows: int) -> bool:
    others = support - 1  # each window begins at a difference, which is no surprise
    surprise = others * math.log(others / expected) - others + expected
    return others > expected and surprise >= math.log(windows / CHANCE)
