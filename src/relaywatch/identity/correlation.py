"""Which address a phone had, where no lease says: the one whose connections are the phone's, at the phone's times.

A phone that logs its connects and a sensor that sees them agree on (address, port) pairs at one offset of their clocks.
No other device repeats a phone's sequence; an address that fits two phones is a translated one, and is left alone.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from relaywatch.identity.skew import LARGEST_S, estimate

FEWEST: Final = 5
"""Connections at one offset from which an address is the phone's."""
LEAST_SHARE: Final = 0.3
"""Of the phone's connects within the sensor's time, so many must be seen there: part of a day may be on cellular."""
RUNNER_UP: Final = 0.34
"""What the next best address may have of the best one's matches."""
MOST_DEVICES: Final = 64
"""An endpoint that more devices contact tells none of them from the others."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """A sensor's device that is a phone by its connections.

    matches: connections at one offset; share: of the phone's connects in the sensor's time, 0 to 1.
    """

    phone: int
    sensor: int
    matches: int
    share: float


def likenesses(phones: pl.DataFrame, sensors: pl.DataFrame) -> list[Likeness]:
    """Sensor devices that are phones. Both frames: device (code), endpoint (key), time (s).

    Neither a phone with two fitting addresses nor an address that fits two phones is resolved.
    """
    crowded = (
        sensors.group_by("endpoint").agg(pl.col("device").n_unique().alias("n")).filter(pl.col("n") > MOST_DEVICES)
    )
    pairs = phones.join(sensors.join(crowded, on="endpoint", how="anti"), on="endpoint", suffix="_seen")
    pairs = pairs.with_columns((pl.col("time") - pl.col("time_seen")).alias("apart"))
    pairs = pairs.filter(pl.col("apart").abs() <= LARGEST_S)
    best = {}
    for (phone,), group in pairs.sort("device", "device_seen", "apart").group_by("device", maintain_order=True):
        found = _best(int(phone), group, phones.filter(pl.col("device") == phone)["time"], sensors)
        if found is not None:
            best[int(phone)] = found
    claimed: dict[int, int] = defaultdict(int)
    for found in best.values():
        claimed[found.sensor] += 1
    return [found for _, found in sorted(best.items()) if claimed[found.sensor] == 1]


def _best(phone: int, pairs: pl.DataFrame, times: pl.Series, sensors: pl.DataFrame) -> Likeness | None:
    support = {}
    for (sensor,), group in pairs.group_by("device_seen", maintain_order=True):
        skew = estimate(group["apart"].to_numpy())
        if skew is not None:
            support[int(sensor)] = min(skew.support, group.select("endpoint", "time").n_unique())
    ranked = sorted(support.items(), key=lambda entry: (-entry[1], entry[0]))
    if not ranked or ranked[0][1] < FEWEST or (len(ranked) > 1 and ranked[1][1] > RUNNER_UP * ranked[0][1]):
        return None
    sensor, matches = ranked[0]
    seen = sensors.filter(pl.col("device") == sensor)["time"].to_numpy()
    during = int(((times >= np.min(seen) - LARGEST_S) & (times <= np.max(seen) + LARGEST_S)).sum())
    share = matches / max(during, 1)
    return Likeness(phone, sensor, matches, share) if share >= LEAST_SHARE else None
