"""When phones are used: hours of the day in each zone, and slices of time with equally many flows."""

from __future__ import annotations

from typing import Final

import numpy as np

from relaywatch.detection.columns import Floats, Ints
from relaywatch.simulation.plan import DAY_US, SECOND, Plan

PART_US: Final = 300 * SECOND
"""How finely use changes over the day."""
PARTS: Final = DAY_US // PART_US
ZONES: Final = ((1, 0.6), (0, 0.2), (-5, 0.1), (8, 0.1))
"""Hours ahead of UTC, and share of the devices."""
HOURLY: Final = (
    *(0.10, 0.06, 0.05, 0.05, 0.06, 0.10),
    *(0.25, 0.50, 0.60, 0.55, 0.55, 0.60),
    *(0.75, 0.70, 0.60, 0.60, 0.65, 0.75),
    *(0.85, 0.95, 1.00, 0.95, 0.65, 0.25),
)
"""How much phones do in each hour of their day, as a share of the busiest; chosen, not measured."""
SLICE: Final = 65_536
FEWEST: Final = 1_000
HOURS: Final = 24


def use_by_part() -> Floats:
    """How much a phone does in each PART_US of its own day, 0 to 1."""
    at = (np.arange(PARTS) + 0.5) * HOURS / PARTS
    hours = np.arange(-1, HOURS + 1) + 0.5
    return np.interp(at, hours, [HOURLY[-1], *HOURLY, HOURLY[0]])


def slice_bounds(plan: Plan) -> Ints:
    """Bounds of slices of time in us since the begin, between which equally many flows begin: about SLICE.

    Slices are no longer than about an hour, unless that would leave fewer than FEWEST flows in each.
    """
    count = max(-(-plan.flows // SLICE), min(plan.days * HOURS, plan.flows // FEWEST), 1)
    own = use_by_part()
    fleet = np.sum([share * np.roll(own, -hours * PARTS // HOURS) for hours, share in ZONES], axis=0)
    done = np.concatenate([[0.0], np.cumsum(np.tile(fleet, plan.days))])
    bounds: Floats = np.interp(np.arange(count + 1) / count * done[-1], done, np.arange(len(done)) * float(PART_US))
    return np.rint(bounds).astype(np.int64)


def shares(total: int, parts: int) -> Ints:
    """How many of `total` come before each of `parts` equal parts, and the total."""
    return np.array([total * k // parts for k in range(parts + 1)], np.int64)
